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

/// Not found here yet: a seq that is given twice does harm only if it is confirmed once more, within ten seconds, before
/// its second message is looked at. The store's contract (`seq_grows_with_each_message_and_is_never_given_twice`) holds it.
const ELSEWHERE: [Mutant; 1] = [Mutant::SeqReusedAfterRestore];

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
        if only.map_or(ELSEWHERE.contains(&mutant), |only| only != at as u64) {
            continue;
        }
        match find(mutant) {
            Some((seed, broken)) => println!("{mutant:?}: {} seeds: {broken}", seed + 1),
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "{SEEDS} seeds did not find them");
}
