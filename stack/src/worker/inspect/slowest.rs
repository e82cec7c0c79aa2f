//! The slowest sessions of a walk: as many as were asked for are kept, whatever it passes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hoststack_transport::SessionId;

/// A session's place: by its round-trip time, one that was not measured before all others; of equals the first in the pool is
/// the slower.
type Place = (Option<u32>, Reverse<SessionId>);

/// The slowest so far.
#[derive(Debug, Default)]
pub(super) struct Slowest(BinaryHeap<Reverse<Place>>);

impl Slowest {
    /// A session that the walk passes; `limit` are kept.
    pub(super) fn offer(&mut self, limit: usize, srtt_us: Option<u32>, session: SessionId) {
        let place = (srtt_us, Reverse(session));
        if self.0.len() < limit {
            self.0.push(Reverse(place));
        } else if let Some(mut fastest) = self.0.peek_mut()
            && fastest.0 < place
        {
            *fastest = Reverse(place);
        }
    }

    /// Those that were kept, the slowest first.
    pub(super) fn take(&mut self) -> impl Iterator<Item = SessionId> {
        let kept = std::mem::take(&mut self.0).into_sorted_vec();
        kept.into_iter().map(|Reverse((_, Reverse(session)))| session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_transport::Key;

    #[test]
    fn the_slowest_are_kept_in_order_and_equals_by_their_place() {
        let session = |slot| SessionId(Key { slot, generation: 1 });
        let mut slowest = Slowest::default();
        let times = [Some(5), None, Some(90), Some(7), Some(90), Some(1), None, Some(80)];
        for (slot, srtt_us) in (0..).zip(times) {
            slowest.offer(4, srtt_us, session(slot));
        }
        assert!(slowest.take().eq([2, 4, 7, 3].map(session)));
        assert_eq!(slowest.take().count(), 0);
        for (slot, srtt_us) in (0..).zip([None, Some(1), None]) {
            slowest.offer(4, srtt_us, session(slot));
        }
        assert!(slowest.take().eq([1, 0, 2].map(session)), "those without a measure fill up");
        slowest.offer(0, Some(1), session(1));
        assert_eq!(slowest.take().count(), 0);
    }
}
