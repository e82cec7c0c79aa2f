//! One end of a connection: does what its [`Side`] says, over whatever carries it, and checks every byte that comes.

use super::plan::{End, Side};
use crate::content;
use crate::sim::dice::Dice;

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer has ended its stream.
    End,
    /// The connection is broken.
    Broken(String),
}

/// What carries an actor's streams. Nothing blocks.
pub trait Carrier {
    /// Writes what there is room for.
    ///
    /// # Errors
    /// The connection is broken: how.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, String>;
    /// Writes one byte as urgent; `false`: there is no room.
    ///
    /// # Errors
    /// The connection is broken: how.
    fn write_urgent(&mut self, byte: u8) -> Result<bool, String>;
    /// Reads what is there.
    fn read(&mut self, into: &mut [u8]) -> Got;
    /// Ends our stream.
    fn half_close(&mut self);
    /// Ends both.
    fn close(&mut self);
    /// Cuts the connection off.
    fn reset(&mut self);
}

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both streams ended, and it closed.
    Orderly,
    /// It cut the connection off, or closed without reading on.
    Aborted,
    /// The connection broke under it.
    Broken(String),
    /// Its peer was gone for long, without a word that reached us.
    Orphaned,
}

/// One end at work.
#[derive(Clone, Debug)]
pub struct Actor {
    side: Side,
    /// Content and length of the peer's stream.
    peer: (u64, u64),
    dice: Dice,
    sent: u64,
    got: u64,
    next_write_us: u64,
    next_read_us: u64,
    began_us: Option<u64>,
    has_half_closed: bool,
    has_peer_ended: bool,
    ended: Option<Ended>,
    wrong: Option<String>,
    buffer: Vec<u8>,
}

impl Actor {
    /// An end that does what `side` says to a peer that does what `peer` says.
    #[must_use]
    pub fn new(side: &Side, peer: &Side) -> Actor {
        Actor {
            side: side.clone(),
            peer: (peer.content, peer.total),
            dice: Dice::new(side.seed),
            sent: 0,
            got: 0,
            next_write_us: 0,
            next_read_us: 0,
            began_us: None,
            has_half_closed: false,
            has_peer_ended: false,
            ended: None,
            wrong: None,
            buffer: Vec::new(),
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Bytes that it wrote, and read.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.got)
    }

    /// The first byte that was not what the peer wrote, or that came beyond its end.
    #[must_use]
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// The connection is over as both ends wanted: for one that paused before it looked for the peer's end, that is its
    /// end too, if nothing is missing.
    pub fn finished(&mut self) {
        let ended = if self.has_half_closed && self.got == self.peer.1 {
            Ended::Orderly
        } else {
            Ended::Broken(format!("finished with {} of {} bytes read", self.got, self.peer.1))
        };
        self.ended.get_or_insert(ended);
    }

    /// The connection broke.
    pub fn broke(&mut self, how: String) {
        self.ended.get_or_insert(Ended::Broken(how));
    }

    /// Its peer is gone and nothing was heard of that.
    pub fn orphan(&mut self, carrier: &mut impl Carrier) {
        if self.ended.is_none() {
            carrier.reset();
            self.ended = Some(Ended::Orphaned);
        }
    }

    /// Does all that can be done now; tells when there is more to do though nothing happens.
    pub fn act(&mut self, now_us: u64, carrier: &mut impl Carrier) -> Option<u64> {
        let began = *self.began_us.get_or_insert(now_us);
        while self.ended.is_none() {
            let has_read = self.read(now_us, carrier);
            let has_written = self.ended.is_none() && self.write(now_us, carrier);
            if self.ended.is_some() || self.finish(now_us - began, carrier) {
                break;
            }
            if !has_read && !has_written {
                return self.next_us(now_us, began);
            }
        }
        None
    }

    /// When a pause ends.
    fn next_us(&self, now_us: u64, began: u64) -> Option<u64> {
        let end = match self.side.end {
            End::At(ms) if self.sent == self.side.total && !self.has_half_closed => {
                began + u64::from(ms) * 1000
            }
            _ => 0,
        };
        [self.next_write_us, self.next_read_us, end].into_iter().filter(|at| *at > now_us).min()
    }

    /// One read; whether there may be more at once.
    fn read(&mut self, now_us: u64, carrier: &mut impl Carrier) -> bool {
        if self.has_peer_ended || now_us < self.next_read_us {
            return false;
        }
        if let Some((at, ms)) = self.side.stall
            && self.got >= at
        {
            self.side.stall = None;
            self.next_read_us = now_us + u64::from(ms) * 1000;
            return false;
        }
        // Cannot truncate because a plan's pieces are smaller than its streams.
        self.buffer.resize(1 + self.dice.below(self.side.read_max) as usize, 0);
        match carrier.read(&mut self.buffer) {
            Got::Bytes(count) => {
                self.check(count);
                self.next_read_us = now_us + self.dice.below(self.side.read_pause_us + 1);
                true
            }
            Got::Nothing => false,
            Got::End => {
                if self.got != self.peer.1 && self.wrong.is_none() {
                    self.wrong = Some(format!("the stream ended at {} of {}", self.got, self.peer.1));
                }
                self.has_peer_ended = true;
                true
            }
            Got::Broken(how) => {
                self.broke(how);
                false
            }
        }
    }

    /// Compares what was read with what the peer wrote there.
    fn check(&mut self, count: usize) {
        let mut right = vec![0; count];
        content::fill(self.peer.0, self.got, &mut right);
        let wrong = self.buffer.iter().zip(&right).position(|(got, right)| got != right);
        if let Some(at) = wrong.filter(|_| self.wrong.is_none()) {
            let (got, right) = (self.buffer[at], right[at]);
            self.wrong = Some(format!("byte {} is {got:#04x}, not {right:#04x}", self.got + at as u64));
        }
        self.got += count as u64;
        if self.got > self.peer.1 && self.wrong.is_none() {
            self.wrong = Some(format!("{} bytes of a stream of {}", self.got, self.peer.1));
        }
    }

    /// One write; whether there may be more at once.
    fn write(&mut self, now_us: u64, carrier: &mut impl Carrier) -> bool {
        let limit = match self.side.end {
            End::Reset(at) => at,
            _ => self.side.total,
        };
        if self.sent >= limit || now_us < self.next_write_us {
            return false;
        }
        let urgent = self.side.urgent_at.filter(|at| *at >= self.sent);
        let until =
            if urgent == Some(self.sent) { self.sent + 1 } else { urgent.unwrap_or(limit).min(limit) };
        let length = (1 + self.dice.below(self.side.write_max)).min(until - self.sent);
        // Cannot truncate because a plan's pieces are smaller than its streams.
        let mut bytes = vec![0; length as usize];
        content::fill(self.side.content, self.sent, &mut bytes);
        let written = match (urgent == Some(self.sent), &bytes[..]) {
            (true, [byte]) => carrier.write_urgent(*byte).map(usize::from),
            _ => carrier.write(&bytes),
        };
        match written {
            Ok(count) => {
                self.sent += count as u64;
                self.next_write_us = now_us + self.dice.below(self.side.write_pause_us + 1);
                count > 0
            }
            Err(how) => {
                self.broke(how);
                false
            }
        }
    }

    /// Ends what is due; whether that was the last.
    fn finish(&mut self, ran_us: u64, carrier: &mut impl Carrier) -> bool {
        let is_sent = self.sent == self.side.total;
        let may_half_close = match self.side.end {
            End::HalfClose => is_sent,
            End::AfterPeer => is_sent && self.has_peer_ended,
            End::At(ms) => is_sent && ran_us >= u64::from(ms) * 1000,
            End::Reset(at) => {
                if self.sent >= at {
                    carrier.reset();
                    self.ended = Some(Ended::Aborted);
                }
                false
            }
            End::Close => {
                if is_sent {
                    carrier.close();
                    self.ended = Some(Ended::Aborted);
                }
                false
            }
        };
        if may_half_close && !self.has_half_closed {
            carrier.half_close();
            self.has_half_closed = true;
        }
        if self.has_half_closed && self.has_peer_ended {
            carrier.close();
            self.ended = Some(Ended::Orderly);
        }
        self.ended.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::differential::plan::WorldPlan;

    /// One way of a perfect wire, with room for a few bytes.
    #[derive(Default)]
    struct Way {
        bytes: VecDeque<u8>,
        has_ended: bool,
        is_reset: bool,
    }

    struct Ends<'w> {
        out: &'w mut Way,
        back: &'w mut Way,
    }

    impl Carrier for Ends<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
            if self.back.is_reset {
                return Err("reset".to_owned());
            }
            let count = bytes.len().min(3000 - self.out.bytes.len());
            self.out.bytes.extend(&bytes[..count]);
            Ok(count)
        }
        fn write_urgent(&mut self, byte: u8) -> Result<bool, String> {
            self.write(&[byte]).map(|count| count > 0)
        }
        fn read(&mut self, into: &mut [u8]) -> Got {
            let count = into.len().min(self.back.bytes.len());
            match count {
                0 if self.back.is_reset => Got::Broken("reset".to_owned()),
                0 if self.back.has_ended => Got::End,
                0 => Got::Nothing,
                _ => {
                    into.iter_mut().zip(self.back.bytes.drain(..count)).for_each(|(to, from)| *to = from);
                    Got::Bytes(count)
                }
            }
        }
        fn half_close(&mut self) {
            self.out.has_ended = true;
        }
        fn close(&mut self) {
            self.out.has_ended = true;
        }
        fn reset(&mut self) {
            self.out.is_reset = true;
        }
    }

    /// Both ends of a connection over a perfect wire, on virtual time; `spoil` may change what is on its way.
    fn play(ours: &Side, kernel: &Side, mut spoil: impl FnMut(&mut Way)) -> [Actor; 2] {
        let mut actors = [Actor::new(ours, kernel), Actor::new(kernel, ours)];
        let (mut there, mut back) = (Way::default(), Way::default());
        for now_us in (0..60_000_000).step_by(500) {
            let _ = actors[0].act(now_us, &mut Ends { out: &mut there, back: &mut back });
            spoil(&mut there);
            let _ = actors[1].act(now_us, &mut Ends { out: &mut back, back: &mut there });
            if actors.iter().all(|actor| actor.ended().is_some()) {
                break;
            }
        }
        actors
    }

    #[test]
    fn plans_without_aborts_end_orderly_with_all_bytes_over_a_perfect_wire() {
        for connection in (0..20).flat_map(|seed| WorldPlan::draw(seed).connections) {
            let actors = play(&connection.ours, &connection.kernel, |_| {});
            for actor in &actors {
                assert_eq!(actor.wrong(), None, "{connection:?}");
            }
            if !connection.is_abortive() {
                assert!(actors.iter().all(|actor| actor.ended() == Some(&Ended::Orderly)), "{connection:?}");
                assert_eq!(actors[0].counts(), (connection.ours.total, connection.kernel.total));
            }
        }
    }

    #[test]
    fn changed_moved_and_added_bytes_are_seen() {
        let connections = WorldPlan::draw(3).connections;
        let connection = connections.iter().find(|c| !c.is_abortive() && c.ours.total > 5000).unwrap();
        let spoils: [fn(&mut VecDeque<u8>); 3] =
            [|bytes| bytes[0] ^= 1, |bytes| bytes.rotate_left(1), |bytes| bytes.push_back(1)];
        for spoil in spoils {
            let mut is_spoilt = false;
            let actors = play(&connection.ours, &connection.kernel, |way| {
                if !is_spoilt && !way.bytes.is_empty() {
                    is_spoilt = true;
                    spoil(&mut way.bytes);
                }
            });
            assert!(is_spoilt && actors[1].wrong().is_some(), "{:?}", actors[1]);
        }
    }
}
