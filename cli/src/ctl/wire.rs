//! The protocol of the control socket, for people with `socat` and for scripts.
//!
//! A request is one line of at most [`REQUEST_MAX`] bytes: commands, with `json` before them for answers in JSON. A reply is
//! any number of parts, each a line `part BYTES` and so many bytes of text, and then `ok BYTES` or `error BYTES` with so many
//! bytes, after which comes the next request. Behind `error BYTES` stands `usage` when nothing was done, because the line was
//! not understood or not allowed. Text, where there is any, ends in a line feed. In JSON an answer is one value; several
//! commands on a line, and commands that answer in parts, give one value a line.

use std::io::{self, BufRead, Read, Write};

/// The longest request, line feed included.
pub(crate) const REQUEST_MAX: usize = 4096;
/// The longest part that a client takes: a million sessions, verbose.
const PART_MAX: usize = 1 << 30;

/// How an answer is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned, for people.
    Text,
    /// JSON values.
    Json,
}

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A line of commands and the format of its answer.
    Command(Format, String),
    /// A line that is too long, not whole or no text: say so and hang up, for what follows is not known to be a request.
    Bad(&'static str),
    /// The client hung up.
    End,
}

/// A reply's last frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reply {
    /// All was done; the last answer.
    Ok(String),
    /// Something failed.
    Error(String),
    /// Nothing was done: the line was not understood or not allowed.
    Usage(String),
}

/// A frame of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// More will come.
    Part(String),
    /// The last.
    Last(Reply),
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
    if line.pop_if(|last| *last == b'\n').is_none() {
        // Half a command may be another command: it is not done.
        return Ok(Request::Bad(if line.len() == REQUEST_MAX {
            "the line is longer than 4096 bytes: no command is; nothing was done"
        } else {
            "the line has no end: a command ends in a line feed; nothing was done"
        }));
    }
    line.pop_if(|last| *last == b'\r');
    let Ok(text) = std::str::from_utf8(&line) else {
        return Ok(Request::Bad("the line is not UTF-8 text: type `help`"));
    };
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Ok(Request::Bad("the line holds a control character: type `help`"));
    }
    let text = text.trim_start();
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

/// Writes one frame; a line feed is added to text that has none at its end.
///
/// # Errors
/// What writing said.
pub(crate) fn write_frame(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let (word, text, tail) = match frame {
        Frame::Part(text) => ("part", text, ""),
        Frame::Last(Reply::Ok(text)) => ("ok", text, ""),
        Frame::Last(Reply::Error(text)) => ("error", text, ""),
        Frame::Last(Reply::Usage(text)) => ("error", text, " usage"),
    };
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let head = format!("{word} {}{tail}\n", text.len() + end.len());
    to.write_all([head.as_str(), text, end].concat().as_bytes())?;
    to.flush()
}

/// Reads one frame.
///
/// # Errors
/// What reading said; `UnexpectedEof` when the stack ended, `InvalidData` when this is no control socket.
pub(crate) fn read_frame(from: &mut impl BufRead) -> io::Result<Frame> {
    let mut head = String::new();
    from.take(64).read_line(&mut head)?;
    if head.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "what answers is no hoststack");
    let (word, rest) = head.trim_end().split_once(' ').ok_or_else(bad)?;
    let (length, tail) = rest.split_once(' ').unwrap_or((rest, ""));
    let length: usize = length.parse().ok().filter(|length| *length <= PART_MAX).ok_or_else(bad)?;
    // Grown with what arrives, not with what was promised.
    let mut text = Vec::new();
    from.take(length as u64).read_to_end(&mut text)?;
    if text.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8(text).map_err(|_| bad())?;
    match (word, tail) {
        ("part", _) => Ok(Frame::Part(text)),
        ("ok", _) => Ok(Frame::Last(Reply::Ok(text))),
        ("error", "usage") => Ok(Frame::Last(Reply::Usage(text))),
        ("error", _) => Ok(Frame::Last(Reply::Error(text))),
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
        // The blank at the end is what completion is asked about.
        assert_eq!(request(b"complete show \n"), Request::Command(Format::Text, "complete show ".to_owned()));
        assert_eq!(request(b""), Request::End);
    }

    #[test]
    fn half_a_line_junk_and_a_line_that_never_ends_are_no_commands() {
        assert!(matches!(request(b"app detach ech"), Request::Bad(why) if why.contains("no end")));
        assert!(matches!(request(b"a\0b\n"), Request::Bad(why) if why.contains("control character")));
        assert!(matches!(request(&[0xff, b'\n']), Request::Bad(why) if why.contains("UTF-8")));
        let endless = vec![b'a'; 4 * REQUEST_MAX];
        let mut from = &endless[..];
        assert!(matches!(read_request(&mut from).unwrap(), Request::Bad(why) if why.contains("4096")));
        assert_eq!(from.len(), 3 * REQUEST_MAX, "it is not read to its end");
        let mut longest = vec![b'a'; REQUEST_MAX - 1];
        longest.push(b'\n');
        assert!(matches!(request(&longest), Request::Command(..)));
    }

    #[test]
    fn frames_come_back_with_a_line_feed_at_their_end() {
        let frames = [
            Frame::Part("a\nb\n".to_owned()),
            Frame::Part(String::new()),
            Frame::Last(Reply::Ok("a\n".to_owned())),
            Frame::Last(Reply::Ok(String::new())),
            Frame::Last(Reply::Error("no such app\n".to_owned())),
            Frame::Last(Reply::Usage("unknown\n".to_owned())),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| write_frame(&mut bytes, frame).unwrap());
        let mut from = &bytes[..];
        for frame in frames {
            assert_eq!(read_frame(&mut from).unwrap(), frame);
        }
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Frame::Last(Reply::Usage("no end".to_owned()))).unwrap();
        assert_eq!(bytes, b"error 7 usage\nno end\n");
    }

    #[test]
    fn nonsense_and_truncated_replies_are_errors() {
        for bytes in
            ["HTTP/1.1 400\n", "ok\n", "ok x\n", "ok 99999999999\n", "maybe 1\nx", "ok 2\n\n", "part 9\nx"]
        {
            assert!(read_frame(&mut bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert_eq!(read_frame(&mut &b""[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
