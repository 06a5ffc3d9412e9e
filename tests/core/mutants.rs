//! Deliberate defects in the rules of delivery: the simulation has to find each of them.

use posthouse::mutant::Mutant;

use super::world::World;
use super::{plan, run, search};

/// Seeds within which each defect is found.
const SEEDS: u64 = 5_000;

const PLANTED: [Mutant; 7] = [
    Mutant::NoDedup,
    Mutant::MaybeTakenNeverSet,
    Mutant::AckRangeOffByOne,
    Mutant::GapAccepted,
    Mutant::WhereSkipped,
    Mutant::OutboxDroppedAtAnswer,
    Mutant::LaneKeptOverReopening,
];

#[test]
fn every_deliberate_defect_in_delivery_is_found() {
    let mut survivors = vec![];
    for mutant in PLANTED {
        let planted = mutant.plant();
        let found = (0..SEEDS).find_map(|seed| run(&mut World::new(seed, false)).err().map(|broken| (seed, broken)));
        drop(planted);
        match found {
            Some((seed, broken)) => println!("{mutant:?}: {} seeds: {broken}", seed + 1),
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "{SEEDS} seeds did not find them");
}

#[test]
fn the_search_finds_what_repeats_and_what_never_ends() {
    for (mutant, name) in
        [(Mutant::OutboxDroppedAtAnswer, "one message"), (Mutant::NoDedup, "one message, the relay crashes")]
    {
        let planted = mutant.plant();
        let case = plan::cases().into_iter().find(|(case, _)| *case == name).expect("a case of this name");
        let broken = search::search(case.1, 20_000).err().and_then(|told| told.lines().last().map(str::to_owned));
        drop(planted);
        println!("{mutant:?}, {name}: {broken:?}");
        assert!(broken.is_some(), "{mutant:?} survived");
    }
}
