//! How long a single connect takes when every thread of the stack is asleep: from the call to the callback.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use hoststack_app::{
    AppWorker, Application, ConnectFailure, ConnectId, ConnectOptions, Context, SessionHandle,
    SessionOptions, WorkerId,
};

use super::host::{CLIENT, Host, HostOptions, Threads, Via, server_address};
use super::progress::Progress;
use crate::histogram::LatencyHistogram;
use crate::measure::Clock;

/// Longer than any thread looks before it sleeps (50 us).
const GAP_SECONDS: f64 = 0.002;

/// Connects `connects` times to a server in the same stack, with gaps in which its threads fall asleep; the time from
/// the call of `connect` on a thread of the program's to `connected` on the worker.
///
/// # Panics
/// When a connect failed or did not end within a minute.
pub fn connect_latency(connects: u32) -> LatencyHistogram {
    let progress = Arc::new(Progress::default());
    let latency = Arc::new(Mutex::new(LatencyHistogram::new()));
    let clock = Clock::start();
    let host_options = HostOptions {
        via: Via::Tcp,
        threads: Threads::Own,
        client_addresses: 1,
        server_ports: 1,
        fifos: SessionOptions::default(),
        room: 1 << 16,
    };
    let client = Client { progress: progress.clone(), latency: latency.clone(), clock };
    let host = Host::new(&host_options, client, Server);
    let handle = host.handle();
    let gap = Progress::default();
    for _ in 0..connects {
        // Nothing ever wakes this one: it is how this thread sleeps.
        gap.wait(GAP_SECONDS);
        progress.begin();
        let options =
            ConnectOptions { domain: CLIENT, opaque: clock.nanos(), ..ConnectOptions::to(server_address(0)) };
        handle
            .connect(host.client(), options)
            .expect("cannot fail because the stack runs and the options are valid");
        assert!(progress.wait(60.0), "every connect ends");
    }
    assert_eq!(progress.failed.value(), 0, "every connect succeeds");
    std::mem::take(&mut *latency.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Client {
    progress: Arc<Progress>,
    latency: Arc<Mutex<LatencyHistogram>>,
    clock: Clock,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker {
            progress: self.progress.clone(),
            latency: self.latency.clone(),
            clock: self.clock,
        })
    }
}

struct ClientWorker {
    progress: Arc<Progress>,
    latency: Arc<Mutex<LatencyHistogram>>,
    clock: Clock,
}

impl AppWorker for ClientWorker {
    fn notified(&mut self, _ctx: &mut Context<'_>, _message: Box<dyn Any + Send>) {}

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        asked_ns: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let took = self.clock.nanos() - asked_ns;
        match outcome {
            Ok(session) => {
                self.latency.lock().unwrap_or_else(PoisonError::into_inner).record(took);
                ctx.close(session);
            }
            Err(_) => self.progress.failed.add(1),
        }
        self.progress.finish();
    }
}

struct Server;

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Closing)
    }
}

/// Closes when the peer does.
struct Closing;

impl AppWorker for Closing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connect_is_timed() {
        let latency = connect_latency(5);
        assert_eq!(latency.count(), 5);
        assert!(latency.p50() > 1_000, "a hand-over between threads takes more than a microsecond");
    }
}
