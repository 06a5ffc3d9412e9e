//! Indexes of messages by their `seq`, a block at a time: what comes and goes together costs one row, not one each.
//!
//! Messages of one sender, and of one deadline, mostly lie close together in their mailbox. A drain that takes them
//! in order changes a few rows of ranges for each page then, and a lone message costs what a row of its own would.

use super::super::fault::Fault;
use super::rows::{Plain, Rows};
use super::schema::Row;
use crate::delivery::Damaged;
use crate::delivery::compact::{Reader, put_ranges};
use crate::ranges::Ranges;

/// `seq`s of one block. More make fewer rows, but longer ones where every other `seq` is somebody else's: now at
/// most 2 KiB.
const BLOCK: u64 = 1024;

/// Where a `seq` stands: the number of its block, the last part of the row's key.
pub(super) const fn block_of(seq: u64) -> u64 {
    seq / BLOCK
}

/// Some `seq`s of one block, counted from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Block(Ranges);

impl Row for Block {
    fn encode(&self, bytes: &mut Vec<u8>) {
        put_ranges(bytes, &self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let ranges = reader.ranges()?;
        reader.end()?;
        if ranges.last().is_none_or(|last| last >= BLOCK) {
            return Err(Damaged("a block is empty, or goes beyond its end"));
        }
        Ok(Self(ranges))
    }
}

impl Block {
    /// How many it holds.
    pub(super) fn count(&self) -> u64 {
        self.0.count()
    }

    /// The `seq`s of the block of this number, ascending.
    pub(super) fn seqs(&self, block: u64) -> impl Iterator<Item = u64> + '_ {
        self.0.numbers().map(move |at| block * BLOCK + at)
    }

    /// The lowest of them, at most so many.
    pub(super) fn first(&self, block: u64, most: u64) -> Ranges {
        let mut left = most;
        let first = self.0.iter().map_while(|(from, to)| {
            let to = to.min(from.checked_add(left.checked_sub(1)?)?);
            left -= to - from + 1;
            Some((block * BLOCK + from, block * BLOCK + to))
        });
        first.collect()
    }

    /// Whether it holds a `seq` of its block.
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.0.contains(seq % BLOCK)
    }
}

/// Notes a message in the row of its block.
pub(super) fn add<K: Plain>(rows: &mut Rows<'_, K, Block>, key: K, seq: u64) -> Result<(), Fault> {
    rows.change_or(key, Block::default)?.0.insert(seq % BLOCK);
    Ok(())
}

/// Takes a message out of the row of its block; a row that holds none goes.
pub(super) fn take<K: Plain>(rows: &mut Rows<'_, K, Block>, key: K, seq: u64) -> Result<(), Fault> {
    if let Some(block) = rows.change(key)? {
        block.0.remove(seq % BLOCK);
        if block.0.is_empty() {
            rows.remove(key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_back_and_what_cannot_be_one_is_refused() {
        let block = Block([(0, 0), (2, 700), (1023, 1023)].into_iter().collect());
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        assert_eq!(Block::decode(&bytes), Ok(block.clone()));
        assert_eq!((block.count(), block.seqs(3).next(), block.seqs(3).last()), (701, Some(3072), Some(4095)));
        assert!(block.contains(5 * 1024 + 2) && !block.contains(5 * 1024 + 1));
        for wrong in [Ranges::new(), Ranges::one(1024)] {
            bytes.clear();
            Block(wrong).encode(&mut bytes);
            assert!(Block::decode(&bytes).is_err());
        }
        assert!(Block::decode(&[]).is_err());
    }

    #[test]
    fn the_longest_row_of_a_block_is_short() {
        let mut bytes = Vec::new();
        Block((0..BLOCK).step_by(2).collect()).encode(&mut bytes);
        assert!(bytes.len() <= 2048, "{} bytes", bytes.len());
    }
}
