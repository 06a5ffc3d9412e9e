//! Deliberate defects, anywhere in the program: the simulation has to find each of them.
//!
//! `SIM_MUTANT=7` looks for that one alone, counted from 0.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use posthouse::mutant::Mutant;

use super::simulation::{Watch, run_with};
use super::{number, workers};

/// Seeds within which each defect is found.
const SEEDS: u64 = 5_000;

/// The first seed that finds it, and what it says.
fn find(mutant: Mutant) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>));
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS || found.lock().unwrap().is_some() {
                        return;
                    }
                    if let Err(broken) = run_with(seed, Watch::default(), || mutant.plant()).result {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                            *found = Some((seed, broken));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn every_deliberate_defect_is_found() {
    let only = number("SIM_MUTANT");
    let mut survivors = vec![];
    for (at, mutant) in Mutant::ALL.into_iter().enumerate() {
        if only.is_some_and(|only| only != at as u64) {
            continue;
        }
        match find(mutant) {
            Some((seed, broken)) => println!("{mutant:?}: {} seeds: {broken}", seed + 1),
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "{SEEDS} seeds did not find them");
}
