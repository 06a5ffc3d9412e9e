//! What one session remembers of the messages that it refused and of which the store keeps no row.

use std::collections::BTreeMap;

use crate::id::LaneKey;
use crate::protocol::{Answer, Outcome, RejectReason, Verdict};

/// Ranges of refused numbers that a session remembers because no row could.
const MAX_REMEMBERED: usize = 10_000;

/// Final refusals that left no row: the session itself gives the same answer to a repeated copy.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// For each lane runs of numbers, by the first of each: the last, and what they were answered.
    lanes: BTreeMap<LaneKey, BTreeMap<u64, (u64, Verdict)>>,
    runs: usize,
}

impl Remembered {
    pub(super) fn verdict(&self, lane: &LaneKey, n: u64) -> Option<Verdict> {
        let (_, (to, verdict)) = self.lanes.get(lane)?.range(..=n).next_back()?;
        (n <= *to).then(|| verdict.clone())
    }

    /// A lane without a row goes on behind what was refused: to the store it still is at its beginning.
    pub(super) fn prev(&self, lane: &LaneKey, prev: u64) -> u64 {
        let last = self.lanes.get(lane).and_then(BTreeMap::last_key_value).map(|(_, (to, _))| *to);
        if last == Some(prev) { 0 } else { prev }
    }

    /// What to answer to a message behind one that was refused since nobody is there, where both were on their
    /// way together: the same. The store sees a gap before it, since the refusal left no row.
    pub(super) fn follows(&self, lane: &LaneKey, prev: u64, answer: &Answer) -> Option<Verdict> {
        let (_, (to, verdict)) = self.lanes.get(lane)?.last_key_value()?;
        let nobody = matches!(&verdict.outcome, Outcome::Rejected { reason: RejectReason::UnknownPeer, .. });
        (nobody && *answer == Answer::Gap { last: 0 } && *to == prev).then(|| verdict.clone())
    }

    /// The first answer to a number stands. False if they are too many.
    pub(super) fn add(&mut self, lane: LaneKey, n: u64, verdict: Verdict) -> bool {
        let runs = self.lanes.entry(lane).or_default();
        match runs.range_mut(..=n).next_back() {
            Some((_, (to, _))) if n <= *to => {}
            Some((_, (to, told))) if to.saturating_add(1) == n && *told == verdict => *to = n,
            _ => {
                runs.insert(n, (n, verdict));
                self.runs += 1;
            }
        }
        self.runs <= MAX_REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LaneId, Pair, PeerId};

    fn lane(lane: u64) -> LaneKey {
        let peer = PeerId::from_bytes([1; 32]);
        LaneKey { pair: Pair { sender: peer, recipient: peer }, lane: LaneId(lane) }
    }

    fn rejected(reason: RejectReason) -> Verdict {
        Verdict::here(Outcome::Rejected { reason, text: None, maybe_taken: false })
    }

    #[test]
    fn a_repeated_copy_gets_the_answer_that_its_own_number_got() {
        let mut remembered = Remembered::default();
        let (route, peer) = (rejected(RejectReason::NoRoute), rejected(RejectReason::UnknownPeer));
        for (n, verdict) in [(1, &route), (2, &route), (3, &peer), (4, &route), (9, &peer), (7, &route), (3, &route)] {
            assert!(remembered.add(lane(1), n, verdict.clone()));
        }
        for (n, verdict) in [(1, &route), (2, &route), (3, &peer), (4, &route), (7, &route), (9, &peer)] {
            assert_eq!(remembered.verdict(&lane(1), n).as_ref(), Some(verdict), "number {n}");
        }
        assert_eq!([5, 6, 8, 10].map(|n| remembered.verdict(&lane(1), n)), [const { None }; 4]);
        assert_eq!(remembered.verdict(&lane(2), 1), None);
        assert_eq!(
            (remembered.prev(&lane(1), 9), remembered.prev(&lane(1), 4), remembered.prev(&lane(2), 9)),
            (0, 4, 9)
        );
        assert_eq!(remembered.runs, 5);
    }

    #[test]
    fn runs_that_are_remembered_are_bounded() {
        let mut remembered = Remembered::default();
        let verdict = rejected(RejectReason::UnknownPeer);
        for n in 1..=1_000_000 {
            assert!(remembered.add(lane(1), n, verdict.clone()), "a million in a row are one run");
        }
        let added = (1..20_000).take_while(|at| remembered.add(lane(2), 2 * at, verdict.clone())).count();
        assert_eq!(added, MAX_REMEMBERED - 1);
    }
}
