//! Two ends of a connection without a protocol below: for tests of stages and layers.
//!
//! [`Pair`] is a client's and a server's [`Sessions`] whose bytes go from one to the other as a faithful transport would carry
//! them, `mtu` at a time, within the receiver's room. After each step both ends' consistency is asserted.
#![allow(clippy::expect_used, reason = "for tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hoststack_transport::border::{SessionLayer, TransportEvent};
use hoststack_transport::{
    AppWorkerId, CloseReason, ConnectFailure, ConnectId, ConnectTicket, ConnectionId, DomainId, Duration,
    EarlyData, EndStats, Endpoint, FlowKey, Instant, Key, ListenerId, Protocol, SessionId, TicketLedger,
    WorkerId,
};

use crate::{
    Announcement, CloseAction, Ending, ListenerRecord, Pending, SessionLimits, SessionOptions, Sessions,
    StagePlans,
};

const KEY: Key = Key { slot: 0, generation: 1 };
const CONNECTION: ConnectionId = ConnectionId(KEY);

/// The client's place in [`Pair::ends`].
pub const CLIENT: usize = 0;
/// The server's.
pub const SERVER: usize = 1;

/// What an end's app was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `connected` or `accepted`.
    Up,
    /// It did not come to that.
    Failed(ConnectFailure),
    /// `readable`.
    Readable,
    /// `writable`.
    Writable,
    /// `peer_closed`.
    PeerClosed,
    /// `reset`.
    Reset,
    /// `closed`; the session is gone.
    Closed(CloseReason),
}

/// One end: its app, its sessions, and what its transport does.
pub struct End {
    /// The session layer.
    pub sessions: Sessions,
    /// The session.
    pub id: SessionId,
    /// What the app was told.
    pub told: Vec<Told>,
    /// What the app read.
    pub got: Vec<u8>,
    /// Bytes that the app reads of what is there when it is told, 0 for none; [`Pair::read`] reads at other times.
    pub reads: usize,
    /// What the app is to write.
    pub writes: Vec<u8>,
    written: usize,
    /// The app half-closes when it has written all.
    pub half_closes: bool,
    /// The app closes when it has written all and was told that the peer closed.
    pub closes: bool,
    has_half_closed: bool,
    has_closed: bool,
    ledger: Arc<TicketLedger>,
    /// The transport sends a FIN when all is acknowledged; it has.
    fin_wanted: bool,
    fin_sent: bool,
    /// `Transport::close` was called.
    is_closed: bool,
    is_gone: bool,
    /// Data came after `close`, which would have been answered with a reset.
    pub stray: usize,
    /// Everything that was put on the wire.
    pub wire: Vec<u8>,
}

/// Two ends.
pub struct Pair {
    /// [`CLIENT`] and [`SERVER`].
    pub ends: [End; 2],
    /// The most bytes carried at a time.
    pub mtu: usize,
    /// From which byte of an end's wire on one bit is flipped, once.
    pub flips: [Option<usize>; 2],
}

/// Sessions with many chunks of 1 KiB.
fn sessions(chunks: usize) -> Sessions {
    let limits = SessionLimits { sessions: 2, chunk_bytes: 1024, chunks };
    let mut sessions = Sessions::new(WorkerId(0), &limits);
    sessions.app_workers().attach(AppWorkerId(KEY));
    sessions
}

fn end(sessions: Sessions, id: SessionId) -> End {
    End {
        sessions,
        id,
        told: Vec::new(),
        got: Vec::new(),
        reads: usize::MAX,
        writes: Vec::new(),
        written: 0,
        half_closes: false,
        closes: false,
        has_half_closed: false,
        has_closed: false,
        ledger: TicketLedger::new(),
        fin_wanted: false,
        fin_sent: false,
        is_closed: false,
        is_gone: false,
        stray: 0,
        wire: Vec::new(),
    }
}

impl Pair {
    /// A connection that has just opened, with these stages.
    pub fn new(client: &StagePlans, server: &StagePlans, options: SessionOptions) -> Pair {
        Pair::with(client, server, options, &[], 4096)
    }

    /// The same with early data, and each end with so many chunks.
    pub fn with(
        client: &StagePlans,
        server: &StagePlans,
        options: SessionOptions,
        early: &[u8],
        chunks: usize,
    ) -> Pair {
        let address = |port| Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let flow = |local, remote| FlowKey {
            local: address(local),
            remote: address(remote),
            domain: DomainId(0),
            protocol: Protocol::Tcp,
        };
        let mut passive = sessions(chunks);
        passive.listeners().add(ListenerRecord {
            id: ListenerId(KEY),
            app_worker: AppWorkerId(KEY),
            opaque: 0,
            options,
            stages: server.clone(),
            stage_timeout: Duration::from_secs(1),
        });
        let id = passive.accept(ListenerId(KEY), CONNECTION, &flow(443, 1000)).expect("there is room");
        passive.on_event(&TransportEvent::Accepted { session: id });
        let passive = end(passive, id);

        let mut active = sessions(chunks);
        let ledger = TicketLedger::new();
        let ticket = ConnectTicket::mint(
            ConnectId::new(0, 1),
            KEY,
            AppWorkerId(KEY),
            0,
            Instant::ZERO,
            ledger.clone(),
        );
        let (flow, deadline) = (flow(1000, 443), Instant::from_millis(1000));
        let early = EarlyData::new(early);
        let opened = active.open_outbound(flow, ticket, deadline, options, client, &early);
        let id = opened.unwrap_or_else(|_| panic!("there is room"));
        active.bind(id, CONNECTION);
        active.on_event(&TransportEvent::Connected { session: id });
        let active = End { ledger, ..end(active, id) };
        Pair { ends: [active, passive], mtu: 1460, flips: [None; 2] }
    }

    /// Steps until nothing happens any more.
    ///
    /// # Panics
    /// If that takes more steps than anything should.
    pub fn run(&mut self) {
        for _ in 0..10_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it goes on for ever: {:?}", self.ends.each_ref().map(|end| &end.told));
    }

    /// One step of both ends; says whether anything happened.
    pub fn step(&mut self) -> bool {
        let mut worked = false;
        for n in [CLIENT, SERVER] {
            worked |= self.ends[n].deliver();
            worked |= self.ends[n].write();
            worked |= self.end_connections(n);
            worked |= self.transmit(n);
            for end in &self.ends {
                end.sessions.check_consistency();
            }
        }
        worked
    }

    /// An app reads, at most `most` bytes; says how many.
    pub fn read(&mut self, n: usize, most: usize) -> usize {
        self.ends[n].read(most)
    }

    /// An app closes.
    pub fn close(&mut self, n: usize) {
        let action = self.ends[n].sessions.app_closes(self.ends[n].id);
        if let CloseAction::Ask(_) = action {
            self.ask(n, Ending::Close);
        }
    }

    /// An app closes its direction.
    pub fn half_close(&mut self, n: usize) {
        let action = self.ends[n].sessions.app_half_closes(self.ends[n].id);
        if let CloseAction::Ask(_) = action {
            self.ask(n, Ending::HalfClose);
        }
    }

    /// The deadline of an end that is not announced passes.
    pub fn deadline(&mut self, n: usize) {
        let id = self.ends[n].id;
        if self.ends[n].sessions.fail_establishing(id, ConnectFailure::TimedOut).is_some() {
            self.ask(n, Ending::Reset);
        }
    }

    /// The transport closes its direction, whatever lies above it.
    pub fn cut(&mut self, n: usize) {
        self.ask(n, Ending::HalfClose);
    }

    fn end_connections(&mut self, n: usize) -> bool {
        let mut worked = false;
        while let Some((_, _, ending)) = self.ends[n].sessions.next_due_ending() {
            self.ask(n, ending);
            worked = true;
        }
        worked
    }

    /// What a transport does when it is asked.
    pub fn ask(&mut self, n: usize, ending: Ending) {
        if self.ends[n].is_gone {
            return;
        }
        let id = self.ends[n].id;
        match ending {
            Ending::HalfClose => self.ends[n].fin_wanted = true,
            Ending::Close if self.ends[n].sessions.rx_unread(id) > 0 => self.ask(n, Ending::Reset),
            Ending::Close => (self.ends[n].fin_wanted, self.ends[n].is_closed) = (true, true),
            Ending::SendThenReset => {
                self.carry(n, usize::MAX);
                self.ask(n, Ending::Reset);
            }
            Ending::Reset => {
                self.gone(n, CloseReason::LocalReset);
                self.gone(1 - n, CloseReason::PeerReset);
            }
        }
    }

    fn gone(&mut self, n: usize, reason: CloseReason) {
        if !std::mem::replace(&mut self.ends[n].is_gone, true) {
            let session = self.ends[n].id;
            self.ends[n].sessions.on_event(&TransportEvent::Closed {
                session,
                reason,
                stats: EndStats::default(),
            });
        }
    }

    /// The transmit stage: only sessions that are programmed, as the border has it.
    fn transmit(&mut self, n: usize) -> bool {
        let mut worked = false;
        for _ in 0..self.ends[n].sessions.programmed_len() {
            if self.ends[n].sessions.next_programmed(true).is_some() {
                worked |= self.carry(n, self.mtu);
                // What is left waits for the peer's window: ask again, as a transport does by itself.
                if self.ends[n].sessions.tx_len(self.ends[n].id) > 0 {
                    let id = self.ends[n].id;
                    self.ends[n].sessions.program_tx(id);
                }
            }
        }
        let end = &mut self.ends[n];
        let is_all_sent = end.sessions.tx_len(end.id) == 0;
        if end.fin_wanted && !end.fin_sent && is_all_sent && !end.is_gone {
            end.fin_sent = true;
            worked = true;
            let session = self.ends[1 - n].id;
            if !self.ends[1 - n].is_gone {
                self.ends[1 - n].sessions.on_event(&TransportEvent::PeerClosed { session });
            }
            if self.ends[1 - n].fin_sent {
                self.gone(n, CloseReason::Finished);
                self.gone(1 - n, CloseReason::Finished);
            }
        }
        worked
    }

    /// Carries bytes, at most `most`; says whether there were any.
    fn carry(&mut self, n: usize, most: usize) -> bool {
        let [from, to] = if n == CLIENT {
            let [a, b] = &mut self.ends;
            [a, b]
        } else {
            let [a, b] = &mut self.ends;
            [b, a]
        };
        let room = to.sessions.rx_room(to.id) as usize;
        let count = (from.sessions.tx_len(from.id) as usize).min(room).min(most);
        if count == 0 || to.is_gone || from.is_gone {
            return false;
        }
        let mut bytes = vec![0; count];
        from.sessions.tx_copy(from.id, 0, &mut bytes);
        if let Some(at) = self.flips[n]
            && at < from.wire.len() + count
        {
            self.flips[n] = None;
            let last = count - 1;
            bytes[at.saturating_sub(from.wire.len()).min(last)] ^= 1;
        }
        if to.is_closed && !to.sessions.takes_after_close(to.id) {
            to.stray += count;
            self.ask(1 - n, Ending::Reset);
            return true;
        }
        let stored = to.sessions.rx_store(to.id, 0, &bytes).advanced;
        from.wire.extend(&bytes[..stored as usize]);
        if stored == 0 {
            return false;
        }
        to.sessions.on_event(&TransportEvent::Received { session: to.id });
        from.sessions.tx_acknowledge(from.id, stored);
        from.sessions.on_event(&TransportEvent::Acknowledged { session: from.id });
        true
    }
}

impl End {
    /// Whether the session is there.
    pub fn is_live(&self) -> bool {
        self.sessions.get(self.id).is_some()
    }

    /// How many times the app was told this.
    pub fn count(&self, told: Told) -> usize {
        self.told.iter().filter(|&&one| one == told).count()
    }

    /// Tickets that were dropped without an outcome.
    pub fn dropped_tickets(&self) -> u64 {
        self.ledger.dropped()
    }

    fn read(&mut self, most: usize) -> usize {
        let mut all = 0;
        let mut buffer = [0; 4096];
        while all < most {
            let want = buffer.len().min(most - all);
            let count = self.sessions.read(self.id, &mut buffer[..want]);
            self.got.extend(&buffer[..count]);
            all += count;
            if count < want {
                break;
            }
        }
        all
    }

    fn write(&mut self) -> bool {
        let is_up = self.told.first() == Some(&Told::Up) && self.is_live();
        if !is_up {
            return false;
        }
        let count = self.sessions.write(self.id, &self.writes[self.written..]);
        self.written += count;
        let mut worked = count > 0;
        let is_all = self.written == self.writes.len();
        if self.half_closes && is_all && !std::mem::replace(&mut self.has_half_closed, true) {
            if let CloseAction::Ask(_) = self.sessions.app_half_closes(self.id) {
                self.fin_wanted = true;
            }
            worked = true;
        }
        let is_done = is_all && self.told.contains(&Told::PeerClosed);
        if self.closes && is_done && !std::mem::replace(&mut self.has_closed, true) {
            if let CloseAction::Ask(_) = self.sessions.app_closes(self.id) {
                (self.fin_wanted, self.is_closed) = (true, true);
            }
            worked = true;
        }
        worked
    }

    /// The app is told what is pending.
    fn deliver(&mut self) -> bool {
        self.sessions.serve_chunk_waiters();
        let Some((id, _)) = self.sessions.next_ready() else { return false };
        let mut last = None;
        while let Some(pending) = self.sessions.take_pending(id, last) {
            last = Some(pending);
            let told = match pending {
                Pending::ANNOUNCE => match self.sessions.announce(id).expect("it was pending") {
                    Announcement::Accepted => Told::Up,
                    Announcement::Connected(ticket) => {
                        ticket.spend();
                        Told::Up
                    }
                    Announcement::Failed(ticket, failure, connection)
                    | Announcement::Retry(ticket, failure, connection) => {
                        ticket.spend();
                        self.told.push(Told::Failed(failure));
                        self.reset_later(connection);
                        return true;
                    }
                    Announcement::NotAccepted(_, failure, connection) => {
                        self.told.push(Told::Failed(failure));
                        self.reset_later(connection);
                        return true;
                    }
                },
                Pending::READABLE => Told::Readable,
                Pending::WRITABLE => Told::Writable,
                Pending::PEER_CLOSED => Told::PeerClosed,
                Pending::RESET => Told::Reset,
                Pending::CLOSED => {
                    let reason = match self.sessions.get(id).map(|session| session.transport_side()) {
                        Some(crate::TransportSide::Closed(reason)) => reason,
                        side => panic!("closed, and the transport is {side:?}"),
                    };
                    if !self.sessions.is_silent(id) {
                        self.told.push(Told::Closed(reason));
                    }
                    self.sessions.free(id);
                    return true;
                }
                other => panic!("{other:?} is not for these tests"),
            };
            assert!(self.told.first().is_none_or(|&first| first == Told::Up), "{told:?} before it is up");
            self.told.push(told);
            if told == Told::Readable {
                self.read(self.reads);
            }
        }
        true
    }

    fn reset_later(&mut self, connection: Option<ConnectionId>) {
        if let Some(connection) = connection {
            self.sessions.due_reset(self.id, connection);
        }
    }
}
