//! The checksum against one that adds 16-bit words one by one.

use hoststack_wire::{IpProtocol, Sum, checksum, copy_and_sum};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1071 §1, literally.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(checksum(&bytes), !0xddf2);
    assert_eq!(checksum(&[]), 0xffff);
}

#[test]
fn every_length_with_every_carry() {
    for fill in [0x00, 0x01, 0x80, 0xfe, 0xff] {
        let bytes = vec![fill; 600];
        for len in 0..bytes.len() {
            assert_eq!(checksum(&bytes[..len]), naive(&bytes[..len]), "{len} bytes of {fill:#x}");
        }
    }
    let most = vec![0xff; 65535];
    assert_eq!(checksum(&most), naive(&most));
}

#[test]
fn every_alignment() {
    let bytes: Vec<u8> = (0..400u32).map(|n| (n * 37 + n / 7) as u8).collect();
    for start in 0..16 {
        for end in start..bytes.len() {
            assert_eq!(checksum(&bytes[start..end]), naive(&bytes[start..end]), "{start}..{end}");
        }
    }
}

fn pseudo_bytes(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = u16::try_from(len).unwrap().to_be_bytes();
            [&src.octets()[..], &dst.octets(), &[0, protocol], &len].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            [&src.octets()[..], &dst.octets(), &len.to_be_bytes(), &[0, 0, 0, protocol]].concat()
        }
        _ => unreachable!("one family"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pieces_of_any_length_sum_as_the_whole(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6),
    ) {
        let mut sum = Sum::ZERO;
        let mut appended = Sum::ZERO;
        for piece in &pieces {
            sum.add_bytes(piece);
            let mut alone = Sum::ZERO;
            alone.add_bytes(piece);
            appended.append(alone);
        }
        prop_assert_eq!(sum.finish(), naive(&pieces.concat()));
        prop_assert_eq!(appended.finish(), naive(&pieces.concat()));
    }

    #[test]
    fn a_copy_is_equal_and_sums_as_its_source(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let mut copy = vec![0; bytes.len()];
        let sum = copy_and_sum(&mut copy, &bytes);
        prop_assert_eq!(sum.finish(), naive(&bytes));
        prop_assert_eq!(copy, bytes);
    }

    #[test]
    fn pseudo_headers_sum_as_their_bytes(a: [u8; 16], b: [u8; 16], protocol: u8, len: u16, long: u32) {
        let v4 = |octets: [u8; 16]| Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
        let v6 = Ipv6Addr::from;
        prop_assert_eq!(
            Sum::pseudo_v4(v4(a), v4(b), IpProtocol(protocol), len).finish(),
            naive(&pseudo_bytes(v4(a).into(), v4(b).into(), protocol, len.into()))
        );
        prop_assert_eq!(
            Sum::pseudo_v6(v6(a), v6(b), IpProtocol(protocol), long).finish(),
            naive(&pseudo_bytes(v6(a).into(), v6(b).into(), protocol, long))
        );
        prop_assert!(Sum::pseudo(v4(a).into(), v6(b).into(), IpProtocol(protocol), len).is_none());
    }

    #[test]
    fn bytes_with_their_checksum_are_valid_and_no_longer_after_any_flip(
        mut bytes in proptest::collection::vec(any::<u8>(), 2..200), bit: usize,
    ) {
        bytes[0] = 0;
        bytes[1] = 0;
        let stored = checksum(&bytes).to_be_bytes();
        bytes[..2].copy_from_slice(&stored);
        let mut sum = Sum::ZERO;
        sum.add_bytes(&bytes);
        prop_assert!(sum.is_valid() && sum.finish() == 0);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut sum = Sum::ZERO;
        sum.add_u16(u16::from_be_bytes([bytes[0], bytes[1]]));
        sum.add_bytes(&bytes[2..]);
        prop_assert!(!sum.is_valid());
    }
}
