//! When to try again: an estimate of the round trip for answers, and a jittered backoff for reconnects.

use std::time::Duration;

/// The retransmission timeout of RFC 6298: smoothed round trip plus four times its variation, doubled with
/// each timeout, between two bounds.
///
/// It measures the way to MSG:A and back, commit included, so it is the application's own and not QUIC's.
#[derive(Debug, Clone)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    doublings: u32,
    min: Duration,
    max: Duration,
}

impl RoundTrip {
    /// Without a measurement the timeout is `min`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { smoothed: None, variation: Duration::ZERO, doublings: 0, min, max }
    }

    /// An answer came after `measured`. Not for requests that were repeated: whose answer is it? (Karn)
    pub fn sample(&mut self, measured: Duration) {
        self.doublings = 0;
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(measured), measured / 2),
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(measured)) / 4;
                self.smoothed = Some((smoothed * 7 + measured) / 8);
            }
        }
    }

    /// A request stayed unanswered for the whole timeout.
    pub const fn back_off(&mut self) {
        self.doublings = self.doublings.saturating_add(1);
    }

    /// Timeouts in a row without an answer.
    #[must_use]
    pub const fn timeouts(&self) -> u32 {
        self.doublings
    }

    /// A new path: what was measured on the old one no longer counts.
    pub const fn reset(&mut self) {
        *self = Self::new(self.min, self.max);
    }

    /// How long to wait for an answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let plain = self.smoothed.map_or(self.min, |smoothed| smoothed + self.variation * 4).max(self.min);
        plain.saturating_mul(1 << self.doublings.min(16)).min(self.max)
    }
}

/// Waits between attempts: each anywhere between nothing and twice the bound of the one before ("full jitter"),
/// so that a thousand clients of a restarted relay do not come at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first wait is at most `first`, every wait at most `cap`.
    #[must_use]
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, attempts: 0 }
    }

    /// The wait before the next attempt; `random` is 64 random bits.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let bound = self.first.saturating_mul(1 << self.attempts.min(20)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        let share = (random >> 11) as f64 / (1u64 << 53) as f64;
        bound.mul_f64(share)
    }

    /// The other side was heard from.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_the_round_trip_within_its_bounds() {
        let mut trip = RoundTrip::new(100 * MS, 3000 * MS);
        assert_eq!(trip.timeout(), 100 * MS);
        trip.sample(80 * MS);
        assert_eq!(trip.timeout(), 240 * MS);
        for _ in 0..100 {
            trip.sample(80 * MS);
        }
        assert_eq!(trip.timeout(), 100 * MS, "a steady round trip needs no slack beyond the minimum");
        trip.sample(2000 * MS);
        assert!(trip.timeout() > 1000 * MS, "one slow answer widens the timeout: {:?}", trip.timeout());
    }

    #[test]
    fn the_timeout_doubles_until_an_answer_comes() {
        let mut trip = RoundTrip::new(100 * MS, 3000 * MS);
        let mut seen = vec![];
        for _ in 0..7 {
            seen.push(trip.timeout());
            trip.back_off();
        }
        assert_eq!(seen, [100, 200, 400, 800, 1600, 3000, 3000].map(|ms| ms * MS));
        trip.sample(20 * MS);
        assert_eq!((trip.timeout(), trip.timeouts()), (100 * MS, 0));
    }

    #[test]
    fn waits_grow_to_the_cap_and_are_spread_over_their_whole_range() {
        let mut backoff = Backoff::new(100 * MS, 30_000 * MS);
        let longest: Vec<_> = (0..12).map(|_| backoff.next_wait(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
        assert_eq!(backoff.next_wait(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next_wait(1 << 63), 50 * MS);
    }
}
