//! Why packets were dropped: one table for the whole crate.
//!
//! A peer's or the network's fault is never an error upward: the packet is dropped with a [`DropReason`] that is
//! counted in [`DropCounters`], shown by the CLI and asserted in tests.

use std::fmt;

use hoststack_wire::ParseError;

/// How much a drop should worry the reader of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Happens in a healthy network.
    Routine,
    /// The peer or the network erred, or someone is trying something.
    Peer,
    /// One of our limits was hit, or the configuration does not allow it.
    Limit,
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $severity:ident $help:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of the path of a packet.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The stable name, for counters and the CLI.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One sentence on what happened.
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => $help,)* }
            }

            /// How much it should worry.
            pub const fn severity(self) -> Severity {
                match self { $(DropReason::$variant => Severity::$severity,)* }
            }
        }
    };
}

drop_reasons! {
    InterfaceUnknown "interface-unknown" Limit "The interface was not added to the stack.";
    FrameTruncated "frame-truncated" Peer "The frame is shorter than an Ethernet header.";
    FrameNotForUs "frame-not-for-us" Routine "The frame is addressed to another station, or to a group that we did not join.";
    EtherTypeUnknown "ether-type-unknown" Routine "The frame carries neither IPv4 nor IPv6 nor ARP.";
    ArpMalformed "arp-malformed" Peer "The ARP packet is truncated, or not of IPv4 over Ethernet.";
    ArpBadSender "arp-bad-sender" Peer "The ARP sender is not one station with an address of the link.";
    ArpNotForUs "arp-not-for-us" Routine "The ARP packet asks for an address that is not ours, or tells what we did not ask.";
    AddressConflict "address-conflict" Peer "Another station claims one of our addresses.";
    IpTruncated "ip-truncated" Peer "The IP packet is shorter than its header says.";
    IpBadVersion "ip-bad-version" Peer "The IP version is neither 4 nor 6, or not that of the frame.";
    IpBadLength "ip-bad-length" Peer "A length in the IP header contradicts the header.";
    IpBadChecksum "ip-bad-checksum" Peer "The IPv4 header checksum does not match.";
    IpBadHeader "ip-bad-header" Peer "An IP option, extension header or field holds a forbidden value.";
    IpUnsupported "ip-unsupported" Peer "The IPv6 packet has a live routing header, or more extension headers than we read.";
    IpFragment "ip-fragment" Limit "The packet is a fragment: this stack does not reassemble.";
    SourceUnspecified "source-unspecified" Peer "The source address is unspecified.";
    SourceGroup "source-group" Peer "The source address is a broadcast or multicast address.";
    SourceMartian "source-martian" Peer "The source address cannot be on a link: loopback, IPv4-mapped or reserved.";
    SourceOurs "source-ours" Peer "The source address is one of our own.";
    DestinationGroup "destination-group" Routine "The packet is for a group, or came in a group frame, and is of a kind that must not be.";
    DestinationNotOurs "destination-not-ours" Routine "The destination is none of the domain's addresses; this stack does not forward.";
    ProtocolUnknown "protocol-unknown" Routine "The packet carries a protocol that this stack does not speak.";
    UdpClosed "udp-closed" Routine "A UDP datagram came for us; it was answered with port unreachable.";
    UnreachableLimited "unreachable-limited" Limit "A port unreachable was due but the rate limit was reached.";
    TcpTruncated "tcp-truncated" Peer "The TCP segment is shorter than a header.";
    TcpBadChecksum "tcp-bad-checksum" Peer "The TCP checksum does not match.";
    IcmpMalformed "icmp-malformed" Peer "The ICMP message is truncated or holds a forbidden value.";
    IcmpBadChecksum "icmp-bad-checksum" Peer "The ICMP checksum does not match.";
    IcmpIgnored "icmp-ignored" Routine "An ICMP message of a kind that a host without UDP has no use for.";
    IcmpQuoteForeign "icmp-quote-foreign" Peer "The ICMP error quotes a packet that we cannot have sent as TCP.";
    EchoUnasked "echo-unasked" Routine "An echo reply, or an ICMP error about an echo request, that no ping of ours waits for.";
    NdpBadHopLimit "ndp-bad-hop-limit" Peer "A neighbour discovery message crossed a router (hop limit below 255).";
    NdpMalformed "ndp-malformed" Peer "A neighbour discovery message breaks a rule of RFC 4861 §7.1.";
    NdpNotForUs "ndp-not-for-us" Routine "A neighbour discovery message concerns others, or tells what we did not ask.";
    NoRoute "no-route" Limit "No route leads to the destination.";
    FamilyMismatch "family-mismatch" Limit "Source and destination are not of one address family.";
    DestinationOurs "destination-ours" Limit "The destination is one of the domain's own addresses, and no packet turns round inside a domain: use `local://`, or two domains with a wire between them.";
    DestinationNotUnicast "destination-not-unicast" Limit "TCP speaks to single hosts: the destination is a broadcast or multicast address.";
    ExceedsMtu "exceeds-mtu" Limit "The packet is larger than the interface's MTU, or than a packet buffer.";
    TxFull "tx-full" Limit "The interface's transmit vector is full.";
    NeighborQueueFull "neighbor-queue-full" Limit "Too many packets wait for this neighbour, or for all of them: the oldest was dropped.";
    NeighborTableFull "neighbor-table-full" Limit "Too many neighbours are being resolved.";
    NeighborFailed "neighbor-failed" Peer "The packet waited for a neighbour that did not answer.";
    NeighborForgotten "neighbor-forgotten" Routine "The packet waited for a neighbour that was removed.";
    NoSource "no-source" Limit "We have no address on the interface that may ask for the neighbour.";
    EventsFull "events-full" Limit "The news for main was dropped: main has not taken the last ones.";
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = DropReason::ALL.len();

    /// What a parse error of the IP layer is called here.
    #[inline]
    pub(crate) const fn of_ip(error: ParseError) -> DropReason {
        match error {
            ParseError::Truncated => DropReason::IpTruncated,
            ParseError::BadVersion => DropReason::IpBadVersion,
            ParseError::BadLength => DropReason::IpBadLength,
            ParseError::BadChecksum => DropReason::IpBadChecksum,
            ParseError::BadOption | ParseError::BadField => DropReason::IpBadHeader,
            ParseError::Unsupported => DropReason::IpUnsupported,
        }
    }

    /// What a parse error of an ICMP message is called here.
    #[inline]
    pub(crate) const fn of_icmp(error: ParseError) -> DropReason {
        match error {
            ParseError::BadChecksum => DropReason::IcmpBadChecksum,
            ParseError::Unsupported => DropReason::IcmpIgnored,
            ParseError::Truncated
            | ParseError::BadVersion
            | ParseError::BadLength
            | ParseError::BadOption
            | ParseError::BadField => DropReason::IcmpMalformed,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many packets were dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounters {
    counts: [u64; DropReason::COUNT],
}

impl Default for DropCounters {
    fn default() -> DropCounters {
        DropCounters { counts: [0; DropReason::COUNT] }
    }
}

impl DropCounters {
    /// One more.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.counts[reason as usize] += 1;
    }

    /// How many for this reason.
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// All reasons with their counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().copied().zip(self.counts)
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &DropCounters) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }

    /// All drops.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_kebab_case_and_every_reason_is_explained() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        for reason in DropReason::ALL {
            assert!(reason.name().bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{reason}");
            assert!(reason.help().ends_with('.') && reason.help().len() > 20, "{reason}");
        }
    }

    #[test]
    fn counters_index_by_reason_and_merge() {
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
        let mut a = DropCounters::default();
        a.count(DropReason::NoRoute);
        let mut b = a.clone();
        b.count(DropReason::EventsFull);
        a.merge(&b);
        assert_eq!((a.of(DropReason::NoRoute), a.of(DropReason::EventsFull), a.total()), (2, 1, 3));
        assert_eq!(a.iter().filter(|(_, n)| *n > 0).count(), 2);
    }
}
