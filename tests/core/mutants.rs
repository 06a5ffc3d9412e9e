//! Deliberate defects in the rules of delivery: the simulation has to find each of them.

use posthouse::mutant::Mutant;

use super::run;
use super::world::World;

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
