//! Connects that are under way: main's engine. It tells nobody: it appends [`HalfOpenAction`]s, which main turns into
//! messages, whether a connect was over at once or later.
//!
//! A record is freed in one place, [`HalfOpens::settled`]; its socket is closed or handed over as soon as the attempt is
//! decided.

use std::os::fd::RawFd;
use std::sync::Arc;

use hoststack_transport::canary::{self, Bug};
use hoststack_transport::{
    Address, ConnectFailure, Duration, Endpoint, FlowKey, Full, HalfOpenId, HalfOpenUser, Instant, Key, Pool,
    SocketOptions, TimerWheel,
};

use crate::connection::flow;
use crate::error::{bind_failure, connect_failure};
use crate::host::{Errno, Host, Interest, Poller, Readiness, Socket};
use crate::token::Token;

#[cfg(test)]
mod tests;

/// The first wait before a connect is tried or looked at again; doubled with each, to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(100);
/// A timer that is later than this is looked at in between: nearly all connects are over long before their deadline, and
/// what the wheel holds for them is gone then too.
const LOOK: Duration = Duration::from_secs(1);

/// What main is to do for a half-open, in order.
#[derive(Debug)]
pub enum HalfOpenAction {
    /// Hand the connection over: [`crate::Engine::establish`] on its worker. The record stays until it is settled.
    Establish {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
        /// The connection.
        seed: Box<Seed>,
    },
    /// The attempt failed. The record stays until it is settled.
    Failed {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
        /// Why.
        failure: ConnectFailure,
    },
    /// The delete notification: the record is gone. Exactly once per half-open, and the last thing said about it.
    Deleted {
        /// Which.
        half_open: HalfOpenId,
        /// Whose.
        user: HalfOpenUser,
    },
}

/// A connection that is up, on its way to its worker.
#[derive(Debug)]
pub struct Seed {
    /// What it was on main.
    pub half_open: HalfOpenId,
    /// Between whom; both ends are unspecified over a Unix socket.
    pub flow: FlowKey,
    /// Its socket, which no poller watches.
    pub socket: Socket,
    /// How it behaves.
    pub options: SocketOptions,
}

/// Where a half-open stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpenState {
    /// The host connects; the poller will say when that is over.
    Connecting,
    /// The poller said something that means nothing: the socket is looked at again in a moment.
    Waiting,
    /// The Unix listener's backlog is full, and the host will not say when it no longer is: tried again in a moment.
    Backlogged,
    /// Up: the worker has it.
    HandedOver,
    /// Over.
    Failed(ConnectFailure),
    /// Cancelled or detached.
    Cleaned,
}

impl HalfOpenState {
    /// Whether the attempt may still end either way.
    pub const fn is_pending(self) -> bool {
        matches!(self, HalfOpenState::Connecting | HalfOpenState::Waiting | HalfOpenState::Backlogged)
    }
}

/// One half-open, for the CLI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfOpenInfo {
    /// Its name.
    pub half_open: HalfOpenId,
    /// Whose it is.
    pub user: HalfOpenUser,
    /// Where it connects to.
    pub remote: Address,
    /// The local endpoint that was asked for.
    pub local: Option<Endpoint>,
    /// Where it stands.
    pub state: HalfOpenState,
    /// Calls of `connect`.
    pub attempts: u32,
    /// When it began.
    pub opened: Instant,
    /// When it gives up.
    pub deadline: Instant,
}

/// What main's engine did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HalfOpenCounters {
    /// Opens started.
    pub opened: u64,
    /// Handed over to a worker.
    pub established: u64,
    /// Of these, up at once.
    pub immediate: u64,
    /// Failed: nobody listens.
    pub refused: u64,
    /// Failed by the deadline, or the host's.
    pub timed_out: u64,
    /// Failed for other reasons.
    pub failed: u64,
    /// Cleaned up (cancelled, detached) before they ended.
    pub cleaned: u64,
    /// Deleted.
    pub deleted: u64,
    /// Events of a half-open that is gone or decided.
    pub stale: u64,
    /// Events after which the connect was still under way.
    pub odd: u64,
    /// Connects that found a full backlog.
    pub backlogged: u64,
}

struct HalfOpen {
    user: HalfOpenUser,
    remote: Address,
    local: Option<Endpoint>,
    options: Arc<SocketOptions>,
    /// While it is pending.
    socket: Option<Socket>,
    /// The poller knows the socket.
    is_watched: bool,
    state: HalfOpenState,
    attempts: u32,
    /// Waits so far, for [`HalfOpen::back_off`].
    waits: u32,
    opened: Instant,
    deadline: Instant,
    retry_at: Instant,
    /// Deadline of the wheel's entry for this; an entry with another one is stale.
    wheel_at: Instant,
}

/// What became of a connect.
enum Progress {
    Up,
    UnderWay,
    /// A Unix listener's backlog is full.
    Backlogged,
    Failed(ConnectFailure),
}

impl HalfOpen {
    fn timer(&self) -> Instant {
        if !self.state.is_pending() {
            return Instant::FAR;
        }
        if canary::has(Bug::DeadlineIgnored) { self.retry_at } else { self.retry_at.min(self.deadline) }
    }

    fn is_loopback(&self) -> bool {
        self.remote.endpoint().is_some_and(|endpoint| endpoint.addr.is_loopback())
    }

    /// `connect`, the first or a later one of a socket: all its answers.
    fn connect(&mut self) -> Progress {
        let Some(socket) = &self.socket else { return Progress::UnderWay };
        self.attempts = self.attempts.saturating_add(1);
        match socket.connect(&self.remote) {
            Ok(()) | Err(Errno::ISCONN) => Progress::Up,
            // On the host itself the handshake is over by the time the call returns: the poller need not be asked.
            Err(Errno::INPROGRESS) if self.is_loopback() && socket.is_connected() => Progress::Up,
            // After a signal the host goes on by itself (POSIX, `connect`).
            Err(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR) => Progress::UnderWay,
            Err(Errno::AGAIN) if matches!(self.remote, Address::KernelUnix(_)) => Progress::Backlogged,
            Err(error) => Progress::Failed(connect_failure(error)),
        }
    }

    /// How far the connect is, whatever the poller said of it: an error is not believed before the socket has it, nor a
    /// success.
    fn look(&mut self, has_error: bool) -> Progress {
        let Some(socket) = &self.socket else { return Progress::UnderWay };
        if has_error && let Some(error) = socket.take_error() {
            return Progress::Failed(connect_failure(error));
        }
        if socket.is_connected() {
            // Also with a hang-up: the peer has closed already, which the worker will hear of.
            return Progress::Up;
        }
        if !has_error && let Some(error) = socket.take_error() {
            return Progress::Failed(connect_failure(error));
        }
        self.connect()
    }

    /// The next wait: 1 ms, doubled each time, to 100 ms.
    fn back_off(&mut self) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << self.waits.min(10)).min(RETRY_MAX);
        self.waits += 1;
        wait
    }
}

/// All connects of a stack over the host's sockets, on main.
pub struct HalfOpens {
    host: Arc<dyn Host>,
    poller: Poller,
    pool: Pool<HalfOpen>,
    /// Of the pool, those to Unix sockets.
    unix: usize,
    /// Sockets that the poller knows.
    watched: usize,
    wheel: TimerWheel<Key>,
    fired: Vec<(Instant, Key)>,
    ready: Vec<Readiness>,
    counters: HalfOpenCounters,
}

impl HalfOpens {
    /// None yet; at most `limit`.
    ///
    /// # Errors
    /// The host's, which gives no poller.
    pub fn new(host: Arc<dyn Host>, limit: usize) -> Result<HalfOpens, Errno> {
        Ok(HalfOpens {
            poller: host.poller()?,
            host,
            pool: Pool::new(limit),
            unix: 0,
            watched: 0,
            wheel: TimerWheel::new(Instant::ZERO),
            fired: Vec::new(),
            ready: Vec::new(),
            counters: HalfOpenCounters::default(),
        })
    }

    /// What main sleeps on: readable while there is something to [`HalfOpens::poll`].
    pub fn wait_fd(&self) -> Option<RawFd> {
        self.poller.wait_fd()
    }

    /// From now on every open finds the pool full, or no longer so: for simulated faults.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.pool.set_refusing(refusing);
    }

    /// Starts a connect to `remote`, from `local` if it is given (port 0: any). What comes of it is an action, also if it is
    /// over at once. `deadline` ends it with [`ConnectFailure::TimedOut`].
    ///
    /// # Errors
    /// [`Full`] at the limit of half-opens: then nothing follows.
    pub fn open(
        &mut self,
        now: Instant,
        remote: &Address,
        local: Option<Endpoint>,
        user: HalfOpenUser,
        options: Arc<SocketOptions>,
        deadline: Instant,
        actions: &mut Vec<HalfOpenAction>,
    ) -> Result<HalfOpenId, Full> {
        let key = self.pool.insert(HalfOpen {
            user,
            remote: remote.clone(),
            local,
            options,
            socket: None,
            is_watched: false,
            state: HalfOpenState::Connecting,
            attempts: 0,
            waits: 0,
            opened: now,
            deadline,
            retry_at: Instant::FAR,
            wheel_at: Instant::FAR,
        })?;
        self.counters.opened += 1;
        self.unix += usize::from(matches!(remote, Address::KernelUnix(_)));
        let progress = self.start(key);
        self.counters.immediate += u64::from(matches!(progress, Progress::Up));
        if canary::has(Bug::ConnectNowForgotten) && matches!(progress, Progress::Up) {
            self.arm(now, key);
            return Ok(HalfOpenId(key));
        }
        self.go_on(now, key, progress, actions);
        Ok(HalfOpenId(key))
    }

    /// Socket, bind, connect.
    fn start(&mut self, key: Key) -> Progress {
        let Some(half_open) = self.pool.get_mut(key) else { return Progress::UnderWay };
        let socket = match self.host.socket(&half_open.remote, &half_open.options) {
            Ok(socket) => socket,
            Err(error) => return Progress::Failed(connect_failure(error)),
        };
        if let Some(local) = half_open.local
            && let Err(error) = socket.bind(&Address::KernelTcp(local), false)
        {
            return Progress::Failed(bind_failure(error));
        }
        half_open.socket = Some(socket);
        half_open.connect()
    }

    /// What follows from how far a pending connect is: the one road to every outcome.
    fn go_on(&mut self, now: Instant, key: Key, progress: Progress, actions: &mut Vec<HalfOpenAction>) {
        let Some(half_open) = self.pool.get_mut(key).filter(|h| h.state.is_pending()) else { return };
        match progress {
            Progress::Up => self.establish(key, actions),
            Progress::Failed(failure) => self.fail(key, failure, actions),
            Progress::Backlogged => {
                half_open.state = HalfOpenState::Backlogged;
                half_open.retry_at = now + half_open.back_off();
                self.counters.backlogged += 1;
                self.arm(now, key);
            }
            Progress::UnderWay => match self.watch(key) {
                Ok(()) => self.arm(now, key),
                Err(error) => self.fail(key, connect_failure(error), actions),
            },
        }
    }

    /// Has the poller tell of it, once.
    fn watch(&mut self, key: Key) -> Result<(), Errno> {
        let Some(half_open) = self.pool.get_mut(key) else { return Ok(()) };
        let Some(socket) = &half_open.socket else { return Ok(()) };
        let token = Token::Record(key).as_u64();
        if half_open.is_watched {
            self.poller.again(socket, token)?;
        } else {
            self.poller.add(socket, token, Interest::Connect)?;
            self.watched += 1;
        }
        half_open.is_watched = true;
        half_open.state = HalfOpenState::Connecting;
        half_open.retry_at = Instant::FAR;
        Ok(())
    }

    fn arm(&mut self, now: Instant, key: Key) {
        let Some(half_open) = self.pool.get_mut(key) else { return };
        let timer = half_open.timer();
        if timer < half_open.wheel_at {
            half_open.wheel_at = timer.min(now + LOOK);
            self.wheel.insert(half_open.wheel_at, key);
        }
    }

    /// The socket of a half-open that is decided, with the poller told.
    fn take_socket(&mut self, key: Key) -> Option<Socket> {
        let half_open = self.pool.get_mut(key)?;
        let socket = half_open.socket.take()?;
        if half_open.is_watched {
            self.poller.remove(&socket, Token::Record(key).as_u64());
            self.watched -= 1;
        }
        Some(socket)
    }

    fn establish(&mut self, key: Key, actions: &mut Vec<HalfOpenAction>) {
        let Some(socket) = self.take_socket(key) else { return };
        let Some(half_open) = self.pool.get_mut(key) else { return };
        let local = match half_open.remote.endpoint() {
            Some(_) => socket.local(),
            None => Ok(Endpoint::UNSPECIFIED),
        };
        let local = match local {
            Ok(local) => local,
            Err(error) => return self.fail(key, connect_failure(error), actions),
        };
        if half_open.remote.endpoint() == Some(local) {
            // Where nobody listens, the host may choose that very port for our end, and the SYN meets itself (RFC 9293
            // §3.5, a simultaneous open of one).
            let _ = socket.reset_on_close(); // else the port waits in TIME-WAIT
            return self.fail(key, ConnectFailure::Refused, actions);
        }
        half_open.state = HalfOpenState::HandedOver;
        let id = HalfOpenId(key);
        let seed = Seed {
            half_open: id,
            flow: flow(&half_open.remote, local, half_open.remote.endpoint().unwrap_or(local)),
            socket,
            options: *half_open.options,
        };
        self.counters.established += 1;
        actions.push(HalfOpenAction::Establish { half_open: id, user: half_open.user, seed: Box::new(seed) });
    }

    fn fail(&mut self, key: Key, failure: ConnectFailure, actions: &mut Vec<HalfOpenAction>) {
        // The socket is closed now, not when the outcome was told.
        drop(self.take_socket(key));
        let Some(half_open) = self.pool.get_mut(key) else { return };
        half_open.state = HalfOpenState::Failed(failure);
        match failure {
            ConnectFailure::Refused => self.counters.refused += 1,
            ConnectFailure::TimedOut => self.counters.timed_out += 1,
            _ => self.counters.failed += 1,
        }
        actions.push(HalfOpenAction::Failed { half_open: HalfOpenId(key), user: half_open.user, failure });
    }

    /// Takes in what the host has to say, at most `burst` events, and fires what is due. Says whether anything happened.
    pub fn poll(&mut self, now: Instant, burst: usize, actions: &mut Vec<HalfOpenAction>) -> bool {
        // Before the timers: a connect that is up when its deadline passes is no failure.
        let mut ready = core::mem::take(&mut self.ready);
        self.poller.poll(self.watched > 0, burst, &mut ready);
        let mut worked = !ready.is_empty();
        for readiness in ready.drain(..) {
            self.on_ready(now, &readiness, actions);
        }
        self.ready = ready;
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.advance(now, &mut fired);
        for (at, key) in fired.drain(..) {
            worked |= self.on_timer(now, at, key, actions);
        }
        self.fired = fired;
        worked
    }

    fn on_ready(&mut self, now: Instant, readiness: &Readiness, actions: &mut Vec<HalfOpenAction>) {
        let half_open = match Token::from_u64(readiness.token) {
            Token::Record(key) => self.pool.get_mut(key).map(|half_open| (key, half_open)),
            Token::Listener(_) => None,
        };
        let is_watched = |h: &HalfOpen| h.state == HalfOpenState::Connecting && h.is_watched;
        let Some((key, half_open)) = half_open.filter(|(_, h)| is_watched(h)) else {
            self.counters.stale += 1;
            return;
        };
        let progress = if canary::has(Bug::HangUpIsFailure) && readiness.hang_up {
            Progress::Failed(ConnectFailure::Refused)
        } else {
            half_open.look(readiness.error || readiness.hang_up)
        };
        if matches!(progress, Progress::UnderWay) {
            self.counters.odd += 1;
            if canary::has(Bug::ConnectNotWatchedAgain) {
                return;
            }
            if half_open.waits > 0 {
                // It would be told at once again, and again.
                half_open.state = HalfOpenState::Waiting;
                half_open.retry_at = now + half_open.back_off();
                return self.arm(now, key);
            }
            half_open.waits = 1;
        }
        self.go_on(now, key, progress, actions);
    }

    /// Whether it did anything.
    fn on_timer(&mut self, now: Instant, at: Instant, key: Key, actions: &mut Vec<HalfOpenAction>) -> bool {
        let Some(half_open) = self.pool.get_mut(key).filter(|h| h.wheel_at == at) else { return false };
        half_open.wheel_at = Instant::FAR;
        if half_open.timer() > now {
            self.arm(now, key);
            return false;
        }
        let is_late = half_open.deadline <= now && !canary::has(Bug::DeadlineIgnored);
        half_open.retry_at = Instant::FAR;
        let progress = match half_open.state {
            HalfOpenState::Backlogged => half_open.connect(),
            _ => half_open.look(true),
        };
        let progress = match progress {
            Progress::UnderWay | Progress::Backlogged if is_late => {
                Progress::Failed(ConnectFailure::TimedOut)
            }
            progress => progress,
        };
        self.go_on(now, key, progress, actions);
        true
    }

    /// When [`HalfOpens::poll`] must be called next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Cancelled, detached, or failed elsewhere: closes its socket now, stops its timer and marks it, so that nothing more
    /// is said about it but its end. Frees nothing; the caller tells the outcome and then calls [`HalfOpens::settled`].
    pub fn cleanup(&mut self, id: HalfOpenId) {
        drop(self.take_socket(id.0));
        if let Some(half_open) = self.pool.get_mut(id.0).filter(|h| h.state.is_pending()) {
            half_open.state = HalfOpenState::Cleaned;
            self.counters.cleaned += 1;
        }
    }

    /// Its outcome was told: it deletes itself. Does nothing for a half-open that is gone.
    pub fn settled(&mut self, id: HalfOpenId, actions: &mut Vec<HalfOpenAction>) {
        drop(self.take_socket(id.0));
        if let Some(half_open) = self.pool.remove(id.0) {
            self.counters.deleted += 1;
            self.unix -= usize::from(matches!(half_open.remote, Address::KernelUnix(_)));
            actions.push(HalfOpenAction::Deleted { half_open: id, user: half_open.user });
        }
    }

    #[cfg(test)]
    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Number of half-opens, those that are decided but not settled included.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Of [`HalfOpens::len`], those to Unix sockets.
    pub fn unix_len(&self) -> usize {
        self.unix
    }

    /// What the pool holds of its limit.
    pub fn usage(&self) -> hoststack_transport::Usage {
        self.pool.usage()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Half-opens whose timers run.
    pub fn armed_timers(&self) -> usize {
        self.pool.iter().filter(|(_, half_open)| half_open.timer() != Instant::FAR).count()
    }

    /// What happened so far.
    pub fn counters(&self) -> &HalfOpenCounters {
        &self.counters
    }

    /// One half-open, for the CLI.
    pub fn describe(&self, id: HalfOpenId) -> Option<HalfOpenInfo> {
        let HalfOpen { user, remote, local, state, attempts, opened, deadline, .. } = self.pool.get(id.0)?;
        Some(HalfOpenInfo {
            half_open: id,
            user: *user,
            remote: remote.clone(),
            local: *local,
            state: *state,
            attempts: *attempts,
            opened: *opened,
            deadline: *deadline,
        })
    }

    /// The half-open in a slot, for walks in slices up to [`HalfOpens::slot_end`].
    pub fn at_slot(&self, slot: u32) -> Option<HalfOpenInfo> {
        self.describe(HalfOpenId(self.pool.at_slot(slot)?.0))
    }

    /// One past the highest slot ever used.
    pub fn slot_end(&self) -> u32 {
        self.pool.slot_end()
    }

    /// Checks what must hold between any two calls: whatever is pending has a socket, a deadline, and something that will
    /// wake it; whatever is decided has none.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_consistency(&self) {
        let unix =
            self.pool.iter().filter(|(_, half_open)| matches!(half_open.remote, Address::KernelUnix(_)));
        assert_eq!(unix.count(), self.unix, "the count of half-opens to Unix sockets is wrong");
        for (key, half_open) in self.pool.iter() {
            let timer = half_open.timer();
            assert!(half_open.wheel_at <= timer, "half-open {key} has a timer that no wheel entry will fire");
            assert_eq!(
                half_open.state.is_pending(),
                half_open.socket.is_some(),
                "half-open {key} has a socket if and only if it is pending"
            );
            match half_open.state {
                HalfOpenState::Connecting => {
                    assert!(half_open.is_watched, "half-open {key} waits for a poller that does not know it");
                }
                HalfOpenState::Waiting | HalfOpenState::Backlogged => {
                    assert!(half_open.retry_at != Instant::FAR, "half-open {key} waits for nothing");
                }
                HalfOpenState::HandedOver | HalfOpenState::Failed(_) | HalfOpenState::Cleaned => {}
            }
        }
    }
}
