//! What senders were told before it was durable: a *delivered* does not wait for the disk (LAW 3).
//!
//! The change is handed to the store first, then this tells, and once the change is durable all is told that was
//! not, or that was told to a session which was replaced since.

use std::collections::BTreeMap;

use super::{Done, Settled};
use crate::id::{LaneKey, PeerId};
use crate::ranges::Ranges;

/// Who can be told, and in which session.
pub trait Tell: Send + Sync {
    /// Tells a submitter; its newest session, if it has one.
    fn tell(&self, settled: &Settled) -> Option<u64>;

    /// The newest session of a submitter, if it has one.
    fn session(&self, submitter: PeerId) -> Option<u64>;
}

/// For each submitter and lane the session that was told in advance, and the numbers.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<(PeerId, LaneKey), (Option<u64>, Ranges)>);

impl Told {
    /// A message that was delivered.
    pub fn add(&mut self, submitter: PeerId, lane: LaneKey, n: u64) {
        self.0.entry((submitter, lane)).or_default().1.insert(n);
    }

    /// Tells of all that were added.
    pub fn tell_all(&mut self, teller: &dyn Tell) {
        for ((submitter, lane), (session, delivered)) in &mut self.0 {
            let (submitter, lane, delivered) = (*submitter, *lane, delivered.clone());
            *session = teller.tell(&Settled { submitter, lane, delivered, exceptions: Vec::new() });
        }
    }

    /// The change is durable: tells the rest of it.
    pub fn tell_rest(&self, teller: &dyn Tell, done: &[Done]) {
        for settled in done.iter().filter_map(Done::settled).flatten() {
            if !self.covers(settled, teller) {
                teller.tell(settled);
            }
        }
    }

    fn covers(&self, settled: &Settled, teller: &dyn Tell) -> bool {
        let Some((session, numbers)) = self.0.get(&(settled.submitter, settled.lane)) else { return false };
        let told = |(from, to)| numbers.range_of(from).is_some_and(|range| range.1 >= to);
        *session == teller.session(settled.submitter)
            && settled.exceptions.is_empty()
            && settled.delivered.iter().all(told)
    }
}

/// Nobody is there to be told.
#[cfg(test)]
impl Tell for () {
    fn tell(&self, _: &Settled) -> Option<u64> {
        None
    }

    fn session(&self, _: PeerId) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::contract::{lane, peer};

    /// Takes down what is told, to this session.
    struct Session(Mutex<(Option<u64>, Vec<Ranges>)>);

    impl Tell for Session {
        fn tell(&self, settled: &Settled) -> Option<u64> {
            let mut now = self.0.lock().unwrap();
            now.1.push(settled.delivered.clone());
            now.0
        }

        fn session(&self, _: PeerId) -> Option<u64> {
            self.0.lock().unwrap().0
        }
    }

    fn settled(numbers: [(u64, u64); 1]) -> Done {
        let delivered = numbers.into_iter().collect();
        Done::Settled(vec![Settled { submitter: peer(1), lane: lane(1, 2, 1), delivered, exceptions: Vec::new() }])
    }

    #[test]
    fn nobody_is_told_twice_but_a_session_that_came_meanwhile_and_of_what_is_new() {
        let session = Session(Mutex::new((Some(7), Vec::new())));
        let count = || session.0.lock().unwrap().1.len();
        let mut told = Told::default();
        told.add(peer(1), lane(1, 2, 1), 3);
        told.add(peer(1), lane(1, 2, 1), 4);
        told.tell_all(&session);
        assert_eq!(count(), 1);
        told.tell_rest(&session, &[settled([(3, 4)]), Done::Done]);
        assert_eq!(count(), 1, "it knows");
        told.tell_rest(&session, &[settled([(3, 5)])]);
        assert_eq!(count(), 2, "the fifth is news");
        session.0.lock().unwrap().0 = Some(8);
        told.tell_rest(&session, &[settled([(3, 4)])]);
        assert_eq!(count(), 3, "the one that knew is gone");
    }
}
