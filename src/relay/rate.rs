//! How fast one client may send: a bucket for each that refills steadily.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::id::PeerId;
use crate::time::{Moment, SharedClock};

/// Buckets from which on full ones, which say nothing, are looked for: each time that their number has doubled.
const MANY_BUCKETS: usize = 1024;

/// The shortest wait that is told: who waits for less than this would only ask more often.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// How many messages one client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// In a second, for long. 0 for any number.
    pub per_second: u32,
    /// At once, after a pause. 0 for as many as in a second.
    pub burst: u32,
}

/// The time, as the library wants it.
#[derive(Debug, Clone)]
struct Ticks(SharedClock);

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.now().since(Moment::default())
    }
}

type Buckets = RateLimiter<PeerId, DefaultKeyedStateStore<PeerId>, Ticks, NoOpMiddleware<Duration>>;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Limiter {
    /// None where there is no limit.
    buckets: Option<Buckets>,
    clock: Ticks,
    /// So many buckets are a reason to look for full ones.
    many: AtomicUsize,
}

impl Limiter {
    pub(super) fn new(rate: Rate, clock: &SharedClock) -> Self {
        let clock = Ticks(clock.clone());
        let buckets = NonZeroU32::new(rate.per_second).map(|per_second| {
            let burst = NonZeroU32::new(rate.burst).unwrap_or(per_second);
            let quota = Quota::per_second(per_second).allow_burst(burst);
            RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone())
        });
        Self { buckets, clock, many: AtomicUsize::new(MANY_BUCKETS) }
    }

    /// One more message of this client.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(super) fn admit(&self, who: &PeerId) -> Result<(), Duration> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        if buckets.len() >= self.many.load(Ordering::Relaxed) {
            buckets.retain_recent();
            self.many.store((2 * buckets.len()).max(MANY_BUCKETS), Ordering::Relaxed);
        }
        buckets.check_key(who).map_err(|until| until.wait_time_from(self.clock.now()).max(SHORTEST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::TestClock;

    fn peer(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(key)
    }

    #[test]
    fn each_client_has_its_burst_and_then_its_rate() {
        let clock = TestClock::shared();
        let limiter = Limiter::new(Rate { per_second: 10, burst: 5 }, &(clock.clone() as SharedClock));
        let passed = |who| (0..20).filter(|_| limiter.admit(&peer(who)).is_ok()).count();
        assert_eq!((passed(1), passed(2)), (5, 5));
        assert_eq!(limiter.admit(&peer(1)), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(300));
        assert_eq!((passed(1), passed(3)), (3, 5));
        clock.advance(Duration::from_secs(60));
        assert_eq!(passed(1), 5);
    }

    #[test]
    fn a_rate_without_a_burst_has_one_of_a_second_and_none_at_all_is_no_limit() {
        let clock: SharedClock = TestClock::shared();
        let passed = |rate| {
            let limiter = Limiter::new(rate, &clock);
            (0..1000).filter(|_| limiter.admit(&peer(1)).is_ok()).count()
        };
        assert_eq!(passed(Rate { per_second: 7, burst: 0 }), 7);
        assert_eq!(passed(Rate::default()), 1000);
    }

    #[test]
    fn buckets_that_are_full_again_cost_nothing() {
        let clock = TestClock::shared();
        let limiter = Limiter::new(Rate { per_second: 1, burst: 1 }, &(clock.clone() as SharedClock));
        for number in 0..100_000 {
            limiter.admit(&peer(number)).unwrap();
            clock.advance(Duration::from_millis(10));
        }
        assert!(limiter.buckets.as_ref().unwrap().len() <= MANY_BUCKETS);
    }
}
