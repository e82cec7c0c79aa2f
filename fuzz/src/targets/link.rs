//! Two engines, and a link that the input drives: each segment's byte says whether it is lost, doubled, late or
//! broken. Segments cross as bytes, written and parsed by `wire`. Where the input ends the link heals; then both streams
//! must arrive whole, both ends close as they wanted, and nothing is left.

use std::collections::BTreeMap;

use hoststack_tcp::testing::{Act, End, Sent, patient};
use hoststack_transport::{Algorithm, Instant, Rng, SocketOptions};
use hoststack_wire::{Segment, tcp};

use crate::input::Input;

/// Turns of the world after which a run counts as stuck. The input's byte for a segment ends long before.
const TURNS_MAX: usize = 100_000;
/// Segments that are lost or broken at most: fewer than a connect tries again.
const LOST_MAX: u32 = 100;
/// Most bytes that an end writes.
const BYTES_MAX: u32 = 30_000;

/// 16 bytes of conditions, then one for each segment and each act of an app.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(&mut input);
    let mut turns = 0;
    while !world.is_over() {
        turns += 1;
        assert!(
            turns < TURNS_MAX,
            "no end in sight at {}: {:#?}",
            world.now,
            world.ends.each_ref().map(End::look)
        );
        world.turn(&mut input);
    }
    world.finish();
}

struct World {
    ends: [End; 2],
    now: Instant,
    /// In flight: (arrival, number) -> (to, segment as bytes).
    link: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    delay_us: u64,
    is_simultaneous: bool,
    /// Segments lost and broken.
    lost: u32,
    /// SYNs have data.
    is_early: bool,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let shape = input.u8();
        let delay_us = 100 + u64::from(input.u16());
        let mtu = 300 + input.u16() % 1300;
        let is_simultaneous = shape & 0xe0 == 0xe0;
        let bytes = [input.below(BYTES_MAX), input.below(BYTES_MAX)];
        let options = [options(input), options(input)];
        let now = Instant::from_millis(1000);
        let mut rng = Rng::from_seed(7);
        let mut ends = End::pair(patient(), options, mtu, is_simultaneous, &mut rng);
        let early = if options[0].fast_open { u32::from(input.u16() % 3000) } else { 0 };
        for (n, end) in ends.iter_mut().enumerate() {
            end.to_write = bytes[n];
            end.expects = bytes[1 - n];
            // Someone must begin to close.
            end.closes_first = shape >> n & 1 == 1 || n == 0 && shape & 3 == 0;
            end.half_closes = shape >> (2 + n) & 1 == 1;
            if early > 0 {
                end.knows_cookie();
            }
        }
        ends[0].connect(now, early);
        if is_simultaneous {
            ends[1].connect(now, early);
        }
        World {
            ends,
            now,
            link: BTreeMap::new(),
            sent: 0,
            delay_us,
            is_simultaneous,
            is_early: early > 0,
            lost: 0,
        }
    }

    fn turn(&mut self, input: &mut Input<'_>) {
        while let Some(entry) = self.link.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, bytes) = entry.remove();
            self.hear(to, &bytes);
        }
        for n in [0, 1] {
            self.ends[n].step(self.now, 8, |end| act(end, input));
            let sent: Vec<Sent> = self.ends[n].out.sent.drain(..).collect();
            for sent in sent {
                self.carry(1 - n, &sent, input);
            }
        }
        let is_busy = self.ends.iter().any(End::has_something_to_do);
        let pace = is_busy.then(|| self.now.plus_micros(500));
        let timers = self.ends.iter().map(End::next_deadline);
        let next = timers.chain([pace, self.link.keys().next().map(|&(at, _)| at)]).flatten().min();
        if !self.is_over() {
            self.now = next.expect("someone wakes").max(self.now);
        }
    }

    fn carry(&mut self, to: usize, sent: &Sent, input: &mut Input<'_>) {
        let mut bytes = encode(sent);
        let fate = input.u8();
        let mut delays = vec![0];
        match fate {
            // 0 too, so that a link without input is a good one.
            0..=127 => {}
            128..=175 if self.lost < LOST_MAX => {
                self.lost += 1;
                delays.clear();
            }
            128..=175 => {}
            // What is taken from a SYN may be taken twice, when it comes twice or late (RFC 7413 §2.1).
            176..=235 if self.is_early => {}
            176..=199 => delays.push(u64::from(fate - 175) * self.delay_us / 8),
            200..=235 => delays[0] = u64::from(fate - 199) * self.delay_us / 4,
            _ if self.lost == LOST_MAX => {}
            _ => {
                self.lost += 1;
                // One byte of it becomes another: the checksum always shows that.
                let at = usize::from(input.u16()) % bytes.len();
                bytes[at] ^= input.u8().max(1);
            }
        }
        for delay in delays {
            self.sent += 1;
            let at = self.now.plus_micros(self.delay_us + delay);
            self.link.insert((at, self.sent), (to, bytes.clone()));
        }
    }

    /// Bytes arrive: those that are not as they were sent are dropped, as `net` does.
    fn hear(&mut self, to: usize, bytes: &[u8]) {
        let end = &mut self.ends[to];
        if tcp::verify_checksum(end.flow.remote.addr, end.flow.local.addr, bytes) {
            end.hears(self.now, &Segment::parse(bytes).expect("it is as it was sent"));
        }
    }

    fn is_over(&self) -> bool {
        self.link.is_empty() && self.ends.iter().all(End::is_over)
    }

    fn finish(&self) {
        for (n, end) in self.ends.iter().enumerate() {
            end.check_finished(n == 0 || self.is_simultaneous);
        }
    }
}

/// What an app does: without input all that it can.
fn act(end: &End, input: &mut Input<'_>) -> Act {
    if !end.has_something_to_do() {
        return Act { write: 0, read: 0 };
    }
    let act = input.u8();
    let write = match act {
        _ if end.to_write == 0 || act & 0xc0 == 0xc0 => 0,
        0 => end.to_write,
        _ => u32::from(act) * 30,
    };
    Act { write, read: if act & 0x30 == 0 { 1 << 20 } else { usize::from(act & 0xf) * 100 } }
}

fn options(input: &mut Input<'_>) -> SocketOptions {
    let [flags, more] = [input.u8(), input.u8()];
    let bit = |n: u8| flags >> n & 1 == 0;
    SocketOptions {
        rx_window: 2000 + u32::from(input.u16()) * 4,
        congestion: Algorithm::ALL[usize::from(more) % Algorithm::ALL.len()],
        window_scale: bit(0),
        timestamps: bit(1),
        sack: bit(2),
        nodelay: !bit(3),
        pacing: !bit(4),
        mss_max: (!bit(5)).then_some(100 + u16::from(more) * 4),
        quick_ack: !bit(6),
        fast_open: !bit(7),
        ..SocketOptions::DEFAULT
    }
}

/// The segment with its checksum, as it lies behind an IP header.
fn encode(sent: &Sent) -> Vec<u8> {
    let mut bytes = vec![0; sent.header.header_len()];
    sent.header.emit(&mut bytes);
    bytes.extend_from_slice(&sent.payload);
    tcp::set_checksum(sent.flow.local.addr, sent.flow.remote.addr, &mut bytes);
    let read = Segment::parse(&bytes).expect("what was written is read");
    assert_eq!((read.header, read.payload), (sent.header, &sent.payload[..]));
    bytes
}
