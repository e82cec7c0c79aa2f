//! The flight (TCP's scoreboard) against a model of one record a byte: `hoststack_tcp::testing::check_flight`.

use hoststack_tcp::testing::{FlightStep, check_flight};

use crate::input::Input;

/// Steps of one input: more would only repeat themselves, slowly.
const STEPS_MAX: usize = 200;

/// Four bytes of ISN; then each step is a byte that says what and one or two that say how much.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let isn = input.u32();
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS_MAX {
        steps.push(step(&mut input));
    }
    check_flight(isn, &steps);
}

fn step(input: &mut Input<'_>) -> FlightStep {
    match input.u8() % 18 {
        0..=2 => FlightStep::Push(1 + input.below(40)),
        3 | 4 => FlightStep::Tick,
        5 => FlightStep::Acknowledge(input.below(256)),
        6..=8 => FlightStep::Sack(input.below(1024), 1 + input.below(40)),
        9 => FlightStep::Lose(input.below(1024), input.below(20).into()),
        10 => FlightStep::LoseFirst(1 + input.below(30)),
        11 => FlightStep::Again(1 + input.below(30)),
        12 => FlightStep::ProbeTail(1 + input.below(30)),
        13 => FlightStep::Retract(1 + input.below(10)),
        14 => FlightStep::Forget,
        15 => FlightStep::Unmark,
        _ => FlightStep::Detect(input.below(8).into(), input.below(1024), input.below(12).into()),
    }
}
