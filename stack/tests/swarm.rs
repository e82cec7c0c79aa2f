//! Apps that do anything at any time, over links that do anything, with limits drawn from the seed: the invariants of
//! the design hold after every step, and nothing is left in the end. `SWARM_SEEDS=from..to` runs other seeds.

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, LinkState, MemoryWireConfig, impair, memory_wire};
use hoststack::tcp::{SynCookies, TcpConfig};
use hoststack::{Attached, EndHow, SessionLimits, SingleThreaded, StackConfig};
use hoststack_transport::Rng;
use hoststack_wire::MacAddr;
use parking_lot::Mutex;

#[derive(Clone)]
struct Dice(Arc<Mutex<Rng>>);

impl Dice {
    fn below(&self, end: u64) -> u64 {
        self.0.lock().u64() % end
    }

    fn one_of(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn share(&self, choices: &[f64]) -> f64 {
        self.pick(choices)
    }
}

/// How wild the apps of a run are: one in so many callbacks does the thing.
#[derive(Clone, Copy, Debug)]
struct Temper {
    reset: u64,
    close: u64,
    connect: u64,
    detach: u64,
    panic: u64,
}

struct World {
    stack: SingleThreaded,
    dice: Dice,
    temper: Temper,
    links: Vec<Arc<hoststack::net::ImpairmentCounters>>,
    apps: Vec<(Attached, Log)>,
}

fn connect_options(dice: &Dice) -> ConnectOptions {
    let family = FAMILIES[dice.below(2) as usize];
    let domain = dice.pick(&[CLIENT, CLIENT, SERVER]);
    let port = dice.pick(&[80, 80, 80, 80, 81, 81, 82, 83]);
    let remote = match dice.below(20) {
        0 if dice.one_of(4) => family.nowhere(),
        1 if dice.one_of(4) => family.nobody(),
        _ if domain == CLIENT => family.server(port),
        _ => std::net::SocketAddr::new(family.client_addr(), port),
    };
    ConnectOptions {
        domain,
        opaque: dice.below(1000),
        timeout: Duration::from_micros(
            1 + dice.below(dice.pick(&[3_000, 3_000_000, 60_000_000, 60_000_000])),
        ),
        local_port: if dice.one_of(10) { 5000 + dice.below(3) as u16 } else { 0 },
        fifos: SessionOptions {
            rx_capacity: dice.pick(&[1, 100, 5_000, 65_535, 300_000]),
            tx_capacity: dice.pick(&[1, 100, 5_000, 65_535, 300_000]),
            ..SessionOptions::default()
        },
        socket: SocketOptions {
            nodelay: dice.one_of(2),
            fast_open: dice.one_of(2),
            syn_retries: dice.pick(&[None, None, Some(0), Some(2)]),
            ..SocketOptions::DEFAULT
        },
        ..ConnectOptions::to(remote)
    }
}

/// Mostly none.
fn early_data(dice: &Dice, options: &ConnectOptions) -> Vec<u8> {
    let most = u64::from(options.fifos.tx_capacity.min(EARLY_DATA_MAX as u32));
    vec![7; if dice.one_of(2) { 0 } else { dice.below(most + 1) as usize }]
}

fn listen_options(dice: &Dice) -> ListenOptions {
    let (domain, family) = (dice.pick(&[CLIENT, SERVER]), FAMILIES[dice.below(2) as usize]);
    let port = dice.pick(&[80, 80, 81, 82]);
    let local = if domain == SERVER {
        family.server(port)
    } else {
        std::net::SocketAddr::new(family.client_addr(), port)
    };
    ListenOptions {
        domain,
        backlog: dice.pick(&[1, 3, 100]),
        fifos: SessionOptions {
            rx_capacity: dice.pick(&[1, 100, 5_000, 65_535]),
            tx_capacity: dice.pick(&[1, 100, 5_000, 65_535]),
            ..SessionOptions::default()
        },
        socket: SocketOptions { fast_open: dice.one_of(2), ..SocketOptions::DEFAULT },
        ..ListenOptions::on(local)
    }
}

/// Connects that an app makes in callbacks, at most: each may lead to several callbacks, without end on a link that
/// takes no time.
const CONNECTS_MAX: u64 = 300;

/// What an app knows.
#[derive(Default)]
struct Mind {
    known: Mutex<Vec<SessionHandle>>,
    connects: Counter,
}

fn behave(ctx: &mut Context<'_>, event: &Event, dice: &Dice, temper: Temper, mind: &Mind) {
    let known = &mind.known;
    assert!(temper.panic == 0 || !dice.one_of(temper.panic), "a panic from the dice");
    if let Event::Accepted(session) | Event::Connected(_, _, Ok(session)) = *event {
        known.lock().push(session);
    }
    let connects = matches!(event, Event::Attached) || dice.one_of(temper.connect);
    let options = connect_options(dice);
    if connects
        && mind.connects.add(1) < CONNECTS_MAX
        && let Ok(connect) = ctx.connect_with(options.clone(), &early_data(dice, &options))
        && dice.one_of(5)
    {
        ctx.cancel(connect);
    }
    if dice.one_of(50) {
        let _ = ctx.listen(listen_options(dice));
    }
    if dice.one_of(10) {
        ctx.set_timer(dice.below(5), Duration::from_micros(dice.below(200_000)));
    }
    if temper.detach > 0 && dice.one_of(temper.detach) {
        ctx.detach(dice.pick(&[DetachPolicy::Reset, DetachPolicy::default()]));
    }
    // Mostly the session of the event, at times any that was ever seen.
    let session = match *event {
        _ if dice.one_of(10) && !known.lock().is_empty() => {
            let known = known.lock();
            dice.pick(&known)
        }
        Event::Accepted(s) | Event::Connected(_, _, Ok(s)) | Event::Readable(s) | Event::Writable(s) => s,
        Event::PeerClosed(s) | Event::Reset(s, _) | Event::Closed(s, _, _) => s,
        _ => return,
    };
    for _ in 0..1 + dice.below(3) {
        match dice.below(9) {
            0 => {
                ctx.write(session, &vec![7; dice.below(20_000) as usize]);
            }
            1 => {
                let count = ctx.reserve(session, dice.below(5000) as usize).len();
                if !dice.one_of(4) {
                    ctx.commit(session, dice.below(count as u64 + 1) as usize);
                }
            }
            2 => {
                drain(ctx, session);
            }
            3 => {
                ctx.read(session, &mut vec![0; dice.below(3000) as usize]);
            }
            4 => {
                let other = known.lock().last().copied().unwrap_or(session);
                ctx.splice(session, if dice.one_of(2) { other } else { session });
            }
            5 => ctx.want_room(session),
            6 if dice.one_of(temper.close) => ctx.close(session),
            7 if dice.one_of(temper.close) => ctx.half_close(session),
            8 if dice.one_of(temper.reset) => ctx.reset(session),
            _ => {}
        }
    }
    if matches!(event, Event::PeerClosed(_)) && dice.one_of(2) {
        ctx.close(session);
    }
}

fn world(seed: u64) -> World {
    let dice = Dice(Arc::new(Mutex::new(Rng::from_seed(seed))));
    let workers = dice.pick(&[1, 1, 2, 3, 4]);
    let config = StackConfig {
        workers,
        seed: Some(seed),
        tcp: TcpConfig {
            connections_max: dice.pick(&[5, 50, 1 << 16, 1 << 16]),
            half_opens_max: dice.pick(&[4, 1 << 16, 1 << 16, 1 << 16]),
            syn_received_max: dice.pick(&[2, 1 << 16, 1 << 16]),
            time_wait_max: dice.pick(&[3, 1 << 16]),
            retransmits_max: dice.pick(&[2, 5, 12]),
            fast_open_pending_max: dice.pick(&[0, 1, 256]),
            fast_open_cache_max: dice.pick(&[1, 4096]),
            syn_cookies: dice.pick(&[SynCookies::Never, SynCookies::UnderPressure, SynCookies::Always]),
            ..TcpConfig::default()
        },
        sessions: SessionLimits {
            sessions: dice.pick(&[5, 50, 1 << 16, 1 << 16]),
            chunk_bytes: dice.pick(&[64, 512, 4096]),
            chunks: dice.pick(&[1, 10, 100, 1 << 16, 1 << 16]),
        },
        rx_burst_max: dice.pick(&[1, 7, 256]),
        tx_burst_max: dice.pick(&[1, 4, 64]),
        channel_batches: dice.pick(&[1, 2, 64]),
        parked_max: dice.pick(&[0, 2, 4096]),
        ..StackConfig::default()
    };
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let wire = MemoryWireConfig {
        mtu: dice.pick(&[1280, 1500, 9000]),
        ring_packets: dice.pick(&[1, 16, 1024]),
        macs: dice.one_of(3).then(|| [mac(1), mac(2)]),
        ..MemoryWireConfig::default()
    };
    let bad = |seed| Impairments {
        seed,
        loss: dice.share(&[0.0, 0.02, 0.3]),
        duplicate: dice.share(&[0.0, 0.02, 0.3]),
        reorder: dice.share(&[0.0, 0.02, 0.3]),
        corrupt: dice.share(&[0.0, 0.0, 0.02]),
        delay_us: dice.pick(&[0, 10, 5_000]),
        jitter_us: dice.pick(&[0, 3_000]),
        rate_bits_per_second: dice.pick(&[None, None, Some(5_000_000)]),
        ..Impairments::default()
    };
    let (a, b) = memory_wire(wire);
    let (a, b) = (impair(Box::new(a), bad(seed)), impair(Box::new(b), bad(seed + 1)));
    let links = vec![a.impairment_counters(), b.impairment_counters()];
    let stack = virtual_stack(config, [interface(a, CLIENT, 1), interface(b, SERVER, 2)]);
    let temper = Temper {
        reset: dice.pick(&[1, 5, 50]),
        close: dice.pick(&[1, 5, 50]),
        connect: dice.pick(&[3, 10, 30]),
        detach: dice.pick(&[0, 0, 200]),
        panic: dice.pick(&[0, 0, 0, 100]),
    };
    World { stack, dice, temper, links, apps: Vec::new() }
}

impl World {
    fn attach(&mut self, name: String) {
        let log = Log::default();
        let (dice, temper) = (self.dice.clone(), self.temper);
        let mind = Mind::default();
        let probe = Probe::new(&log, move |ctx, event| behave(ctx, event, &dice, temper, &mind));
        let dice = self.dice.clone();
        let options = AttachOptions {
            app_workers: 1 + dice.below(3) as u32,
            half_opens_max: dice.pick(&[2, 1000, 1000]),
            pending_connects_max: dice.pick(&[1, 1000, 1000]),
            ..AttachOptions::named(name)
        };
        let attached = self.stack.attach(probe, options).unwrap();
        for _ in 0..20 {
            let _ = self.stack.listen(attached.app_workers[0], listen_options(&self.dice));
        }
        self.apps.push((attached, log));
    }

    /// One thing that happens from outside.
    fn poke(&mut self) {
        let dice = self.dice.clone();
        let (attached, log) = &self.apps[dice.below(self.apps.len() as u64) as usize];
        let unit = dice.pick(&attached.app_workers);
        let worker = WorkerId(dice.below(4) as u8);
        match dice.below(12) {
            0..=4 => {
                for _ in 0..dice.pick(&[1, 1, 10, 40]) {
                    let options = connect_options(&dice);
                    let early_data = early_data(&dice, &options);
                    if let Ok(connect) = self.stack.connect_with(unit, options, &early_data)
                        && dice.one_of(8)
                    {
                        let _ = self.stack.cancel(connect);
                    }
                }
            }
            5 | 6 => {
                if let Ok(listener) = self.stack.listen(unit, listen_options(&dice))
                    && dice.one_of(8)
                {
                    self.stack.unlisten(unit, listener).unwrap();
                }
            }
            7 => {
                let _ = self.stack.notify(unit, worker, Box::new(1u64));
            }
            8 => {
                let sessions = log.sessions();
                if !sessions.is_empty() {
                    let how = dice.pick(&[EndHow::Close, EndHow::Reset]);
                    self.stack.end_session(dice.pick(&sessions), how).unwrap();
                }
            }
            9 => {
                let link = &self.links[dice.below(2) as usize];
                link.set_link(if dice.one_of(8) {
                    LinkState::Cut
                } else {
                    dice.pick(&[LinkState::Impaired, LinkState::Healed])
                });
            }
            10 => {
                let query = match dice.pick(&[0, 1, 2]) {
                    0 => hoststack::Query::sessions(5, true),
                    1 => hoststack::Query::half_opens(5),
                    _ => hoststack::Query::Summary,
                };
                assert_eq!(self.stack.inspect(query).unwrap().main.tickets_dropped, 0);
            }
            _ if dice.one_of(20) => {
                let _ = self.stack.detach_worker(unit, DetachPolicy::default());
            }
            _ => {}
        }
    }
}

fn run(seed: u64) {
    let mut world = world(seed);
    for number in 0..3 {
        world.attach(format!("app{number}"));
    }
    for _ in 0..150 {
        world.poke();
        let time = world.dice.pick(&[0, 100, 10_000, 10_000, 1_000_000]);
        let limit = Duration::from_micros(world.dice.below(time + 1));
        let mut steps = 0;
        world.stack.run_until(limit, |stack| {
            stack.check_consistency();
            steps += 1;
            assert!(steps < 20_000, "time stands still");
            false
        });
        for (_, log) in &world.apps {
            log.check(false);
        }
    }
    for link in &world.links {
        link.set_link(LinkState::Healed);
    }
    let policy = world.dice.pick(&[
        DetachPolicy::Reset,
        DetachPolicy::default(),
        DetachPolicy::Close { linger: Duration::from_secs(100) },
    ]);
    for (attached, log) in &world.apps {
        // A run's apps may have detached all their app workers themselves.
        let report = world.stack.detach(attached.app, policy).unwrap();
        let outcomes = report.outcomes();
        assert_eq!(outcomes.requested, outcomes.cleaned);
        let panicked = report.app_workers.iter().any(|unit| unit.panicked);
        log.check(world.temper.panic == 0 && !panicked);
        assert_eq!(log.count(|event| *event == Event::AppDetached), 1);
    }
    assert_clean(&mut world.stack);
}

#[test]
fn apps_that_do_anything_leave_nothing_behind() {
    let seeds = match std::env::var("SWARM_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("from..to");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => 0..40,
    };
    for seed in seeds {
        println!("seed {seed}");
        run(seed);
    }
}
