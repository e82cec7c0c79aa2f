//! A layer that is simple enough to see through, in every short story of two ends.

use hoststack_transport::{CloseReason, ConnectFailure, StageCause, StageFailure};

use super::*;
use crate::establish::{Answer, Stage, StageIo, StagePlan, StagePlans, Want};
use crate::session::SessionOptions;
use crate::testing::{CLIENT, Pair, SERVER, Told};

/// A greeting each way, then frames: a length, and so many bytes, each with one bit turned. Length 0 is the end, 255 an error.
const GREETING: u8 = b'!';
const FRAME_MAX: usize = 50;
const TURNED: u8 = 0x80;

#[derive(Debug)]
struct Framed;

impl StagePlan for Framed {
    fn stage(&self) -> Box<dyn Stage> {
        Box::<Framing>::default()
    }
}

#[derive(Debug, Default)]
struct Framing {
    has_greeted: bool,
    /// Bytes to come of the frame that is being read.
    left: usize,
    held: Vec<u8>,
    peer_ended: bool,
    ended: bool,
}

impl Stage for Framing {
    fn name(&self) -> &'static str {
        "frames"
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        if !self.has_greeted && io.write(&[GREETING]) == 0 {
            return Answer::Wants(Want::Write);
        }
        self.has_greeted = true;
        let mut greeting = [0];
        match io.read(&mut greeting) {
            0 => Answer::Wants(Want::Read),
            _ if greeting == [GREETING] => Answer::Done,
            _ => {
                assert_eq!(io.write(b"?"), 1);
                Answer::FailedSaying(StageCause::Malformed("no greeting"))
            }
        }
    }

    fn into_layer(self: Box<Self>) -> Option<Box<dyn Layer>> {
        Some(self)
    }
}

impl Framing {
    fn flush(&mut self, io: &mut LayerIo<'_>) -> bool {
        let count = io.deliver(&self.held);
        self.held.drain(..count);
        self.held.is_empty()
    }
}

impl Layer for Framing {
    fn name(&self) -> &'static str {
        "frames"
    }

    fn pump(&mut self, io: &mut LayerIo<'_>) -> Standing {
        while self.flush(io) && io.wire_len() > 0 && io.app_room() > 0 {
            if self.peer_ended {
                io.read_wire(&mut [0; 99]);
            } else if self.left == 0 {
                let mut length = [0];
                io.read_wire(&mut length);
                if length == [255] {
                    io.send(&[255]);
                    return Standing { peer: PeerStream::Broken(CloseReason::Corrupt), has_ended: false };
                }
                self.left = usize::from(length[0]);
                self.peer_ended = self.left == 0;
            } else {
                let mut bytes = vec![0; self.left.min(io.app_room())];
                let count = io.read_wire(&mut bytes);
                self.left -= count;
                self.held.extend(bytes[..count].iter().map(|byte| byte ^ TURNED));
            }
        }
        while io.app_len() > 0 {
            let waiting = io.app_len().min(FRAME_MAX);
            let count = waiting.min(io.wire_room(waiting + 1).saturating_sub(1));
            if count == 0 {
                break;
            }
            let mut frame = vec![0; count];
            io.read_app(&mut frame);
            frame.iter_mut().for_each(|byte| *byte ^= TURNED);
            frame.insert(0, count as u8);
            assert_eq!(io.send(&frame), count + 1, "there was room");
        }
        if io.is_app_done() && io.app_len() == 0 && !self.ended && io.wire_room(1) == 1 {
            self.ended = io.send(&[0]) == 1;
        }
        let peer = match () {
            _ if !self.held.is_empty() => PeerStream::Flows,
            _ if self.peer_ended => PeerStream::Ended,
            _ if io.is_wire_closed() && io.wire_len() == 0 => PeerStream::Cut,
            _ => PeerStream::Flows,
        };
        Standing { peer, has_ended: self.ended }
    }

    fn holds_bytes(&self) -> bool {
        !self.held.is_empty()
    }

    fn describe(&self) -> String {
        format!("left={}", self.left)
    }
}

fn pair(options: SessionOptions, chunks: usize) -> Pair {
    let plans = StagePlans::one(Framed);
    Pair::with(&plans, &plans, options, b"", chunks)
}

fn fifos(capacity: u32) -> SessionOptions {
    SessionOptions { rx_capacity: capacity, tx_capacity: capacity, tx_capacity_max: 0 }
}

/// What may happen in a story, at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// The app writes, more than the fifos hold.
    Write,
    /// The app reads a part of what is there.
    Read,
    HalfClose,
    Close,
    /// The transport closes its direction by itself.
    Cut,
    /// One step passes: what was done before is half done.
    Step,
}

const ALL: [Does; 6] = [Does::Write, Does::Read, Does::HalfClose, Does::Close, Does::Cut, Does::Step];
const WRITTEN: usize = 400;

fn stream(n: usize) -> Vec<u8> {
    (0..2 * WRITTEN).map(|i| (i * 7 + n * 3) as u8).collect()
}

/// What must hold of an end at any time.
fn check(pair: &Pair, n: usize, written: [usize; 2], has_closed: bool, case: &dyn Fn() -> String) {
    let end = &pair.ends[n];
    let peers = &stream(1 - n)[..written[1 - n]];
    assert!(peers.starts_with(&end.got), "what is read is what was written: {}", case());
    for told in [Told::Up, Told::PeerClosed, Told::Reset] {
        assert!(end.count(told) <= 1, "{:?}: {}", end.told, case());
    }
    if let Some(at) = end.told.iter().position(|told| matches!(told, Told::Closed(_))) {
        assert_eq!(at, end.told.len() - 1, "{}", case());
        assert!(!end.is_live());
    }
    let there = end.got.len() + end.sessions.get(end.id).map_or(0, |session| session.rx_len());
    if end.count(Told::PeerClosed) == 1 && end.is_live() {
        assert_eq!(there, peers.len(), "its end comes after all of it: {}", case());
    }
    if end.told.contains(&Told::Closed(CloseReason::Truncated)) {
        assert_eq!(end.count(Told::PeerClosed), 0, "{}", case());
        // An app that closed hears `closed` only.
        assert!(end.count(Told::Reset) == 1 || has_closed, "{}", case());
    }
}

fn story(does: &[(usize, Does)], mtu: usize) {
    let case = || format!("{does:?}, mtu {mtu}");
    let mut pair = pair(fifos(150), 4096);
    pair.mtu = mtu;
    pair.run();
    assert_eq!(pair.ends.each_ref().map(|end| end.told.clone()), [[Told::Up], [Told::Up]]);
    let mut written = [0; 2];
    pair.ends.iter_mut().for_each(|end| end.reads = 0);
    let closes = |n| does.contains(&(n, Does::Close));
    for &(n, what) in does {
        match what {
            Does::Write => {
                let (id, sessions) = (pair.ends[n].id, &mut pair.ends[n].sessions);
                written[n] += sessions.write(id, &stream(n)[written[n]..][..WRITTEN]);
            }
            Does::Read => {
                pair.read(n, 60);
            }
            Does::HalfClose => pair.half_close(n),
            Does::Close => pair.close(n),
            Does::Cut => pair.cut(n),
            Does::Step => {
                pair.step();
            }
        }
        pair.ends.iter().for_each(|end| end.sessions.check_consistency());
        (0..2).for_each(|n| check(&pair, n, written, closes(n), &case));
    }
    // Both apps read all there is; then all that can come has come.
    for _ in 0..100 {
        pair.run();
        if pair.read(CLIENT, usize::MAX) + pair.read(SERVER, usize::MAX) == 0 {
            break;
        }
    }
    (0..2).for_each(|n| check(&pair, n, written, closes(n), &case));
    let has_cut = does.iter().any(|&(_, what)| what == Does::Cut);
    for n in [CLIENT, SERVER] {
        let ended = closes(1 - n) || does.contains(&(1 - n, Does::HalfClose));
        if !has_cut && !closes(CLIENT) && !closes(SERVER) {
            assert_eq!(pair.ends[n].got.len(), written[1 - n], "all of it came: {}", case());
            assert_eq!(pair.ends[n].count(Told::PeerClosed), usize::from(ended), "{}", case());
        }
        if does.starts_with(&[(1 - n, Does::Cut), (CLIENT, Does::Step)]) && !closes(n) {
            // A FIN before anything else: no end of the layer can come before it.
            assert!(pair.ends[n].told.contains(&Told::Closed(CloseReason::Truncated)), "{}", case());
        }
    }
    // Whatever is left can be ended.
    for n in [CLIENT, SERVER] {
        pair.close(n);
        pair.run();
    }
    for n in [CLIENT, SERVER] {
        if pair.ends[n].is_live() {
            pair.ask(n, Ending::Reset);
            pair.run();
        }
        assert!(matches!(pair.ends[n].told.last(), Some(Told::Closed(_))), "{}", case());
        assert_eq!(pair.ends[n].sessions.counts(), Default::default(), "{}", case());
    }
}

#[test]
fn every_short_story_of_two_ends_with_a_layer_is_told_in_order_and_leaves_nothing() {
    let each: Vec<(usize, Does)> = [CLIENT, SERVER]
        .into_iter()
        .flat_map(|n| ALL.map(|what| (n, what)))
        .filter(|&one| one != (SERVER, Does::Step))
        .collect();
    let mut stories = vec![Vec::new()];
    for _ in 0..4 {
        stories = stories
            .iter()
            .flat_map(|story: &Vec<_>| each.iter().map(|&next| story.iter().copied().chain([next]).collect()))
            .collect();
    }
    assert_eq!(stories.len(), 11_usize.pow(4));
    for (n, does) in stories.iter().enumerate() {
        story(does, if n % 2 == 0 { 1460 } else { 7 });
    }
}

#[test]
fn a_peer_that_is_not_read_is_held_back_and_what_waits_comes_when_it_is() {
    for chunks in [8, 4096] {
        let mut pair = pair(fifos(500), chunks);
        pair.ends[SERVER].reads = 0;
        pair.ends[CLIENT].writes = vec![7; 20_000];
        pair.run();
        assert!(pair.ends[CLIENT].wire.len() <= 500 + 500 + 20 + 1, "{}", pair.ends[CLIENT].wire.len());
        pair.ends[CLIENT].half_closes = true;
        while pair.ends[SERVER].got.len() < 20_000 {
            assert!(pair.read(SERVER, 90) > 0, "stuck at {}", pair.ends[SERVER].got.len());
            pair.run();
        }
        assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::PeerClosed));
        assert!(pair.ends[SERVER].told.iter().filter(|&&told| told == Told::Readable).count() > 20);
    }
}

#[test]
fn an_app_that_found_no_room_is_told_when_the_layer_made_some() {
    let mut pair = pair(fifos(500), 4096);
    pair.run();
    let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
    assert_eq!(sessions.write(id, &[1; 600]), 500);
    pair.run();
    assert_eq!(pair.ends[CLIENT].told, [Told::Up, Told::Writable]);
    assert_eq!(pair.ends[SERVER].got, [1; 500]);
}

#[test]
fn a_layer_that_breaks_says_so_to_the_peer_and_the_app_hears_why_once() {
    let mut pair = Pair::new(&StagePlans::NONE, &StagePlans::one(Framed), fifos(500));
    pair.ends[CLIENT].writes = vec![GREETING, 2, b'a' ^ TURNED, b'b' ^ TURNED, 255, 1];
    pair.run();
    assert_eq!(pair.ends[SERVER].got, b"ab");
    let told = [Told::Up, Told::Readable, Told::Reset, Told::Closed(CloseReason::Corrupt)];
    assert_eq!(pair.ends[SERVER].told, told);
    assert_eq!(pair.ends[CLIENT].got, [GREETING, 255]);
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
}

#[test]
fn a_stage_that_fails_with_a_word_for_the_peer_closes_behind_it() {
    let mut pair = Pair::new(&StagePlans::NONE, &StagePlans::one(Framed), fifos(500));
    pair.ends[CLIENT].writes = vec![b'x'; 300];
    pair.run();
    let cause = StageCause::Malformed("no greeting");
    let failure = ConnectFailure::Stage(StageFailure { stage: "frames", cause });
    assert_eq!(pair.ends[SERVER].told, [Told::Failed(failure)]);
    assert_eq!(pair.ends[CLIENT].got, [GREETING, b'?']);
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::PeerClosed), "not a reset");
    // What still comes is dropped, however much, and holds nothing.
    pair.ends[CLIENT].writes.extend([b'y'; 5_000]);
    pair.run();
    assert_eq!(pair.ends[SERVER].sessions.counts().fifo_chunks, 0);
    assert_eq!(pair.ends[SERVER].stray, 0);
    pair.close(CLIENT);
    pair.run();
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::Finished)));
    assert_eq!(pair.ends[SERVER].sessions.counts(), Default::default());
    assert_eq!(pair.ends[SERVER].told.len(), 1, "its app heard of it once");
}

#[test]
fn a_layer_below_a_stage_that_fails_ends_with_it() {
    // Frames, and inside of them another greeting, which the client does not send.
    #[derive(Debug)]
    struct Asks;
    impl StagePlan for Asks {
        fn stage(&self) -> Box<dyn Stage> {
            Box::new(Asking)
        }
    }
    #[derive(Debug)]
    struct Asking;
    impl Stage for Asking {
        fn name(&self) -> &'static str {
            "asks"
        }
        fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
            if io.rx_len() == 0 { Answer::Wants(Want::Read) } else { Answer::Failed(StageCause::TooLong) }
        }
    }
    let server = StagePlans::new(vec![std::sync::Arc::new(Framed), std::sync::Arc::new(Asks)]);
    let failure = |stage, cause| [Told::Failed(ConnectFailure::Stage(StageFailure { stage, cause }))];
    let cases: [(&[u8], bool, [Told; 1]); 4] = [
        (&[1, b'x'], false, failure("asks", StageCause::TooLong)),
        (&[0], false, failure("asks", StageCause::PeerClosed)),
        (&[], true, failure("asks", StageCause::PeerClosed)),
        (&[255], false, failure("frames", StageCause::Malformed("what came cannot be decrypted"))),
    ];
    for (bytes, half_closes, told) in cases {
        let mut pair = Pair::new(&StagePlans::NONE, &server, fifos(500));
        pair.ends[CLIENT].writes = [&[GREETING], bytes].concat();
        pair.ends[CLIENT].half_closes = half_closes;
        pair.run();
        assert_eq!(pair.ends[SERVER].told, told, "{bytes:?}");
        pair.close(CLIENT);
        pair.run();
        assert_eq!(pair.ends[SERVER].sessions.counts(), Default::default());
    }
}
