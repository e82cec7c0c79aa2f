//! What `--pcap` wrote, read back by an independent reader and counted by fixed offsets.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use pcap_file::DataLink;
use pcap_file::pcapng::{Block, PcapNgReader};

/// The frames of a capture, in order. Those of an interface without Ethernet have a header of zeros before them, but
/// for the type.
#[derive(Clone, Debug)]
pub struct Frames(Vec<Vec<u8>>);

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;

impl Frames {
    /// Reads a pcapng file.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut reader = PcapNgReader::new(file).expect("a pcapng file");
        let (mut links, mut frames) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.expect("a whole block") {
                Block::InterfaceDescription(interface) => links.push(interface.linktype),
                Block::EnhancedPacket(packet) => {
                    let link =
                        links.get(packet.interface_id as usize).expect("an interface described before");
                    frames.push(framed(*link, &packet.data));
                }
                _ => {}
            }
        }
        Self(frames)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// ARP requests or neighbour solicitations that ask for `target`.
    #[must_use]
    pub fn probes(&self, target: IpAddr) -> usize {
        self.0.iter().filter(|frame| is_probe(frame, target)).count()
    }

    /// TCP segments to `to` with SYN and without ACK.
    #[must_use]
    pub fn syns(&self, to: IpAddr) -> usize {
        self.0.iter().filter(|frame| is_syn(frame, to)).count()
    }
}

/// The bytes with an Ethernet header, their own or one of zeros.
fn framed(link: DataLink, bytes: &[u8]) -> Vec<u8> {
    match link {
        DataLink::ETHERNET => bytes.to_vec(),
        DataLink::RAW => {
            let is_ipv6 = bytes.first().is_some_and(|first| first >> 4 == 6);
            let kind = if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            [&[0; 12][..], &kind, bytes].concat()
        }
        other => panic!("an interface of another kind: {other:?}"),
    }
}

fn is_probe(frame: &[u8], target: IpAddr) -> bool {
    match target {
        // RFC 826: the operation 6 bytes in, the target's address 24 bytes in.
        IpAddr::V4(target) => {
            at(frame, 12) == Some(ETHERTYPE_ARP)
                && at(frame, 14 + 6) == Some([0, 1])
                && at(frame, 14 + 24) == Some(target.octets())
        }
        // RFC 4861 §4.3: behind the IPv6 header the type; the target 8 bytes in.
        IpAddr::V6(target) => {
            at(frame, 12) == Some(ETHERTYPE_IPV6)
                && at(frame, 14 + 6) == Some([ICMPV6])
                && at(frame, 54) == Some([NEIGHBOUR_SOLICITATION])
                && at(frame, 54 + 8) == Some(target.octets())
        }
    }
}

fn is_syn(frame: &[u8], to: IpAddr) -> bool {
    // Neither options nor extension headers: our own packets have none.
    let flags = match to {
        IpAddr::V4(to) => {
            let is_ours = at(frame, 12) == Some(ETHERTYPE_IPV4)
                && at(frame, 14 + 9) == Some([TCP])
                && at(frame, 14 + 16) == Some(to.octets());
            is_ours.then(|| at(frame, 34 + 13)).flatten()
        }
        IpAddr::V6(to) => {
            let is_ours = at(frame, 12) == Some(ETHERTYPE_IPV6)
                && at(frame, 14 + 6) == Some([TCP])
                && at(frame, 14 + 24) == Some(to.octets());
            is_ours.then(|| at(frame, 54 + 13)).flatten()
        }
    };
    flags.is_some_and(|[flags]: [u8; 1]| flags & 0x12 == 0x02)
}

/// `N` bytes from `offset` on, if they are there.
fn at<const N: usize>(frame: &[u8], offset: usize) -> Option<[u8; N]> {
    frame.get(offset..offset + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of zeros with `parts` laid over it.
    fn frame(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut frame = vec![0; 90];
        for (offset, bytes) in parts {
            frame[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }

    #[test]
    fn probes_are_told_by_family_kind_and_target() {
        let arp = frame(&[(12, &[8, 6]), (20, &[0, 1]), (38, &[10, 9, 0, 9])]);
        assert!(is_probe(&arp, "10.9.0.9".parse().unwrap()));
        assert!(!is_probe(&arp, "10.9.0.8".parse().unwrap()));
        let reply = frame(&[(12, &[8, 6]), (20, &[0, 2]), (38, &[10, 9, 0, 9])]);
        assert!(!is_probe(&reply, "10.9.0.9".parse().unwrap()));
        let target = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let solicitation = frame(&[(12, &[0x86, 0xdd]), (20, &[58]), (54, &[135]), (62, &target)]);
        assert!(is_probe(&solicitation, "fd09::9".parse().unwrap()));
        assert!(!is_probe(&solicitation[..70], "fd09::9".parse().unwrap()));
    }

    #[test]
    fn packets_without_a_frame_are_given_one() {
        let packet = |first: u8| framed(DataLink::RAW, &[first, 1]);
        assert_eq!(packet(0x45)[12..], [8, 0, 0x45, 1]);
        assert_eq!(packet(0x60)[12..], [0x86, 0xdd, 0x60, 1]);
        assert_eq!(framed(DataLink::ETHERNET, &[9]), [9]);
    }

    #[test]
    fn only_a_first_syn_counts() {
        let segment = |flags: u8| frame(&[(12, &[8, 0]), (23, &[6]), (30, &[10, 9, 0, 1]), (47, &[flags])]);
        let to = "10.9.0.1".parse().unwrap();
        assert!(is_syn(&segment(0x02), to) && is_syn(&segment(0xc2), to));
        assert!(!is_syn(&segment(0x12), to) && !is_syn(&segment(0x10), to));
        assert!(!is_syn(&segment(0x02), "10.9.0.2".parse().unwrap()));
    }
}
