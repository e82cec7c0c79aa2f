//! Packet traces: which packets are followed through the stack, and what each stage decided about them.
//!
//! No stage knows of this. A worker that traces takes the packets that the filter lets pass one at a time, and reads off
//! what counters, states and vectors say before and after.

use std::fmt;
use std::str::FromStr;

use hoststack_net::{FilterError, PacketFilter};
use serde::Serialize;

/// The most records of one trace, per worker.
pub const TRACE_COUNT_MAX: usize = 10_000;
/// The records of a trace that does not say how many, per worker.
pub const TRACE_COUNT_DEFAULT: usize = 50;
/// The most traces at a time.
pub const TRACES_MAX: usize = 8;

/// Which packets to trace. Reads from text, `tcp port 80 count 100 last`: see [`PacketFilter::WORDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSpec {
    /// Which packets.
    pub filter: PacketFilter,
    /// How many, per worker; from 1 to [`TRACE_COUNT_MAX`].
    pub count: usize,
    /// The last ones are kept, until the trace is cleared; otherwise the first ones, and then the trace is over.
    pub keeps_last: bool,
}

impl TraceSpec {
    /// The first [`TRACE_COUNT_DEFAULT`] packets that pass.
    pub fn new(filter: PacketFilter) -> TraceSpec {
        TraceSpec { filter, count: TRACE_COUNT_DEFAULT, keeps_last: false }
    }

    /// Whether a stack with so many workers and these interfaces can do it.
    pub(crate) fn check<'n>(
        &self,
        workers: usize,
        interfaces: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<(), TraceError> {
        if !(1..=TRACE_COUNT_MAX).contains(&self.count) {
            return Err(TraceError::Count);
        }
        check_filter(&self.filter, workers, interfaces).map_err(TraceError::Nothing)
    }
}

/// A filter that names what is not there lets nothing pass, silently: says what there is.
pub(crate) fn check_filter<'n>(
    filter: &PacketFilter,
    workers: usize,
    mut interfaces: impl Iterator<Item = &'n str> + Clone,
) -> Result<(), String> {
    let worker = filter.worker.or(filter.session.map(|session| session.worker));
    if let Some(worker) = worker.filter(|worker| usize::from(*worker) >= workers) {
        return Err(format!("there is no worker {worker}: workers are numbered from 0 to {}", workers - 1));
    }
    if let Some(name) = &filter.interface
        && !interfaces.clone().any(|known| known == name)
    {
        let first = interfaces.next().unwrap_or("none");
        let known = interfaces.fold(first.to_owned(), |list, known| format!("{list}, {known}"));
        return Err(format!("there is no interface `{name}`: there are {known}"));
    }
    Ok(())
}

impl fmt::Display for TraceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceSpec { filter, count, keeps_last } = self;
        write!(f, "{filter} count {count}{}", if *keeps_last { " last" } else { "" })
    }
}

impl FromStr for TraceSpec {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<TraceSpec, TraceError> {
        let (mut count, mut keeps_last) = (None, false);
        let mut filter = String::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "count" => {
                    let value = words.next().and_then(|value| value.parse().ok()).ok_or(TraceError::Count)?;
                    if count.replace(value).is_some() {
                        return Err(FilterError::Twice("count").into());
                    }
                }
                "last" => keeps_last = true,
                word => {
                    filter.push_str(word);
                    filter.push(' ');
                }
            }
        }
        let count = count.unwrap_or(TRACE_COUNT_DEFAULT);
        if !(1..=TRACE_COUNT_MAX).contains(&count) {
            return Err(TraceError::Count);
        }
        Ok(TraceSpec { filter: filter.parse()?, count, keeps_last })
    }
}

/// Why a trace was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceError {
    /// The filter cannot be read.
    Filter(FilterError),
    /// The count is none.
    Count,
    /// Nothing can ever pass; the text says why.
    Nothing(String),
    /// There are [`TRACES_MAX`] already.
    TooMany,
    /// The stack has stopped.
    Stopped,
}

impl From<FilterError> for TraceError {
    fn from(error: FilterError) -> TraceError {
        TraceError::Filter(error)
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::Filter(error) => error.fmt(f),
            TraceError::Count => write!(
                f,
                "how many packets? write `count N`, from 1 to {TRACE_COUNT_MAX} (per worker; {TRACE_COUNT_DEFAULT} \
                 if not said)"
            ),
            TraceError::Nothing(why) => f.write_str(why),
            TraceError::TooMany => {
                write!(f, "{TRACES_MAX} traces were added already: look at `show trace`, then `trace clear`")
            }
            TraceError::Stopped => f.write_str("the stack has stopped"),
        }
    }
}

impl std::error::Error for TraceError {}

/// What was traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceAnswer {
    /// The traces that were added, as one types them.
    pub traces: Vec<String>,
    /// Packets recorded now, all workers'.
    pub total: usize,
    /// Packets, by time; of one time by worker and in order.
    pub records: Vec<TraceRecord>,
}

/// What happened to one packet on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceRecord {
    /// The worker.
    pub worker: u8,
    /// Its place among the worker's records, from 1 since traces were last cleared.
    pub number: u64,
    /// When, in microseconds since the stack's start.
    pub at_us: u64,
    /// Tells packets apart: a packet that another worker handed over, or that waited, has the same one in each record.
    pub packet: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Where it came in or leaves; empty when it never got that far.
    pub interface: String,
    /// Bytes of the frame.
    pub len: usize,
    /// The packet in a line.
    pub summary: String,
    /// The session that it belongs to.
    pub session: Option<String>,
    /// Why it, or a part of it, was dropped: the reason's stable name.
    pub dropped: Option<&'static str>,
    /// Sent before.
    pub retransmission: bool,
    /// What each stage decided, in order.
    pub stages: Vec<TraceStage>,
}

/// What one stage decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceStage {
    /// The stage.
    pub stage: &'static str,
    /// What it decided.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_reads_back_and_has_defaults() {
        let spec: TraceSpec = "tcp port 80 count 7 last".parse().unwrap();
        assert_eq!((spec.count, spec.keeps_last), (7, true));
        assert_eq!(spec.to_string(), "tcp port 80 count 7 last");
        assert_eq!(spec.to_string().parse(), Ok(spec));
        let spec: TraceSpec = "".parse().unwrap();
        assert_eq!(spec, TraceSpec::new(PacketFilter::default()));
        assert_eq!(spec.to_string(), "any count 50");
    }

    #[test]
    fn what_cannot_be_a_trace_says_what_to_type() {
        let says = |text: &str| text.parse::<TraceSpec>().unwrap_err().to_string();
        for text in ["count", "count 0", "count 10001", "count x", "tcp count -1"] {
            assert!(says(text).contains("`count N`, from 1 to 10000"), "{text}");
        }
        assert!(says("count 1 count 2").contains("say it once"));
        assert!(says("tcp prot 80").contains("no filter word `prot`"));
        let check = |text: &str| {
            let spec: TraceSpec = text.parse().unwrap();
            spec.check(2, ["lo", "tap0"].into_iter()).map_err(|error| error.to_string())
        };
        assert_eq!(check("worker 1 interface lo"), Ok(()));
        assert_eq!(check("worker 2").unwrap_err(), "there is no worker 2: workers are numbered from 0 to 1");
        assert_eq!(
            check("session 9:1.1").unwrap_err(),
            "there is no worker 9: workers are numbered from 0 to 1"
        );
        assert_eq!(check("interface eth0").unwrap_err(), "there is no interface `eth0`: there are lo, tap0");
    }
}
