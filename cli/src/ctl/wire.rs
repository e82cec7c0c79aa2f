//! The protocol of the control socket, for people with `socat` and for scripts.
//!
//! A request is one line of at most [`REQUEST_MAX`] bytes: a command, or `json` and a command. A reply is one line
//! `ok BYTES` or `error BYTES`, then so many bytes of text, which end in a line feed. Then the next request.

use std::io::{self, BufRead, Read, Write};

/// The longest request, line feed included.
pub(crate) const REQUEST_MAX: usize = 1024;
/// The longest reply that a client takes: a million sessions, verbose.
const REPLY_MAX: usize = 1 << 30;

/// How an answer is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned, for people.
    Text,
    /// One JSON value.
    Json,
}

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A command and the format of its answer.
    Command(Format, String),
    /// A line that is too long or no text: say so and hang up, for what follows is not known to be a request.
    Bad(&'static str),
    /// The client hung up.
    End,
}

/// Reads one request.
///
/// # Errors
/// What reading said, a time-out included.
pub(crate) fn read_request(from: &mut impl BufRead) -> io::Result<Request> {
    let mut line = Vec::new();
    // Cannot truncate because: REQUEST_MAX is small.
    from.take(REQUEST_MAX as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Request::End);
    }
    if line.last() != Some(&b'\n') && line.len() == REQUEST_MAX {
        return Ok(Request::Bad("the line is longer than 1024 bytes: no command is"));
    }
    let Ok(text) = std::str::from_utf8(&line) else {
        return Ok(Request::Bad("the line is not UTF-8 text"));
    };
    let text = text.trim();
    Ok(match text.strip_prefix("json") {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
            Request::Command(Format::Json, rest.trim_start().to_owned())
        }
        _ => Request::Command(Format::Text, text.to_owned()),
    })
}

/// Writes one request.
///
/// # Errors
/// What writing said.
pub(crate) fn write_request(to: &mut impl Write, format: Format, command: &str) -> io::Result<()> {
    let prefix = match format {
        Format::Text => "",
        Format::Json => "json ",
    };
    to.write_all(format!("{prefix}{command}\n").as_bytes())?;
    to.flush()
}

/// Writes one reply; a line feed is added where there is none.
///
/// # Errors
/// What writing said.
pub(crate) fn write_reply(to: &mut impl Write, reply: &Result<String, String>) -> io::Result<()> {
    let (word, text) = match reply {
        Ok(text) => ("ok", text),
        Err(text) => ("error", text),
    };
    let end = if text.ends_with('\n') { "" } else { "\n" };
    to.write_all(format!("{word} {}\n{text}{end}", text.len() + end.len()).as_bytes())?;
    to.flush()
}

/// Reads one reply.
///
/// # Errors
/// What reading said; `UnexpectedEof` when the stack ended, `InvalidData` when this is no control socket.
pub(crate) fn read_reply(from: &mut impl BufRead) -> io::Result<Result<String, String>> {
    let mut head = String::new();
    from.take(64).read_line(&mut head)?;
    if head.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "what answers is no hoststack");
    let (word, length) = head.trim_end().split_once(' ').ok_or_else(bad)?;
    let length: usize = length.parse().ok().filter(|length| *length <= REPLY_MAX).ok_or_else(bad)?;
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| bad())?;
    match word {
        "ok" => Ok(Ok(text)),
        "error" => Ok(Err(text)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8]) -> Request {
        read_request(&mut &bytes[..]).unwrap()
    }

    #[test]
    fn requests_come_back_as_they_were_written() {
        for format in [Format::Text, Format::Json] {
            let mut bytes = Vec::new();
            write_request(&mut bytes, format, "show app").unwrap();
            assert_eq!(request(&bytes), Request::Command(format, "show app".to_owned()));
        }
        assert_eq!(request(b"jsonx\n"), Request::Command(Format::Text, "jsonx".to_owned()));
        assert_eq!(request(b"json\r\n"), Request::Command(Format::Json, String::new()));
        assert_eq!(request(b"help"), Request::Command(Format::Text, "help".to_owned()));
        assert_eq!(request(b""), Request::End);
    }

    #[test]
    fn a_line_that_never_ends_is_not_read_to_its_end() {
        let endless = vec![b'a'; 4 * REQUEST_MAX];
        let mut from = &endless[..];
        assert!(matches!(read_request(&mut from).unwrap(), Request::Bad(_)));
        assert_eq!(from.len(), 3 * REQUEST_MAX);
        assert!(matches!(request(&[0xff, b'\n']), Request::Bad(_)));
        let mut longest = vec![b'a'; REQUEST_MAX - 1];
        longest.push(b'\n');
        assert!(matches!(request(&longest), Request::Command(..)));
    }

    #[test]
    fn replies_come_back_with_a_line_feed_at_their_end() {
        for reply in [Ok("a\nb\n".to_owned()), Err("no such app".to_owned()), Ok(String::new())] {
            let mut bytes = Vec::new();
            write_reply(&mut bytes, &reply).unwrap();
            let ended = |text: String| if text.ends_with('\n') { text } else { text + "\n" };
            assert_eq!(read_reply(&mut &bytes[..]).unwrap(), reply.map(ended).map_err(ended));
        }
    }

    #[test]
    fn nonsense_and_truncated_replies_are_errors() {
        for bytes in ["HTTP/1.1 400\n", "ok\n", "ok x\n", "ok 99999999999\n", "maybe 1\nx", "ok 2\n\n"] {
            assert!(read_reply(&mut bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert_eq!(read_reply(&mut &b""[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
