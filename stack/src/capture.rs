//! A capture that is started and stopped while the stack runs: all workers, all interfaces, one file.
//!
//! Workers encode packets and hand a vector of them at a time to a thread of the capture's own, which writes. A disk that
//! stalls must not stall a worker: what waits is bounded, and what does not fit is counted as missed. The stack's threads
//! neither wait for that thread nor look at what it did, but for one flag that says that more need not be sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use hoststack_net::pcap::{CaptureSummary, LinkType, PcapWriter};
use hoststack_net::{PacketBlocks, PcapOptions};
use parking_lot::Mutex;

use crate::inspect::{CaptureError, CaptureReport, CaptureSpec, CaptureState};
use crate::threads;

/// Vectors that may wait for the disk.
const BATCHES_MAX: usize = 1024;
/// Bytes that may wait for the disk: 27 ms of ten gigabits.
const WAITING_MAX: u64 = 32 << 20;

/// What workers send to the writer's thread.
enum Batch {
    Packets(PacketBlocks),
    /// Nothing more comes, whoever still has a tap.
    End,
}

/// What the writer's thread leaves behind.
#[derive(Debug, Default)]
struct Written {
    summary: CaptureSummary,
    is_full: bool,
}

/// Where workers put packets: each has a share.
#[derive(Debug)]
pub(crate) struct CaptureTap {
    pub(crate) spec: CaptureSpec,
    /// Microseconds since 1970 at the stack's start.
    pub(crate) epoch_us: u64,
    batches: Sender<Batch>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The file is full, or a write failed.
    is_over: AtomicBool,
    waiting: AtomicU64,
    missed: AtomicU64,
    written: Mutex<CaptureSummary>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Batch::Packets(packets) => write!(f, "{} packets", packets.len()),
            Batch::End => f.write_str("end"),
        }
    }
}

impl CaptureTap {
    /// Whether packets need not be put here any more.
    pub(crate) fn is_over(&self) -> bool {
        self.progress.is_over.load(Ordering::Relaxed)
    }

    /// Hands packets to the writer's thread, or counts them as missed. Does not wait.
    pub(crate) fn put(&self, packets: PacketBlocks) {
        let (count, bytes) = (packets.len() as u64, packets.bytes() as u64);
        let Progress { waiting, missed, .. } = &*self.progress;
        let is_too_much = waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > WAITING_MAX;
        if is_too_much || self.batches.try_send(Batch::Packets(packets)).is_err() {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
            missed.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// A capture from its start to its stop. Dropping it ends the file well.
#[derive(Debug)]
pub(crate) struct RunningCapture {
    tap: Arc<CaptureTap>,
    writer: Option<JoinHandle<Written>>,
}

impl RunningCapture {
    /// Creates the file and starts the thread that writes it. `interfaces` are in the order of their numbers.
    pub(crate) fn start(
        spec: CaptureSpec,
        interfaces: &[(String, LinkType)],
        epoch_us: u64,
    ) -> Result<RunningCapture, CaptureError> {
        let epoch_us = spec.epoch_us.unwrap_or(epoch_us);
        let options = PcapOptions {
            snap_len: spec.snap_len,
            bytes_max: Some(spec.bytes_max),
            epoch_us,
            ..PcapOptions::default()
        };
        let open = || {
            let mut writer = PcapWriter::create(&spec.file, options)?;
            for (name, link_type) in interfaces {
                writer.add_interface(name, *link_type)?;
            }
            writer.flush()?;
            Ok(writer)
        };
        let started = open().and_then(|writer| RunningCapture::with_writer(spec.clone(), writer, epoch_us));
        started.map_err(|error| CaptureError::File { file: spec.file, error })
    }

    fn with_writer(spec: CaptureSpec, writer: PcapWriter, epoch_us: u64) -> io::Result<RunningCapture> {
        let (batches, waiting) = bounded(BATCHES_MAX);
        let progress = Arc::new(Progress::default());
        progress.written.lock().clone_from(writer.summary());
        let thread = {
            let progress = Arc::clone(&progress);
            threads::start_helper("hoststack-pcap", move || write(&waiting, writer, &progress))?
        };
        let tap = Arc::new(CaptureTap { spec, epoch_us, batches, progress });
        Ok(RunningCapture { tap, writer: Some(thread) })
    }

    /// What workers put packets into.
    pub(crate) fn tap(&self) -> &Arc<CaptureTap> {
        &self.tap
    }

    /// What was written so far.
    pub(crate) fn report(&self) -> CaptureReport {
        let summary = self.tap.progress.written.lock().clone();
        let state = match (&summary.error, self.tap.is_over()) {
            (Some(_), _) => CaptureState::Failed,
            (None, true) => CaptureState::Full,
            (None, false) => CaptureState::Running,
        };
        self.told(summary, state)
    }

    fn told(&self, summary: CaptureSummary, state: CaptureState) -> CaptureReport {
        let CaptureSummary { packets, bytes, missed, error } = summary;
        CaptureReport {
            file: self.tap.spec.file.display().to_string(),
            filter: self.tap.spec.filter.to_string(),
            state,
            packets,
            bytes,
            bytes_max: self.tap.spec.bytes_max,
            missed: missed + self.tap.progress.missed.load(Ordering::Relaxed),
            error,
        }
    }

    /// Waits until all that workers put here is written, and tells what was.
    pub(crate) fn finish(mut self) -> CaptureReport {
        let Written { summary, is_full } = self.end();
        let state = match (&summary.error, is_full) {
            (Some(_), _) => CaptureState::Failed,
            (None, true) => CaptureState::Full,
            (None, false) => CaptureState::Stopped,
        };
        self.told(summary, state)
    }

    fn end(&mut self) -> Written {
        let Some(writer) = self.writer.take() else { return Written::default() };
        // Fails only when the thread has ended, and then so has the capture.
        let _ = self.tap.batches.send(Batch::End);
        writer.join().unwrap_or_else(|_| {
            let error = Some("the thread that writes the capture panicked".to_owned());
            let summary = CaptureSummary { error, ..self.tap.progress.written.lock().clone() };
            Written { summary, is_full: false }
        })
    }
}

impl Drop for RunningCapture {
    fn drop(&mut self) {
        self.end();
    }
}

/// The writer's thread. When nothing waits, all that was written is handed to the host: who follows the file sees it.
fn write(batches: &Receiver<Batch>, mut writer: PcapWriter, progress: &Progress) -> Written {
    loop {
        let batch = match batches.try_recv() {
            Err(TryRecvError::Empty) => {
                // A failure is in the summary.
                let _ = writer.flush();
                tell(&writer, progress);
                batches.recv().ok()
            }
            batch => batch.ok(),
        };
        let Some(Batch::Packets(packets)) = batch else { break };
        progress.waiting.fetch_sub(packets.bytes() as u64, Ordering::Relaxed);
        writer.write(&packets);
        tell(&writer, progress);
    }
    let is_full = writer.is_full();
    Written { summary: writer.finish(), is_full }
}

fn tell(writer: &PcapWriter, progress: &Progress) {
    progress.written.lock().clone_from(writer.summary());
    progress.is_over.store(writer.is_full(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crossbeam_channel::unbounded;
    use hoststack_net::pcap::Direction;

    use super::*;

    /// A disk that says that it is asked to write, takes nothing until it is let, and then so many bytes.
    struct Disk {
        asked: Sender<()>,
        gate: Receiver<()>,
        left: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            // Closed: it takes all from now on.
            let _ = self.gate.recv();
            self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("disk full"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn capture_on(disk: Disk) -> RunningCapture {
        let mut writer = PcapWriter::new(Box::new(disk), PcapOptions::default()).unwrap();
        writer.add_interface("x", LinkType::RawIp).unwrap();
        RunningCapture::with_writer(CaptureSpec::new("x"), writer, 0).unwrap()
    }

    fn packet() -> PacketBlocks {
        let mut packets = PacketBlocks::default();
        packets.add(0, 0, Direction::Inbound, 100, b"packet", "");
        packets
    }

    #[test]
    fn a_disk_that_stalls_stalls_nobody_and_what_does_not_fit_is_missed() {
        let (open, gate) = bounded(0);
        let (asked, is_asked) = unbounded();
        let capture = capture_on(Disk { asked, gate, left: usize::MAX });
        // Dropped first if an assertion fails: the writer's thread waits for it, and the capture for the thread.
        let open = open;
        // What the file begins with is written as soon as nothing else waits: the disk stalls.
        is_asked.recv().unwrap();
        // More than may wait: each put returns though the disk takes nothing.
        let puts = BATCHES_MAX as u64 + 100;
        for _ in 0..puts {
            capture.tap().put(packet());
        }
        assert_eq!(capture.report().missed, 100);
        drop(open);
        let report = capture.finish();
        assert_eq!((report.packets, report.missed), (puts - 100, 100));
        assert_eq!(report.state, CaptureState::Stopped);
    }

    #[test]
    fn a_disk_that_fails_ends_the_capture_and_is_told() {
        let (open, gate) = bounded(0);
        drop(open);
        let capture = capture_on(Disk { asked: unbounded().0, gate, left: 0 });
        capture.tap().put(packet());
        let report = capture.finish();
        assert_eq!((report.state, report.error.as_deref()), (CaptureState::Failed, Some("disk full")));
    }

    #[test]
    fn too_many_bytes_at_once_are_missed() {
        let (open, gate) = bounded(0);
        let capture = capture_on(Disk { asked: unbounded().0, gate, left: usize::MAX });
        let open = open;
        let mut large = PacketBlocks::default();
        while large.bytes() as u64 <= WAITING_MAX / 2 {
            large.add(0, 0, Direction::Inbound, u32::MAX, &vec![0; 4 << 20], "");
        }
        let count = large.len() as u64;
        // The first may be taken at once; of the others two do not fit.
        for _ in 0..3 {
            capture.tap().put(large.clone());
        }
        assert!(capture.report().missed >= count);
        drop(open);
        let report = capture.finish();
        assert_eq!(report.packets + report.missed, 3 * count);
    }
}
