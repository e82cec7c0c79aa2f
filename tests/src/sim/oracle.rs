//! What must be true of everything that apps are told, checked as it is told.
//!
//! The oracle knows what was asked for (by the apps' behaviour and by the world's pokes) and what was told (by the
//! callbacks), nothing of the stack's insides. The first thing wrong is kept, in words; the loop looks after each step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use hoststack::app::{
    AppId, AppWorkerId, CloseReason, ConnectFailure, ConnectId, ConnectOptions, DetachReport, FlowKey,
    SessionHandle, WorkerDetachReport, WorkerId,
};

use super::behave::Talk;

/// How often each end of a connect was told: established, then the failures in the order of [`failure_index`].
pub(crate) type Tally = [u64; 9];

/// The place of a failure in a [`Tally`].
pub(crate) fn failure_index(failure: ConnectFailure) -> usize {
    match failure {
        ConnectFailure::Refused => 1,
        ConnectFailure::TimedOut => 2,
        ConnectFailure::Unreachable => 3,
        ConnectFailure::Cancelled => 4,
        ConnectFailure::Detached => 5,
        ConnectFailure::AddressInUse => 6,
        ConnectFailure::AddressNotAvailable => 7,
        ConnectFailure::NoRoom => 8,
        ConnectFailure::Stage(_) | ConnectFailure::System(_) => {
            unreachable!("no connect here has stages or goes to the host's kernel")
        }
    }
}

/// An app worker's object on one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    /// Made on main, not heard of since.
    Made,
    /// Its first callback was `attached`.
    Attached,
    /// A callback panicked.
    Dead,
    /// Dropped after that.
    DeadDropped,
    /// Dropped by the stack.
    Dropped,
}

/// An app worker.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) id: Option<AppWorkerId>,
    objects: Vec<Object>,
    /// Someone asked for its end, or it panicked.
    pub(crate) detaching: bool,
    pub(crate) panicked: bool,
    /// Its end was told.
    pub(crate) reported: bool,
    /// Its end was told with workers that did not answer.
    pub(crate) stuck: bool,
    requested: u64,
    told: Tally,
    untold: u64,
    /// Outcomes told to a callback that panicked: the stack counts them as not told.
    panicked_in_outcome: u64,
}

/// An application.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) host: u8,
    pub(crate) id: Option<AppId>,
    pub(crate) units: Vec<Unit>,
    /// Someone asked for its end: units that are made meanwhile end with it.
    pub(crate) detaching: bool,
    /// Its object on main panicked: nothing is told to it any more.
    pub(crate) main_dead: bool,
    /// `detached` was told.
    pub(crate) gone: bool,
}

/// A connect request.
#[derive(Clone, Debug)]
struct Connect {
    app: usize,
    unit: u32,
    options: ConnectOptions,
    made_us: u64,
    told: bool,
    cleaned: bool,
    cancelled: bool,
}

impl Connect {
    fn timeout_us(&self) -> u64 {
        u64::try_from(self.options.timeout.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How far a session is, in the order in which an app may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// `accepted` or `connected`.
    Announced,
    /// `writable`: at any time before the end.
    Writable,
    /// `readable`.
    Readable,
    /// `peer_closed`.
    PeerClosed,
    /// `reset`.
    Reset,
    /// `closed`.
    Closed,
}

/// A session that was announced.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) app: usize,
    pub(crate) unit: u32,
    pub(crate) worker: u8,
    pub(crate) stage: Stage,
    pub(crate) opaque: u64,
    pub(crate) talk: Talk,
}

/// Which object: application, unit, worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) app: usize,
    pub(crate) unit: u32,
    pub(crate) worker: WorkerId,
}

/// The oracle.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    violation: Option<String>,
    pub(crate) apps: Vec<App>,
    connects: BTreeMap<(u8, u64), Connect>,
    pub(crate) sessions: BTreeMap<(u8, u64), Session>,
    deadlines: BinaryHeap<Reverse<(u64, u8, u64)>>,
    /// Connects asked for.
    pub(crate) requested: u64,
    /// Of them, those whose outcome was told, by kind.
    pub(crate) told: Tally,
    /// Of them, those cleaned without an outcome.
    pub(crate) untold: u64,
    /// Whether a worker may be missing from a detach: one was paused.
    pub(crate) may_be_stuck: bool,
    /// The world ends: objects are dropped wherever they are.
    pub(crate) is_over: bool,
}

impl Oracle {
    /// Keeps the first thing that is wrong.
    pub(crate) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// What is wrong, if anything is.
    pub(crate) fn take_violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    // ---- Applications ----

    /// An application is about to be attached.
    pub(crate) fn new_app(&mut self, host: u8) -> usize {
        self.apps.push(App {
            host,
            id: None,
            units: Vec::new(),
            detaching: false,
            main_dead: false,
            gone: false,
        });
        self.apps.len() - 1
    }

    /// An object is made on main.
    pub(crate) fn object_made(&mut self, app: usize, unit: u32, worker: WorkerId) {
        let app_detaching = self.apps[app].detaching;
        let units = &mut self.apps[app].units;
        if worker.0 == 0 {
            if units.len() != unit as usize {
                self.fail(|| format!("app {app}: unit {unit} is made out of turn"));
                return;
            }
            units.push(Unit {
                id: None,
                objects: Vec::new(),
                detaching: app_detaching,
                panicked: false,
                reported: false,
                stuck: false,
                requested: 0,
                told: [0; 9],
                untold: 0,
                panicked_in_outcome: 0,
            });
        }
        let Some(unit) = units.get_mut(unit as usize) else {
            self.fail(|| format!("app {app}: an object of unit {unit} is made for no unit"));
            return;
        };
        unit.objects.push(Object::Made);
    }

    /// The unit of an object.
    pub(crate) fn unit(&mut self, app: usize, unit: u32) -> Option<&mut Unit> {
        self.apps.get_mut(app)?.units.get_mut(unit as usize)
    }

    /// A callback of an object begins.
    pub(crate) fn callback(&mut self, at: At, name: &'static str) {
        let state = self.unit(at.app, at.unit).and_then(|unit| {
            let object = unit.objects.get_mut(at.worker.index())?;
            let before = *object;
            if before == Object::Made {
                *object = Object::Attached;
            }
            Some((before, unit.reported))
        });
        match state {
            None => self.fail(|| format!("{name} for an object that was never made: {at:?}")),
            Some((_, true)) => {
                self.fail(|| format!("{name} after the end of the app worker was told: {at:?}"))
            }
            Some((Object::Dead | Object::DeadDropped | Object::Dropped, _)) => {
                self.fail(|| format!("{name} for an object that is gone: {at:?}"));
            }
            Some((Object::Made, _)) if name != "attached" => {
                self.fail(|| format!("{name} before attached: {at:?}"));
            }
            Some((Object::Attached, _)) if name == "attached" => {
                self.fail(|| format!("attached twice: {at:?}"));
            }
            Some(_) => {}
        }
    }

    /// A callback of an object panics now.
    pub(crate) fn panicked(&mut self, at: At, in_outcome: bool) {
        let Some(unit) = self.unit(at.app, at.unit) else { return };
        unit.panicked = true;
        unit.detaching = true;
        unit.panicked_in_outcome += u64::from(in_outcome);
        if let Some(object) = unit.objects.get_mut(at.worker.index()) {
            *object = Object::Dead;
        }
    }

    /// An object is dropped.
    pub(crate) fn dropped(&mut self, at: At) {
        let is_over = self.is_over;
        let Some(unit) = self.unit(at.app, at.unit) else { return };
        let (detaching, reported) = (unit.detaching, unit.reported && !unit.stuck);
        let Some(object) = unit.objects.get_mut(at.worker.index()) else { return };
        let before = *object;
        *object = if before == Object::Dead { Object::DeadDropped } else { Object::Dropped };
        if is_over {
            return;
        }
        if matches!(before, Object::Dropped | Object::DeadDropped) {
            self.fail(|| format!("an object is dropped twice: {at:?}"));
        } else if !detaching {
            self.fail(|| format!("an object is dropped though nobody detached it: {at:?}"));
        } else if reported {
            self.fail(|| format!("an object outlived the report of its end: {at:?}"));
        }
    }

    /// Someone asks for the end of a unit, or of all.
    pub(crate) fn detach_asked(&mut self, app: usize, unit: Option<u32>) {
        self.apps[app].detaching |= unit.is_none();
        for (number, record) in self.apps[app].units.iter_mut().enumerate() {
            record.detaching |= unit.is_none_or(|unit| unit as usize == number);
        }
    }

    /// A callback on main begins.
    pub(crate) fn main_callback(&mut self, app: usize, name: &'static str) {
        if self.apps[app].gone {
            self.fail(|| format!("{name} after detached: app {app}"));
        } else if self.apps[app].main_dead {
            self.fail(|| format!("{name} for an application that panicked: app {app}"));
        }
    }

    // ---- Connects ----

    /// A connect returned `Ok`.
    pub(crate) fn connect_made(
        &mut self,
        at: (usize, u32),
        id: ConnectId,
        options: &ConnectOptions,
        now_us: u64,
    ) {
        let (app, unit) = at;
        let host = self.apps[app].host;
        let connect = Connect {
            app,
            unit,
            options: options.clone(),
            made_us: now_us,
            told: false,
            cleaned: false,
            cancelled: false,
        };
        if self.connects.insert((host, id.as_u64()), connect.clone()).is_some() {
            self.fail(|| format!("connect id {id} was given out twice"));
        }
        let deadline_us = now_us.saturating_add(connect.timeout_us());
        self.requested += 1;
        if let Some(unit) = self.unit(app, unit) {
            unit.requested += 1;
        }
        self.deadlines.push(Reverse((deadline_us, host, id.as_u64())));
    }

    /// Someone asks to cancel.
    pub(crate) fn cancel_asked(&mut self, host: u8, id: ConnectId) {
        if let Some(connect) = self.connects.get_mut(&(host, id.as_u64())) {
            connect.cancelled = true;
        }
    }

    /// A connect's outcome is told.
    pub(crate) fn outcome(
        &mut self,
        at: At,
        id: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let host = self.apps[at.app].host;
        let index = outcome.err().map_or(0, failure_index);
        let Some(connect) = self.connects.get_mut(&(host, id.as_u64())) else {
            self.fail(|| format!("an outcome of {id}, which nobody asked for"));
            return;
        };
        let (was, cancelled) = (connect.clone(), connect.cancelled);
        connect.told = true;
        self.told[index] += 1;
        if was.told {
            self.fail(|| format!("a second outcome of {id}: {outcome:?}"));
        } else if was.cleaned {
            self.fail(|| format!("the outcome of {id} comes after its half-open was cleaned: {outcome:?}"));
        } else if (was.app, was.unit) != (at.app, at.unit) {
            self.fail(|| format!("the outcome of {id} is told to another: {at:?}"));
        } else if was.options.opaque != opaque {
            self.fail(|| {
                format!("the outcome of {id} carries {opaque}, it was given {}", was.options.opaque)
            });
        } else if outcome == Err(ConnectFailure::Cancelled) && !cancelled {
            self.fail(|| format!("{id} is told to be cancelled, nobody asked for that"));
        }
        let detaching = self.unit(at.app, at.unit).map(|unit| {
            unit.told[index] += 1;
            unit.detaching
        });
        if outcome == Err(ConnectFailure::Detached) && detaching == Some(false) {
            self.fail(|| format!("{id} is told to have ended by a detach, nobody asked for one"));
        }
    }

    /// A connect came up: the session must be what was asked for.
    pub(crate) fn connected_as_asked(
        &mut self,
        host: u8,
        id: ConnectId,
        session: SessionHandle,
        flow: &FlowKey,
        opaque: u64,
    ) {
        let Some(asked) = self.connects.get(&(host, id.as_u64())).map(|connect| connect.options.clone())
        else {
            return;
        };
        let is_as_asked = Some(flow.remote) == asked.remote.endpoint()
            && flow.domain == asked.domain
            && asked.local_addr.is_none_or(|local| local == flow.local.addr)
            && (asked.local_port == 0 || asked.local_port == flow.local.port)
            // With a port of the app's the flow goes where its hash steers it.
            && (asked.local_port != 0 || asked.worker.is_none_or(|worker| worker == session.worker()))
            && asked.opaque == opaque;
        if !is_as_asked {
            self.fail(|| {
                format!("{id} came up as {flow} on {session} with the value {opaque}: asked was {asked:?}")
            });
        }
    }

    /// A half-open is cleaned.
    pub(crate) fn cleaned(&mut self, app: usize, id: ConnectId, opaque: u64) {
        let host = self.apps[app].host;
        let Some(connect) = self.connects.get_mut(&(host, id.as_u64())) else {
            self.fail(|| format!("half_open_cleaned of {id}, which nobody asked for"));
            return;
        };
        let was = connect.clone();
        connect.cleaned = true;
        if was.cleaned {
            self.fail(|| format!("half_open_cleaned of {id} twice"));
        } else if was.app != app || was.options.opaque != opaque {
            self.fail(|| format!("half_open_cleaned of {id} is told to another, or with another value"));
        }
        let may_be_stuck = self.may_be_stuck;
        let Some(unit) = self.unit(was.app, was.unit) else { return };
        let (panicked, reported) = (unit.panicked, unit.reported);
        // The end of a unit may not wait for a worker that does not step: the report must name it.
        let abandoned = unit.detaching && may_be_stuck;
        if reported {
            self.fail(|| format!("half_open_cleaned of {id} after the end of its app worker was told"));
        }
        if !was.told {
            self.untold += 1;
            if let Some(unit) = self.unit(was.app, was.unit) {
                unit.untold += 1;
            }
            if !panicked && !abandoned {
                self.fail(|| format!("half_open_cleaned of {id} before its outcome"));
            }
        }
    }

    /// Time is about to pass to `now_us`: nothing owed may be overdue by more than `slack_us`. The time of a connect runs
    /// from when main takes the request, which a pause until `pause_end_us` may have put off.
    pub(crate) fn overdue(&mut self, now_us: u64, slack_us: u64, pause_end_us: u64) {
        while let Some(&Reverse((deadline_us, host, id))) = self.deadlines.peek()
            && deadline_us.saturating_add(slack_us) < now_us
        {
            self.deadlines.pop();
            let Some(connect) = self.connects.get(&(host, id)).cloned() else { continue };
            if connect.told || connect.cleaned {
                continue;
            }
            let put_off_us = pause_end_us.saturating_add(connect.timeout_us());
            if pause_end_us > connect.made_us && deadline_us < put_off_us {
                self.deadlines.push(Reverse((put_off_us, host, id)));
                continue;
            }
            if !self.is_exempt(&connect) {
                self.fail(|| {
                    format!(
                        "{} of host {host} has no outcome at {now_us} us, its deadline was {deadline_us} us",
                        ConnectId::from_u64(id)
                    )
                });
            }
        }
    }

    /// Whether a connect may end untold: its object panicked, or its end did not wait for a worker that did not step
    /// (of which nobody hears when the application's object panicked, too).
    fn is_exempt(&self, connect: &Connect) -> bool {
        let app = &self.apps[connect.app];
        let silent = app.main_dead && self.may_be_stuck;
        app.units.get(connect.unit as usize).is_none_or(|unit| unit.panicked || unit.stuck || silent)
    }

    /// A connect that is owed an outcome.
    pub(crate) fn unresolved(&self) -> Option<String> {
        let owed = |connect: &Connect| !connect.told && !connect.cleaned && !self.is_exempt(connect);
        let (&(host, id), connect) = self.connects.iter().find(|(_, connect)| owed(connect))?;
        Some(format!("{} of host {host} has no outcome: {connect:?}", ConnectId::from_u64(id)))
    }

    // ---- Sessions ----

    /// A session is announced.
    pub(crate) fn announced(&mut self, at: At, handle: SessionHandle, opaque: u64, talk: Talk) {
        let key = (self.apps[at.app].host, handle.as_u64());
        if handle.worker() != at.worker {
            self.fail(|| format!("session {handle} is announced on worker {}", at.worker));
        }
        let session = Session {
            app: at.app,
            unit: at.unit,
            worker: at.worker.0,
            stage: Stage::Announced,
            opaque,
            talk,
        };
        if self.sessions.insert(key, session).is_some() {
            self.fail(|| format!("session {handle} is announced twice"));
        }
    }

    /// Something is told of a session.
    pub(crate) fn session_event(&mut self, at: At, handle: SessionHandle, stage: Stage) {
        let key = (self.apps[at.app].host, handle.as_u64());
        let Some(session) = self.sessions.get_mut(&key) else {
            self.fail(|| format!("{stage:?} of session {handle}, which was not announced"));
            return;
        };
        let (before, is_its) =
            (session.stage, (session.app, session.unit, session.worker) == (at.app, at.unit, at.worker.0));
        session.stage = session.stage.max(stage);
        let in_order = match stage {
            Stage::Announced => false,
            Stage::Writable => before <= Stage::PeerClosed,
            Stage::Readable => before <= Stage::Readable,
            Stage::PeerClosed | Stage::Reset | Stage::Closed => before < stage,
        };
        if !is_its {
            self.fail(|| format!("{stage:?} of session {handle} is told to another: {at:?}"));
        } else if !in_order {
            self.fail(|| format!("{stage:?} of session {handle} after {before:?}"));
        }
    }

    /// A session is over.
    pub(crate) fn closed(&mut self, at: At, handle: SessionHandle, opaque: u64, reason: CloseReason) {
        let key = (self.apps[at.app].host, handle.as_u64());
        let before = self.sessions.get(&key).map(|session| (session.stage, session.opaque));
        self.session_event(at, handle, Stage::Closed);
        if let Some((stage, wanted)) = before {
            if wanted != opaque {
                self.fail(|| format!("session {handle} ends with the value {opaque}, it had {wanted}"));
            }
            if stage == Stage::Reset && reason == CloseReason::Finished {
                self.fail(|| format!("session {handle} was reset and yet finished"));
            }
        }
    }

    // ---- Ends ----

    /// An app worker's end is told.
    pub(crate) fn worker_detached(&mut self, app: usize, report: &WorkerDetachReport) {
        let may_be_stuck = self.may_be_stuck;
        let main_dead = self.apps[app].main_dead;
        let host = self.apps[app].host;
        let number = report.unit;
        let Some(unit) = self.unit(app, number) else {
            self.fail(|| format!("the end of unit {number} of app {app} is told, there is none"));
            return;
        };
        let stuck = !report.stuck.is_empty();
        let was_reported = std::mem::replace(&mut unit.reported, true);
        unit.stuck = stuck;
        let (told, untold, requested) = (unit.told, unit.untold, unit.requested);
        let (detaching, panicked, in_outcome) = (unit.detaching, unit.panicked, unit.panicked_in_outcome);
        let dead: Vec<bool> =
            unit.objects.iter().map(|object| matches!(object, Object::Dead | Object::DeadDropped)).collect();
        let alive = unit.objects.iter().position(|object| matches!(object, Object::Made | Object::Attached));
        let counted = &report.outcomes;
        if was_reported {
            self.fail(|| format!("the end of unit {number} of app {app} is told twice"));
        }
        if !detaching {
            self.fail(|| format!("unit {number} of app {app} is detached, nobody asked for it"));
        }
        if report.panicked && !panicked {
            self.fail(|| format!("unit {number} of app {app} is said to have panicked, it has not"));
        }
        if stuck && !may_be_stuck {
            self.fail(|| format!("workers {:?} are said to be stuck, none was paused", report.stuck));
        }
        if !stuck && report.unresolved != 0 {
            self.fail(|| format!("{} connects are unresolved and nobody is stuck", report.unresolved));
        }
        if stuck {
            return;
        }
        if untold > 0 && !panicked {
            self.fail(|| {
                format!("{untold} outcomes of unit {number} of app {app} were not told, and nobody was stuck")
            });
        }
        if let Some(worker) = alive {
            self.fail(|| format!("unit {number} of app {app} ends, its object on worker {worker} lives"));
        }
        if counted.requested != requested || counted.settled() != requested || counted.cleaned != requested {
            self.fail(|| {
                format!("unit {number} of app {app} made {requested} connects, its end says {counted:?}")
            });
        }
        let failed = told[6] + told[7] + told[8];
        let pairs = [
            (counted.established, told[0]),
            (counted.refused, told[1]),
            (counted.timed_out, told[2]),
            (counted.unreachable, told[3]),
            (counted.cancelled, told[4]),
            (counted.detached, told[5]),
            (counted.failed, failed),
        ];
        let more = |(counted, told): &(u64, u64)| counted >= told;
        if !pairs.iter().all(more) || (!panicked && pairs.iter().any(|(counted, told)| counted != told)) {
            self.fail(|| format!("unit {number} of app {app} was told {told:?}, its end says {counted:?}"));
        }
        if !main_dead && counted.undelivered != untold + in_outcome {
            self.fail(|| {
                format!(
                    "unit {number} of app {app}: {untold} outcomes were not told and {in_outcome} panicked, its end says {counted:?}"
                )
            });
        }
        let open = self.sessions.iter().find(|(key, session)| {
            key.0 == host
                && (session.app, session.unit) == (app, number)
                && session.stage < Stage::Closed
                && !dead.get(usize::from(session.worker)).copied().unwrap_or(false)
        });
        if let Some((&(_, handle), _)) = open {
            self.fail(|| {
                let handle = SessionHandle::from_u64(handle);
                format!("unit {number} of app {app} ends, its session {handle} was never closed")
            });
        }
        let unclean = self.connects.iter().find(|((of, _), connect)| {
            *of == host && (connect.app, connect.unit) == (app, number) && !connect.cleaned && !main_dead
        });
        if let Some((&(_, id), _)) = unclean {
            self.fail(|| {
                format!("unit {number} of app {app} ends, {} was not cleaned", ConnectId::from_u64(id))
            });
        }
    }

    /// An application's end is told.
    pub(crate) fn app_detached(&mut self, app: usize, report: &DetachReport) {
        self.main_callback(app, "detached");
        self.apps[app].gone = true;
        let open = self.apps[app].units.iter().position(|unit| !unit.reported);
        if let Some(unit) = open {
            self.fail(|| format!("app {app} ends, the end of its unit {unit} was not told"));
        }
        for worker in &report.app_workers {
            if self.unit(app, worker.unit).is_none_or(|unit| !unit.reported) {
                self.fail(|| {
                    format!("the end of app {app} reports unit {}, which was not told", worker.unit)
                });
            }
        }
    }

    /// Everything is over: nothing is owed.
    pub(crate) fn check_end(&mut self) {
        if let Some(what) = self.unresolved() {
            self.fail(|| what);
        }
        let open = self.connects.iter().find(|(_, connect)| {
            let app = &self.apps[connect.app];
            let unit = &app.units[connect.unit as usize];
            !connect.cleaned && !app.main_dead && !unit.stuck
        });
        if let Some((&(host, id), _)) = open {
            self.fail(|| format!("{} of host {host} was never cleaned", ConnectId::from_u64(id)));
        }
    }
}

#[cfg(test)]
mod tests;
