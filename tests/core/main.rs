//! The delivery core as a whole, in a simulated world full of faults, seed by seed.
//!
//! `CORE_SEED=7 cargo test --test core -- --nocapture` runs one seed and shows what happened in it.
//! `CORE_FROM=1000 CORE_SEEDS=1000000 cargo test --release --test core` runs many.
//!
//! | module | charge |
//! | --- | --- |
//! | `plan`, `chance` | what a seed makes of the world |
//! | `world`, `faults` | one step after the other, and what breaks |
//! | `net` | connections that are lost as a whole |
//! | `sender`, `recipient` | shells around outbox and inbox, with disks |
//! | `relay`, `store` | sessions; mailboxes and lane rows |
//! | `ledger` | what was promised, held against what happened |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod chance;
mod faults;
mod ledger;
mod net;
mod plan;
mod recipient;
mod relay;
mod sender;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Ending, World};

/// Seeds of a plain `cargo test`: a few seconds without optimisation.
const SEEDS: u64 = 1500;

/// Lines of a failed run that are shown.
const LINES: usize = 400;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value}")))
}

/// Runs one seed; an assertion of the core counts as a broken promise.
fn run(world: &mut World) -> Result<Ending, String> {
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

fn show(seed: u64, broken: &str) -> ! {
    let mut world = World::new(seed, true);
    let again = run(&mut world);
    let trace = world.trace();
    for line in trace.iter().skip(trace.len().saturating_sub(LINES)) {
        println!("{line}");
    }
    println!("seed {seed}: {broken}");
    assert_eq!(again.map(|_| ()), Err(broken.to_owned()), "the seed does not repeat itself");
    panic!("seed {seed}: {broken}\nCORE_SEED={seed} cargo test --test core -- --nocapture");
}

#[test]
fn every_message_gets_one_true_outcome_whatever_breaks() {
    if let Some(seed) = number("CORE_SEED") {
        let mut world = World::new(seed, true);
        let ending = run(&mut world);
        world.trace().iter().for_each(|line| println!("{line}"));
        println!("seed {seed}: {ending:?}");
        ending.unwrap();
        return;
    }
    let (from, seeds) = (number("CORE_FROM").unwrap_or(0), number("CORE_SEEDS").unwrap_or(SEEDS));
    let mut total = Ending::default();
    // The shortest failure of the first few is the one to read.
    let mut failures: Vec<(usize, u64, String)> = vec![];
    for seed in from..from + seeds {
        let mut world = World::new(seed, false);
        match run(&mut world) {
            Ok(ending) => {
                total.steps += ending.steps;
                total.messages += ending.messages;
                total.requests += ending.requests;
            }
            Err(broken) => failures.push((world.steps_taken(), seed, broken)),
        }
        if failures.len() >= 20 || (!failures.is_empty() && seed > failures[0].1 + 2000) {
            break;
        }
    }
    println!("{seeds} seeds from {from}: {total:?}");
    for (steps, seed, broken) in &failures {
        println!("seed {seed}, {steps} steps: {broken}");
    }
    if let Some((_, seed, broken)) = failures.into_iter().min() {
        show(seed, &broken);
    }
}
