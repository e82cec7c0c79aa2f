//! Path MTU discovery: what ICMP says and how far it is believed, and probing without ICMP.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hoststack_transport::SocketOption;

use crate::drop_reason::DropReason;
use crate::seed::IcmpError;
use crate::testing::Exchange;

/// What a path and the peer behind it do with packets: those above `limit` vanish, or those for which `loses` says so;
/// the others are acknowledged, out of order with SACK.
struct Far {
    /// The largest packet that arrives.
    limit: usize,
    /// Relative sequence numbers that arrived, as ranges.
    ranges: Vec<(u32, u32)>,
    /// Sizes of packets that vanished.
    vanished: Vec<usize>,
    /// Sizes of packets that arrived.
    arrived: Vec<usize>,
}

impl Far {
    fn new(limit: usize) -> Far {
        Far { limit, ranges: [(0, 1)].into(), vanished: Vec::new(), arrived: Vec::new() }
    }

    /// One round trip of `ms`: takes what was sent, acknowledges what arrives. Returns whether anything was sent.
    fn round(&mut self, x: &mut Exchange, ms: u64) -> bool {
        self.round_losing(x, ms, |_, _| false)
    }

    /// The same; what `loses` chooses by its sequence number and packet size is lost by chance.
    fn round_losing(&mut self, x: &mut Exchange, ms: u64, mut loses: impl FnMut(u32, usize) -> bool) -> bool {
        let sent: Vec<_> = x.out.sent.drain(..).filter(|sent| !sent.payload.is_empty()).collect();
        let has_sent = !sent.is_empty();
        x.after(ms);
        for sent in sent {
            let seq = sent.header.seq.since(x.iss());
            let options = if sent.header.options.timestamps.is_some() { 12 } else { 0 };
            let size = 40 + options + sent.payload.len();
            if size > self.limit || loses(seq, size) {
                self.vanished.push(size);
                continue;
            }
            self.arrived.push(size);
            // One after the other: what is sent at once counts as sent in the order of the stream (RFC 8985 §6.2).
            x.after(1);
            let end = seq + sent.payload.len() as u32;
            self.ranges.push((seq, end));
            self.ranges.sort_unstable();
            self.ranges = self.ranges.drain(..).fold(Vec::new(), |mut joined, (start, end)| {
                match joined.last_mut() {
                    Some((_, last)) if *last >= start => *last = end.max(*last),
                    _ => joined.push((start, end)),
                }
                joined
            });
            let mut beyond: Vec<_> = self.ranges[1..].to_vec();
            beyond.sort_by_key(|&(start, _)| start != seq);
            beyond.truncate(3);
            let blocks: Vec<String> = beyond.iter().map(|(start, end)| format!("{start}:{end}")).collect();
            let sack = if blocks.is_empty() { String::new() } else { format!(" sack {}", blocks.join(" ")) };
            x.gets([format!(". ack {}{sack}", self.ranges[0].1).as_str()]);
        }
        has_sent
    }

    /// How far the peer has the stream, relative.
    fn received(&self) -> u32 {
        self.ranges[0].1 - 1
    }
}

fn probing() -> Exchange {
    Exchange::established().mss(1460).sack().rtt_ms(20).options(|options| options.mtu_probing = true)
}

/// `probing` after ICMP made segments small, and ten minutes have passed: the search may begin.
fn narrowed(mtu: u16) -> Exchange {
    let mut x = probing();
    x.app_writes(1460).sends(["P. 1:1461(1460)"]);
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu }).sent();
    assert_eq!((x.info().mss, x.stats().path_mtu), (mtu - 40, mtu));
    x.after(20).gets([". ack 1461"]).sends_nothing();
    x.after(600_000);
    x
}

/// Writes and lets the far end take it until `bytes` of it have arrived.
#[track_caller]
fn transfer(x: &mut Exchange, far: &mut Far, bytes: u32) {
    let end = far.received() + bytes;
    x.app_writes(bytes as usize);
    let mut rounds = 0;
    while far.received() < end {
        far.round(x, 20);
        rounds += 1;
        assert!(rounds < 10_000, "{} of {end} bytes arrived: {:?}", far.received(), x.info());
    }
    while far.round(x, 20) {}
}

#[test]
fn after_ten_minutes_a_probe_finds_that_the_path_is_wide_again() {
    let mut x = narrowed(1000);
    let mut far = Far::new(1500);
    far.ranges = [(0, 1461)].into();
    let cwnd = x.info().cwnd;
    x.app_writes(40_000);
    // The largest first; it goes alone, and what follows is as small as before.
    let sent = x.out.sent.iter().map(|sent| sent.payload.len()).collect::<Vec<_>>();
    assert_eq!(sent[..3], [1460, 960, 960]);
    assert_eq!(sent.iter().filter(|&&len| len > 960).count(), 1, "one probe at a time");
    assert!(sent.iter().sum::<usize>() <= cwnd as usize);
    assert_eq!(x.info().mss, 960, "not before it arrived");
    far.round(&mut x, 20);
    assert_eq!((x.info().mss, x.stats().path_mtu), (1460, 1500));
    assert!(x.out.sent.iter().any(|sent| sent.payload.len() == 1460));
    assert_eq!((x.engine.counters().mtu_probes, x.engine.counters().mtu_probes_lost), (1, 0));
}

#[test]
fn without_the_option_nothing_is_probed() {
    let mut x = Exchange::established().mss(1460).sack().rtt_ms(20);
    x.out.mtu = 1000;
    x.app_writes(1460).gets_icmp(1, IcmpError::PacketTooBig { mtu: 1000 });
    let mut far = Far::new(1500);
    transfer(&mut x, &mut far, 400_000);
    assert_eq!((x.info().mss, x.engine.counters().mtu_probes), (960, 0));
}

#[test]
fn a_probe_that_is_lost_alone_is_no_congestion() {
    let mut x = narrowed(1000);
    x.app_writes(30_000);
    let (cwnd, ssthresh) = (x.info().cwnd, x.info().ssthresh);
    let end = x.info().snd_nxt.since(x.info().iss);
    let first = x.out.sent.front().map(|sent| sent.payload.len());
    assert_eq!(first, Some(1460));
    x.sent();
    x.after(20).gets([". ack 1461 sack 2921:3881", ". ack 1461 sack 2921:4841"]);
    x.sent();
    x.gets([". ack 1461 sack 2921:5801"]);
    // What it carried goes again in segments that pass.
    let again = x.sent();
    assert!(again[0].contains("1461:2421(960)") && again[1].contains("2421:2921(500)"), "{again:?}");
    assert!(x.info().cwnd >= cwnd && x.info().ssthresh == ssthresh, "{:?}", x.info());
    let counters = *x.engine.counters();
    assert_eq!((counters.mtu_probes, counters.mtu_probes_lost), (1, 1));
    assert_eq!((counters.fast_retransmits, counters.rtos), (0, 0));
    // All that was sent before the repair.
    x.after(20).gets([&format!(". ack {end}")]);
    assert_eq!((x.info().recovery, x.info().mss), ("open", 960));
    assert!(x.info().cwnd >= cwnd && x.info().ssthresh == ssthresh);
}

#[test]
fn a_probe_that_is_lost_with_others_is_congestion_and_says_nothing_of_the_path() {
    let mut x = narrowed(1000);
    let cwnd = x.info().cwnd;
    x.app_writes(30_000).sent();
    // The probe and the segment after it.
    x.after(20).gets([". ack 1461 sack 3881:4841", ". ack 1461 sack 3881:5801", ". ack 1461 sack 3881:7721"]);
    assert!(x.info().ssthresh < cwnd && x.info().recovery == "recovery", "{:?}", x.info());
    assert_eq!(x.engine.counters().mtu_probes_lost, 0);
    assert_eq!(x.engine.counters().fast_retransmits, 1);
    assert_eq!(x.info().mss, 960);
}

#[test]
fn a_loss_while_a_probes_data_is_sent_again_is_congestion() {
    let mut x = narrowed(1000);
    let cwnd = x.info().cwnd;
    x.app_writes(30_000).sent();
    x.after(20).gets([". ack 1461 sack 2921:3881", ". ack 1461 sack 2921:5801"]);
    assert_eq!((x.engine.counters().mtu_probes_lost, x.info().recovery), (1, "loss"));
    // 5801:6761 is lost, too.
    x.gets([". ack 1461 sack 6761:7721 2921:5801", ". ack 1461 sack 6761:9641 2921:5801"]);
    assert_eq!((x.engine.counters().fast_retransmits, x.info().recovery), (1, "recovery"));
    assert!(x.info().ssthresh < cwnd);
}

#[test]
fn the_search_ends_at_what_passes() {
    for limit in [1000, 1006, 1280, 1400, 1492, 1499, 1500] {
        let mut x = narrowed(1000);
        let mut far = Far::new(limit);
        far.ranges = [(0, 1461)].into();
        for _ in 0..40 {
            transfer(&mut x, &mut far, 50_000);
            x.after(1000);
        }
        let found = usize::from(x.stats().path_mtu);
        assert!(found <= limit && limit - found < 8, "{found} of {limit}");
        let counters = *x.engine.counters();
        assert_eq!(counters.mtu_probes_lost, far.vanished.len() as u64);
        assert_eq!((counters.rtos, counters.fast_retransmits, counters.black_holes), (0, 0, 0), "{limit}");
        assert_eq!(counters.tail_losses_repaired, 0, "no probe was congestion");
        // Three of each size, no size above one that was refused, halfway between what passed and what did not.
        assert!(counters.mtu_probes_lost <= 3 * 8, "{limit}: {:?}", far.vanished);
        assert!(far.vanished.is_sorted_by(|a, b| a >= b), "{limit}: {:?}", far.vanished);
        // Then it rests for ten minutes.
        let probes = counters.mtu_probes;
        transfer(&mut x, &mut far, 50_000);
        assert_eq!(x.engine.counters().mtu_probes, probes);
        x.after(600_000);
        far.limit = 1500;
        transfer(&mut x, &mut far, 50_000);
        assert_eq!(x.stats().path_mtu, 1500, "the path that got wider is found");
    }
}

#[test]
fn a_probe_lost_by_chance_is_tried_again() {
    let mut x = narrowed(1000);
    let mut far = Far::new(1500);
    far.ranges = [(0, 1461)].into();
    let mut left = 2;
    for _ in 0..10 {
        x.app_writes(40_000);
        let mut is_unlucky = |_, size| {
            let is_unlucky = size > 1000 && left > 0;
            left -= i32::from(is_unlucky);
            is_unlucky
        };
        while far.round_losing(&mut x, 20, &mut is_unlucky) {}
        x.after(1000);
    }
    assert_eq!((x.engine.counters().mtu_probes_lost, x.stats().path_mtu), (2, 1500));
}

#[test]
fn no_probe_is_beyond_the_peers_mss_the_option_or_the_interface() {
    for (peer, max, interface, largest) in
        [(1200, None, 1500, 1240), (1460, Some(1100), 1500, 1140), (1460, None, 1300, 1300)]
    {
        let mut x = probing().mss(peer).mtu(interface);
        x.app_writes(1000).sent();
        x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 800 });
        if let Some(max) = max {
            x.app_sets(SocketOption::MssMax(max));
        }
        let mut far = Far::new(9000);
        transfer(&mut x, &mut far, 20_000);
        x.after(600_000);
        transfer(&mut x, &mut far, 200_000);
        assert_eq!(far.arrived.iter().max(), Some(&largest));
        assert_eq!(usize::from(x.info().mss) + 40, largest);
    }
}

#[test]
fn probes_wait_for_data_windows_and_sack() {
    // Without SACK it would not be known what was lost.
    let mut x = Exchange::established().mss(1460).rtt_ms(20).options(|options| options.mtu_probing = true);
    x.app_writes(1460).gets_icmp(1, IcmpError::PacketTooBig { mtu: 1000 });
    x.gets([". ack 1461"]).after(600_000).app_writes(40_000);
    assert_eq!(x.engine.counters().mtu_probes, 0);
    // Four segments must follow.
    let mut x = narrowed(1000);
    x.app_writes(1460 + 4 * 960 - 1).after(20);
    assert_eq!(x.engine.counters().mtu_probes, 0);
    let mut x = narrowed(1000);
    x.app_writes(1460 + 4 * 960);
    assert_eq!(x.engine.counters().mtu_probes, 1);
    // The peer's window is too small for it.
    let mut x = narrowed(1000);
    x.gets([". ack 1461 win 5000"]).app_writes(40_000);
    assert_eq!(x.engine.counters().mtu_probes, 0);
}

#[test]
fn a_black_hole_is_found_after_two_timeouts_and_the_size_that_passes_after_it() {
    for limit in [600, 1240, 1400] {
        let mut x = probing();
        let mut far = Far::new(1500);
        transfer(&mut x, &mut far, 50_000);
        assert_eq!(x.stats().path_mtu, 1500);
        far.limit = limit;
        transfer(&mut x, &mut far, 50_000);
        let counters = *x.engine.counters();
        assert_eq!(counters.black_holes, 1, "{limit}");
        assert_eq!(counters.rtos, if limit < 1200 { 3 } else { 2 }, "{limit}");
        for _ in 0..40 {
            transfer(&mut x, &mut far, 50_000);
            x.after(1000);
        }
        let found = usize::from(x.stats().path_mtu);
        assert!(found <= limit && limit - found < 8, "{found} of {limit}");
        assert_eq!(x.engine.counters().rtos, counters.rtos, "{limit}");
    }
}

#[test]
fn without_the_option_a_black_hole_stays_one() {
    let mut x = Exchange::established().mss(1460).sack().rtt_ms(20);
    let mut far = Far::new(1400);
    x.app_writes(50_000);
    (0..200).for_each(|_| {
        far.round(&mut x, 20);
    });
    assert_eq!((far.received(), x.info().mss), (0, 1460));
}

#[test]
fn an_outage_is_taken_for_a_black_hole_and_one_probe_mends_it() {
    let mut x = probing();
    let mut far = Far::new(1500);
    transfer(&mut x, &mut far, 50_000);
    far.limit = 0;
    x.app_writes(100_000);
    for (rtos, path_mtu) in [(1, 1500), (2, 1200), (3, 552), (4, 552)] {
        while x.engine.counters().rtos < rtos {
            far.round(&mut x, 20);
        }
        assert_eq!((x.stats().path_mtu, x.engine.counters().black_holes), (path_mtu, 0), "nothing passed");
    }
    far.limit = 1500;
    transfer(&mut x, &mut far, 100_000);
    assert_eq!((x.stats().path_mtu, x.engine.counters().mtu_probes), (1500, 1));
}

#[test]
fn a_single_large_segment_gets_through_a_black_hole() {
    for (limit, path_mtu) in [(1240, 1200), (700, 552)] {
        let mut x = probing();
        let mut far = Far::new(limit);
        transfer(&mut x, &mut far, 1300);
        assert_eq!((x.engine.counters().black_holes, x.stats().path_mtu), (1, path_mtu));
        // Less than BASE_PLPMTU, and yet too much.
        let mut x = probing();
        let mut far = Far::new(700);
        transfer(&mut x, &mut far, 900);
        assert_eq!((x.engine.counters().rtos, x.stats().path_mtu), (2, 552));
    }
}

#[test]
fn small_segments_that_time_out_are_no_black_hole() {
    let mut x = probing();
    x.app_writes(100).after(10_000);
    assert!(x.engine.counters().rtos > 3);
    assert_eq!((x.info().mss, x.stats().path_mtu), (1460, 1500));
}

#[test]
fn icmp_about_a_probe_names_the_next() {
    let mut x = narrowed(1000);
    let mut far = Far::new(1400);
    far.ranges = [(0, 1461)].into();
    x.app_writes(60_000);
    x.gets_icmp(1461, IcmpError::PacketTooBig { mtu: 1400 });
    assert_eq!((x.info().mss, x.info().recovery), (960, "open"), "the others pass");
    while far.round(&mut x, 20) {}
    x.after(1000);
    transfer(&mut x, &mut far, 60_000);
    assert_eq!((far.vanished.as_slice(), x.stats().path_mtu), ([1500].as_slice(), 1400));
}

#[test]
fn icmp_that_contradicts_what_arrived_waits_for_a_timeout() {
    let mut x = Exchange::established().mss(1460).sack().rtt_ms(20);
    let mut far = Far::new(1500);
    transfer(&mut x, &mut far, 14_600);
    let end = far.received();
    // A lie: what it quotes arrives.
    x.app_writes(1460).sent();
    x.gets_icmp(end + 1, IcmpError::PacketTooBig { mtu: 1000 })
        .sends_nothing()
        .dropped(DropReason::IcmpMtuUnproven, 1);
    assert_eq!(x.info().mss, 1460);
    x.gets([format!(". ack {}", end + 1461).as_str()]);
    // And is forgotten, whatever times out later.
    x.app_writes(1460).after(2000);
    assert!(x.engine.counters().rtos > 0);
    assert_eq!(x.info().mss, 1460);
    x.gets([format!(". ack {}", end + 2921).as_str()]).sent();
    // The path did change: what it quotes times out.
    x.app_writes(1460).sent();
    x.gets_icmp(end + 2921, IcmpError::PacketTooBig { mtu: 1000 }).dropped(DropReason::IcmpMtuUnproven, 2);
    let rtos = x.engine.counters().rtos;
    while x.engine.counters().rtos == rtos {
        x.sent();
        x.after(10);
    }
    assert_eq!((x.info().mss, x.stats().path_mtu), (960, 1000));
    assert_eq!(x.out.sent.front().map(|sent| sent.payload.len()), Some(960));
}

#[test]
fn icmp_below_what_never_arrived_counts_at_once() {
    // Small segments arrived, a full one did not.
    let mut x = Exchange::established().mss(1460);
    x.app_writes(500).sent();
    x.gets([". ack 501"]).app_writes(1460).sends(["P. 501:1961(1460)"]);
    x.gets_icmp(501, IcmpError::PacketTooBig { mtu: 1000 }).sends([". 501:1461(960)", "P. 1461:1961(500)"]);
}

#[test]
fn a_segment_that_was_sent_again_in_pieces_does_not_count_as_arrived() {
    let mut x = Exchange::established().mss(1460);
    x.app_writes(1460).sends(["P. 1:1461(1460)"]);
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 1000 }).sends([". 1:961(960)", "P. 961:1461(500)"]);
    x.gets([". ack 1461"]).app_writes(960).sends(["P. 1461:2421(960)"]);
    x.gets_icmp(1461, IcmpError::PacketTooBig { mtu: 800 });
    assert_eq!(x.info().mss, 760, "none of 960 is known to have arrived");
}

#[test]
fn icmp_never_raises_the_size() {
    let mut x = Exchange::established().mss(1000);
    x.app_writes(1000).sends(["P. 1:1001(1000)"]);
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 1400 })
        .sends_nothing()
        .dropped(DropReason::IcmpMtuLarger, 1);
    assert_eq!((x.info().mss, x.stats().path_mtu), (1000, 1500));
}

#[test]
fn icmp_about_a_syn_lowers_what_it_announces_but_not_below_what_paths_take() {
    let mut x = Exchange::syn_sent();
    for (mtu, mss) in [(1000, 960), (1400, 960), (68, 512)] {
        x.gets_icmp(0, IcmpError::PacketTooBig { mtu }).sends_nothing();
        while x.out.sent.is_empty() {
            x.after(100);
        }
        assert_eq!(x.out.sent.pop_front().and_then(|syn| syn.header.options.mss), Some(mss));
    }
}

#[test]
fn what_icmp_told_ends_after_ten_minutes() {
    let mut x = Exchange::established().mss(1460);
    x.app_writes(1460).sent();
    x.gets_icmp(1, IcmpError::PacketTooBig { mtu: 1000 }).sent();
    x.gets([". ack 1461"]);
    x.after(590_000).app_writes(960).sends(["P. 1461:2421(960)"]).gets([". ack 2421"]);
    assert_eq!(x.info().mss, 960);
    // The way out still knows that it is narrow.
    x.out.mtu = 1200;
    x.after(80_000).app_writes(1460).sends([". 2421:3581(1160)"]).gets([". ack 3581"]);
    x.sends(["P. 3581:3881(300)"]).gets([". ack 3881"]);
    x.out.mtu = 1500;
    x.after(80_000).app_writes(1460).sends(["P. 3881:5341(1460)"]);
    assert_eq!(x.stats().path_mtu, 1500);
}

#[test]
fn a_connection_that_began_on_a_narrow_path_follows_it_when_it_is_wide() {
    let mut x = Exchange::established().mss(1460).mtu(1000);
    x.app_writes(960).sends(["P. 1:961(960)"]).gets([". ack 961"]);
    x.out.mtu = 1500;
    x.after(70_000).app_writes(1460).sends(["P. 961:2421(1460)"]);
    // And when others heard that it became narrow.
    x.gets([". ack 2421"]).out.mtu = 1200;
    x.after(70_000).app_writes(1160).sends(["P. 2421:3581(1160)"]);
    assert_eq!((x.info().mss, x.stats().path_mtu), (1160, 1200));
}

#[test]
fn a_connection_that_probes_searches_when_the_path_may_be_wider() {
    let mut x = probing().mtu(1000);
    let mut far = Far::new(1300);
    transfer(&mut x, &mut far, 50_000);
    assert_eq!((x.info().mss, x.engine.counters().mtu_probes), (960, 0), "the way out takes no more");
    x.out.mtu = 1500;
    x.after(70_000);
    for _ in 0..30 {
        transfer(&mut x, &mut far, 50_000);
        x.after(1000);
    }
    let found = usize::from(x.stats().path_mtu);
    assert!(found <= 1300 && 1300 - found < 8, "{found}");
}

#[test]
fn mss_max_bounds_what_is_announced_and_what_is_sent() {
    let mut x = Exchange::listen().mss(1460).options(|options| options.mss_max = Some(900));
    x.gets(["S 0:0(0) win 65535 <mss 1460>"]);
    let syn_ack = x.out.sent.back().expect("a SYN-ACK").header;
    assert_eq!(syn_ack.options.mss, Some(900));
    let mut x = Exchange::established().mss(1460).options(|options| options.mss_max = Some(900));
    x.app_writes(1800).sends([". 1:901(900)", "P. 901:1801(900)"]);
    // Options take their part of it (RFC 6691 §2).
    let mut x = Exchange::established().mss(1460).timestamps().options(|options| options.mss_max = Some(900));
    x.app_writes(1776);
    assert_eq!(x.out.sent.iter().map(|sent| sent.payload.len()).collect::<Vec<_>>(), [888, 888]);
    // And it holds when the path gets wider.
    x.gets([". ack 1777"]).after(700_000).app_writes(888);
    assert_eq!((x.info().mss, x.out.sent.back().map(|sent| sent.payload.len())), (888, Some(888)));
}
