//! A lane's row against a model that remembers every number by itself.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::protocol::RejectReason;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn rejected(text: &str) -> Verdict {
    Verdict::here(Outcome::Rejected { reason: RejectReason::Refused, text: Some(text.to_owned()), maybe_taken: false })
}

const EXPIRED: Verdict = Verdict::here(Outcome::Expired { maybe_taken: false });

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::DELIVERED),
        2 => Just(EXPIRED),
        1 => Just(UNKNOWN),
        1 => "[a-c]{0,2}".prop_map(|text| rejected(&text)),
        1 => Just(Verdict { relay: Some(crate::id::RelayId::from_bytes([7; 32])), ..EXPIRED }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Accept { skip: u64 },
    Refuse { skip: u64, verdict: Verdict },
    Settle { verdicts: BTreeMap<u64, Verdict> },
}

fn steps() -> impl Strategy<Value = Step> {
    let skip = prop_oneof![4 => Just(0u64), 1 => 0u64..4];
    prop_oneof![
        4 => skip.clone().prop_map(|skip| Step::Accept { skip }),
        1 => (skip, verdicts().prop_filter("ends otherwise", |v| *v != Verdict::DELIVERED)).prop_map(|(skip, verdict)| Step::Refuse { skip, verdict }),
        5 => prop::collection::btree_map(1u64..60, verdicts(), 1..20).prop_map(|verdicts| Step::Settle { verdicts }),
    ]
}

fn read_back(row: &LaneRow) -> Result<LaneRow, crate::delivery::Damaged> {
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    LaneRow::decode(&bytes)
}

proptest! {
    #[test]
    fn a_row_behaves_like_a_list_of_every_number(steps in prop::collection::vec(steps(), 0..80), from in 1u64..40, length in 0u64..60, max_runs in 1usize..12, max_bytes in 0usize..600) {
        let (mut row, mut model) = (LaneRow::new(NOW), BTreeMap::<u64, Fate>::new());
        let mut last = 0;
        for step in steps {
            match step {
                Step::Accept { skip } | Step::Refuse { skip, .. } => {
                    model.extend((last + 1..=last + skip).map(|n| (n, Fate::Ended(UNKNOWN))));
                    last += skip + 1;
                    if let Step::Refuse { verdict, .. } = step {
                        row.refuse(last, verdict.clone(), NOW);
                        model.insert(last, Fate::Ended(verdict));
                    } else {
                        row.accept(last, 10, NOW);
                        model.insert(last, Fate::Pending);
                    }
                }
                Step::Settle { verdicts } => {
                    let (mut delivered, mut others, mut bytes) = (Ranges::new(), Vec::new(), 0);
                    for (n, verdict) in verdicts {
                        match &verdict {
                            &Verdict::DELIVERED => delivered.insert_range(n, n),
                            _ => append(&mut others, Exception { from: n, to: n, verdict: verdict.clone() }),
                        }
                        if model.get(&n) == Some(&Fate::Pending) {
                            bytes += 10;
                            model.insert(n, Fate::Ended(verdict));
                        }
                    }
                    row.settle_all(&delivered, &others, bytes, NOW);
                }
            }
            prop_assert_eq!(row.last(), last);
            let pending = model.values().filter(|fate| **fate == Fate::Pending).count() as u64;
            prop_assert_eq!((row.pending(), row.pending_bytes()), (pending, 10 * pending));
            prop_assert_eq!(row.resting_since().is_some(), pending == 0);
        }
        for n in 1..=last + 2 {
            prop_assert_eq!(row.fate(n), model.get(&n).cloned().unwrap_or(Fate::Unseen));
        }
        prop_assert_eq!(read_back(&row), Ok(row.clone()));

        // The answer to a question says the same, in pieces that follow each other.
        let (mut at, to) = (from, from + length);
        let mut told = BTreeMap::new();
        loop {
            let state = row.state(at, to, max_runs, max_bytes);
            let runs = state.delivered.len() + state.exceptions.len();
            prop_assert!(state.upto <= to && runs <= max_runs);
            prop_assert!(runs <= 1 || state.max_wire_bytes() <= max_bytes);
            told.extend(state.delivered.numbers().map(|n| (n, Verdict::DELIVERED)));
            told.extend(state.exceptions.iter().flat_map(|run| (run.from..=run.to).map(|n| (n, run.verdict.clone()))));
            prop_assert!(told.keys().all(|n| (from..=state.upto).contains(n)));
            if state.upto == to {
                break;
            }
            prop_assert!(state.upto >= at, "no progress");
            at = state.upto + 1;
        }
        for n in from..=to {
            let ended = match model.get(&n) {
                Some(Fate::Ended(verdict)) => Some(verdict),
                _ => None,
            };
            prop_assert_eq!(told.get(&n), ended, "number {}", n);
        }
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..40, bit in 0u8..8) {
        let _row = LaneRow::decode(&bytes);
        let mut row = LaneRow::new(NOW);
        row.accept(3, 10, NOW);
        row.refuse(7, rejected("no"), NOW);
        row.accept(8, 10, NOW);
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        if let Ok(row) = LaneRow::decode(&bytes) {
            prop_assert_eq!(read_back(&row), Ok(row.clone()));
            let _state = row.state(1, u64::MAX, 100, 10_000);
        }
    }
}

#[test]
fn a_million_delivered_and_a_million_expired_are_a_few_bytes() {
    let mut row = LaneRow::new(NOW);
    for n in 1..=1_000_000 {
        row.accept(n, 300, NOW);
        row.settle(n, 300, if n <= 500_000 { Verdict::DELIVERED } else { EXPIRED }, NOW);
    }
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    assert!(bytes.len() < 24, "{} bytes", bytes.len());
    assert_eq!(row.state(1, 2_000_000, 10, 10_000).exceptions.len(), 1);
}

#[test]
fn beyond_the_bound_the_oldest_exceptions_become_uncertain_and_never_delivered() {
    let mut row = LaneRow::new(NOW);
    let runs = MAX_EXCEPTION_RUNS as u64;
    row.accept(1, 1, NOW);
    row.accept(2, 1, NOW);
    for n in (3..).step_by(2).take(MAX_EXCEPTION_RUNS + 10) {
        row.accept(n, 1, NOW);
        row.settle(n, 1, Verdict::DELIVERED, NOW);
        row.refuse(n + 1, EXPIRED, NOW);
    }
    assert_eq!(row.exceptions.len(), MAX_EXCEPTION_RUNS);
    // 3 delivered, 4 expired ... the lowest ten exceptions are gone, up to 22.
    assert_eq!(row.fate(4), Fate::Ended(UNKNOWN));
    assert_eq!(row.fate(21), Fate::Ended(UNKNOWN), "nobody knows which of them were delivered");
    assert_eq!(row.fate(23), Fate::Ended(Verdict::DELIVERED));
    assert_eq!(row.fate(24), Fate::Ended(EXPIRED));
    assert_eq!(row.fate(2), Fate::Pending, "what is pending is known by itself");
    assert!(row.settle(1, 1, Verdict::DELIVERED, NOW) && row.settle(2, 1, EXPIRED, NOW));
    assert_eq!((row.fate(1), row.fate(2)), (Fate::Ended(UNKNOWN), Fate::Ended(UNKNOWN)));
    assert_eq!(row.last(), 2 * (runs + 10) + 2);
    assert_eq!(read_back(&row), Ok(row));
}

#[test]
fn what_is_settled_at_once_is_as_if_it_came_one_by_one() {
    let mut row = LaneRow::new(NOW);
    for n in (1..).step_by(2).take(5 * MAX_EXCEPTION_RUNS) {
        row.accept(n, 1, NOW);
    }
    let mut singly = row.clone();
    let (delivered, others): (Vec<_>, Vec<_>) = (1..=row.last()).step_by(2).partition(|n| n % 3 > 0);
    for n in &delivered {
        singly.settle(*n, 1, Verdict::DELIVERED, NOW);
    }
    for n in &others {
        singly.settle(*n, 1, EXPIRED, NOW);
    }
    let bytes = row.pending_bytes();
    let runs: Vec<_> = others.iter().map(|n| Exception { from: *n, to: *n, verdict: EXPIRED }).collect();
    row.settle_all(&delivered.into_iter().collect(), &runs, bytes, NOW);
    assert_eq!((row.pending(), row.pending_bytes()), (0, 0));
    assert_eq!(row.exceptions.len(), MAX_EXCEPTION_RUNS);
    for n in 1..=row.last() {
        let (once, singly) = (row.fate(n), singly.fate(n));
        assert!(once == singly || once == Fate::Ended(UNKNOWN), "number {n}: {once:?} is not {singly:?}");
    }
    assert_eq!(read_back(&row), Ok(row));
}

#[test]
fn a_number_has_one_outcome_though_two_are_named() {
    let mut row = LaneRow::new(NOW);
    for n in 1..=3 {
        row.accept(n, 1, NOW);
    }
    let expired = [Exception { from: 1, to: 3, verdict: EXPIRED }, Exception { from: 2, to: 2, verdict: rejected("") }];
    row.settle_all(&Ranges::one(3), &expired, 3, NOW);
    assert_eq!(row.state(1, 3, 9, 9999).exceptions, expired[..1]);
    assert_eq!(read_back(&row), Ok(row));
}

#[test]
fn beyond_the_bound_the_oldest_refusals_lose_their_words_alone() {
    let mut row = LaneRow::new(NOW);
    let words = |n: u64| format!("{n:0>256}");
    for n in 1..=100 {
        row.accept(n, 1, NOW);
        row.settle(n, 1, rejected(&words(n)), NOW);
    }
    let Fate::Ended(oldest) = row.fate(1) else { panic!("pending") };
    assert_eq!(oldest.outcome, Outcome::Rejected { reason: RejectReason::Refused, text: None, maybe_taken: false });
    assert_eq!(row.fate(100), Fate::Ended(rejected(&words(100))));
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    assert!(bytes.len() < MAX_TEXT_BYTES + 1000, "{} bytes", bytes.len());
}

#[test]
fn a_row_rests_from_the_last_use_on() {
    let mut row = LaneRow::new(NOW);
    row.accept(1, 1, NOW);
    assert_eq!(row.resting_since(), None);
    let later = NOW + 5 * TOUCH;
    row.settle(1, 1, Verdict::DELIVERED, later);
    let since = row.resting_since().unwrap();
    assert!(since >= later && since <= later + TOUCH);
}
