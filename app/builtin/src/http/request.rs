//! What the head of a request says (RFC 9112 §2.2, §3, §6; RFC 9110 §9), read by `httparse`.

use hoststack_app::Protocol;

/// Most bytes of a head.
pub(super) const HEAD_MAX: usize = 8 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 100;

/// What is done with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Ask for it.
    Get,
    /// Ask for its head.
    Head,
}

impl Method {
    pub(super) const ALLOWED: &str = "GET, HEAD";
}

/// A request without a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The path, decoded: `/session/0:1.2`.
    pub path: String,
    /// What follows the `?`, as it came; empty without one.
    pub query: String,
    /// What the server was called: the target's authority, or else the `Host` field; empty in HTTP/1.0 without one.
    pub host: String,
    /// The media types that the client accepts: its `Accept` fields, with commas between (RFC 9110 §5.3).
    pub accept: String,
    /// The transport that it came over.
    pub protocol: Protocol,
}

impl Request {
    /// A value of the query, decoded as forms are (`+` is a space); the first one of that name.
    pub fn query_value(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| percent_decoded(&value.replace('+', " ")))
    }
}

/// A request read, and whether its connection stays open after the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) keeps_open: bool,
}

/// Why a request is refused. The connection ends with the answer: where the next request would begin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) why: &'static str,
}

const fn refusal(status: u16, why: &'static str) -> Refusal {
    Refusal { status, why }
}

/// Reads the head at the front of `bytes`, at most [`HEAD_MAX`] of them; `None`: more must come. Also says how many bytes the
/// head takes.
///
/// # Errors
/// What it is refused for.
pub(super) fn read(bytes: &[u8], protocol: Protocol) -> Result<Option<(usize, Head)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    // RFC 9112 §2.2: empty lines before a request line are ignored; httparse does.
    let taken = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(taken)) => taken,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(refusal(431, "the head is longer than 8 KiB\n")),
        Err(httparse::Error::TooManyHeaders) => return Err(refusal(431, "more than 100 header fields\n")),
        Err(httparse::Error::Version) => return Err(refusal(505, "this is an HTTP/1 server\n")),
        Err(_) => return Err(refusal(400, "this is no HTTP/1.1 request\n")),
    };
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Err(refusal(405, "only GET and HEAD are answered\n")),
    };
    let is_http_1_0 = parsed.version == Some(0);
    let values = |name: &'static str| {
        parsed
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let coded = values("transfer-encoding").next().is_some();
    let mut length = 0;
    for value in values("content-length").flat_map(members) {
        let number = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        // RFC 9112 §6.3 rule 5: an invalid length is an error. One too large for a number is a body too large.
        match number {
            Some(text) if !text.is_empty() => length = text.parse().unwrap_or(u64::MAX).max(length),
            _ => return Err(refusal(400, "the Content-Length is no number\n")),
        }
    }
    if coded && values("content-length").next().is_some() {
        // RFC 9112 §6.3 rule 3: this is how requests are smuggled.
        return Err(refusal(400, "both Transfer-Encoding and Content-Length\n"));
    }
    if coded || length > 0 {
        return Err(refusal(413, "no request here has a body\n"));
    }
    let mut hosts = values("host");
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            std::str::from_utf8(host).map_err(|_| refusal(400, "the Host is no text\n"))?.trim().to_owned()
        }
        (None, _) if is_http_1_0 => String::new(),
        // RFC 9112 §3.2: none or several in HTTP/1.1 MUST be answered with a 400.
        _ => return Err(refusal(400, "a request has one Host field\n")),
    };
    let Target { authority, path, query } = target(parsed.path.unwrap_or_default())?;
    // RFC 9112 §3.2.2: a target with an authority decides, and the Host field, which must be there, MUST be ignored.
    let host = authority.unwrap_or(host);
    let accept: Vec<_> = values("accept").map(String::from_utf8_lossy).collect();
    let accept = accept.join(",");
    let mut options = values("connection").flat_map(members);
    // RFC 9112 §9.3: HTTP/1.1 goes on unless told otherwise. HTTP/1.0 would have to ask for it and be told; it is not kept.
    let keeps_open = !is_http_1_0 && !options.any(|option| option.eq_ignore_ascii_case(b"close"));
    Ok(Some((taken, Head { request: Request { method, path, query, host, accept, protocol }, keeps_open })))
}

/// A request's target.
struct Target {
    /// Whom it is asked of, if it is a whole URI.
    authority: Option<String>,
    path: String,
    query: String,
}

/// Reads a target (RFC 9112 §3.2): `/path?query`, or a whole URI, which every server must understand.
fn target(target: &str) -> Result<Target, Refusal> {
    let bad = refusal(400, "the target is no path\n");
    let (authority, origin) = match target.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            // RFC 9110 §4.2.1: one without a host MUST be rejected.
            if host.is_empty() || host.starts_with(':') {
                return Err(bad);
            }
            (Some(host.to_owned()), origin)
        }
        _ if target.starts_with('/') => (None, target),
        _ => return Err(bad),
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { authority, path: percent_decoded(path).ok_or(bad)?, query: query.to_owned() })
}

/// `%2F` as `/`; `None` where that is no text, or `%` has no two digits after it.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            // Cannot truncate because: two hexadecimal digits are a byte.
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// The members of a comma-separated field value, an empty value being one empty member.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Result<Option<(usize, Head)>, Refusal> {
        read(text.as_bytes(), Protocol::Local)
    }

    #[track_caller]
    fn status(text: &str) -> u16 {
        head(text).unwrap_err().status
    }

    fn with(fields: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")
    }

    #[test]
    fn a_request_is_read_up_to_the_next_one() {
        let text = "\r\nGET /a%20b?page=2&filter=a+%3Cb HTTP/1.1\r\nHost: here:9900\r\nAccept: a/b\r\nACCEPT: */*\r\n\r\nGET /next";
        let (taken, head) = head(text).unwrap().unwrap();
        assert_eq!((&text[taken..], head.keeps_open), ("GET /next", true));
        let Request { method, path, query, host, accept, protocol } = &head.request;
        assert_eq!((*method, path.as_str(), host.as_str()), (Method::Get, "/a b", "here:9900"));
        assert_eq!((query.as_str(), *protocol), ("page=2&filter=a+%3Cb", Protocol::Local));
        assert_eq!(accept, "a/b,*/*");
        let value = |name| head.request.query_value(name);
        assert_eq!(
            [value("page"), value("filter"), value("x")],
            [Some("2".into()), Some("a <b".into()), None]
        );
    }

    #[test]
    fn a_whole_uri_is_a_target_too() {
        for (written, path) in [("http://x/a", "/a"), ("HTTP://x", "/"), ("https://x?a=1", "/"), ("/", "/")] {
            let (_, head) = head(&format!("HEAD {written} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap().unwrap();
            assert_eq!((head.request.path.as_str(), head.request.method), (path, Method::Head), "{written}");
        }
        for bad in
            ["a", "*", "x:80", "ftp://x/", "http://", "http:///a", "http://:80/", "/%", "/%4", "/%zz", "/%ff"]
        {
            assert_eq!(status(&format!("GET {bad} HTTP/1.1\r\nHost: x\r\n\r\n")), 400, "{bad}");
        }
    }

    #[test]
    fn a_whole_uri_says_who_is_meant_whatever_the_host_field_says() {
        let host = |target: &str| {
            head(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                .unwrap()
                .unwrap()
                .1
                .request
                .host
        };
        assert_eq!(host("/"), "localhost");
        assert_eq!(host("http://evil.example:80?a"), "evil.example:80");
        assert_eq!(host("http://localhost@evil.example/@localhost"), "evil.example");
    }

    #[test]
    fn connections_go_on_or_end_as_their_version_has_it() {
        let keeps = |text: &str| head(text).unwrap().unwrap().1.keeps_open;
        assert!(keeps(&with("A: b")) && keeps(&with("Connection: keep-alive")));
        assert!(!keeps(&with("Connection: Upgrade, CLOSE")));
        assert!(
            !keeps("GET / HTTP/1.0\r\n\r\n") && !keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        );
    }

    #[test]
    fn bodies_and_their_tricks_are_refused() {
        assert!(head(&with("Content-Length: 0")).unwrap().is_some());
        for (fields, expected) in [
            ("Content-Length: 1", 413),
            ("Content-Length: 99999999999999999999", 413),
            ("Transfer-Encoding: chunked", 413),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
            ("Content-Length: x", 400),
            ("Content-Length: -1", 400),
            ("Content-Length:", 400),
            ("Content-Length: 0, 7", 413),
        ] {
            assert_eq!(status(&with(fields)), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        assert_eq!(status("POST / HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "no Host");
        assert_eq!(status(&with("Host: y")), 400, "two Hosts");
        assert_eq!(status("GET / HTTP/3.0\r\nHost: x\r\n\r\n"), 505);
        for bad in
            ["\x16\x03\x01\x02", "GET\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "SSH-2.0-x\r\n\r\n"]
        {
            assert_eq!(status(bad), 400, "{bad:?}");
        }
        assert_eq!(status(&with(&"A: b\r\n".repeat(FIELDS_MAX))), 431);
        let long = format!("GET /{} ", "x".repeat(HEAD_MAX));
        assert_eq!(head(&long[..HEAD_MAX - 1]), Ok(None));
        assert_eq!(status(&long[..HEAD_MAX]), 431);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_upset_it_and_no_prefix_of_a_request_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..60) {
            if let Ok(Some((taken, _))) = read(&bytes, Protocol::Tcp) {
                prop_assert!(taken <= bytes.len());
            }
            let whole = "GET /session/1?a=b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
            let cut = cut.min(whole.len());
            prop_assert_eq!(head(&whole[..cut]).unwrap().is_some(), cut == whole.len());
        }
    }
}
