//! A hierarchical timer wheel with lazy entries: one wheel per worker, normally one entry per connection.
//!
//! There is no cancel. An owner keeps its true deadline and the deadline of its wheel entry; re-arming to a later
//! moment only stores a number, and when the entry fires too soon for the owner, the owner inserts it again.
//!
//! The wheel counts ticks of 64 us in digits of 8 bits. An entry lies at the level of the highest digit in which its
//! tick differs from the cursor's, in the slot of that digit, so every entry of a level is earlier than every entry
//! of the levels above it and slots never wrap. Exact deadlines are kept: a tick only decides where an entry lies,
//! never when it fires.
//!
//! A slot is a list of chunks of entries. Moving a slot down a level then reads memory in order: with entries linked
//! one by one, that took 100 ns each when a worker had a million.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::time::Instant;
use crate::usage::Usage;

/// A tick is 2^6 = 64 us.
const TICK_BITS: u32 = 6;
/// 256 slots a level: a slot of level 1 is 16 ms, one of level 2 is 4 s. Wider slots would hold so many of a million
/// connections' entries that a step which moves one down is felt.
const DIGIT_BITS: u32 = 8;
const SLOTS: usize = 1 << DIGIT_BITS;
const WORDS: usize = SLOTS / 64;
/// Enough digits for every `u64` of microseconds, so that no deadline needs a special case.
const LEVELS: usize = (64 - TICK_BITS).div_ceil(DIGIT_BITS) as usize;
/// Entries in a chunk: 512 bytes for 8-byte keys.
const CHUNK: usize = 31;
/// Free chunks kept however few entries there are (1 MiB); beyond these, as many as are in use.
const FREE_KEPT: usize = 2048;

/// Some entries of a slot.
struct Chunk<K> {
    next: Option<Box<Chunk<K>>>,
    len: usize,
    /// Deadlines in microseconds and keys; the first `len` count.
    entries: [(u64, K); CHUNK],
}

struct Slot<K> {
    /// Earliest deadline in the slot; exact, because nothing leaves a slot but all of it.
    earliest: u64,
    /// Only the first chunk may have room.
    head: Option<Box<Chunk<K>>>,
}

impl<K> Slot<K> {
    const EMPTY: Slot<K> = Slot { earliest: u64::MAX, head: None };
}

/// Deadlines with keys, earliest first, for any number of them.
///
/// Insertion takes constant time. [`TimerWheel::advance`] takes time for the entries that fire and for those that
/// move down a level (each moves at most once per level in its life), not for the time that passed. An entry takes 16
/// bytes for an 8-byte key; memory is reused, and given back when few entries are left.
///
/// ```
/// use hoststack_transport::{Instant, TimerWheel};
/// let mut wheel = TimerWheel::new(Instant::ZERO);
/// wheel.insert(Instant::from_millis(200), "retransmit");
/// let mut fired = Vec::new();
/// wheel.advance(Instant::from_millis(199), &mut fired);
/// assert!(fired.is_empty());
/// assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(200)));
/// wheel.advance(Instant::from_millis(200), &mut fired);
/// assert_eq!(fired, [(Instant::from_millis(200), "retransmit")]);
/// ```
pub struct TimerWheel<K: Copy> {
    /// The tick that levels and slots are relative to: that of the latest `advance`, or of a later one before it.
    cursor: u64,
    /// Levels that hold entries, as bits.
    levels: u32,
    /// Per level, the slots that hold entries, as bits.
    occupied: [[u64; WORDS]; LEVELS],
    /// All levels' slots, the lowest level first.
    slots: Box<[Slot<K>]>,
    /// Free chunks, as a list.
    free: Option<Box<Chunk<K>>>,
    free_len: usize,
    len: usize,
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel whose first `advance` is expected at `start` or later.
    pub fn new(start: Instant) -> TimerWheel<K> {
        TimerWheel {
            cursor: tick(start.as_micros()),
            levels: 0,
            occupied: [[0; WORDS]; LEVELS],
            slots: (0..LEVELS * SLOTS).map(|_| Slot::EMPTY).collect(),
            free: None,
            free_len: 0,
            len: 0,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What it holds. The bytes are the least that its entries can take: how full their chunks are is not kept.
    pub fn usage(&self) -> Usage {
        let chunks = self.free_len + self.len.div_ceil(CHUNK);
        Usage {
            used: self.len,
            element_bytes: size_of::<(u64, K)>(),
            held_bytes: self.slots.len() * size_of::<Slot<K>>() + chunks * size_of::<Chunk<K>>(),
            ..Usage::default()
        }
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry. One whose deadline has passed fires in the next [`TimerWheel::advance`].
    #[inline]
    pub fn insert(&mut self, deadline: Instant, key: K) {
        self.len += 1;
        self.put(deadline.as_micros(), key);
    }

    /// Takes out every entry with `deadline <= now` and appends them to `fired`, in order of deadline.
    ///
    /// A `now` earlier than the previous one is allowed and fires only what is due by it.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<(Instant, K)>) {
        let first = fired.len();
        let now = now.as_micros();
        let target = tick(now);
        while let Some((level, index)) = self.earliest_slot() {
            if self.slots[level * SLOTS + index].earliest > now {
                break;
            }
            // Everything below this level is empty, so the cursor may go anywhere inside this slot. Going as far as
            // `now` lets what is not due yet land as low as it can.
            let shift = level as u32 * DIGIT_BITS;
            let slot = self.cursor >> shift & !(SLOTS as u64 - 1) | index as u64;
            let last_tick = slot << shift | ((1 << shift) - 1);
            self.cursor = self.cursor.max(target.min(last_tick));
            self.drain(level, index, now, fired);
        }
        if target > self.cursor {
            // What remains is later than `now`. Only the slot that `target` lies in has to move down: slots before
            // it are empty, and other levels agree with the cursor in the digits that count.
            let level = level_of(self.cursor, target);
            self.cursor = target;
            self.drain(level, digit(target, level), now, fired);
        }
        if fired.len() - first > 1 {
            fired[first..].sort_unstable_by_key(|&(deadline, _)| deadline);
        }
    }

    /// The earliest deadline, exactly. It may have passed already.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let (level, index) = self.earliest_slot()?;
        Some(Instant::from_micros(self.slots[level * SLOTS + index].earliest))
    }

    /// The slot with the earliest entry, as level and index.
    #[inline]
    fn earliest_slot(&self) -> Option<(usize, usize)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        let words = &self.occupied[level];
        let word = words.iter().position(|&word| word != 0)?;
        Some((level, word * 64 + words[word].trailing_zeros() as usize))
    }

    /// Puts an entry into its slot.
    #[inline]
    fn put(&mut self, deadline: u64, key: K) {
        // What is due already waits in the cursor's own slot.
        let tick = tick(deadline).max(self.cursor);
        let level = level_of(self.cursor, tick);
        let index = digit(tick, level);
        self.levels |= 1 << level;
        self.occupied[level][index / 64] |= 1 << (index % 64);
        let slot = &mut self.slots[level * SLOTS + index];
        slot.earliest = slot.earliest.min(deadline);
        if let Some(chunk) = &mut slot.head
            && chunk.len < CHUNK
        {
            chunk.entries[chunk.len] = (deadline, key);
            chunk.len += 1;
            return;
        }
        let next = slot.head.take();
        slot.head = Some(match self.free.take() {
            Some(mut chunk) => {
                self.free = chunk.next.take();
                self.free_len -= 1;
                (chunk.next, chunk.len, chunk.entries[0]) = (next, 1, (deadline, key));
                chunk
            }
            None => Box::new(Chunk { next, len: 1, entries: [(deadline, key); CHUNK] }),
        });
    }

    /// Empties a slot: what is due goes to `fired`, the rest is put where it belongs relative to the cursor.
    fn drain(&mut self, level: usize, index: usize, now: u64, fired: &mut Vec<(Instant, K)>) {
        let mut rest = core::mem::replace(&mut self.slots[level * SLOTS + index], Slot::EMPTY).head;
        self.occupied[level][index / 64] &= !(1 << (index % 64));
        if self.occupied[level] == [0; WORDS] {
            self.levels &= !(1 << level);
        }
        while let Some(mut chunk) = rest {
            rest = chunk.next.take();
            for &(deadline, key) in &chunk.entries[..chunk.len] {
                if deadline <= now {
                    fired.push((Instant::from_micros(deadline), key));
                    self.len -= 1;
                } else {
                    self.put(deadline, key);
                }
            }
            self.recycle(chunk);
        }
    }

    /// Keeps a chunk that is no longer in use, or gives it back together with another when there are too many.
    fn recycle(&mut self, mut chunk: Box<Chunk<K>>) {
        let kept = FREE_KEPT.max(self.len / CHUNK);
        if self.free_len < kept {
            chunk.next = self.free.take();
            self.free = Some(chunk);
            self.free_len += 1;
        } else if self.free_len > kept
            && let Some(mut other) = self.free.take()
        {
            self.free = other.next.take();
            self.free_len -= 1;
        }
    }
}

impl<K: Copy> Drop for TimerWheel<K> {
    /// Frees lists chunk by chunk: left to themselves, they would recurse once per chunk.
    fn drop(&mut self) {
        for list in self.slots.iter_mut().map(|slot| &mut slot.head).chain([&mut self.free]) {
            while let Some(mut chunk) = list.take() {
                *list = chunk.next.take();
            }
        }
    }
}

const fn tick(micros: u64) -> u64 {
    micros >> TICK_BITS
}

/// The position of the highest digit in which two ticks differ.
#[inline]
const fn level_of(cursor: u64, tick: u64) -> usize {
    // `| 1` makes equal ticks level 0 without a branch.
    ((63 - (cursor ^ tick | 1).leading_zeros()) / DIGIT_BITS) as usize
}

#[inline]
const fn digit(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use proptest::prelude::*;

    fn us(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn fired(wheel: &mut TimerWheel<u32>, now: u64) -> Vec<(u64, u32)> {
        let mut fired = Vec::new();
        wheel.advance(us(now), &mut fired);
        fired.into_iter().map(|(deadline, key)| (deadline.as_micros(), key)).collect()
    }

    #[test]
    fn an_entry_of_an_8_byte_key_takes_16_bytes_and_its_share_of_a_chunk() {
        assert_eq!(size_of::<Chunk<u64>>(), 512);
        assert_eq!(size_of::<Chunk<crate::Key>>(), 512);
    }

    #[test]
    fn two_deadlines_in_one_tick_fire_each_at_its_own_microsecond() {
        let mut wheel = TimerWheel::new(us(0));
        wheel.insert(us(130), 1);
        wheel.insert(us(129), 2);
        assert_eq!(fired(&mut wheel, 128), vec![]);
        assert_eq!(wheel.next_deadline(), Some(us(129)));
        assert_eq!(fired(&mut wheel, 129), vec![(129, 2)]);
        assert_eq!(wheel.next_deadline(), Some(us(130)));
        assert_eq!(fired(&mut wheel, 130), vec![(130, 1)]);
        assert!(wheel.is_empty() && wheel.next_deadline().is_none());
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_advance_even_if_time_stands_still_or_goes_back() {
        let mut wheel = TimerWheel::new(us(1_000_000));
        wheel.insert(us(10), 1);
        wheel.insert(us(999_990), 2);
        assert_eq!(wheel.next_deadline(), Some(us(10)));
        assert_eq!(fired(&mut wheel, 999_989), vec![(10, 1)]);
        assert_eq!(fired(&mut wheel, 999_990), vec![(999_990, 2)]);
    }

    #[test]
    fn what_was_in_the_vector_before_stays_in_front() {
        let mut wheel = TimerWheel::new(us(0));
        let mut fired = vec![(us(500), 7)];
        wheel.insert(us(90), 1);
        wheel.insert(us(20), 2);
        wheel.advance(us(100), &mut fired);
        assert_eq!(fired, [(us(500), 7), (us(20), 2), (us(90), 1)]);
    }

    #[test]
    fn one_jump_over_years_fires_everything_in_order_and_far_never_comes() {
        let mut wheel = TimerWheel::new(us(0));
        wheel.insert(Instant::FAR, 0);
        for n in 1..58 {
            wheel.insert(us(1 << n), n);
        }
        assert_eq!(wheel.next_deadline(), Some(us(2)));
        let all: Vec<_> = (1..58).map(|n| (1 << n, n)).collect();
        assert_eq!(fired(&mut wheel, u64::MAX - 1), all);
        assert_eq!((wheel.len(), wheel.next_deadline()), (1, Some(Instant::FAR)));
        assert_eq!(fired(&mut wheel, u64::MAX), vec![(u64::MAX, 0)]);
    }

    fn chunks_in_use<K: Copy>(wheel: &TimerWheel<K>) -> usize {
        let lists = wheel.slots.iter().map(|slot| &slot.head);
        lists.map(|head| core::iter::successors(head.as_ref(), |chunk| chunk.next.as_ref()).count()).sum()
    }

    #[test]
    fn chunks_are_reused_and_an_absurd_number_of_free_ones_is_given_back() {
        let mut wheel = TimerWheel::new(us(0));
        let mut out = Vec::new();
        for n in 0..200_000u64 {
            wheel.insert(us(100_000), n);
        }
        assert_eq!(chunks_in_use(&wheel), 200_000usize.div_ceil(CHUNK));
        wheel.advance(us(90_000), &mut out);
        let all = chunks_in_use(&wheel) + wheel.free_len;
        for n in 0..50 {
            wheel.advance(us(100_000 + n * 100_000), &mut out);
            assert_eq!(out.len(), 200_000);
            out.drain(..100_000)
                .for_each(|(at, key)| wheel.insert(at + crate::Duration::from_millis(100), key));
            out.drain(..).for_each(|(at, key)| wheel.insert(at + crate::Duration::from_millis(100), key));
            assert!(chunks_in_use(&wheel) + wheel.free_len <= all, "chunks leak");
        }
        wheel.advance(us(1 << 40), &mut out);
        assert_eq!((chunks_in_use(&wheel), wheel.free_len), (0, FREE_KEPT));
        let free = core::iter::successors(wheel.free.as_ref(), |chunk| chunk.next.as_ref());
        assert_eq!(free.count(), FREE_KEPT);
    }

    #[test]
    fn entries_move_down_as_their_time_comes_so_that_late_steps_do_not_scan_them() {
        let mut wheel = TimerWheel::new(us(0));
        let hour = 3_600_000_000;
        wheel.insert(us(hour), 1);
        let mut levels = Vec::new();
        for before in [hour, 60_000_000, 100_000, 200, 0] {
            assert!(fired(&mut wheel, hour - before.max(1)).is_empty());
            levels.push(wheel.levels.trailing_zeros());
        }
        assert_eq!(levels, [3, 2, 1, 0, 0]);
    }

    #[test]
    fn a_wheel_with_a_million_entries_is_dropped_without_recursion() {
        let mut wheel = TimerWheel::new(us(0));
        (0..1_000_000).for_each(|n| wheel.insert(us(1 << 40), n));
        assert_eq!(wheel.len(), 1_000_000);
    }

    /// Steps with every order of magnitude, so that jumps cross any number of levels.
    fn distance() -> impl Strategy<Value = u64> {
        (0u32..45, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    #[derive(Debug, Clone)]
    enum Step {
        InsertAfter(u64),
        InsertBefore(u64),
        Advance(u64),
        AdvanceToNext,
        Back(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => distance().prop_map(Step::InsertAfter),
            1 => distance().prop_map(Step::InsertBefore),
            3 => distance().prop_map(Step::Advance),
            2 => Just(Step::AdvanceToNext),
            1 => (0u64..200).prop_map(Step::Back),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn behaves_as_a_sorted_map(start in distance(), steps in proptest::collection::vec(step(), 0..400)) {
            let mut wheel = TimerWheel::new(us(start));
            let mut model: BTreeMap<(u64, u32), ()> = BTreeMap::new();
            let mut now = start;
            for (n, step) in (0u32..).zip(steps) {
                let at = match step {
                    Step::InsertAfter(distance) => Err(now.saturating_add(distance)),
                    Step::InsertBefore(distance) => Err(now.saturating_sub(distance)),
                    Step::Advance(distance) => Ok(now.saturating_add(distance)),
                    Step::AdvanceToNext => Ok(wheel.next_deadline().map_or(now, |next| now.max(next.as_micros()))),
                    Step::Back(distance) => Ok(now.saturating_sub(distance)),
                };
                match at {
                    Err(deadline) => {
                        wheel.insert(us(deadline), n);
                        model.insert((deadline, n), ());
                    }
                    Ok(moment) => {
                        now = now.max(moment);
                        let got = fired(&mut wheel, moment);
                        prop_assert!(got.is_sorted_by_key(|&(deadline, _)| deadline), "not in order: {got:?}");
                        let mut got = got;
                        got.sort_unstable();
                        let later = model.split_off(&(moment.saturating_add(1), 0));
                        prop_assert_eq!(got, model.into_keys().collect::<Vec<_>>());
                        model = later;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.keys().next().map(|&(deadline, _)| us(deadline));
                prop_assert_eq!(wheel.next_deadline(), earliest);
            }
        }
    }
}
