//! One session as people want to see it: every part of it, by name. Nothing here changes anything.

use hoststack_transport::{ConnectId, Instant};

use super::{Session, Sessions};
use crate::fifo::{RxFifo, TxFifo};

/// A session, part by part.
#[derive(Clone, Debug, Default)]
pub struct SessionView {
    /// The connect request, while its app has not been told.
    pub connect: Option<ConnectId>,
    /// When it must be up, while it is not.
    pub deadline: Option<Instant>,
    /// Establishment stages that are left, the one whose turn it is first.
    pub stages: Vec<&'static str>,
    /// What the app must still be told, in order.
    pub pending: Vec<&'static str>,
    /// Where it is queued, and what it waits for.
    pub queues: Vec<&'static str>,
    /// What the app has not read.
    pub rx: FifoView,
    /// What the app wrote and its transport, or its layer, still has.
    pub tx: FifoView,
    /// Its layer.
    pub layer: Option<LayerView>,
}

/// A fifo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FifoView {
    /// Bytes in it, in order.
    pub bytes: usize,
    /// The most there may be.
    pub capacity: usize,
    /// How far the capacity may grow; 0: it does not.
    pub capacity_max: usize,
    /// Chunks it holds.
    pub chunks: usize,
    /// Runs of bytes beyond a hole.
    pub ooo_ranges: usize,
    /// Bytes in those.
    pub ooo_bytes: usize,
    /// Bytes until the end of what is urgent.
    pub urgent: usize,
}

/// A layer, and the fifos beneath it.
#[derive(Clone, Debug, Default)]
pub struct LayerView {
    /// Its name.
    pub name: &'static str,
    /// Its state, as `name=value` pairs separated by spaces.
    pub state: String,
    /// Bytes received that it has not taken.
    pub wire_rx: FifoView,
    /// Bytes it made that the peer has not acknowledged.
    pub wire_tx: FifoView,
}

impl FifoView {
    fn rx(fifo: &RxFifo, capacity: u32, urgent: u32) -> FifoView {
        FifoView {
            bytes: fifo.len(),
            capacity: capacity as usize,
            chunks: fifo.chunks(),
            ooo_ranges: fifo.ranges().len(),
            ooo_bytes: fifo.ranges().iter().map(|range| (range.end - range.start) as usize).sum(),
            urgent: urgent as usize,
            ..FifoView::default()
        }
    }

    fn tx(fifo: &TxFifo, capacity: u32, capacity_max: u32, urgent: u32) -> FifoView {
        FifoView {
            bytes: fifo.len(),
            capacity: capacity as usize,
            capacity_max: capacity_max as usize,
            chunks: fifo.chunks(),
            urgent: urgent as usize,
            ..FifoView::default()
        }
    }
}

impl Sessions {
    /// All parts of a session.
    pub fn view(&self, session: &Session) -> SessionView {
        let Session { rx_capacity, tx_capacity, tx_capacity_max, rx_urgent, tx_urgent, .. } = *session;
        let establishing = self.establishing.get(session.establishing as usize);
        let flags = [
            ("ready", session.queued),
            ("transmit", session.tx_programmed),
            ("waits for room", session.wants_room),
            ("waits for memory", session.waits_for_chunks),
        ];
        SessionView {
            connect: establishing.and_then(|establishing| Some(establishing.ticket.as_ref()?.connect())),
            deadline: establishing.map(|establishing| establishing.deadline),
            stages: establishing.map_or(Vec::new(), |establishing| establishing.stages.names()),
            pending: session.pending.names().collect(),
            queues: flags.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect(),
            rx: FifoView::rx(&session.rx, rx_capacity, rx_urgent),
            tx: FifoView::tx(&session.tx, tx_capacity, tx_capacity_max, tx_urgent),
            layer: session.layered.as_deref().map(|layered| LayerView {
                name: layered.layer.name(),
                state: layered.layer.describe(),
                wire_rx: FifoView::rx(&layered.wire_rx, rx_capacity, 0),
                wire_tx: FifoView::tx(&layered.wire_tx, tx_capacity, tx_capacity_max, 0),
            }),
        }
    }
}
