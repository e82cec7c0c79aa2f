//! Layers: what stays between a transport's bytes and the app's for a session's whole life (TLS, RFC 8446).
//!
//! A stage that is done may leave a [`Layer`] ([`crate::Stage::into_layer`]). From then on the session has two pairs of
//! fifos: the *wire's*, which the transport fills and empties, and the *app's*. [`Layer::pump`] moves what it can from one to
//! the other, through a [`LayerIo`]. Who calls it and when is `session/pump.rs`; a layer keeps no time and asks nobody.
//!
//! Backpressure goes through: a layer takes no more off the wire than the app's fifo has room for, a record at most
//! excepted, and no more from the app than the wire's fifo has room for.

#[cfg(test)]
mod tests;

use core::any::Any;
use core::fmt;

use hoststack_transport::CloseReason;

use crate::fifo::{ChunkPool, RxFifo, TxFifo};

/// What a layer's bytes may add to the app's: the wire's send fifo holds an eighth more than the app's and so many bytes.
const WIRE_EXTRA: usize = 512;

/// Chunks that layers' output leaves alone: a sixteenth of the pool, half of what apps' writes leave to what is received. So
/// what apps wrote can always become bytes on the wire, and what is on the wire can always be received.
pub(crate) fn wire_reserve(chunks: &ChunkPool) -> usize {
    chunks.limit() >> 4
}

/// What stays of a stage between a transport's bytes and the app's.
pub trait Layer: Any + Send + fmt::Debug {
    /// What errors, logs and the CLI call it.
    fn name(&self) -> &'static str;

    /// Moves what can be moved, both ways, and says how it stands. To be pumped once too often must do nothing. Not called
    /// again after [`PeerStream::Broken`].
    ///
    /// It leaves bytes on the wire's receive fifo only while the app's has no room, and bytes in the app's send fifo only
    /// while the wire's has none ([`LayerIo::wire_room`]).
    fn pump(&mut self, io: &mut LayerIo<'_>) -> Standing;

    /// Whether it holds bytes for the app that found no room.
    fn holds_bytes(&self) -> bool;

    /// Its state in words, for the CLI: `name=value` pairs separated by spaces.
    fn describe(&self) -> String;
}

/// How a layer stands after it was pumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Standing {
    /// The peer's stream.
    pub peer: PeerStream,
    /// Our stream's end is in the wire's fifo, behind all bytes of the app.
    pub has_ended: bool,
}

/// How the peer's stream stands, as its layer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PeerStream {
    /// More may come.
    #[default]
    Flows,
    /// The peer ended it, and all of it is in the app's fifo.
    Ended,
    /// The transport ended without the layer's end; what came before is in the app's fifo.
    Cut,
    /// It cannot go on: the connection is reset. What is queued for the wire is sent first, if it can be at once.
    Broken(CloseReason),
}

/// Buffers of a worker that layers work in, one at a time. Nothing in them outlives a call of [`Layer::pump`].
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes of the app.
    pub plain: Vec<u8>,
    /// Bytes for the wire.
    pub wire: Vec<u8>,
    /// An empty vector with capacity, for a layer that must keep bytes beyond its call: it takes the vector and gives it
    /// back when it is empty, so that idle sessions hold no memory and busy ones do not allocate.
    pub spare: Vec<u8>,
}

/// What a layer moves bytes with.
pub struct LayerIo<'a> {
    pub(crate) wire_rx: &'a mut RxFifo,
    pub(crate) wire_tx: &'a mut TxFifo,
    pub(crate) rx: &'a mut RxFifo,
    pub(crate) tx: &'a mut TxFifo,
    pub(crate) chunks: &'a mut ChunkPool,
    pub(crate) rx_capacity: usize,
    pub(crate) wire_tx_capacity: usize,
    pub(crate) is_wire_closed: bool,
    pub(crate) is_app_done: bool,
    pub(crate) can_send: bool,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) did: Did,
}

/// What a pump did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Did {
    /// Bytes came into the app's receive fifo.
    pub(crate) deliver: bool,
    /// Bytes were taken off the wire.
    pub(crate) receive: bool,
    /// Bytes were put on the wire.
    pub(crate) send: bool,
    /// Bytes of the app were taken.
    pub(crate) take: bool,
    /// There was room in a fifo, but no memory.
    pub(crate) lack_chunks: bool,
}

impl LayerIo<'_> {
    /// Bytes received and not taken.
    pub fn wire_len(&self) -> usize {
        self.wire_rx.len()
    }

    /// Takes received bytes into `into`; says how many.
    pub fn read_wire(&mut self, into: &mut [u8]) -> usize {
        let count = self.wire_rx.read(self.chunks, into);
        self.did.receive |= count > 0;
        count
    }

    /// Copies the first received bytes, which stay; says how many.
    pub fn copy_wire(&self, into: &mut [u8]) -> usize {
        self.wire_rx.copy(self.chunks, into)
    }

    /// Bytes that the app's fifo has room for.
    pub fn app_room(&self) -> usize {
        self.rx.room(self.rx_capacity)
    }

    /// Gives bytes to the app, as many as there is room and memory for; says how many.
    pub fn deliver(&mut self, bytes: &[u8]) -> usize {
        let room = self.app_room();
        let bytes = &bytes[..bytes.len().min(room)];
        // In order, so all that has memory is kept: nothing else stores into the app's fifo.
        let count = self.rx.store(self.chunks, 0, bytes, room).advanced as usize;
        self.did.deliver |= count > 0;
        self.did.lack_chunks |= count < bytes.len();
        count
    }

    /// Bytes of the app that wait to be sent.
    pub fn app_len(&self) -> usize {
        self.tx.len()
    }

    /// Takes bytes of the app into all of `into`.
    ///
    /// # Panics
    /// When fewer wait.
    pub fn read_app(&mut self, into: &mut [u8]) {
        self.tx.copy(self.chunks, 0, into);
        self.tx.acknowledge(self.chunks, into.len());
        self.did.take |= !into.is_empty();
    }

    /// Bytes, at most `want`, that [`LayerIo::send`] takes now. None while the wire's fifo is so full that little would fit, so
    /// that no small records are made of a long stream.
    pub fn wire_room(&mut self, want: usize) -> usize {
        let room = self.wire_tx.room(self.wire_tx_capacity);
        if !self.can_send || (room < self.wire_tx_capacity / 4 && room < want) {
            return 0;
        }
        let want = want.min(room);
        let chunks = self.chunks.available().saturating_sub(wire_reserve(self.chunks));
        let fits = self.wire_tx.fits(self.chunks, want, chunks);
        self.did.lack_chunks |= fits < want;
        fits
    }

    /// Queues bytes for the wire, as many as there is room and memory for; says how many.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        if !self.can_send {
            return 0;
        }
        let count = self.wire_tx.write(self.chunks, bytes, self.wire_tx_capacity);
        self.did.send |= count > 0;
        self.did.lack_chunks |= count < bytes.len() && self.wire_tx.room(self.wire_tx_capacity) > 0;
        count
    }

    /// Whether nothing comes on the wire after what is received.
    pub fn is_wire_closed(&self) -> bool {
        self.is_wire_closed
    }

    /// Whether the app has sent all it will.
    pub fn is_app_done(&self) -> bool {
        self.is_app_done
    }

    /// The worker's buffers.
    pub fn scratch(&mut self) -> &mut Scratch {
        self.scratch
    }
}

/// How a transport is to be asked to end a connection.
/// In order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// `half_close`.
    HalfClose,
    /// `close`.
    Close,
    /// `reset`.
    Reset,
    /// `transmit`, for what is queued says why, then `reset`.
    SendThenReset,
}

/// A session's layer, with the wire's fifos. Boxed, for few sessions have one.
pub(crate) struct Layered {
    pub(crate) layer: Box<dyn Layer>,
    pub(crate) wire_rx: RxFifo,
    pub(crate) wire_tx: TxFifo,
    pub(crate) standing: Standing,
    /// The app was told that the peer ended its stream, or wants to hear no more.
    pub(crate) is_end_told: bool,
    /// In the queue of layers that found no chunk.
    pub(crate) waits_for_chunks: bool,
    /// What the transport was, or is about to be, asked last.
    pub(crate) asked: Option<Ending>,
    /// How the session ends, whatever the transport says: what the layer found out came first.
    pub(crate) reason: Option<CloseReason>,
}

impl Layered {
    /// A layer over what were a session's fifos.
    pub(crate) fn new(layer: Box<dyn Layer>, wire_rx: RxFifo, wire_tx: TxFifo) -> Layered {
        Layered {
            layer,
            wire_rx,
            wire_tx,
            standing: Standing::default(),
            is_end_told: false,
            waits_for_chunks: false,
            asked: None,
            reason: None,
        }
    }

    /// Most bytes in the wire's send fifo, for an app's of `tx_capacity`.
    pub(crate) fn wire_tx_capacity(tx_capacity: usize) -> usize {
        tx_capacity + tx_capacity / 8 + WIRE_EXTRA
    }

    /// Whether bytes of the peer have not come to the app's fifo.
    pub(crate) fn has_undelivered(&self) -> bool {
        !self.wire_rx.is_empty() || self.layer.holds_bytes()
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.standing.peer, PeerStream::Broken(_))
    }

    /// Gives all chunks back.
    pub(crate) fn release(&mut self, chunks: &mut ChunkPool) {
        self.wire_rx.release(chunks);
        self.wire_tx.release(chunks);
    }
}
