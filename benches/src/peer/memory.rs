//! `memory`: what an idle established connection costs, everything counted that resident memory shows.
//!
//! Ours holds no fifo memory for an idle session, smoltcp must be given its buffers when a socket is made. So the
//! report names two variants: `buffer_bytes` 0, the bare state (such a socket can be established but never carry a
//! byte), and 4096, the smallest that our sessions hold when they are busy (one chunk each way).

use std::io;

use super::establish::{Established, establish};
use super::pair::Pair;
use crate::measure::{MemoryMeter, Meter};
use crate::work::Work;

/// The first of the server's ports.
const PORT: u16 = 7000;
/// Connections opened and dropped first, so that packet buffers and the allocator's own are not counted.
const WARM_UP: usize = 256;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// Connections to hold, both ends of each in this process.
    pub connections: usize,
    /// Each socket's buffers, bytes each way.
    pub buffer_bytes: usize,
    /// Time that opening them may take, seconds.
    pub setup_limit_seconds: f64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions { connections: 10_000, buffer_bytes: 0, setup_limit_seconds: 60.0 }
    }
}

/// What [`memory`] found, still holding it.
pub struct MemoryPeer {
    /// An operation is one *end* of a connection (one session), so there are two for each connection; bytes are the
    /// growth of resident memory; the time is that of opening them.
    pub work: Work,
    _pair: Pair,
    established: Established,
}

impl MemoryPeer {
    /// Connections that are really held.
    pub fn connections(&self) -> usize {
        self.established.client.len()
    }
}

/// Opens the connections and measures how much resident memory grew.
///
/// # Errors
/// When `/proc/self/statm` cannot be read.
pub fn memory(options: &MemoryOptions) -> io::Result<MemoryPeer> {
    let MemoryOptions { connections, buffer_bytes, setup_limit_seconds } = *options;
    let mut pair = Pair::new(0);
    warm_up(&mut pair, buffer_bytes);
    let memory = MemoryMeter::start()?;
    // Only now, and from fresh pages: a set allocated earlier might lie in memory that was resident already.
    drop(pair.set_aside(connections));
    let meter = Meter::start();
    let established = establish(&mut pair, connections, buffer_bytes, PORT, setup_limit_seconds);
    // The lists of handles are the app's, as they would be in any program: 16 of the bytes counted.
    let ends = 2 * established.client.len() as u64;
    let work = meter.work(ends, memory.growth_bytes()?);
    Ok(MemoryPeer { work, _pair: pair, established })
}

fn warm_up(pair: &mut Pair, buffer_bytes: usize) {
    let held = pair.set_aside(WARM_UP);
    establish(pair, WARM_UP, buffer_bytes, PORT - 1, 60.0);
    pair.put_back(held);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_buffers_can_be_held_idle() {
        let held = memory(&MemoryOptions { connections: 10, ..MemoryOptions::default() }).unwrap();
        assert_eq!(held.connections(), 10);
    }
}
