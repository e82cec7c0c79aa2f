//! A run: a namespace, a stack on its TAP behind a bad link, and both ends of all connections, on one thread.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hoststack::app::{AttachOptions, ConnectOptions, DetachPolicy, ListenOptions, WorkerId};
use hoststack::net::{Capture, Cidr, PcapOptions, PcapWriter, Tap as OpenTap, TapConfig, capture};
use hoststack::{InterfaceSpec, Leaks, Query, SessionLimits, SingleThreaded, Stack, StackConfig};
use parking_lot::Mutex;

use super::actor::{Actor, Ended};
use super::kernel::KernelEnd;
use super::ours::{Ends, OurApp, OurEnd, fifos, socket};
use super::plan::{Opener, WorldPlan};
use super::verdict::{Grounds, KernelCounters, judge_connection, judge_drops, judge_kernel};
use super::wire::TwoWay;
use crate::netns::Namespace;
use crate::tap::{Queues, Tap};
use crate::wait::Stopwatch;

/// A world that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// An end whose peer is over and that moves no byte for so long never will: the reset was lost.
const ORPHANED: Duration = Duration::from_secs(6);
/// The same for a connection of ours that we reset and that the kernel's app has not accepted: it is none any more.
const UNACCEPTED: Duration = Duration::from_secs(2);
/// How long the stack may hold something after the detach: until a lost last acknowledgment came again.
const SETTLE: hoststack::app::Duration = hoststack::app::Duration::from_secs(10);
/// How often the kernel's sockets are looked at.
const LOOK: hoststack::app::Duration = hoststack::app::Duration::from_millis(1);

const DEVICE: &str = "hs0";
const OUR_PORTS: u16 = 8000;
const KERNEL_PORTS: u16 = 7000;

/// What a world came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its plan.
    pub plan: WorldPlan,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
    /// Bytes read at both ends.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// The kernel's counters.
    pub kernel: KernelCounters,
    /// Our drops by reason.
    pub drops: Vec<(String, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorldPlan { seed, is_ipv6, mtu, links, connections } = &self.plan;
        writeln!(f, "differential seed {seed}: IPv{} mtu {mtu}, {links:?}", if *is_ipv6 { 6 } else { 4 })?;
        for (number, connection) in connections.iter().enumerate() {
            writeln!(f, "  connection {number}: {connection:?}")?;
        }
        writeln!(f, "  kernel: {}\n  our drops: {:?}", self.kernel.text(), self.drops)?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "  WRONG: {wrong}"))?;
        write!(
            f,
            "again: cargo run --release -p hoststack-tests --bin differential -- --seed {seed} --worlds 1"
        )
    }
}

/// Runs a world; with a capture, of what the kernel sends and is sent, if there is a file for it.
///
/// # Errors
/// A sentence, if it could not be set up.
pub fn run(plan: &WorldPlan, pcap: Option<&Path>) -> Result<Report, String> {
    let namespace = Namespace::new();
    let tap = Tap::create(&namespace, DEVICE, Queues::Single).with_mtu(plan.mtu);
    let tap = tap.with_address(&format!("{}/{}", kernel_address(plan), prefix(plan)));
    // Connections of a world know nothing of each other.
    namespace.sysctl("ipv4/tcp_no_metrics_save", "1");
    namespace.enter(|| World::new(plan, &tap, pcap)?.play())
}

fn prefix(plan: &WorldPlan) -> u8 {
    if plan.is_ipv6 { 64 } else { 24 }
}

fn kernel_address(plan: &WorldPlan) -> IpAddr {
    if plan.is_ipv6 { IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, 1]) } else { IpAddr::from([10, 9, 0, 1]) }
}

fn our_address(plan: &WorldPlan) -> IpAddr {
    if plan.is_ipv6 { IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, 2]) } else { IpAddr::from([10, 9, 0, 2]) }
}

struct World<'p> {
    plan: &'p WorldPlan,
    stack: SingleThreaded,
    app: hoststack::Attached,
    ours: Ends,
    /// `None` until the kernel's end is opened.
    kernel: Vec<Option<KernelEnd>>,
    /// For each connection: bytes moved, and since when that is so.
    moved: Vec<(u64, Duration)>,
    /// Whether our end's connect was made.
    started: Vec<bool>,
    watch: Stopwatch,
}

impl<'p> World<'p> {
    /// Call it inside the namespace.
    fn new(plan: &'p WorldPlan, tap: &Tap<'_>, pcap: Option<&Path>) -> Result<World<'p>, String> {
        let text = |error: &dyn fmt::Display| error.to_string();
        let config = TapConfig { name: DEVICE.to_owned(), ..TapConfig::default() };
        let capturing = Capture::new();
        if let Some(path) = pcap {
            let writer = PcapWriter::create(path, PcapOptions::default()).map_err(|e| text(&e))?;
            capturing.start(writer).map_err(|e| text(&e))?;
        }
        let device = OpenTap::open(&config).map_err(|e| text(&e))?;
        let device = TwoWay::new(capture(Box::new(device), &capturing), plan.links);
        let address = Cidr::new(our_address(plan), prefix(plan)).map_err(|e| text(&e))?;
        let mut config = StackConfig {
            seed: Some(plan.seed),
            sessions: SessionLimits { sessions: 256, chunks: 1 << 14, ..SessionLimits::default() },
            ..StackConfig::default()
        };
        config.tcp.connections_max = 256;
        let builder = Stack::builder().config(config).interface(InterfaceSpec::new(device).address(address));
        let mut stack = Stack::single_threaded(builder).map_err(|e| text(&e))?;
        tap.wait_attached();
        let ends = plan.connections.iter().map(|c| OurEnd::new(Actor::new(&c.ours, &c.kernel))).collect();
        let ours: Ends = Arc::new(Mutex::new(ends));
        let app = stack
            .attach(OurApp { ends: ours.clone() }, AttachOptions::named("actors"))
            .map_err(|e| text(&e))?;
        let count = plan.connections.len();
        Ok(World {
            plan,
            stack,
            app,
            ours,
            kernel: (0..count).map(|_| None).collect(),
            moved: vec![(0, Duration::ZERO); count],
            started: vec![false; count],
            watch: Stopwatch::start(),
        })
    }

    /// Runs all connections to their ends, and judges.
    fn play(mut self) -> Result<Report, String> {
        self.listen()?;
        let mut wrong = Vec::new();
        loop {
            self.start()?;
            let has_worked = self.turn();
            if self.is_over() && held_by_kernel() == 0 && self.ours.lock().iter().all(is_closed) {
                break;
            }
            if self.watch.elapsed() > LIMIT {
                wrong.push(format!("hangs after {LIMIT:?}: {}", self.states()));
                break;
            }
            if !has_worked {
                self.stack.idle_wait(LOOK);
            }
        }
        let counters = KernelCounters::parse(&proc_net("snmp"), &proc_net("netstat"));
        let is_lossy = self.plan.links.iter().any(|link| link.loss > 0.0);
        let mut bytes = 0;
        for (number, connection) in self.plan.connections.iter().enumerate() {
            let ours = &self.ours.lock()[number];
            let Some(kernel) = &self.kernel[number] else { continue };
            bytes += ours.actor.counts().1 + kernel.actor.counts().1;
            let of = judge_connection(connection, ours, kernel, is_lossy);
            wrong.extend(of.into_iter().map(|what| format!("connection {number}: {what}")));
        }
        let Left { drops, leaks, counters: ours } = self.detach()?;
        let of_ours = |name: &str| ours.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count);
        // What a link repeats, or an end sends again, may come to an end that is over.
        let is_repeated =
            of_ours("retransmitted_segments") > 0 || counters.of("RetransSegs") > 0 || self.plan.repeats();
        let grounds = Grounds { aborts: self.plan.aborts(), is_repeated, probes: of_ours("probes_out") };
        wrong.extend(judge_kernel(&counters, grounds));
        wrong.extend(judge_drops(drops.iter().map(|(name, count)| (name.as_str(), *count)), grounds));
        if !leaks.is_clean() {
            wrong.push(format!("left behind: {leaks:?}"));
        }
        Ok(Report {
            plan: self.plan.clone(),
            wrong,
            bytes,
            took: self.watch.elapsed(),
            kernel: counters,
            drops,
        })
    }

    /// All listeners, both ends'.
    fn listen(&mut self) -> Result<(), String> {
        let unit = self.unit()?;
        for (number, connection) in (0u16..).zip(&self.plan.connections) {
            match connection.opener {
                Opener::Kernel => {
                    let at = SocketAddr::new(our_address(self.plan), OUR_PORTS + number);
                    let options = ListenOptions {
                        opaque: u64::from(number),
                        fifos: fifos(connection),
                        socket: socket(connection),
                        ..ListenOptions::on(at)
                    };
                    self.stack.listen(unit, options).map_err(|error| format!("listen on {at}: {error}"))?;
                }
                Opener::Ours => {
                    let at = SocketAddr::new(kernel_address(self.plan), KERNEL_PORTS + number);
                    let actor = Actor::new(&connection.kernel, &connection.ours);
                    let end = KernelEnd::listening(at, &connection.kernel, actor)?;
                    self.kernel[usize::from(number)] = Some(end);
                }
            }
        }
        Ok(())
    }

    fn unit(&self) -> Result<hoststack::app::AppWorkerId, String> {
        self.app.app_workers.first().copied().ok_or_else(|| "no app worker".to_owned())
    }

    /// Opens what is due.
    fn start(&mut self) -> Result<(), String> {
        let now = self.watch.elapsed();
        let unit = self.unit()?;
        for (number, connection) in (0u16..).zip(&self.plan.connections) {
            let index = usize::from(number);
            if self.started[index] || now < Duration::from_millis(u64::from(connection.starts_ms)) {
                continue;
            }
            self.started[index] = true;
            match connection.opener {
                Opener::Ours => {
                    let to = SocketAddr::new(kernel_address(self.plan), KERNEL_PORTS + number);
                    let options = ConnectOptions {
                        opaque: u64::from(number),
                        fifos: fifos(connection),
                        socket: socket(connection),
                        timeout: hoststack::app::Duration::from_secs(120),
                        ..ConnectOptions::to(to)
                    };
                    self.stack.connect(unit, options).map_err(|error| format!("connect to {to}: {error}"))?;
                }
                Opener::Kernel => {
                    let to = SocketAddr::new(our_address(self.plan), OUR_PORTS + number);
                    let actor = Actor::new(&connection.kernel, &connection.ours);
                    self.kernel[index] = Some(KernelEnd::connecting(to, &connection.kernel, actor)?);
                }
            }
        }
        Ok(())
    }

    /// A step of the stack and a look at each socket; whether anything was done.
    fn turn(&mut self) -> bool {
        let mut has_worked = self.stack.step().worked;
        self.stack.check_consistency();
        let now = self.watch.elapsed();
        // Cannot truncate: a world ends after minutes.
        let now_us = now.as_micros() as u64;
        for kernel in self.kernel.iter_mut().flatten() {
            has_worked |= kernel.act(now_us);
        }
        self.orphan(now);
        has_worked
    }

    /// Ends those whose peer is over and that will never hear of it.
    fn orphan(&mut self, now: Duration) {
        let is_over = |actor: &Actor| !matches!(actor.ended(), None | Some(Ended::Orderly));
        for (number, kernel) in self.kernel.iter_mut().enumerate() {
            let Some(kernel) = kernel else { continue };
            let ours = &self.ours.lock()[number];
            let of = |(sent, got)| sent + got;
            let moved = of(ours.actor.counts()) + of(kernel.actor.counts());
            let (before, since) = &mut self.moved[number];
            if moved != *before {
                (*before, *since) = (moved, now);
            }
            let limit = if kernel.is_unaccepted() { UNACCEPTED } else { ORPHANED };
            if now - *since < limit {
                continue;
            }
            if is_over(&ours.actor) && kernel.actor.ended().is_none() {
                kernel.orphan();
            }
            if is_over(&kernel.actor)
                && ours.actor.ended().is_none()
                && let Some(unit) = self.app.app_workers.first()
            {
                // The stack is here: it cannot have stopped.
                let _ = self.stack.notify(*unit, WorkerId(0), Box::new(number as u64));
            }
        }
    }

    fn is_over(&self) -> bool {
        let kernel = |end: &Option<KernelEnd>| end.as_ref().is_some_and(|end| end.actor.ended().is_some());
        self.kernel.iter().all(kernel) && self.ours.lock().iter().all(|end| end.actor.ended().is_some())
    }

    /// Where every end that is not over stands, for a report.
    fn states(&mut self) -> String {
        let mut text = String::new();
        for (number, end) in self.ours.lock().iter().enumerate() {
            let kernel =
                self.kernel[number].as_ref().map(|end| (end.actor.counts(), end.actor.ended().cloned()));
            let counts = end.actor.counts();
            text += &format!(
                "\n    {number}: ours {counts:?} {:?} {:?}, kernel {kernel:?}",
                end.actor.ended(),
                end.closed
            );
        }
        if let Ok(answer) = self.stack.inspect(Query::sessions(64, true)) {
            for session in answer.sessions {
                text += &format!("\n    {} {}: {}", session.flow, session.state(), session.variables());
            }
        }
        let ss = std::process::Command::new("ss").args(["-tinaoe"]).output();
        text + "\n" + &ss.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Detaches the app; what the stack has to say once nothing is under way.
    fn detach(&mut self) -> Result<Left, String> {
        let text = |error: &dyn fmt::Display| error.to_string();
        self.stack.detach(self.app.app, DetachPolicy::Reset).map_err(|e| text(&e))?;
        let began = self.stack.now();
        loop {
            let answer = self.stack.inspect(Query::Summary).map_err(|e| text(&e))?;
            if answer.leaks.is_clean() || self.stack.now() - began > SETTLE {
                let drops = answer.workers.iter().flat_map(|worker| &worker.drops);
                let drops = drops.map(|drop| (drop.reason.clone(), drop.count)).collect();
                let counters = answer.workers.into_iter().flat_map(|worker| worker.tcp).collect();
                return Ok(Left { drops, leaks: answer.leaks, counters });
            }
            self.stack.idle_wait(LOOK);
        }
    }
}

/// What a stack says when its app is gone.
struct Left {
    /// Drops by reason.
    drops: Vec<(String, u64)>,
    leaks: Leaks,
    /// TCP's counters by name.
    counters: Vec<(String, u64)>,
}

/// Whether our end's session, if it had one, is gone.
fn is_closed(end: &OurEnd) -> bool {
    end.session.is_none()
}

fn proc_net(name: &str) -> String {
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
}

/// Sockets of this namespace's kernel that hold a connection: not those that listen or are in TIME-WAIT.
fn held_by_kernel() -> usize {
    let is_held = |line: &&str| !matches!(line.split_whitespace().nth(3), Some("06" | "0A") | None);
    let count = |table: &str| table.lines().skip(1).filter(is_held).count();
    count(&proc_net("tcp")) + count(&proc_net("tcp6"))
}
