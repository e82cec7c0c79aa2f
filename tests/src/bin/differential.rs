//! Differential runs against the kernel: `cargo run --release -p hoststack-tests --bin differential -- --help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use hoststack_tests::differential::{WorldPlan, run};
use hoststack_tests::netns;
use hoststack_tests::wait::Stopwatch;

/// Runs worlds in which hoststack and the Linux kernel talk over a bad link. Needs root.
#[derive(Debug, Parser)]
struct Args {
    /// The first world.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many worlds, from the first on; default: as many as the time allows.
    #[arg(long)]
    worlds: Option<u64>,
    /// Begins no further world after so many minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Worlds at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Goes on after a world in which something was wrong.
    #[arg(long)]
    keep_going: bool,
    /// Writes what the kernel of the first world sends and is sent to this pcapng file.
    #[arg(long)]
    pcap: Option<PathBuf>,
    /// Prints what each world came to.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !netns::is_net_admin() {
        eprintln!("this makes network namespaces and TAP devices: run it as root");
        return ExitCode::FAILURE;
    }
    let limit = Duration::from_secs_f64(args.minutes.max(0.0) * 60.0);
    let end = args.worlds.map_or(u64::MAX, |worlds| args.seed.saturating_add(worlds));
    let (watch, next) = (Stopwatch::start(), AtomicU64::new(args.seed));
    let (failed, worlds, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let may_begin = || {
            let has_time = args.worlds.is_some() || watch.elapsed() < limit;
            has_time && (args.keep_going || !failed.load(Ordering::Relaxed))
        };
        while may_begin() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match run(&WorldPlan::draw(seed), args.pcap.as_deref().filter(|_| seed == args.seed)) {
                Ok(report) => {
                    worlds.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(report.bytes, Ordering::Relaxed);
                    let is_wrong = !report.wrong.is_empty();
                    failed.fetch_or(is_wrong, Ordering::Relaxed);
                    if is_wrong || args.verbose {
                        println!("{report}\n  {} bytes in {:?}", report.bytes, report.took);
                    }
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    println!("differential seed {seed}: {error}");
                }
            }
        }
    };
    std::thread::scope(|scope| (0..args.jobs).for_each(|_| drop(scope.spawn(work))));
    let (worlds, bytes) = (worlds.into_inner(), bytes.into_inner());
    println!("{worlds} worlds from seed {} on, {bytes} bytes, {:?}", args.seed, watch.elapsed());
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
