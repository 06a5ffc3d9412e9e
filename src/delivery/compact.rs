//! Small values as few bytes: what rows are written with. Reading is total: any bytes give a value or an error.

use crate::id::RelayId;
use crate::protocol::{Outcome, RejectReason, Verdict};
use crate::ranges::Ranges;

/// Bytes that are no row: the file was damaged, or written by another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a damaged row: {0}")]
pub struct Damaged(pub &'static str);

/// Appends a number in 7-bit groups, the lowest first; the top bit says that more follow (LEB128).
pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends a byte string with its length.
pub(crate) fn put_bytes(bytes: &mut Vec<u8>, content: &[u8]) {
    put_number(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// Appends a set as gaps and lengths: two bytes for most ranges.
pub(crate) fn put_ranges(bytes: &mut Vec<u8>, ranges: &Ranges) {
    put_number(bytes, ranges.len() as u64);
    let mut end = 0;
    for (from, to) in ranges.iter() {
        put_number(bytes, from - end);
        put_number(bytes, to - from);
        end = to;
    }
}

const MAYBE_TAKEN: u8 = 1 << 2;
const HAS_TEXT: u8 = 1 << 3;
const HAS_RELAY: u8 = 1 << 4;

/// The number that stands for a reason in a row. Never reuse one.
const fn reason_number(reason: RejectReason) -> u8 {
    match reason {
        RejectReason::Refused => 1,
        RejectReason::TooLarge => 2,
        RejectReason::UnknownPeer => 3,
        RejectReason::Blocked => 4,
        RejectReason::NoRoute => 5,
        RejectReason::WrongSender => 6,
        RejectReason::BadSignature => 7,
        RejectReason::Removed => 8,
    }
}

/// Appends an outcome: one byte of kind and flags, then what the flags name.
pub(crate) fn put_verdict(bytes: &mut Vec<u8>, verdict: &Verdict) {
    let (kind, reason, text, maybe_taken) = match &verdict.outcome {
        Outcome::Delivered => (1, None, None, false),
        Outcome::Expired { maybe_taken } => (2, None, None, *maybe_taken),
        Outcome::Rejected { reason, text, maybe_taken } => (3, Some(*reason), text.as_ref(), *maybe_taken),
    };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(maybe_taken, MAYBE_TAKEN) | flag(text.is_some(), HAS_TEXT);
    bytes.push(kind | flags | flag(verdict.relay.is_some(), HAS_RELAY));
    bytes.extend(reason.map(reason_number));
    if let Some(text) = text {
        put_bytes(bytes, text.as_bytes());
    }
    if let Some(relay) = &verdict.relay {
        bytes.extend_from_slice(relay.as_bytes());
    }
}

/// Reads what the functions above wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        let (byte, rest) = self.0.split_first().ok_or(Damaged("it ends early"))?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Damaged("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                break;
            }
            number |= group << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged("a number is too large"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.number()?).map_err(|_| Damaged("it ends early"))?;
        self.take(length)
    }

    pub(crate) fn ranges(&mut self) -> Result<Ranges, Damaged> {
        let (count, mut ranges, mut end) = (self.number()?, Ranges::new(), 0_u64);
        for at in 0..count {
            let overflow = Damaged("a range is too large");
            let gap = self.number()?;
            let from = end.checked_add(gap).ok_or(overflow)?;
            let to = from.checked_add(self.number()?).ok_or(overflow)?;
            if at > 0 && gap < 2 {
                return Err(Damaged("ranges that touch"));
            }
            ranges.insert_range(from, to);
            end = to;
        }
        Ok(ranges)
    }

    pub(crate) fn verdict(&mut self) -> Result<Verdict, Damaged> {
        let tag = self.byte()?;
        let maybe_taken = tag & MAYBE_TAKEN != 0;
        let outcome = match tag & 3 {
            1 => Outcome::Delivered,
            2 => Outcome::Expired { maybe_taken },
            3 => {
                let number = self.byte()?;
                let reason = RejectReason::ALL.iter().find(|reason| reason_number(**reason) == number);
                let reason = *reason.ok_or(Damaged("an unknown reason"))?;
                let text = if tag & HAS_TEXT == 0 { None } else { Some(self.bytes()?) };
                let text = text.map(|text| String::from_utf8(text.to_vec())).transpose();
                Outcome::Rejected { reason, text: text.map_err(|_| Damaged("a text is not UTF-8"))?, maybe_taken }
            }
            _ => return Err(Damaged("an unknown outcome")),
        };
        let relay = if tag & HAS_RELAY == 0 { None } else { Some(RelayId::from_bytes(self.array()?)) };
        Ok(Verdict { outcome, relay })
    }

    pub(crate) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("something follows it")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_sets_are_read_back(numbers in prop::collection::vec(any::<u64>(), 0..20), set in prop::collection::vec((0u64..1 << 40, 0u64..1000), 0..50)) {
            let set: Ranges = set.into_iter().map(|(from, length)| (from, from + length)).collect();
            let mut bytes = Vec::new();
            for number in &numbers {
                put_number(&mut bytes, *number);
            }
            put_ranges(&mut bytes, &set);
            let mut reader = Reader::new(&bytes);
            for number in numbers {
                prop_assert_eq!(reader.number(), Ok(number));
            }
            prop_assert_eq!(reader.ranges(), Ok(set));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _value = (Reader::new(&bytes).ranges(), Reader::new(&bytes).verdict(), Reader::new(&bytes).number());
        }
    }

    #[test]
    fn every_outcome_is_read_back() {
        let mut outcomes = vec![Outcome::Delivered];
        for maybe_taken in [false, true] {
            outcomes.push(Outcome::Expired { maybe_taken });
            for reason in RejectReason::ALL {
                for text in [None, Some(String::new()), Some("nein, danke".to_owned())] {
                    outcomes.push(Outcome::Rejected { reason: *reason, text, maybe_taken });
                }
            }
        }
        for outcome in outcomes {
            for relay in [None, Some(RelayId::from_bytes([9; 32]))] {
                let verdict = Verdict { outcome: outcome.clone(), relay };
                let mut bytes = Vec::new();
                put_verdict(&mut bytes, &verdict);
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.verdict(), Ok(verdict));
                assert_eq!(reader.end(), Ok(()));
            }
        }
    }
}
