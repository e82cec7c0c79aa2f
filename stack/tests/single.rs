//! Whole stacks without threads, on virtual time: two routing domains joined by the in-memory wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hoststack::app::*;
use hoststack::net::{MemoryWireConfig, memory_wire};
use hoststack::{InterfaceSpec, Query, SingleThreaded, Stack, StackConfig};
use parking_lot::Mutex;

const CLIENT: DomainId = DomainId(0);
const SERVER: DomainId = DomainId(1);

fn stack(workers: usize) -> SingleThreaded {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let config = StackConfig { workers, seed: Some(7), ..StackConfig::default() };
    let builder = Stack::builder()
        .config(config)
        .interface(InterfaceSpec::new(a).domain(CLIENT).address("10.0.0.1/24".parse().unwrap()))
        .interface(InterfaceSpec::new(b).domain(SERVER).address("10.0.0.2/24".parse().unwrap()));
    let mut stack = Stack::single_threaded(builder).unwrap();
    stack.use_virtual_time();
    stack
}

/// What apps of these tests were told, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

struct Echo {
    log: Log,
}

impl Application for Echo {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(EchoWorker { log: self.log.clone() })
    }
}

struct EchoWorker {
    log: Log,
}

impl AppWorker for EchoWorker {
    fn accepted(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle) {
        self.log.say("accepted");
    }
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        ctx.splice(session, session);
    }
    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.log.say(format!("server closed: {reason}"));
    }
}

struct Client {
    log: Log,
    send: Vec<u8>,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker { log: self.log.clone(), send: self.send.clone(), got: 0 })
    }
    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, opaque: u64) {
        self.log.say(format!("cleaned {opaque}"));
    }
    fn detached(&mut self, _report: &DetachReport) {
        self.log.say("detached");
    }
}

struct ClientWorker {
    log: Log,
    send: Vec<u8>,
    got: usize,
}

impl AppWorker for ClientWorker {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(session) => {
                self.log.say(format!("connected {opaque}"));
                ctx.write(session, &self.send);
            }
            Err(failure) => self.log.say(format!("failed {opaque}: {failure:?}")),
        }
    }
    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut buffer = [0; 4096];
        loop {
            let count = ctx.read(session, &mut buffer);
            if count == 0 {
                break;
            }
            assert_eq!(buffer[..count], self.send[self.got..self.got + count]);
            self.got += count;
        }
        if self.got == self.send.len() {
            self.log.say("echoed");
            ctx.close(session);
        }
    }
    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, _opaque: u64, reason: CloseReason) {
        self.log.say(format!("client closed: {reason}"));
    }
}

fn server() -> std::net::SocketAddr {
    "10.0.0.2:7".parse().unwrap()
}

fn attach_pair(stack: &mut SingleThreaded, log: &Log, send: &[u8]) -> (Attached, Attached) {
    let echo = stack.attach(Echo { log: log.clone() }, AttachOptions::named("echo")).unwrap();
    stack
        .listen(echo.app_workers[0], ListenOptions { domain: SERVER, ..ListenOptions::on(server()) })
        .unwrap();
    let client = stack
        .attach(Client { log: log.clone(), send: send.to_vec() }, AttachOptions::named("client"))
        .unwrap();
    (echo, client)
}

use hoststack::Attached;

#[test]
fn a_session_echoes_closes_and_leaves_nothing_behind() {
    for workers in [1, 2] {
        let mut stack = stack(workers);
        let log = Log::default();
        let (echo, client) = attach_pair(&mut stack, &log, b"hello");
        stack
            .connect(client.app_workers[0], ConnectOptions { opaque: 5, ..ConnectOptions::to(server()) })
            .unwrap();
        let told = AtomicUsize::new(0);
        assert!(
            stack.run_until(Duration::from_secs(5), |_| {
                told.store(log.0.lock().iter().filter(|line| line.contains("closed")).count(), Relaxed);
                told.load(Relaxed) == 2
            }),
            "{:?}",
            log.take()
        );
        let mut lines = log.take();
        let position = |what: &str| {
            lines.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what}: {lines:?}"))
        };
        assert!(position("connected 5") < position("cleaned 5"));
        assert!(position("accepted") < position("echoed"));
        assert!(position("echoed") < position("client closed: finished"));
        lines.retain(|line| line == "server closed: finished");
        assert_eq!(lines.len(), 1);

        stack.detach(client.app, DetachPolicy::Reset).unwrap();
        stack.detach(echo.app, DetachPolicy::Reset).unwrap();
        let answer = stack.inspect(Query::Summary).unwrap();
        assert!(answer.leaks.is_clean(), "{:?}", answer.leaks);
        assert_eq!(answer.time_wait, 1);
        stack.check_consistency();
        stack.run_until(Duration::from_secs(61), |_| false);
        let answer = stack.inspect(Query::Summary).unwrap();
        assert_eq!((answer.time_wait, answer.main.tuples), (0, 0));
    }
}
