//! One request on one session: sends it, reads the response, fills the sink.

use hoststack_app::{Context, Instant, SessionHandle};

use crate::fetch::app::{FetchOptions, FetchRequest, FetchSink};
use crate::fetch::head::Head;
use crate::fetch::outcome::{FetchCell, FetchError, FetchOutcome, Fetched};
use crate::fetch::response::{AtClose, Part, ResponseError, ResponseReader};
use crate::fetch::sink::Sink;

/// Whether a transfer goes on.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Progress {
    /// More is to come.
    More,
    /// The response is complete.
    Complete,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) index: u32,
    pub(crate) session: SessionHandle,
    request: Vec<u8>,
    sent: usize,
    reader: ResponseReader,
    status: Option<u16>,
    expected: Option<u64>,
    received: u64,
    /// Made when a good head was read: a failed request leaves no trace.
    sink: Option<Sink>,
    /// When something was last sent or received.
    pub(crate) moved: Instant,
}

impl Transfer {
    pub(crate) fn new(index: u32, session: SessionHandle, request: &FetchRequest, now: Instant) -> Transfer {
        Transfer {
            index,
            session,
            request: request.to_bytes(),
            sent: 0,
            reader: ResponseReader::new(),
            status: None,
            expected: None,
            received: 0,
            sink: None,
            moved: now,
        }
    }

    /// Sends what there is room for.
    pub(crate) fn send(&mut self, ctx: &mut Context<'_>) {
        if self.sent < self.request.len() {
            self.sent += ctx.write(self.session, &self.request[self.sent..]);
            self.moved = ctx.now();
        }
    }

    /// Reads all that was received.
    ///
    /// # Errors
    /// The request failed.
    pub(crate) fn receive(
        &mut self,
        ctx: &mut Context<'_>,
        request: &FetchRequest,
        options: &FetchOptions,
        cell: &FetchCell,
    ) -> Result<Progress, FetchError> {
        self.moved = ctx.now();
        while !self.reader.is_complete() {
            let input = ctx.peek(self.session);
            if input.is_empty() {
                return Ok(Progress::More);
            }
            let taken = self.read(input, request, options, cell)?;
            ctx.consume(self.session, taken);
        }
        Ok(Progress::Complete)
    }

    fn read(
        &mut self,
        input: &[u8],
        request: &FetchRequest,
        options: &FetchOptions,
        cell: &FetchCell,
    ) -> Result<usize, FetchError> {
        let (taken, part) = self.reader.read(input).map_err(|error| match error {
            ResponseError::Head(error) => FetchError::BadHead(error),
            ResponseError::Chunked(_) => FetchError::BadChunks,
        })?;
        match part {
            Part::Head(head) => {
                self.status = Some(head.status);
                self.begin_body(head, request, options, cell)?;
            }
            Part::Data(data) => {
                self.received += data.len() as u64;
                cell.bytes.add(data.len() as u64);
                if let Some(sink) = &mut self.sink {
                    sink.write(data)?;
                }
            }
            Part::Nothing | Part::Complete => {}
        }
        Ok(taken)
    }

    fn begin_body(
        &mut self,
        head: Head,
        request: &FetchRequest,
        options: &FetchOptions,
        cell: &FetchCell,
    ) -> Result<(), FetchError> {
        if !(200..300).contains(&head.status) {
            return Err(FetchError::Status { status: head.status, location: head.location });
        }
        self.expected = head.framing.length();
        if let Some(expected) = self.expected {
            cell.set_expected(expected);
        }
        let memory_max = options.memory_max;
        self.sink = Some(match &request.sink {
            FetchSink::File(path) => Sink::file(path)?,
            FetchSink::Memory if self.expected.is_some_and(|expected| expected > memory_max as u64) => {
                return Err(FetchError::TooLarge);
            }
            FetchSink::Memory => Sink::Memory { bytes: Vec::new(), max: memory_max },
            FetchSink::Discard => Sink::Discard,
        });
        Ok(())
    }

    /// The peer will send no more.
    pub(crate) fn at_close(&self) -> Result<(), FetchError> {
        match self.reader.at_close() {
            AtClose::Complete => Ok(()),
            AtClose::NoResponse => Err(FetchError::NoResponse),
            AtClose::Truncated => {
                Err(FetchError::Truncated { received: self.received, expected: self.expected })
            }
        }
    }

    /// The outcome; a complete response's file gets its name here.
    pub(crate) fn finish(self, result: Result<(), FetchError>) -> FetchOutcome {
        let result = result.and_then(|()| self.sink.map_or(Ok(Fetched::Discarded), Sink::finish));
        FetchOutcome { index: self.index as usize, status: self.status, bytes: self.received, result }
    }
}
