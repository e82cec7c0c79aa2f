//! Fuzz targets: functions of bytes that panic when the stack breaks a promise.
//!
//! One list, [`TARGETS`], and three drivers of it: `fuzz/libfuzzer` (coverage-guided, a crate of its own),
//! `tests/smoke.rs` (corpus, regressions and seeded [mutations](mutation), in CI) and the program of this crate, which
//! runs files again. The README beside this crate says how.
//!
//! A target reads its bytes through [`input::Input`], from the front, and reads zeros where they end. So every byte
//! string is an input, a prefix of one does the beginning of what the whole does, and the bytes of a regression mean
//! the same with every driver.
#![forbid(unsafe_code)]

pub mod files;
pub mod input;
pub mod mutation;
pub mod targets;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folders in `corpus/` and `regressions/`.
    pub name: &'static str,
    /// Runs it on one input. Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Longer inputs find no more, slower.
    pub len_max: usize,
    /// Mutations that the smoke test runs: some seconds of them, in all.
    pub smoke_runs: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", run: targets::wire::run, len_max: 2048, smoke_runs: 60_000 },
    Target { name: "notation", run: targets::notation::run, len_max: 256, smoke_runs: 60_000 },
    Target { name: "proxy", run: targets::proxy::run, len_max: 1024, smoke_runs: 60_000 },
    Target { name: "flight", run: targets::flight::run, len_max: 1024, smoke_runs: 15_000 },
    Target { name: "fifo", run: targets::fifo::run, len_max: 1024, smoke_runs: 15_000 },
    Target { name: "peer", run: targets::peer::run, len_max: 1024, smoke_runs: 4000 },
    Target { name: "link", run: targets::link::run, len_max: 1024, smoke_runs: 800 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
