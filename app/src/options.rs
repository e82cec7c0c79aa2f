//! Options of the operations, with defaults.

use std::net::{IpAddr, Ipv4Addr};

use hoststack_session::{SessionOptions, StagePlans};
use hoststack_transport::{
    Address, DomainId, Duration, EARLY_DATA_MAX, EarlyData, Endpoint, SocketOptions, WorkerId,
};

use crate::error::{AttachError, ConnectError, ListenError};

/// How to connect. `ConnectOptions::to(endpoint)` and change what differs.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where to, and over which transport.
    pub remote: Address,
    /// Where to if an attempt at `remote` fails, one after the other. The app hears of one outcome: the first success, or
    /// the last failure.
    pub alternatives: Vec<Address>,
    /// How often the whole list, `remote` and the alternatives, is tried, 1 to 255. Default 1.
    pub rounds: u8,
    /// How long one attempt may take, transport and stages. Default `None`: all the time that is left, so that what does
    /// not answer is the last that was tried.
    pub attempt_timeout: Option<Duration>,
    /// Before the list is tried again. Default 1 s: whoever refused is not asked in a tight loop.
    pub retry_delay: Duration,
    /// The routing domain to connect in. Sockets of the host know none.
    pub domain: DomainId,
    /// Local address; `None` = by the route's interface (RFC 9293 §3.9.1.1, MUST-43).
    pub local_addr: Option<IpAddr>,
    /// Local port; 0 = chosen by RFC 6056.
    pub local_port: u16,
    /// When the outcome must be known: from the call on in a callback, from when main takes the request on through a
    /// stack handle. Covers transport and stages.
    pub timeout: Duration,
    /// The worker that shall own the session; `None` = the least loaded.
    pub worker: Option<WorkerId>,
    /// Comes back with the outcome and when the half-open is cleaned; the session's opaque value at first.
    pub opaque: u64,
    /// Fifos.
    pub fifos: SessionOptions,
    /// How the connection behaves. Its receive window is the fifo's capacity, whatever it says.
    pub socket: SocketOptions,
    /// What happens between the transport's connection and `connected`: a PROXY header is sent, say. Early data goes out
    /// behind it, not in the SYN.
    pub stages: StagePlans,
}

/// The default of [`ConnectOptions::timeout`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of [`ConnectOptions::retry_delay`].
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The largest fifo: the largest window that RFC 7323 can express.
pub const FIFO_MAX: u32 = 1 << 30;

impl ConnectOptions {
    /// A connect to `remote` in domain 0, with defaults.
    pub fn to(remote: impl Into<Address>) -> ConnectOptions {
        ConnectOptions {
            remote: remote.into(),
            alternatives: Vec::new(),
            rounds: 1,
            attempt_timeout: None,
            retry_delay: RETRY_DELAY,
            domain: DomainId(0),
            local_addr: None,
            local_port: 0,
            timeout: CONNECT_TIMEOUT,
            worker: None,
            opaque: 0,
            fifos: SessionOptions::default(),
            socket: SocketOptions::DEFAULT,
            stages: StagePlans::NONE,
        }
    }

    /// What any thread can see to be wrong.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate(&self) -> Result<(), ConnectError> {
        for remote in self.remotes() {
            let Some(endpoint) = remote.endpoint() else { continue };
            // RFC 9293 §3.9.1.1 (MUST-46). A network's own broadcast address is known to main only.
            let is_broadcast = endpoint.addr == IpAddr::V4(Ipv4Addr::BROADCAST);
            let is_group = is_broadcast || endpoint.addr.is_multicast();
            if endpoint.port == 0 || endpoint.addr.is_unspecified() || is_group {
                return Err(ConnectError::BadEndpoint);
            }
            if self.local_addr.is_some_and(|local| local.is_ipv4() != endpoint.addr.is_ipv4()) {
                return Err(ConnectError::FamilyMismatch);
            }
        }
        if self.rounds == 0 {
            return Err(ConnectError::BadRounds);
        }
        if !fifos_are_valid(&self.fifos) {
            return Err(ConnectError::BadFifo);
        }
        if self.timeout.is_zero() || self.attempt_timeout.is_some_and(|most| most.is_zero()) {
            return Err(ConnectError::BadDeadline);
        }
        Ok(())
    }
}

impl ConnectOptions {
    /// All that is tried in a round, in order.
    pub fn remotes(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.remote).chain(&self.alternatives)
    }

    /// [`ConnectOptions::validate`] of a connect with early data, and the data as it travels.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate_with(&self, early_data: &[u8]) -> Result<EarlyData, ConnectError> {
        self.validate()?;
        if early_data.len() > EARLY_DATA_MAX.min(self.fifos.tx_capacity as usize) {
            return Err(ConnectError::BadEarlyData);
        }
        Ok(EarlyData::new(early_data))
    }
}

fn fifos_are_valid(fifos: &SessionOptions) -> bool {
    let valid = 1..=FIFO_MAX;
    valid.contains(&fifos.rx_capacity)
        && valid.contains(&fifos.tx_capacity)
        && fifos.tx_capacity_max <= FIFO_MAX
}

/// How to listen. `ListenOptions::on(endpoint)` and change what differs.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Where, and over which transport; the unspecified address means every address of that family in the domain. Port 0
    /// of a socket of the host is any free one, which `listening` tells.
    pub local: Address,
    /// The routing domain to listen in.
    pub domain: DomainId,
    /// The worker that accepts, for local names and sockets of the host. Default `None`: each worker, and for a local name
    /// the one that the connecting session is on, so that bytes cross no thread. This stack's TCP has no choice: a flow's
    /// worker is the one that its packets come to.
    pub worker: Option<WorkerId>,
    /// Most connections of this listener, per worker, that are not yet established.
    pub backlog: u32,
    /// Comes back in `listening`; accepted sessions start with it.
    pub opaque: u64,
    /// Fifos of accepted sessions.
    pub fifos: SessionOptions,
    /// How accepted connections behave. Their receive window is the fifo's capacity, whatever it says.
    pub socket: SocketOptions,
    /// What must happen before a connection is accepted: a PROXY header comes, say.
    pub stages: StagePlans,
    /// How long that may take, from when the handshake is complete.
    pub stage_timeout: Duration,
}

/// The default of [`ListenOptions::stage_timeout`]: a client that sends its header with its first bytes has time for them.
pub const STAGE_TIMEOUT: Duration = Duration::from_secs(10);

impl ListenOptions {
    /// A listener on `local` in domain 0, with defaults (backlog 4096).
    pub fn on(local: impl Into<Address>) -> ListenOptions {
        ListenOptions {
            local: local.into(),
            domain: DomainId(0),
            worker: None,
            backlog: 4096,
            opaque: 0,
            fifos: SessionOptions::default(),
            socket: SocketOptions::DEFAULT,
            stages: StagePlans::NONE,
            stage_timeout: STAGE_TIMEOUT,
        }
    }

    /// What any thread can see to be wrong.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate(&self) -> Result<(), ListenError> {
        if self.stage_timeout.is_zero() {
            return Err(ListenError::BadStageTimeout);
        }
        if matches!(self.local, Address::Tcp(Endpoint { port: 0, .. })) {
            return Err(ListenError::BadEndpoint);
        }
        if self.worker.is_some() && matches!(self.local, Address::Tcp(_)) {
            return Err(ListenError::BadWorker);
        }
        if self.backlog == 0 {
            return Err(ListenError::BadBacklog);
        }
        if !fifos_are_valid(&self.fifos) {
            return Err(ListenError::BadFifo);
        }
        Ok(())
    }
}

/// How to attach an application. `AttachOptions::named(name)` and change what differs.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Its name, unique in the stack, 1 to 64 bytes.
    pub name: String,
    /// Number of app workers to begin with.
    pub app_workers: u32,
    /// Most half-opens of each app worker: connects beyond it have the outcome `NoRoom`.
    pub half_opens_max: usize,
    /// Most connects of each app worker that one worker thread, or one stack handle, may have without an outcome.
    pub pending_connects_max: usize,
}

impl AttachOptions {
    /// An application of this name, with one app worker and room for 2^20 half-opens.
    pub fn named(name: impl Into<String>) -> AttachOptions {
        AttachOptions {
            name: name.into(),
            app_workers: 1,
            half_opens_max: 1 << 20,
            pending_connects_max: 1 << 20,
        }
    }

    /// What any thread can see to be wrong.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn validate(&self) -> Result<(), AttachError> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(AttachError::BadName);
        }
        if self.app_workers == 0 {
            return Err(AttachError::BadWorkers);
        }
        if self.half_opens_max == 0 || self.pending_connects_max == 0 {
            return Err(AttachError::BadLimit);
        }
        Ok(())
    }
}

/// What becomes of the sessions of an app worker that is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachPolicy {
    /// All are reset now.
    Reset,
    /// All are closed (queued data is sent); what is left after this long is reset.
    Close {
        /// How long to wait for them.
        linger: Duration,
    },
}

impl DetachPolicy {
    /// How long sessions may take to close; zero: they are reset at once.
    pub fn linger(self) -> Duration {
        match self {
            DetachPolicy::Reset => Duration::ZERO,
            DetachPolicy::Close { linger } => linger,
        }
    }
}

impl Default for DetachPolicy {
    /// Close, with five seconds' linger.
    fn default() -> DetachPolicy {
        DetachPolicy::Close { linger: Duration::from_secs(5) }
    }
}
