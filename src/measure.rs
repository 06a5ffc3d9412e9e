//! Numbers about what goes on, counted without locks where it goes on, and read by whoever asks.
//!
//! They are atomics that only grow. Nothing is decided by them, so they are read and written in no particular order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something that is counted.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that is counted by name, from a closed list of names.
#[derive(Debug)]
pub struct Named(Vec<(&'static str, Counter)>);

impl Named {
    /// None of any of these yet.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().map(|name| (name, Counter::default())).collect())
    }

    /// One more of this name; another name is not counted.
    pub fn add(&self, name: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == name) {
            counter.add(1);
        }
    }

    /// How many there were of each name.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, counter)| (*name, counter.count()))
    }
}

/// Upper bounds of what is told apart in a histogram, ms: from a fast disk's sync to the longest lifetime.
const BOUNDS_MS: [f64; 21] = [
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    60_000.0,
    600_000.0,
    3_600_000.0,
    21_600_000.0,
    86_400_000.0,
    604_800_000.0,
];

/// How many bounds, and what lies above all of them.
const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// How long things took, gathered by one who works on them, before it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Lengths {
    /// One more.
    pub fn add(&mut self, length: Duration) {
        let ms = length.as_secs_f64() * 1000.0;
        let at = BOUNDS_MS.partition_point(|bound| *bound < ms);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.sum_us = self.sum_us.saturating_add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together, seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// Upper bounds in seconds, each with how many lie below it and above the one before. The last is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS_MS.iter().map(|ms| ms / 1000.0).chain([f64::INFINITY]);
        bounds.zip(self.buckets.iter().copied())
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// These as well.
    pub fn add(&self, lengths: &Lengths) {
        if lengths.count() == 0 {
            return;
        }
        for (all, more) in self.buckets.iter().zip(lengths.buckets) {
            if more > 0 {
                all.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.sum_us.fetch_add(lengths.sum_us, Ordering::Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn lengths(&self) -> Lengths {
        let buckets = std::array::from_fn(|at| self.buckets.get(at).map_or(0, |all| all.load(Ordering::Relaxed)));
        Lengths { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_counted_at_the_first_bound_that_is_not_below_it() {
        let mut lengths = Lengths::default();
        for us in [0, 250, 251, 1_000, 700_000_000_000] {
            lengths.add(Duration::from_micros(us));
        }
        let all = Histogram::default();
        all.add(&lengths);
        all.add(&lengths);
        let found: Vec<(f64, u64)> = all.lengths().buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(found, [(0.00025, 4), (0.0005, 2), (0.001, 2), (f64::INFINITY, 2)]);
        assert_eq!(all.lengths().count(), 10);
        assert!((all.lengths().sum_seconds() - 1_400_000.003_002).abs() < 1e-3);
    }

    #[test]
    fn only_names_that_there_are_are_counted() {
        let named = Named::new(["a", "b"]);
        named.add("b");
        named.add("c");
        assert_eq!(named.counts().collect::<Vec<_>>(), [("a", 0), ("b", 1)]);
    }
}
