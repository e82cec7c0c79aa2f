//! Ping: echo requests from the stack's own addresses, to see whether a host answers and how fast.
//!
//! [`crate::StackHandle::ping`] starts one; each request has one [`PingResult`]. Main keeps the time-outs, one worker
//! sends, whichever worker gets the answer tells (RFC 792, RFC 4443 §4).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};
use hoststack_transport::{DomainId, Duration, WorkerId};
use serde::Serialize;

/// Pings under way at once.
pub const PINGS_MAX: usize = 64;
/// The shortest time between two requests of a ping.
pub const PING_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The longest time that a request is waited for.
pub const PING_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What to ask, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingOptions {
    /// The routing domain. Default 0.
    pub domain: DomainId,
    /// Whom.
    pub to: IpAddr,
    /// Requests, at least 1. Default 4.
    pub count: u16,
    /// Between one request and the next, at least [`PING_INTERVAL_MIN`]. Default 1 s.
    pub interval: Duration,
    /// Bytes of data in a request; with 28 (IPv4) or 48 (IPv6) of headers it must fit the interface's MTU. Default 56.
    pub size: usize,
    /// How long a request is waited for, at most [`PING_TIMEOUT_MAX`]. Default 4 s: longer than it takes to see that a
    /// neighbour does not answer.
    pub timeout: Duration,
    /// IPv4's time to live, IPv6's hop limit. Default 64.
    pub hop_limit: u8,
    /// The worker that sends. Default the first: all have the same tables.
    pub worker: WorkerId,
}

impl PingOptions {
    /// Four requests to `to`, in domain 0.
    pub fn to(to: IpAddr) -> PingOptions {
        PingOptions {
            domain: DomainId(0),
            to,
            count: 4,
            interval: Duration::from_secs(1),
            size: 56,
            timeout: Duration::from_secs(4),
            hop_limit: 64,
            worker: WorkerId(0),
        }
    }
}

/// Why a ping was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingError {
    /// No interface is in the domain.
    NoDomain,
    /// There is no such worker.
    NoWorker,
    /// No request at all.
    ZeroCount,
    /// The interval is below [`PING_INTERVAL_MIN`].
    TooFast,
    /// The time-out is zero, or above [`PING_TIMEOUT_MAX`].
    BadTimeout,
    /// The data fits no IP packet.
    TooLarge,
    /// [`PINGS_MAX`] are under way.
    TooMany,
    /// The stack has stopped.
    Stopped,
}

impl fmt::Display for PingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PingError::NoDomain => f.write_str("no interface is in that domain: name another"),
            PingError::NoWorker => f.write_str("there is no such worker: their numbers begin with 0"),
            PingError::ZeroCount => {
                f.write_str("a ping of no requests asks nothing: give a count of 1 or more")
            }
            PingError::TooFast => write!(f, "give an interval of {PING_INTERVAL_MIN:?} or more"),
            PingError::BadTimeout => write!(f, "give a time-out above 0 and up to {PING_TIMEOUT_MAX:?}"),
            PingError::TooLarge => write!(f, "no packet holds that much data: give {SIZE_MAX} bytes at most"),
            PingError::TooMany => write!(f, "{PINGS_MAX} pings are under way: wait for one to end"),
            PingError::Stopped => f.write_str("the stack has stopped"),
        }
    }
}

impl std::error::Error for PingError {}

/// What an IPv4 packet holds besides its header and the message's.
const SIZE_MAX: usize = 65535 - 20 - 8;

impl PingOptions {
    /// Whether it can be started, as far as the options tell.
    pub(crate) fn validate(&self, workers: usize, domains: &[u16]) -> Result<(), PingError> {
        if self.count == 0 {
            return Err(PingError::ZeroCount);
        }
        if self.interval < PING_INTERVAL_MIN {
            return Err(PingError::TooFast);
        }
        if self.timeout.is_zero() || self.timeout > PING_TIMEOUT_MAX {
            return Err(PingError::BadTimeout);
        }
        if self.size > SIZE_MAX {
            return Err(PingError::TooLarge);
        }
        if self.worker.index() >= workers {
            return Err(PingError::NoWorker);
        }
        if !domains.contains(&self.domain.0) {
            return Err(PingError::NoDomain);
        }
        Ok(())
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PingResult {
    /// Which request, counted from 1.
    pub seq: u16,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: PingOutcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum PingOutcome {
    /// The host answered.
    Reply {
        /// Who.
        from: IpAddr,
        /// From when the worker sent it, or made it wait for its neighbour, to when a worker took the answer in.
        rtt_us: u64,
        /// The time to live or hop limit left of the answer's.
        hop_limit: u8,
        /// Bytes of data that came back.
        bytes: usize,
        /// Whether they are those that were sent.
        is_intact: bool,
    },
    /// A host on the way said that it could not be brought there.
    Error {
        /// Who.
        from: IpAddr,
        /// As for a reply.
        rtt_us: u64,
        /// Why: `host-unreachable` and the like.
        kind: &'static str,
        /// The ICMP code as it was said.
        code: u8,
        /// With `packet-too-big`: the MTU of the link, bytes, if it was said.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<usize>,
    },
    /// It did not leave.
    NotSent {
        /// Why: the stable name of a drop reason, or `no-address`.
        reason: &'static str,
        /// The same as a sentence.
        help: &'static str,
    },
    /// Nothing came back in time.
    TimedOut {
        /// How long it was waited for.
        after_us: u64,
    },
}

/// The ping is over: no more results come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingOver;

/// A ping under way. Dropping it ends the ping with its next result, or sooner if there are [`PINGS_MAX`].
#[derive(Debug)]
pub struct Pinging {
    pub(crate) results: Receiver<PingResult>,
    /// Goes with it: how main sees that nobody waits for results any more.
    pub(crate) _asker: Arc<()>,
}

impl Pinging {
    /// Waits for the next result; `None`: it is over. Not to be called on the thread that steps, nor inside a callback.
    pub fn wait(&self) -> Option<PingResult> {
        self.results.recv().ok()
    }

    /// The next result, if it has come.
    ///
    /// # Errors
    /// [`PingOver`] after the last one.
    pub fn try_take(&self) -> Result<Option<PingResult>, PingOver> {
        match self.results.try_recv() {
            Ok(result) => Ok(Some(result)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(PingOver),
        }
    }
}

/// Main to a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PingCommand {
    /// Answers to these are to be told.
    Begin {
        /// The identifier.
        id: u16,
        /// Where they go.
        domain: DomainId,
        /// To whom.
        to: IpAddr,
    },
    /// Send one; answered by [`PingSent`].
    Send(hoststack_net::EchoRequest),
    /// No answers are waited for any more.
    End {
        /// The identifier.
        id: u16,
    },
}

/// A worker to main: a request was sent, or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PingSent {
    pub(crate) id: u16,
    pub(crate) seq: u16,
    pub(crate) at_us: u64,
    pub(crate) result: Result<(), hoststack_net::DropReason>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused_with_a_sentence() {
        let good = PingOptions::to([10, 0, 0, 1].into());
        assert_eq!(good.validate(1, &[0]), Ok(()));
        for (options, error) in [
            (PingOptions { count: 0, ..good }, PingError::ZeroCount),
            (PingOptions { interval: Duration::from_micros(999), ..good }, PingError::TooFast),
            (PingOptions { timeout: Duration::ZERO, ..good }, PingError::BadTimeout),
            (PingOptions { timeout: Duration::from_secs(61), ..good }, PingError::BadTimeout),
            (PingOptions { size: 65508, ..good }, PingError::TooLarge),
            (PingOptions { worker: WorkerId(1), ..good }, PingError::NoWorker),
            (PingOptions { domain: DomainId(1), ..good }, PingError::NoDomain),
        ] {
            assert_eq!(options.validate(1, &[0]), Err(error));
            assert!(error.to_string().len() > 20);
        }
    }
}
