//! Recording a run: what each step was given from outside of its owner, and a digest of every packet.
//!
//! A step is a function of its owner's state and of what it finds: the time, how many batches wait in each inbox, the
//! packets that its devices hand over, whether a full channel took a batch. The [`Tape`] notes just that. Steps of
//! different threads are put in one order by a stamp that each draws when it has taken its inputs and sent nothing yet:
//! whatever a step found was sent by a step with a lower stamp. So a recorded run of threads replays on one thread, step
//! by step, to the same digest (invariant 7 of the design).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hoststack_transport::{Instant, WorkerId};
use parking_lot::Mutex;

use crate::channel::Outbox;

/// Who steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// The owner of directories and half-opens.
    Main,
    /// The owner of what is established.
    Worker(WorkerId),
}

/// One step of a recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedStep {
    /// Who stepped.
    pub actor: Actor,
    /// The time that the step was given.
    pub now: Instant,
    /// Its place among all steps.
    stamp: u64,
    /// What it found, in the order in which it looked.
    found: Vec<u32>,
    /// The packets that its devices handed over.
    packets: Vec<Box<[u8]>>,
}

/// A recorded run: its steps, in an order in which they can be taken one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The steps.
    pub steps: Vec<RecordedStep>,
    /// Digest of every packet in and out, with its time.
    pub digest: u64,
}

/// Where finished tapes of a run are gathered, and its stamps are drawn.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    stamps: AtomicU64,
    done: Mutex<Recording>,
}

impl Recorder {
    /// Adds what one actor recorded. Digests are combined so that the order of actors does not matter.
    pub(crate) fn add(&self, steps: Vec<RecordedStep>, digest: u64) {
        let mut done = self.done.lock();
        done.steps.extend(steps);
        done.digest ^= digest;
    }

    /// All that was added, in order.
    pub(crate) fn recording(&self) -> Recording {
        let mut recording = self.done.lock().clone();
        recording.steps.sort_by_key(|step| step.stamp);
        recording
    }
}

/// What an actor's step finds: looked at, written down, or read from a recording.
#[derive(Debug, Default)]
pub(crate) enum Tape {
    /// Looked at only.
    #[default]
    Off,
    /// Written down.
    Recording {
        recorder: Arc<Recorder>,
        actor: Actor,
        steps: Vec<RecordedStep>,
        current: Option<RecordedStep>,
    },
    /// Read.
    Replaying { found: VecDeque<u32>, packets: VecDeque<Box<[u8]>> },
}

impl Tape {
    /// Records the steps of `actor` from now on.
    pub(crate) fn recording(recorder: &Arc<Recorder>, actor: Actor) -> Tape {
        Tape::Recording { recorder: recorder.clone(), actor, steps: Vec::new(), current: None }
    }

    /// The next step is this recorded one.
    pub(crate) fn load(&mut self, step: RecordedStep) {
        *self = Tape::Replaying { found: step.found.into(), packets: step.packets.into() };
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Tape::Recording { actor, current, .. } = self {
            let packets = Vec::new();
            *current = Some(RecordedStep { actor: *actor, now, stamp: 0, found: Vec::new(), packets });
        }
    }

    /// What the step finds: what it does find now, or what it found when it was recorded.
    #[inline]
    pub(crate) fn find(&mut self, look: impl FnOnce() -> usize) -> usize {
        match self {
            Tape::Off => look(),
            Tape::Recording { current, .. } => {
                let found = look();
                if let Some(step) = current {
                    step.found.push(u32::try_from(found).unwrap_or(u32::MAX));
                }
                found
            }
            Tape::Replaying { found, .. } => found.pop_front().unwrap_or(0) as usize,
        }
    }

    /// What waits for the step, at least: batches or requests. A replay must have as many.
    ///
    /// # Panics
    /// When a replay has come apart from its recording: other requests, apps or configuration, or a bug.
    #[inline]
    pub(crate) fn find_waiting(&mut self, what: &str, look: impl Fn() -> usize) -> usize {
        let found = self.find(&look);
        if self.is_replaying() {
            let waiting = look();
            assert!(waiting >= found, "the replay has come apart: {waiting} of {found} {what} are there");
        }
        found
    }

    /// Whether what the step does to the outside is only pretended: it was done when it was recorded.
    #[inline]
    pub(crate) fn is_replaying(&self) -> bool {
        matches!(self, Tape::Replaying { .. })
    }

    /// Writes down a packet that the step was handed.
    #[inline]
    pub(crate) fn note_packets<'p>(&mut self, packets: impl Iterator<Item = &'p [u8]>) {
        if let Tape::Recording { current: Some(step), .. } = self {
            step.packets.extend(packets.map(Box::from));
        }
    }

    /// The next packet that the recorded step was handed.
    pub(crate) fn next_packet(&mut self) -> Option<Box<[u8]>> {
        match self {
            Tape::Replaying { packets, .. } => packets.pop_front(),
            _ => None,
        }
    }

    /// All inputs are taken, nothing was sent yet: the step's place among all steps.
    #[inline]
    pub(crate) fn stamp(&mut self) {
        if let Tape::Recording { recorder, current: Some(step), .. } = self {
            step.stamp = recorder.stamps.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The step is over; `worked` as in [`crate::Step`].
    pub(crate) fn end(&mut self, worked: bool) {
        if let Tape::Recording { steps, current, .. } = self
            && let Some(step) = current.take()
            // A step that found nothing and sent nothing changed nothing, unless a timer was due.
            && (worked || step.found.iter().any(|&found| found > 0))
        {
            steps.push(step);
        }
    }

    /// Hands in what was recorded. `digest` is of what this actor saw.
    pub(crate) fn hand_in(&mut self, digest: u64) {
        if let Tape::Recording { recorder, steps, actor, .. } = self {
            let digest = match actor {
                Actor::Main => digest,
                Actor::Worker(worker) => share(worker.index(), digest),
            };
            recorder.add(std::mem::take(steps), digest);
        }
    }
}

/// A worker's share of a run's digest.
fn share(worker: usize, digest: u64) -> u64 {
    digest.rotate_left((worker as u32 + 1) * 7)
}

/// The digest of a run, of its workers' digests.
pub(crate) fn combine(workers: impl Iterator<Item = u64>) -> u64 {
    workers.enumerate().fold(0, |all, (worker, digest)| all ^ share(worker, digest))
}

/// Flushes an outbox, or does what the recorded flush did.
pub(crate) fn flush<T>(tape: &mut Tape, outbox: &mut Outbox<T>) {
    if outbox.waiting() == 0 {
        return;
    }
    let is_replaying = tape.is_replaying();
    let sent = tape.find(|| usize::from(outbox.flush()));
    if is_replaying && sent > 0 {
        outbox.flush();
    }
}

/// A running digest.
#[derive(Clone, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    fn fold(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Folds a vector of packets and when they passed.
    pub(crate) fn packets<'a>(&mut self, now_us: u64, packets: impl Iterator<Item = &'a [u8]>) {
        self.fold(now_us);
        for packet in packets {
            self.fold(packet.len() as u64);
            for word in packet.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..word.len()].copy_from_slice(word);
                self.fold(u64::from_le_bytes(bytes));
            }
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}
