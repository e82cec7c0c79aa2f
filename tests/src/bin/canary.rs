//! Known bugs, planted one by one: `cargo run --release -p hoststack-tests --features canary --bin canary -- --help`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use hoststack_tests::canary::{enumerate, hunt, inject, name, trace};
use hoststack_tests::establishment::Choice;
use hoststack_tests::injection::Cell;
use hoststack_tests::wait::Stopwatch;
use hoststack_transport::canary::Bug;

/// Plants known bugs one by one and says which seed of the simulator finds each, and in which words.
#[derive(Debug, Parser)]
struct Args {
    /// Only this bug; repeat it for several. `none` plants nothing.
    #[arg(long = "bug", value_name = "NAME", value_parser = bug)]
    bugs: Vec<Planting>,
    /// Seeds within which each bug must be found, from 0 on. As many are run first with no bug planted.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Does not stop at the first seed that finds a bug: counts all that do.
    #[arg(long)]
    all: bool,
    /// Runs the world of this seed only, with one bug planted, and prints everything it does.
    #[arg(long, value_name = "SEED", requires = "bugs")]
    trace: Option<u64>,
    /// Those of establishment only, each with how many cells break, of all as they are, and the first.
    #[arg(long)]
    establishment: bool,
    /// Those that cells over real sockets find only, each with how many cells break, by word, and the first.
    #[arg(long)]
    sockets: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planting(Option<Bug>);

fn bug(text: &str) -> Result<Planting, String> {
    if text == name(None) {
        return Ok(Planting(None));
    }
    let found = Bug::ALL.iter().find(|bug| bug.name() == text);
    found.map(|bug| Planting(Some(*bug))).ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("known are none, {}", names.join(", "))
    })
}

/// Plants what the enumeration of establishment must find, one by one, and none.
fn establishment() -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let choice = Choice { every: 1, acted: 0, broken_max: usize::MAX };
    let bugs = Bug::ALL.iter().copied().filter(|bug| bug.is_of_establishment());
    let mut is_right = true;
    for bug in std::iter::once(None).chain(bugs.map(Some)) {
        let (table, first) = enumerate(bug, threads, choice);
        is_right &= first.is_some() == bug.is_some();
        println!("{}: {} of {} cells break", name(bug), table.broken.len(), table.cells);
        for line in first.iter().flat_map(|first| first.lines().take(2)) {
            println!("    {line}");
        }
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants what cells over real sockets find, one by one, and none.
fn sockets() -> ExitCode {
    let bugs = Bug::ALL.iter().copied().filter(|bug| bug.is_of_establishment() || bug.is_of_host_sockets());
    let mut is_right = true;
    for bug in std::iter::once(None).chain(bugs.map(Some)) {
        let table = inject(bug, usize::MAX, Cell::is_for_planted_bugs);
        let mut words: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, verdict) in &table.broken {
            *words.entry(verdict.name()).or_default() += 1;
        }
        // No stage of these cells' connects can stand still at a deadline.
        let is_due = bug.is_some_and(|bug| bug != Bug::DeadlineIsSuccess);
        is_right &= table.broken.is_empty() != is_due;
        println!("{}: {} of {} cells break: {words:?}", name(bug), table.broken.len(), table.cells);
        if let Some((cell, verdict)) = table.broken.first() {
            println!("    {cell}: {verdict:?}");
        }
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.trace {
        let bug = args.bugs.first().and_then(|planting| planting.0);
        return match trace(bug, seed) {
            None => ExitCode::SUCCESS,
            Some(find) => {
                println!("{find}");
                ExitCode::FAILURE
            }
        };
    }
    // Panics are finds: they are told in the table.
    std::panic::set_hook(Box::new(|_| {}));
    if args.establishment {
        return establishment();
    }
    if args.sockets {
        return sockets();
    }
    let plantings = if args.bugs.is_empty() {
        let is_simulated = |bug: &Bug| !bug.is_of_establishment() && !bug.is_of_host_sockets();
        let bugs = Bug::ALL.iter().copied().filter(is_simulated);
        std::iter::once(None).chain(bugs.map(Some)).map(Planting).collect()
    } else {
        args.bugs
    };
    let width = plantings.iter().map(|planting| name(planting.0).len()).max().unwrap_or(0).max(3);
    if !args.json {
        println!("{:width$}  {:>9}  {:>8}  what is wrong", "bug", "seeds", "seconds");
    }
    let mut is_right = true;
    let mut rows = Vec::new();
    for Planting(bug) in plantings {
        let watch = Stopwatch::start();
        let hunt = hunt(bug, args.seeds, args.all);
        let seconds = watch.elapsed().as_secs_f64();
        is_right &= hunt.first.is_some() == bug.is_some();
        if args.json {
            rows.push(serde_json::json!({
                "bug": name(bug),
                "worlds": hunt.worlds,
                "violated": hunt.violated,
                "seconds": seconds,
                "seed": hunt.first.as_ref().map(|find| find.seed),
                "what": hunt.first.as_ref().map(|find| find.what.as_str()),
            }));
            continue;
        }
        let seeds = match &hunt.first {
            _ if args.all => format!("{}/{}", hunt.violated, hunt.worlds),
            Some(find) => (find.seed + 1).to_string(),
            None => format!("> {}", hunt.worlds),
        };
        let what = match &hunt.first {
            Some(find) => find.to_string(),
            None if bug.is_none() => "nothing, as it must be".to_owned(),
            None => "NOT FOUND".to_owned(),
        };
        println!("{:width$}  {seeds:>9}  {seconds:>8.1}  {what}", name(bug));
    }
    if args.json {
        println!("{}", serde_json::json!({ "is_right": is_right, "rows": rows }));
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
