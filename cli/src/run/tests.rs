//! What keys of an app do to its connections, as a client in the same stack sees it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hoststack::app::{
    AppWorker, Application, ConnectFailure, ConnectId, ConnectOptions, ConnectionStats, Context, EcnMode,
    SessionHandle, SocketOptions, WorkerId,
};

use super::*;

/// Opens a session, writes `bytes` and reads nothing; tells what the connection was like at first, and when all is written.
#[derive(Clone)]
struct Client {
    bytes: usize,
    told: Sender<ConnectionStats>,
}

struct Writer {
    client: Client,
    written: usize,
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(Writer { client: self.clone(), written: 0 })
    }
}

impl Writer {
    fn write(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.written += ctx.write(session, &vec![7; self.client.bytes - self.written]);
        if self.written == self.client.bytes {
            self.tell(ctx, session);
        }
    }

    fn tell(&self, ctx: &Context<'_>, session: SessionHandle) {
        // Nobody may listen any more.
        let _ = self.client.told.send(ctx.stats(session).expect("the session lives"));
    }
}

impl AppWorker for Writer {
    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        _opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        let session = outcome.expect("the app of the file listens");
        self.tell(ctx, session);
        self.write(ctx, session);
    }

    fn writable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.write(ctx, session);
    }
}

/// A stack whose only app, an echo server, has the keys of `keys`, and a client that writes so much.
fn meets(keys: &str, bytes: usize) -> (Running, Receiver<ConnectionStats>) {
    let text = format!(
        "[[device]]\nname = \"wire:a\"\naddresses = [\"10.1.0.1/24\"]\n\
         [[device]]\nname = \"wire:a\"\ndomain = 1\naddresses = [\"10.1.0.2/24\"]\n\
         [[app]]\nname = \"echo\"\nkind = \"echo\"\nlisten = [\"10.1.0.1:7\"]\n{keys}"
    );
    let running = start(&config::parse(&text).expect(&text)).expect("a stack without privileges");
    let handle = running.stack.handle();
    let (told, hears) = channel();
    let client = handle.attach(Client { bytes, told }, AttachOptions::named("client")).expect("one more app");
    let peer: std::net::SocketAddr = "10.1.0.1:7".parse().expect("an endpoint");
    let options = ConnectOptions {
        domain: DomainId(1),
        socket: SocketOptions { ecn: EcnMode::Request, ..SocketOptions::DEFAULT },
        ..ConnectOptions::to(peer)
    };
    handle.connect(client.app_workers[0], options).expect("the client is attached");
    (running, hears)
}

/// So long that a machine that is busy gets there all the same.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn ecn_is_agreed_on_unless_it_is_off() {
    for (keys, ecn) in [("", true), ("ecn = \"accept\"", true), ("ecn = \"off\"", false)] {
        let (_running, hears) = meets(keys, 1);
        assert_eq!(hears.recv_timeout(LONG).expect("it connects").ecn, ecn, "{keys:?}");
    }
}

#[test]
fn the_first_window_is_as_the_file_says() {
    for (keys, window) in [("", 65_535), ("rx_window_initial = 5000", 5000)] {
        let (_running, hears) = meets(keys, 1);
        assert_eq!(hears.recv_timeout(LONG).expect("it connects").snd_wnd, window, "{keys:?}");
    }
}

#[test]
fn a_send_fifo_that_may_grow_holds_more_for_a_peer_that_does_not_read() {
    // What comes back fills the client's fifo and the server's for sending, then the server's for receiving and the client's
    // for sending. The initial congestion window alone makes the second larger by 12 KB.
    let fixed = 65_535 + 16_384 + 16_384 + 65_536;
    let (_running, hears) = meets("fifo = 16384\ntx_capacity_max = 4000000", fixed + 10_000);
    hears.recv_timeout(LONG).expect("it connects");
    hears.recv_timeout(LONG).expect("all is written");
}
