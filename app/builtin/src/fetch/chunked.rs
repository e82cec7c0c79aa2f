//! The chunked transfer coding (RFC 9112 §7.1), decoded in place from any split of its bytes.
//!
//! Strict about line ends: a bare LF inside the coding is how two readers come to see two different messages.

/// Most bytes of a chunk-size line, its extensions included.
const SIZE_LINE_MAX: usize = 4096;
/// Most bytes of all trailer fields together.
const TRAILER_MAX: usize = 64 * 1024;

/// A piece of the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes of the body, never none.
    Data(&'a [u8]),
    /// Only framing so far; more bytes are needed.
    Nothing,
    /// The coding is complete; what follows is not part of it.
    End,
}

/// What is wrong with the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkedError {
    /// Not a hexadecimal number of at most 16 digits.
    Size,
    /// A line of the coding ends otherwise than with CR LF, or data are not followed by it.
    LineEnd,
    /// A size line or the trailer is longer than allowed.
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size; `digits` of them so far.
    Size {
        digits: u8,
    },
    /// In white space or an extension after a size.
    Extension,
    /// After the CR that ends a size line.
    SizeLf,
    /// In data; `left` bytes of it to come.
    Data,
    /// Data are over: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line, in one, and after its CR.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Done,
}

/// A decoder between two pieces.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    state: State,
    /// The size being read, then bytes of data to come.
    left: u64,
    /// Bytes of the size line or trailer so far.
    line: usize,
}

impl ChunkedDecoder {
    pub(crate) fn new() -> ChunkedDecoder {
        ChunkedDecoder { state: State::Size { digits: 0 }, left: 0, line: 0 }
    }

    /// Decodes up to the next piece of `input`; also says how many bytes of it were taken. After [`Piece::Nothing`]
    /// all were.
    ///
    /// # Errors
    /// [`ChunkedError`]; the decoder is of no use after it.
    pub(crate) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), ChunkedError> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Data => {
                    let rest = &input[at..];
                    // `count` is at most the length of a slice.
                    let count = self.left.min(rest.len() as u64);
                    self.left -= count;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    let count = count as usize;
                    return Ok((at + count, Piece::Data(&rest[..count])));
                }
                State::Done => return Ok((at, Piece::End)),
                _ => {
                    self.state = self.framing(input[at])?;
                    at += 1;
                }
            }
        }
        Ok((at, if self.state == State::Done { Piece::End } else { Piece::Nothing }))
    }

    /// The state after one byte of framing.
    fn framing(&mut self, byte: u8) -> Result<State, ChunkedError> {
        let (max, is_line) = match self.state {
            State::Size { .. } | State::Extension => (SIZE_LINE_MAX, true),
            State::TrailerStart | State::Trailer | State::TrailerLf => (TRAILER_MAX, true),
            _ => (0, false),
        };
        if is_line {
            self.line += 1;
            if self.line > max {
                return Err(ChunkedError::TooLong);
            }
        }
        Ok(match (self.state, byte) {
            (State::Size { digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return Err(ChunkedError::Size);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.left = (self.left << 4) | u64::from(digit);
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 0 }, _) => return Err(ChunkedError::Size),
            (State::Size { .. } | State::Extension, b'\r') => State::SizeLf,
            (State::Size { .. }, b';' | b' ' | b'\t') => State::Extension,
            (State::Size { .. }, _) => return Err(ChunkedError::Size),
            (State::Extension, b'\n') => return Err(ChunkedError::LineEnd),
            (State::Extension, _) => State::Extension,
            (State::SizeLf, b'\n') => {
                self.line = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                State::Size { digits: 0 }
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, b'\n') => return Err(ChunkedError::LineEnd),
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => State::Trailer,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            (State::SizeLf | State::DataCr | State::DataLf | State::TrailerLf | State::EndLf, _) => {
                return Err(ChunkedError::LineEnd);
            }
            (State::Data | State::Done, _) => unreachable!("decode handles data and the end itself"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body, and what of the input lies behind the coding.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<Vec<u8>>), ChunkedError> {
        let (mut decoder, mut body, mut rest) = (ChunkedDecoder::new(), Vec::new(), None::<Vec<u8>>);
        for piece in pieces {
            let mut piece = *piece;
            if let Some(rest) = &mut rest {
                rest.extend(piece);
                continue;
            }
            while !piece.is_empty() {
                let (taken, what) = decoder.decode(piece)?;
                piece = &piece[taken..];
                match what {
                    Piece::Data(data) => body.extend(data),
                    Piece::Nothing => assert!(piece.is_empty()),
                    Piece::End => {
                        rest = Some(piece.to_vec());
                        break;
                    }
                }
            }
        }
        Ok((body, rest))
    }

    fn error(input: &str) -> ChunkedError {
        decode(&[input.as_bytes()]).unwrap_err()
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let input = b"4;name=\"a;b\"\r\nWiki\r\n5 \r\npedia\r\n0\r\nExpires: never\r\nX: y\r\n\r\nnext";
        let (body, rest) = decode(&[input]).unwrap();
        assert_eq!((body.as_slice(), rest.as_deref()), (&b"Wikipedia"[..], Some(&b"next"[..])));
        assert_eq!(decode(&[b"0\r\n\r\n"]).unwrap(), (vec![], Some(vec![])));
        assert_eq!(decode(&[b"00000A\r\n0123456789\r\n000\r\n\r\n"]).unwrap().0, b"0123456789");
    }

    #[test]
    fn an_unfinished_coding_has_no_end() {
        let whole = b"4\r\nWiki\r\n0\r\nA: b\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(decode(&[&whole[..end]]).unwrap().1, None, "cut at {end}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_coding() {
        assert_eq!(error("\r\n"), ChunkedError::Size);
        assert_eq!(error("-4\r\n"), ChunkedError::Size);
        assert_eq!(error("0x4\r\n"), ChunkedError::Size);
        assert_eq!(error("4\nWiki"), ChunkedError::Size);
        assert_eq!(error("11112222333344445\r\n"), ChunkedError::Size);
        assert_eq!(error("4;x\nWiki"), ChunkedError::LineEnd);
        assert_eq!(error("4\rWiki"), ChunkedError::LineEnd);
        assert_eq!(error("4\r\nWikipedia"), ChunkedError::LineEnd);
        assert_eq!(error("0\r\n\n"), ChunkedError::LineEnd);
        assert_eq!(error("0\r\nA: b\n"), ChunkedError::LineEnd);
        assert_eq!(error(&format!("4;{}\r\n", "x".repeat(SIZE_LINE_MAX))), ChunkedError::TooLong);
        assert_eq!(error(&format!("0\r\n{}", "A: b\r\n".repeat(TRAILER_MAX / 6 + 1))), ChunkedError::TooLong);
    }

    /// `body` in chunks of these sizes.
    fn encode(body: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut coded, mut rest, mut sizes) = (Vec::new(), body, sizes.iter().cycle());
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            coded.extend(format!("{:x}\r\n", chunk.len()).bytes());
            coded.extend(chunk);
            coded.extend(b"\r\n");
            rest = behind;
        }
        coded.extend(b"0\r\n\r\n");
        coded
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_body_in_any_chunks_and_any_splits_comes_out_whole(
            body in prop::collection::vec(any::<u8>(), 0..2000),
            sizes in prop::collection::vec(1usize..300, 1..8),
            splits in prop::collection::vec(1usize..200, 1..8),
        ) {
            let coded = encode(&body, &sizes);
            let (mut pieces, mut rest, mut splits) = (Vec::new(), coded.as_slice(), splits.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*splits.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(decode(&pieces).unwrap(), (body, Some(vec![])));
        }

        #[test]
        fn no_bytes_panic_and_every_call_takes_something(input in prop::collection::vec(
            prop::sample::select(b"0123aF;\r\n x".to_vec()), 1..200,
        )) {
            let mut decoder = ChunkedDecoder::new();
            let mut rest = input.as_slice();
            while let (false, Ok((taken, piece))) = (rest.is_empty(), decoder.decode(rest)) {
                if piece == Piece::End {
                    break;
                }
                prop_assert!(taken > 0);
                rest = &rest[taken..];
            }
        }
    }
}
