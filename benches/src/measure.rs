//! Clocks, memory, and rounds that alternate. The only module of this crate that reads a clock.
#![allow(
    clippy::disallowed_methods,
    reason = "measuring is what this module is for; nothing in the stack is driven by the clocks read here"
)]

use std::io;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::work::{Work, per};

/// A running clock: the wall time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts one.
    pub fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        // Cannot fail because 2^64 us are 580,000 years.
        self.start.elapsed().as_micros() as u64
    }

    /// Nanoseconds since the start.
    pub fn nanos(&self) -> u64 {
        // Cannot fail because 2^64 ns are 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Wall and CPU time since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    clock: Clock,
    process: f64,
    thread: f64,
}

/// What a [`Meter`] read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Wall time, seconds.
    pub wall_seconds: f64,
    /// CPU time of all threads of the process, seconds.
    pub process_cpu_seconds: f64,
    /// CPU time of the thread that asks (which must be the one that started the meter), seconds.
    pub thread_cpu_seconds: f64,
}

impl Meter {
    /// Starts measuring on the calling thread.
    pub fn start() -> Self {
        Meter { process: process_cpu_seconds(), thread: thread_cpu_seconds(), clock: Clock::start() }
    }

    /// Seconds of wall time so far.
    pub fn wall_seconds(&self) -> f64 {
        self.clock.seconds()
    }

    /// What was spent since the start.
    pub fn spent(&self) -> Spent {
        Spent {
            wall_seconds: self.clock.seconds(),
            process_cpu_seconds: process_cpu_seconds() - self.process,
            thread_cpu_seconds: thread_cpu_seconds() - self.thread,
        }
    }

    /// Ends the measurement as a [`Work`]: process CPU time, so that a stack with threads is charged for them.
    pub fn work(&self, operations: u64, bytes: u64) -> Work {
        let Spent { wall_seconds, process_cpu_seconds, thread_cpu_seconds: _ } = self.spent();
        Work { operations, wall_seconds, cpu_seconds: process_cpu_seconds, bytes }
    }
}

/// CPU time of the process, all threads, user and system, in seconds.
pub fn process_cpu_seconds() -> f64 {
    cpu_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of the calling thread, in seconds.
pub fn thread_cpu_seconds() -> f64 {
    cpu_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_clock(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec that outlives the call, which keeps no reference to it.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "Linux has had both CPU clocks since 2.6.12");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Page faults and context switches of the process so far; differences explain a slow round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Page faults served without reading a disk.
    pub minor_faults: i64,
    /// Page faults that read a disk.
    pub major_faults: i64,
    /// Times the process waited of its own accord.
    pub voluntary_switches: i64,
    /// Times another took the core.
    pub involuntary_switches: i64,
}

impl Usage {
    /// Reads it for the whole process.
    pub fn read() -> Self {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to a writable rusage that outlives the call.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        assert_eq!(result, 0, "RUSAGE_SELF and a valid address are all that getrusage asks for");
        // SAFETY: zeroed is a valid rusage (integers only), and the call filled it in.
        let usage = unsafe { usage.assume_init() };
        Usage {
            minor_faults: usage.ru_minflt,
            major_faults: usage.ru_majflt,
            voluntary_switches: usage.ru_nvcsw,
            involuntary_switches: usage.ru_nivcsw,
        }
    }

    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
            involuntary_switches: self.involuntary_switches - earlier.involuntary_switches,
        }
    }
}

/// Resident memory of the process, bytes, from `/proc/self/statm`.
///
/// # Errors
/// When the file cannot be read or does not begin with two numbers.
pub fn resident_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other(format!("unexpected /proc/self/statm: {statm:?}")))?;
    Ok(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf reads a constant; it takes no pointer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("cannot fail because every Linux has a page size")
}

/// Growth of resident memory since a moment.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMeter {
    start: u64,
}

impl MemoryMeter {
    /// Hands freed heap back to the system first (glibc), so that its reuse does not hide growth.
    ///
    /// # Errors
    /// As [`resident_bytes`].
    pub fn start() -> io::Result<Self> {
        trim_heap();
        Ok(MemoryMeter { start: resident_bytes()? })
    }

    /// Bytes more than at the start; 0 if less.
    ///
    /// # Errors
    /// As [`resident_bytes`].
    pub fn growth_bytes(&self) -> io::Result<u64> {
        Ok(resident_bytes()?.saturating_sub(self.start))
    }
}

fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Median, minimum and maximum of some samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `samples`; all zero when there is none.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Spread::default() };
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Spread { median, min, max }
    }
}

/// The rounds of two workloads that took turns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// One entry a round, in order: ours, the peer's.
    pub rounds: Vec<(Work, Work)>,
}

/// One figure drawn from both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairedFigure {
    /// Ours over the rounds.
    pub ours: Spread,
    /// The peer's over the rounds.
    pub peer: Spread,
    /// Ours over the peer's, taken round by round, so that what slows both cancels out.
    pub ratio: Spread,
}

/// Runs `ours` and `peer` in turn, `rounds` times (at least once): A B A B ...
pub fn alternate(rounds: usize, mut ours: impl FnMut() -> Work, mut peer: impl FnMut() -> Work) -> Paired {
    let mut paired = Paired { rounds: Vec::with_capacity(rounds.max(1)) };
    for _ in 0..rounds.max(1) {
        let first = ours();
        let second = peer();
        paired.rounds.push((first, second));
    }
    paired
}

/// Runs all `sides` in turn, `rounds` times (at least once): A B C A B C ... One list a side, one entry a round.
pub fn take_turns(rounds: usize, sides: &mut [impl FnMut() -> Work]) -> Vec<Vec<Work>> {
    let mut works = vec![Vec::with_capacity(rounds.max(1)); sides.len()];
    for _ in 0..rounds.max(1) {
        for (side, works) in sides.iter_mut().zip(&mut works) {
            works.push(side());
        }
    }
    works
}

impl Paired {
    /// Two sides of [`take_turns`], round by round.
    pub fn of(ours: &[Work], peer: &[Work]) -> Paired {
        Paired { rounds: ours.iter().copied().zip(peer.iter().copied()).collect() }
    }

    /// Draws `figure` (a rate, say) from every round.
    pub fn figure(&self, figure: impl Fn(&Work) -> f64) -> PairedFigure {
        let ours: Vec<f64> = self.rounds.iter().map(|(ours, _)| figure(ours)).collect();
        let peer: Vec<f64> = self.rounds.iter().map(|(_, peer)| figure(peer)).collect();
        let ratios: Vec<f64> = ours.iter().zip(&peer).map(|(&ours, &peer)| per(ours, peer)).collect();
        PairedFigure { ours: Spread::of(&ours), peer: Spread::of(&peer), ratio: Spread::of(&ratios) }
    }
}

/// Median, minimum and maximum of `figure` over `rounds` runs (at least one) of one workload without a peer.
pub fn repeat(rounds: usize, mut work: impl FnMut() -> Work, figure: impl Fn(&Work) -> f64) -> Spread {
    let samples: Vec<f64> = (0..rounds.max(1)).map(|_| figure(&work())).collect();
    Spread::of(&samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn work(operations: u64) -> Work {
        Work { operations, wall_seconds: 1.0, cpu_seconds: 1.0, bytes: 0 }
    }

    #[test]
    fn rounds_alternate_and_ratios_are_taken_round_by_round() {
        let order = RefCell::new(Vec::new());
        let mut speeds = [2, 4, 6].into_iter();
        let ours = || {
            order.borrow_mut().push('a');
            work(10 * speeds.next().unwrap())
        };
        let mut peer_speeds = [2, 4, 3].into_iter();
        let peer = || {
            order.borrow_mut().push('b');
            work(peer_speeds.next().unwrap())
        };
        let figure = alternate(3, ours, peer).figure(Work::rate_wall);
        assert_eq!(order.into_inner(), ['a', 'b', 'a', 'b', 'a', 'b']);
        assert_eq!(figure.ours, Spread { median: 40.0, min: 20.0, max: 60.0 });
        assert_eq!(figure.peer, Spread { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(figure.ratio, Spread { median: 10.0, min: 10.0, max: 20.0 });
    }

    #[test]
    fn any_number_of_sides_take_turns_and_any_two_make_a_pair() {
        let order = RefCell::new(Vec::new());
        let side = |name: u64| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                work(name * order.borrow().len() as u64)
            }
        };
        let works = take_turns(2, &mut [side(1), side(2), side(3)]);
        assert_eq!(*order.borrow(), [1, 2, 3, 1, 2, 3]);
        let figure = Paired::of(&works[2], &works[0]).figure(Work::rate_wall);
        assert_eq!((figure.ours.min, figure.ours.max), (9.0, 18.0));
        assert_eq!((figure.peer.min, figure.peer.max), (1.0, 4.0));
        assert_eq!((figure.ratio.min, figure.ratio.max), (4.5, 9.0));
    }

    #[test]
    fn no_rounds_still_run_once() {
        assert_eq!(take_turns(0, &mut [|| work(5)]), [[work(5)]]);
        let paired = alternate(0, || work(1), || work(2));
        assert_eq!(paired.rounds.len(), 1);
        assert_eq!(repeat(0, || work(7), Work::rate_cpu).median, 7.0);
    }

    #[test]
    fn spread_of_even_odd_and_no_samples() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn clocks_never_run_backward_and_work_burns_cpu() {
        let meter = Meter::start();
        let mut sum = 0u64;
        while meter.spent().thread_cpu_seconds < 0.002 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let spent = meter.spent();
        assert!(spent.wall_seconds > 0.0 && spent.process_cpu_seconds >= 0.002 - 1e-6, "{spent:?}");
        let work = meter.work(5, 6);
        assert_eq!((work.operations, work.bytes), (5, 6));
        assert!(work.cpu_seconds >= spent.process_cpu_seconds);
    }
}
