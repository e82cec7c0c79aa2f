//! Nothing is allocated per segment: a million segments, requests and streams, after a warm-up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hoststack_benches::ours::{Bulk, BulkMode, BulkOptions, Rr, RrOptions, Threads};

/// Counts what the calling thread allocates: the stack steps on it, the test harness has threads of its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody asks for it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it came, and the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `pointer` came from System, as all pointers of this allocator do.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_in(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// What telling the app to begin and looking at counters may allocate: messages, a block of the request channel. The
/// same for one segment and for a million.
const PER_RUN_MAX: u64 = 64;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_in(|| drop(std::hint::black_box(Box::new(7)))), 1);
}

#[test]
fn a_million_segments_of_requests_and_responses_allocate_nothing() {
    for connections in [1, 1000] {
        let mut ours = Rr::new(&RrOptions { threads: Threads::Virtual, connections, ..RrOptions::default() });
        ours.run(500_000, 600.0);
        let few = allocations_in(|| assert_eq!(ours.run(1_000, 600.0).operations, 1_000));
        // Two segments each.
        let many = allocations_in(|| assert_eq!(ours.run(500_000, 600.0).operations, 500_000));
        assert!(
            many <= PER_RUN_MAX && many <= few + 2,
            "{many} in a million segments, {few} in two thousand"
        );
    }
}

#[test]
fn a_million_segments_of_a_stream_allocate_nothing() {
    for (flows, mode) in [(1, BulkMode::Copies), (1, BulkMode::InPlace), (100, BulkMode::Copies)] {
        let mut ours =
            Bulk::new(&BulkOptions { threads: Threads::Virtual, flows, mode, ..BulkOptions::default() });
        ours.move_bytes(1 << 30, 600.0);
        let few = allocations_in(|| assert_eq!(ours.move_bytes(1 << 20, 600.0).bytes, 1 << 20));
        const BYTES: u64 = 1_000_000 * 1448;
        let many = allocations_in(|| assert_eq!(ours.move_bytes(BYTES, 600.0).bytes, BYTES));
        assert!(many <= PER_RUN_MAX && many <= few + 2, "{many} in a million segments, {few} in a thousand");
    }
}
