//! Sets of numbers kept as ranges: acknowledgements, lane rows and inboxes are all made of these.
//!
//! A set costs memory by its gaps, not by its numbers, so a million messages in a row cost as much as one.

use std::fmt;

/// So many ranges are inserted one by one.
const FEW: usize = 8;

/// A set of `u64`, as disjoint inclusive ranges in ascending order that never touch.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The set of one number.
    #[must_use]
    pub fn one(number: u64) -> Self {
        Self(vec![(number, number)])
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges it takes: the measure of its memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| (to - from).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Every number, ascending. Only for sets whose size the caller has bounded.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(from, to)| *from..=*to)
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|range| range.0)
    }

    /// The largest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|range| range.1)
    }

    /// Whether `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.range_of(number).is_some()
    }

    /// The range that holds `number`.
    #[must_use]
    pub fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        self.range_from(number).filter(|range| range.0 <= number)
    }

    /// The first range that ends at `number` or above it.
    #[must_use]
    pub fn range_from(&self, number: u64) -> Option<(u64, u64)> {
        self.0.get(self.0.partition_point(|range| range.1 < number)).copied()
    }

    /// Adds one number; false if it was in it already.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.insert_range(number, number);
        true
    }

    /// Adds all of `from..=to`; nothing if `from > to`.
    pub fn insert_range(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        // The common case: the next number in order.
        match self.0.last_mut() {
            Some(last) if last.0 <= from && from <= last.1.saturating_add(1) => {
                last.1 = last.1.max(to);
                return;
            }
            Some(last) if from > last.1 => return self.0.push((from, to)),
            None => return self.0.push((from, to)),
            Some(_) => {}
        }
        // Everything from `start` up to `end` touches the new range and melts into it.
        let start = self.0.partition_point(|range| range.1.saturating_add(1) < from);
        let end = self.0.partition_point(|range| range.0 <= to.saturating_add(1));
        let melted = self.0.get(start..end).unwrap_or_default();
        let from = melted.first().map_or(from, |range| range.0.min(from));
        let to = melted.last().map_or(to, |range| range.1.max(to));
        self.0.splice(start..end.max(start), [(from, to)]);
    }

    /// Adds all of `other`: in one walk over both, unless that would be the longer way.
    pub fn extend(&mut self, other: &Self) {
        let behind = self.last().is_none_or(|last| other.first().is_none_or(|first| first > last));
        if behind || other.len() <= FEW {
            for (from, to) in other.iter() {
                self.insert_range(from, to);
            }
        } else {
            *self = self.iter().chain(other.iter()).collect();
        }
    }

    /// Takes one number out; false if it was not in it.
    pub fn remove(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < number);
        let Some(range) = self.0.get(at).copied().filter(|range| range.0 <= number) else { return false };
        let left = (range.0 < number).then(|| (range.0, number - 1));
        let right = (number < range.1).then(|| (number + 1, range.1));
        self.0.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// The part of the set within `from..=to`.
    #[must_use]
    pub fn within(&self, from: u64, to: u64) -> Self {
        let start = self.0.partition_point(|range| range.1 < from);
        let parts = self.0.iter().skip(start).take_while(|range| range.0 <= to);
        Self(parts.map(|range| (range.0.max(from), range.1.min(to))).collect())
    }

    /// Takes the lowest ranges out, at most so many.
    #[must_use]
    pub fn take_first(&mut self, ranges: usize) -> Self {
        Self(self.0.drain(..ranges.min(self.0.len())).collect())
    }

    /// Forgets all numbers below `floor`.
    pub fn forget_below(&mut self, floor: u64) {
        let keep = self.0.partition_point(|range| range.1 < floor);
        self.0.drain(..keep);
        if let Some(first) = self.0.first_mut() {
            first.0 = first.0.max(floor);
        }
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(from, to)| from..=to)).finish()
    }
}

impl FromIterator<u64> for Ranges {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        numbers.into_iter().map(|number| (number, number)).collect()
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        // Sorted first: inserted in any order, each range could move all others.
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut set = Self::new();
        for (from, to) in ranges {
            set.insert_range(from, to);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_ranges_behaves_like_a_set_of_numbers(steps in prop::collection::vec((0u64..40, 0u64..6, any::<bool>()), 0..60)) {
            let (mut ranges, mut numbers) = (Ranges::new(), BTreeSet::new());
            for (from, length, add) in steps {
                if add {
                    ranges.insert_range(from, from + length);
                    numbers.extend(from..=from + length);
                } else {
                    prop_assert_eq!(ranges.remove(from), numbers.remove(&from));
                }
                prop_assert_eq!(ranges.numbers().collect::<BTreeSet<_>>(), numbers.clone());
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?} touches", ranges);
                prop_assert_eq!(ranges.within(7, 20).numbers().collect::<Vec<_>>(), numbers.range(7..=20).copied().collect::<Vec<_>>());
                let mut above = ranges.clone();
                above.forget_below(13);
                prop_assert_eq!(above.numbers().collect::<Vec<_>>(), numbers.range(13..).copied().collect::<Vec<_>>());
                let lowest = above.take_first(2);
                prop_assert_eq!(lowest.len() + above.len(), ranges.within(13, u64::MAX).len());
                prop_assert!(lowest.len() == 2 || above.is_empty());
                prop_assert!(lowest.numbers().chain(above.numbers()).eq(numbers.range(13..).copied()));
            }
        }
    }

    proptest! {
        #[test]
        fn sets_from_anything_in_any_order_melt_together(one in prop::collection::vec((0u64..400, 0u64..6), 0..60), other in prop::collection::vec((0u64..400, 0u64..6), 0..60)) {
            let set = |ranges: &[(u64, u64)]| ranges.iter().map(|(from, length)| (*from, from + length)).collect::<Ranges>();
            let numbers = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(from, length)| *from..=from + length).collect::<BTreeSet<_>>();
            let mut both = set(&one);
            prop_assert!(both.numbers().eq(numbers(&one)));
            both.extend(&set(&other));
            prop_assert!(both.numbers().eq(&numbers(&one) | &numbers(&other)));
            prop_assert!(both.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?} touches", both);
        }
    }

    #[test]
    fn many_ranges_in_the_worst_order_are_a_set_soon() {
        // Each inserted before the others, they would take hours.
        let worst: Ranges = (0..1_000_000).rev().map(|at| 2 * at).collect();
        let mut between: Ranges = (0..1_000_000).map(|at| 4 * at + 1).collect();
        between.extend(&worst);
        assert_eq!(between.count(), 2_000_000);
    }

    #[test]
    fn enormous_ranges_do_not_overflow() {
        let mut set = Ranges::new();
        set.insert_range(0, u64::MAX);
        set.insert_range(5, u64::MAX);
        assert_eq!((set.len(), set.count()), (1, u64::MAX));
        assert!(set.remove(u64::MAX));
        assert_eq!(set.last(), Some(u64::MAX - 1));
    }
}
