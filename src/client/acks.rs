//! What the application answered and the relay does not know yet: told by ACK:R, or on the next page request.

use std::collections::VecDeque;
use std::time::Duration;

use super::link::Link;
use crate::delivery::RoundTrip;
use crate::id::StoreId;
use crate::protocol::{AckR, Refusal, Taken};
use crate::ranges::Ranges;
use crate::time::{Moment, SharedClock};
use crate::transport::{FrameSender, TransportError};

/// How long an acknowledgement may wait for a page request to ride on.
const RIDE_PATIENCE: Duration = Duration::from_millis(50);

/// How long ACK:R may stay unconfirmed before it is sent again.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Ranges, and refusals with their words, that one frame tells: so it stays well below a frame's limit.
const TOLD_RANGES: usize = 4096;
const TOLD_REFUSALS: usize = 1024;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Acks {
    clock: SharedClock,
    /// The store that all of it belongs to: another one's places mean nothing to it.
    store: Option<StoreId>,
    owed: Taken,
    owed_since: Option<Moment>,
    unconfirmed: VecDeque<(u64, Taken, Moment)>,
    next: u64,
    round_trip: RoundTrip,
}

impl Acks {
    pub(super) const fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            store: None,
            owed: Taken { taken: Ranges::new(), refused: Vec::new() },
            owed_since: None,
            unconfirmed: VecDeque::new(),
            next: 0,
            round_trip: RoundTrip::new(TIMEOUTS.0, TIMEOUTS.1),
        }
    }

    /// A session with this store begins.
    pub(super) fn connected(&mut self, store: StoreId) {
        if self.store != Some(store) {
            self.store = Some(store);
            self.owed = Taken::default();
        }
        self.next = 0;
    }

    /// The session is over: what it did not confirm is told again in the next.
    pub(super) fn disconnected(&mut self) {
        self.round_trip.reset();
        for (_, answers, _) in std::mem::take(&mut self.unconfirmed) {
            self.give_back(answers);
        }
    }

    /// The application's answer is durable here.
    pub(super) fn owe(&mut self, store: StoreId, seq: u64, refusal: Option<Refusal>) {
        if self.store != Some(store) {
            return;
        }
        match refusal {
            Some(refusal) => self.owed.refused.push(refusal),
            None => drop(self.owed.taken.insert(seq)),
        }
        self.owed_since.get_or_insert(self.clock.now());
    }

    /// What is owed, as far as it fits a frame, to ride on a page request.
    pub(super) fn take(&mut self) -> Taken {
        let mut answers = std::mem::take(&mut self.owed);
        if answers.taken.len() > TOLD_RANGES {
            self.owed.taken = answers.taken.iter().skip(TOLD_RANGES).collect();
            answers.taken = answers.taken.iter().take(TOLD_RANGES).collect();
        }
        if answers.refused.len() > TOLD_REFUSALS {
            self.owed.refused = answers.refused.split_off(TOLD_REFUSALS);
        }
        if self.owed.is_empty() {
            self.owed_since = None;
        }
        answers
    }

    /// What was taken has not arrived.
    pub(super) fn give_back(&mut self, answers: Taken) {
        if answers.is_empty() {
            return;
        }
        self.owed.taken.extend(&answers.taken);
        self.owed.refused.extend(answers.refused);
        self.owed_since.get_or_insert(self.clock.now());
    }

    /// The relay has all ACK:R up to this one.
    pub(super) fn confirmed(&mut self, request: u64) {
        let now = self.clock.now();
        while let Some((number, _, sent)) = self.unconfirmed.pop_front_if(|(number, ..)| *number <= request) {
            if number == request {
                self.round_trip.sample(now - sent);
            }
        }
    }

    /// Whether the relay knows all, but for what rides on page requests.
    pub(super) fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.unconfirmed.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let ride = self.owed_since.filter(|_| !self.owed.is_empty()).map(|since| since + RIDE_PATIENCE);
        ride.into_iter().chain(self.late_at()).min()
    }

    fn late_at(&self) -> Option<Moment> {
        self.unconfirmed.front().map(|(_, _, sent)| *sent + self.round_trip.timeout())
    }

    /// Time has passed: what is unconfirmed for too long is owed again.
    pub(super) fn on_timeout(&mut self, now: Moment) {
        if self.late_at().is_some_and(|late| late <= now) {
            self.round_trip.back_off();
            for (_, answers, _) in std::mem::take(&mut self.unconfirmed) {
                self.give_back(answers);
            }
        }
    }

    /// Sends ACK:R, unless a page request is to come soon that takes it along. The stream to wait for, if it has
    /// no room.
    pub(super) fn transmit(&mut self, link: &Link, rides: bool) -> Result<Option<FrameSender>, TransportError> {
        let now = self.clock.now();
        let waited = self.owed_since.is_none_or(|since| since + RIDE_PATIENCE <= now);
        let Some(store) = self.store else { return Ok(None) };
        if self.owed.is_empty() || (rides && !waited) {
            return Ok(None);
        }
        while !self.owed.is_empty() {
            let answers = self.take();
            let ack = AckR { request: self.next, store, answers: answers.clone() };
            if !link.notify.try_send(&ack.into())? {
                self.give_back(answers);
                return Ok(Some(link.notify.clone()));
            }
            self.unconfirmed.push_back((self.next, answers, now));
            self.next += 1;
        }
        Ok(None)
    }
}
