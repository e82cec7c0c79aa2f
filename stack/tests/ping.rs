//! Ping: each request has one result, whatever the network does, and nothing of it stays.

mod common;

use std::net::IpAddr;

use common::*;
use hoststack::app::*;
use hoststack::net::{Impairments, MemoryWireConfig, raw_ip};
use hoststack::ping::*;
use hoststack::{Query, SingleThreaded};
use hoststack_wire::{IpProtocol, MacAddr, icmpv4, ipv4};

const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

fn ethernet() -> MemoryWireConfig {
    MemoryWireConfig { macs: Some(MACS), ..MemoryWireConfig::default() }
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("cannot fail because it is an address")
}

/// Pings, and lets virtual time pass until it is over.
fn ping(stack: &mut SingleThreaded, options: PingOptions) -> Vec<PingResult> {
    let pinging = stack.ping(options).expect("good options");
    let mut results = Vec::new();
    let is_over = stack.run_until(Duration::from_secs(600), |stack| {
        stack.check_consistency();
        loop {
            match pinging.try_take() {
                Ok(Some(result)) => results.push(result),
                Ok(None) => return false,
                Err(PingOver) => return true,
            }
        }
    });
    assert!(is_over, "a ping ends: {results:?}");
    results
}

fn drops(stack: &mut SingleThreaded, reason: &str) -> u64 {
    let answer = summary(stack);
    let drops = answer.workers.iter().flat_map(|worker| &worker.drops);
    drops.filter(|drop| drop.reason == reason).map(|drop| drop.count).sum()
}

fn is_reply(result: &PingResult) -> bool {
    matches!(result.outcome, PingOutcome::Reply { is_intact: true, .. })
}

#[test]
fn every_request_is_answered_in_both_families_over_raw_ip_and_ethernet() {
    for wire in [MemoryWireConfig::default(), ethernet()] {
        for family in FAMILIES {
            let mut stack = stack_of(config(3), wire.clone());
            let to = family.server(0).ip();
            let began = stack.now();
            let options =
                PingOptions { size: 1000, hop_limit: 33, worker: WorkerId(2), ..PingOptions::to(to) };
            let results = ping(&mut stack, options);
            assert_eq!(results.iter().map(|result| result.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
            for result in &results {
                let PingOutcome::Reply { from, hop_limit, bytes, is_intact, .. } = result.outcome else {
                    panic!("{result:?}")
                };
                assert_eq!((from, hop_limit, bytes, is_intact), (to, 64, 1000, true));
            }
            // The fourth left three seconds after the first.
            let took = stack.now().since(began);
            assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(4), "{took:?}");
            assert_clean(&mut stack);
        }
    }
}

#[test]
fn the_round_trip_is_that_of_the_link() {
    let slow = Impairments { delay_us: 7_000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(2), slow, slow);
    for result in ping(&mut stack, PingOptions::to(addr("10.0.0.2"))) {
        let PingOutcome::Reply { rtt_us, .. } = result.outcome else { panic!("{result:?}") };
        assert!((14_000..14_100).contains(&rtt_us), "{rtt_us}");
    }
}

#[test]
fn a_lossy_link_loses_some_and_each_has_one_result() {
    let lossy = Impairments {
        seed: 5,
        loss: 0.3,
        duplicate: 0.2,
        reorder: 0.2,
        delay_us: 500,
        ..Impairments::default()
    };
    let (mut stack, _) = impaired_stack(config(2), lossy, lossy);
    let options = PingOptions {
        count: 200,
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(300),
        ..PingOptions::to(addr("fd00::2"))
    };
    let results = ping(&mut stack, options);
    let mut seqs: Vec<u16> = results.iter().map(|result| result.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    let lost = |result: &&PingResult| result.outcome == PingOutcome::TimedOut { after_us: 300_000 };
    let lost = results.iter().filter(lost).count();
    let came = results.iter().filter(|result| is_reply(result)).count();
    assert_eq!(lost + came, 200);
    // 0.7 * 0.7 of them come back.
    assert!((60..140).contains(&came), "{came} came back");
    assert_clean(&mut stack);
}

#[test]
fn what_cannot_be_sent_says_why() {
    let mut stack = stack_of(config(2), ethernet());
    for (to, size, reason) in [
        ("192.0.2.1", 56, "no-route"),
        ("2001:db8::1", 56, "no-route"),
        ("10.0.0.255", 56, "destination-not-unicast"),
        ("10.0.0.2", 1473, "exceeds-mtu"),
    ] {
        let results = ping(&mut stack, PingOptions { count: 2, size, ..PingOptions::to(addr(to)) });
        assert_eq!(results.len(), 2, "{to}");
        for result in results {
            assert!(
                matches!(result.outcome, PingOutcome::NotSent { reason: why, .. } if why == reason),
                "{to}: {result:?}"
            );
        }
    }
    assert_clean(&mut stack);
}

#[test]
fn addresses_of_our_own_answer_whichever_worker_is_asked() {
    let mut stack = stack_of(config(2), ethernet());
    for (to, worker) in [("10.0.0.1", 0), ("10.0.0.1", 1), ("fd00::1", 1)] {
        let options = PingOptions { worker: WorkerId(worker), count: 3, ..PingOptions::to(addr(to)) };
        let results = ping(&mut stack, options);
        assert_eq!(results.iter().map(|result| result.seq).collect::<Vec<_>>(), [1, 2, 3]);
        for result in results {
            assert!(
                matches!(result.outcome, PingOutcome::Reply { from, hop_limit: 64, bytes: 56, is_intact: true, .. } if from == addr(to)),
                "{to}: {result:?}"
            );
        }
    }
    // Of another domain it is no own address.
    let options = PingOptions { domain: DomainId(1), count: 1, ..PingOptions::to(addr("10.0.0.1")) };
    assert!(is_reply(&ping(&mut stack, options)[0]));
    assert_clean(&mut stack);
}

#[test]
fn a_neighbor_that_does_not_answer_fails_the_requests_that_wait_for_it() {
    for family in FAMILIES {
        let mut stack = stack_of(config(2), ethernet());
        let began = stack.now();
        let results = ping(&mut stack, PingOptions { count: 2, ..PingOptions::to(family.nobody().ip()) });
        assert_eq!(results.len(), 2);
        for result in &results {
            let PingOutcome::NotSent { reason, .. } = result.outcome else { panic!("{result:?}") };
            assert_eq!(reason, "neighbor-failed");
        }
        // Three questions, a second apart: before the time-out.
        assert!(stack.now().since(began) < Duration::from_secs(4));
    }
}

#[test]
fn nothing_comes_back_from_nobody_on_a_link_without_neighbors() {
    let mut stack = stack(1);
    let timeout = Duration::from_millis(700);
    let options = PingOptions { count: 1, timeout, ..PingOptions::to(addr("10.0.0.77")) };
    let [result] = ping(&mut stack, options)[..] else { panic!("one") };
    assert_eq!(result.outcome, PingOutcome::TimedOut { after_us: 700_000 });
}

/// What a router that cannot pass `packet` on says.
fn router_says(packet: &[u8], message: impl for<'a> Fn(&'a [u8]) -> icmpv4::Message<'a>) -> Vec<u8> {
    let (header, _) = ipv4::Header::parse(packet).expect("a packet of ours");
    let quote = &packet[..28];
    let message = message(quote);
    let router = [10, 0, 0, 254].into();
    let mut said = vec![0; ipv4::Header::LEN + message.len()];
    ipv4::Header::new(router, header.src, IpProtocol::ICMPV4, message.len()).emit(&mut said);
    message.emit(&mut said[ipv4::Header::LEN..]);
    said
}

#[test]
fn an_icmp_error_is_the_result_of_the_request_that_it_quotes() {
    let (device, far) = raw_ip("raw0", 1500);
    let mut stack = virtual_stack(config(2), [interface(device, CLIENT, 1)]);
    let options = PingOptions { hop_limit: 1, ..PingOptions::to(addr("10.0.0.9")) };
    let pinging = stack.ping(options).expect("good options");
    let mut outcomes = Vec::new();
    stack.run_until(Duration::from_secs(30), |_| {
        if let Some((_, packet)) = far.take() {
            assert_eq!(packet[8], 1, "the time to live asked for");
            far.send(router_says(&packet, |quote| match outcomes.len() {
                0 => icmpv4::Message::TimeExceeded { code: 0, quote },
                1 => icmpv4::Message::Unreachable { code: 13, mtu: 0, quote },
                2 => icmpv4::Message::Unreachable { code: 4, mtu: 1000, quote },
                _ => icmpv4::Message::Unreachable { code: 1, mtu: 0, quote },
            }));
        }
        match pinging.try_take() {
            Ok(result) => {
                outcomes.extend(result.map(|result| result.outcome));
                false
            }
            Err(PingOver) => true,
        }
    });
    let told: Vec<_> = outcomes
        .iter()
        .map(|outcome| match *outcome {
            PingOutcome::Error { from, kind, code, mtu, .. } => {
                assert_eq!(from, addr("10.0.0.254"));
                (kind, code, mtu)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("time-exceeded", 0, None),
        ("prohibited", 13, None),
        ("packet-too-big", 4, Some(1000)),
        ("host-unreachable", 1, None),
    ];
    assert_eq!(told, expected);
    assert_clean(&mut stack);
}

#[test]
fn a_reply_that_comes_after_its_time_out_is_dropped_as_unasked() {
    let slow = Impairments { delay_us: 400_000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(2), slow, slow);
    let timeout = Duration::from_millis(500);
    let options = PingOptions { count: 1, timeout, ..PingOptions::to(addr("10.0.0.2")) };
    let [result] = ping(&mut stack, options)[..] else { panic!("one") };
    assert_eq!(result.outcome, PingOutcome::TimedOut { after_us: 500_000 });
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(drops(&mut stack, "echo-unasked"), 1);
}

#[test]
fn pings_are_bounded_and_end_when_nobody_reads_their_results() {
    let mut stack = stack(1);
    let options = PingOptions { count: 1000, ..PingOptions::to(addr("10.0.0.2")) };
    let pingings: Vec<_> = (0..PINGS_MAX).map(|_| stack.ping(options).expect("room")).collect();
    assert_eq!(stack.ping(options).err(), Some(PingError::TooMany));
    drop(pingings);
    pass(&mut stack, Duration::from_secs(2));
    let answer = stack.inspect(Query::Summary).expect("running");
    let sent: u64 = answer.workers.iter().map(|worker| worker.tx_packets).sum();
    assert_eq!(stack.settle().next_deadline, None, "nothing is under way");
    pass(&mut stack, Duration::from_secs(60));
    let later: u64 = summary(&mut stack).workers.iter().map(|worker| worker.tx_packets).sum();
    assert_eq!(sent, later);
    assert!(stack.ping(options).is_ok());
}

#[test]
fn pings_whose_next_result_is_far_off_make_room_when_nobody_reads_them() {
    let mut stack = stack(1);
    let options = PingOptions { interval: Duration::from_secs(3600), ..PingOptions::to(addr("10.0.0.2")) };
    let pingings: Vec<_> = (0..PINGS_MAX).map(|_| stack.ping(options).expect("room")).collect();
    pass(&mut stack, Duration::from_secs(1));
    assert!(pingings.iter().all(|pinging| matches!(pinging.try_take(), Ok(Some(_)))));
    assert_eq!(stack.ping(options).err(), Some(PingError::TooMany));
    drop(pingings);
    assert!(stack.ping(options).is_ok());
}

#[test]
fn a_fast_ping_waits_for_a_bounded_number_of_answers() {
    let mut stack = stack(1);
    let options = PingOptions {
        count: 600,
        interval: PING_INTERVAL_MIN,
        timeout: Duration::from_secs(1),
        ..PingOptions::to(addr("10.0.0.77"))
    };
    let began = stack.now();
    let results = ping(&mut stack, options);
    assert_eq!(results.len(), 600);
    // 256 in each second: the third lot ends at the end of the third.
    assert!(stack.now().since(began) >= Duration::from_secs(3));
}

#[test]
fn a_bad_ping_is_refused_at_once() {
    let mut stack = stack(1);
    let good = PingOptions::to(addr("10.0.0.2"));
    assert_eq!(stack.ping(PingOptions { count: 0, ..good }).err(), Some(PingError::ZeroCount));
    assert_eq!(stack.ping(PingOptions { worker: WorkerId(1), ..good }).err(), Some(PingError::NoWorker));
    assert_eq!(stack.ping(PingOptions { domain: DomainId(9), ..good }).err(), Some(PingError::NoDomain));
}

#[test]
fn a_recorded_ping_replays_to_the_same_digest() {
    let lossy = Impairments { seed: 3, loss: 0.2, delay_us: 500, ..Impairments::default() };
    let world = || impaired_stack(config(2), lossy, lossy).0;
    let options = PingOptions { count: 20, ..PingOptions::to(addr("10.0.0.2")) };
    let mut stack = world();
    stack.record();
    let results = ping(&mut stack, options);
    let recording = stack.take_recording();
    let (a, b) = hoststack::net::memory_wire(MemoryWireConfig::default());
    let builder = hoststack::Stack::builder()
        .config(config(2))
        .interface(interface(a, CLIENT, 1))
        .interface(interface(b, SERVER, 2));
    let mut replay = hoststack::Stack::replay(builder, &recording).expect("the same configuration");
    let pinging = replay.ping(options).expect("good options");
    assert_eq!(replay.finish_replay(), recording.digest);
    let again: Vec<PingResult> = std::iter::from_fn(|| pinging.try_take().ok().flatten()).collect();
    assert_eq!(again, results);
}
