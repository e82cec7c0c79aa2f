//! Packet capture: a pcapng writer, and a wrapper that records what a device queue receives and sends.
//!
//! Format: draft-ietf-opsawg-pcapng: one section (SHB), an interface description (IDB) per device, an enhanced packet
//! block (EPB) per packet with its direction and, if there is something to say, a comment. A queue encodes its packets into a buffer of its own and takes the
//! file's lock once per vector, and only while a capture runs: otherwise the wrapper costs one relaxed load.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hoststack_wire::MacAddr;

use crate::device::{Capabilities, Device, DeviceCounters, DeviceQueue};
use crate::packet::{Packet, PacketPool};

/// What a captured packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header (LINKTYPE_ETHERNET).
    Ethernet,
    /// An IPv4 or IPv6 header (LINKTYPE_RAW).
    RawIp,
}

impl LinkType {
    const fn code(self) -> u16 {
        match self {
            LinkType::Ethernet => 1,
            LinkType::RawIp => 101,
        }
    }
}

/// Which way a captured packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received by us.
    Inbound,
    /// Sent by us.
    Outbound,
}

impl Direction {
    /// Bits 0-1 of the EPB's flags word.
    const fn flags(self) -> u32 {
        match self {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        }
    }
}

/// When what was captured is handed to the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPolicy {
    /// After every vector of packets: a reader that follows the file sees them at once.
    EveryBatch,
    /// When this many bytes wait, and at the end.
    Bytes(usize),
}

/// How to capture.
#[derive(Clone, Copy, Debug)]
pub struct PcapOptions {
    /// Bytes kept of each packet (default 262144: all).
    pub snap_len: u32,
    /// Packets after which the capture stops (default: none).
    pub packets_max: Option<u64>,
    /// Bytes of file after which the capture stops (default: none). The file never exceeds it.
    pub bytes_max: Option<u64>,
    /// When to flush (default: every 64 KiB).
    pub flush: FlushPolicy,
    /// What to add to `now_us` to get microseconds since 1970 (default 0: times count from the stack's epoch).
    pub epoch_us: u64,
}

impl Default for PcapOptions {
    fn default() -> PcapOptions {
        PcapOptions {
            snap_len: 262_144,
            packets_max: None,
            bytes_max: None,
            flush: FlushPolicy::Bytes(64 * 1024),
            epoch_us: 0,
        }
    }
}

/// What a capture wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureSummary {
    /// Packets written.
    pub packets: u64,
    /// Bytes of file written.
    pub bytes: u64,
    /// Packets not written: a limit was reached or a write failed.
    pub missed: u64,
    /// What the first failed write said.
    pub error: Option<String>,
}

/// Writes one pcapng section.
pub struct PcapWriter {
    out: BufWriter<Box<dyn Write + Send>>,
    options: PcapOptions,
    interfaces: u32,
    unflushed: usize,
    summary: CaptureSummary,
    full: bool,
    scratch: Vec<u8>,
}

impl PcapWriter {
    /// A capture into a new file, which its owner alone may read: it has what others say to each other. An old one of that
    /// name is replaced, and keeps its permissions.
    ///
    /// # Errors
    /// What opening or writing said.
    pub fn create(path: &Path, options: PcapOptions) -> io::Result<PcapWriter> {
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        PcapWriter::new(Box::new(file.open(path)?), options)
    }

    /// A capture into `out`, which should not buffer: this does.
    ///
    /// # Errors
    /// What writing the section header said.
    pub fn new(out: Box<dyn Write + Send>, options: PcapOptions) -> io::Result<PcapWriter> {
        let mut writer = PcapWriter {
            out: BufWriter::with_capacity(64 * 1024, out),
            options,
            interfaces: 0,
            unflushed: 0,
            summary: CaptureSummary::default(),
            full: false,
            scratch: Vec::new(),
        };
        let mut block = Vec::new();
        section_header(&mut block);
        writer.out.write_all(&block)?;
        writer.summary.bytes += block.len() as u64;
        Ok(writer)
    }

    /// Describes an interface; its number is what [`write_packet`](PcapWriter::write_packet) wants.
    ///
    /// # Errors
    /// What writing said.
    pub fn add_interface(&mut self, name: &str, link_type: LinkType) -> io::Result<u32> {
        let mut block = Vec::new();
        interface_description(&mut block, name, link_type, self.options.snap_len);
        self.out.write_all(&block)?;
        self.summary.bytes += block.len() as u64;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes one packet, unless a limit was reached. A failed write ends the capture and is kept for the summary.
    ///
    /// # Panics
    /// When `interface` was not added.
    pub fn write_packet(&mut self, interface: u32, now_us: u64, direction: Direction, data: &[u8]) {
        assert!(interface < self.interfaces, "the interface must be described first");
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        enhanced_packet(
            &mut scratch,
            interface,
            self.options.epoch_us + now_us,
            direction,
            self.options.snap_len,
            data,
            "",
        );
        self.write_blocks(&scratch, &[scratch.len()]);
        self.scratch = scratch;
    }

    /// Writes packets that were encoded before, on another thread perhaps; as [`PcapWriter::write_packet`] otherwise.
    ///
    /// # Panics
    /// When one is of an interface that was not added.
    pub fn write(&mut self, packets: &PacketBlocks) {
        assert!(packets.interfaces <= self.interfaces, "the interface must be described first");
        self.write_blocks(&packets.blocks, &packets.ends);
    }

    /// Whether a limit was reached or a write failed: nothing more is written.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What was written so far.
    pub fn summary(&self) -> &CaptureSummary {
        &self.summary
    }

    /// Hands everything to the operating system. A failure ends the capture, as that of a write does.
    ///
    /// # Errors
    /// What the write said.
    pub fn flush(&mut self) -> io::Result<()> {
        self.unflushed = 0;
        self.out.flush().inspect_err(|error| {
            self.full = true;
            self.summary.error.get_or_insert(error.to_string());
        })
    }

    /// Ends the capture and tells what it wrote.
    pub fn finish(mut self) -> CaptureSummary {
        if let Err(error) = self.flush() {
            self.summary.error.get_or_insert(error.to_string());
        }
        self.summary
    }

    /// Writes encoded packet blocks; `ends` are where they end in `blocks`.
    fn write_blocks(&mut self, blocks: &[u8], ends: &[usize]) {
        let fitting = self.fitting(ends);
        self.summary.missed += (ends.len() - fitting) as u64;
        if fitting == 0 {
            return;
        }
        let bytes = ends[fitting - 1];
        let mut result = self.out.write_all(&blocks[..bytes]);
        self.unflushed += bytes;
        let flush_at = match self.options.flush {
            FlushPolicy::EveryBatch => 0,
            FlushPolicy::Bytes(limit) => limit,
        };
        if result.is_ok() && (self.full || self.unflushed >= flush_at) {
            result = self.flush();
        }
        match result {
            Ok(()) => {
                self.summary.packets += fitting as u64;
                self.summary.bytes += bytes as u64;
            }
            Err(error) => {
                self.full = true;
                self.summary.missed += fitting as u64;
                self.summary.error.get_or_insert(error.to_string());
            }
        }
    }

    /// How many of the blocks that end at `ends` the limits allow; sets `full` when that is not all of them, or the
    /// last there may be.
    fn fitting(&mut self, ends: &[usize]) -> usize {
        if self.full {
            return 0;
        }
        let mut count = ends.len();
        if let Some(max) = self.options.packets_max {
            let left = max.saturating_sub(self.summary.packets);
            count = usize::try_from(left).unwrap_or(usize::MAX).min(count);
            self.full |= left <= ends.len() as u64;
        }
        if let Some(max) = self.options.bytes_max {
            let left = max.saturating_sub(self.summary.bytes);
            let below = ends.partition_point(|&end| end as u64 <= left);
            self.full |= below < ends.len();
            count = count.min(below);
        }
        count
    }
}

impl fmt::Debug for PcapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapWriter")
            .field("options", &self.options)
            .field("interfaces", &self.interfaces)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

/// Packets encoded for a [`PcapWriter`], where they are and when: what is done with them afterwards is up to the writer.
#[derive(Clone, Debug, Default)]
pub struct PacketBlocks {
    blocks: Vec<u8>,
    /// Where each block ends.
    ends: Vec<usize>,
    /// One more than the highest interface number.
    interfaces: u32,
}

impl PacketBlocks {
    /// Adds a packet, of which `snap_len` bytes are kept; `at_us` are microseconds since 1970. An empty comment is none.
    pub fn add(
        &mut self,
        interface: u32,
        at_us: u64,
        direction: Direction,
        snap_len: u32,
        data: &[u8],
        comment: &str,
    ) {
        enhanced_packet(&mut self.blocks, interface, at_us, direction, snap_len, data, comment);
        self.ends.push(self.blocks.len());
        self.interfaces = self.interfaces.max(interface + 1);
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of file that they are.
    pub fn bytes(&self) -> usize {
        self.blocks.len()
    }
}

/// A capture point that several devices share, started and stopped while they run.
#[derive(Debug, Default)]
pub struct Capture {
    active: AtomicBool,
    inner: Mutex<CaptureInner>,
}

#[derive(Debug, Default)]
struct CaptureInner {
    /// The devices wrapped so far: name and link type. Their place is their interface number.
    interfaces: Vec<(String, LinkType)>,
    writer: Option<PcapWriter>,
}

impl Capture {
    /// A capture point that is not capturing.
    pub fn new() -> Arc<Capture> {
        Arc::default()
    }

    /// Begins to write to `writer`, which must be new: describes the interfaces and lets packets in. A capture that
    /// runs is ended first, and its summary returned.
    ///
    /// # Errors
    /// What writing said; nothing is captured then.
    pub fn start(&self, mut writer: PcapWriter) -> io::Result<Option<CaptureSummary>> {
        let mut inner = self.lock();
        for (name, link_type) in &inner.interfaces {
            writer.add_interface(name, *link_type)?;
        }
        let ended = inner.writer.replace(writer).map(PcapWriter::finish);
        self.active.store(true, Ordering::Release);
        Ok(ended)
    }

    /// Ends the capture, and tells what it wrote. `None`: none ran.
    pub fn stop(&self) -> Option<CaptureSummary> {
        self.active.store(false, Ordering::Release);
        let writer = self.lock().writer.take();
        writer.map(PcapWriter::finish)
    }

    /// Whether packets are being captured. Ends by itself when a limit is reached.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// What was written so far; `None` when no capture was started, or it was stopped.
    pub fn summary(&self) -> Option<CaptureSummary> {
        self.lock().writer.as_ref().map(|writer| writer.summary().clone())
    }

    /// Hands what was captured to the operating system.
    ///
    /// # Errors
    /// What the write said.
    pub fn flush(&self) -> io::Result<()> {
        self.lock().writer.as_mut().map_or(Ok(()), PcapWriter::flush)
    }

    fn add_interface(&self, name: &str, link_type: LinkType) -> u32 {
        let mut inner = self.lock();
        let CaptureInner { interfaces, writer } = &mut *inner;
        // Cannot truncate because: a machine has fewer than 2^32 interfaces.
        let number = interfaces.len() as u32;
        interfaces.push((name.to_owned(), link_type));
        if let Some(writer) = writer
            && let Err(error) = writer.add_interface(name, link_type)
        {
            writer.full = true;
            writer.summary.error.get_or_insert(error.to_string());
        }
        number
    }

    fn options(&self) -> Option<PcapOptions> {
        self.lock().writer.as_ref().map(|writer| writer.options)
    }

    fn write_blocks(&self, blocks: &[u8], ends: &[usize]) {
        let mut inner = self.lock();
        if let Some(writer) = &mut inner.writer {
            writer.write_blocks(blocks, ends);
            if writer.is_full() {
                self.active.store(false, Ordering::Release);
                tracing::warn!(
                    packets = writer.summary.packets,
                    bytes = writer.summary.bytes,
                    error = writer.summary.error.as_deref(),
                    "capture ended: its limit was reached or a write failed"
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, CaptureInner> {
        // A panic elsewhere leaves at worst a file that ends early.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps `device` so that `capture` records all its queues.
pub fn capture(device: Box<dyn Device>, capture: &Arc<Capture>) -> CapturedDevice {
    let link_type = if device.mac().is_some() { LinkType::Ethernet } else { LinkType::RawIp };
    let interface = capture.add_interface(device.name(), link_type);
    CapturedDevice { device, capture: Arc::clone(capture), interface }
}

/// A device whose packets are captured.
pub struct CapturedDevice {
    device: Box<dyn Device>,
    capture: Arc<Capture>,
    interface: u32,
}

impl Device for CapturedDevice {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn mac(&self) -> Option<MacAddr> {
        self.device.mac()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn into_queues(self: Box<Self>, count: usize) -> io::Result<Vec<Box<dyn DeviceQueue>>> {
        let CapturedDevice { device, capture, interface } = *self;
        let queues = device.into_queues(count)?;
        Ok(queues
            .into_iter()
            .map(|queue| Box::new(Captured::new(queue, &capture, interface)) as Box<dyn DeviceQueue>)
            .collect())
    }
}

/// A queue whose packets are captured: what it gives on `receive`, what it accepts on `transmit`.
pub struct Captured<D> {
    queue: D,
    capture: Arc<Capture>,
    interface: u32,
    blocks: Vec<u8>,
    ends: Vec<usize>,
}

impl<D: DeviceQueue> Captured<D> {
    fn new(queue: D, capture: &Arc<Capture>, interface: u32) -> Captured<D> {
        Captured { queue, capture: Arc::clone(capture), interface, blocks: Vec::new(), ends: Vec::new() }
    }

    /// Encodes `packets` into this queue's buffer.
    fn encode(&mut self, options: &PcapOptions, now_us: u64, direction: Direction, packets: &[Packet]) {
        self.blocks.clear();
        self.ends.clear();
        for packet in packets {
            let at_us = options.epoch_us + now_us;
            enhanced_packet(
                &mut self.blocks,
                self.interface,
                at_us,
                direction,
                options.snap_len,
                packet.data(),
                "",
            );
            self.ends.push(self.blocks.len());
        }
    }
}

impl<D: DeviceQueue> DeviceQueue for Captured<D> {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let first = into.len();
        let count = self.queue.receive(now_us, pool, into, max);
        if count > 0
            && self.capture.is_active()
            && let Some(options) = self.capture.options()
        {
            self.encode(&options, now_us, Direction::Inbound, &into[first..]);
            self.capture.write_blocks(&self.blocks, &self.ends);
        }
        count
    }

    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        if packets.is_empty() || !self.capture.is_active() {
            return self.queue.transmit(now_us, pool, packets);
        }
        // How many the queue takes is known only when they are gone: encode all, keep what was taken.
        let Some(options) = self.capture.options() else { return self.queue.transmit(now_us, pool, packets) };
        self.encode(&options, now_us, Direction::Outbound, packets);
        let count = self.queue.transmit(now_us, pool, packets);
        self.ends.truncate(count);
        self.capture.write_blocks(&self.blocks, &self.ends);
        count
    }

    fn next_deadline_us(&self) -> Option<u64> {
        self.queue.next_deadline_us()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.queue.wait_fd()
    }

    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        self.queue.set_notify(notify);
    }

    fn counters(&self) -> DeviceCounters {
        self.queue.counters()
    }
}

/// Appends a block of `kind` whose body `fill` writes; lengths go in front and behind (pcapng §3.1).
fn block(into: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    into.extend(kind.to_le_bytes());
    into.extend([0; 4]);
    fill(into);
    // Cannot truncate because: a block holds one packet of at most 4 GiB less its header, as Packet has it.
    let len = ((into.len() - start + 4) as u32).to_le_bytes();
    into[start + 4..start + 8].copy_from_slice(&len);
    into.extend(len);
}

/// Appends an option, padded to 4 bytes (pcapng §3.5).
fn option(into: &mut Vec<u8>, code: u16, value: &[u8]) {
    // An option's length is 16 bits: longer text is cut.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    into.extend(code.to_le_bytes());
    into.extend((value.len() as u16).to_le_bytes());
    into.extend(value);
    pad(into, value.len());
}

fn pad(into: &mut Vec<u8>, len: usize) {
    into.extend(&[0; 3][..len.next_multiple_of(4) - len]);
}

/// Section header block, little endian, version 1.0, length unknown (pcapng §4.1).
fn section_header(into: &mut Vec<u8>) {
    block(into, 0x0a0d_0d0a, |body| {
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        option(body, 4, concat!("hoststack ", env!("CARGO_PKG_VERSION")).as_bytes()); // shb_userappl
        option(body, 0, &[]);
    });
}

/// Interface description block: if_name, times in microseconds (pcapng §4.2).
fn interface_description(into: &mut Vec<u8>, name: &str, link_type: LinkType, snap_len: u32) {
    block(into, 1, |body| {
        body.extend(link_type.code().to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(snap_len.to_le_bytes());
        option(body, 2, name.as_bytes()); // if_name
        option(body, 9, &[6]); // if_tsresol: 10^-6 s
        option(body, 0, &[]);
    });
}

/// Enhanced packet block with its direction (pcapng §4.3).
fn enhanced_packet(
    into: &mut Vec<u8>,
    interface: u32,
    at_us: u64,
    direction: Direction,
    snap_len: u32,
    data: &[u8],
    comment: &str,
) {
    let kept = &data[..data.len().min(snap_len as usize)];
    block(into, 6, |body| {
        body.extend(interface.to_le_bytes());
        // The time's high and low half.
        body.extend(((at_us >> 32) as u32).to_le_bytes());
        body.extend((at_us as u32).to_le_bytes());
        // Cannot truncate because: a packet is smaller than 4 GiB.
        body.extend((kept.len() as u32).to_le_bytes());
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(kept);
        pad(body, kept.len());
        if !comment.is_empty() {
            option(body, 1, comment.as_bytes()); // opt_comment
        }
        option(body, 2, &direction.flags().to_le_bytes()); // epb_flags
        option(body, 0, &[]);
    });
}

#[cfg(test)]
mod tests;
