use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex};

use proptest::prelude::*;

use super::*;

struct End {
    queue: Box<dyn DeviceQueue>,
    pool: PacketPool,
    in_vector: Vec<Packet>,
    out_vector: Vec<Packet>,
}

impl End {
    fn new(queue: Box<dyn DeviceQueue>) -> End {
        End { queue, pool: PacketPool::default(), in_vector: Vec::new(), out_vector: Vec::new() }
    }

    /// Offers `numbers` as packets behind what waits; tells how many the wire took.
    fn send(&mut self, numbers: impl IntoIterator<Item = u32>) -> usize {
        for number in numbers {
            let mut packet = self.pool.take();
            packet.extend(&number.to_be_bytes());
            self.out_vector.push(packet);
        }
        self.queue.transmit(0, &mut self.pool, &mut self.out_vector)
    }

    fn receive(&mut self, max: usize) -> Vec<u32> {
        let count = self.queue.receive(0, &mut self.pool, &mut self.in_vector, max);
        assert_eq!(count, self.in_vector.len());
        let numbers =
            self.in_vector.iter().map(|p| u32::from_be_bytes(p.data().try_into().unwrap())).collect();
        self.pool.give_all(&mut self.in_vector);
        numbers
    }
}

fn ends_split(config: MemoryWireConfig, a: usize, b: usize) -> (Vec<End>, Vec<End>) {
    let (end_a, end_b) = memory_wire(config);
    let queues = |end: MemoryWire, count| {
        Box::new(end).into_queues(count).unwrap().into_iter().map(End::new).collect()
    };
    (queues(end_a, a), queues(end_b, b))
}

fn ends(ring_packets: usize) -> (End, End) {
    let (mut a, mut b) = ends_split(MemoryWireConfig { ring_packets, ..MemoryWireConfig::default() }, 1, 1);
    (a.remove(0), b.remove(0))
}

#[test]
fn packets_arrive_in_order_both_ways() {
    let (mut a, mut b) = ends(16);
    assert_eq!(a.send(0..3), 3);
    assert_eq!(a.send(3..4), 1);
    assert_eq!(b.send([7]), 1);
    assert_eq!(b.queue.next_deadline_us(), Some(0));
    assert_eq!(b.receive(100), [0, 1, 2, 3]);
    assert_eq!(b.queue.next_deadline_us(), None);
    assert_eq!(a.receive(100), [7]);
    assert!(a.receive(100).is_empty());
    let counters = (a.queue.counters(), b.queue.counters());
    assert_eq!((counters.0.tx_packets, counters.0.tx_bytes, counters.0.rx_packets), (4, 16, 1));
    assert_eq!((counters.1.rx_packets, counters.1.rx_bytes, counters.1.tx_packets), (4, 16, 1));
}

#[test]
fn full_ring_takes_fewer_and_keeps_the_rest_with_the_sender() {
    let (mut a, mut b) = ends(5);
    assert_eq!(a.send(0..3), 3);
    assert_eq!(a.send(3..8), 2);
    assert_eq!(a.out_vector.len(), 3);
    assert_eq!(a.send([]), 0);
    assert_eq!(a.queue.counters().tx_full, 2);
    assert_eq!(a.queue.next_deadline_us(), Some(FULL_RETRY_US));
    assert_eq!(b.receive(3), [0, 1, 2]);
    assert_eq!(a.send([]), 3);
    assert_eq!(b.receive(9), [3, 4, 5, 6, 7]);
    assert_eq!(a.queue.next_deadline_us(), None);
}

#[test]
fn deadline_of_a_full_ring_is_served_by_receive() {
    let (mut a, _b) = ends(2);
    a.send(0..3);
    a.pool.give_all(&mut a.out_vector);
    let mut none = Vec::new();
    a.queue.receive(FULL_RETRY_US - 1, &mut a.pool, &mut none, 1);
    assert_eq!(a.queue.next_deadline_us(), Some(FULL_RETRY_US));
    a.queue.receive(FULL_RETRY_US, &mut a.pool, &mut none, 1);
    assert_eq!(a.queue.next_deadline_us(), None);
}

#[test]
fn burst_limit_splits_a_batch_and_leaves_a_deadline() {
    let (mut a, mut b) = ends(64);
    a.send(0..10);
    a.send(10..12);
    assert_eq!(b.receive(4), [0, 1, 2, 3]);
    assert_eq!(b.queue.next_deadline_us(), Some(0));
    assert_eq!(b.receive(4), [4, 5, 6, 7]);
    assert_eq!(b.receive(3), [8, 9, 10]);
    assert_eq!(b.receive(3), [11]);
    assert_eq!(b.queue.next_deadline_us(), None);
}

#[test]
fn too_long_packet_is_dropped_and_counted_and_others_pass() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let config = MemoryWireConfig { macs: Some([mac, mac]), mtu: 100, ..MemoryWireConfig::default() };
    let (mut a, mut b) = ends_split(config, 1, 1);
    a[0].out_vector.push(Packet::copy_of(&[0; 115]));
    a[0].out_vector.push(Packet::copy_of(&[1; 114]));
    assert_eq!(a[0].send([9]), 3);
    let b = &mut b[0];
    let count = b.queue.receive(0, &mut PacketPool::default(), &mut b.in_vector, 9);
    assert_eq!((count, b.in_vector[0].len()), (2, 114));
    assert_eq!(a[0].queue.counters().tx_dropped_too_long, 1);
    assert_eq!(a[0].queue.counters().tx_packets, 2);
}

#[test]
fn without_a_peer_packets_are_taken_and_counted() {
    let (mut a, b) = ends(4);
    drop(b);
    assert_eq!(a.send(0..3), 3);
    assert_eq!(a.send(0..3), 3);
    assert_eq!(a.queue.counters().tx_dropped_no_peer, 6);
    assert_eq!(a.pool.allocated(), 3);
    let (end, other) = memory_wire(MemoryWireConfig::default());
    let mut queues = Box::new(end).into_queues(1).unwrap();
    drop(other);
    let mut packets = vec![Packet::copy_of(b"x")];
    assert_eq!(queues[0].transmit(0, &mut PacketPool::default(), &mut packets), 1);
    assert_eq!(queues[0].counters().tx_dropped_no_peer, 1);
}

#[test]
fn receiver_is_notified_once_per_filling_of_an_empty_ring() {
    let (mut a, mut b) = ends(16);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    b.queue.set_notify(Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    a.send(0..2);
    a.send(2..4);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    b.receive(100);
    a.send(4..5);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn sender_that_found_the_ring_full_is_notified_when_it_drains() {
    let (mut a, mut b) = ends(2);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    a.queue.set_notify(Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    a.send(0..2);
    b.receive(1);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    a.send(2..5);
    a.send([]);
    b.receive(9);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn ends_split_differently_lose_nothing() {
    for (count_a, count_b) in [(1, 3), (3, 1), (2, 3), (4, 2)] {
        let (mut a, mut b) = ends_split(MemoryWireConfig::default(), count_a, count_b);
        for (index, end) in (0..).zip(a.iter_mut()) {
            assert_eq!(end.send([index]), 1);
        }
        for (index, end) in (0..).zip(b.iter_mut()) {
            assert_eq!(end.send([index]), 1);
        }
        let collect = |ends: &mut Vec<End>| {
            let mut all: Vec<u32> = ends.iter_mut().flat_map(|end| end.receive(100)).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(collect(&mut b), (0..count_a as u32).collect::<Vec<_>>());
        assert_eq!(collect(&mut a), (0..count_b as u32).collect::<Vec<_>>());
    }
}

#[test]
fn one_way_flow_allocates_no_buffers_in_steady_state() {
    for batch in [1, 7, 32, 200] {
        let (mut a, mut b) = ends(1024);
        let mut round = || {
            assert_eq!(a.send(0..batch), batch as usize);
            assert_eq!(b.receive(1000).len(), batch as usize);
            a.pool.allocated()
        };
        let warm = (0..2000).map(|_| round()).last();
        assert_eq!((0..2000).map(|_| round()).last(), warm);
        assert!(warm < Some(1500));
        assert_eq!(b.pool.released(), 0);
    }
}

/// A receiver that sleeps until it is notified must miss nothing, and a sender that waits for room must be woken.
#[test]
fn threads_that_sleep_until_notified_never_hang() {
    #[derive(Default)]
    struct Bell(Mutex<bool>, Condvar);
    impl Bell {
        fn ring(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
        fn wait(&self) {
            let mut rung = self.0.lock().unwrap();
            while !*rung {
                let (guard, timeout) = self.1.wait_timeout(rung, std::time::Duration::from_secs(20)).unwrap();
                assert!(!timeout.timed_out(), "nobody rang");
                rung = guard;
            }
            *rung = false;
        }
    }
    const TOTAL: u32 = 200_000;
    let (mut a, mut b) = ends(64);
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    for (end, bell) in [&mut a, &mut b].into_iter().zip(&bells) {
        let bell = Arc::clone(bell);
        end.queue.set_notify(Arc::new(move || bell.ring()));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 0;
            let mut size = 1;
            while next < TOTAL || !a.out_vector.is_empty() {
                let end = (next + size).min(TOTAL);
                a.send(next..end);
                next = end;
                size = size % 97 + 1;
                while !a.out_vector.is_empty() {
                    if a.send([]) == 0 {
                        bells[0].wait();
                    }
                }
            }
        });
        let mut expected = 0;
        while expected < TOTAL {
            let numbers = b.receive(37);
            if numbers.len() < 37 && expected + (numbers.len() as u32) < TOTAL {
                bells[1].wait();
            }
            for number in numbers {
                assert_eq!(number, expected);
                expected += 1;
            }
        }
    });
    assert_eq!(b.queue.counters().rx_packets, u64::from(TOTAL));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn wire_is_a_bounded_fifo(
        ring in 1usize..40,
        ops in prop::collection::vec((any::<bool>(), 0usize..30), 1..200),
    ) {
        let (mut a, mut b) = ends(ring);
        // Numbers in the ring proper, numbers that a burst limit left at the receiver, numbers not taken yet.
        let mut wire: VecDeque<u32> = VecDeque::new();
        let mut next = 0;
        let mut waiting = 0;
        for (send, size) in ops {
            if send {
                let end = next + size as u32;
                let taken = a.send(next..end);
                waiting += size;
                next = end;
                wire.extend(next - waiting as u32..next - (waiting - taken) as u32);
                waiting -= taken;
                prop_assert_eq!(a.out_vector.len(), waiting);
                // The receiver's unfinished batch no longer counts against the ring.
                prop_assert!(wire.len() <= 2 * ring);
            } else {
                let got = b.receive(size);
                prop_assert_eq!(got.len(), size.min(wire.len()));
                prop_assert_eq!(got, wire.drain(..size.min(wire.len())).collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(b.receive(10_000).len(), wire.len());
    }
}
