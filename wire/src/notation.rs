//! How a segment is written: as packetdrill writes it, in logs, scripts and test failures, and the way back.
//!
//! `P. 1:1001(1000) ack 1 win 65535 <nop,nop,TS val 1 ecr 0>`: flags, sequence range and payload length, acknowledgment,
//! window, options. Numbers are relative to the initial sequence numbers: the SYN is 0, the first byte of data is 1.

mod parse;

use core::fmt;

use crate::seq::SeqNum;
use crate::tcp::{Flags, OptionProfile, Options, SackBlocks, Segment, SegmentHeader, Timestamps};

pub use parse::{NotationError, parse_notation};

/// A segment as it is written: numbers relative to the initial sequence numbers, no ports.
///
/// `Display` writes it and [`parse_notation`] reads it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedSegment {
    /// Control bits.
    pub flags: Flags,
    /// SEG.SEQ, relative to the sender's initial sequence number.
    pub seq: u32,
    /// One past the last byte of the payload: `seq` plus payload length; SYN and FIN are not counted.
    pub end: u32,
    /// SEG.ACK, relative to the other end's initial sequence number; with [`Flags::ACK`] only. Absent: not said.
    pub ack: Option<u32>,
    /// SEG.WND as on the wire; absent: not said.
    pub win: Option<u16>,
    /// SEG.UP; written with [`Flags::URG`] only.
    pub urgent: u16,
    /// Options; SACK blocks relative to the other end's initial sequence number.
    pub options: Options,
}

impl NotedSegment {
    /// What a segment of `payload_len` bytes says, relative to its sender's and its receiver's initial sequence numbers.
    pub fn new(
        header: &SegmentHeader,
        payload_len: u32,
        sender_isn: SeqNum,
        receiver_isn: SeqNum,
    ) -> NotedSegment {
        let seq = header.seq.since(sender_isn);
        NotedSegment {
            flags: header.flags,
            seq,
            end: seq.wrapping_add(payload_len),
            ack: header.flags.has(Flags::ACK).then(|| header.ack.since(receiver_isn)),
            win: Some(header.wnd),
            urgent: if header.flags.has(Flags::URG) { header.urgent } else { 0 },
            options: shift_sack(header.options, |edge| SeqNum(edge.since(receiver_isn))),
        }
    }

    /// Bytes of payload.
    #[inline]
    pub const fn payload_len(&self) -> u32 {
        self.end.wrapping_sub(self.seq)
    }

    /// The header that says this, with `wnd` where no window was noted; an acknowledgment not said is 1.
    pub fn to_header(
        &self,
        src_port: u16,
        dst_port: u16,
        sender_isn: SeqNum,
        receiver_isn: SeqNum,
        wnd: u16,
    ) -> SegmentHeader {
        SegmentHeader {
            src_port,
            dst_port,
            seq: sender_isn + self.seq,
            ack: if self.flags.has(Flags::ACK) { receiver_isn + self.ack.unwrap_or(1) } else { SeqNum(0) },
            flags: self.flags,
            wnd: self.win.unwrap_or(wnd),
            urgent: self.urgent,
            options: shift_sack(self.options, |edge| receiver_isn + edge.0),
        }
    }
}

impl Segment<'_> {
    /// This segment as it is written: see [`NotedSegment::new`].
    pub fn noted(&self, sender_isn: SeqNum, receiver_isn: SeqNum) -> NotedSegment {
        // Cannot cut: a payload lies in one IP packet.
        NotedSegment::new(&self.header, self.payload.len() as u32, sender_isn, receiver_isn)
    }
}

fn shift_sack(mut options: Options, shift: impl Fn(SeqNum) -> SeqNum) -> Options {
    let mut shifted = SackBlocks::NONE;
    for &(start, end) in options.sack.as_slice() {
        shifted.push(shift(start), shift(end));
    }
    options.sack = shifted;
    options
}

impl fmt::Display for NotedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotedSegment { flags, seq, end, ack, win, urgent, options } = self;
        write!(f, "{flags} {seq}:{end}({})", self.payload_len())?;
        if let Some(ack) = ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(win) = win {
            write!(f, " win {win}")?;
        }
        if flags.has(Flags::URG) {
            write!(f, " urg {urgent}")?;
        }
        fmt_options(options, f)
    }
}

/// ` <mss 1460,...>` in the order, and with the padding, in which this crate writes options to the wire.
fn fmt_options(options: &Options, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Options { mss, window_scale, sack_permitted, timestamps, sack, fast_open, profile } = options;
    let is_linux = *profile == OptionProfile::Linux;
    let mut separator = " <";
    let mut lead = |f: &mut fmt::Formatter<'_>| {
        f.write_str(separator)?;
        separator = ",";
        Ok::<(), fmt::Error>(())
    };
    if let Some(mss) = mss {
        lead(f)?;
        write!(f, "mss {mss}")?;
    }
    if let Some(shift) = window_scale.filter(|_| !is_linux) {
        lead(f)?;
        write!(f, "nop,wscale {shift}")?;
    }
    if *sack_permitted {
        lead(f)?;
        f.write_str(match timestamps {
            Some(_) => "sackOK",
            None if options.ends_with_sack_permitted() => "sackOK,eol,eol",
            None => "nop,nop,sackOK",
        })?;
    }
    if let Some(Timestamps { val, ecr }) = timestamps {
        lead(f)?;
        let pad = if *sack_permitted { "" } else { "nop,nop," };
        write!(f, "{pad}TS val {val} ecr {ecr}")?;
    }
    if let Some(shift) = window_scale.filter(|_| is_linux) {
        lead(f)?;
        write!(f, "nop,wscale {shift}")?;
    }
    if let Some(cookie) = fast_open {
        lead(f)?;
        let is_even = (cookie.as_slice().len() + if cookie.is_experimental() { 4 } else { 2 }) % 4 == 0;
        write!(f, "{cookie}{}", if is_even { "" } else { ",nop,nop" })?;
    }
    if !sack.is_empty() {
        lead(f)?;
        f.write_str("nop,nop,sack")?;
        for (start, end) in sack.as_slice() {
            write!(f, " {start}:{end}")?;
        }
    }
    if separator == "," { f.write_str(">") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
