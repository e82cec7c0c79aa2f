//! What happens to a slice from outside: connects and cancels from foreign threads, detaches, attaches, unlistens, and
//! the end.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;

use hoststack::app::{
    AppId, AppWorkerId, AttachOptions, ConnectError, DetachError, DetachPolicy, Duration, ListenError,
    ListenerId, WorkerId,
};
use hoststack::{Attached, Query, Stack, StackHandle};
use hoststack_transport::Rng;

use super::apps::{Shared, Units};
use super::client::{Client, connect_options};
use super::oracle::{Oracle, Stock, lock};
use super::report::Totals;
use super::server::Server;
use super::world::{Plan, listens};
use crate::wait;

/// Threads that connect through stack handles.
const DRIVERS: u64 = 2;
/// How long a driver that is refused waits.
const PAUSE: Duration = Duration::from_micros(200);
/// How often the conductor looks whether all is attached.
const GLANCE: Duration = Duration::from_millis(1);
/// The longest wait for what threads still say to each other when all apps are gone.
const QUIET: Duration = Duration::from_secs(60);

/// App workers that drivers connect for: the name, and the oracle's number.
type Live = Arc<Mutex<Vec<(AppWorkerId, u32)>>>;

/// An application that is attached.
struct Attachment {
    name: String,
    app: AppId,
    units: Units,
    /// Its app workers that were attached when last looked at.
    attached: Vec<(AppWorkerId, u32)>,
}

pub(super) struct Conductor {
    handle: StackHandle,
    plan: Plan,
    shared: Arc<Shared>,
    rng: Rng,
    live: Live,
    clients: Vec<Attachment>,
    server: Attachment,
    /// Where there should be listeners, and which there are.
    listeners: Vec<Option<(AppWorkerId, ListenerId)>>,
    totals: Totals,
}

/// What went wrong, in a sentence: the slice ends there.
pub(super) type Failed = String;

fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Failed {
    move |error| format!("{what}: {error}")
}

impl Conductor {
    /// Attaches the apps.
    pub(super) fn begin(
        handle: StackHandle,
        plan: Plan,
        shared: Arc<Shared>,
        mut rng: Rng,
    ) -> Result<Conductor, Failed> {
        let server = attach_server(&handle, &shared)?;
        let clients = (0..plan.clients)
            .map(|number| attach_client(&handle, &shared, &plan, number))
            .collect::<Result<_, _>>()?;
        let listeners = vec![None; listens().len()];
        let rng = rng.fork();
        let (live, totals) = (Live::default(), Totals::default());
        let mut conductor = Conductor { handle, plan, shared, rng, live, clients, server, listeners, totals };
        conductor.look()?;
        conductor.listen_everywhere()?;
        Ok(conductor)
    }

    /// Runs the slice to its end and closes the books.
    pub(super) fn run(mut self, stack: Stack) -> Result<Totals, Failed> {
        let stop = AtomicBool::new(false);
        let seeds: Vec<u64> = (0..DRIVERS).map(|_| self.rng.u64()).collect();
        thread::scope(|scope| {
            for seed in seeds {
                let driver = Driver {
                    handle: self.handle.clone(),
                    live: self.live.clone(),
                    shared: self.shared.clone(),
                    rng: Rng::from_seed(seed),
                };
                let stop = &stop;
                scope.spawn(move || driver.run(stop));
            }
            let result = self.churn();
            stop.store(true, Relaxed);
            result
        })?;
        self.end()?;
        let orphaned = self.quiet()?;
        let mut totals = self.close_books(orphaned);
        totals.slices = 1;
        drop(stack);
        Ok(totals)
    }

    fn oracle(&self) -> &Arc<Oracle> {
        &self.shared.oracle
    }

    // ---- While connects last ----

    fn goes_on(&self) -> bool {
        !self.oracle().is_spent() && !self.oracle().is_violated()
    }

    fn churn(&mut self) -> Result<(), Failed> {
        while self.goes_on() {
            let mark = self.oracle().given() + self.plan.pace;
            while self.oracle().given() < mark && self.goes_on() {
                thread::park_timeout(GLANCE);
                // A server that panicked is missed at once: most connects shall find one.
                self.look()?;
                self.listen_everywhere()?;
            }
            self.act()?;
        }
        if self.plan.waits_at_end {
            // Not for ever: every connect has a deadline of seconds.
            while self.inspect()?.main.half_open_sessions > 0 && !self.oracle().is_violated() {
                thread::park_timeout(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    fn inspect(&self) -> Result<hoststack::Answer, Failed> {
        let answer = self.handle.inspect(Query::Summary).map_err(|error| error.to_string())?;
        let dropped = answer.main.tickets_dropped;
        self.oracle().check(dropped == 0, || format!("{dropped} connect tickets were dropped"));
        Ok(answer)
    }

    /// Which app workers there are; makes up for those that detached themselves.
    fn look(&mut self) -> Result<(), Failed> {
        let answer = self.inspect()?;
        let wanted = self.plan.units;
        for attachment in self.clients.iter_mut().chain([&mut self.server]) {
            let app = answer.apps.iter().find(|app| app.id == attachment.app);
            let app = app.ok_or_else(|| format!("{} has vanished", attachment.name))?;
            let units = lock(&attachment.units).clone();
            attachment.attached = app
                .app_workers
                .iter()
                .filter(|info| info.state == "attached")
                .filter_map(|info| Some((info.id, *units.get(info.unit as usize)?)))
                .collect();
            if (attachment.attached.len() as u32) < wanted {
                let id =
                    self.handle.attach_worker(attachment.app).map_err(|e| failed("attach_worker")(&e))?;
                // Only this thread attaches app workers, so the newest is this one.
                let newest = lock(&attachment.units).last().copied();
                attachment.attached.extend(newest.map(|unit| (id, unit)));
            }
        }
        *lock(&self.live) = self.clients.iter().flat_map(|client| client.attached.clone()).collect();
        let servers = &self.server.attached;
        for listener in &mut self.listeners {
            *listener = listener.filter(|(owner, _)| servers.iter().any(|(id, _)| id == owner));
        }
        Ok(())
    }

    fn listen_everywhere(&mut self) -> Result<(), Failed> {
        for (place, options) in listens().into_iter().enumerate() {
            if self.listeners[place].is_some() || self.server.attached.is_empty() {
                continue;
            }
            let (owner, _) = self.server.attached[self.rng.below(self.server.attached.len() as u32) as usize];
            match self.handle.listen(owner, options) {
                Ok(listener) => self.listeners[place] = Some((owner, listener)),
                // Its old owner, or this one, is on its way out: the next look shows.
                Err(ListenError::InUse | ListenError::Detached | ListenError::NoListener) => {}
                Err(error) => return Err(failed("listen")(&error)),
            }
        }
        Ok(())
    }

    fn policy(&mut self) -> DetachPolicy {
        match self.rng.below(4) {
            0 | 1 => DetachPolicy::Reset,
            2 => DetachPolicy::Close { linger: Duration::ZERO },
            _ => DetachPolicy::Close { linger: Duration::from_millis(u64::from(self.rng.below(30))) },
        }
    }

    fn act(&mut self) -> Result<(), Failed> {
        let policy = self.policy();
        let client = self.rng.below(self.clients.len() as u32) as usize;
        match self.rng.below(20) {
            0..8 => self.detach_unit(client, policy),
            8 => {
                let servers = &self.server.attached;
                if let Some(&(id, _)) = servers.get(self.rng.below(servers.len().max(1) as u32) as usize) {
                    return self.detach_worker(id, policy);
                }
                Ok(())
            }
            9..12 => {
                let app = self.clients[client].app;
                self.detach_app(app, policy)?;
                self.totals.app_detaches += 1;
                self.clients[client] = attach_client(&self.handle, &self.shared, &self.plan, client)?;
                self.look()
            }
            12 => {
                self.detach_app(self.server.app, policy)?;
                self.totals.app_detaches += 1;
                self.server = attach_server(&self.handle, &self.shared)?;
                self.look()?;
                self.listen_everywhere()
            }
            13..18 => self.unlisten(),
            _ => {
                let units = self.clients[client].attached.clone();
                for (id, _) in units {
                    for worker in 0..self.plan.config.workers {
                        // Cannot fail because a stack has 255 workers at most.
                        let worker = WorkerId(worker as u8);
                        self.handle.notify(id, worker, Box::new(())).map_err(|e| e.to_string())?;
                    }
                }
                Ok(())
            }
        }
    }

    fn detach_unit(&mut self, client: usize, policy: DetachPolicy) -> Result<(), Failed> {
        let attached = &self.clients[client].attached;
        let Some(&(id, _)) = attached.get(self.rng.below(attached.len().max(1) as u32) as usize) else {
            return Ok(());
        };
        self.detach_worker(id, policy)?;
        // Again under the same application.
        self.look()
    }

    fn detach_worker(&self, id: AppWorkerId, policy: DetachPolicy) -> Result<(), Failed> {
        match self.handle.detach_worker(id, policy) {
            // It went, or goes, by its own wish or a panic.
            Ok(_) | Err(DetachError::NotAttached | DetachError::Detaching) => Ok(()),
            Err(error) => Err(failed("detach_worker")(&error)),
        }
    }

    fn detach_app(&self, app: AppId, policy: DetachPolicy) -> Result<(), Failed> {
        self.handle.detach(app, policy).map_err(|e| failed("detach")(&e))?;
        self.oracle().went_on();
        Ok(())
    }

    fn unlisten(&mut self) -> Result<(), Failed> {
        let place = self.rng.below(self.listeners.len() as u32) as usize;
        let Some((owner, listener)) = self.listeners[place].take() else { return Ok(()) };
        match self.handle.unlisten(owner, listener) {
            Ok(()) => self.totals.unlistens += 1,
            // Its owner is going.
            Err(ListenError::NoListener) => {}
            Err(error) => return Err(failed("unlisten")(&error)),
        }
        Ok(())
    }

    // ---- The end ----

    /// Detaches all applications at once.
    fn end(&mut self) -> Result<(), Failed> {
        let mut jobs: Vec<(AppId, DetachPolicy)> = Vec::new();
        for app in self.clients.iter().map(|client| client.app).chain([self.server.app]).collect::<Vec<_>>() {
            let policy = self.policy();
            jobs.push((app, policy));
        }
        let this = &*self;
        thread::scope(|scope| {
            let detaches: Vec<_> = jobs
                .into_iter()
                .map(|(app, policy)| scope.spawn(move || this.detach_app(app, policy)))
                .collect();
            detaches.into_iter().try_for_each(|detach| {
                detach.join().unwrap_or_else(|_| Err("a thread that detaches panicked".to_owned()))
            })
        })
    }

    /// Waits until nothing is held and every message was handled. Returns how many connects main calls orphaned.
    fn quiet(&self) -> Result<u64, Failed> {
        let mut last = None;
        let answer = wait::poll(QUIET, || match self.inspect() {
            Err(error) => Some(Err(error)),
            Ok(answer) if answer.leaks.is_clean() && answer.apps.is_empty() => Some(Ok(answer)),
            Ok(answer) => {
                last = Some(answer);
                None
            }
        });
        match answer {
            Some(answer) => Ok(answer?.main.connects_orphaned),
            None => Err(format!("after {QUIET:?} of quiet something is held: {last:#?}")),
        }
    }

    fn close_books(&mut self, orphaned: u64) -> Totals {
        let settlement = self.oracle().settle(orphaned);
        let tally = &self.shared.tally;
        Totals {
            connects: settlement.requested,
            outcomes: settlement.outcomes,
            undelivered: settlement.undelivered,
            orphaned: settlement.orphaned,
            denied: tally.denied.load(Relaxed),
            cancels: tally.cancels.load(Relaxed),
            accepted: tally.accepted.load(Relaxed),
            echoed: tally.echoed.load(Relaxed),
            unit_detaches: settlement.detached_units,
            panics: settlement.panicked,
            sessions_at_detach: settlement.sessions_at_detach,
            half_opens_at_detach: settlement.half_opens_at_detach,
            callbacks: settlement.callbacks,
            ..std::mem::take(&mut self.totals)
        }
    }
}

fn attachment(name: String, attached: Attached, units: Units) -> Attachment {
    let attached_units = attached.app_workers.iter().copied().zip(lock(&units).clone()).collect();
    Attachment { name, app: attached.app, units, attached: attached_units }
}

fn attach_client(
    handle: &StackHandle,
    shared: &Arc<Shared>,
    plan: &Plan,
    number: usize,
) -> Result<Attachment, Failed> {
    let (name, units) = (format!("client{number}"), Units::default());
    let options = AttachOptions {
        app_workers: plan.units,
        half_opens_max: plan.half_opens_max,
        pending_connects_max: plan.pending_connects_max,
        ..AttachOptions::named(name.clone())
    };
    let attached = handle.attach(Client::new(shared, &units), options).map_err(|e| failed("attach")(&e))?;
    Ok(attachment(name, attached, units))
}

fn attach_server(handle: &StackHandle, shared: &Arc<Shared>) -> Result<Attachment, Failed> {
    let (name, units) = ("server".to_owned(), Units::default());
    let options = AttachOptions { app_workers: 2, ..AttachOptions::named(name.clone()) };
    let attached = handle.attach(Server::new(shared, &units), options).map_err(|e| failed("attach")(&e))?;
    Ok(attachment(name, attached, units))
}

/// A thread that connects, cancels, and at times detaches.
struct Driver {
    handle: StackHandle,
    live: Live,
    shared: Arc<Shared>,
    rng: Rng,
}

impl Driver {
    fn run(mut self, stop: &AtomicBool) {
        let mut stock = Stock::new(&self.shared.oracle);
        while !stop.load(Relaxed) {
            if !self.one(&mut stock) {
                thread::park_timeout(PAUSE);
            }
        }
    }

    /// One connect, if it can be made now.
    fn one(&mut self, stock: &mut Stock) -> bool {
        let chosen = {
            let live = lock(&self.live);
            live.get(self.rng.below(live.len().max(1) as u32) as usize).copied()
        };
        let Some((id, unit)) = chosen else { return false };
        let workers = self.handle.workers() as u32; // cannot fail because there are 255 at most
        let mut options = connect_options(&mut self.rng, &self.shared.temper, workers);
        let made = stock.connect(unit, |opaque| {
            options.opaque = opaque;
            self.handle.connect(id, options)
        });
        let connect = match made {
            Some(Ok(connect)) => connect,
            Some(Err(ConnectError::TooManyPending | ConnectError::Detached)) => {
                self.shared.tally.denied.fetch_add(1, Relaxed);
                return false;
            }
            Some(Err(error)) => {
                self.shared.oracle.violation(format!("a connect through a handle: {error}"));
                return false;
            }
            None => return false,
        };
        if self.rng.below(self.shared.temper.cancel * 3) == 0 {
            // That it has its outcome already is no error here.
            let _ = self.handle.cancel(connect);
            self.shared.tally.cancels.fetch_add(1, Relaxed);
        }
        if self.rng.below(8_000) == 0 {
            let _ = self.handle.detach_worker(id, DetachPolicy::Reset);
        }
        true
    }
}
