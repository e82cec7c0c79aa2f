//! Devices that give packets to the wrong worker: everything still works, and the hand-over is counted.

mod common;

use std::sync::Arc;

use common::*;
use hoststack::app::*;
use hoststack::net::{
    Device, DeviceCounters, DeviceQueue, Impairments, MemoryWireConfig, Packet, PacketPool, impair,
    memory_wire,
};
use hoststack::{SingleThreaded, StackConfig};
use hoststack_wire::MacAddr;
use parking_lot::Mutex;

const LONG: Duration = Duration::from_secs(600);

/// A device of one hardware queue: worker 0 receives everything, all workers send.
struct OneQueue(Box<dyn Device>);

impl Device for OneQueue {
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
        let queue = self.0.into_queues(1)?.pop().expect("one was asked for");
        let queue = Arc::new(Mutex::new(queue));
        Ok((0..count)
            .map(|number| {
                Box::new(Shared { queue: queue.clone(), receives: number == 0 }) as Box<dyn DeviceQueue>
            })
            .collect())
    }
}

struct Shared {
    queue: Arc<Mutex<Box<dyn DeviceQueue>>>,
    receives: bool,
}

impl DeviceQueue for Shared {
    fn receive(&mut self, now_us: u64, pool: &mut PacketPool, into: &mut Vec<Packet>, max: usize) -> usize {
        if self.receives { self.queue.lock().receive(now_us, pool, into, max) } else { 0 }
    }
    fn transmit(&mut self, now_us: u64, pool: &mut PacketPool, packets: &mut Vec<Packet>) -> usize {
        self.queue.lock().transmit(now_us, pool, packets)
    }
    fn next_deadline_us(&self) -> Option<u64> {
        if self.receives { self.queue.lock().next_deadline_us() } else { None }
    }
    fn set_notify(&mut self, notify: Arc<dyn Fn() + Send + Sync>) {
        if self.receives {
            self.queue.lock().set_notify(notify);
        }
    }
    fn counters(&self) -> DeviceCounters {
        if self.receives { self.queue.lock().counters() } else { DeviceCounters::default() }
    }
}

fn echoes(mut stack: SingleThreaded, sessions: usize, bytes: u64) {
    let (log, server_log, streams) = (Log::default(), Log::default(), Streams::default());
    let server = serve(&mut stack, Probe::echo(&server_log), 80);
    let ours = streams.clone();
    let client = attach(
        &mut stack,
        "client",
        Probe::new(&log, move |ctx, event| match *event {
            Event::Connected(_, _, Ok(session)) | Event::Writable(session) => {
                ours.send(ctx, session, bytes);
            }
            Event::Readable(session) if ours.receive(ctx, session, usize::MAX) == bytes => ctx.close(session),
            _ => {}
        }),
    );
    // Port 81 refuses.
    for port in [80, 81] {
        for number in 0..sessions {
            let remote = FAMILIES[number % 2].server(port);
            stack.connect(client.app_workers[0], ConnectOptions::to(remote)).unwrap();
        }
    }
    until(&mut stack, LONG, || {
        log.closed() == sessions && server_log.closed() == sessions && log.cleaned() == 2 * sessions
    });
    let refused = Err(ConnectFailure::Refused);
    assert_eq!(log.outcomes().iter().filter(|(_, outcome)| *outcome == refused).count(), sessions);
    assert!(log.ends().iter().chain(&server_log.ends()).all(|end| *end == CloseReason::Finished));
    // Sessions live on all workers, though worker 0 received all packets.
    let workers: std::collections::BTreeSet<WorkerId> =
        log.sessions().iter().map(|session| session.worker()).collect();
    assert_eq!(workers.len(), 4);
    let answer = summary(&mut stack);
    let handed_over: Vec<u64> = answer.workers.iter().map(|worker| worker.handed_over).collect();
    assert!(handed_over[0] > 0 && handed_over[1..] == [0, 0, 0], "{handed_over:?}");
    finish(stack, &[&client, &server], &[&log, &server_log]);
}

fn one_queue_stack(config: StackConfig, macs: bool, bad: Impairments) -> SingleThreaded {
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let (a, b) =
        memory_wire(MemoryWireConfig { macs: macs.then(|| [mac(1), mac(2)]), ..MemoryWireConfig::default() });
    let (a, b) = (OneQueue(Box::new(impair(Box::new(a), bad))), OneQueue(Box::new(impair(Box::new(b), bad))));
    virtual_stack(config, [interface(a, CLIENT, 1), interface(b, SERVER, 2)])
}

// covers: H01, M05
#[test]
fn one_queue_serves_four_workers() {
    echoes(one_queue_stack(config(4), false, Impairments::default()), 100, 20_000);
}

#[test]
fn one_queue_serves_four_workers_over_ethernet() {
    echoes(one_queue_stack(config(4), true, Impairments::default()), 50, 20_000);
}

#[test]
fn one_queue_with_a_bad_link_serves_four_workers() {
    let bad = Impairments {
        seed: 3,
        loss: 0.03,
        reorder: 0.03,
        duplicate: 0.02,
        delay_us: 500,
        ..Impairments::default()
    };
    echoes(one_queue_stack(config(4), false, bad), 30, 20_000);
}

/// The ends of the wire are split differently: what the longer end's surplus queues send arrives elsewhere.
// covers: M05
#[test]
fn a_wire_with_one_end_of_one_queue_serves_four_workers() {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let stack =
        virtual_stack(config(4), [interface(OneQueue(Box::new(a)), CLIENT, 1), interface(b, SERVER, 2)]);
    echoes(stack, 100, 20_000);
}
