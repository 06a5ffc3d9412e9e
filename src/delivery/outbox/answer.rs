//! What the relay's answers change: acceptance, places and outcomes.

use std::time::Duration;

use super::lane::{Known, Pace};
use super::session::Flight;
use super::{Effect, Outbox, Receipt, never_asked};
use crate::mutant::Mutant;
use crate::protocol::{Answer, Durability, FrameType, LaneState, Outcome, RejectReason, Verdict, WireError};
use crate::time::Moment;

impl Outbox {
    /// Takes the flight that is answered. `None` if it was answered before.
    pub(super) fn answered(&mut self, request: u64, frame: FrameType) -> Result<Option<Flight>, WireError> {
        let Some(session) = &mut self.session else { return Ok(None) };
        if request >= session.next_request {
            return Err(never_asked(frame));
        }
        let oldest = session.next_request - session.flights.len() as u64;
        let Some(place) = request.checked_sub(oldest).and_then(|at| usize::try_from(at).ok()) else { return Ok(None) };
        let flight = session.flights.get_mut(place).and_then(Option::take);
        while session.flights.front().is_some_and(Option::is_none) {
            session.flights.pop_front();
        }
        if let Some(Flight::Offer { bytes, counts: true, .. }) = flight {
            session.window_messages -= 1;
            session.window_bytes -= bytes;
        }
        Ok(flight)
    }

    pub(super) fn on_answer(&mut self, now: Moment, number: u64, n: u64, round: u32, answer: Answer) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        match answer {
            Answer::Accepted { durability, duplicate, verdict, .. } => {
                // Not the cursor: set back meanwhile, it waits before numbers whose answers were lost.
                lane.base = lane.base.max(n);
                lane.pace = Pace::Free;
                if let Some(at) = lane.position(n) {
                    self.accept(number, at, durability, duplicate);
                    if Mutant::OutboxDroppedAtAnswer.is_planted() {
                        return self.forget(number, n);
                    }
                    if let Some(verdict) = verdict {
                        self.resolve(number, at, verdict, true);
                    }
                }
            }
            Answer::Final(verdict) => {
                // Most refusals are in the lane's row, and the next number follows this one. One that is not
                // shows as a gap, which sets the lane right.
                lane.base = lane.base.max(n);
                if round == lane.round {
                    lane.free_pace();
                }
                if let Some(at) = lane.position(n) {
                    self.resolve(number, at, verdict, true);
                }
            }
            Answer::Gap { last } if round == lane.round => {
                lane.base = last;
                lane.set_back(last);
                lane.pace = Pace::OneNext;
                let again = lane.items.partition_point(|item| item.n <= last);
                for item in lane.items.iter_mut().skip(again) {
                    lane.unaccepted += usize::from(item.accepted);
                    item.accepted = false;
                }
            }
            Answer::Wait { reason, retry_after_ms } if round == lane.round => {
                lane.set_back(lane.base);
                lane.pace = Pace::OneNext;
                let until = now + Duration::from_millis(retry_after_ms);
                lane.held = Some(until);
                self.holds.insert((until, number));
                self.effects.push_back(Effect::Held { lane: lane.key, reason, until });
            }
            Answer::Gap { .. } | Answer::Wait { .. } => {}
        }
        self.wake(number);
    }

    /// Applies a row to the messages it speaks of.
    pub(super) fn judge(&mut self, number: u64, from: u64, row: &LaneState) {
        self.resolve_range_if(number, from, row.upto, &Verdict::DELIVERED, |n| row.delivered.contains(n));
        for exception in &row.exceptions {
            let (first, last) = (exception.from.max(from), exception.to.min(row.upto));
            self.resolve_range_if(number, first, last, &exception.verdict, |_| true);
        }
        let Some((lane, session)) = self.lanes.get_mut(&number).zip(self.session.as_ref()) else { return };
        let start = lane.items.partition_point(|item| item.n < from);
        for item in lane.items.iter_mut().skip(start).take_while(|item| item.n <= row.upto) {
            if item.late {
                continue;
            }
            let pending = item.n <= row.last;
            if pending && !item.accepted {
                let (key, id, durability) = (item.key, item.id, session.durability);
                self.effects.push_back(Effect::Accepted { key, id, durability, duplicate: true });
                lane.unaccepted -= 1;
            } else if !pending && item.accepted {
                lane.unaccepted += 1;
            }
            item.accepted = pending;
        }
    }

    /// The relay has said all about the lane: it may send, from behind `last` on.
    pub(super) fn located(&mut self, number: u64, last: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        lane.known = Known::Answered;
        lane.base = last;
        lane.set_back(last);
        self.close_if_over(number);
        self.wake(number);
    }

    pub(super) fn accept(&mut self, number: u64, at: usize, durability: Durability, duplicate: bool) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let Some(item) = lane.items.get_mut(at) else { return };
        if !item.accepted {
            item.accepted = true;
            lane.unaccepted -= 1;
            self.effects.push_back(Effect::Accepted { key: item.key, id: item.id, durability, duplicate });
        }
    }

    pub(super) fn resolve_range(&mut self, number: u64, from: u64, to: u64, verdict: &Verdict) {
        self.resolve_range_if(number, from, to, verdict, |_| true);
    }

    pub(super) fn resolve_range_if(
        &mut self,
        number: u64,
        from: u64,
        to: u64,
        verdict: &Verdict,
        told: impl Fn(u64) -> bool,
    ) {
        let Some(durability) = self.session.as_ref().map(|session| session.durability) else { return };
        // These outcomes exist only for what was accepted, whether or not MSG:A has come by.
        let accepted = match &verdict.outcome {
            Outcome::Delivered => true,
            Outcome::Rejected { reason, .. } => matches!(reason, RejectReason::Refused | RejectReason::Removed),
            Outcome::Expired { .. } => false,
        };
        let Some(lane) = self.lanes.get(&number) else { return };
        let mut at = lane.items.partition_point(|item| item.n < from);
        while let Some(item) = self.lanes.get(&number).and_then(|lane| lane.items.get(at)) {
            if item.n > to {
                break;
            }
            if item.late || !told(item.n) {
                at += 1;
                continue;
            }
            if accepted {
                self.accept(number, at, durability, false);
            }
            self.resolve(number, at, verdict.clone(), true);
        }
    }

    /// Drops a message, if it is still there, and tells nothing.
    pub(super) fn forget(&mut self, number: u64, n: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let Some(item) = lane.position(n).and_then(|at| lane.items.remove(at)) else { return };
        lane.unaccepted -= usize::from(!item.accepted);
        lane.late -= usize::from(item.late);
        self.deadlines.remove(&(item.due, number, n));
        self.messages -= 1;
        self.close_if_over(number);
    }

    /// Takes a message out: its outcome is known, from the relay or by the outbox itself.
    pub(super) fn resolve(&mut self, number: u64, at: usize, verdict: Verdict, from_relay: bool) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let Some(item) = lane.items.remove(at) else { return };
        let mut verdict = match from_relay && item.foreign {
            true => Verdict { outcome: verdict.outcome.maybe_taken(), relay: verdict.relay },
            false => verdict,
        };
        if let Outcome::Expired { maybe_taken } | Outcome::Rejected { maybe_taken, .. } = &mut verdict.outcome {
            *maybe_taken &= !Mutant::MaybeTakenNeverSet.is_planted();
        }
        if from_relay && verdict.outcome != Outcome::Delivered {
            verdict.relay = verdict.relay.or(self.options.names);
        }
        let gave_up = !item.accepted && verdict.outcome != Outcome::Delivered;
        lane.unaccepted -= usize::from(!item.accepted);
        lane.late -= usize::from(item.late);
        lane.unpersisted += 1;
        lane.given_up += usize::from(gave_up);
        self.deadlines.remove(&(item.due, number, item.n));
        self.messages -= 1;
        let receipt = Receipt { lane: number, gave_up };
        let (key, id, n, lane) = (item.key, item.id, item.n, lane.key);
        self.effects.push_back(Effect::Resolved { key, id, lane, n, verdict, receipt });
        self.wake(number);
    }
}
