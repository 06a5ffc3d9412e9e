//! The delivery core as a whole, in a simulated world full of faults, seed by seed.
//!
//! `SIM_FROM=1000 SIM_SEEDS=1000000 cargo test --release --test core` runs many seeds. With `SIM_SEEDS=1` what
//! happened in it is shown. `SIM_STATES=1000000` visits so many states of each small case.
//! `cargo test --features mutants --test core` plants deliberate defects; each has to be found.
//!
//! | module | charge |
//! | --- | --- |
//! | `plan`, `chance` | what a seed makes of the world |
//! | `world`, `steps`, `faults` | who is there, one step after the other, and what breaks |
//! | `net` | connections that are lost as a whole |
//! | `sender`, `recipient` | shells around outbox and inbox, with disks |
//! | `session` | an outbox and its connection, as a sender and a link have it |
//! | `relay`, `store` | sessions; mailboxes, outboxes and lane rows |
//! | `hop` | a link from one relay to another |
//! | `search` | every interleaving of a small case |
//! | `mutants` | deliberate defects, each of which has to be found |
//! | `ledger` | what was promised, held against what happened |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod chance;
mod faults;
mod hop;
mod ledger;
#[cfg(feature = "mutants")]
mod mutants;
mod net;
mod plan;
mod recipient;
mod relay;
mod search;
mod sender;
mod session;
mod steps;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use posthouse::time::SystemClock;
use world::{Ending, World};

/// Seeds of a plain `cargo test`: a few seconds without optimisation.
const SEEDS: u64 = 1500;

/// Lines of a failed run that are shown.
const LINES: usize = 400;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value}")))
}

/// An assertion of the core counts as a broken promise.
fn run_guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

fn run(world: &mut World) -> Result<Ending, String> {
    run_guarded(|| world.run())
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
    panic!("seed {seed}: {broken}\nSIM_FROM={seed} SIM_SEEDS=1 cargo test --test core -- --nocapture");
}

#[test]
fn every_message_gets_one_true_outcome_whatever_breaks() {
    let (from, seeds) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    if seeds == 1 {
        let mut world = World::new(from, true);
        let ending = run(&mut world);
        world.trace().iter().for_each(|line| println!("{line}"));
        println!("seed {from}: {ending:?}");
        ending.unwrap();
        return;
    }
    let clock = SystemClock::shared();
    let begun = clock.now();
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
    println!("{seeds} seeds from {from} in {:.1?}: {total:?}", clock.now() - begun);
    for (steps, seed, broken) in &failures {
        println!("seed {seed}, {steps} steps: {broken}");
    }
    if let Some((_, seed, broken)) = failures.into_iter().min() {
        show(seed, &broken);
    }
}

/// States of each case but the first that are visited in a plain `cargo test`. Of the first all are.
const STATES: u64 = 200;

#[test]
fn no_interleaving_of_a_small_case_breaks_a_promise() {
    let limit = number("SIM_STATES");
    for (at, (name, plan)) in plan::cases().into_iter().enumerate() {
        let most = limit.unwrap_or(if at == 0 { u64::MAX } else { STATES }) as usize;
        let clock = SystemClock::shared();
        let begun = clock.now();
        let found = search::search(plan, most).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        println!("{name}: {found} in {:.1?}", clock.now() - begun);
    }
}

#[test]
fn a_seed_repeats_itself_word_for_word() {
    for seed in 0..20 {
        let [first, second] = [(), ()].map(|()| {
            let mut world = World::new(seed, true);
            let ending = run(&mut world);
            (format!("{ending:?}"), world.trace())
        });
        assert_eq!(first, second, "seed {seed}");
    }
}
