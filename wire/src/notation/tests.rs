//! The notation against fixed texts, and back and forth over everything that can be written.

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::tcp::FastOpenCookie;

fn read(text: &str) -> NotedSegment {
    parse_notation(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn segments_print_as_packetdrill_prints_them() {
    let (ours, theirs) = (SeqNum(u32::MAX - 10), SeqNum(7000));
    let mut header = SegmentHeader {
        src_port: 1,
        dst_port: 2,
        seq: ours,
        ack: SeqNum(99),
        flags: Flags::SYN,
        wnd: 65535,
        urgent: 9,
        options: Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 1, ecr: 0 }),
            ..Options::default()
        },
    };
    let text = |header: &SegmentHeader, len| NotedSegment::new(header, len, ours, theirs).to_string();
    assert_eq!(text(&header, 0), "S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>");
    header.options.profile = OptionProfile::FreeBsd;
    assert_eq!(text(&header, 0), "S 0:0(0) win 65535 <mss 1460,nop,wscale 7,sackOK,TS val 1 ecr 0>");
    header.options.profile = OptionProfile::Linux;
    header.options.fast_open = FastOpenCookie::new(&[0x30, 0x21, 0xb9, 0xd8]);
    assert!(text(&header, 5).ends_with("nop,wscale 7,FO 3021b9d8,nop,nop>"));
    header.options.fast_open = Some(FastOpenCookie::REQUEST.experimental(true));
    assert!(text(&header, 0).ends_with("nop,wscale 7,FOEXP>"));
    header.options.fast_open = None;
    header.flags = Flags::SYN | Flags::ACK;
    header.ack = theirs + 1;
    header.options.timestamps = None;
    assert_eq!(text(&header, 0), "S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,sackOK,nop,wscale 7>");
    header.flags = Flags::PSH | Flags::ACK;
    header.seq = ours + 1;
    header.options = Options::default();
    assert_eq!(text(&header, 1000), "P. 1:1001(1000) ack 1 win 65535");
    header.flags = Flags::ACK | Flags::URG | Flags::FIN | Flags::CWR;
    header.options.sack.push(theirs + 1001, theirs + 2001);
    header.options.sack.push(theirs + 3001, theirs + 4001);
    assert_eq!(text(&header, 0), "F.UW 1:1(0) ack 1 win 65535 urg 9 <nop,nop,sack 1001:2001 3001:4001>");
    header.flags = Flags::NONE;
    header.options = Options { timestamps: Some(Timestamps { val: 5, ecr: 6 }), ..Options::default() };
    assert_eq!(text(&header, 0), "- 1:1(0) win 65535 <nop,nop,TS val 5 ecr 6>");
}

#[test]
fn shorthands_mean_the_long_forms() {
    assert_eq!(read(". ack 1"), read(". 1:1(0) ack 1"));
    assert_eq!(read(". ack 1 sack 1001:2001"), read(". 1:1(0) ack 1 <sack 1001:2001,nop,nop>"));
    assert_eq!(read(". ack 1 <sack 1001:2001,nop,nop>"), read(". ack 1 <nop,nop,sack 1001:2001>"));
    assert_eq!(read("1:1001(1000)"), read(". 1:1001(1000)"));
    assert_eq!(read("S"), read("S 0:0(0)"));
    assert_eq!(read("  S.  0:0(0)\tack 1 win 9 < mss 10 , eol > "), read("S. 0:0(0) ack 1 win 9 <mss 10>"));
    assert_eq!(read(".P 1:2(1)"), read("P. 1:2(1)"));
    assert_eq!(read("S <mss 1460>").options.mss, Some(1460));
    assert_eq!(read("R 1:1(0)").ack, None);
    assert_eq!(read(". 4294967295:1(2) ack 1").payload_len(), 2);
}

#[test]
fn wrong_texts_say_where_and_what() {
    let at = |text: &str| parse_notation(text).map_err(|error| (error.at, error.expected));
    assert_eq!(at("").unwrap_err().0, 0);
    assert_eq!(at("PX 1:1(0)").unwrap_err().0, 1);
    assert_eq!(at("P.P 1:1(0)"), Err((2, "each flag once")));
    assert_eq!(at("P. 1:1001(999)"), Err((9, "the length that the range has")));
    assert_eq!(at("P. 1:1001"), Err((9, "(")));
    assert_eq!(at("S ack 1").unwrap_err().0, 6);
    assert_eq!(at(". ack x"), Err((6, "an acknowledgment number")));
    assert_eq!(at(". ack 1 win 65536"), Err((12, "a window, 0 to 65535")));
    assert_eq!(at(". ack 1 urg 2").unwrap_err().0, 12);
    assert_eq!(at("S <wscale 15>"), Err((10, "a window scale, 0 to 14")));
    assert_eq!(at("S <mss 1460"), Err((11, ",")));
    assert_eq!(at("S <FO abc>").unwrap_err().0, 6);
    assert_eq!(at("S <FO abcdef>").unwrap_err().0, 6);
    assert_eq!(at("S <msss 1460>").unwrap_err().0, 3);
    assert_eq!(at("S <>").unwrap_err().0, 3);
    assert_eq!(at(". ack 1 sack"), Err((12, "a SACK block, start:end")));
    assert_eq!(at(". sack 1:2 3:4 5:6 7:8 9:10").unwrap_err().1, "at most 4 SACK blocks");
    assert_eq!(at(". ack 1 nonsense"), Err((8, "the end")));
    assert_eq!(
        parse_notation("P. 1:1001(999)").unwrap_err().to_string(),
        "not a segment: the length that the range has expected at byte 9"
    );
}

fn any_noted() -> impl Strategy<Value = NotedSegment> {
    let options = (
        any::<Option<u16>>(),
        proptest::option::of(0..=14u8),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
        proptest::option::of((any::<[u8; 16]>(), 0..=8usize, any::<bool>())),
    );
    let rest = (any::<u32>(), 0..=65535u32, any::<u32>(), any::<Option<u16>>(), any::<u16>());
    (0..0x200u16, rest, options).prop_map(|(flags, (seq, len, ack, win, urgent), options)| {
        let flags = Flags(flags);
        let (mss, window_scale, sack_permitted, timestamps, blocks, cookie): (_, _, _, _, Vec<_>, _) =
            options;
        let fast_open = cookie.and_then(|(bytes, half, is_experimental)| {
            FastOpenCookie::new(&bytes[..2 * half]).map(|cookie| cookie.experimental(is_experimental))
        });
        let mut sack = SackBlocks::NONE;
        for (start, end) in blocks {
            assert!(sack.push(SeqNum(start), SeqNum(end)));
        }
        let timestamps = timestamps.map(|(val, ecr)| Timestamps { val, ecr });
        NotedSegment {
            flags,
            seq,
            end: seq.wrapping_add(len),
            ack: flags.has(Flags::ACK).then_some(ack),
            win,
            urgent: if flags.has(Flags::URG) { urgent } else { 0 },
            options: Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps,
                sack,
                fast_open,
                ..Options::default()
            },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_reads_back(noted in any_noted()) {
        let text = noted.to_string();
        prop_assert_eq!(parse_notation(&text), Ok(noted), "{}", text);
    }

    #[test]
    fn a_header_survives_the_notation(noted in any_noted(), ours: u32, theirs: u32) {
        let header = noted.to_header(1, 2, SeqNum(ours), SeqNum(theirs), 77);
        let again = NotedSegment::new(&header, noted.payload_len(), SeqNum(ours), SeqNum(theirs));
        prop_assert_eq!(again, NotedSegment { win: Some(noted.win.unwrap_or(77)), ..noted });
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", cut: usize, noted in any_noted()) {
        let _ = parse_notation(&text);
        let written = noted.to_string();
        // Ours is ASCII: any cut is at a character.
        let _ = parse_notation(&written[..cut % (written.len() + 1)]);
        let _ = parse_notation(&std::format!("{}{text}", &written[..cut % (written.len() + 1)]));
    }
}
