//! The senders of a mailbox by how much of theirs waits, so that a status need not compare them all.
//!
//! The order is by a coarse rank: exact for few messages, to a sixteenth for many. So a row of the index changes only
//! when a sender's count has grown or shrunk by that much, not with every commit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use redb::Table;

use super::super::fault::Fault;
use super::logged::Logged;
use super::rows::Rows;
use super::schema::{Count, Number};

/// Mailbox, [`place`], sender.
pub(super) type SizeAt = (Number, u16, Number);

type CountTable<'t> = Table<'t, (Number, Number), &'static [u8]>;

/// Up to here each count has a rank of its own, and above it each doubling has half as many.
const EXACT: u64 = 32;

/// Ranks sort ascending and the largest sender comes first: its place is the smallest.
pub(super) const fn place(messages: u64) -> u16 {
    let rank = if messages < EXACT {
        messages
    } else {
        let doublings = messages.ilog2() - EXACT.ilog2();
        // The four bits behind the leading one.
        let fraction = (messages >> (doublings + 1)) - EXACT / 2;
        EXACT + doublings as u64 * (EXACT / 2) + fraction
    };
    // 64 bits make less than a thousand ranks.
    u16::MAX - rank as u16
}

/// What waits of each sender in a mailbox, and the senders by it.
pub(super) struct Counts<'t> {
    rows: Rows<'t, (Number, Number), Count>,
    by_size: Logged<'t, SizeAt, ()>,
    /// What `by_size` knows of those that have changed since.
    placed: BTreeMap<(Number, Number), Option<Count>>,
}

impl<'t> Counts<'t> {
    pub(super) const fn new(rows: Rows<'t, (Number, Number), Count>, by_size: Logged<'t, SizeAt, ()>) -> Self {
        Self { rows, by_size, placed: BTreeMap::new() }
    }

    /// What waits in a mailbox from a sender.
    pub(super) fn get(&mut self, at: (Number, Number)) -> Result<Option<Count>, Fault> {
        Ok(self.rows.get(at)?.copied())
    }

    /// A message more.
    pub(super) fn add(&mut self, at: (Number, Number), bytes: u64) -> Result<(), Fault> {
        self.note(at)?;
        let count = self.rows.change_or(at, Count::default)?;
        count.messages += 1;
        count.bytes += bytes;
        Ok(())
    }

    /// A message less; a row that counts none goes.
    pub(super) fn take(&mut self, at: (Number, Number), bytes: u64) -> Result<(), Fault> {
        self.note(at)?;
        let Some(count) = self.rows.change(at)? else { return Ok(()) };
        count.messages = count.messages.saturating_sub(1);
        count.bytes = count.bytes.saturating_sub(bytes);
        if count.messages == 0 {
            self.rows.remove(at);
        }
        Ok(())
    }

    fn note(&mut self, at: (Number, Number)) -> Result<(), Fault> {
        let Self { rows, placed, .. } = self;
        if let Entry::Vacant(vacant) = placed.entry(at) {
            vacant.insert(rows.get(at)?.copied());
        }
        Ok(())
    }

    /// Writes down what was changed.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        for ((mailbox, sender), before) in std::mem::take(&mut self.placed) {
            let after = self.get((mailbox, sender))?;
            let place = |count: Option<Count>| count.map(|count| (mailbox, place(count.messages), sender));
            let (before, after) = (place(before), place(after));
            if before != after {
                before.into_iter().for_each(|key| self.by_size.remove(key));
                after.into_iter().for_each(|key| self.by_size.insert(key, ()));
            }
        }
        self.rows.flush();
        Ok(())
    }

    /// Brings into the tables what was written down.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        self.rows.write()?;
        self.by_size.write()
    }

    /// The tables, the senders by size and the counts, with all that was changed.
    pub(super) fn written(&mut self) -> Result<(&Table<'t, SizeAt, ()>, &CountTable<'t>), Fault> {
        self.flush()?;
        Ok((self.by_size.written()?, self.rows.written()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_messages_never_come_later_and_a_sixteenth_more_comes_before() {
        let mut counts: Vec<u64> = (0..5000).collect();
        counts.extend((0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]));
        counts.push(u64::MAX);
        counts.sort_unstable();
        for pair in counts.windows(2) {
            assert!(place(pair[0]) >= place(pair[1]), "{pair:?}");
        }
        for count in 0..5000 {
            assert!(place(count + count / 16 + 1) < place(count), "{count}");
        }
        assert_ne!(place(31), place(30));
    }
}
