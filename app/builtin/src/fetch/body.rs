//! A body as it comes in, whatever its framing.

use crate::fetch::chunked::{ChunkedDecoder, ChunkedError, Piece};
use crate::fetch::head::Framing;

/// A body that is being read.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(ChunkedDecoder),
    /// Bytes are to come until the connection closes.
    UntilClose,
    /// Complete.
    Complete,
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Body {
        match framing {
            Framing::None | Framing::Length(0) => Body::Complete,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(ChunkedDecoder::new()),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Takes from `input`: how many bytes, and which of them are the body's. Some are taken unless the body is complete.
    ///
    /// # Errors
    /// The coding is broken.
    pub(crate) fn take<'a>(&mut self, input: &'a [u8]) -> Result<(usize, &'a [u8]), ChunkedError> {
        match self {
            Body::Length(left) => {
                // At most the length of a slice.
                let count = (*left).min(input.len() as u64);
                *left -= count;
                if *left == 0 {
                    *self = Body::Complete;
                }
                Ok((count as usize, &input[..count as usize]))
            }
            Body::Chunked(decoder) => {
                let (taken, piece) = decoder.decode(input)?;
                match piece {
                    Piece::Data(data) => Ok((taken, data)),
                    Piece::Nothing => Ok((taken, &[])),
                    Piece::End => {
                        *self = Body::Complete;
                        Ok((taken, &[]))
                    }
                }
            }
            Body::UntilClose => Ok((input.len(), input)),
            Body::Complete => Ok((0, &[])),
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Body::Complete)
    }

    /// Whether it is complete now that nothing more will come.
    pub(crate) fn is_complete_at_close(&self) -> bool {
        matches!(self, Body::Complete | Body::UntilClose)
    }
}
