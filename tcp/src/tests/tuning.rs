//! Windows and buffers that grow with what is used of them.

use crate::drop_reason::DropReason;
use crate::testing::Exchange;

/// A receiver with a fifo of 1 MiB that offers 10000 bytes at first.
fn receiver(rtt_ms: u64) -> Exchange {
    let mut x = Exchange::established().scale(7).rtt_ms(rtt_ms).options(|options| {
        options.rx_window = 1 << 20;
        options.rx_window_initial = 10_000;
    });
    x.layer.rx_capacity = 1 << 20;
    x
}

/// Segments of 1000 bytes from `first` on, `count` of them, which the app reads at once if it `reads`.
fn arrive(x: &mut Exchange, first: u32, count: u32, reads: bool) {
    for n in 0..count {
        let seq = first + 1000 * n;
        x.gets([alloc::format!("{seq}:{}(1000) ack 1", seq + 1000).as_str()]);
        if reads {
            x.app_reads(1000);
        }
    }
}

#[test]
fn the_first_window_is_offered_until_the_app_reads() {
    let mut x = receiver(100);
    arrive(&mut x, 1, 10, false);
    // An app that reads nothing gets no more: all ten fill it, but for what the field rounds up.
    assert!(x.stats().rcv_wnd < 1000, "{}", x.stats().rcv_wnd);
}

#[test]
fn the_window_doubles_with_a_sender_that_doubles_and_stands_with_one_that_is_steady() {
    let mut x = receiver(100);
    let (mut first, mut count) = (1, 10);
    for _ in 0..4 {
        arrive(&mut x, first, count, true);
        first += 1000 * count;
        assert!(x.stats().rcv_wnd >= 2000 * count, "{} for {count} segments", x.stats().rcv_wnd);
        count *= 2;
        x.after(100);
    }
    let mut steady = || {
        arrive(&mut x, first, 80, true);
        first += 80_000;
        x.after(100);
        x.stats().rcv_wnd
    };
    let grown = steady();
    // 80 segments in a round trip: what there was for those that doubled is enough.
    assert!((160_000..400_000).contains(&grown), "{grown}");
    for _ in 0..20 {
        assert_eq!(steady(), grown);
    }
}

#[test]
fn without_timestamps_and_without_a_measured_handshake_the_window_itself_is_timed() {
    let mut x = receiver(0);
    // The SYN-ACK was answered at once: no round trip is shorter than a microsecond.
    for round in 0..50 {
        arrive(&mut x, 1 + 10_000 * round, 10, true);
        x.after(100);
    }
    assert!(x.stats().rcv_wnd < 150_000, "{}", x.stats().rcv_wnd);
}

#[test]
fn the_whole_fifo_is_offered_at_last() {
    let mut x = receiver(100);
    let (mut first, mut count) = (1, 10);
    for _ in 0..6 {
        arrive(&mut x, first, count, true);
        first += 1000 * count;
        count *= 2;
        x.after(100);
    }
    assert!(x.stats().rcv_wnd > (1 << 20) - 2000, "{}", x.stats().rcv_wnd);
}

#[test]
fn the_session_layer_hears_of_a_larger_congestion_window_and_not_of_a_smaller_one() {
    let mut x = Exchange::established();
    x.app_writes(40_000).gets([". ack 1001"]);
    assert_eq!(x.app_sees().tx_wanted, 2 * x.stats().cwnd);
    x.gets([". ack 5001"]);
    let wanted = x.app_sees().tx_wanted;
    assert_eq!(wanted, 2 * x.stats().cwnd);
    // A timeout.
    x.after(1000);
    assert!(x.stats().cwnd <= 2000);
    x.gets([". ack 6001"]);
    assert_eq!(x.app_sees().tx_wanted, wanted);
}

/// What the peer makes of the offers: how far right it may send, as bytes of its stream, and what the last one offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offered {
    right: u32,
    last: u32,
}

/// Looks at what was sent. No offer lies to the left of an earlier one, but by less than the field can say (RFC 7323
/// §2.4).
#[track_caller]
fn look(x: &mut Exchange, offered: &mut Offered) {
    let scale = x.stats().rcv_scale;
    for sent in x.out.sent.drain(..) {
        offered.last = u32::from(sent.header.wnd) << scale;
        // The peer's first byte is 0x1001.
        let edge = sent.header.ack.0 - 0x1001 + offered.last;
        assert!(edge + (1 << scale) > offered.right, "{edge} after {}", offered.right);
        offered.right = offered.right.max(edge);
    }
}

/// The peer sends all that it may, in segments of `len` bytes and the rest in a smaller one. How much it was, and what it
/// was offered. At most 3000 segments.
#[track_caller]
fn fill(x: &mut Exchange, len: u32) -> (u32, Offered) {
    let (mut at, mut offered) = (0, Offered { right: x.stats().rcv_wnd, last: 0 });
    for _ in 0..3000 {
        let len = len.min(offered.right - at);
        if len == 0 {
            break;
        }
        x.gets([alloc::format!("{}:{}({len}) ack 1", at + 1, at + len + 1).as_str()]);
        at += len;
        look(x, &mut offered);
    }
    // The acknowledgment of the last may be late.
    x.after(100);
    look(x, &mut offered);
    (at, offered)
}

// covers: SHLD-14
#[test]
fn an_app_that_reads_nothing_is_sent_no_more_than_its_fifo_holds_whatever_the_scale() {
    for (window, scale) in [(1 << 18, 3), (1 << 20, 5), (1 << 24, 9), (1 << 28, 13), (1 << 30, 14)] {
        for len in [100, 536, 1000] {
            let mut x = Exchange::established().scale(7).options(|options| options.rx_window = window);
            x.layer.rx_capacity = 200_001;
            let (sent, offered) = fill(&mut x, len);
            assert_eq!(x.stats().rcv_scale, scale);
            assert!(offered.right <= 200_001, "scale {scale}, {len} bytes: {offered:?}");
            assert!(sent == offered.right && sent > 200_001 - (2 << scale), "scale {scale}: {sent}");
            assert_eq!(offered.last, 0, "scale {scale}, {len} bytes");
            x.dropped(DropReason::ReceiveFull, 0);
            // All that was ever offered was taken. The app reads, and the peer hears of it.
            x.app_reads(sent as usize);
            let mut reopened = Offered::default();
            look(&mut x, &mut reopened);
            assert!(reopened.last > 200_001 - (2 << scale), "scale {scale}: {reopened:?}");
        }
    }
}

#[test]
fn a_window_that_has_not_grown_does_not_creep_when_nobody_reads() {
    for (window, scale) in [(1 << 20, 5), (1 << 28, 13), (1 << 30, 14)] {
        let mut x = Exchange::established().scale(7).rtt_ms(10).options(|options| {
            options.rx_window = window;
            options.rx_window_initial = 20_000;
        });
        x.layer.rx_capacity = window;
        let (_, offered) = fill(&mut x, 100);
        let least = 20_000.max(4 << scale);
        assert!(offered.right <= least && offered.right > least - (2 << scale), "{scale}: {offered:?}");
        assert_eq!(offered.last, 0, "scale {scale}");
    }
}

#[test]
fn a_first_window_below_a_segment_opens_again() {
    let mut x = Exchange::established().scale(7).options(|options| options.rx_window_initial = 100);
    let (sent, offered) = fill(&mut x, 100);
    assert_eq!((sent, offered.last), (100, 0));
    x.app_reads(100);
    let mut reopened = Offered::default();
    look(&mut x, &mut reopened);
    assert!(reopened.last >= 100, "{reopened:?}");
}
