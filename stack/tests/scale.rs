//! 100 000 established sessions at once, opened outbound over several addresses, looked at, and detached.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::{InterfaceSpec, Query, SessionLimits, StackConfig};

const SESSIONS: usize = 100_000;

/// Counts instead of logging: 100 000 sessions are told some million things.
#[derive(Clone, Default)]
struct Counts {
    up: Counter,
    failed: Counter,
    closed: Counter,
    cleaned: Counter,
}

struct Counting(Counts);

impl Application for Counting {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(CountingWorker(self.0.clone()))
    }
    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, _opaque: u64) {
        self.0.cleaned.add(1);
    }
}

struct CountingWorker(Counts);

impl AppWorker for CountingWorker {
    fn accepted(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {
        self.0.up.add(1);
    }
    fn connected(
        &mut self,
        _ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        if outcome.is_ok() {
            self.0.up.add(1)
        } else {
            self.0.failed.add(1)
        };
    }
    fn closed(
        &mut self,
        _ctx: &mut Context<'_>,
        _session: SessionHandle,
        _opaque: u64,
        _reason: CloseReason,
    ) {
        self.0.closed.add(1);
    }
}

#[test]
fn a_hundred_thousand_sessions_are_held_listed_and_detached() {
    let (a, b) = memory_wire(MemoryWireConfig { ring_packets: 4096, ..MemoryWireConfig::default() });
    let mut near = InterfaceSpec::new(a).domain(CLIENT);
    for address in 1..=4 {
        near = near.address(format!("10.0.0.{address}/24").parse().unwrap());
    }
    let far = InterfaceSpec::new(b).domain(SERVER).address("10.0.0.100/24".parse().unwrap());
    let sessions = SessionLimits { sessions: 2 * SESSIONS, ..SessionLimits::default() };
    let mut stack = virtual_stack(StackConfig { sessions, ..config(2) }, [near, far]);
    let (ours, theirs) = (Counts::default(), Counts::default());
    let server = stack.attach(Counting(theirs.clone()), AttachOptions::named("server")).unwrap();
    let remote: std::net::SocketAddr = "10.0.0.100:80".parse().unwrap();
    stack
        .listen(server.app_workers[0], ListenOptions { domain: SERVER, ..ListenOptions::on(remote) })
        .unwrap();
    let client = stack.attach(Counting(ours.clone()), AttachOptions::named("client")).unwrap();

    let mut asked = 0;
    while asked < SESSIONS {
        let wave = (asked + 5000).min(SESSIONS);
        while asked < wave {
            let local_addr = Some(format!("10.0.0.{}", 1 + asked % 4).parse().unwrap());
            let options = ConnectOptions { local_addr, ..ConnectOptions::to(remote) };
            stack.connect(client.app_workers[0], options).unwrap();
            asked += 1;
        }
        let reached = stack.run_until(Duration::from_secs(60), |_| ours.cleaned.value() == wave as u64);
        assert!(reached, "{} of {wave}", ours.cleaned.value());
    }
    assert_eq!((ours.up.value(), ours.failed.value()), (SESSIONS as u64, 0));
    assert!(stack.run_until(Duration::from_secs(60), |_| theirs.up.value() == SESSIONS as u64));
    stack.check_consistency();

    let answer = stack.inspect(Query::sessions(10, true)).unwrap();
    assert_eq!((answer.session_summary.total, answer.session_summary.open), (2 * SESSIONS, 2 * SESSIONS));
    assert_eq!(answer.sessions.len(), 10);
    assert!(answer.sessions.iter().all(|session| session.variables().contains("state=ESTABLISHED")));
    assert_eq!(answer.leaks.fifo_chunks, 0, "an idle session holds no chunk");
    assert_eq!(answer.leaks.timers, 0, "an idle session has no timer armed");
    assert_eq!(answer.main.tuples, SESSIONS);
    let loads: Vec<usize> = answer.workers.iter().map(|worker| worker.sessions).collect();
    assert!(loads.iter().all(|load| *load > 2 * SESSIONS / 2 * 9 / 10), "{loads:?}");

    let report = stack.detach(client.app, DetachPolicy::default()).unwrap();
    assert_eq!((report.app_workers[0].sessions, report.app_workers[0].sessions_reset), (SESSIONS, 0));
    assert_eq!(ours.closed.value(), SESSIONS as u64);
    let report = stack.detach(server.app, DetachPolicy::Reset).unwrap();
    assert_eq!(report.app_workers[0].outcomes.requested, 0);
    assert_eq!(theirs.closed.value(), SESSIONS as u64);
    assert_clean(&mut stack);
}
