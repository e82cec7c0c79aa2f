//! What an echo client can be told to do.

use std::fmt;

use hoststack_app::{ConnectError, ConnectOptions, Duration};

/// What an echo client does. [`EchoClientOptions::to`] and change what differs.
#[derive(Clone, Debug)]
pub struct EchoClientOptions {
    /// Sessions to open, over all workers. Default 1.
    pub sessions: u32,
    /// Bytes that each sends and expects back; 0 = connect and close. Default 0.
    pub bytes: u64,
    /// The sessions are opened in so many waves; a wave begins when every session of the one before has ended (with
    /// `hold`: is held or has ended). At least 1, the default.
    pub waves: u32,
    /// Where to and from, one connect after the other, round and round. Their `opaque` values are replaced by the
    /// client's own.
    pub remotes: Vec<ConnectOptions>,
    /// Keep sessions open when their bytes have come back, until [`EchoClientHandle::release`](crate::EchoClientHandle::release)
    /// or a [`Release`](crate::Release) message. Default false.
    pub hold: bool,
    /// Every connect's timeout; `None` (default) = as in `remotes`.
    pub timeout: Option<Duration>,
    /// Most connects without an outcome at a time, over all workers: keeps a wave's SYNs below a listener's backlog and
    /// its data in the caches. Default 1024.
    pub pending_max: u32,
    /// The number of app workers that the client will be attached with, so that each gets a share. Default 1.
    pub app_workers: u32,
    /// Makes the bytes of two runs different, and their cancels. Default 0.
    pub seed: u64,
    /// The share of the connects that the client itself cancels, 0 to 1: half of them right behind the request, the
    /// others a while later, when some have another outcome already. Default 0.
    pub cancel: f64,
    /// Right behind its connect of this number, counted from 1, an app worker detaches itself, and all its sessions are
    /// reset: what is pending then ends as `Detached`. The rest of the list waits for that, and for another app worker,
    /// which is the embedder's to attach: see [`EchoClientEvent::Detached`](crate::EchoClientEvent::Detached). That one connect is never cancelled, so at
    /// least it is pending. At most `sessions`. Default `None` = never.
    pub detach_at: Option<u32>,
}

/// Most sessions of one client: numbers are 32 bits wide, and one of them means none.
pub const SESSIONS_MAX: u32 = u32::MAX - 1;

impl EchoClientOptions {
    /// One session of no bytes, to one of `remotes`.
    pub fn to(remotes: Vec<ConnectOptions>) -> EchoClientOptions {
        EchoClientOptions {
            sessions: 1,
            bytes: 0,
            waves: 1,
            remotes,
            hold: false,
            timeout: None,
            pending_max: 1024,
            app_workers: 1,
            seed: 0,
            cancel: 0.0,
            detach_at: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), EchoClientError> {
        if self.remotes.is_empty() {
            return Err(EchoClientError::NoRemote);
        }
        if self.waves == 0 {
            return Err(EchoClientError::NoWaves);
        }
        if self.pending_max == 0 {
            return Err(EchoClientError::NoPending);
        }
        if self.sessions > SESSIONS_MAX {
            return Err(EchoClientError::TooManySessions);
        }
        if !(0.0..=1.0).contains(&self.cancel) {
            return Err(EchoClientError::BadShare);
        }
        if self.detach_at.is_some_and(|number| number == 0 || number > self.sessions) {
            return Err(EchoClientError::BadDetachAt);
        }
        for remote in &self.remotes {
            self.connect_options(remote, 0).validate().map_err(EchoClientError::BadRemote)?;
        }
        Ok(())
    }

    pub(super) fn connect_options(&self, remote: &ConnectOptions, opaque: u64) -> ConnectOptions {
        ConnectOptions { opaque, timeout: self.timeout.unwrap_or(remote.timeout), ..remote.clone() }
    }
}

/// Options that no echo client can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoClientError {
    /// No remote.
    NoRemote,
    /// No waves.
    NoWaves,
    /// No connect could ever be made.
    NoPending,
    /// More than [`SESSIONS_MAX`].
    TooManySessions,
    /// A share of connects to cancel that is not from 0 to 1.
    BadShare,
    /// A detach behind a connect that is never made.
    BadDetachAt,
    /// A remote cannot be connected to.
    BadRemote(ConnectError),
}

impl fmt::Display for EchoClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EchoClientError::NoRemote => f.write_str("there is no remote to connect to: give at least one"),
            EchoClientError::NoWaves => f.write_str("the number of waves is 0: give at least 1"),
            EchoClientError::NoPending => {
                f.write_str("pending_max is 0, so no connect could ever be made: give at least 1")
            }
            EchoClientError::TooManySessions => write!(f, "too many sessions: give at most {SESSIONS_MAX}"),
            EchoClientError::BadShare => f.write_str("the share of connects to cancel is not from 0 to 1"),
            EchoClientError::BadDetachAt => f.write_str(
                "the detach comes behind a connect that is never made: give 1 to the number of sessions",
            ),
            EchoClientError::BadRemote(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EchoClientError {}
