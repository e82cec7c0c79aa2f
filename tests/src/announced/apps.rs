//! The silent client and the server that speaks first.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hoststack::app::proxy::{Declared, Origin, SendProxy, Version};
use hoststack::app::{
    Address, AppWorker, Application, CloseReason, ConnectFailure, ConnectId, ConnectOptions, Context,
    FlowKey, ListenError, ListenerId, MainContext, SessionHandle, StagePlans, WorkerId,
};
use parking_lot::Mutex;

use super::Slice;
use super::ledger::{Ledger, Mark};

/// What both know.
pub(super) struct Shared {
    pub(super) slice: Slice,
    pub(super) next: AtomicU64,
    ledger: Arc<Ledger>,
    /// Where the server listens.
    places: Mutex<Vec<Address>>,
}

impl Shared {
    pub(super) fn new(slice: Slice, ledger: &Arc<Ledger>) -> Shared {
        Shared { slice, next: AtomicU64::new(slice.from), ledger: ledger.clone(), places: Mutex::default() }
    }
}

/// The version of a connect's header, and whom it names: its number, in an address of either family and a port.
fn header(number: u64) -> (Version, SocketAddr) {
    let port = number as u16; // its low 16 bits
    let high = (number >> 16) as u32; // the rest: numbers are below 2^40
    let version = if number.is_multiple_of(2) { Version::V1 } else { Version::V2 };
    let [_, a, b, c] = high.to_be_bytes();
    let [e, f] = [u16::from_be_bytes([0, a]), u16::from_be_bytes([b, c])];
    let src = if (number / 2).is_multiple_of(2) {
        SocketAddr::from((Ipv4Addr::new(10, a, b, c), port))
    } else {
        SocketAddr::from((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, e, f), port))
    };
    (version, src)
}

/// The number in a header that is right in all else.
fn number(declared: &Declared) -> Option<u64> {
    let (src, _) = declared.endpoints()?;
    let high = match src {
        SocketAddr::V4(src) => u32::from(*src.ip()) & 0xff_ffff,
        SocketAddr::V6(src) => src.ip().to_bits() as u32, // its low 32 bits
    };
    let number = u64::from(high) << 16 | u64::from(src.port());
    (header(number) == (declared.version(), src)).then_some(number)
}

/// Whom all connects call, by the header.
fn called(src: SocketAddr) -> SocketAddr {
    match src {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 443)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 443)),
    }
}

/// Connects, says nothing, reads the greeting, resets.
pub(super) struct Client(Arc<Shared>);

impl Client {
    pub(super) fn new(shared: &Arc<Shared>) -> Client {
        Client(shared.clone())
    }
}

impl Application for Client {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ClientWorker { shared: self.0.clone(), places: self.0.places.lock().clone(), in_flight: 0 })
    }

    fn half_open_cleaned(&mut self, _ctx: &mut MainContext<'_>, _connect: ConnectId, opaque: u64) {
        self.0.ledger.mark(opaque, Mark::Cleaned);
    }
}

struct ClientWorker {
    shared: Arc<Shared>,
    places: Vec<Address>,
    in_flight: usize,
}

impl ClientWorker {
    fn pump(&mut self, ctx: &mut Context<'_>) {
        if !self.shared.slice.route.connects(ctx.worker()) {
            return;
        }
        while self.in_flight < self.shared.slice.in_flight
            && let Some(number) = self.shared.next()
        {
            self.connect(ctx, number);
        }
    }

    fn connect(&mut self, ctx: &mut Context<'_>, number: u64) {
        let (version, src) = header(number);
        let origin = Origin::Of(src, called(src));
        let place = &self.places[number as usize % self.places.len()]; // low bits are enough
        self.shared.ledger.begin(number, ctx.now());
        let options = ConnectOptions {
            opaque: number,
            worker: Some(ctx.worker()),
            stages: StagePlans::one(SendProxy { origin, ..SendProxy::new(version) }),
            ..ConnectOptions::to(place.clone())
        };
        match ctx.connect(options) {
            Ok(_) => self.in_flight += 1,
            Err(error) => {
                self.shared.ledger.failed(number, error.to_string());
                // It is no connect: nothing will be cleaned.
                self.shared.ledger.mark(number, Mark::Cleaned);
            }
        }
    }

    fn ended(&mut self, ctx: &mut Context<'_>) {
        self.in_flight -= 1;
        self.pump(ctx);
    }
}

impl AppWorker for ClientWorker {
    fn attached(&mut self, ctx: &mut Context<'_>) {
        self.pump(ctx);
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        match outcome {
            Ok(_) => self.shared.ledger.connected(opaque, ctx.now()),
            Err(failure) => {
                self.shared.ledger.failed(opaque, failure.to_string());
                self.ended(ctx);
            }
        }
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        if ctx.rx_len(session) < 8 {
            return;
        }
        let number = ctx.opaque(session);
        let mut bytes = [0; 8];
        ctx.read(session, &mut bytes);
        let greeted = u64::from_le_bytes(bytes);
        if greeted == number {
            self.shared.ledger.mark(number, Mark::Greeted);
        } else {
            self.shared.ledger.violation(format!("{number} was greeted as {greeted}"));
        }
        // Not closed: what would wait in TIME-WAIT would take the ports of those that follow.
        ctx.reset(session);
    }

    fn closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle, opaque: u64, reason: CloseReason) {
        if reason != CloseReason::LocalReset {
            self.shared.ledger.violation(format!("{opaque} ended by {reason:?} ({session})"));
        }
        self.shared.ledger.mark(opaque, Mark::ClientClosed);
        self.ended(ctx);
    }
}

/// Requires a header, and greets with the number in it.
pub(super) struct Server(Arc<Shared>);

impl Server {
    pub(super) fn new(shared: &Arc<Shared>) -> Server {
        Server(shared.clone())
    }
}

impl Application for Server {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(ServerWorker(self.0.clone()))
    }

    fn listening(
        &mut self,
        _ctx: &mut MainContext<'_>,
        _opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        if let Ok((_, at)) = result {
            self.0.places.lock().push(at);
        }
    }
}

/// The opaque value of a session whose header was wrong.
const UNKNOWN: u64 = u64::MAX;

struct ServerWorker(Arc<Shared>);

impl AppWorker for ServerWorker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let declared = ctx.declared(session);
        let Some((number, is_version_1)) =
            declared.and_then(|declared| Some((number(declared)?, declared.version() == Version::V1)))
        else {
            self.0.ledger.violation(format!("accepted with a header that none sent: {declared:?}"));
            ctx.set_opaque(session, UNKNOWN);
            return ctx.reset(session);
        };
        ctx.set_opaque(session, number);
        self.0.ledger.accepted(number, is_version_1);
        ctx.write(session, &number.to_le_bytes());
    }

    fn not_accepted(&mut self, _ctx: &mut Context<'_>, flow: &FlowKey, failure: ConnectFailure) {
        self.0.ledger.violation(format!("not accepted: {flow}: {failure}"));
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.0.ledger.violation(format!("the client of {} is not silent", ctx.opaque(session)));
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, _session: SessionHandle, opaque: u64, _reason: CloseReason) {
        if opaque != UNKNOWN {
            self.0.ledger.mark(opaque, Mark::ServerClosed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_headers_in_turn_and_none_like_another() {
        let kind = |number| {
            let (version, src) = header(number);
            (version, src.is_ipv4())
        };
        let kinds: Vec<_> = (0..4).map(kind).collect();
        let (v1, v2) = (Version::V1, Version::V2);
        assert_eq!(kinds, [(v1, true), (v2, true), (v1, false), (v2, false)]);
        let numbers = (0..1000).map(|n| n * 1_099_511_627).chain([(1 << 40) - 1, 65_535, 65_536]);
        let headers: std::collections::BTreeSet<_> = numbers.map(|number| header(number).1).collect();
        assert_eq!(headers.len(), 1003);
    }
}
