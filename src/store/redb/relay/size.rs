//! The senders of a mailbox by how much of theirs waits, so that a status need not compare them all.
//!
//! The order is by a coarse rank: exact for few messages, to a sixteenth for many. So a row of the index changes only
//! when a sender's count has grown or shrunk by that much, not with every commit.

use super::logged::Logged;
use super::schema::{Count, Number};

/// Mailbox, [`place`], sender.
pub(super) type SizeAt = (Number, u16, Number);

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

/// Moves a sender to where its count belongs.
pub(super) fn note(
    table: &mut Logged<'_, SizeAt, ()>,
    (mailbox, sender): (Number, Number),
    before: Option<Count>,
    after: Option<Count>,
) {
    let at = |count: Option<Count>| count.map(|count| (mailbox, place(count.messages), sender));
    let (before, after) = (at(before), at(after));
    if before != after {
        if let Some(key) = before {
            table.remove(key);
        }
        if let Some(key) = after {
            table.insert(key, ());
        }
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
