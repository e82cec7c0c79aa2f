//! The transports of a worker, and what is asked of whichever carries a session.

use hoststack_session::Sessions;
use hoststack_tcp::{Engine, Output};
use hoststack_transport::border::{Transmitted, Transport};
use hoststack_transport::{
    ConnectionId, ConnectionStats, Instant, Measures, Protocol, SocketOption, TransportEvent,
};

/// One engine for each transport.
pub(crate) struct Transports {
    pub(crate) tcp: Engine,
    pub(crate) kernel: hoststack_kernel::Engine,
    pub(crate) local: hoststack_local::Engine,
}

/// What the worker asks of a connection's transport.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Close,
    HalfClose,
    Reset,
    Set(SocketOption),
}

impl Transports {
    /// Asks the transport `protocol` for something.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        (protocol, connection): (Protocol, ConnectionId),
        ask: Ask,
        layer: &mut Sessions,
        out: &mut impl Output,
        events: &mut Vec<TransportEvent>,
    ) {
        match protocol {
            Protocol::Tcp => ask_one(&mut self.tcp, now, connection, ask, layer, out, events),
            Protocol::KernelTcp | Protocol::KernelUnix => {
                ask_one(&mut self.kernel, now, connection, ask, layer, &mut (), events);
            }
            Protocol::Local => ask_one(&mut self.local, now, connection, ask, layer, &mut (), events),
        }
    }

    /// Has the transport `protocol` send.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        (protocol, connection): (Protocol, ConnectionId),
        burst: usize,
        layer: &mut Sessions,
        out: &mut impl Output,
        events: &mut Vec<TransportEvent>,
    ) -> Transmitted {
        match protocol {
            Protocol::Tcp => self.tcp.transmit(now, connection, burst, layer, out, events),
            Protocol::KernelTcp | Protocol::KernelUnix => {
                self.kernel.transmit(now, connection, burst, layer, &mut (), events)
            }
            Protocol::Local => self.local.transmit(now, connection, burst, layer, &mut (), events),
        }
    }

    /// A connection's state in words.
    pub(super) fn describe(
        &self,
        now: Instant,
        (protocol, connection): (Protocol, ConnectionId),
    ) -> Option<String> {
        match protocol {
            Protocol::Tcp => {
                Transport::<Sessions, super::packets::Out<'_>>::describe(&self.tcp, now, connection)
            }
            Protocol::KernelTcp | Protocol::KernelUnix => {
                Transport::<Sessions, ()>::describe(&self.kernel, now, connection)
            }
            Protocol::Local => Transport::<Sessions, ()>::describe(&self.local, now, connection),
        }
    }

    /// A connection's smoothed round-trip time in microseconds, where its transport measures one and has.
    pub(super) fn srtt_us(&self, (protocol, connection): (Protocol, ConnectionId)) -> Option<u32> {
        match protocol {
            Protocol::Tcp => self.tcp.srtt_us(connection),
            Protocol::KernelTcp | Protocol::KernelUnix | Protocol::Local => None,
        }
    }

    /// What is wrong with a connection that it cannot go on by itself; see [`hoststack_tcp::Engine::fault`].
    pub(super) fn fault(
        &self,
        now: Instant,
        (protocol, connection): (Protocol, ConnectionId),
        unprogrammed: u32,
    ) -> Option<&'static str> {
        match protocol {
            Protocol::Tcp => self.tcp.fault(now, connection, unprogrammed),
            Protocol::KernelTcp | Protocol::KernelUnix => self.kernel.fault(connection),
            // What one end cannot send, the other's reading lets it.
            Protocol::Local => None,
        }
    }

    /// When a transport has something to do by itself.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest([self.tcp.next_deadline(), self.kernel.next_deadline(), self.local.next_deadline()])
    }

    pub(super) fn check_consistency(&self) {
        self.tcp.check_consistency();
        self.kernel.check_consistency();
        self.local.check_consistency();
    }
}

fn ask_one<Out>(
    transport: &mut impl Transport<Sessions, Out>,
    now: Instant,
    connection: ConnectionId,
    ask: Ask,
    layer: &mut Sessions,
    out: &mut Out,
    events: &mut Vec<TransportEvent>,
) {
    match ask {
        Ask::Close => transport.close(now, connection, layer, out, events),
        Ask::HalfClose => transport.half_close(now, connection, layer, out, events),
        Ask::Reset => transport.reset(now, connection, layer, out, events),
        Ask::Set(option) => transport.set_option(now, connection, option, layer, out),
    }
}

impl Measures for Transports {
    fn stats(&self, protocol: Protocol, connection: ConnectionId) -> Option<ConnectionStats> {
        match protocol {
            Protocol::Tcp => self.tcp.stats(protocol, connection),
            Protocol::KernelTcp | Protocol::KernelUnix => self.kernel.stats(protocol, connection),
            Protocol::Local => self.local.stats(protocol, connection),
        }
    }
}
