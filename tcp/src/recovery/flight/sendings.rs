//! What was sent when: the sendings in order of time, as the list of RFC 8985 §6.2 step 5 is, so that finding what is
//! lost looks at the oldest and stops at the first that is too young.
//!
//! A sending says of which bytes it was, not of which ranges: those are split and joined without it. It is never taken
//! back. Ranges of it that were delivered, found lost or sent again since are passed over when it is looked at, once,
//! as its beginning moves up.
//!
//! Places are offsets that do not wrap: the flight's (see `Flight::offset`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use hoststack_transport::Instant;

/// Bytes that were sent at one time, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) at: Instant,
    /// Below this nothing of it is in the network.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Sending {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.end)
    }
}

/// Sendings by time, and by their ends where the time is one.
#[derive(Debug, Default)]
pub(super) struct Sendings {
    /// Those that were wholly sent before the latest that was delivered.
    pub(super) passed: VecDeque<Sending>,
    /// The others. Those of one time do not touch each other.
    pub(super) ahead: VecDeque<Sending>,
}

impl Sendings {
    /// Forgets all; keeps a little memory.
    pub(super) fn clear(&mut self) {
        for queue in [&mut self.passed, &mut self.ahead] {
            queue.clear();
            queue.shrink_to(64);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.passed.len() + self.ahead.len()
    }

    /// Adds one; returns where the sending now begins that it is a part of.
    #[inline]
    pub(super) fn push(&mut self, at: Instant, start: u64, end: u64) -> u64 {
        if let Some(last) = self.ahead.back_mut()
            && last.at == at
            && last.end == start
        {
            last.end = end;
            return last.start;
        }
        let new = Sending { at, start, end };
        if self.ahead.back().is_none_or(|last| last.key() < new.key() && (last.at < at || last.end < start)) {
            self.ahead.push_back(new);
            return start;
        }
        self.push_among(new)
    }

    /// Several places were sent to at one time, in no order; or time went back, by a step at most.
    fn push_among(&mut self, mut new: Sending) -> u64 {
        let touches = |other: &Sending, new: &Sending| {
            other.at == new.at && other.start <= new.end && other.end >= new.start
        };
        let mut place = self.ahead.partition_point(|other| other.key() < new.key());
        place -= usize::from(place > 0 && touches(&self.ahead[place - 1], &new));
        while let Some(other) = self.ahead.get(place)
            && touches(other, &new)
        {
            (new.start, new.end) = (new.start.min(other.start), new.end.max(other.end));
            self.ahead.remove(place);
            // What it now reaches down to.
            place -= usize::from(place > 0 && touches(&self.ahead[place - 1], &new));
        }
        self.ahead.insert(place, new);
        new.start
    }

    /// All below `una` is acknowledged.
    #[inline]
    pub(super) fn acknowledge(&mut self, una: u64) {
        for queue in [&mut self.passed, &mut self.ahead] {
            while queue.front().is_some_and(|sending| sending.end <= una) {
                queue.pop_front();
            }
        }
    }

    /// What was sent at `at`, up to `end`, was delivered: nothing later was before. Returns how many sendings are passed
    /// by that.
    pub(super) fn pass(&mut self, at: Instant, end: u64) -> usize {
        let before = self.passed.len();
        while let Some(sending) = self.ahead.front()
            && sending.key() < (at, end)
        {
            self.passed.push_back(*sending);
            self.ahead.pop_front();
        }
        self.passed.len() - before
    }

    /// Begins anew with these.
    pub(super) fn rebuild(&mut self, sendings: impl Iterator<Item = Sending>) {
        let mut all: Vec<Sending> = sendings.collect();
        all.sort_by_key(Sending::key);
        self.clear();
        for Sending { at, start, end } in all {
            self.push(at, start, end);
        }
    }
}
