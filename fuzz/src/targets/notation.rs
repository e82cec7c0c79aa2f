//! The notation of segments as text: no text panics, what is read can be written and read again.

use hoststack_wire::{MacAddr, NotedSegment, parse_notation};

/// The bytes are the text.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_notation(&text) {
        Ok(noted) => again(&noted),
        Err(error) => {
            assert!(error.at <= text.len(), "{error}: it points behind the text");
            assert!(!error.to_string().is_empty());
        }
    }
    if let Ok(mac) = text.parse::<MacAddr>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
}

fn again(noted: &NotedSegment) {
    let text = noted.to_string();
    let read = parse_notation(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(read, *noted, "{text:?}");
}
