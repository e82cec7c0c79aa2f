//! Echo requests of our own: ping (RFC 792, RFC 1122 §3.2.2.6, RFC 4443 §4).
//!
//! A request leaves by the same routes and neighbours as everything else. Its answer, a reply or an ICMP error that
//! quotes it, may come in at any worker's queue: each knows which identifiers are in use and tells main
//! ([`NetEvent::EchoHeard`]). What nobody waits for is dropped.

use std::net::IpAddr;

use hoststack_wire::icmpv4::Echo;
use hoststack_wire::{IpProtocol, Quoted, icmpv4, icmpv6, ipv4, ipv6};

use crate::drop_reason::DropReason;
use crate::ip_input::{Found, IcmpErrorKind, Ip};
use crate::ip_path::IpPath;
use crate::packet::PacketPool;
use crate::update::NetEvent;

/// Bytes of the fixed part of an echo message.
const ECHO_HEADER_LEN: usize = 8;

/// An echo request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    /// The routing domain.
    pub domain: u16,
    /// Source address, one of the domain's.
    pub src: IpAddr,
    /// Whom to ask.
    pub dst: IpAddr,
    /// Which pinger.
    pub id: u16,
    /// Which of its requests.
    pub seq: u16,
    /// Bytes of data behind the message's 8 bytes of header.
    pub data_len: usize,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: u8,
}

/// What came back for an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardEcho {
    /// Which pinger.
    pub id: u16,
    /// Which of its requests.
    pub seq: u16,
    /// Who says so: the host that was asked or, of errors, a router on the way.
    pub from: IpAddr,
    /// When it came in, microseconds since the stack's epoch.
    pub at_us: u64,
    /// What it says.
    pub news: EchoNews,
}

/// What the answer to an echo request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoNews {
    /// It came back.
    Reply {
        /// The time to live or hop limit that was left of the reply's.
        hop_limit: u8,
        /// Bytes of data.
        data_len: usize,
        /// Whether the data is what was sent.
        is_intact: bool,
    },
    /// Someone on the way could not bring it there.
    Error {
        /// Why.
        kind: IcmpErrorKind,
        /// The ICMP code as it was said.
        code: u8,
        /// With [`IcmpErrorKind::PacketTooBig`]: the MTU of the link, bytes, if the router said.
        mtu: Option<usize>,
    },
}

/// Whose answers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedEcho {
    id: u16,
    domain: u16,
    dst: IpAddr,
}

/// The byte of a request's data at a place: tells requests and places apart.
fn pattern(seq: u16, place: usize) -> u8 {
    // Both cut on purpose: a byte is wanted.
    (place as u8).wrapping_add(seq as u8)
}

impl IpPath {
    /// From now on answers to echo requests with this identifier, sent to `dst`, are told.
    pub fn expect_echoes(&mut self, id: u16, domain: u16, dst: IpAddr) {
        self.forget_echoes(id);
        self.echoes.push(ExpectedEcho { id, domain, dst });
    }

    /// From now on they are dropped.
    pub fn forget_echoes(&mut self, id: u16) {
        self.echoes.retain(|expected| expected.id != id);
    }

    /// Sends an echo request. If its neighbour is not known yet it waits for it; that counts as sent.
    ///
    /// One of the domain's own addresses answers here and now, as RFC 1122 §3.2.2.6 has it of any host: no packet is made, for
    /// none turns round inside the path.
    ///
    /// # Errors
    /// The reason why it was dropped; it was counted.
    pub fn send_echo(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        request: &EchoRequest,
    ) -> Result<(), DropReason> {
        let sent = self.try_send_echo(now_us, pool, request);
        if let Err(reason) = sent {
            self.drops.count(reason);
        }
        sent
    }

    fn try_send_echo(
        &mut self,
        now_us: u64,
        pool: &mut PacketPool,
        request: &EchoRequest,
    ) -> Result<(), DropReason> {
        let EchoRequest { domain, src, dst, id, seq, data_len, hop_limit } = *request;
        if self.fib.is_local(domain, dst) {
            return self.answer_own_echo(now_us, request);
        }
        let message_len = ECHO_HEADER_LEN + data_len;
        let ip_header_len = if dst.is_ipv4() { ipv4::Header::LEN } else { ipv6::Header::LEN };
        let destination = self.destination(now_us, domain, dst)?;
        if ip_header_len + message_len > destination.mtu {
            return Err(DropReason::ExceedsMtu);
        }
        if self.is_tx_full(destination.interface) {
            return Err(DropReason::TxFull);
        }
        let mut packet = pool.take();
        if message_len > packet.room() {
            pool.give(packet);
            return Err(DropReason::ExceedsMtu);
        }
        let data: Vec<u8> = (0..data_len).map(|place| pattern(seq, place)).collect();
        let echo = Echo { id, seq, data: &data };
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                icmpv4::Message::EchoRequest(echo).emit(packet.append(message_len));
                let header = ipv4::Header::new(src, dst, IpProtocol::ICMPV4, message_len);
                ipv4::Header { ttl: hop_limit, ..header }.emit(packet.prepend(ipv4::Header::LEN));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                icmpv6::Message::EchoRequest(echo).emit(src, dst, packet.append(message_len));
                let header = ipv6::Header::new(src, dst, IpProtocol::ICMPV6, message_len);
                ipv6::Header { hop_limit, ..header }.emit(packet.prepend(ipv6::Header::LEN));
            }
            _ => {
                pool.give(packet);
                return Err(DropReason::FamilyMismatch);
            }
        }
        self.send(now_us, pool, destination, packet)
    }

    /// A request to one of the domain's own addresses: its reply, as the pinger will be told of it.
    fn answer_own_echo(&mut self, now_us: u64, request: &EchoRequest) -> Result<(), DropReason> {
        let EchoRequest { domain, src, dst, id, seq, data_len, hop_limit } = *request;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(DropReason::FamilyMismatch);
        }
        if !self.echoes.contains(&ExpectedEcho { id, domain, dst }) {
            return Err(DropReason::EchoUnasked);
        }
        let news = EchoNews::Reply { hop_limit, data_len, is_intact: true };
        self.on_heard_echo(HeardEcho { id, seq, from: dst, at_us: now_us, news });
        Ok(())
    }

    /// An echo reply came in.
    pub(crate) fn read_echo_reply(
        &self,
        now_us: u64,
        domain: u16,
        ip: &Ip,
        reply: &Echo<'_>,
    ) -> Result<Found, DropReason> {
        if !self.echoes.contains(&ExpectedEcho { id: reply.id, domain, dst: ip.src }) {
            return Err(DropReason::EchoUnasked);
        }
        // RFC 1122 §3.2.2.6: "Data received in an ICMP Echo Request MUST be entirely included in the resulting Echo Reply."
        let is_intact = reply.data.iter().enumerate().all(|(place, byte)| *byte == pattern(reply.seq, place));
        let data_len = reply.data.len();
        let news = EchoNews::Reply { hop_limit: ip.hop_limit, data_len, is_intact };
        Ok(Found::Heard(HeardEcho { id: reply.id, seq: reply.seq, from: ip.src, at_us: now_us, news }))
    }

    /// An ICMP error came in that quotes an echo request.
    pub(crate) fn read_echo_error(
        &self,
        now_us: u64,
        domain: u16,
        from: IpAddr,
        news: EchoNews,
        quoted: &Quoted,
        (id, seq): (u16, u16),
    ) -> Result<Found, DropReason> {
        let is_asked = self.fib.is_local(domain, quoted.src)
            && self.echoes.contains(&ExpectedEcho { id, domain, dst: quoted.dst });
        if !is_asked {
            return Err(DropReason::EchoUnasked);
        }
        Ok(Found::Heard(HeardEcho { id, seq, from, at_us: now_us, news }))
    }

    /// Tells main. Not told (and counted) when main has not taken the last ones: the request times out.
    pub(crate) fn on_heard_echo(&mut self, heard: HeardEcho) {
        self.push_event(NetEvent::EchoHeard(heard));
    }
}

#[cfg(test)]
mod tests;
