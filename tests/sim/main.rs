//! Relays, clients and QUIC as they are, in a world in which everything goes wrong, seed by seed.
//!
//! `SIM_SEED=7 SIM_TRACE=1 cargo test --test sim -- --nocapture` runs one seed and shows what happened in it.
//! `SIM_FROM=1000 SIM_SEEDS=10000 cargo test --release --test sim -- --nocapture` runs many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail"
)]
#![allow(clippy::cast_possible_truncation, reason = "hosts are few")]

#[cfg(feature = "mutants")]
mod mutants;
mod simulation;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::{Counts, Watch, run};

/// Seeds of a plain `cargo test`: some seconds without optimisation.
const SEEDS: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value}")))
}

/// Runs at a time.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn replay(seed: u64) -> String {
    format!("SIM_SEED={seed} SIM_TRACE=1 cargo test --release --test sim -- --nocapture every_message")
}

/// What all seeds together came to.
#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    simulated: Duration,
    datagrams: u64,
    sent: u64,
    delivered: u64,
    expired: u64,
    rejected: u64,
    maybe_taken: u64,
    handed_again: u64,
    told_again: u64,
    lives: u64,
    longest: Duration,
}

impl Total {
    fn add(&mut self, counts: Counts) {
        self.sent += counts.sent;
        self.delivered += counts.delivered;
        self.expired += counts.expired;
        self.rejected += counts.rejected;
        self.maybe_taken += counts.maybe_taken;
        self.handed_again += counts.handed_again;
        self.told_again += counts.told_again;
        self.lives += counts.lives;
    }
}

#[test]
fn every_message_gets_one_true_outcome_whatever_breaks() {
    let show = number("SIM_TRACE").unwrap_or(0) as u8;
    if let Some(seed) = number("SIM_SEED") {
        let ended = run(seed, Watch { show, keep: false });
        println!("seed {seed}: {:?}, {:?}, trace {}", ended.result, ended.counts, ended.digest);
        ended.result.unwrap();
        return;
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let (total, failures) = (Mutex::new(Total::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || failures.lock().unwrap().len() >= 20 {
                        return;
                    }
                    let ended = run(seed, Watch::default());
                    let mut total = total.lock().unwrap();
                    total.seeds += 1;
                    total.simulated += ended.simulated;
                    total.datagrams += ended.datagrams;
                    total.add(ended.counts);
                    if total.seeds % 1000 == 0 {
                        println!("{:?}: {total:?}", begun.elapsed());
                    }
                    match ended.result {
                        Ok(took) => total.longest = total.longest.max(took),
                        Err(broken) => {
                            println!("seed {seed}: {broken}\n  {}", replay(seed));
                            failures.lock().unwrap().push((seed, broken));
                        }
                    }
                }
            });
        }
    });
    println!("from {from} in {:?}: {:?}", begun.elapsed(), total.into_inner().unwrap());
    let failures = failures.into_inner().unwrap();
    if let Some((seed, broken)) = failures.into_iter().min() {
        panic!("seed {seed}: {broken}\n{}", replay(seed));
    }
}

#[test]
fn the_same_seed_makes_the_same_trace_byte_for_byte() {
    for seed in 0..number("SIM_TWICE").unwrap_or(4) {
        let keep = Watch { show: 0, keep: true };
        let (first, second) = (run(seed, keep), run(seed, keep));
        for (line, (one, two)) in first.lines.iter().zip(&second.lines).enumerate() {
            assert_eq!(one, two, "seed {seed}, line {line}");
        }
        assert_eq!((first.lines.len(), first.digest), (second.lines.len(), second.digest), "seed {seed}");
    }
}

#[test]
fn another_process_makes_the_same_trace() {
    let here = run(5, Watch::default());
    let there = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact", "every_message_gets_one_true_outcome_whatever_breaks"])
        .env("SIM_SEED", "5")
        .output()
        .unwrap();
    let said = String::from_utf8(there.stdout).unwrap();
    assert!(said.contains(&format!("trace {}", here.digest)), "{said}");
}
