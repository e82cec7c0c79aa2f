//! Pings: requests sent one after the other by a worker, answers matched with them, time-outs.
//!
//! A request is done when its answer was heard and its worker has said when it left, in either order: they may come
//! from different workers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use crossbeam_channel::{Sender, unbounded};
use hoststack_net::{DropReason, EchoNews, EchoRequest, HeardEcho, NextHop, SourceError};
use hoststack_transport::Instant;

use super::Main;
use crate::messages::{Command, Reply};
use crate::ping::{
    PINGS_MAX, PingCommand, PingError, PingOptions, PingOutcome, PingResult, PingSent, Pinging,
};

/// Requests of one ping that are waited for at once: the next one waits for room.
const OUTSTANDING_MAX: usize = 256;

/// A ping under way.
struct Ping {
    options: PingOptions,
    results: Sender<PingResult>,
    /// Gone when nobody will read them.
    asker: Weak<()>,
    /// Requests begun.
    begun: u16,
    /// When the next one is due.
    next_at: Instant,
    /// Requests that are waited for, in order.
    waiting: VecDeque<Request>,
    /// Nobody reads the results any more.
    is_abandoned: bool,
}

/// A request that is waited for.
struct Request {
    seq: u16,
    asked_at: Instant,
    next_hop: Option<NextHop>,
    sent_us: Option<u64>,
    heard: Option<HeardEcho>,
}

impl Ping {
    fn is_over(&self) -> bool {
        self.is_abandoned || (self.begun == self.options.count && self.waiting.is_empty())
    }

    fn may_send(&self) -> bool {
        self.begun < self.options.count && self.waiting.len() < OUTSTANDING_MAX
    }

    fn next_deadline(&self) -> Option<Instant> {
        let time_out = self.waiting.front().map(|request| request.asked_at + self.options.timeout);
        Instant::earliest([time_out, self.may_send().then_some(self.next_at)])
    }

    fn tell(&mut self, seq: u16, outcome: PingOutcome) {
        self.is_abandoned |= self.results.send(PingResult { seq, outcome }).is_err();
    }

    /// Takes the request out and tells its outcome.
    fn settle(&mut self, seq: u16, outcome: PingOutcome) {
        if let Some(at) = self.waiting.iter().position(|request| request.seq == seq) {
            self.waiting.remove(at);
            self.tell(seq, outcome);
        }
    }

    /// Tells the outcome of a request whose answer was heard, once its worker has said when it left.
    fn settle_heard(&mut self, seq: u16) {
        let Some(request) = self.waiting.iter().find(|request| request.seq == seq) else { return };
        let (Some(sent_us), Some(heard)) = (request.sent_us, request.heard) else { return };
        let from = heard.from;
        // Two workers' clocks are one, but each reads it once a step.
        let rtt_us = heard.at_us.saturating_sub(sent_us);
        self.settle(
            seq,
            match heard.news {
                EchoNews::Reply { hop_limit, data_len, is_intact } => {
                    PingOutcome::Reply { from, rtt_us, hop_limit, bytes: data_len, is_intact }
                }
                EchoNews::Error { kind, code, mtu } => {
                    PingOutcome::Error { from, rtt_us, kind: kind.name(), code, mtu }
                }
            },
        );
    }
}

fn not_sent(reason: DropReason) -> PingOutcome {
    PingOutcome::NotSent { reason: reason.name(), help: reason.help() }
}

/// The pings under way, by their identifiers.
#[derive(Default)]
pub(super) struct Pings {
    under_way: BTreeMap<u16, Ping>,
    /// The identifier given last.
    last_id: u16,
}

impl Pings {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Asked in each step, and mostly there is none.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.under_way.is_empty() { None } else { self.earliest() }
    }

    #[cold]
    fn earliest(&self) -> Option<Instant> {
        self.under_way.values().filter_map(Ping::next_deadline).min()
    }
}

impl Main {
    pub(super) fn begin_ping(&mut self, options: PingOptions, reply: &Reply<Result<Pinging, PingError>>) {
        if self.pings.len() >= PINGS_MAX {
            self.end_abandoned_pings();
        }
        if self.pings.len() >= PINGS_MAX {
            let _ = reply.send(Err(PingError::TooMany));
            return;
        }
        let mut id = self.pings.last_id.wrapping_add(1);
        while self.pings.under_way.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.pings.last_id = id;
        let (results, pinging) = unbounded();
        let asker = Arc::new(());
        let weak = Arc::downgrade(&asker);
        if reply.send(Ok(Pinging { results: pinging, _asker: asker })).is_err() {
            return;
        }
        let PingOptions { domain, to, .. } = options;
        // In each channel this goes before what the request causes, but an answer that overtakes a worker that is behind
        // with its commands is dropped there: that request times out.
        self.broadcast(|| Command::Ping(PingCommand::Begin { id, domain, to }));
        let ping = Ping {
            options,
            results,
            asker: weak,
            begun: 0,
            next_at: self.now,
            waiting: VecDeque::new(),
            is_abandoned: false,
        };
        self.pings.under_way.insert(id, ping);
        self.poll_pings();
    }

    /// Sends what is due, ends what was waited for too long.
    pub(super) fn poll_pings(&mut self) -> bool {
        if self.pings.next_deadline().is_none_or(|deadline| deadline > self.now) {
            return false;
        }
        let ids: Vec<u16> = self.pings.under_way.keys().copied().collect();
        for id in ids {
            self.poll_ping(id);
        }
        true
    }

    fn poll_ping(&mut self, id: u16) {
        let now = self.now;
        let Some(ping) = self.pings.under_way.get_mut(&id) else { return };
        let timeout = ping.options.timeout;
        while let Some(request) = ping.waiting.front().filter(|request| request.asked_at + timeout <= now) {
            let (seq, after_us) = (request.seq, now.micros_since(request.asked_at));
            ping.settle(seq, PingOutcome::TimedOut { after_us });
        }
        if ping.may_send() && ping.next_at <= now {
            ping.next_at = now + ping.options.interval;
            ping.begun += 1;
            let PingOptions { domain, to, size, hop_limit, worker, .. } = ping.options;
            let seq = ping.begun;
            // An address of our own answers from itself; no neighbour is on the way.
            let is_own = self.router.is_local(domain.0, to);
            let source = if is_own { Ok(to) } else { self.router.select_source(domain.0, to, None) };
            match source {
                Ok(src) => {
                    let next_hop = if is_own { None } else { self.router.lookup(domain.0, to) };
                    ping.waiting.push_back(Request {
                        seq,
                        asked_at: now,
                        next_hop,
                        sent_us: None,
                        heard: None,
                    });
                    let request =
                        EchoRequest { domain: domain.0, src, dst: to, id, seq, data_len: size, hop_limit };
                    self.send(worker, Command::Ping(PingCommand::Send(request)));
                }
                Err(SourceError::NoRoute) => ping.tell(seq, not_sent(DropReason::NoRoute)),
                Err(SourceError::NotOurs | SourceError::FamilyMismatch | SourceError::NoAddress) => {
                    ping.tell(
                        seq,
                        PingOutcome::NotSent {
                            reason: "no-address",
                            help: "The domain has no address of the destination's family.",
                        },
                    );
                }
            }
        }
        self.end_ping_if_over(id);
    }

    /// Ends those whose results nobody waits for: their next one may be hours away.
    fn end_abandoned_pings(&mut self) {
        let ids: Vec<u16> = self.pings.under_way.keys().copied().collect();
        for id in ids {
            if let Some(ping) = self.pings.under_way.get_mut(&id) {
                ping.is_abandoned |= ping.asker.strong_count() == 0;
            }
            self.end_ping_if_over(id);
        }
    }

    fn end_ping_if_over(&mut self, id: u16) {
        if self.pings.under_way.get(&id).is_some_and(Ping::is_over) {
            self.pings.under_way.remove(&id);
            self.broadcast(|| Command::Ping(PingCommand::End { id }));
        }
    }

    /// A worker sent a request, or could not.
    pub(super) fn ping_sent(&mut self, sent: &PingSent) {
        let Some(ping) = self.pings.under_way.get_mut(&sent.id) else { return };
        match sent.result {
            Ok(()) => {
                if let Some(request) = ping.waiting.iter_mut().find(|request| request.seq == sent.seq) {
                    request.sent_us = Some(sent.at_us);
                }
                ping.settle_heard(sent.seq);
            }
            Err(reason) => ping.settle(sent.seq, not_sent(reason)),
        }
        self.end_ping_if_over(sent.id);
    }

    /// A worker heard an answer. The first one counts.
    pub(super) fn echo_heard(&mut self, heard: HeardEcho) {
        let Some(ping) = self.pings.under_way.get_mut(&heard.id) else { return };
        let Some(request) = ping.waiting.iter_mut().find(|request| request.seq == heard.seq) else { return };
        request.heard.get_or_insert(heard);
        ping.settle_heard(heard.seq);
        self.end_ping_if_over(heard.id);
    }

    /// Requests that went through a neighbour that does not answer were dropped with it.
    pub(super) fn ping_neighbor_failed(&mut self, hop: NextHop) {
        let ids: Vec<u16> = self.pings.under_way.keys().copied().collect();
        for id in ids {
            let Some(ping) = self.pings.under_way.get_mut(&id) else { continue };
            let through = |request: &&Request| request.next_hop == Some(hop) && request.heard.is_none();
            let lost: Vec<u16> = ping.waiting.iter().filter(through).map(|request| request.seq).collect();
            for seq in lost {
                ping.settle(seq, not_sent(DropReason::NeighborFailed));
            }
            self.end_ping_if_over(id);
        }
    }
}
