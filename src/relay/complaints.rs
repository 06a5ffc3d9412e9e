//! Complaints about others that come as often as they like: counted, and logged once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::{Moment, SharedClock};

const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Complaints {
    clock: SharedClock,
    /// When the last was logged, and how many came since.
    state: Mutex<(Option<Moment>, u64)>,
}

impl Complaints {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// One more. If it is time to log: how many there were since the last time, this one included.
    pub(super) fn count(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        if state.0.is_some_and(|logged| now < logged + PAUSE) {
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::TestClock;

    #[test]
    fn of_many_complaints_one_a_minute_is_logged_and_the_others_are_counted() {
        let clock = TestClock::shared();
        let complaints = Complaints::new(clock.clone());
        assert_eq!(complaints.count(), Some(1));
        assert_eq!((1..100).filter_map(|_| complaints.count()).count(), 0);
        clock.advance(PAUSE);
        assert_eq!(complaints.count(), Some(100));
    }
}
