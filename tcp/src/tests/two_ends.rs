//! Two engines joined by a link that loses, reorders and duplicates, on virtual time: streams arrive whole, both ends
//! end, nothing is left.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use hoststack_transport::{Algorithm, Duration, Instant, Rng, SocketOptions};
use hoststack_wire::Segment;
use proptest::prelude::*;

use crate::config::{SynCookies, TcpConfig};
use crate::testing::{Act, End, Sent, patient};

/// How bad the link is, and what the two apps do.
#[derive(Clone, Debug)]
struct World {
    seed: u64,
    loss: f64,
    duplicate: f64,
    reorder: f64,
    delay_us: u64,
    mtu: u16,
    /// Larger packets vanish: then both probe.
    takes: Option<u16>,
    /// Bytes that each end writes.
    bytes: [u32; 2],
    options: [SocketOptions; 2],
    /// Bytes that a connect is given along; those who connect know the other's Fast Open cookie.
    early: u32,
    syn_cookies: SynCookies,
    /// Both ends connect at once.
    is_simultaneous: bool,
    /// Each end closes when it has written all (half-close first if odd), or waits for the peer's close.
    closes_first: [bool; 2],
    half_closes: [bool; 2],
    /// Share of steps in which the app reads.
    reads: f64,
}

fn ends(world: &World, rng: &mut Rng) -> [End; 2] {
    let config = TcpConfig { syn_cookies: world.syn_cookies, ..patient() };
    let mut ends = End::pair(config, world.options, world.mtu, world.is_simultaneous, rng);
    for (n, end) in ends.iter_mut().enumerate() {
        end.knows_cookie();
        end.to_write = world.bytes[n];
        end.expects = world.bytes[1 - n];
        end.closes_first = world.closes_first[n];
        end.half_closes = world.half_closes[n];
    }
    ends
}

/// What an app does when it may.
fn act(world: &World, rng: &mut Rng) -> Act {
    let write = if rng.chance(0.7) { 1 + rng.below(20_000) } else { 0 };
    Act { write, read: if rng.chance(world.reads) { 1 + rng.below(100_000) as usize } else { 0 } }
}

/// Runs a world to its end; returns the virtual time that it took.
fn run(world: &World) -> Duration {
    let mut rng = Rng::from_seed(world.seed);
    let mut ends = ends(world, &mut rng);
    let start = Instant::from_millis(u64::from(rng.below(5_000_000)));
    let mut now = start;
    // In flight: (arrival, number) -> (to, segment).
    let mut link: BTreeMap<(Instant, u64), (usize, Sent)> = BTreeMap::new();
    let mut count = 0u64;
    ends[0].connect(now, world.early);
    if world.is_simultaneous {
        ends[1].connect(now, world.early);
    }
    let mut finished_at = None;
    for step in 0.. {
        assert!(step < 200_000, "no end in sight at {now}: {:#?}", ends.each_ref().map(End::look));
        while let Some(entry) = link.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (to, sent) = entry.remove();
            let Sent { header, payload, ip, .. } = &sent;
            ends[to].hears(now, &Segment { header: *header, payload, ecn: ip.ecn() });
        }
        for n in [0, 1] {
            let burst = 1 + rng.below(20) as usize;
            ends[n].step(now, burst, |_| act(world, &mut rng));
            for sent in ends[n].out.sent.drain(..).collect::<Vec<_>>() {
                for _ in 0..=usize::from(rng.chance(world.duplicate)) {
                    let options = if sent.header.options.timestamps.is_some() { 12 } else { 0 };
                    let is_too_large = world.takes.is_some_and(|takes| {
                        !sent.payload.is_empty() && sent.payload.len() + 40 + options > usize::from(takes)
                    });
                    if is_too_large || rng.chance(world.loss) {
                        continue;
                    }
                    let extra = if rng.chance(world.reorder) {
                        u64::from(rng.below(5 * world.delay_us as u32))
                    } else {
                        0
                    };
                    count += 1;
                    link.insert((now.plus_micros(world.delay_us + extra), count), (1 - n, sent.clone()));
                }
            }
        }
        if ends.iter().all(|end| end.closed.is_some()) && finished_at.is_none() {
            finished_at = Some(now);
        }
        if ends.iter().all(End::is_over) && link.is_empty() {
            break;
        }
        // The apps act at their own pace while there is something left to do.
        let pace = ends
            .iter()
            .any(End::has_something_to_do)
            .then(|| now.plus_micros(1 + u64::from(rng.below(3000))));
        let next = link.keys().next().map(|&(at, _)| at);
        let timers = ends.iter().map(End::next_deadline);
        now = timers.chain([next, pace]).flatten().min().expect("something is due").max(now);
    }
    for (n, end) in ends.iter().enumerate() {
        end.check_finished(n == 0 || world.is_simultaneous);
    }
    finished_at.expect("it finished") - start
}

fn options() -> impl Strategy<Value = SocketOptions> {
    (
        1000u32..400_000,
        prop::sample::select(Algorithm::ALL),
        any::<[bool; 4]>(),
        prop_oneof![Just(None), (100u16..1500).prop_map(Some)],
    )
        .prop_map(|(rx_window, congestion, [nodelay, window_scale, timestamps, sack], mss_max)| {
            SocketOptions {
                rx_window,
                congestion,
                nodelay,
                mss_max,
                window_scale,
                timestamps,
                sack,
                abort_on_icmp: false,
                ..SocketOptions::DEFAULT
            }
        })
}

fn world() -> impl Strategy<Value = World> {
    (
        (any::<u64>(), 0.0..0.25f64, 0.0..0.1f64, 0.0..0.3f64, 50u64..50_000, 576u16..3000),
        prop_oneof![Just([0, 0]), [0u32..2000, 0u32..2000], [0u32..400_000, 0u32..400_000]],
        [options(), options()],
        prop::bool::weighted(0.2),
        any::<[bool; 2]>(),
        any::<[bool; 2]>(),
        0.05..1.0f64,
        (prop_oneof![Just(0), 1..5000u32], any::<[bool; 2]>()),
        prop::option::weighted(0.3, 552u16..1500),
    )
        .prop_map(
            |(
                (seed, loss, duplicate, reorder, delay_us, mtu),
                bytes,
                options,
                sim,
                first,
                half_closes,
                reads,
                (early, [is_fast, is_stateless]),
                takes,
            )| World {
                seed,
                loss,
                // What is taken from a SYN may be taken twice (RFC 7413 §2.1).
                duplicate: if early > 0 && is_fast { 0.0 } else { duplicate },
                reorder: if early > 0 && is_fast { 0.0 } else { reorder },
                early,
                syn_cookies: if is_stateless { SynCookies::Always } else { SynCookies::UnderPressure },
                delay_us,
                mtu,
                takes,
                // What a tiny window or a terrible link takes weeks for teaches no more.
                bytes: [0, 1].map(|n: usize| {
                    let most = options[1 - n].rx_window.saturating_mul(if loss > 0.1 { 5 } else { 20 });
                    // If the ACK of a cookie is lost, the server knows of nothing until the client speaks.
                    bytes[n].min(most).max(u32::from(n == 0 && is_stateless))
                }),
                options: options.map(|options| SocketOptions {
                    fast_open: is_fast,
                    mtu_probing: takes.is_some(),
                    ..options
                }),
                is_simultaneous: sim,
                // Someone must begin.
                closes_first: if first == [false; 2] { [true, false] } else { first },
                half_closes,
                reads,
            },
        )
}

/// A world without faults.
fn calm() -> World {
    World {
        seed: 1,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        delay_us: 1000,
        mtu: 1500,
        takes: None,
        bytes: [300_000, 300_000],
        options: [SocketOptions::default(); 2],
        early: 0,
        syn_cookies: SynCookies::UnderPressure,
        is_simultaneous: false,
        closes_first: [true, false],
        half_closes: [true, false],
        reads: 1.0,
    }
}

#[test]
fn over_a_good_link_streams_arrive_fast() {
    let took = run(&calm());
    assert!(took < Duration::from_millis(500), "{took:?}");
}

// covers: MUST-10
#[test]
fn syns_that_cross_make_one_connection() {
    run(&World { is_simultaneous: true, ..calm() });
}

#[test]
fn early_data_arrives_once_and_first_with_fast_open_and_without() {
    for (fast_open, is_simultaneous) in [(false, false), (true, false), (true, true)] {
        let options = SocketOptions { fast_open, ..SocketOptions::default() };
        run(&World { early: 5000, options: [options; 2], is_simultaneous, ..calm() });
    }
}

#[test]
fn a_lossy_link_costs_time_but_no_bytes() {
    let took = run(&World { loss: 0.02, ..calm() });
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_link_that_swallows_large_packets_is_found_out() {
    for takes in [600, 1000, 1300, 1492] {
        let options = SocketOptions { mtu_probing: true, ..SocketOptions::default() };
        let took = run(&World { takes: Some(takes), options: [options; 2], ..calm() });
        assert!(took < Duration::from_secs(15), "{takes}: {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_link_does_streams_arrive_whole_and_nothing_is_left(world in world()) {
        run(&world);
    }
}
