//! All short stories of a session with stages, against a model that computes what must be so from what happened.

use std::net::{IpAddr, Ipv4Addr};

use hoststack_transport::border::{SessionLayer, TransportEvent};
use hoststack_transport::{
    AppWorkerId, CloseReason, ConnectFailure, ConnectId, ConnectTicket, ConnectionId, DomainId, Duration,
    EndStats, Endpoint, Instant, Key, ListenerId, Protocol, SessionId, TicketLedger, WorkerId,
};

use super::*;
use crate::events::Pending;
use crate::lookup::ListenerRecord;
use crate::session::{Announcement, SessionLimits, SessionOptions, Sessions};

const KEY: Key = Key { slot: 0, generation: 1 };
const CONNECTION: ConnectionId = ConnectionId(KEY);
const EARLY: &[u8] = b"early";

/// What a test's stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Writes two bytes of this value.
    Send(u8),
    /// Takes so many bytes.
    Take(usize),
}

#[derive(Debug)]
struct Plan(Does);

impl StagePlan for Plan {
    fn stage(&self) -> Box<dyn Stage> {
        Box::new(Doing(self.0))
    }
}

#[derive(Debug)]
struct Doing(Does);

impl Stage for Doing {
    fn name(&self) -> &'static str {
        match self.0 {
            Does::Send(_) => "send",
            Does::Take(_) => "take",
        }
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        match self.0 {
            Does::Send(value) if io.write_all(&[value; 2]) => Answer::Done,
            Does::Send(_) => Answer::Wants(Want::Write),
            Does::Take(count) if io.rx_len() >= count => {
                io.consume(count);
                Answer::Done
            }
            Does::Take(_) => Answer::Wants(Want::Read),
        }
    }
}

/// What happens to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    /// The transport opens; an inbound one is open from the start.
    Opens,
    /// So many bytes of the peer come.
    Bytes(usize),
    /// The peer closes its direction.
    Fin,
    /// The peer resets.
    Reset,
    /// The deadline passes.
    Deadline,
}

const HAPPENS: [Happens; 6] =
    [Happens::Opens, Happens::Bytes(1), Happens::Bytes(3), Happens::Fin, Happens::Reset, Happens::Deadline];

/// What must be so, computed anew from all that happened.
#[derive(Default)]
struct Model {
    is_open: bool,
    is_closed: bool,
    has_fin: bool,
    received: usize,
    outcome: Option<Result<(), ConnectFailure>>,
}

impl Model {
    /// What the stages wrote, how many bytes they took, and which of them waits.
    fn stages(&self, stages: &[Does], early: &[u8]) -> (Vec<u8>, usize, Option<&'static str>) {
        let (mut written, mut taken) = (Vec::new(), 0);
        for does in stages {
            match *does {
                Does::Send(value) => written.extend([value; 2]),
                Does::Take(count) if self.received >= taken + count => taken += count,
                Does::Take(_) => return (written, taken, Some("take")),
            }
        }
        written.extend(early);
        (written, taken, None)
    }

    /// Whether it can happen now; if so, it did.
    fn happens(&mut self, what: Happens, is_inbound: bool, stages: &[Does]) -> bool {
        let can = !self.is_closed
            && match what {
                Happens::Opens => !self.is_open,
                Happens::Bytes(_) | Happens::Fin => self.is_open && !self.has_fin,
                Happens::Reset => true,
                Happens::Deadline => self.outcome.is_none(),
            };
        if !can {
            return false;
        }
        match what {
            Happens::Opens => self.is_open = true,
            Happens::Bytes(count) => self.received += count,
            Happens::Fin => self.has_fin = true,
            Happens::Reset => self.is_closed = true,
            Happens::Deadline => {}
        }
        if self.outcome.is_some() || (is_inbound && what == Happens::Opens) {
            return true;
        }
        let waits = self.stages(stages, &[]).2;
        let failed = |cause| waits.map(|stage| Err(ConnectFailure::Stage(StageFailure { stage, cause })));
        self.outcome = match what {
            Happens::Reset => Some(Err(ConnectFailure::Refused)),
            Happens::Deadline if self.is_open => failed(StageCause::TimedOut),
            Happens::Deadline => Some(Err(ConnectFailure::TimedOut)),
            _ if self.is_open && waits.is_none() => Some(Ok(())),
            _ if self.is_open && self.has_fin => failed(StageCause::PeerClosed),
            _ => None,
        };
        true
    }
}

struct World {
    sessions: Sessions,
    id: SessionId,
    ledger: Arc<TicketLedger>,
    announced: Vec<Result<(), ConnectFailure>>,
}

fn world(is_inbound: bool, stages: &[Does], early: &[u8]) -> World {
    let limits = SessionLimits { sessions: 2, chunk_bytes: 64, chunks: 16 };
    let mut sessions = Sessions::new(WorkerId(0), &limits);
    sessions.app_workers().attach(AppWorkerId(KEY));
    let options = SessionOptions { rx_capacity: 1000, tx_capacity: 1000, ..SessionOptions::default() };
    let plans =
        StagePlans::new(stages.iter().map(|does| Arc::new(Plan(*does)) as Arc<dyn StagePlan>).collect());
    let end = |port| Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let flow = FlowKey { local: end(1), remote: end(2), domain: DomainId(0), protocol: Protocol::Tcp };
    let ledger = TicketLedger::new();
    let id = if is_inbound {
        sessions.listeners().add(ListenerRecord {
            id: ListenerId(KEY),
            app_worker: AppWorkerId(KEY),
            opaque: 0,
            options,
            stages: plans,
            stage_timeout: Duration::from_secs(1),
        });
        let id = sessions.accept(ListenerId(KEY), CONNECTION, &flow).unwrap();
        sessions.on_event(&TransportEvent::Accepted { session: id });
        id
    } else {
        let ticket = ConnectTicket::mint(
            ConnectId::new(0, 1),
            KEY,
            AppWorkerId(KEY),
            0,
            Instant::ZERO,
            ledger.clone(),
        );
        let deadline = Instant::from_millis(1000);
        let early = EarlyData::new(early);
        let id = sessions.open_outbound(flow, ticket, deadline, options, &plans, &early).unwrap();
        if plans.is_empty() {
            assert!(sessions.queue_early(id, early.as_slice()));
        }
        sessions.bind(id, CONNECTION);
        id
    };
    World { sessions, id, ledger, announced: Vec::new() }
}

impl World {
    fn happens(&mut self, what: Happens, model: &Model) {
        let (id, sessions) = (self.id, &mut self.sessions);
        match what {
            Happens::Opens => sessions.on_event(&TransportEvent::Connected { session: id }),
            Happens::Bytes(count) => {
                // The stream counts up, so that it shows which bytes were taken.
                let first = model.received - count;
                let bytes: Vec<u8> = (first..model.received).map(|n| n as u8).collect();
                assert_eq!(sessions.rx_store(id, 0, &bytes).advanced as usize, count);
                sessions.on_event(&TransportEvent::Received { session: id });
            }
            Happens::Fin => sessions.on_event(&TransportEvent::PeerClosed { session: id }),
            Happens::Reset => {
                sessions.on_event(&TransportEvent::Closed {
                    session: id,
                    reason: CloseReason::PeerReset,
                    stats: EndStats::default(),
                });
            }
            Happens::Deadline => {
                assert!(sessions.connect_deadline(id).is_some(), "it waits within a bound");
                let connection = sessions.fail_establishing(id, ConnectFailure::TimedOut);
                assert_eq!(connection, Some(CONNECTION), "what is left of it is reset");
            }
        }
        sessions.check_consistency();
    }

    /// Delivers what is to be told; only announcements are of interest.
    fn deliver(&mut self) {
        while let Some((id, _)) = self.sessions.next_ready() {
            let mut last = None;
            while let Some(next) = self.sessions.take_pending(id, last) {
                last = Some(next);
                if next != Pending::ANNOUNCE {
                    assert!(
                        matches!(self.announced.first(), Some(Ok(()))),
                        "{next:?} comes before the announcement"
                    );
                    continue;
                }
                match self.sessions.announce(id) {
                    Some(Announcement::Accepted) => self.announced.push(Ok(())),
                    Some(Announcement::Connected(ticket)) => {
                        ticket.spend();
                        self.announced.push(Ok(()));
                    }
                    Some(
                        Announcement::Failed(ticket, failure, _) | Announcement::Retry(ticket, failure, _),
                    ) => {
                        ticket.spend();
                        self.announced.push(Err(failure));
                        break;
                    }
                    Some(Announcement::NotAccepted(_, failure, _)) => {
                        self.announced.push(Err(failure));
                        break;
                    }
                    None => unreachable!("what was pending is announced"),
                }
            }
        }
    }
}

/// One story; `told_late`: the app is told only at its end. Returns whether all of it could happen.
fn story(is_inbound: bool, stages: &[Does], early: &[u8], happens: &[Happens], told_late: bool) -> bool {
    let mut model = Model { is_open: is_inbound, ..Model::default() };
    let mut world = world(is_inbound, stages, early);
    if is_inbound {
        let _ = model.happens(Happens::Bytes(0), false, stages);
    }
    for (n, &what) in happens.iter().enumerate() {
        if model.outcome.is_some() && model.outcome != Some(Ok(()))
            || !model.happens(what, is_inbound, stages)
        {
            return false;
        }
        let case = || format!("inbound {is_inbound}, {stages:?}, early {early:?}, {:?}", &happens[..=n]);
        world.happens(what, &model);
        if told_late && n + 1 < happens.len() {
            continue;
        }
        world.deliver();
        // I2, I3, I4: as soon as it is decided, once, and not before.
        assert_eq!(world.announced, Vec::from_iter(model.outcome), "{}", case());
        let Some(session) = world.sessions.get(world.id) else { continue };
        let (written, taken, waits) = model.stages(stages, early);
        if model.is_open && !model.is_closed && model.outcome.is_none_or(|outcome| outcome.is_ok()) {
            // I10: in the order of the stack, the early data last, nothing else.
            let mut queued = vec![0; session.tx_len()];
            world.sessions.tx_copy(world.id, 0, &mut queued);
            assert_eq!(queued, written, "{}", case());
        }
        if model.outcome == Some(Ok(())) {
            // Not a byte beyond the stages' own was taken.
            let peeked = world.sessions.peek(world.id).first().copied();
            assert_eq!(peeked, (model.received > taken).then_some(taken as u8), "{}", case());
        }
        assert_eq!(waits.is_some() && !model.is_closed && model.outcome.is_none(), {
            world.sessions.connect_deadline(world.id).is_some() && model.is_open
        });
    }
    drop(world.ledger);
    true
}

/// Sequences of up to `len` of `all`.
fn sequences<T: Copy>(all: &[T], len: usize) -> Vec<Vec<T>> {
    let mut found = vec![Vec::new()];
    let mut last = found.clone();
    for _ in 0..len {
        last = last
            .iter()
            .flat_map(|prefix| all.iter().map(|next| prefix.iter().copied().chain([*next]).collect()))
            .collect();
        found.extend(last.iter().cloned());
    }
    found
}

// The invariants I1 to I5, I7 to I10, I12 and I18 of establishment.
#[test]
fn every_short_story_with_stages_is_announced_once_and_not_early() {
    let stacks = sequences(&[Does::Send(7), Does::Take(2), Does::Take(3)], 2);
    let events = sequences(&HAPPENS, 5);
    let mut told = 0;
    for stages in &stacks {
        for happens in &events {
            for (is_inbound, early) in [(true, &[][..]), (false, &[][..]), (false, EARLY)] {
                if story(is_inbound, stages, early, happens, false) {
                    // I7: whether the app is told at once or after more has happened, it is told the same.
                    story(is_inbound, stages, early, happens, true);
                    told += 1;
                }
            }
        }
    }
    assert!(told > 3_000, "{told} stories");
}
