//! The thread that carries frames between two devices through a link each way.
//!
//! It reads all that waits, lets out what is due, and sleeps in `ppoll` until shortly before the next frame is due; the
//! rest it spins, so that a frame leaves within microseconds of its time. How late frames left is measured: a run on a
//! machine too busy for it can be told. No frame costs an allocation: buffers come from one pool.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use hoststack::net::{Device, DeviceCounters, DeviceQueue, Packet, PacketPool};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use super::link::{Link, LinkCounters, Shape};

/// Before a frame is due the thread no longer sleeps: longer than a sleep oversleeps on a virtual machine, mostly.
const SPIN_NS: u64 = 100_000;
/// The longest sleep: the thread looks whether it shall end.
const SLEEP_NS_MAX: u64 = 20_000_000;
/// Frames read from a device at a time.
const BURST: usize = 64;
/// Buffers to begin with: more than are on their way over 100 Mbit/s with 50 ms and as long a queue.
const BUFFERS: usize = 8192;
/// A frame that leaves later than this is counted as late.
const LATE_NS: u64 = 1_000_000;

/// The monotonic clock, in nanoseconds.
#[must_use]
pub fn nanos() -> u64 {
    nanos_by(ClockId::Monotonic)
}

/// CPU time of this process, in nanoseconds.
#[must_use]
pub fn process_cpu_nanos() -> u64 {
    nanos_by(ClockId::ProcessCPUTime)
}

fn nanos_by(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Cannot fail because these clocks count up from 0, and not for 500 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a pump did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pumped {
    /// The link from the first device to the second.
    pub forward: LinkCounters,
    /// The link back.
    pub backward: LinkCounters,
    /// The devices, first and second.
    pub devices: [DeviceCounters; 2],
    /// CPU time of the thread, in nanoseconds.
    pub cpu_ns: u64,
    /// How long it ran, in nanoseconds.
    pub ran_ns: u64,
    /// The most by which a frame left too late, in nanoseconds.
    pub late_ns_max: u64,
    /// Frames (or bursts of them) that left more than a millisecond late.
    pub late_bursts: u64,
}

/// A running pump. It ends when dropped.
#[derive(Debug)]
pub struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Pumped>>,
}

impl Pump {
    /// Starts one between two devices.
    ///
    /// # Panics
    /// When the system refuses a thread or a file descriptor.
    #[must_use]
    pub fn start(first: impl Device + 'static, second: impl Device + 'static, shapes: [Shape; 2]) -> Pump {
        let devices: [Box<dyn Device>; 2] = [Box::new(first), Box::new(second)];
        let ends = devices.map(End::new);
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = Builder::new().name("relay".into()).spawn(move || run(ends, shapes, &told));
        Pump { stop, thread: Some(thread.expect("the system has a thread for us")) }
    }

    /// Ends it, and tells what it did.
    ///
    /// # Panics
    /// When the thread has.
    #[must_use]
    pub fn stop(mut self) -> Pumped {
        self.join().expect("it has not been stopped before")
    }

    fn join(&mut self) -> Option<Pumped> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("the relay did not panic"))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.join();
        } else {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// A device with what `ppoll` waits for.
struct End {
    queue: Box<dyn DeviceQueue>,
    ready: OwnedFd,
}

impl End {
    fn new(device: Box<dyn Device>) -> End {
        let queue = device.into_queues(1).expect("a device has one queue").remove(0);
        let fd = queue.wait_fd().expect("a TAP is a file");
        // A descriptor of our own for the queue's file, which lends only its number.
        let me = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process exists");
        let ready = pidfd_getfd(&me, fd, PidfdGetfdFlags::empty()).expect("the queue has it open");
        End { queue, ready }
    }
}

fn run(mut ends: [End; 2], shapes: [Shape; 2], stop: &AtomicBool) -> Pumped {
    // Both are wishes: without them it is less precise, which the lateness tells.
    let _ = rustix::process::setpriority_process(None, -20);
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let mut pool = PacketPool::default();
    pool.fill(BUFFERS);
    let mut links = shapes.map(|shape| Link::new(shape, BUFFERS));
    let mut arrived: Vec<Packet> = Vec::with_capacity(BURST);
    let mut leaving: [Vec<Packet>; 2] = [Vec::with_capacity(BUFFERS), Vec::with_capacity(BUFFERS)];
    let mut pumped = Pumped::default();
    let began = nanos();
    loop {
        let now = nanos();
        let mut worked = false;
        for (end, link) in ends.iter_mut().zip(&mut links) {
            worked |= end.queue.receive(now / 1000, &mut pool, &mut arrived, BURST) > 0;
            arrived.drain(..).for_each(|packet| link.offer(now, packet, &mut pool));
        }
        let [first, second] = &mut ends;
        for ((link, end), leaving) in links.iter_mut().zip([second, first]).zip(&mut leaving) {
            let late = link.take_arrived(now, leaving);
            pumped.late_ns_max = pumped.late_ns_max.max(late);
            pumped.late_bursts += u64::from(late > LATE_NS);
            if !leaving.is_empty() {
                worked |= end.queue.transmit(now / 1000, &mut pool, leaving) > 0;
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if worked {
            continue;
        }
        let next = links.iter().filter_map(Link::next_ns).min();
        let sleep = next.map_or(SLEEP_NS_MAX, |next| next.saturating_sub(now).min(SLEEP_NS_MAX));
        if sleep <= SPIN_NS {
            std::hint::spin_loop();
            continue;
        }
        // Cannot wrap because it is below SLEEP_NS_MAX.
        let timeout = Timespec { tv_sec: 0, tv_nsec: (sleep - SPIN_NS) as i64 };
        let mut fds = [&ends[0].ready, &ends[1].ready].map(|fd| PollFd::new(fd, PollFlags::IN));
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
    }
    Pumped {
        forward: links[0].counters(),
        backward: links[1].counters(),
        devices: ends.map(|end| end.queue.counters()),
        cpu_ns: nanos_by(ClockId::ThreadCPUTime),
        ran_ns: nanos() - began,
        ..pumped
    }
}
