//! The outbox's sending half: which request goes out next.

use super::lane::{Known, Pace};
use super::session::Flight;
use super::{Offer, Outbox, REPEATS_KEPT, Request, lane_ref};
use crate::id::Pair;
use crate::protocol::limit::MAX_LANES_ASKED;
use crate::protocol::{CloseR, LaneQuestion, WhereR};
use crate::time::Moment;

impl Outbox {
    pub(super) fn ask(&mut self, now: Moment) -> Option<Request> {
        let mut lanes = Vec::new();
        let mut questions = Vec::new();
        while let Some(session) = &mut self.session
            && lanes.len() < MAX_LANES_ASKED
            && let Some((number, from, _)) = session.asks.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&number) else { continue };
            let Some(last) = lane.items.back().map(|item| item.n) else {
                lane.known = Known::Answered;
                continue;
            };
            // Messages that entered since the session began are part of the question.
            let to = last.max(from);
            lane.known = Known::Asked;
            lanes.push((number, from, to));
            questions.push(LaneQuestion { lane: lane_ref(&lane.key, self.options.submitter), from, to });
        }
        if lanes.is_empty() {
            return None;
        }
        let request = self.fly(Flight::Ask { lanes, at: now });
        Some(Request::Ask(WhereR { request, lanes: questions }))
    }

    pub(super) fn close(&mut self) -> Option<Request> {
        let mut numbers = Vec::new();
        let mut lanes = Vec::new();
        while let Some(session) = &mut self.session
            && lanes.len() < MAX_LANES_ASKED
            && let Some(number) = session.closes.pop_front()
        {
            // A message may have entered since; the lane is over once that one is.
            let Some(lane) = self.lanes.get(&number).filter(|lane| lane.is_over()) else { continue };
            lanes.push(lane_ref(&lane.key, self.options.submitter));
            numbers.push(number);
        }
        if lanes.is_empty() {
            return None;
        }
        let request = self.fly(Flight::Close { lanes: numbers });
        Some(Request::Close(CloseR { request, lanes }))
    }

    pub(super) fn offer(&mut self, now: Moment) -> Option<Request> {
        let session = self.session.as_mut()?;
        if session.window_messages >= self.options.window_messages
            || !session.has_place(self.options.window_messages.saturating_mul(REPEATS_KEPT))
        {
            return None;
        }
        loop {
            let number = *self.ready.front()?;
            if !self.may_send(number) {
                self.ready.pop_front();
                if let Some(lane) = self.lanes.get_mut(&number) {
                    lane.ready = false;
                }
                continue;
            }
            let (session, lane) = (self.session.as_ref()?, self.lanes.get_mut(&number)?);
            let at = lane.next_to_send()?;
            let item = lane.items.get_mut(at)?;
            let fits = session.window_bytes.saturating_add(item.bytes) <= self.options.window_bytes;
            if session.window_messages > 0 && !fits {
                return None;
            }
            let first = !item.sent;
            if item.late {
                lane.late -= 1;
            }
            (item.offered, item.late, item.sent) = (true, false, true);
            let (n, bytes, key, deadline) = (item.n, item.bytes, item.key, item.deadline);
            // What the relay has accepted it holds, whatever was sent last. A number at or below that is a
            // duplicate there, whose `prev` does not matter; but it is below its own number, always.
            let prev = lane.cursor.max(lane.base).min(n.saturating_sub(1));
            lane.cursor = lane.cursor.max(n);
            if lane.pace == Pace::OneNext {
                lane.pace = Pace::OneSent;
            }
            let round = lane.round;
            // Take turns between lanes.
            self.ready.rotate_left(1);
            let request = self.fly(Flight::Offer { lane: number, n, bytes, round, at: now, counts: true, first });
            return Some(Request::Offer(Offer { request, key, prev, deadline }));
        }
    }

    pub(super) fn fly(&mut self, flight: Flight) -> u64 {
        let Some(session) = &mut self.session else { return 0 };
        if let Flight::Offer { bytes, .. } = flight {
            session.window_messages += 1;
            session.window_bytes += bytes;
        }
        session.flights.push_back(Some(flight));
        session.next_request += 1;
        session.next_request - 1
    }

    pub(super) fn may_send(&mut self, number: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else { return false };
        let paced = lane.pace != Pace::OneSent && lane.held.is_none();
        let free = lane.known == Known::Answered && paced && lane.given_up == 0;
        let pair = lane.key.pair;
        free && lane.next_to_send().is_some() && self.older_lanes_are_done(number, pair)
    }

    /// Whether every older lane of the pair is answered for and has nothing unaccepted.
    pub(super) fn older_lanes_are_done(&self, number: u64, pair: Pair) -> bool {
        let older = self.pairs.get(&pair).into_iter().flatten().take_while(|other| **other != number);
        older
            .filter_map(|other| self.lanes.get(other))
            .all(|other| other.items.is_empty() || (other.known == Known::Answered && other.unaccepted == 0))
    }

    /// Lets the pair's lanes from this one on be looked at by the next poll.
    pub(super) fn wake(&mut self, number: u64) {
        if self.session.is_none() {
            return;
        }
        let Some(pair) = self.lanes.get(&number).map(|lane| lane.key.pair) else { return };
        for number in self.pairs.get(&pair).into_iter().flatten() {
            if let Some(lane) = self.lanes.get_mut(number)
                && !lane.ready
                && !lane.items.is_empty()
            {
                lane.ready = true;
                self.ready.push_back(*number);
            }
        }
    }
}
