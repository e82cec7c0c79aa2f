//! An answer, and its head as bytes (RFC 9112 §4, RFC 9110 §15).

use std::sync::Arc;

use super::request::Method;

/// An answer. Cheap to clone: an answer to many is one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 599; what it is called is added.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Fields besides `Content-Type`, `Content-Length` and `Connection`. Names and values are sent as they are.
    pub fields: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: Arc<[u8]>,
}

impl Response {
    /// An answer of text without further fields.
    pub fn plain(status: u16, text: &str) -> Response {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: &[],
            body: Arc::from(text.as_bytes()),
        }
    }

    /// Status line and fields, the empty line included. No `Date`: a worker reads no clock (RFC 9110 §6.6.1).
    pub(super) fn head(&self, keeps_open: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        for (name, value) in self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status == 405 {
            // RFC 9110 §15.5.6: a 405 MUST say what is allowed.
            head.push_str(&format!("Allow: {}\r\n", Method::ALLOWED));
        }
        if !keeps_open {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// What a status is called; clients ignore it (RFC 9112 §4).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_body_is_and_whether_the_connection_ends() {
        let response = Response { fields: &[("Cache-Control", "no-store")], ..Response::plain(200, "hello") };
        assert_eq!(
            String::from_utf8(response.head(true)).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nCache-Control: no-store\r\n\r\n"
        );
        let head = String::from_utf8(Response::plain(405, "").head(false)).unwrap();
        assert!(
            head.contains("\r\nAllow: GET, HEAD\r\n") && head.contains("\r\nConnection: close\r\n"),
            "{head}"
        );
    }
}
