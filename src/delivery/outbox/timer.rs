//! What time alone changes: repeats, and messages whose lifetime is over.

use std::collections::BTreeMap;

use super::session::Flight;
use super::{Effect, Outbox, SILENT_AFTER};
use crate::protocol::{Outcome, Verdict};
use crate::time::Moment;

impl Outbox {
    pub(super) fn oldest_unanswered(&self) -> Option<Moment> {
        self.session.as_ref()?.flights.iter().flatten().find_map(|flight| match flight {
            Flight::Offer { at, counts: true, .. } | Flight::Ask { at, .. } => Some(*at),
            Flight::Offer { .. } | Flight::Close { .. } => None,
        })
    }

    /// The relay owes an answer for too long: everything unanswered goes out again, oldest first.
    pub(super) fn repeat_unanswered(&mut self) {
        self.round_trip.back_off();
        let Some(session) = &mut self.session else { return };
        if self.round_trip.timeouts() >= SILENT_AFTER {
            self.effects.push_back(Effect::Silent);
        }
        let mut lanes = BTreeMap::new();
        for slot in &mut session.flights {
            match slot {
                Some(Flight::Offer { lane, n, counts, .. }) => {
                    if std::mem::take(counts) {
                        let first = lanes.entry(*lane).or_insert(*n);
                        *first = (*n).min(*first);
                    }
                }
                // An answer that comes all the same is void then, and nobody misses it.
                Some(Flight::Ask { lanes, .. }) => {
                    session.asks.extend(std::mem::take(lanes));
                    *slot = None;
                }
                Some(Flight::Close { .. }) | None => {}
            }
        }
        (session.window_messages, session.window_bytes) = (0, 0);
        for (number, first) in lanes {
            if let Some(lane) = self.lanes.get_mut(&number) {
                // Not to `base` alone: the answer to an earlier number may be the one that was lost.
                lane.set_back(lane.base.min(first - 1));
                lane.free_pace();
            }
            self.wake(number);
        }
    }

    pub(super) fn on_deadline(&mut self, now: Moment, number: u64, n: u64) {
        let grace = self.options.silence_grace;
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let Some(at) = lane.position(n) else { return };
        let Some(item) = lane.items.get_mut(at) else { return };
        if !item.offered {
            return self.resolve(number, at, Verdict::here(Outcome::Expired { maybe_taken: false }), false);
        }
        let last_word = item.deadline + grace;
        if last_word <= now {
            return self.resolve(number, at, Verdict::here(Outcome::Expired { maybe_taken: true }), false);
        }
        item.due = last_word;
        self.deadlines.insert((last_word, number, n));
        // Held back, it is offered once more: the relay answers for what has no time left before all else.
        if !item.accepted
            && let Some(until) = lane.held.take()
        {
            self.holds.remove(&(until, number));
            self.wake(number);
        }
    }
}
