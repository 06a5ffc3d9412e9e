//! How long things took, as a histogram of three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::report::{duration, fields};

/// Longer ones count as this long, microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    #[expect(clippy::expect_used, reason = "bounds and digits are constants that fit")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("a histogram of these bounds"))
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so nothing is left out.
        self.0.add(&other.0).ok();
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn p50_us(&self) -> u64 {
        self.0.value_at_quantile(0.5)
    }

    pub(super) fn p99_us(&self) -> u64 {
        self.0.value_at_quantile(0.99)
    }

    pub(super) fn max_us(&self) -> u64 {
        self.0.max()
    }

    /// The two fields that every report of a latency has.
    pub(super) fn fields(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        fields([("p50_us", self.p50_us().into()), ("p99_us", self.p99_us().into())])
    }

    /// Median and p99 for people.
    pub(super) fn words(&self) -> String {
        format!("p50 {}, p99 {}", duration(self.p50_us()), duration(self.p99_us()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_says_median_and_p99_whatever_the_lengths() {
        let mut latency = Latency::new();
        (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
        assert!((49_900..=50_100).contains(&latency.p50_us()), "{}", latency.p50_us());
        assert!((98_900..=99_200).contains(&latency.p99_us()), "{}", latency.p99_us());
        let mut extremes = Latency::new();
        extremes.record(Duration::ZERO);
        extremes.record(Duration::MAX);
        latency.merge(&extremes);
        assert_eq!(latency.count(), 102);
    }
}
