//! What the application answered and the relay does not know yet: told by ACK:R, or on the next page request.

use std::collections::VecDeque;
use std::time::Duration;

use crate::delivery::RoundTrip;
use crate::id::StoreId;
use crate::link::Link;
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

/// A confirmation says that the relay has an answer, not that its disk has. So what was confirmed so recently when
/// a session ends is told once more in the next: a relay that was killed in between has lost it.
const DOUBT: Duration = Duration::from_secs(10);

/// What is confirmed within so long melts together.
const MELTS: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Acks {
    clock: SharedClock,
    /// The store that all of it belongs to: another one's places mean nothing to it.
    store: Option<StoreId>,
    owed: Taken,
    owed_since: Option<Moment>,
    /// It waits for a page request to ride on.
    waits: bool,
    unconfirmed: VecDeque<(u64, Taken, Moment)>,
    /// What was confirmed a moment ago, and when.
    recent: VecDeque<(Moment, Taken)>,
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
            waits: false,
            unconfirmed: VecDeque::new(),
            recent: VecDeque::new(),
            next: 0,
            round_trip: RoundTrip::new(TIMEOUTS.0, TIMEOUTS.1),
        }
    }

    /// A session with this store begins.
    pub(super) fn connected(&mut self, store: StoreId) {
        if self.store != Some(store) {
            self.store = Some(store);
            self.owed = Taken::default();
            self.recent.clear();
        }
        self.next = 0;
    }

    /// The session is over: what it did not confirm for good is told again in the next.
    pub(super) fn disconnected(&mut self) {
        self.round_trip.reset();
        self.waits = false;
        self.forget_old();
        for (_, answers) in std::mem::take(&mut self.recent) {
            self.give_back(answers);
        }
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
        while let Some((number, answers, sent)) = self.unconfirmed.pop_front_if(|(number, ..)| *number <= request) {
            if number == request {
                self.round_trip.sample(now - sent);
            }
            self.arrived(answers);
        }
    }

    /// The relay has these answers.
    pub(super) fn arrived(&mut self, answers: Taken) {
        self.forget_old();
        let now = self.clock.now();
        match self.recent.back_mut() {
            Some((at, recent)) if now < *at + MELTS => {
                recent.taken.extend(&answers.taken);
                recent.refused.extend(answers.refused);
            }
            _ if answers.is_empty() => {}
            _ => self.recent.push_back((now, answers)),
        }
    }

    fn forget_old(&mut self) {
        let now = self.clock.now();
        while self.recent.pop_front_if(|(at, _)| *at + DOUBT + MELTS <= now).is_some() {}
    }

    /// Whether the relay knows all, but for what rides on page requests.
    pub(super) fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.unconfirmed.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let ride = self.owed_since.filter(|_| self.waits).map(|since| since + RIDE_PATIENCE);
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
        self.waits = rides && !waited && !self.owed.is_empty();
        if self.waits {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::TestClock;

    const STORE: StoreId = StoreId([1; 16]);

    fn taken(seqs: &[u64]) -> Taken {
        Taken { taken: seqs.iter().copied().map(|seq| (seq, seq)).collect(), refused: Vec::new() }
    }

    #[test]
    fn what_was_confirmed_shortly_before_a_session_ended_is_told_once_more_in_the_next() {
        let clock = TestClock::shared();
        let mut acks = Acks::new(clock.clone());
        acks.connected(STORE);
        for seq in [1, 2, 3] {
            acks.owe(STORE, seq, None);
            let answers = acks.take();
            assert_eq!(answers, taken(&[seq]));
            acks.arrived(answers);
            clock.advance(Duration::from_secs(4));
        }
        assert!(acks.is_settled());
        acks.disconnected();
        acks.connected(STORE);
        assert_eq!(acks.take(), taken(&[2, 3]), "the first was confirmed twelve seconds ago");
        acks.disconnected();
        acks.connected(STORE);
        assert!(acks.is_settled(), "once more is enough");
    }

    #[test]
    fn what_is_owed_wakes_nobody_while_there_is_no_session() {
        let mut acks = Acks::new(TestClock::shared());
        acks.connected(STORE);
        acks.owe(STORE, 1, None);
        acks.disconnected();
        assert_eq!(acks.next_timeout(), None);
    }

    #[test]
    fn places_in_another_store_are_forgotten() {
        let mut acks = Acks::new(TestClock::shared());
        acks.connected(STORE);
        acks.arrived(taken(&[1]));
        acks.owe(STORE, 2, None);
        acks.disconnected();
        acks.connected(StoreId([2; 16]));
        acks.owe(STORE, 3, None);
        assert!(acks.is_settled());
    }

    #[test]
    fn more_than_a_frame_holds_is_told_in_several() {
        let mut acks = Acks::new(TestClock::shared());
        acks.connected(STORE);
        for seq in 0..3 * TOLD_RANGES as u64 {
            acks.owe(STORE, 2 * seq, None);
            let text = Some("x".repeat(256));
            acks.owe(STORE, 2 * seq + 1, Some(Refusal { seq: 2 * seq + 1, text }));
        }
        let mut all = Taken::default();
        while !acks.is_settled() {
            let part = acks.take();
            let frame = AckR { request: 0, store: STORE, answers: part.clone() };
            let mut bytes = bytes::BytesMut::new();
            crate::protocol::encode(&frame.into(), &mut bytes);
            assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
            all.taken.extend(&part.taken);
            all.refused.extend(part.refused);
        }
        assert_eq!((all.taken.len(), all.refused.len()), (3 * TOLD_RANGES, 3 * TOLD_RANGES));
    }
}
