//! TCP segments against etherparse, both ways, and against bytes that are no segments.

use etherparse::{TcpHeader, TcpOptionElement};
use hoststack_wire::tcp::{self, HEADER_LEN, Segment, SegmentHeader};
use hoststack_wire::{
    FastOpenCookie, Flags, IpProtocol, OptionProfile, Options, ParseError, SackBlocks, SeqNum, Sum,
    Timestamps, copy_and_sum,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn any_options() -> impl Strategy<Value = Options> {
    (
        any::<Option<u16>>(),
        proptest::option::of(0..=14u8),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
        (proptest::option::of((any::<[u8; 16]>(), 0..=8usize, any::<bool>())), any::<bool>()),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, blocks, (cookie, is_linux))| {
            let mut sack = SackBlocks::NONE;
            for (start, end) in blocks {
                assert!(sack.push(SeqNum(start), SeqNum(end)));
            }
            let timestamps = timestamps.map(|(val, ecr)| Timestamps { val, ecr });
            let fast_open = cookie.and_then(|(bytes, half, is_experimental)| {
                FastOpenCookie::new(&bytes[..2 * half]).map(|cookie| cookie.experimental(is_experimental))
            });
            let profile = if is_linux { OptionProfile::Linux } else { OptionProfile::FreeBsd };
            Options { mss, window_scale, sack_permitted, timestamps, sack, fast_open, profile }
        })
}

fn any_header() -> impl Strategy<Value = SegmentHeader> {
    (any::<(u16, u16, u32, u32)>(), 0..0x200u16, any::<(u16, u16)>(), any_options()).prop_map(
        |((src_port, dst_port, seq, ack), flags, (wnd, urgent), options)| SegmentHeader {
            src_port,
            dst_port,
            seq: SeqNum(seq),
            ack: SeqNum(ack),
            flags: Flags(flags),
            wnd,
            urgent,
            options,
        },
    )
}

fn any_element() -> impl Strategy<Value = TcpOptionElement> {
    use TcpOptionElement::{
        MaximumSegmentSize, Noop, SelectiveAcknowledgement, SelectiveAcknowledgementPermitted, Timestamp,
        WindowScale,
    };
    prop_oneof![
        Just(Noop),
        any::<u16>().prop_map(MaximumSegmentSize),
        any::<u8>().prop_map(WindowScale),
        Just(SelectiveAcknowledgementPermitted),
        any::<(u32, u32)>().prop_map(|(val, ecr)| Timestamp(val, ecr)),
        (any::<(u32, u32)>(), proptest::collection::vec(any::<(u32, u32)>(), 0..=3)).prop_map(
            |(first, more)| {
                let mut rest = [None; 3];
                rest.iter_mut().zip(more).for_each(|(place, block)| *place = Some(block));
                SelectiveAcknowledgement(first, rest)
            }
        ),
    ]
}

/// What etherparse's options say, in our terms; of one that comes twice the last counts.
fn options_of(header: &TcpHeader) -> Options {
    let mut options = Options::default();
    for element in header.options_iterator() {
        match element.expect("etherparse reads the option") {
            TcpOptionElement::Noop => {}
            TcpOptionElement::MaximumSegmentSize(mss) => options.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
            TcpOptionElement::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            TcpOptionElement::Timestamp(val, ecr) => options.timestamps = Some(Timestamps { val, ecr }),
            TcpOptionElement::SelectiveAcknowledgement(first, rest) => {
                options.sack = SackBlocks::NONE;
                for (start, end) in [Some(first)].into_iter().chain(rest).flatten() {
                    assert!(options.sack.push(SeqNum(start), SeqNum(end)));
                }
            }
        }
    }
    options
}

fn flags_of(header: &TcpHeader) -> Flags {
    [
        (header.fin, Flags::FIN),
        (header.syn, Flags::SYN),
        (header.rst, Flags::RST),
        (header.psh, Flags::PSH),
        (header.ack, Flags::ACK),
        (header.urg, Flags::URG),
        (header.ece, Flags::ECE),
        (header.cwr, Flags::CWR),
        (header.ns, Flags::AE),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .fold(Flags::NONE, |flags, (_, flag)| flags | flag)
}

fn header_of(header: &TcpHeader) -> SegmentHeader {
    SegmentHeader {
        src_port: header.source_port,
        dst_port: header.destination_port,
        seq: SeqNum(header.sequence_number),
        ack: SeqNum(header.acknowledgment_number),
        flags: flags_of(header),
        wnd: header.window_size,
        urgent: header.urgent_pointer,
        options: options_of(header),
    }
}

/// The header as it can be written and read: SACK blocks that do not fit are gone, the profile cannot be told.
fn as_written(mut header: SegmentHeader) -> SegmentHeader {
    header.options.profile = OptionProfile::Linux;
    let mut blocks = header.options.sack.as_slice().len();
    let whole = header.options;
    while blocks > 0 {
        header.options.sack = whole.sack;
        header.options.sack.truncate(blocks);
        let others = Options { sack: SackBlocks::NONE, ..whole }.len();
        if others + 4 + 8 * blocks <= 40 {
            return header;
        }
        blocks -= 1;
    }
    header.options.sack = SackBlocks::NONE;
    header
}

fn emit(header: &SegmentHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xee; header.header_len() + payload.len()];
    let len = header.emit(&mut bytes);
    assert_eq!(len, header.header_len());
    bytes[len..].copy_from_slice(payload);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn etherparse_reads_what_we_write(mut header in any_header(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        // It knows no Fast Open.
        header.options.fast_open = None;
        let bytes = emit(&header, &payload);
        prop_assert!(header.header_len() <= 60 && header.header_len().is_multiple_of(4));
        let (theirs, rest) = TcpHeader::from_slice(&bytes).unwrap();
        prop_assert_eq!(rest, &payload[..]);
        prop_assert_eq!(theirs.checksum, 0);
        prop_assert_eq!(header_of(&theirs), as_written(header));
    }

    #[test]
    fn what_we_write_reads_back(header in any_header(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let bytes = emit(&header, &payload);
        prop_assert_eq!(Segment::parse(&bytes), Ok(Segment { header: as_written(header), payload: &payload, ecn: 0 }));
    }

    #[test]
    fn we_read_what_etherparse_writes(
        header in any_header(),
        elements in proptest::collection::vec(any_element(), 0..6),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut theirs = TcpHeader::new(header.src_port, header.dst_port, header.seq.0, header.wnd);
        theirs.acknowledgment_number = header.ack.0;
        theirs.urgent_pointer = header.urgent;
        theirs.fin = header.flags.has(Flags::FIN);
        theirs.syn = header.flags.has(Flags::SYN);
        theirs.rst = header.flags.has(Flags::RST);
        theirs.psh = header.flags.has(Flags::PSH);
        theirs.ack = header.flags.has(Flags::ACK);
        theirs.urg = header.flags.has(Flags::URG);
        theirs.ece = header.flags.has(Flags::ECE);
        theirs.cwr = header.flags.has(Flags::CWR);
        theirs.ns = header.flags.has(Flags::AE);
        prop_assume!(theirs.set_options(&elements).is_ok());
        let bytes = [&theirs.to_bytes()[..], &payload].concat();
        prop_assert_eq!(Segment::parse(&bytes), Ok(Segment { header: header_of(&theirs), payload: &payload, ecn: 0 }));
    }

    // covers: MUST-2
    #[test]
    fn checksums_are_etherparses(
        header in any_header(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        a: [u8; 16],
        b: [u8; 16],
        flip: usize,
    ) {
        let v4 = |octets: [u8; 16]| [octets[0], octets[1], octets[2], octets[3]];
        let mut bytes = emit(&header, &payload);
        let (theirs, _) = TcpHeader::from_slice(&bytes).unwrap();
        let sums = [
            (IpAddr::from(v4(a)), IpAddr::from(v4(b)), theirs.calc_checksum_ipv4_raw(v4(a), v4(b), &payload).unwrap()),
            (IpAddr::from(a), IpAddr::from(b), theirs.calc_checksum_ipv6_raw(a, b, &payload).unwrap()),
        ];
        for (src, dst, sum) in sums {
            tcp::set_checksum(src, dst, &mut bytes);
            prop_assert_eq!(u16::from_be_bytes([bytes[16], bytes[17]]), sum);
            prop_assert!(tcp::verify_checksum(src, dst, &bytes));
            let bit = flip % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!tcp::verify_checksum(src, dst, &bytes));
            bytes[bit / 8] ^= 1 << (bit % 8);

            // The transmit path: the payload is summed while it is copied, odd lengths included.
            let mut sent = vec![0xee; bytes.len()];
            let len = header.emit(&mut sent);
            let mut sum = Sum::pseudo(src, dst, IpProtocol::TCP, sent.len() as u16).unwrap();
            let (head, body) = sent.split_at_mut(len);
            sum.append(copy_and_sum(body, &payload));
            tcp::finish_checksum(head, sum);
            prop_assert_eq!(&sent, &bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_agree_with_etherparse(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), offset in 0..16u8) {
        if let Some(byte) = bytes.get_mut(12) {
            *byte = *byte & 0xf | offset << 4;
        }
        match (Segment::parse(&bytes), TcpHeader::from_slice(&bytes)) {
            (Ok(segment), Ok((theirs, payload))) => {
                prop_assert_eq!(segment.payload, payload);
                prop_assert_eq!(segment.header.seq.0, theirs.sequence_number);
                prop_assert_eq!(segment.header.flags, flags_of(&theirs));
                prop_assert_eq!(segment.header.wnd, theirs.window_size);
            }
            (Err(ParseError::BadOption), Ok(_)) | (Err(ParseError::Truncated | ParseError::BadLength), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "we say {:?}, etherparse {:?}", ours, theirs),
        }
        let _ = tcp::verify_checksum(IpAddr::from([1; 4]), IpAddr::from([2; 4]), &bytes);
    }

    #[test]
    fn arbitrary_option_lists_never_panic(list in proptest::collection::vec(0..12u8, 0..40)) {
        if let Ok(options) = Options::parse(&list) {
            prop_assert!(options.len() <= 40);
            prop_assert!(options.window_scale.is_none_or(|shift| shift <= 14));
        }
    }
}

#[test]
fn every_cut_of_a_header_is_truncated_and_every_cut_of_a_payload_is_a_shorter_payload() {
    let mut options = Options { mss: Some(1460), ..Options::default() };
    options.sack.push(SeqNum(1), SeqNum(2));
    let header = SegmentHeader {
        src_port: 1,
        dst_port: 2,
        seq: SeqNum(3),
        ack: SeqNum(4),
        flags: Flags::ACK,
        wnd: 5,
        urgent: 0,
        options,
    };
    let bytes = emit(&header, b"payload");
    for len in 0..bytes.len() {
        let cut = Segment::parse(&bytes[..len]);
        match len.checked_sub(header.header_len()) {
            None => assert_eq!(cut, Err(ParseError::Truncated), "{len}"),
            Some(payload) => assert_eq!(cut.unwrap().payload.len(), payload),
        }
    }
}

#[test]
fn illegal_option_lengths_are_refused_and_unknown_options_skipped() {
    // covers: MUST-4, MUST-5, MUST-6, MUST-7, MUST-64
    let bad: [&[u8]; 12] = [
        &[2],
        &[2, 0, 0, 0],
        &[2, 1, 0, 0],
        &[2, 3, 5, 0],
        &[2, 5, 5, 0, 0],
        &[3, 2],
        &[4, 3, 0],
        &[8, 9, 0, 0, 0, 0, 0, 0, 0],
        &[5, 9, 0, 0, 0, 0, 0, 0, 0],
        &[8, 10, 0, 0, 0, 0],
        &[99, 0],
        &[99, 5, 0, 0],
    ];
    for list in bad {
        assert_eq!(Options::parse(list), Err(ParseError::BadOption), "{list:?}");
    }
    let mss = Options { mss: Some(0x0102), ..Options::default() };
    let good: [&[u8]; 4] = [
        &[99, 4, 7, 7, 2, 4, 1, 2],
        &[1, 1, 254, 2, 2, 4, 1, 2, 0, 9, 9, 9],
        &[2, 4, 9, 9, 2, 4, 1, 2],
        &[30, 3, 0, 1, 2, 4, 1, 2, 5, 2],
    ];
    for list in good {
        assert_eq!(Options::parse(list), Ok(mss), "{list:?}");
    }
    assert_eq!(Options::parse(&[3, 3, 200]).unwrap().window_scale, Some(14));
}

// covers: MUST-68, MUST-69
#[test]
fn fast_open_cookies_of_illegal_lengths_are_ignored() {
    let cookie = |list: &[u8]| Options::parse(list).expect("a good list").fast_open;
    assert_eq!(cookie(&[34, 2]), Some(FastOpenCookie::REQUEST));
    assert_eq!(cookie(&[34, 4, 1, 2]), None, "2 bytes are too few");
    assert_eq!(cookie(&[34, 7, 1, 2, 3, 4, 5]), None, "5 is odd");
    let long: Vec<u8> = [34, 20].into_iter().chain([1; 18]).collect();
    assert_eq!(cookie(&long), None);
    assert_eq!(
        cookie(&[34, 6, 1, 2, 3, 4, 34, 4, 1, 2]).map(|c| c.as_slice().to_vec()),
        Some(vec![1, 2, 3, 4])
    );
    let experimental = cookie(&[254, 8, 0xf9, 0x89, 1, 2, 3, 4]).expect("a cookie");
    assert!(experimental.is_experimental() && experimental.as_slice() == [1, 2, 3, 4]);
    assert_eq!(cookie(&[254, 8, 0xf9, 0x88, 1, 2, 3, 4]), None, "another experiment");
    assert_eq!(cookie(&[254, 2]), None);
}

#[test]
fn options_lie_as_linux_lays_them() {
    let all = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 0x01020304, ecr: 0x05060708 }),
        ..Options::default()
    };
    let list = |options: Options| {
        let header = SegmentHeader {
            src_port: 0,
            dst_port: 0,
            seq: SeqNum(0),
            ack: SeqNum(0),
            flags: Flags::NONE,
            wnd: 0,
            urgent: 0,
            options,
        };
        emit(&header, &[])[HEADER_LEN..].to_vec()
    };
    assert_eq!(list(all), [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]);
    assert_eq!(list(Options { timestamps: None, ..all }), [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7]);
    let freebsd = Options { profile: OptionProfile::FreeBsd, ..all };
    assert_eq!(list(freebsd), [2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    let bare = Options { timestamps: None, window_scale: None, ..freebsd };
    assert_eq!(list(bare), [2, 4, 5, 180, 4, 2, 0, 0]);
    let fast_open = |cookie: &[u8]| {
        list(Options { fast_open: FastOpenCookie::new(cookie), mss: Some(1460), ..Options::default() })
    };
    assert_eq!(fast_open(&[]), [2, 4, 5, 180, 34, 2, 1, 1]);
    assert_eq!(fast_open(&[9, 8, 7, 6]), [2, 4, 5, 180, 34, 6, 9, 8, 7, 6, 1, 1]);
    assert_eq!(fast_open(&[9, 8, 7, 6, 5, 4]), [2, 4, 5, 180, 34, 8, 9, 8, 7, 6, 5, 4]);
    let longest = FastOpenCookie::new(&[7; 16]).map(|cookie| cookie.experimental(true));
    assert_eq!(list(Options { fast_open: longest, ..all }).len(), 40);
    let mut data = Options { timestamps: all.timestamps, ..Options::default() };
    assert_eq!(list(data), [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    for n in 0..4 {
        assert!(data.sack.push(SeqNum(n), SeqNum(n + 1)));
    }
    assert!(!data.sack.push(SeqNum(9), SeqNum(9)));
    // RFC 2018 §3: beside timestamps 3 blocks fit.
    assert_eq!(list(data).len(), 40);
    assert_eq!(list(data)[12..24], [1, 1, 5, 26, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn segment_length_counts_syn_and_fin() {
    let bytes = emit(
        &SegmentHeader {
            src_port: 0,
            dst_port: 0,
            seq: SeqNum(0),
            ack: SeqNum(0),
            flags: Flags::SYN | Flags::FIN,
            wnd: 0,
            urgent: 0,
            options: Options::default(),
        },
        b"abc",
    );
    assert_eq!(Segment::parse(&bytes).unwrap().len(), 5);
    let local = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    assert!(!tcp::verify_checksum(local.0, local.1, &bytes));
}
