//! From one session's receive fifo into another's transmit fifo, without a buffer between.

use super::chunk::ChunkPool;
use super::length;
use super::rx::RxFifo;
use super::tx::TxFifo;

/// Moves in-order bytes of `from` to the end of `into`, at most `want`, as many as `capacity` (of `into`) and the
/// pool allow. Returns how many. What a proxy does all day. Ends a reservation of `into`.
///
/// A chunk changes hands, and its bytes are not touched, when `into` is empty or at the edge of a chunk and nothing
/// else needs the chunk: so it is for small messages, and while the pool is exhausted. All else is copied once.
pub fn relay(
    pool: &mut ChunkPool,
    from: &mut RxFifo,
    into: &mut TxFifo,
    want: usize,
    capacity: usize,
) -> usize {
    let total = want.min(from.len()).min(into.room(capacity));
    if total == 0 {
        return 0;
    }
    into.unreserve(pool);
    let mut done = 0;
    while done < total {
        let ring = into.ring_mut();
        let count = from.peek(pool).len().min(total - done);
        let source = from.ring().written(pool, 0);
        if ring.takes_chunk(pool, source.1)
            && let Some(id) = from.take_chunk(pool, count)
        {
            ring.push_back(pool, id, source.1, length(count));
            done += count;
            continue;
        }
        let Some((id, at)) = ring.chunk_or_alloc(pool, ring.len()) else { break };
        let count = count.min(pool.chunk_size() - at);
        pool.copy_between(source, (id, at), count);
        ring.extend(length(count));
        from.consume(pool, count);
        done += count;
    }
    done
}
