//! The session layer of the table: one session, an app that always has more to send and reads at once.
//!
//! It holds no bytes, only which of them arrived, with the limit of ranges that the fifos of `session` have.

use hoststack_session::fifo::OOO_RANGES_MAX;
use hoststack_transport::{
    AcceptError, ConnectionId, FlowKey, Key, ListenerId, OooRange, RxStored, SessionId, SessionLayer,
};

/// The only session.
pub const SESSION: SessionId = SessionId(Key { slot: 0, generation: 0 });

/// One end's session.
#[derive(Debug)]
pub struct Streams {
    /// Its connection, once it is up.
    pub connection: Option<ConnectionId>,
    /// The transmit stage is due.
    pub is_programmed: bool,
    /// Bytes received in order.
    pub received: u64,
    /// Bytes acknowledged by the peer.
    pub acknowledged: u64,
    /// Capacity of the rx fifo.
    rx_capacity: u32,
    /// Bytes that the tx fifo always holds.
    pub tx_len: u32,
    /// How far that may grow when TCP wants more.
    pub tx_len_max: u32,
    ranges: Vec<OooRange>,
}

impl Streams {
    /// Nothing received; `tx_len` bytes wait to be sent, now and always.
    pub fn new(rx_capacity: u32, tx_len: u32) -> Streams {
        Streams {
            connection: None,
            is_programmed: false,
            received: 0,
            acknowledged: 0,
            rx_capacity,
            tx_len,
            tx_len_max: tx_len,
            ranges: Vec::with_capacity(OOO_RANGES_MAX + 1),
        }
    }

    /// Adds `start..end`, which lies beyond a gap; says how many of the bytes were new and refused.
    fn add(&mut self, start: u32, end: u32) -> u32 {
        // `first..last` are the ranges that overlap or touch it.
        let first = self.ranges.partition_point(|range| range.end < start);
        let last = first + self.ranges[first..].partition_point(|range| range.start <= end);
        if first == last {
            if self.ranges.len() == OOO_RANGES_MAX {
                return end - start;
            }
            self.ranges.insert(first, OooRange { start, end });
        } else {
            let start = self.ranges[first].start.min(start);
            let end = self.ranges[last - 1].end.max(end);
            self.ranges[first] = OooRange { start, end };
            self.ranges.drain(first + 1..last);
        }
        0
    }
}

impl SessionLayer for Streams {
    fn accept(
        &mut self,
        _listener: ListenerId,
        connection: ConnectionId,
        _flow: &FlowKey,
    ) -> Result<SessionId, AcceptError> {
        self.connection = Some(connection);
        Ok(SESSION)
    }

    fn rx_room(&self, _session: SessionId) -> u32 {
        self.rx_capacity
    }

    fn rx_store(&mut self, _session: SessionId, offset: u32, data: &[u8]) -> RxStored {
        // Cannot cut: a segment's payload.
        let (end, room) = (offset + data.len() as u32, self.rx_capacity);
        let (start, cut) = (offset.min(room), end.min(room));
        let mut refused = end - cut.max(offset);
        if start == cut {
            return RxStored { advanced: 0, refused };
        }
        if start > 0 {
            refused += self.add(start, cut);
            return RxStored { advanced: 0, refused };
        }
        let joined = self.ranges.partition_point(|range| range.start <= cut);
        let advanced = self.ranges[..joined].last().map_or(cut, |range| range.end.max(cut));
        self.ranges.drain(..joined);
        for range in &mut self.ranges {
            range.start -= advanced;
            range.end -= advanced;
        }
        self.received += u64::from(advanced);
        RxStored { advanced, refused }
    }

    fn rx_ranges(&self, _session: SessionId) -> &[OooRange] {
        &self.ranges
    }

    fn tx_len(&self, _session: SessionId) -> u32 {
        self.tx_len
    }

    /// The fifo grows, and the app fills it at once.
    fn tx_wanted(&mut self, _session: SessionId, bytes: u32) {
        self.tx_len = self.tx_len.max(bytes.min(self.tx_len_max));
    }

    /// Never called: the table's port takes no payload.
    fn tx_copy(&self, _session: SessionId, _offset: u32, into: &mut [u8]) {
        into.fill(0);
    }

    fn tx_acknowledge(&mut self, _session: SessionId, count: u32) {
        self.acknowledged += u64::from(count);
        self.is_programmed = true;
    }

    fn program_tx(&mut self, _session: SessionId) {
        self.is_programmed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoststack_transport::Rng;

    fn store(streams: &mut Streams, offset: u32, len: usize) -> RxStored {
        streams.rx_store(SESSION, offset, &vec![0; len])
    }

    #[test]
    fn what_arrives_is_what_a_list_of_bytes_says() {
        let mut rng = Rng::from_seed(1);
        for _ in 0..200 {
            let mut streams = Streams::new(120, 0);
            // 120 bytes have at most 60 ranges beyond a gap: none is refused for its number.
            let mut there = vec![false; 120];
            for _ in 0..60 {
                let (offset, len) = (rng.below(130), 1 + rng.below(9) as usize);
                let stored = store(&mut streams, offset, len);
                let mut refused = 0;
                for at in offset..offset + len as u32 {
                    match there.get_mut(at as usize) {
                        Some(place) => *place = true,
                        None => refused += 1,
                    }
                }
                let advanced = there.iter().take_while(|&&is_there| is_there).count();
                there.drain(..advanced);
                there.resize(120, false);
                assert_eq!(stored, RxStored { advanced: advanced as u32, refused });
                let mut beyond = [false; 120];
                for range in streams.rx_ranges(SESSION) {
                    beyond[range.start as usize..range.end as usize].fill(true);
                }
                assert_eq!(beyond[..], there[..]);
                let ranges = streams.rx_ranges(SESSION);
                assert!(ranges.iter().all(|range| 0 < range.start && range.start < range.end));
                assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            }
        }
    }

    #[test]
    fn ranges_beyond_the_limit_of_the_fifos_are_refused() {
        let mut streams = Streams::new(1 << 20, 0);
        let many = OOO_RANGES_MAX as u32;
        for n in 1..=many {
            assert_eq!(store(&mut streams, 20 * n, 10), RxStored::default());
        }
        assert_eq!(store(&mut streams, 20 * many + 20, 10), RxStored { advanced: 0, refused: 10 });
        // What touches a range is kept.
        assert_eq!(store(&mut streams, 20 * many + 10, 10), RxStored::default());
        assert_eq!(store(&mut streams, 0, 20), RxStored { advanced: 30, refused: 0 });
    }
}
