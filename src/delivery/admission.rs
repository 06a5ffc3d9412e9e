//! What a relay answers to a message that arrives: one pure function, its rules in their order.
//!
//! The order matters: a duplicate is told what became of it whatever else is wrong; a message without time left
//! ends before a temporary refusal could hold it; and what may have no row is refused before anything waits.

use std::time::Duration;

use super::lane::{Fate, LaneRow};
use crate::mutant::Mutant;
use crate::protocol::{Outcome, RejectReason, Verdict, WaitReason};

/// A message, as far as admission looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number in the lane.
    pub n: u64,
    /// The last number that the submitter believes to be here.
    pub prev: u64,
    /// None of its lifetime is left.
    pub expired: bool,
    /// A reason to refuse it for good that is known already.
    pub refuse: Option<RejectReason>,
}

/// What the recipient's side says to one more message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It fits into the recipient's mailbox.
    Free,
    /// It fits, and would be the first of a new mailbox.
    New,
    /// Not now.
    Wait {
        /// Why.
        reason: WaitReason,
        /// For how long.
        retry_after: Duration,
    },
    /// Nobody may be written to there.
    Nobody,
}

/// What becomes of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It was here already: what became of it, if that is known.
    Duplicate(Option<Verdict>),
    /// Numbers are missing before it.
    Gap {
        /// The last number that is here.
        last: u64,
    },
    /// Its outcome. Recorded in the lane's row before it is told; the row is made if need be.
    Recorded(Verdict),
    /// Its outcome, which leaves no row.
    Unrecorded {
        /// The outcome.
        verdict: Verdict,
        /// The session has to give the same answer to a repeated copy.
        remember: bool,
    },
    /// Not now.
    Wait {
        /// Why.
        reason: WaitReason,
        /// For how long.
        retry_after: Duration,
    },
    /// It is stored; the numbers between the last one and it are skipped.
    Accept,
}

/// Whether a refusal for this reason may make a row: not where the message is not the submitter's to send, or
/// not for this relay to take, or anybody could fill the relay with rows about others.
const fn may_make_a_row(reason: RejectReason) -> bool {
    match reason {
        RejectReason::WrongSender | RejectReason::BadSignature | RejectReason::NoRoute | RejectReason::UnknownPeer => {
            false
        }
        RejectReason::TooLarge | RejectReason::Blocked | RejectReason::Refused | RejectReason::Removed => true,
    }
}

/// Decides about a message. `room` is asked only where the answer depends on it.
///
/// # Errors
/// Those of `room`.
pub fn decide<E>(
    row: Option<&LaneRow>,
    arrival: Arrival,
    room: impl FnOnce() -> Result<Room, E>,
) -> Result<Decision, E> {
    let last = row.map_or(0, LaneRow::last);
    let rejected = |reason| Verdict::here(Outcome::Rejected { reason, text: None, maybe_taken: false });
    let expired = |maybe_taken| Verdict::here(Outcome::Expired { maybe_taken });
    let refused = |reason, makes_row: bool| match rejected(reason) {
        verdict if row.is_some() || makes_row => Decision::Recorded(verdict),
        verdict => Decision::Unrecorded { verdict, remember: true },
    };
    if let Some(row) = row.filter(|_| arrival.n <= last) {
        return Ok(Decision::Duplicate(match row.fate(arrival.n) {
            Fate::Ended(verdict) => Some(verdict),
            Fate::Pending | Fate::Unseen => None,
        }));
    }
    if arrival.prev != last && !Mutant::GapAccepted.is_planted() {
        return Ok(Decision::Gap { last });
    }
    if arrival.expired {
        // Without a row nobody knows whether it was here before and taken.
        return Ok(match row {
            None => Decision::Unrecorded { verdict: expired(true), remember: false },
            Some(_) => Decision::Recorded(expired(false)),
        });
    }
    if let Some(reason) = arrival.refuse.filter(|reason| row.is_none() && !may_make_a_row(*reason)) {
        return Ok(refused(reason, false));
    }
    let room = room()?;
    Ok(match (room, arrival.refuse) {
        (Room::Nobody, _) => refused(RejectReason::UnknownPeer, false),
        (Room::Wait { reason, retry_after }, _) => Decision::Wait { reason, retry_after },
        (room, Some(reason)) => refused(reason, room == Room::Free),
        (Room::Free | Room::New, None) => Decision::Accept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const WAIT: Room = Room::Wait { reason: WaitReason::Quota, retry_after: Duration::from_secs(5) };
    const ARRIVAL: Arrival = Arrival { n: 4, prev: 3, expired: false, refuse: None };

    /// 1 delivered, 2 rejected, 3 pending.
    fn row() -> LaneRow {
        let mut row = LaneRow::new(NOW);
        row.accept(1, 1, NOW);
        row.settle(1, 1, Verdict::DELIVERED, NOW);
        row.refuse(2, rejected(RejectReason::TooLarge), NOW);
        row.accept(3, 1, NOW);
        row
    }

    fn rejected(reason: RejectReason) -> Verdict {
        Verdict::here(Outcome::Rejected { reason, text: None, maybe_taken: false })
    }

    fn ask(row: Option<&LaneRow>, arrival: Arrival, room: Room) -> Decision {
        decide(row, arrival, || Ok::<_, ()>(room)).unwrap()
    }

    fn first(arrival: Arrival) -> Arrival {
        Arrival { n: 1, prev: 0, ..arrival }
    }

    #[test]
    fn a_duplicate_is_told_what_became_of_it_whatever_else_is_wrong() {
        let row = row();
        let wrong = Arrival { prev: 77, expired: true, refuse: Some(RejectReason::Blocked), ..ARRIVAL };
        for room in [Room::Free, WAIT, Room::Nobody] {
            let told = |n| ask(Some(&row), Arrival { n, ..wrong }, room);
            assert_eq!(told(1), Decision::Duplicate(Some(Verdict::DELIVERED)));
            assert_eq!(told(2), Decision::Duplicate(Some(rejected(RejectReason::TooLarge))));
            assert_eq!(told(3), Decision::Duplicate(None));
        }
    }

    #[test]
    fn numbers_are_missing_where_prev_is_not_the_last() {
        let row = row();
        for prev in [0, 2, 4] {
            let arrival = Arrival { n: 5, prev, expired: true, refuse: Some(RejectReason::Blocked) };
            assert_eq!(ask(Some(&row), arrival, WAIT), Decision::Gap { last: 3 });
        }
        assert_eq!(ask(None, ARRIVAL, Room::Nobody), Decision::Gap { last: 0 });
    }

    #[test]
    fn what_has_no_time_left_ends_before_anything_waits() {
        let expired = Arrival { expired: true, ..ARRIVAL };
        let certain = Verdict::here(Outcome::Expired { maybe_taken: false });
        let unknown = Verdict::here(Outcome::Expired { maybe_taken: true });
        for (room, refuse) in [(WAIT, None), (Room::Nobody, None), (Room::Free, Some(RejectReason::NoRoute))] {
            let expired = Arrival { refuse, ..expired };
            assert_eq!(ask(Some(&row()), expired, room), Decision::Recorded(certain.clone()));
            let unrecorded = Decision::Unrecorded { verdict: unknown.clone(), remember: false };
            assert_eq!(ask(None, first(expired), room), unrecorded);
        }
    }

    #[test]
    fn nobody_there_is_final_and_makes_no_row() {
        let verdict = rejected(RejectReason::UnknownPeer);
        let unrecorded = Decision::Unrecorded { verdict: verdict.clone(), remember: true };
        assert_eq!(ask(None, first(ARRIVAL), Room::Nobody), unrecorded);
        assert_eq!(ask(Some(&row()), ARRIVAL, Room::Nobody), Decision::Recorded(verdict));
    }

    #[test]
    fn a_message_that_is_not_the_submitters_to_send_makes_no_row_and_never_waits() {
        for reason in [RejectReason::WrongSender, RejectReason::BadSignature, RejectReason::NoRoute] {
            for room in [Room::Free, Room::New, WAIT] {
                let arrival = Arrival { refuse: Some(reason), ..first(ARRIVAL) };
                let unrecorded = Decision::Unrecorded { verdict: rejected(reason), remember: true };
                assert_eq!(ask(None, arrival, room), unrecorded);
            }
        }
    }

    #[test]
    fn a_temporary_refusal_comes_before_a_final_one_that_needs_a_row() {
        let arrival = Arrival { refuse: Some(RejectReason::TooLarge), ..ARRIVAL };
        let wait = Decision::Wait { reason: WaitReason::Quota, retry_after: Duration::from_secs(5) };
        assert_eq!(ask(Some(&row()), arrival, WAIT), wait);
        assert_eq!(ask(None, first(arrival), WAIT), wait);
        assert_eq!(ask(Some(&row()), ARRIVAL, WAIT), wait);
    }

    #[test]
    fn a_final_refusal_is_recorded_where_there_is_a_row_or_a_mailbox() {
        for reason in [RejectReason::TooLarge, RejectReason::Blocked] {
            let arrival = Arrival { refuse: Some(reason), ..ARRIVAL };
            assert_eq!(ask(Some(&row()), arrival, Room::Free), Decision::Recorded(rejected(reason)));
            assert_eq!(ask(None, first(arrival), Room::Free), Decision::Recorded(rejected(reason)));
            let unrecorded = Decision::Unrecorded { verdict: rejected(reason), remember: true };
            assert_eq!(ask(None, first(arrival), Room::New), unrecorded);
        }
        let arrival = Arrival { refuse: Some(RejectReason::WrongSender), ..ARRIVAL };
        assert_eq!(ask(Some(&row()), arrival, Room::Free), Decision::Recorded(rejected(RejectReason::WrongSender)));
    }

    #[test]
    fn the_next_one_and_one_further_on_are_accepted() {
        assert_eq!(ask(Some(&row()), ARRIVAL, Room::Free), Decision::Accept);
        assert_eq!(ask(Some(&row()), Arrival { n: 9, ..ARRIVAL }, Room::Free), Decision::Accept);
        assert_eq!(ask(None, first(ARRIVAL), Room::New), Decision::Accept);
        assert_eq!(ask(None, Arrival { n: 9, prev: 0, ..ARRIVAL }, Room::Free), Decision::Accept);
    }
}
