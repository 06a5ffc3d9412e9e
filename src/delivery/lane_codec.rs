//! A lane's row as bytes: a layout byte, then numbers in as few bytes as they need.
//!
//! | field | form |
//! | --- | --- |
//! | layout | 1 byte, 1 |
//! | last, forgotten, touched, pending bytes | numbers |
//! | pending | ranges: how many, then gap and length less one of each |
//! | exceptions | how many, then gap, length less one and verdict of each |

use super::compact::{Damaged, Reader, put_number, put_ranges, put_verdict};
use super::lane::{LaneRow, MAX_EXCEPTION_RUNS};
use crate::protocol::{Exception, Verdict};

const LAYOUT: u8 = 1;

impl LaneRow {
    /// Appends the row to `bytes`.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(LAYOUT);
        for number in [self.last, self.forgotten, self.touched, self.pending_bytes] {
            put_number(bytes, number);
        }
        put_ranges(bytes, &self.pending);
        put_number(bytes, self.exceptions.len() as u64);
        let mut end = 0;
        for run in &self.exceptions {
            put_number(bytes, run.from - end);
            put_number(bytes, run.to - run.from);
            put_verdict(bytes, &run.verdict);
            end = run.to;
        }
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`] for anything that [`encode`](Self::encode) cannot have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != LAYOUT {
            return Err(Damaged("a lane's row of an unknown layout"));
        }
        let (last, forgotten) = (reader.number()?, reader.number()?);
        let (touched, pending_bytes) = (reader.number()?, reader.number()?);
        let pending = reader.ranges()?;
        if pending.first() == Some(0) || pending.last().is_some_and(|highest| highest > last) || forgotten > last {
            return Err(Damaged("a lane's row that speaks of numbers it has not seen"));
        }
        let count = reader.number()?;
        if count > MAX_EXCEPTION_RUNS as u64 {
            return Err(Damaged("a lane's row with too many exceptions"));
        }
        let (mut exceptions, mut end) = (Vec::<Exception>::new(), 0_u64);
        for _ in 0..count {
            let overflow = Damaged("a lane's row with a number too large");
            let from = end.checked_add(reader.number()?).ok_or(overflow)?;
            let to = from.checked_add(reader.number()?).ok_or(overflow)?;
            let verdict: Verdict = reader.verdict()?;
            let overlaps = from <= end || to > last || pending.range_from(from).is_some_and(|next| next.0 <= to);
            if overlaps {
                return Err(Damaged("a lane's row that contradicts itself"));
            }
            exceptions.push(Exception { from, to, verdict });
            end = to;
        }
        reader.end()?;
        Ok(Self { last, pending, pending_bytes, exceptions, forgotten, touched })
    }
}
