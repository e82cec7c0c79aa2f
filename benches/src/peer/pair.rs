//! Two smoltcp interfaces, client and server, with the queue between them and the clock that drives both.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::device::QueueDevice;
use crate::measure::Clock;

/// The client's address.
const CLIENT: IpAddress = IpAddress::v4(10, 0, 0, 1);
/// The server's address.
pub(super) const SERVER: IpAddress = IpAddress::v4(10, 0, 0, 2);
/// Ports below are left alone, as an embedder would.
const FIRST_PORT: u16 = 1024;
/// How far the pair's clock jumps when nothing can happen before a timer (a delayed ACK: 10 ms).
const JUMP_US: u64 = 1_000;
/// Jumps in a row (60 s of the pair's time) after which nothing will ever happen again.
const JUMPS_MAX: u32 = 60_000;

/// One end.
pub(super) struct End {
    /// The interface.
    pub(super) interface: Interface,
    /// Its sockets.
    pub(super) sockets: SocketSet<'static>,
    device: QueueDevice,
}

/// The two ends.
pub(super) struct Pair {
    /// The end that connects.
    pub(super) client: End,
    /// The end that listens.
    pub(super) server: End,
    clock: Clock,
    skipped_us: u64,
    jumps: u32,
    packets: [u64; 2],
    packets_at_rest: u64,
    next_port: u16,
}

impl End {
    fn new(address: IpAddress, seed: u64, now: Instant, sockets: usize) -> Self {
        let mut device = QueueDevice::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, now);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address, 24)).expect("cannot fail because there is room for two");
        });
        End { interface, device, sockets: socket_set(sockets) }
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    /// The socket, to look at or work on.
    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

impl Pair {
    /// Two ends with room for `sockets` sockets each.
    pub(super) fn new(sockets: usize) -> Self {
        Pair {
            client: End::new(CLIENT, 1, Instant::ZERO, sockets),
            server: End::new(SERVER, 2, Instant::ZERO, sockets),
            clock: Clock::start(),
            skipped_us: 0,
            jumps: 0,
            packets: [0; 2],
            packets_at_rest: 0,
            next_port: FIRST_PORT,
        }
    }

    /// One step of the client: takes in what the server sent, sends what is due.
    pub(super) fn poll_client(&mut self) {
        self.client.poll(self.now());
        self.packets[0] += self.client.device.hand_over(&mut self.server.device) as u64;
    }

    /// One step of the server.
    pub(super) fn poll_server(&mut self) {
        self.server.poll(self.now());
        self.packets[1] += self.server.device.hand_over(&mut self.client.device) as u64;
    }

    /// Ends a turn (both ends stepped). When no packet moved and no app did anything, only a timer can help, and the
    /// pair's clock jumps ahead; tells whether that was so.
    ///
    /// # Panics
    /// When nothing happened for a minute of the pair's time: the workload waits for what cannot come.
    pub(super) fn end_turn(&mut self, app_worked: bool) -> bool {
        let packets = self.packets[0] + self.packets[1];
        let quiet = packets == self.packets_at_rest && !app_worked;
        self.packets_at_rest = packets;
        if quiet {
            self.skipped_us += JUMP_US;
            self.jumps += 1;
            assert!(self.jumps < JUMPS_MAX, "the peer waits for what cannot come: its workload is at fault");
        } else {
            self.jumps = 0;
        }
        quiet
    }

    /// Packets that the client has sent so far.
    pub(super) fn packets_from_client(&self) -> u64 {
        self.packets[0]
    }

    /// Packets that the server has sent so far.
    #[cfg(test)]
    pub(super) fn packets_from_server(&self) -> u64 {
        self.packets[1]
    }

    /// Starts a connection from a client socket to `port` of the server, from the next local port.
    pub(super) fn connect(&mut self, handle: SocketHandle, port: u16) {
        let local = self.next_port;
        self.next_port = if local == u16::MAX { FIRST_PORT } else { local + 1 };
        let End { interface, sockets, device: _ } = &mut self.client;
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        let result = socket.connect(interface.context(), (SERVER, port), local);
        result.expect("cannot fail because the socket is closed or in TIME-WAIT and both ports are set");
    }

    /// Sets the sockets of both ends aside and puts empty sets in their place.
    pub(super) fn set_aside(&mut self, room: usize) -> (SocketSet<'static>, SocketSet<'static>) {
        let client = std::mem::replace(&mut self.client.sockets, socket_set(room));
        let server = std::mem::replace(&mut self.server.sockets, socket_set(room));
        (client, server)
    }

    /// Puts sockets set aside back in place; returns those that were there.
    pub(super) fn put_back(
        &mut self,
        (client, server): (SocketSet<'static>, SocketSet<'static>),
    ) -> (SocketSet<'static>, SocketSet<'static>) {
        let in_client = std::mem::replace(&mut self.client.sockets, client);
        let in_server = std::mem::replace(&mut self.server.sockets, server);
        (in_client, in_server)
    }

    fn now(&self) -> Instant {
        // Cannot fail because 2^63 us are 290,000 years.
        Instant::from_micros((self.clock.micros() + self.skipped_us) as i64)
    }
}

/// An empty set with room for `sockets`, so that adding them does not copy it.
fn socket_set(sockets: usize) -> SocketSet<'static> {
    SocketSet::new(Vec::with_capacity(sockets))
}

/// A socket with buffers of `buffer_bytes` each way, written to once, so that no page fault is left for later.
pub(super) fn socket(buffer_bytes: usize) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0xa5; buffer_bytes]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket
}
