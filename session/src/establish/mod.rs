//! Establishment: what lies between a transport's connection and the app's `connected` or `accepted`.
//!
//! A session has an ordered stack of [`Stage`]s (a PROXY header to send or to receive, TLS, ...). The first one runs
//! until it is done, then the next; readiness is a function of what is there, transport open and no stage left, and
//! is stored nowhere. Stages run at the end of every entry point of the session layer, in `Sessions::settle`, before
//! it looks whether there is something to announce: whatever changed, no stage that could go on is left waiting.
//!
//! A stage reads no byte beyond its own, and writes nothing once it is done: the app's bytes come before and after.

pub mod proxy;
#[cfg(test)]
mod tests;

use core::fmt;
use std::sync::Arc;

use hoststack_transport::{EarlyData, FlowKey, StageCause, StageFailure};

use crate::fifo::{ChunkPool, RxFifo, TxFifo};
use crate::layer::Layer;

/// How a stage came out of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has nothing more to do.
    Done,
    /// It waits.
    Wants(Want),
    /// The connection is of no use: it is reset, and the app hears why.
    Failed(StageCause),
    /// The same, and the stage has queued bytes that tell the peer why (a TLS alert): the connection is closed behind them
    /// instead, and what the peer still sends is dropped.
    FailedSaying(StageCause),
}

/// What a stage waits for. The connect's deadline, or the listener's for establishment, bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// More bytes of the peer.
    Read,
    /// Room to write.
    Write,
}

/// One step between "the transport is open" and "the app is told". It belongs to one session on one worker.
pub trait Stage: Send + fmt::Debug {
    /// What errors, logs and the CLI call it.
    fn name(&self) -> &'static str;

    /// Goes on as far as it can. It is called again whenever bytes or room have come, and at other times: to be asked
    /// once too often must do nothing.
    fn step(&mut self, io: &mut StageIo<'_>) -> Answer;

    /// What stays of it, when it is done, between the transport's bytes and everything that comes after it: later stages
    /// and the app. Most leave nothing. A session has one layer at most.
    fn into_layer(self: Box<Self>) -> Option<Box<dyn Layer>> {
        None
    }
}

/// What makes the stages of a connection: the same plan serves all that a connect retries or a listener accepts.
pub trait StagePlan: Send + Sync + fmt::Debug {
    /// A fresh stage.
    fn stage(&self) -> Box<dyn Stage>;
}

/// The stages of a connect or a listener, in the order in which they run: the one next to the transport first.
#[derive(Clone, Debug, Default)]
pub struct StagePlans(Option<Arc<Vec<Arc<dyn StagePlan>>>>);

impl StagePlans {
    /// No stage: the app is told as soon as the transport is open.
    pub const NONE: StagePlans = StagePlans(None);

    /// These, the one next to the transport first.
    pub fn new(plans: Vec<Arc<dyn StagePlan>>) -> StagePlans {
        StagePlans((!plans.is_empty()).then(|| Arc::new(plans)))
    }

    /// One.
    pub fn one(plan: impl StagePlan + 'static) -> StagePlans {
        StagePlans::new(vec![Arc::new(plan)])
    }

    /// These, and then another one.
    #[must_use]
    pub fn then(self, plan: impl StagePlan + 'static) -> StagePlans {
        let mut plans = self.0.map_or(Vec::new(), Arc::unwrap_or_clone);
        plans.push(Arc::new(plan));
        StagePlans::new(plans)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What its stages are called, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.iter().map(|plan| plan.stage().name()).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<dyn StagePlan>> {
        self.0.iter().flat_map(|plans| plans.iter())
    }
}

/// The bytes of a session as its stage sees them, and what it leaves for the app.
pub struct StageIo<'a> {
    pub(crate) rx: &'a mut RxFifo,
    pub(crate) tx: &'a mut TxFifo,
    pub(crate) chunks: &'a mut ChunkPool,
    pub(crate) tx_capacity: usize,
    pub(crate) flow: &'a FlowKey,
    pub(crate) is_peer_closed: bool,
    pub(crate) has_layer: bool,
    pub(crate) declared: &'a mut Option<Box<proxy::Declared>>,
    /// Bytes were taken or queued: the transport has something to do.
    pub(crate) has_moved: bool,
    /// There was room in the fifo for what could not be written, but no memory.
    pub(crate) lacks_chunks: bool,
}

impl StageIo<'_> {
    /// The transport's addresses.
    pub fn flow(&self) -> &FlowKey {
        self.flow
    }

    /// Bytes received and not taken.
    pub fn rx_len(&self) -> usize {
        self.rx.len()
    }

    /// Whether nothing comes after what is received.
    pub fn is_peer_closed(&self) -> bool {
        self.is_peer_closed
    }

    /// Copies the first received bytes, as many as fit into `into`; says how many. They stay.
    pub fn copy(&self, into: &mut [u8]) -> usize {
        self.rx.copy(self.chunks, into)
    }

    /// Takes `count` received bytes away, at most what is there.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.rx.len());
        self.rx.consume(self.chunks, count);
        self.has_moved |= count > 0;
    }

    /// Takes received bytes into `into`, as many as fit; says how many.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let count = self.rx.read(self.chunks, into);
        self.has_moved |= count > 0;
        count
    }

    /// The most bytes that can ever be queued at a time.
    pub fn tx_capacity(&self) -> usize {
        self.tx_capacity
    }

    /// Queues all of `bytes`, or nothing when there is no room for all; says which.
    #[must_use]
    pub fn write_all(&mut self, bytes: &[u8]) -> bool {
        let available = self.chunks.available();
        let room = self.tx.room(self.tx_capacity);
        if bytes.len() > room {
            return false;
        }
        if self.tx.fits(self.chunks, bytes.len(), available) < bytes.len() {
            self.lacks_chunks = true;
            return false;
        }
        let count = self.tx.write(self.chunks, bytes, self.tx_capacity);
        debug_assert_eq!(count, bytes.len(), "what fits is taken");
        self.has_moved |= count > 0;
        true
    }

    /// Queues bytes, as many as there is room and memory for; says how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = self.tx.write(self.chunks, bytes, self.tx_capacity);
        self.has_moved |= count > 0;
        self.lacks_chunks |= count < bytes.len() && self.tx.room(self.tx_capacity) > 0;
        count
    }

    /// Tells the app whom the connection is said to be between.
    pub fn declare(&mut self, declared: proxy::Declared) {
        *self.declared = Some(Box::new(declared));
    }
}

/// The stages that a session has left, the next one last.
#[derive(Debug, Default)]
pub(crate) struct Stages(Vec<Box<dyn Stage>>);

impl Stages {
    /// Fresh ones of these plans; after them the early data of a connect, which must not overtake what they write.
    pub(crate) fn new(plans: &StagePlans, early_data: EarlyData) -> Stages {
        let mut stages: Vec<Box<dyn Stage>> = plans.iter().map(|plan| plan.stage()).collect();
        if !early_data.is_empty() {
            stages.push(Box::new(QueueEarly(early_data)));
        }
        stages.reverse();
        Stages(stages)
    }

    /// None: ready as soon as the transport is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A planted bug: if there is one left now, there always will be.
    pub(crate) fn freeze(&mut self) {
        if !self.0.is_empty() {
            self.0.insert(0, Box::new(Frozen));
        }
    }

    /// The one whose turn it is.
    pub(crate) fn current(&self) -> Option<&'static str> {
        self.0.last().map(|stage| stage.name())
    }

    /// All that are left, the one whose turn it is first.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().rev().map(|stage| stage.name()).collect()
    }

    /// Runs stages until one waits, one fails, one leaves a layer, or none is left.
    pub(crate) fn run(&mut self, io: &mut StageIo<'_>) -> Ran {
        while let Some(mut stage) = self.0.pop() {
            let name = stage.name();
            let failed = |cause, is_said| Ran::Failed(StageFailure { stage: name, cause }, is_said);
            match stage.step(io) {
                Answer::Done => match stage.into_layer() {
                    Some(_) if io.has_layer => {
                        return failed(StageCause::Unsayable("a session has one layer at most"), false);
                    }
                    Some(layer) => return Ran::Left(layer),
                    None => {}
                },
                // A peer that closed sends nothing more: to wait for it would only end at the deadline.
                Answer::Wants(Want::Read) if io.is_peer_closed => {
                    self.0.push(stage);
                    return failed(StageCause::PeerClosed, false);
                }
                Answer::Wants(want) => {
                    self.0.push(stage);
                    return Ran::Waits(want);
                }
                Answer::Failed(cause) => return failed(cause, false),
                Answer::FailedSaying(cause) => return failed(cause, true),
            }
        }
        Ran::AllDone
    }
}

/// How far stages came.
#[derive(Debug)]
pub(crate) enum Ran {
    /// None is left.
    AllDone,
    /// One waits.
    Waits(Want),
    /// One failed; whether it has queued what tells the peer.
    Failed(StageFailure, bool),
    /// One is done and left this; those after it come above it.
    Left(Box<dyn Layer>),
}

/// The first bytes of a connect's stream, behind what the stages wrote.
#[derive(Debug)]
struct QueueEarly(EarlyData);

impl Stage for QueueEarly {
    fn name(&self) -> &'static str {
        "early data"
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        if io.write_all(self.0.as_slice()) { Answer::Done } else { Answer::Wants(Want::Write) }
    }
}

/// See [`Stages::freeze`].
#[derive(Debug)]
struct Frozen;

impl Stage for Frozen {
    fn name(&self) -> &'static str {
        "frozen"
    }

    fn step(&mut self, _io: &mut StageIo<'_>) -> Answer {
        Answer::Wants(Want::Write)
    }
}
