//! What happens to a world from outside: requests through stack handles, faults that begin and end. And the answers.

use hoststack::app::*;
use hoststack::inspect::{Detail, Filter, SessionQuery};
use hoststack::net::LinkState;
use hoststack::{Answer, Attached as AttachedIds, EndHow, Query, Stopped, Waiting};
use hoststack_transport::AllocationPoint;

use super::behave::{Message, SimApp, known_connect, made};
use super::faults::Fault;
use super::meddler::{Forgery, forge};
use super::options::{connect_options, detach_policy, listen_options};
use super::world::{Attached, World};

/// How long anything may take that no one holds up, in microseconds.
pub(crate) const SLACK_US: u64 = 3_000_000;

/// A request that will be answered.
pub(crate) struct Wait {
    asked: Asked,
    /// When the answer must be there, if no one is paused.
    pub(crate) until_us: u64,
}

/// What was asked.
enum Asked {
    Attach(Waiting<Result<AttachedIds, AttachError>>, usize),
    AttachWorker(Waiting<Result<AppWorkerId, AttachError>>, usize),
    Detach(Waiting<Result<DetachReport, DetachError>>),
    DetachWorker(Waiting<Result<WorkerDetachReport, DetachError>>),
    Cancel(Waiting<Result<(), CancelError>>, ConnectId),
    Listen(Waiting<Result<ListenerId, ListenError>>),
    Unlisten(Waiting<Result<(), ListenError>>),
    Inspect(Waiting<Result<Answer, Stopped>>),
}

impl Wait {
    /// What it waits for, in words.
    pub(crate) fn name(&self) -> &'static str {
        match self.asked {
            Asked::Attach(..) => "attach",
            Asked::AttachWorker(..) => "attach_worker",
            Asked::Detach(_) => "detach",
            Asked::DetachWorker(_) => "detach_worker",
            Asked::Cancel(..) => "cancel",
            Asked::Listen(_) => "listen",
            Asked::Unlisten(_) => "unlisten",
            Asked::Inspect(_) => "inspect",
        }
    }
}

impl World {
    fn ask(&mut self, host: usize, asked: Asked, longer_us: u64) {
        let until_us = self.now_us + longer_us;
        self.hosts[host].waits.push(Wait { asked, until_us });
    }

    /// Attaches an application of a name from a few, so that names come again.
    pub(crate) fn attach(&mut self, host: usize) {
        let (index, options) = {
            let s = &mut *self.hub.lock();
            let index = s.oracle.new_app(host as u8); // 3 at most
            let name = s.dice.below(4);
            let options = AttachOptions {
                app_workers: 1 + s.dice.below(3) as u32,
                half_opens_max: s.dice.pick(&[2, 1000, 1000, 1000, 1000, 1000]),
                pending_connects_max: s.dice.pick(&[1, 1000, 1000, 1000, 1000, 1000]),
                ..AttachOptions::named(format!("app{name}"))
            };
            (index, options)
        };
        let app = SimApp { hub: self.hub.clone(), app: index, host: host as u8 };
        let waiting = self.hosts[host].stack.handle().requests().attach(app, options);
        self.ask(host, Asked::Attach(waiting, index), 0);
    }

    /// Detaches an application from outside.
    pub(crate) fn detach(&mut self, host: usize, app: usize) {
        let attached = self.hosts[host].apps.swap_remove(app);
        let policy = {
            let s = &mut *self.hub.lock();
            s.oracle.detach_asked(attached.index, None);
            detach_policy(s)
        };
        let waiting = self.hosts[host].stack.handle().requests().detach(attached.id, policy);
        let longer_us = self.detach_us(host);
        self.ask(host, Asked::Detach(waiting), longer_us);
    }

    /// How long a detach may take: linger and grace, of two phases and of one begun before with a linger of its own.
    fn detach_us(&self, host: usize) -> u64 {
        2 * (self.hub.lock().temper.linger_us_max + 2 * self.hosts[host].detach_grace_us)
    }

    /// Asks a host for its figures.
    pub(crate) fn inspect(&mut self, host: usize, query: Query) {
        let waiting = self.hosts[host].stack.handle().requests().inspect(query);
        self.ask(host, Asked::Inspect(waiting), 0);
    }

    /// Takes the answers that have come. Figures are kept.
    pub(crate) fn take_answers(&mut self, host: usize) {
        let World { hosts, hub, figures, .. } = self;
        let host = &mut hosts[host];
        let s = &mut *hub.lock();
        let mut index = 0;
        while index < host.waits.len() {
            let mut complaint = None;
            let is_answered = match &mut host.waits[index].asked {
                Asked::Attach(waiting, app) => waiting.try_take().map(|answer| {
                    if let Ok(AttachedIds { app: id, app_workers }) = answer {
                        s.oracle.apps[*app].id = Some(id);
                        for (unit, id) in s.oracle.apps[*app].units.iter_mut().zip(&app_workers) {
                            unit.id = Some(*id);
                        }
                        host.apps.push(Attached { index: *app, id, units: app_workers });
                    } else if answer == Err(AttachError::Stopped) {
                        complaint = Some("attach is told that the stack has stopped".to_owned());
                    }
                }),
                Asked::AttachWorker(waiting, app) => waiting.try_take().map(|answer| {
                    if let Ok(id) = answer {
                        let units = &mut s.oracle.apps[*app].units;
                        if !units.iter().any(|unit| unit.id == Some(id))
                            && let Some(unit) = units.iter_mut().find(|unit| unit.id.is_none())
                        {
                            unit.id = Some(id);
                        }
                        if let Some(attached) = host.apps.iter_mut().find(|attached| attached.index == *app) {
                            attached.units.push(id);
                        }
                    }
                }),
                Asked::Detach(waiting) => waiting.try_take().map(|answer| {
                    if answer == Err(DetachError::Stopped) {
                        complaint = Some("detach is told that the stack has stopped".to_owned());
                    }
                }),
                Asked::DetachWorker(waiting) => waiting.try_take().map(drop),
                Asked::Cancel(waiting, id) => waiting.try_take().map(|answer| {
                    if answer == Err(CancelError::Stopped) {
                        complaint = Some(format!("cancel of {id} is told that the stack has stopped"));
                    }
                }),
                Asked::Listen(waiting) => waiting.try_take().map(|answer| {
                    if let Ok(listener) = answer {
                        s.listeners.push(listener);
                    }
                }),
                Asked::Unlisten(waiting) => waiting.try_take().map(drop),
                Asked::Inspect(waiting) => waiting.try_take().map(|answer| match answer {
                    Ok(answer) => {
                        if answer.main.tickets_dropped != 0 || answer.main.connects_orphaned != 0 {
                            complaint = Some(format!(
                                "{} tickets were dropped, {} connects orphaned",
                                answer.main.tickets_dropped, answer.main.connects_orphaned
                            ));
                        }
                        let sessions = answer.sessions.iter().filter_map(|session| session.fault);
                        let half_opens = answer.half_opens.iter().filter_map(|half_open| half_open.fault);
                        // A worker that pauses, as some do here, tells outcomes late.
                        let is_late = |fault: &&str| fault.contains("beyond its deadline");
                        if let Some(fault) = sessions.chain(half_opens).find(|fault| !is_late(fault)) {
                            complaint = Some(format!("a connection cannot go on by itself: {fault}"));
                        }
                        *figures = Some(answer);
                    }
                    Err(Stopped) => complaint = Some("inspect is told that the stack has stopped".to_owned()),
                }),
            };
            if let Some(what) = complaint {
                s.oracle.fail(|| what);
            }
            if is_answered.is_some() {
                let wait = host.waits.remove(index);
                s.trace(|| format!("{} is answered", wait.name()));
            } else {
                index += 1;
            }
        }
    }

    /// One thing that happens from outside.
    pub(crate) fn poke(&mut self) {
        let hub = self.hub.clone();
        let (host, kind, habits) = {
            let s = &mut *hub.lock();
            (s.dice.index(self.hosts.len()), s.dice.below(24), self.habits)
        };
        let faulty = {
            let d = &mut hub.lock().dice;
            [d.one_of(habits.pause), d.one_of(habits.refuse), d.one_of(habits.cut), d.one_of(habits.flood)]
        };
        if faulty[0] {
            self.pause();
        }
        if faulty[1] {
            self.refuse(host);
        }
        if faulty[2] {
            self.cut();
        }
        if faulty[3] {
            self.flood(host);
        }
        let app = hub.lock().dice.index(self.hosts[host].apps.len().max(1));
        match kind {
            0..=8 => self.poke_connects(host, app),
            9 | 10 => self.poke_listens(host, app, 1),
            11 => self.poke_cancel(host),
            12 => {
                if let Some((unit, _)) = self.some_unit(host, app) {
                    let worker = WorkerId(hub.lock().dice.below(u64::from(self.hosts[host].workers)) as u8);
                    let message = Box::new(Message::Wake);
                    let _ = self.hosts[host].stack.handle().notify(unit, worker, message);
                }
            }
            13 | 14 => {
                let s = &mut *hub.lock();
                if s.known.is_empty() {
                    return;
                }
                let index = s.dice.index(s.known.len());
                let (of, handle) = s.known[index];
                let how = s.dice.pick(&[EndHow::Close, EndHow::Reset]);
                let handle = SessionHandle::from_u64(handle);
                if usize::from(of) == host {
                    let _ = self.hosts[host].stack.handle().end_session(handle, how);
                    s.trace(|| format!("poke: {how:?} of {handle} on host {host}"));
                }
            }
            15 => {
                let query = match hub.lock().dice.index(6) {
                    0 => Query::Summary,
                    1 => Query::half_opens(3),
                    2 => Query::Status,
                    // None is, at any time.
                    3 => Query::Sessions(Box::new(SessionQuery {
                        filter: Filter { stuck: true, ..Filter::default() },
                        limit: 3,
                        detail: Detail::Full,
                        count: true,
                        ..SessionQuery::default()
                    })),
                    _ => Query::sessions(3, true),
                };
                self.inspect(host, query);
            }
            16 if self.hosts[host].apps.len() < 4 => {
                self.attach(host);
            }
            17 => {
                if let Some(attached) = self.hosts[host].apps.get(app) {
                    let (id, index) = (attached.id, attached.index);
                    let waiting = self.hosts[host].stack.handle().requests().attach_worker(id);
                    self.ask(host, Asked::AttachWorker(waiting, index), 0);
                }
            }
            18 if hub.lock().dice.one_of(3) => self.poke_detach_worker(host, app),
            19 if app < self.hosts[host].apps.len() && hub.lock().dice.one_of(4) => {
                self.detach(host, app);
            }
            20 => self.poke_unlisten(host, app),
            21 | 22 => self.poke_forge(),
            _ => {
                for villain in &mut self.villains {
                    let (port, count) = {
                        let d = &mut hub.lock().dice;
                        (d.pick(&[80, 80, 81, 82]), d.pick(&[1, 1, 6]))
                    };
                    for _ in 0..count {
                        villain.attack(self.now_us, port);
                    }
                }
            }
        }
    }

    /// More requests than main takes in several steps, with a detach before and connects behind them.
    fn flood(&mut self, host: usize) {
        let app = self.hub.lock().dice.index(self.hosts[host].apps.len().max(1));
        let count = self.hub.lock().dice.pick(&[1100, 4000, 8000]);
        self.poke_detach_worker(host, app);
        let handle = self.hosts[host].stack.handle();
        // No worker has so many sessions: it finds nothing.
        let nobody = SessionHandle::from_u64((1 << 56) - 1);
        for _ in 0..count {
            let _ = handle.end_session(nobody, EndHow::Reset);
        }
        self.poke_connects(host, app);
    }

    fn poke_detach_worker(&mut self, host: usize, app: usize) {
        let Some((unit, number)) = self.some_unit(host, app) else { return };
        let policy = {
            let s = &mut *self.hub.lock();
            let index = self.hosts[host].apps[app].index;
            s.oracle.detach_asked(index, Some(number));
            s.trace(|| format!("poke: detach of app {index} unit {number}"));
            detach_policy(s)
        };
        let waiting = self.hosts[host].stack.handle().requests().detach_worker(unit, policy);
        let longer_us = self.detach_us(host);
        self.ask(host, Asked::DetachWorker(waiting), longer_us);
    }

    /// An app worker of an application, and its number.
    fn some_unit(&mut self, host: usize, app: usize) -> Option<(AppWorkerId, u32)> {
        let attached = self.hosts[host].apps.get(app)?;
        let s = &mut *self.hub.lock();
        let id = *attached.units.get(s.dice.index(attached.units.len().max(1)))?;
        let units = &s.oracle.apps[attached.index].units;
        let number = units.iter().position(|unit| unit.id == Some(id))?;
        Some((id, number as u32))
    }

    fn poke_connects(&mut self, host: usize, app: usize) {
        let hub = self.hub.clone();
        let count = hub.lock().dice.pick(&[1, 1, 2, 6]);
        for _ in 0..count {
            let Some((unit, number)) = self.some_unit(host, app) else { return };
            let index = self.hosts[host].apps[app].index;
            let (options, cancels) = {
                let s = &mut *hub.lock();
                (connect_options(s, host as u8, self.hosts[host].workers), s.dice.one_of(10))
            };
            let Ok(id) = self.hosts[host].stack.handle().connect(unit, options.clone()) else { continue };
            made(&mut hub.lock(), host as u8, (index, number), id, &options);
            if cancels {
                hub.lock().oracle.cancel_asked(host as u8, id);
                let waiting = self.hosts[host].stack.handle().requests().cancel(id);
                self.ask(host, Asked::Cancel(waiting, id), 0);
            }
        }
    }

    /// Listens on ports that others connect to.
    pub(crate) fn poke_listens(&mut self, host: usize, app: usize, count: usize) {
        for _ in 0..count {
            let Some((unit, _)) = self.some_unit(host, app) else { return };
            let options = listen_options(&mut self.hub.lock(), host as u8);
            let waiting = self.hosts[host].stack.handle().requests().listen(unit, options);
            self.ask(host, Asked::Listen(waiting), 0);
        }
    }

    /// Listens on the most popular port of every address of a host.
    pub(crate) fn listen_everywhere(&mut self, host: usize, app: usize) {
        let Some((unit, _)) = self.some_unit(host, app) else { return };
        let places = self.hub.lock().places[host].0.clone();
        for (place, family) in places.iter().flat_map(|place| [(place, 0), (place, 1)]) {
            let mut options = listen_options(&mut self.hub.lock(), host as u8);
            options.domain = place.domain;
            options.local = Endpoint::new(place.local[family], 80).into();
            let waiting = self.hosts[host].stack.handle().requests().listen(unit, options);
            self.ask(host, Asked::Listen(waiting), 0);
        }
    }

    fn poke_unlisten(&mut self, host: usize, app: usize) {
        let Some((unit, _)) = self.some_unit(host, app) else { return };
        let listener = {
            let s = &mut *self.hub.lock();
            if s.listeners.is_empty() {
                return;
            }
            s.listeners[s.dice.clone().index(s.listeners.len())]
        };
        let waiting = self.hosts[host].stack.handle().requests().unlisten(unit, listener);
        self.ask(host, Asked::Unlisten(waiting), 0);
    }

    fn poke_cancel(&mut self, host: usize) {
        let id = {
            let s = &mut *self.hub.lock();
            let Some(id) = known_connect(s, host as u8) else { return };
            s.oracle.cancel_asked(host as u8, id);
            id
        };
        let waiting = self.hosts[host].stack.handle().requests().cancel(id);
        self.ask(host, Asked::Cancel(waiting, id), 0);
    }

    fn poke_forge(&mut self) {
        let s = &mut *self.hub.lock();
        let end = s.dice.index(s.ends.len());
        let flows = s.ends[end].tracks.len();
        if flows == 0 {
            return;
        }
        let index = s.dice.index(flows);
        let Some(&flow) = s.ends[end].tracks.keys().nth(index) else { return };
        let what = s.dice.pick(&[Forgery::Rst, Forgery::Syn, Forgery::Fin, Forgery::Junk, Forgery::Silence]);
        forge(s, end, flow, what);
    }

    /// One actor does not step for a while.
    fn pause(&mut self) {
        let s = &mut *self.hub.lock();
        let turn = s.dice.index(self.turns.len());
        let turn = &mut self.turns[turn];
        let until_us = self.now_us + s.dice.below(self.habits.pause_us_max);
        turn.paused_until_us = turn.paused_until_us.max(until_us);
        self.pause_end_us = self.pause_end_us.max(until_us);
        s.oracle.may_be_stuck = true;
        s.strike(turn.host, Fault::Pause, 1);
        s.trace(|| format!("poke: {:?} of host {} pauses until {until_us} us", turn.actor, turn.host));
    }

    /// An allocation point refuses from now on, or no longer.
    fn refuse(&mut self, host: usize) {
        let s = &mut *self.hub.lock();
        let point = s.dice.index(AllocationPoint::ALL.len());
        let refusing = !self.hosts[host].refusing[point];
        self.hosts[host].refusing[point] = refusing;
        let point = AllocationPoint::ALL[point];
        self.hosts[host].stack.set_refusing(point, refusing);
        s.strike(host, Fault::Refusal, 1);
        s.trace(|| format!("poke: {point:?} of host {host} refuses: {refusing}"));
    }

    /// A link is cut, or mended.
    fn cut(&mut self) {
        let s = &mut *self.hub.lock();
        if self.links.is_empty() {
            return;
        }
        let link = s.dice.index(self.links.len());
        let link = &mut self.links[link];
        link.look(s);
        link.is_cut = !link.is_cut;
        link.counters.set_link(if link.is_cut { LinkState::Cut } else { LinkState::Impaired });
        s.trace(|| format!("poke: link of {:?} is cut: {}", link.hosts, link.is_cut));
    }

    /// All faults are over.
    pub(crate) fn heal(&mut self) {
        let s = &mut *self.hub.lock();
        for link in &mut self.links {
            link.look(s);
            link.is_cut = false;
            link.counters.set_link(LinkState::Healed);
        }
        s.ends.iter_mut().for_each(super::meddler::End::calm);
        for host in &mut self.hosts {
            for point in AllocationPoint::ALL {
                host.stack.set_refusing(point, false);
            }
        }
        self.villains.iter_mut().for_each(super::villain::Villain::calm);
        for turn in &mut self.turns {
            turn.paused_until_us = 0;
        }
        self.pause_end_us = self.pause_end_us.min(self.now_us);
        s.is_calm = true;
    }

    /// Every object is told to finish what it does.
    pub(crate) fn calm_apps(&mut self) {
        for host in &self.hosts {
            for unit in host.apps.iter().flat_map(|attached| &attached.units) {
                for worker in 0..host.workers {
                    let message = Box::new(Message::CalmDown);
                    let _ = host.stack.handle().notify(*unit, WorkerId(worker), message);
                }
            }
        }
    }
}
