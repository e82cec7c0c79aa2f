//! `struct tcp_info` of a connection, for the code blocks of scripts, from what the stack tells of its variables.
//!
//! What the stack does not count is all ones, so that a script which looks at it fails instead of finding a zero.

/// Bytes of the struct of Linux 6.x; a shorter room takes the beginning, a longer one is filled with ones.
const LEN: usize = 280;

/// Writes what is known of a connection as `struct tcp_info`, `room` bytes long.
///
/// `variables` are the words `name=value` of a connection's description.
pub(crate) fn encode(variables: &str, room: usize) -> Vec<u8> {
    let text =
        |name: &str| variables.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| text(name).and_then(|value| value.parse::<u32>().ok());
    let mut info = vec![0xff; LEN.max(room)];
    let mss = number("mss").unwrap_or(1).max(1);
    let state = match text("state") {
        Some("ESTABLISHED") => 1,
        Some("SYN-SENT") => 2,
        Some("SYN-RECEIVED") => 3,
        Some("FIN-WAIT-1") => 4,
        Some("FIN-WAIT-2") => 5,
        Some("TIME-WAIT") => 6,
        Some("CLOSE-WAIT") => 8,
        Some("LAST-ACK") => 9,
        Some("LISTEN") => 10,
        Some("CLOSING") => 11,
        _ => 7,
    };
    info[0] = state;
    info[1] = match text("recovery") {
        Some("recovery") => 3,
        Some("loss") => 4,
        _ => 0,
    };
    // Cannot cut: the stack's own count is a byte.
    info[2] = number("retransmits").unwrap_or(0) as u8;
    let (timestamps, sack) = (text("timestamps") == Some("true"), text("sack") == Some("true"));
    let (ours, peers) = (number("rcv.scale").unwrap_or(0), number("snd.scale").unwrap_or(0));
    let scaled = ours > 0 || peers > 0;
    info[5] = u8::from(timestamps) | u8::from(sack) << 1 | u8::from(scaled) << 2;
    // Cannot cut: a shift is at most 14.
    info[6] = (peers | ours << 4) as u8;
    let mut put = |at: usize, value: Option<u32>| {
        if let Some(value) = value {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
    };
    let segments = |name| number(name).map(|bytes| bytes.div_ceil(mss));
    put(8, number("rto_us"));
    put(16, Some(mss));
    put(24, segments("flight"));
    put(68, number("srtt_us").or(Some(0)));
    // Linux says 2^31 - 1 before the first loss.
    put(76, segments("ssthresh").map(|segments| if segments > 1 << 20 { 0x7fff_ffff } else { segments }));
    put(80, number("cwnd").map(|bytes| bytes / mss));
    info.truncate(room);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_variables_are_encoded_and_the_rest_is_ones() {
        let text = "state=ESTABLISHED snd.scale=7 rcv.scale=8 mss=1000 timestamps=true sack=true flight=2500 \
                    cwnd=10000 ssthresh=4294967295 recovery=open srtt_us=none rto_us=1000000 retransmits=0";
        let info = encode(text, 104);
        let at = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
        assert_eq!(info.len(), 104);
        assert_eq!((info[0], info[1], info[5], info[6]), (1, 0, 7, 0x87));
        assert_eq!((at(8), at(16), at(24), at(68), at(76), at(80)), (1_000_000, 1000, 3, 0, 0x7fff_ffff, 10));
        assert_eq!(at(88), u32::MAX, "reordering is not counted");
        assert_eq!(encode(text, 300).len(), 300);
    }
}
