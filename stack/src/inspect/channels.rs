//! The channels between threads: the answer to [`Query::Channels`](super::Query::Channels).

use serde::Serialize;

use crate::channel::{ChannelCounts, Inbox, Outbox};

/// A channel. Messages sent are handled or wait (invariant 4 of the design).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChannelInfo {
    /// `requests`, `commands`, `reports`, `handover` (packets), `local` (streams without a protocol).
    pub kind: &'static str,
    /// Who sends: `main`, `worker 0`, `handles`.
    pub from: String,
    /// Who takes.
    pub to: String,
    /// Messages sent.
    pub sent: u64,
    /// Messages taken.
    pub handled: u64,
    /// Messages under way: sent and not taken.
    pub waiting: u64,
    /// The batches that they are in.
    pub batches: usize,
    /// The most batches that the taker ever found.
    pub batches_max: usize,
    /// Messages that wait with the sender.
    pub outbox: usize,
    /// The most that ever waited there because the channel was full.
    pub outbox_max: usize,
}

/// What one end knows. The ends are told apart by kind and threads, and put together by main.
#[derive(Clone, Debug)]
pub(crate) struct ChannelEnd {
    pub(crate) kind: &'static str,
    pub(crate) from: Thread,
    pub(crate) to: Thread,
    pub(crate) figures: EndFigures,
}

/// A thread that sends or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thread {
    Handles,
    Main,
    Worker(u8),
}

impl std::fmt::Display for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Thread::Handles => f.write_str("handles"),
            Thread::Main => f.write_str("main"),
            Thread::Worker(number) => write!(f, "worker {number}"),
        }
    }
}

/// The figures of an end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EndFigures {
    Sender { sent: u64, handled: u64, outbox: usize, outbox_max: usize },
    Receiver { batches: usize, batches_max: usize },
}

impl EndFigures {
    pub(crate) fn of_sender<T>(outbox: &Outbox<T>) -> EndFigures {
        let ChannelCounts { sent, handled } = outbox.counts();
        EndFigures::Sender { sent, handled, outbox: outbox.waiting(), outbox_max: outbox.waiting_max() }
    }

    pub(crate) fn of_taker<T>(inbox: &Inbox<T>) -> EndFigures {
        EndFigures::Receiver { batches: inbox.available(), batches_max: inbox.available_max() }
    }
}

/// Puts the ends together, in the order of threads.
pub(crate) fn join(ends: impl IntoIterator<Item = ChannelEnd>) -> Vec<ChannelInfo> {
    let mut channels = std::collections::BTreeMap::new();
    for ChannelEnd { kind, from, to, figures } in ends {
        let info = channels.entry((rank(kind), from, to)).or_insert_with(|| ChannelInfo {
            kind,
            from: from.to_string(),
            to: to.to_string(),
            ..ChannelInfo::default()
        });
        match figures {
            EndFigures::Sender { sent, handled, outbox, outbox_max } => {
                info.sent = sent;
                info.handled = handled;
                info.waiting = sent.saturating_sub(handled);
                info.outbox = outbox;
                info.outbox_max = outbox_max;
            }
            EndFigures::Receiver { batches, batches_max } => {
                info.batches = batches;
                info.batches_max = batches_max;
            }
        }
    }
    channels.into_values().collect()
}

/// The order in which kinds are shown: the way of a request.
fn rank(kind: &str) -> usize {
    ["requests", "commands", "reports", "handover", "local"]
        .iter()
        .position(|other| *other == kind)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_channel_make_one_line() {
        let end = |kind, from, to, figures| ChannelEnd { kind, from, to, figures };
        let (main, worker) = (Thread::Main, Thread::Worker(3));
        let all = join([
            end("reports", worker, main, EndFigures::Receiver { batches: 2, batches_max: 5 }),
            end("commands", main, worker, EndFigures::Receiver { batches: 1, batches_max: 1 }),
            end(
                "reports",
                worker,
                main,
                EndFigures::Sender { sent: 10, handled: 4, outbox: 7, outbox_max: 9 },
            ),
        ]);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].from.as_str(), all[0].to.as_str()), ("commands", "main", "worker 3"));
        let reports = &all[1];
        assert_eq!((reports.sent, reports.handled, reports.waiting), (10, 4, 6));
        assert_eq!((reports.batches, reports.batches_max), (2, 5));
        assert_eq!((reports.outbox, reports.outbox_max), (7, 9));
    }
}
