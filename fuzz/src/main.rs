//! Runs inputs again: `hoststack-fuzz TARGET FILE...`; without files, the target's corpus and regressions.
//! `hoststack-fuzz TARGET --random SEED COUNT` runs seeded mutations of them, as the smoke test does.

use std::process::ExitCode;

use hoststack_fuzz::{TARGETS, Target, files, mutation, target};
use hoststack_transport::Rng;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(target) = args.first().and_then(|name| target(name)) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: hoststack-fuzz TARGET [FILE... | --random SEED COUNT]; targets: {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    };
    match run(target, &args[1..]) {
        Ok(count) => {
            println!("{}: {count} inputs, no find", target.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was asked for; a find panics. Returns how many inputs that were.
fn run(target: &Target, args: &[String]) -> Result<usize, String> {
    match args {
        [flag, seed, count] if flag == "--random" => {
            let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{text}: no number"));
            let mut rng = Rng::from_seed(number(seed)?);
            let corpus: Vec<Vec<u8>> = known(target).into_iter().map(|(_, bytes)| bytes).collect();
            let count = number(count)?;
            for _ in 0..count {
                (target.run)(&mutation::mutate(&corpus, target.len_max, &mut rng));
            }
            usize::try_from(count).map_err(|error| error.to_string())
        }
        [] => Ok(run_all(target, known(target))),
        paths => {
            let read = |path: &String| match std::fs::read(path) {
                Ok(bytes) => Ok((path.clone(), bytes)),
                Err(error) => Err(format!("{path}: {error}")),
            };
            Ok(run_all(target, paths.iter().map(read).collect::<Result<_, _>>()?))
        }
    }
}

fn known(target: &Target) -> Vec<(String, Vec<u8>)> {
    let all = ["corpus", "regressions"].into_iter().flat_map(|kind| files::inputs(kind, target.name));
    all.map(|(path, bytes)| (path.display().to_string(), bytes)).collect()
}

fn run_all(target: &Target, inputs: Vec<(String, Vec<u8>)>) -> usize {
    for (name, bytes) in &inputs {
        eprintln!("{name} ({} bytes)", bytes.len());
        (target.run)(bytes);
    }
    inputs.len()
}
