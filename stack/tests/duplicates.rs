//! A SYN that the network kept and delivers again, when its connection is long over.

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::{
    Device, DeviceCounters, DeviceQueue, Impairments, MemoryWireConfig, Packet, PacketPool, impair,
    memory_wire,
};
use hoststack_wire::MacAddr;
use parking_lot::Mutex;

/// What a [`Rewind`] keeps.
#[derive(Default)]
struct Kept {
    first: Option<Vec<u8>>,
    again: bool,
}

/// A device that keeps the first packet it received and receives it again when told to.
struct Rewind(Box<dyn Device>, Arc<Mutex<Kept>>);

impl Device for Rewind {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn mtu(&self) -> usize {
        self.0.mtu()
    }
    fn mac(&self) -> Option<MacAddr> {
        self.0.mac()
    }
    fn into_queues(self: Box<Self>, count: usize) -> std::io::Result<Vec<Box<dyn DeviceQueue>>> {
        let kept = self.1;
        let queues = self.0.into_queues(count)?.into_iter();
        Ok(queues.map(|queue| Box::new(RewindQueue(queue, kept.clone())) as Box<dyn DeviceQueue>).collect())
    }
}

struct RewindQueue(Box<dyn DeviceQueue>, Arc<Mutex<Kept>>);

impl DeviceQueue for RewindQueue {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        let before = into.len();
        let mut count = self.0.receive(now_us, pool, into, max);
        let mut kept = self.1.lock();
        if kept.first.is_none() {
            kept.first = into.get(before).map(|packet| packet.data().to_vec());
        }
        if kept.again && count < max {
            kept.again = false;
            into.extend(kept.first.as_deref().map(Packet::copy_of));
            count += 1;
        }
        count
    }
    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.0.transmit(now_us, pool, packets)
    }
    fn next_deadline_us(&self) -> Option<u64> {
        if self.1.lock().again { Some(0) } else { self.0.next_deadline_us() }
    }
    fn counters(&self) -> DeviceCounters {
        self.0.counters()
    }
}

/// The client closed first and is in TIME-WAIT; the server, which has forgotten the connection, takes the old SYN for
/// a new one. The two ends then disagree about everything: they may say so, but not answer each other for ever
/// (RFC 5961 §7 limits such acknowledgments).
//
// Found by `swarm`, seed 1814. In `tcp`: `TimeWait::judge` answers an empty acknowledgment that is out of its place,
// and `SynReceived::judge` answers one that is out of its window, each with an acknowledgment, without a limit.
#[test]
fn an_old_syn_does_not_set_time_wait_and_syn_received_against_each_other() {
    for bytes in [10, 200_000] {
        let delay = Impairments { delay_us: 500, ..Impairments::default() };
        let (a, b) = memory_wire(MemoryWireConfig::default());
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (a, b) = (impair(Box::new(a), delay), impair(Box::new(b), delay));
        let b = Rewind(Box::new(b), kept.clone());
        let mut stack = virtual_stack(config(1), [interface(a, CLIENT, 1), interface(b, SERVER, 2)]);
        let (log, server_log) = (Log::default(), Log::default());
        let server = serve(&mut stack, Probe::sink(&server_log), 80);
        let streams = Streams::default();
        let probe = Probe::new(&log, move |ctx, event| {
            if let Event::Connected(_, _, Ok(session)) | Event::Writable(session) = *event
                && streams.send(ctx, session, bytes)
            {
                ctx.close(session);
            }
        });
        let client = attach(&mut stack, "client", probe);
        stack.connect(client.app_workers[0], ConnectOptions::to(Family::V4.server(80))).unwrap();
        until(&mut stack, Duration::from_secs(60), || log.closed() == 1 && server_log.closed() == 1);
        pass(&mut stack, Duration::from_secs(1));
        let before = summary(&mut stack);
        assert_eq!(before.time_wait, 1);
        kept.lock().again = true;
        pass(&mut stack, Duration::from_secs(10));
        let after = summary(&mut stack);
        let packets = after.workers[0].rx_packets - before.workers[0].rx_packets;
        assert!(packets > 1, "the SYN came and was answered");
        assert!(packets < 200, "{packets} packets in 10 s about nothing");
        assert_eq!(server_log.accepted(), 1);
        finish(stack, &[&client, &server], &[&log, &server_log]);
    }
}
