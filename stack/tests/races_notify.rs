//! What an app is told of a session when everything comes at once: the answer, bytes, a FIN, a reset, in one step, on
//! any worker, twice; and what it does in its first callback. `docs/races.md` has the ids.
// A guard that sends would hide what the arm does.
#![allow(clippy::collapsible_match)]

mod common;
mod races_peer;

use common::*;
use hoststack::app::*;
use hoststack::{Attached, SingleThreaded};
use hoststack_wire::Flags;
use races_peer::{End, Peer};

/// What the peer sends after its part of the handshake: five bytes each `Data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    /// The same bytes again.
    Again,
    Fin,
    /// Five bytes and a FIN in one segment.
    DataFin,
    Reset,
}

/// What an app that does nothing must be told, without handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Up,
    Readable,
    PeerClosed,
    Reset,
    Closed,
}

use Part::{Again, Data, DataFin, Fin};
use Told::{Closed, PeerClosed, Readable, Up};

/// Every mix that can be in one step with the handshake's end, and what follows from it.
const MIXES: [(&[Part], &[Told]); 15] = [
    (&[], &[Up]),
    (&[Data], &[Up, Readable]),
    (&[Data, Again, Again], &[Up, Readable]),
    (&[Data, Data, Data], &[Up, Readable]),
    (&[Fin], &[Up, PeerClosed]),
    (&[Fin, Fin], &[Up, PeerClosed]),
    (&[Data, Fin], &[Up, Readable, PeerClosed]),
    (&[DataFin], &[Up, Readable, PeerClosed]),
    (&[DataFin, DataFin], &[Up, Readable, PeerClosed]),
    (&[Data, DataFin], &[Up, Readable, PeerClosed]),
    (&[Part::Reset], &[Up, Told::Reset, Closed]),
    (&[Part::Reset, Part::Reset, Data], &[Up, Told::Reset, Closed]),
    (&[Data, Part::Reset], &[Up, Readable, Told::Reset, Closed]),
    (&[Fin, Part::Reset], &[Up, PeerClosed, Told::Reset, Closed]),
    (&[Data, DataFin, Part::Reset], &[Up, Readable, PeerClosed, Told::Reset, Closed]),
];

fn told(log: &Log) -> Vec<Told> {
    let of = |event: &Event| match event {
        Event::Accepted(_) | Event::Connected(_, _, Ok(_)) => Some(Up),
        Event::Readable(_) => Some(Readable),
        Event::PeerClosed(_) => Some(PeerClosed),
        Event::Reset(..) => Some(Told::Reset),
        Event::Closed(..) => Some(Closed),
        _ => None,
    };
    log.events().iter().filter_map(of).collect()
}

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// We do; the flow is worker 0's.
    Out,
    /// The peer does, whichever worker's the flow is.
    In,
}

const WAYS: [Way; 2] = [Way::Out, Way::In];

/// A session about to be: all but the last packet of its handshake has passed.
struct Coming {
    stack: SingleThreaded,
    peer: Peer,
    app: Attached,
    log: Log,
    end: End,
    last: Vec<u8>,
}

impl Coming {
    fn new(
        way: Way,
        workers: usize,
        does: impl Fn(&mut Context<'_>, &Event) + Send + Sync + 'static,
    ) -> Coming {
        let (mut stack, peer) = Peer::stack(config(workers));
        let log = Log::default();
        let app = attach(&mut stack, "app", Probe::new(&log, does));
        let unit = app.app_workers[0];
        let (end, last) = match way {
            Way::Out => {
                let options =
                    ConnectOptions { worker: Some(WorkerId(0)), ..ConnectOptions::to(Peer::at(80)) };
                stack.connect(unit, options).unwrap();
                let end = End::of_syn(&peer.take_syns(&mut stack, 1)[0]);
                (end, end.syn_ack())
            }
            Way::In => {
                stack.listen(unit, ListenOptions::on(Peer::stack_at(80))).unwrap();
                peer.give(workers - 1, End::syn_to(80, 5000));
                let _ = stack.settle();
                let end = End::of_syn_ack(&peer.take()[0]);
                (end, end.ack(0, 1))
            }
        };
        Coming { stack, peer, app, log, end, last }
    }

    /// The last packet of the handshake, and the parts so many steps later.
    fn comes(&mut self, worker: usize, gap: usize, parts: &[Part]) {
        self.peer.give(worker, self.last.clone());
        for _ in 0..gap {
            let _ = self.stack.step();
            self.stack.check_consistency();
        }
        self.gives(worker, parts);
    }

    /// The peer's parts on `worker`, each at its place in its stream.
    fn gives(&self, worker: usize, parts: &[Part]) {
        let (mut sent, mut last) = (0, 0);
        for (number, part) in parts.iter().enumerate() {
            match part {
                Data => {
                    self.peer.give(worker, self.end.data(sent, b"bytes"));
                    (last, sent) = (sent, sent + 5);
                }
                Again => self.peer.give(worker, self.end.data(last, b"bytes")),
                Fin => self.peer.give(worker, self.end.fin(sent, b"")),
                DataFin => self.peer.give(worker, self.end.fin(sent, b"bytes")),
                Part::Reset => {
                    let before = &parts[..number];
                    let with_fin =
                        if before.contains(&DataFin) { 6 } else { u32::from(before.contains(&Fin)) };
                    self.peer.give(worker, self.end.reset(sent + with_fin));
                }
            }
        }
    }

    fn passes(&mut self, time: Duration) {
        pass(&mut self.stack, time);
    }

    fn finish(self) {
        finish(self.stack, &[&self.app], &[&self.log]);
    }
}

/// The whole table, in the step of the handshake's last packet and up to three later, on each worker.
// covers: E11, M03, N02, N03, N05, N09, N11
#[test]
fn what_comes_at_once_with_the_end_of_a_handshake_is_told_in_order_and_once() {
    for (workers, way) in [1, 3].into_iter().flat_map(|workers| WAYS.map(|way| (workers, way))) {
        for (parts, wanted) in MIXES {
            for (gap, worker) in (0..4).flat_map(|gap| (0..workers).map(move |worker| (gap, worker))) {
                let mut coming = Coming::new(way, workers, |_, _| {});
                coming.comes(worker, gap, parts);
                coming.passes(Duration::from_millis(100));
                // Parts of several steps may be worth several calls.
                let mut told = told(&coming.log);
                told.dedup();
                assert_eq!(
                    told, wanted,
                    "{way:?}, {parts:?} {gap} steps later, worker {worker} of {workers}"
                );
                coming.finish();
            }
        }
    }
}

/// Everything twice, the second time on another worker: nothing is told twice.
// covers: H62, M05, N05, N07
#[test]
fn what_comes_twice_on_two_workers_is_told_once() {
    for way in WAYS {
        for (parts, wanted) in MIXES {
            for (first, second) in (0..3).flat_map(|first| (0..3).map(move |second| (first, second))) {
                let mut coming = Coming::new(way, 3, |_, _| {});
                let last = coming.last.clone();
                for worker in [first, second] {
                    coming.peer.give(worker, last.clone());
                }
                coming.gives(first, parts);
                coming.gives(second, parts);
                coming.passes(Duration::from_millis(100));
                let told = told(&coming.log);
                let count = |what| told.iter().filter(|told| **told == what).count();
                for what in [Up, PeerClosed, Told::Reset, Closed] {
                    assert!(count(what) <= 1, "{told:?}");
                }
                // Packets of two workers may overtake each other: a reset comes before data, a FIN's data later.
                if !parts.contains(&Part::Reset) {
                    assert_eq!(told, wanted, "{way:?}, {parts:?}, workers {first} and {second}");
                }
                assert_eq!(told[0], Up);
                coming.finish();
            }
        }
    }
}

/// An app that ends the session in its first callback is told `closed` and nothing else, whatever came with it.
// covers: N01, N06, N08
#[test]
fn an_app_that_is_done_in_its_first_callback_hears_only_the_end() {
    type Ends = fn(&mut Context<'_>, SessionHandle);
    let ends: [Ends; 3] = [
        |ctx, session| ctx.reset(session),
        |ctx, session| {
            ctx.close(session);
            ctx.close(session);
        },
        |ctx, session| {
            ctx.half_close(session);
            ctx.close(session);
            ctx.reset(session);
            ctx.reset(session);
        },
    ];
    for (workers, way) in [1, 3].into_iter().flat_map(|workers| WAYS.map(|way| (workers, way))) {
        for ((parts, _), gap) in MIXES.into_iter().flat_map(|mix| (0..2).map(move |gap| (mix, gap))) {
            for (number, end) in ends.into_iter().enumerate() {
                let mut coming = Coming::new(way, workers, move |ctx, event| {
                    if let Event::Accepted(session) | Event::Connected(_, _, Ok(session)) = *event {
                        end(ctx, session);
                    }
                });
                coming.comes(workers - 1, gap, parts);
                coming.passes(Duration::from_millis(100));
                let told = told(&coming.log);
                let at = format!("{way:?}, {parts:?}, end {number}, {workers} workers: {told:?}");
                assert!(told == [Up, Closed] || number == 1 && told == [Up], "{at}");
                if number != 1 {
                    // Rejected: nothing of it is in any table, and the peer knows.
                    let answer = summary(&mut coming.stack);
                    assert_eq!(
                        (answer.leaks.sessions, answer.leaks.flows, answer.main.tuples),
                        (0, 0, 0),
                        "{at}"
                    );
                    let sent = coming.peer.take();
                    let was_reset =
                        parts.contains(&Part::Reset) || sent.iter().any(|sent| sent.is(Flags::RST));
                    assert!(was_reset, "{at}");
                }
                coming.finish();
            }
        }
    }
}

/// All the ways to end a session, asked for in every callback there is, several times.
// covers: N04, N08
#[test]
fn ends_that_are_asked_for_again_and_again_have_effect_once() {
    type Ends = fn(&mut Context<'_>, SessionHandle);
    let ends: [Ends; 3] = [
        |ctx, session| ctx.half_close(session),
        |ctx, session| ctx.close(session),
        |ctx, session| ctx.reset(session),
    ];
    for (way, (parts, _)) in WAYS.into_iter().flat_map(|way| MIXES.map(|mix| (way, mix))) {
        for order in [[0, 0, 0], [0, 1, 2], [1, 0, 1], [2, 1, 0], [1, 2, 0], [1, 1, 2]] {
            let mut coming = Coming::new(way, 2, move |ctx, event| {
                if let Event::Accepted(s)
                | Event::Connected(_, _, Ok(s))
                | Event::Readable(s)
                | Event::PeerClosed(s)
                | Event::Reset(s, _)
                | Event::Closed(s, _, _) = *event
                {
                    for end in order {
                        ends[end](ctx, s);
                    }
                }
            });
            coming.comes(0, 0, parts);
            coming.passes(Duration::from_millis(100));
            let told = told(&coming.log);
            let closed = told.iter().filter(|told| **told == Closed).count();
            assert!(told[0] == Up && closed <= 1, "{told:?}");
            coming.finish();
        }
    }
}

/// The peer's FIN came first; the app then closes its own direction only: that is an end too.
// covers: N10
#[test]
fn a_half_close_after_the_peers_fin_is_sent_and_ends_the_session() {
    for (way, parts) in
        WAYS.into_iter().flat_map(|way| [&[Fin][..], &[DataFin][..]].map(|parts| (way, parts)))
    {
        for gap in 0..3 {
            let mut coming = Coming::new(way, 2, |ctx, event| match *event {
                Event::Readable(session) => _ = drain(ctx, session),
                Event::PeerClosed(session) => {
                    assert_eq!(ctx.write(session, b"last words"), 10);
                    ctx.half_close(session);
                    ctx.half_close(session);
                }
                _ => {}
            });
            coming.comes(0, gap, parts);
            coming.passes(Duration::from_millis(100));
            let sent = coming.peer.take();
            assert!(sent.iter().any(|sent| sent.is(Flags::FIN)), "{sent:?}");
            assert!(sent.iter().any(|sent| sent.payload == b"last words"), "{sent:?}");
            let bytes = if parts == [DataFin] { 5 } else { 0 };
            coming.peer.give(1, coming.end.ack(bytes + 1, 1 + 10 + 1));
            coming.passes(Duration::from_millis(100));
            assert_eq!(coming.log.ends(), [CloseReason::Finished]);
            coming.finish();
        }
    }
}

/// The app closes and resets in the very step in which the peer does.
// covers: H39, M01, N04
#[test]
fn ends_of_both_sides_in_one_step_give_one_end() {
    for (way, (parts, _)) in WAYS.into_iter().flat_map(|way| MIXES.map(|mix| (way, mix))) {
        for how in 0..3u64 {
            let mut coming = Coming::new(way, 2, |ctx, event| {
                static SESSION: parking_lot::Mutex<Option<SessionHandle>> = parking_lot::Mutex::new(None);
                match *event {
                    Event::Accepted(session) | Event::Connected(_, _, Ok(session)) => {
                        // Each app's own session comes first.
                        ctx.set_timer(session.as_u64(), Duration::from_millis(10));
                    }
                    Event::Timer(number) => *SESSION.lock() = Some(SessionHandle::from_u64(number)),
                    Event::Notified(how) => {
                        let Some(session) = SESSION.lock().take() else { return };
                        match how {
                            0 => ctx.half_close(session),
                            1 => ctx.close(session),
                            _ => ctx.reset(session),
                        }
                    }
                    _ => {}
                }
            });
            coming.comes(0, 0, &[]);
            coming.passes(Duration::from_millis(20));
            let session = coming.log.sessions()[0];
            coming.stack.notify(coming.app.app_workers[0], session.worker(), Box::new(how)).unwrap();
            coming.gives(0, parts);
            coming.passes(Duration::from_millis(100));
            if how == 2 {
                assert_eq!(coming.log.closed(), 1, "{parts:?}");
            }
            let told = told(&coming.log);
            assert!(told.iter().filter(|told| **told == Closed).count() <= 1, "{told:?}");
            coming.finish();
        }
    }
}
