//! The head of a response: status line and header fields (RFC 9112 §4 to §6), read by `httparse`.

use std::fmt;

/// Most bytes of a head, and of all interim heads before it together.
pub(crate) const HEAD_MAX: usize = 64 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 128;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// It says itself where it ends.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// What fetch needs to know of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The `Location` field, if there is one and it is text.
    pub(crate) location: Option<String>,
}

impl Head {
    /// Whether another head follows (RFC 9110 §15.2). A 101 would end HTTP; nobody asked for that.
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// What is wrong with a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// `httparse` did not understand it.
    Syntax(String),
    /// A `Content-Length` that is no number, or two that differ.
    ContentLength,
    /// A transfer coding other than a single `chunked`, which nobody asked for.
    TransferEncoding,
    /// Larger than 64 KiB, or of more than 128 fields.
    TooLarge,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::Syntax(what) => write!(f, "not an HTTP/1 response head ({what})"),
            HeadError::ContentLength => f.write_str("content-length is not one number"),
            HeadError::TransferEncoding => f.write_str("a transfer coding that is not chunked"),
            HeadError::TooLarge => write!(f, "a head of more than {HEAD_MAX} bytes or {FIELDS_MAX} fields"),
        }
    }
}

/// Collects bytes until a head is complete.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    bytes: Vec<u8>,
    /// Bytes of interim heads read before.
    interim: usize,
}

impl HeadReader {
    /// Whether nothing was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.interim == 0
    }

    /// Reads on; says how many bytes were taken, and the head if it is complete. Interim heads are skipped.
    ///
    /// # Errors
    /// [`HeadError`].
    pub(crate) fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Head>), HeadError> {
        let mut taken = 0;
        loop {
            let before = self.bytes.len();
            let room = HEAD_MAX - self.interim - before;
            let rest = &input[taken..];
            self.bytes.extend_from_slice(&rest[..rest.len().min(room)]);
            // An end may begin up to two bytes before the new ones.
            let Some(end) = end_of_head(&self.bytes, before.saturating_sub(2)) else {
                if rest.len() >= room {
                    return Err(HeadError::TooLarge);
                }
                return Ok((input.len(), None));
            };
            taken += end - before;
            self.bytes.truncate(end);
            let head = parse(&self.bytes)?;
            self.bytes.clear();
            if !head.is_interim() {
                return Ok((taken, Some(head)));
            }
            self.interim += end;
        }
    }
}

/// One past the empty line that ends a head, looking from `from` on. A line may end in a bare LF (RFC 9112 §2.2).
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(lf) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += lf + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn parse(bytes: &[u8]) -> Result<Head, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Syntax("it ends early".to_owned())),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(error) => return Err(HeadError::Syntax(error.to_string())),
    }
    let status = response.code.ok_or_else(|| HeadError::Syntax("no status".to_owned()))?;
    let is_http_1_0 = response.version == Some(0);
    let values = |name: &'static str| {
        response
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let location =
        values("location").next().and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    let framing = if status < 200 || status == 204 || status == 304 {
        // RFC 9112 §6.3 rule 1: never a body, whatever the fields say.
        Framing::None
    } else if values("transfer-encoding").next().is_some() {
        // RFC 9112 §6.3 rule 3: the coding wins over a length. §6.1: in HTTP/1.0 the framing is faulty.
        let mut codings = values("transfer-encoding").flat_map(list_members);
        let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() || is_http_1_0 {
            return Err(HeadError::TransferEncoding);
        }
        Framing::Chunked
    } else {
        let mut lengths = values("content-length").flat_map(list_members).map(parse_length);
        match lengths.next() {
            None => Framing::UntilClose,
            // RFC 9110 §8.6: the same length said twice is one length.
            Some(Some(length)) if lengths.all(|other| other == Some(length)) => Framing::Length(length),
            Some(_) => return Err(HeadError::ContentLength),
        }
    };
    Ok(Head { status, framing, location })
}

/// The members of a comma-separated field value, an empty value being one empty member.
fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    // `str::parse` would take a sign.
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<(usize, Option<Head>), HeadError> {
        HeadReader::default().read(text.as_bytes())
    }

    fn framing(fields: &str) -> Result<Framing, HeadError> {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).map(|(_, head)| head.unwrap().framing)
    }

    #[test]
    fn a_head_ends_at_its_empty_line_and_leaves_the_body() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let (taken, head) = read(text).unwrap();
        assert_eq!(&text[taken..], "hello");
        assert_eq!(head, Some(Head { status: 200, framing: Framing::Length(5), location: None }));
    }

    #[test]
    fn how_the_end_of_a_body_is_found() {
        assert_eq!(framing("A: b"), Ok(Framing::UntilClose));
        assert_eq!(framing("content-length: 5\r\nContent-Length: 5, 5"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked"), Ok(Framing::Chunked));
        assert_eq!(framing("Content-Length: 5\r\nTransfer-Encoding: chunked"), Ok(Framing::Chunked));
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 6"), Err(HeadError::ContentLength));
        for bad in ["", "-5", "+5", "5x", "5,", "99999999999999999999"] {
            assert_eq!(framing(&format!("Content-Length: {bad}")), Err(HeadError::ContentLength), "{bad}");
        }
        for bad in ["gzip", "gzip, chunked", "chunked, chunked", "identity", ""] {
            assert_eq!(
                framing(&format!("Transfer-Encoding: {bad}")),
                Err(HeadError::TransferEncoding),
                "{bad}"
            );
        }
        let old = read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old, Err(HeadError::TransferEncoding));
    }

    #[test]
    fn statuses_without_a_body_have_none_whatever_the_fields_say() {
        for status in [204, 304] {
            let (_, head) = read(&format!("HTTP/1.1 {status} X\r\nContent-Length: 9\r\n\r\n")).unwrap();
            assert_eq!(head.unwrap().framing, Framing::None);
        }
    }

    #[test]
    fn interim_heads_are_skipped_but_no_switch_of_protocols() {
        let (_, head) =
            read("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 404 No\r\n\r\n")
                .unwrap();
        assert_eq!(head.unwrap().status, 404);
        assert_eq!(read("HTTP/1.1 101 Switch\r\n\r\n").unwrap().1.unwrap().status, 101);
    }

    #[test]
    fn a_redirect_says_where_to() {
        let (_, head) = read("HTTP/1.1 301 Moved\r\nLocation: /there\r\n\r\n").unwrap();
        assert_eq!(head.unwrap().location.as_deref(), Some("/there"));
    }

    #[test]
    fn lines_may_end_in_a_bare_line_feed() {
        let text = "HTTP/1.1 200 OK\nContent-Length: 1\n\nx";
        let (taken, head) = read(text).unwrap();
        assert_eq!((&text[taken..], head.unwrap().framing), ("x", Framing::Length(1)));
    }

    #[test]
    fn what_is_no_head() {
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(matches!(read(bad), Err(HeadError::Syntax(_))), "{bad:?}");
        }
        let fields = "A: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")), Err(HeadError::TooLarge));
    }

    #[test]
    fn a_head_without_end_is_given_up_at_the_limit() {
        let mut reader = HeadReader::default();
        let piece = [b'x'; 4096];
        for _ in 0..HEAD_MAX / piece.len() - 1 {
            assert_eq!(reader.read(&piece), Ok((piece.len(), None)));
        }
        assert_eq!(reader.read(&piece), Err(HeadError::TooLarge));
    }

    #[test]
    fn interim_heads_count_towards_the_limit() {
        let mut reader = HeadReader::default();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        let result = (0..HEAD_MAX / interim.len() + 1).try_for_each(|_| reader.read(&interim).map(|_| ()));
        assert_eq!(result, Err(HeadError::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_split_reads_the_same_head(splits in prop::collection::vec(1usize..30, 1..8)) {
            let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\nContent-Length: 1234\r\n\r\nbody";
            let (mut reader, mut at, mut splits) = (HeadReader::default(), 0, splits.iter().cycle());
            let head = loop {
                let end = (at + splits.next().unwrap()).min(text.len());
                let (taken, head) = reader.read(&text[at..end]).unwrap();
                at += taken;
                if let Some(head) = head {
                    break head;
                }
            };
            prop_assert_eq!(head.framing, Framing::Length(1234));
            prop_assert_eq!(&text[at..], b"body");
        }
    }
}
