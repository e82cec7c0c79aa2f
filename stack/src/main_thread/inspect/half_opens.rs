//! Walks over the half-opens in bounded slices, and what is told of each.

use hoststack_session::{HalfOpenSession, HalfOpenState};
use hoststack_transport::{AppWorkerId, ConnectId, Duration, Instant, Protocol};

use super::Inspection;
use crate::inspect::{HalfOpenCursor, HalfOpenInfo, Query};
use crate::main_thread::Main;

/// How long after its deadline a half-open is late: main meets a deadline within one step.
const LATE: Duration = Duration::from_secs(1);
/// What it costs to tell of a half-open, in slots that are only looked at.
const COST: u32 = 32;

/// What the transport that tries says of a half-open.
#[derive(Default)]
struct Attempt {
    attempts: u32,
    next: Option<Instant>,
    soft_error: Option<String>,
    /// It tries, and no timer will have it try again or give up.
    is_asleep: bool,
}

impl Main {
    /// A slice of the walk of an inspection; says whether it was the last.
    pub(super) fn list_half_opens(&self, run: &mut Inspection) -> bool {
        let Query::HalfOpens(what) = &run.what else { return true };
        let mut budget = self.config.bursts.inspect_slots;
        while let Some((key, record)) = self.app_workers.at_slot(run.cursor.app_worker).or_else(|| {
            // An empty slot: on to the next.
            (run.cursor.app_worker..self.app_workers.slot_end())
                .find_map(|slot| self.app_workers.at_slot(slot))
        }) {
            if key.slot != run.cursor.app_worker {
                run.cursor = HalfOpenCursor { app_worker: key.slot, half_open: 0 };
            }
            let id = AppWorkerId(key);
            let is_wanted = what.filter.app.as_ref().is_none_or(|app| app.has(id));
            let end = if is_wanted { record.half_opens.slot_end() } else { 0 };
            while run.cursor.half_open < end {
                if budget == 0 {
                    return false;
                }
                let here = run.cursor;
                run.cursor.half_open += 1;
                budget -= 1;
                let Some((_, session)) = record.half_opens.at_slot(here.half_open) else { continue };
                if !what.filter.fits_half_open(self.now, id, session)
                    || (what.filter.stuck && self.half_open_fault(session).is_none())
                {
                    continue;
                }
                run.matched += 1;
                if run.answer.half_opens.len() < what.limit {
                    budget = budget.saturating_sub(COST);
                    run.answer.half_opens.push(self.half_open_info(session, id));
                    run.last_listed = Some(here);
                } else {
                    run.answer.half_opens_next = run.last_listed;
                    if !what.count {
                        return true;
                    }
                }
            }
            run.cursor = HalfOpenCursor { app_worker: key.slot + 1, half_open: 0 };
        }
        true
    }

    /// The half-open of a connect request, if it is there.
    pub(super) fn half_open_named(&self, connect: ConnectId) -> Option<HalfOpenInfo> {
        let (app_worker, key) = *self.connects.get(&connect)?;
        let session = self.app_workers.get(app_worker.0)?.half_opens.get(key)?;
        Some(self.half_open_info(session, app_worker))
    }

    fn half_open_info(&self, session: &HalfOpenSession, app_worker: AppWorkerId) -> HalfOpenInfo {
        let attempt = self.attempt_under_way(session);
        let (alternatives_left, rounds_left, is_pausing) =
            session.remotes.as_ref().map_or((0, 0, false), |remotes| {
                (remotes.list.len() - 1 - remotes.current, remotes.rounds_left, remotes.is_pausing)
            });
        let is_connecting = session.state == HalfOpenState::Connecting;
        HalfOpenInfo {
            connect: session.connect.to_string(),
            connect_id: session.connect.as_u64(),
            app_worker: self.app_worker_name(app_worker),
            domain: session.flow.domain.0,
            protocol: session.flow.protocol.name(),
            local: session.flow.local.to_string(),
            remote: session.remote_name(),
            state: match session.state {
                HalfOpenState::Connecting => "connecting",
                HalfOpenState::HandedOver => "handed-over",
                HalfOpenState::Failed(_) => "failed",
                HalfOpenState::Settled => "settled",
            }
            .into(),
            worker: session.worker.0,
            attempts: attempt.attempts,
            age_us: self.now.micros_since(session.born),
            deadline_in_us: session.deadline.micros_since(self.now),
            next_retransmission_in_us: attempt.next.map(|at| at.micros_since(self.now)),
            holder: match (&session.ticket, session.state) {
                (Some(_), _) => "main".into(),
                (None, HalfOpenState::Settled) => "nobody".into(),
                (None, _) => format!("worker {}", session.worker.0),
            },
            tries: session.attempts.into(),
            alternatives_left,
            rounds_left,
            is_waiting: is_connecting && (is_pausing || session.transport.is_none()),
            soft_error: attempt.soft_error,
            stages: session.stages.names(),
            early_bytes: session.early_data.len(),
            opaque: session.opaque,
            fault: self.half_open_fault(session),
        }
    }

    fn attempt_under_way(&self, session: &HalfOpenSession) -> Attempt {
        let Some(half_open) = session.transport else { return Attempt::default() };
        match session.flow.protocol {
            Protocol::Tcp => self.half_opens.describe(half_open).map_or(Attempt::default(), |info| Attempt {
                attempts: info.attempts.into(),
                next: info.next_retransmission,
                soft_error: info.soft_error.map(|error| format!("{error:?}").to_lowercase()),
                is_asleep: info.state == hoststack_tcp::describe::HalfOpenState::SynSent
                    && info.next_retransmission.is_none(),
            }),
            Protocol::KernelTcp | Protocol::KernelUnix => {
                let info = self.kernel.describe(half_open);
                info.map_or(Attempt::default(), |info| Attempt {
                    attempts: info.attempts,
                    ..Attempt::default()
                })
            }
            Protocol::Local => Attempt::default(),
        }
    }

    /// Why a half-open cannot go on by itself: nobody decides it, or whoever does is late.
    fn half_open_fault(&self, session: &HalfOpenSession) -> Option<&'static str> {
        let is_settled = session.state == HalfOpenState::Settled;
        if !is_settled && session.deadline + LATE < self.now {
            return Some("its outcome is not told, beyond its deadline");
        }
        if session.state == HalfOpenState::Connecting && session.ticket.is_none() {
            return Some("it is connecting, and nobody holds its ticket");
        }
        if session.state == HalfOpenState::Connecting && self.attempt_under_way(session).is_asleep {
            return Some("it is connecting, and no timer will send its SYN again");
        }
        (is_settled && session.transport.is_none()).then_some("its outcome was told, and nobody frees it")
    }
}
