//! A response as it comes in: a head, then a body. Knows no session and no file.

use crate::fetch::body::Body;
use crate::fetch::chunked::ChunkedError;
use crate::fetch::head::{Framing, Head, HeadError, HeadReader};

/// What [`ResponseReader::read`] came upon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The head; the body follows.
    Head(Head),
    /// Bytes of the body.
    Data(&'a [u8]),
    /// More bytes are needed.
    Nothing,
    /// The response is complete; what follows was not asked for.
    Complete,
}

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResponseError {
    Head(HeadError),
    Chunked(ChunkedError),
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    Body(Body),
}

/// A response that is being read.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
}

/// How a response stands when the peer has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtClose {
    Complete,
    /// Nothing of it has come.
    NoResponse,
    /// Some of it is missing.
    Truncated,
}

impl ResponseReader {
    pub(crate) fn new() -> ResponseReader {
        ResponseReader { state: State::Head(HeadReader::default()) }
    }

    /// Reads up to the next part; says how many bytes were taken. All were after [`Part::Nothing`].
    ///
    /// # Errors
    /// [`ResponseError`]; the reader is of no use after it.
    pub(crate) fn read<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Part<'a>), ResponseError> {
        match &mut self.state {
            State::Head(reader) => {
                let (taken, head) = reader.read(input).map_err(ResponseError::Head)?;
                let Some(head) = head else { return Ok((taken, Part::Nothing)) };
                self.state = State::Body(Body::new(head.framing));
                Ok((taken, Part::Head(head)))
            }
            State::Body(body) => {
                if body.is_complete() {
                    return Ok((0, Part::Complete));
                }
                let (taken, data) = body.take(input).map_err(ResponseError::Chunked)?;
                let part = match (data, body.is_complete()) {
                    ([], true) => Part::Complete,
                    ([], false) => Part::Nothing,
                    (data, _) => Part::Data(data),
                };
                Ok((taken, part))
            }
        }
    }

    /// Whether all of it was read, so that the connection may be closed.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.is_complete())
    }

    /// How it stands if nothing more comes.
    pub(crate) fn at_close(&self) -> AtClose {
        match &self.state {
            State::Head(reader) if reader.is_empty() => AtClose::NoResponse,
            State::Body(body) if body.is_complete_at_close() => AtClose::Complete,
            _ => AtClose::Truncated,
        }
    }
}

impl Framing {
    /// Bytes of the body, if the head says so.
    pub(crate) fn length(self) -> Option<u64> {
        match self {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads `text` in pieces of these sizes: status, body, how it stands at the end.
    fn read(text: &[u8], splits: &[usize]) -> Result<(Option<u16>, Vec<u8>, AtClose), ResponseError> {
        let (mut reader, mut status, mut body) = (ResponseReader::new(), None, Vec::new());
        let (mut at, mut splits) = (0, splits.iter().cycle());
        while at < text.len() && !reader.is_complete() {
            let end = (at + splits.next().unwrap()).min(text.len());
            while at < end {
                let (taken, part) = reader.read(&text[at..end])?;
                at += taken;
                match part {
                    Part::Head(head) => status = Some(head.status),
                    Part::Data(data) => body.extend(data),
                    Part::Nothing => assert_eq!(at, end),
                    Part::Complete => break,
                }
            }
        }
        Ok((status, body, reader.at_close()))
    }

    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nWikipediaXX";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nXX";
    const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nWikipedia";

    #[test]
    fn every_framing_gives_the_same_body() {
        for text in [LENGTH, CHUNKED, UNTIL_CLOSE] {
            assert_eq!(read(text, &[1000]), Ok((Some(200), b"Wikipedia".to_vec(), AtClose::Complete)));
        }
    }

    #[test]
    fn a_response_that_is_cut_off_is_noticed_unless_it_ends_with_the_connection() {
        for text in [LENGTH, CHUNKED] {
            let end = text.len() - 3;
            for cut in 1..end {
                assert_eq!(read(&text[..cut], &[1000]).unwrap().2, AtClose::Truncated, "cut at {cut}");
            }
        }
        assert_eq!(read(b"", &[1]).unwrap().2, AtClose::NoResponse);
        assert_eq!(read(&UNTIL_CLOSE[..22], &[1000]).unwrap().2, AtClose::Complete);
    }

    #[test]
    fn an_empty_body_is_complete_with_its_head() {
        let result = read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &[1000]);
        assert_eq!(result, Ok((Some(200), vec![], AtClose::Complete)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_split_gives_the_same_response(
            which in 0usize..3, splits in prop::collection::vec(1usize..20, 1..8),
        ) {
            let text = [LENGTH, CHUNKED, UNTIL_CLOSE][which];
            prop_assert_eq!(read(text, &splits), Ok((Some(200), b"Wikipedia".to_vec(), AtClose::Complete)));
        }
    }
}
