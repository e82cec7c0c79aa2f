//! One bulk transfer over a [`Path`]: a sender that never runs out, and a receiver that reads all there is.
//!
//! The receiver is a kernel socket, whoever sends; it counts from its first byte on. Its reset ends the transfer.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::Builder;
use std::time::Duration;

use hoststack::app::{
    Algorithm, AppWorker, Application, AttachOptions, ConnectFailure, ConnectId, ConnectOptions, Context,
    SessionHandle, SessionOptions, SocketOptions, WorkerId,
};
use hoststack::{Query, SessionLimits, Stack, StackConfig};
use rustix::net::sockopt::{set_socket_linger, set_tcp_congestion, tcp_congestion};
use rustix::net::{AddressFamily, SocketType, socket};

use super::path::{FAR, Path};
use super::pump::{nanos, process_cpu_nanos};
use crate::peers::sockets;
use crate::wait;

/// Where the receiver listens.
const PORT: u16 = 5001;
/// Bytes of a read or a write.
const BLOCK: usize = 256 * 1024;
/// What `hoststack` may have queued and unacknowledged: more than link and queue hold.
const TX_CAPACITY: u32 = 16 << 20;
/// A receiver that gets nothing for so long gives the run up.
const STALL: Duration = Duration::from_secs(30);

/// Who sends, and with which congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The kernel, with the congestion control that it calls so.
    Kernel(&'static str),
    /// `hoststack`.
    Ours(Algorithm),
}

/// What a transfer came to.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// Bits of the stream in a second, read after the warm-up.
    pub goodput: f64,
    /// The same over the whole run, from the first byte on.
    pub goodput_whole: f64,
    /// CPU time of the sender's own threads over the run's time. What a kernel does for a sender on frames that arrive is
    /// done by the relay's thread, so compare this between stacks with care.
    pub sender_cpu: f64,
    /// CPU time of the process over the run's time: both ends and the link.
    pub process_cpu: f64,
    /// What the sender's transport says of its connection at the end.
    pub sender_says: String,
}

/// Counts bytes against the clock of their reading.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    first_ns: u64,
    bytes: u64,
    /// Time and bytes when the warm-up was over.
    warm: Option<(u64, u64)>,
    last_ns: u64,
}

impl Meter {
    /// `bytes` were read at `now_ns`.
    fn read(&mut self, now_ns: u64, bytes: usize, warm_up: Duration) {
        if self.bytes == 0 {
            self.first_ns = now_ns;
        }
        self.bytes += bytes as u64;
        self.last_ns = now_ns;
        if self.warm.is_none() && self.ran(now_ns) >= warm_up {
            self.warm = Some((now_ns, self.bytes));
        }
    }

    /// Since the first byte.
    fn ran(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(if self.bytes == 0 { 0 } else { now_ns - self.first_ns })
    }

    /// Bits in a second: after the warm-up, and over all.
    fn goodputs(&self) -> (f64, f64) {
        let rate = |from_ns, bytes: u64| {
            let seconds = Duration::from_nanos(self.last_ns - from_ns).as_secs_f64();
            if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 }
        };
        let warm = self.warm.map_or(0.0, |(at, bytes)| rate(at, self.bytes - bytes));
        (warm, rate(self.first_ns, self.bytes))
    }
}

/// Sends over `path` for so long, of which `warm_up` is not counted.
///
/// # Errors
/// A sentence: what went wrong.
pub fn transfer(
    path: &Path,
    sender: Sender,
    length: Duration,
    warm_up: Duration,
) -> Result<Transfer, String> {
    let listener = sockets::listen(&path.far, SocketAddr::new(FAR, PORT));
    let (told, meter) = mpsc::channel();
    let receiver = Builder::new().name("receiver".into()).spawn(move || {
        // A run that gave up does not listen any more.
        let _ = told.send(receive(&listener, length, warm_up));
    });
    let receiver = receiver.map_err(|error| error.to_string())?;
    let (began, cpu) = (nanos(), process_cpu_nanos());
    let (says, sender_cpu_ns) = match sender {
        Sender::Kernel(algorithm) => send_by_kernel(path, algorithm, length)?,
        Sender::Ours(algorithm) => send_by_us(path, algorithm, length)?,
    };
    let ran = (nanos() - began) as f64;
    let process_cpu = (process_cpu_nanos() - cpu) as f64 / ran;
    let meter = meter.recv().map_err(|_| "the receiver ended without a word".to_owned())?;
    receiver.join().map_err(|_| "the receiver panicked".to_owned())?;
    let (goodput, goodput_whole) = meter?.goodputs();
    let sender_cpu = sender_cpu_ns as f64 / ran;
    Ok(Transfer { goodput, goodput_whole, sender_cpu, process_cpu, sender_says: says })
}

fn receive(listener: &TcpListener, length: Duration, warm_up: Duration) -> Result<Meter, String> {
    let mut stream = sockets::accept(listener);
    stream.set_read_timeout(Some(STALL)).map_err(|error| error.to_string())?;
    let mut block = vec![0; BLOCK];
    let mut meter = Meter::default();
    while meter.ran(nanos()) < length {
        match stream.read(&mut block) {
            Ok(0) => return Err(format!("the stream ended after {} bytes", meter.bytes)),
            Ok(count) => meter.read(nanos(), count, warm_up),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("after {} bytes: {error}", meter.bytes)),
        }
    }
    sockets::reset(stream);
    Ok(meter)
}

/// Sends until the receiver resets; tells what `ss` said shortly before, and the thread's CPU time.
fn send_by_kernel(path: &Path, algorithm: &'static str, length: Duration) -> Result<(String, u64), String> {
    let connected = path.near.enter(|| -> Result<TcpStream, String> {
        let text = |error: rustix::io::Errno| format!("{algorithm}: {error}");
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).map_err(text)?;
        set_tcp_congestion(&socket, algorithm).map_err(text)?;
        rustix::net::connect(&socket, &SocketAddr::new(FAR, PORT)).map_err(text)?;
        let in_use = tcp_congestion(&socket).map_err(text)?;
        if in_use != algorithm {
            return Err(format!("the kernel took {in_use} for {algorithm}"));
        }
        Ok(TcpStream::from(socket))
    });
    let stream = connected?;
    // The end of the run is a reset; nobody lingers.
    set_socket_linger(&stream, Some(Duration::ZERO)).map_err(|error| error.to_string())?;
    let sending = Builder::new().name("sender".into()).spawn(move || {
        let block = vec![0; BLOCK];
        let mut stream = stream;
        let error = loop {
            if let Err(error) = stream.write_all(&block) {
                break error;
            }
        };
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        // Cannot wrap because CPU time counts up from 0.
        (error.kind(), cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64)
    });
    let sending = sending.map_err(|error| error.to_string())?;
    let says = last_words(
        length,
        || sending.is_finished(),
        || {
            let table = path.near.run("ss", &["-tinH", "dst", &FAR.to_string()]);
            table.lines().map(str::trim).collect::<Vec<_>>().join(" ")
        },
    );
    let (end, cpu) = sending.join().map_err(|_| "the sender panicked".to_owned())?;
    match end {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok((says, cpu)),
        other => Err(format!("the sender ended with {other}")),
    }
}

/// Waits until `done`, asks shortly before the end of the run, and returns the answer.
fn last_words(length: Duration, done: impl Fn() -> bool, ask: impl Fn() -> String) -> String {
    let watch = wait::Stopwatch::start();
    let early = length.mul_f64(0.9);
    let _ = wait::poll(early, || done().then_some(()));
    let says = ask();
    let _ = wait::poll((length + STALL).saturating_sub(watch.elapsed()), || done().then_some(()));
    says
}

/// Sends until the receiver resets; tells what the stack said shortly before, and its threads' CPU time.
fn send_by_us(path: &Path, algorithm: Algorithm, length: Duration) -> Result<(String, u64), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut config = StackConfig {
        sessions: SessionLimits { sessions: 16, ..SessionLimits::default() },
        // The cores belong to the link first.
        spin: hoststack::app::Duration::ZERO,
        pin: false,
        ..StackConfig::default()
    };
    config.tcp.connections_max = 16;
    let stack = Stack::builder().config(config).interface(path.interface()).start().map_err(|e| text(&e))?;
    let handle = stack.handle();
    let (told, ended) = mpsc::channel();
    let app = Bulk { told };
    let attached = handle.attach(app, AttachOptions::named("bulk")).map_err(|e| text(&e))?;
    let options = ConnectOptions {
        fifos: SessionOptions { tx_capacity: TX_CAPACITY, ..SessionOptions::default() },
        socket: SocketOptions { congestion: algorithm, ..SocketOptions::default() },
        ..ConnectOptions::to(SocketAddr::new(FAR, PORT))
    };
    let unit = attached.app_workers.first().copied().ok_or("no app worker")?;
    handle.connect(unit, options).map_err(|e| text(&e))?;
    let end = std::cell::OnceCell::new();
    let done = || match ended.try_recv() {
        Ok(reason) => end.set(reason).is_ok(),
        Err(_) => end.get().is_some(),
    };
    let says = last_words(length, done, || {
        let answer = handle.inspect(Query::sessions(1, true));
        answer
            .ok()
            .and_then(|answer| answer.sessions.into_iter().next())
            .map_or(String::new(), |session| session.variables())
    });
    let cpu = threads_cpu_nanos("hoststack-");
    match end.into_inner() {
        Some(Ok(())) => Ok((says, cpu)),
        Some(Err(failure)) => Err(format!("connect: {failure}")),
        None => Err("the sender's session did not end".to_owned()),
    }
}

/// The app that writes without end, and tells how that ended.
struct Bulk {
    told: mpsc::Sender<Result<(), ConnectFailure>>,
}

impl Application for Bulk {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(BulkWorker { told: self.told.clone(), block: vec![0; BLOCK] })
    }
}

struct BulkWorker {
    told: mpsc::Sender<Result<(), ConnectFailure>>,
    block: Vec<u8>,
}

impl BulkWorker {
    fn fill(&self, ctx: &mut Context<'_>, session: SessionHandle) {
        while ctx.write(session, &self.block) == self.block.len() {}
    }
}

impl AppWorker for BulkWorker {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(session) => self.fill(ctx, session),
            // Nobody listens once the run was given up.
            Err(failure) => {
                let _ = self.told.send(Err(failure));
            }
        }
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.fill(ctx, session);
    }

    fn closed(
        &mut self,
        _ctx: &mut Context<'_>,
        _session: SessionHandle,
        _opaque: u64,
        _reason: hoststack::app::CloseReason,
    ) {
        let _ = self.told.send(Ok(()));
    }
}

/// CPU time of this process's threads whose names begin so, from the scheduler's statistics.
fn threads_cpu_nanos(prefix: &str) -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let cpu = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns = stat.split_whitespace().next()?.parse::<u64>().ok()?;
        name.starts_with(prefix).then_some(ns)
    };
    tasks.filter_map(Result::ok).filter_map(cpu).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_counts_from_the_first_byte_and_apart_after_the_warm_up() {
        let mut meter = Meter::default();
        let second = 1_000_000_000;
        let warm_up = Duration::from_secs(1);
        assert_eq!(meter.ran(5 * second), Duration::ZERO);
        meter.read(10 * second, 1000, warm_up);
        meter.read(11 * second, 1000, warm_up);
        meter.read(13 * second, 4000, warm_up);
        assert_eq!(meter.goodputs(), (16_000.0, 16_000.0));
        assert_eq!(meter.ran(14 * second), Duration::from_secs(4));
        let mut slow_start = Meter::default();
        slow_start.read(second, 1, warm_up);
        slow_start.read(2 * second, 125, warm_up);
        slow_start.read(3 * second, 875, warm_up);
        assert_eq!(slow_start.goodputs(), (7000.0, 1001.0 * 4.0));
    }

    #[test]
    fn cpu_time_is_that_of_the_threads_of_a_name() {
        let spent = Builder::new().name("busy-here".into()).spawn(|| {
            let until = rustix::time::ClockId::ThreadCPUTime;
            while rustix::time::clock_gettime(until).tv_nsec < 5_000_000 {}
            (threads_cpu_nanos("busy-here"), threads_cpu_nanos("busy-there"))
        });
        let (here, there) = spent.unwrap().join().unwrap();
        assert!(here > 0 && there == 0, "{here} {there}");
    }
}
