//! Resident memory is the process's, so what measures it has a process, and one test, of its own.

use hoststack_benches::measure::{MemoryMeter, Usage};
use hoststack_benches::peer::{MemoryOptions, memory};

#[test]
fn growth_shows_what_was_touched_and_what_established_sockets_hold() {
    touched_memory_is_growth_and_faults();
    both_ends_and_their_buffers_are_counted();
}

fn touched_memory_is_growth_and_faults() {
    const MEGABYTES: u64 = 32;
    let before = Usage::read();
    let memory = MemoryMeter::start().unwrap();
    let block = std::hint::black_box(vec![1u8; (MEGABYTES << 20) as usize]);
    let growth = memory.growth_bytes().unwrap();
    assert!(((MEGABYTES - 1) << 20..(MEGABYTES + 8) << 20).contains(&growth), "{growth}");
    assert!(Usage::read().since(&before).minor_faults > 0);
    drop(block);
}

fn both_ends_and_their_buffers_are_counted() {
    const BUFFER: usize = 8192;
    let bare = MemoryOptions { connections: 2000, buffer_bytes: 0, setup_limit_seconds: 60.0 };
    let bare = memory(&bare).unwrap();
    assert_eq!((bare.connections(), bare.work.operations), (2000, 4000));
    let state = bare.work.bytes_per_operation();
    assert!(state > 300.0 && state < 3000.0, "{state}");
    drop(bare);
    let full = MemoryOptions { connections: 2000, buffer_bytes: BUFFER, setup_limit_seconds: 60.0 };
    let held = memory(&full).unwrap();
    let with_buffers = held.work.bytes_per_operation();
    let expected = state + 2.0 * BUFFER as f64;
    assert!((with_buffers - expected).abs() < 0.1 * expected, "{with_buffers} beside {expected}");
}
