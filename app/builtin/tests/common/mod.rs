//! A stack on virtual time: two routing domains joined by the in-memory wire, apps on both ends.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;

use hoststack::app::{
    AttachOptions, ConnectOptions, DetachPolicy, DetachReport, DomainId, Duration, Endpoint, ListenOptions,
};
use hoststack::net::{ImpairmentCounters, Impairments, MemoryWireConfig, impair, memory_wire};
use hoststack::{Attached, Builder, InterfaceSpec, Leaks, Query, SingleThreaded, Stack, StackConfig};

pub const CLIENT: DomainId = DomainId(0);
pub const SERVER: DomainId = DomainId(1);

/// A builder of the two domains; the counters are those of what the client's end sends.
pub fn builder(workers: usize, impairments: Impairments) -> (Builder, Arc<ImpairmentCounters>) {
    let (a, b) = memory_wire(MemoryWireConfig::default());
    let a = impair(Box::new(a), impairments);
    let counters = a.impairment_counters();
    let b = impair(Box::new(b), Impairments { seed: impairments.seed + 1, ..impairments });
    let interface = |device, domain, ends: [&str; 2]| {
        let spec = InterfaceSpec::new(device).domain(domain);
        ends.iter().fold(spec, |spec, end| spec.address(end.parse().unwrap()))
    };
    let builder = Stack::builder()
        .config(StackConfig { workers, seed: Some(7), ..StackConfig::default() })
        .interface(interface(a, CLIENT, ["10.0.0.1/24", "fd00::1/64"]))
        .interface(interface(b, SERVER, ["10.0.0.2/24", "fd00::2/64"]));
    (builder, counters)
}

pub fn stack_over(workers: usize, impairments: Impairments) -> (SingleThreaded, Arc<ImpairmentCounters>) {
    let (builder, counters) = builder(workers, impairments);
    let mut stack = Stack::single_threaded(builder).unwrap();
    stack.use_virtual_time();
    (stack, counters)
}

pub fn stack(workers: usize) -> SingleThreaded {
    stack_over(workers, Impairments::default()).0
}

pub fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

pub fn to(text: &str) -> ConnectOptions {
    ConnectOptions { domain: CLIENT, ..ConnectOptions::to(endpoint(text)) }
}

pub fn on(text: &str) -> ListenOptions {
    ListenOptions { domain: SERVER, ..ListenOptions::on(endpoint(text)) }
}

/// Steps until `done`, at most `limit` of virtual time; the invariants are checked after every step.
pub fn run(stack: &mut SingleThreaded, limit: Duration, mut done: impl FnMut() -> bool) {
    let ended = stack.run_until(limit, |stack| {
        stack.check_consistency();
        done()
    });
    assert!(ended, "not done after {limit:?}");
}

/// Detaches both apps and asserts that nothing is left, after TIME-WAIT not even a flow.
pub fn end(mut stack: SingleThreaded, apps: &[&Attached]) -> Vec<DetachReport> {
    let reports = apps.iter().map(|app| stack.detach(app.app, DetachPolicy::default()).unwrap()).collect();
    let answer = stack.inspect(Query::Summary).unwrap();
    assert_eq!(answer.leaks, Leaks::default());
    run_for(&mut stack, Duration::from_secs(61));
    let answer = stack.inspect(Query::Summary).unwrap();
    assert_eq!((answer.leaks, answer.time_wait, answer.main.tuples), (Leaks::default(), 0, 0));
    reports
}

pub fn run_for(stack: &mut SingleThreaded, limit: Duration) {
    stack.run_until(limit, |_| false);
}

pub fn named(name: &str) -> AttachOptions {
    AttachOptions::named(name)
}
