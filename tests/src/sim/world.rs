//! A world, drawn from its seed: hosts, wires between them, what is wrong with those, how wild the apps are.

use std::net::IpAddr;
use std::sync::Arc;

use hoststack::app::{AppId, AppWorkerId, DomainId, Duration};
use hoststack::net::{Device, ImpairmentCounters, Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::tcp::TcpConfig;
use hoststack::{Actor, Answer, Bursts, InterfaceSpec, SessionLimits, Stack, StackConfig, Stepped};
use hoststack_transport::{AllocationPoint, Instant};
use hoststack_wire::MacAddr;

use super::behave::Temper;
use super::coverage::Coverage;
use super::dice::Dice;
use super::faults::{Fault, Strikes};
use super::hub::{Hub, State};
use super::meddler::{End, Meddler, Meddling};
use super::oracle::Oracle;
use super::pokes::Wait;
use super::streams::Streams;
use super::villain::Villain;

/// Most hosts of a world.
pub(crate) const HOSTS_MAX: usize = 3;

/// Where a host's end of a wire leads. IPv4 first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The host's end of the wire.
    pub(crate) wire_end: usize,
    pub(crate) domain: DomainId,
    pub(crate) local: [IpAddr; 2],
    pub(crate) remote: [IpAddr; 2],
    /// On the link, nobody's.
    pub(crate) nobody: [IpAddr; 2],
    /// Without a route.
    pub(crate) nowhere: [IpAddr; 2],
}

/// Where a host can connect to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(pub(crate) Vec<Place>);

/// An actor of a host, as the loop sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) host: usize,
    pub(crate) actor: Actor,
    /// The time of its last step.
    pub(crate) now_us: u64,
    /// When it has something to do by itself.
    pub(crate) deadline_us: Option<u64>,
    /// It does not step before then.
    pub(crate) paused_until_us: u64,
}

/// An application as the pokes know it.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) index: usize,
    pub(crate) id: AppId,
    pub(crate) units: Vec<AppWorkerId>,
}

/// A host.
pub(crate) struct Host {
    pub(crate) stack: Stepped,
    pub(crate) workers: u8,
    pub(crate) apps: Vec<Attached>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) refusing: [bool; AllocationPoint::ALL.len()],
    pub(crate) detach_grace_us: u64,
    pub(crate) time_wait_us: u64,
}

/// A link's impairments, and how much of them was seen.
pub(crate) struct Link {
    /// The host that sends into it, and the one at its other end.
    pub(crate) hosts: [usize; 2],
    pub(crate) counters: Arc<ImpairmentCounters>,
    seen: [u64; 5],
    pub(crate) is_cut: bool,
}

impl Link {
    /// Tells the strikes since the last look.
    pub(crate) fn look(&mut self, s: &mut State) {
        let lost = self.counters.dropped() + self.counters.queue_dropped();
        let now = [
            lost,
            self.counters.reordered(),
            self.counters.duplicated(),
            self.counters.corrupted(),
            self.counters.delayed(),
        ];
        let loss = if self.is_cut { Fault::Cut } else { Fault::Loss };
        let faults = [loss, Fault::Reorder, Fault::Duplicate, Fault::Corrupt, Fault::Delay];
        for ((fault, now), seen) in faults.into_iter().zip(now).zip(&mut self.seen) {
            for host in self.hosts {
                s.strike(host, fault, now - *seen);
            }
            *seen = now;
        }
    }
}

/// How the loop treats this world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Pokes from outside in phase one.
    pub(crate) pokes: u64,
    /// One in so many iterations is a poke.
    pub(crate) poke_every: u64,
    /// A step takes up to so long.
    pub(crate) step_us: u64,
    /// One in so many iterations time passes though someone has something to do.
    pub(crate) drift_every: u64,
    /// An actor's time lags by this at most.
    pub(crate) lag_us_max: u64,
    /// One in so many turns goes to an actor that sleeps; 0 in most worlds, so that lost wake-ups show.
    pub(crate) spurious_every: u64,
    /// One in so many pokes pauses an actor.
    pub(crate) pause: u64,
    /// For this long at most.
    pub(crate) pause_us_max: u64,
    /// One in so many pokes lets an allocation point refuse, or no longer.
    pub(crate) refuse: u64,
    /// One in so many pokes is a flood of requests.
    pub(crate) flood: u64,
    /// One in so many pokes cuts a link or mends it.
    pub(crate) cut: u64,
}

/// A world.
pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) hosts: Vec<Host>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) links: Vec<Link>,
    pub(crate) villains: Vec<Villain>,
    pub(crate) habits: Habits,
    pub(crate) now_us: u64,
    pub(crate) steps: u64,
    /// When the last pause ended.
    pub(crate) pause_end_us: u64,
    /// The last figures that a host gave.
    pub(crate) figures: Option<Answer>,
    /// What was drawn, for whoever reads a failure.
    pub(crate) draw: String,
}

/// The addresses of an end of wire `number`.
fn addresses(number: usize, end: u8) -> [IpAddr; 2] {
    let (n, wire) = (number as u8 + 1, number as u16 + 1); // a world has a handful of wires
    [IpAddr::from([10, 0, n, end]), IpAddr::from([0xfd00, wire, 0, 0, 0, 0, wire, u16::from(end)])]
}

/// One end of a wire that a host gets.
struct Plug {
    wire_end: usize,
    host: usize,
    domain: u16,
    wire: usize,
    end: u8,
    device: Box<dyn Device>,
}

impl World {
    /// Draws the world of a seed and builds it.
    ///
    /// # Panics
    /// When a stack cannot be built: the draw is wrong then.
    pub(crate) fn build(seed: u64, is_tracing: bool, covers: bool) -> World {
        let mut dice = Dice::new(seed);
        let d = &mut dice;
        let host_count = d.pick(&[1, 1, 2, 2, 2, 3]);
        let temper = draw_temper(d);
        let hub = Hub::new(State {
            dice: d.fork(),
            oracle: Oracle::default(),
            streams: Streams::default(),
            strikes: Strikes::default(),
            coverage: covers.then(Box::<Coverage>::default),
            temper,
            ends: Vec::new(),
            places: vec![Places::default(); host_count],
            known: Vec::new(),
            connects: Vec::new(),
            listeners: Vec::new(),
            overlaps: std::collections::BTreeSet::new(),
            timers: std::collections::BTreeMap::new(),
            poisoned: std::collections::BTreeSet::new(),
            now_us: 1000,
            is_deaf: false,
            is_calm: false,
            connects_in_callbacks: 0,
            scratch: vec![0; 1500],
            scratch_packet: Vec::new(),
            is_tracing,
            digest: seed,
            callbacks: 0,
        });
        let mut draw = format!("hosts {host_count}, {temper:?}");
        // Wires: pairs of hosts, or two domains of one.
        let mut pairs: Vec<[(usize, u16); 2]> = match host_count {
            1 => vec![[(0, 0), (0, 1)]],
            2 => vec![[(0, 0), (1, 0)]],
            _ => vec![[(0, 0), (1, 0)], [(1, 0), (2, 0)], [(2, 0), (0, 0)]],
        };
        if host_count == 3 && d.one_of(2) {
            pairs.pop();
        }
        if host_count == 2 && d.one_of(5) {
            // A second wire, in a domain of its own.
            pairs.push([(0, 1), (1, 1)]);
        }
        let meddles = d.one_of(2);
        let mut plugs = Vec::new();
        let mut links = Vec::new();
        for (wire, pair) in pairs.iter().enumerate() {
            let n = wire as u8; // a handful
            let mac = |last| MacAddr([2, 0, 0, n, 0, last]);
            let config = MemoryWireConfig {
                names: [format!("w{wire}a"), format!("w{wire}b")],
                mtu: d.pick(&[1280, 1500, 9000]),
                ring_packets: d.pick(&[1, 3, 32, 1024]),
                macs: d.one_of(2).then(|| [mac(1), mac(2)]),
            };
            draw += &format!("; wire {wire} {pair:?} {config:?}");
            let macs = config.macs;
            let (a, b) = memory_wire(config);
            let is_impaired = d.one_of(2);
            for (index, end) in [a, b].into_iter().enumerate() {
                let (host, domain) = pair[index];
                let mut device: Box<dyn Device> = Box::new(end);
                if is_impaired {
                    let bad = draw_impairments(d);
                    draw += &format!(" {bad:?}");
                    let device_behind = impair(device, bad);
                    links.push(Link {
                        hosts: [host, pair[1 - index].0],
                        counters: device_behind.impairment_counters(),
                        seen: [0; 5],
                        is_cut: false,
                    });
                    device = Box::new(device_behind);
                }
                let macs = macs.map(|macs| [macs[index], macs[1 - index]]);
                let meddling = if meddles { draw_meddling(d) } else { Meddling::default() };
                let wire_end = wrap(&hub, host, macs, meddling);
                let device = Box::new(Meddler { hub: hub.clone(), end: wire_end, device });
                plugs.push(Plug { wire_end, host, domain, wire, end: index as u8 + 1, device });
            }
        }
        let mut villains = Vec::new();
        if d.one_of(2) {
            let wire = pairs.len();
            let host = d.index(host_count);
            let mtu = 1500;
            let config = MemoryWireConfig {
                names: ["villain".to_owned(), "victim".to_owned()],
                mtu,
                ring_packets: d.pick(&[2, 64]),
                macs: None,
            };
            draw += &format!("; a villain at host {host}");
            let (a, b) = memory_wire(config);
            let queue = Box::new(a).into_queues(1).expect("a wire in memory needs no system").remove(0);
            let (own, victim) = (addresses(wire, 1), addresses(wire, 2));
            villains.push(Villain::new(hub.clone(), host, queue, mtu, own, victim, d.fork()));
            let wire_end = wrap(&hub, host, None, Meddling::default());
            let device = Box::new(Meddler { hub: hub.clone(), end: wire_end, device: Box::new(b) });
            plugs.push(Plug { wire_end, host, domain: 0, wire, end: 2, device });
        }
        let mut hosts = Vec::new();
        let mut turns = Vec::new();
        for number in 0..host_count {
            let config = draw_config(d, seed.wrapping_mul(4) + number as u64);
            draw += &format!(
                "; host {number}: workers {}, {:?}, {:?}, bursts {} {} {:?}, batches {}, parked {}, grace {:?}",
                config.workers,
                config.sessions,
                config.tcp,
                config.rx_burst_max,
                config.tx_burst_max,
                config.bursts,
                config.channel_batches,
                config.parked_max,
                config.detach_grace
            );
            if is_small(&config) {
                hub.lock().strike(number, Fault::SmallPools, 1);
            }
            let (mine, rest) = plugs.into_iter().partition(|plug| plug.host == number);
            plugs = rest;
            let host = build_host(&hub, number, &config, mine);
            for actor in host.stack.actors() {
                turns.push(Turn { host: number, actor, now_us: 0, deadline_us: None, paused_until_us: 0 });
            }
            hosts.push(host);
        }
        let habits = draw_habits(d);
        draw += &format!("; {habits:?}");
        World {
            hub,
            hosts,
            turns,
            links,
            villains,
            habits,
            now_us: 1000,
            steps: 0,
            pause_end_us: 0,
            figures: None,
            draw,
        }
    }

    /// A moment as the stack reads it.
    pub(crate) fn instant(us: u64) -> Instant {
        Instant::from_micros(us)
    }
}

/// A new end of a wire.
fn wrap(hub: &Hub, host: usize, macs: Option<[MacAddr; 2]>, meddling: Meddling) -> usize {
    let mut s = hub.lock();
    s.ends.push(End::new(host, macs, meddling));
    s.ends.len() - 1
}

fn build_host(hub: &Hub, number: usize, config: &StackConfig, plugs: Vec<Plug>) -> Host {
    let mut builder = Stack::builder().config(config.clone());
    for plug in plugs {
        let (local, remote) = (addresses(plug.wire, plug.end), addresses(plug.wire, 3 - plug.end));
        let place = Place {
            wire_end: plug.wire_end,
            domain: DomainId(plug.domain),
            local,
            remote,
            nobody: addresses(plug.wire, 77),
            nowhere: [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])],
        };
        hub.lock().places[number].0.push(place);
        let net = |addr: IpAddr, len| {
            format!("{addr}/{len}").parse().expect("an address and a length are a prefix")
        };
        builder = builder.interface(InterfaceSpec {
            domain: place.domain,
            device: plug.device,
            addresses: vec![net(local[0], 24), net(local[1], 64)],
            routes: Vec::new(),
        });
    }
    let stack = Stack::stepped(builder).expect("what is drawn can be built");
    Host {
        stack,
        workers: config.workers as u8, // 4 at most
        apps: Vec::new(),
        waits: Vec::new(),
        refusing: [false; AllocationPoint::ALL.len()],
        detach_grace_us: config.detach_grace.as_micros() as u64, // seconds
        time_wait_us: config.tcp.time_wait.as_micros() as u64,   // a minute
    }
}

fn draw_temper(d: &mut Dice) -> Temper {
    Temper {
        act: d.pick(&[1, 2, 4]),
        connect: d.pick(&[1, 2, 5]),
        cancel: d.pick(&[2, 5, 20]),
        close: d.pick(&[1, 3, 20]),
        reset: d.pick(&[2, 5, 40]),
        detach: d.pick(&[0, 0, 5, 30]),
        panic: d.pick(&[0, 0, 0, 60, 400]),
        main_panic: d.pick(&[0, 0, 0, 0, 0, 3]),
        reject: d.pick(&[0, 4, 20]),
        connects_max: d.pick(&[20, 60, 120]),
        bytes_max: d.pick(&[300, 3000, 3000, 20_000]),
        timeout_us_max: d.pick(&[20_000, 2_000_000, 2_000_000, 10_000_000]),
        linger_us_max: d.pick(&[1_000, 1_000_000, 5_000_000]),
    }
}

fn draw_impairments(d: &mut Dice) -> Impairments {
    Impairments {
        seed: d.u64(),
        loss: d.pick(&[0.0, 0.02, 0.2]),
        duplicate: d.pick(&[0.0, 0.02, 0.3]),
        reorder: d.pick(&[0.0, 0.02, 0.3]),
        corrupt: d.pick(&[0.0, 0.0, 0.05]),
        delay_us: d.pick(&[0, 10, 5_000]),
        jitter_us: d.pick(&[0, 3_000]),
        rate_bits_per_second: d.pick(&[None, None, Some(5_000_000)]),
        queue_bytes: d.pick(&[3_000, 64 * 1024]),
        ..Impairments::default()
    }
}

fn draw_meddling(d: &mut Dice) -> Meddling {
    let rates = [0, 0, 20, 100, 400];
    Meddling {
        rst: d.pick(&rates),
        syn: d.pick(&rates),
        fin: d.pick(&rates),
        junk: d.pick(&rates),
        icmp: d.pick(&rates),
        replay: d.pick(&rates),
        silence: d.pick(&[0, 0, 300]),
    }
}

fn draw_habits(d: &mut Dice) -> Habits {
    Habits {
        pokes: d.pick(&[40, 60, 90]),
        poke_every: d.pick(&[5, 20, 60]),
        step_us: d.pick(&[1, 3, 3, 30]),
        drift_every: d.pick(&[0, 30, 300]),
        lag_us_max: d.pick(&[0, 0, 500, 4_000]),
        spurious_every: d.pick(&[0, 0, 0, 0, 0, 0, 0, 20]),
        pause: d.pick(&[0, 0, 8, 20]),
        pause_us_max: d.pick(&[2_000, 100_000, 100_000, 3_000_000]),
        refuse: d.pick(&[0, 0, 6]),
        flood: if d.one_of(20) { 30 } else { 0 },
        cut: d.pick(&[0, 10]),
    }
}

fn draw_config(d: &mut Dice, seed: u64) -> StackConfig {
    let most = 1 << 12;
    // Room for everything in some worlds, so that more comes up.
    let roomy = d.one_of(2);
    let limit = |d: &mut Dice, choices: &[usize]| {
        let drawn = d.pick(choices);
        if roomy { most } else { drawn }
    };
    let mut config = StackConfig {
        workers: d.pick(&[1, 1, 2, 2, 3, 4]),
        seed: Some(seed),
        tcp: TcpConfig {
            connections_max: limit(d, &[3, 20, most, most, most]),
            half_opens_max: limit(d, &[2, most, most, most]),
            syn_received_max: limit(d, &[2, most, most]),
            time_wait_max: limit(d, &[2, most]),
            listeners_max: limit(d, &[2, most, most]),
            flows_reserved: 16,
            retransmits_max: d.pick(&[2, 5, 12]),
            syn_retries: d.pick(&[1, 6]),
            time_wait: Duration::from_secs(d.pick(&[1, 10, 60])),
            fin_wait_2: Duration::from_secs(d.pick(&[1, 60])),
            ..TcpConfig::default()
        },
        sessions: SessionLimits {
            sessions: limit(d, &[3, 20, most, most, most]),
            chunk_bytes: d.pick(&[64, 512, 4096]),
            chunks: limit(d, &[1, 10, 100, most, most, most]),
        },
        apps_max: 16,
        app_workers_max: limit(d, &[6, 64]),
        listeners_max: limit(d, &[3, 100, 100]),
        pending_connects_max: limit(d, &[3, most, most]),
        rx_burst_max: d.pick(&[1, 7, 256]),
        tx_burst_max: d.pick(&[1, 4, 64]),
        channel_batches: d.pick(&[1, 2, 64]),
        bursts: draw_bursts(d),
        parked_max: limit(d, &[0, 2, most]),
        detach_grace: Duration::from_millis(d.pick(&[300, 1000, 5000])),
        ..StackConfig::default()
    };
    if config.bursts != Bursts::default() {
        // Apps may ask for more in a step than is done in one: a detach waits its turn behind it, and nobody is stuck.
        config.detach_grace = Duration::from_secs(60);
    }
    config
}

/// In one world of three so little is done in a step that almost everything waits for a later one.
fn draw_bursts(d: &mut Dice) -> Bursts {
    if !d.one_of(3) {
        return Bursts::default();
    }
    let mut few = || d.pick(&[1, 2, 8, 1024]);
    Bursts {
        commands: few(),
        callbacks: few(),
        reports: few(),
        requests: few(),
        settled: few(),
        settling: few(),
        detach_slots: few() as u32,
        detach_ended: few(),
        inspect_slots: few().max(8) as u32,
    }
}

/// Whether a limit of the configuration is one that a world reaches.
fn is_small(config: &StackConfig) -> bool {
    let limits = [
        config.tcp.connections_max,
        config.tcp.half_opens_max,
        config.tcp.syn_received_max,
        config.sessions.sessions,
        config.sessions.chunks,
        config.pending_connects_max,
    ];
    limits.into_iter().any(|limit| limit <= 20) || config.parked_max <= 2
}
