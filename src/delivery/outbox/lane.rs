//! One lane as the outbox sees it: what it holds, and how far the relay has it.

use std::collections::VecDeque;

use crate::id::{LaneKey, MessageId};
use crate::time::Moment;

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: u64,
    pub(super) id: MessageId,
    pub(super) n: u64,
    pub(super) bytes: usize,
    /// When to look at it for its time; moved on by the grace once the time is over.
    pub(super) due: Moment,
    pub(super) deadline: Moment,
    pub(super) accepted: bool,
    pub(super) offered: bool,
    pub(super) foreign: bool,
    /// It entered after its lane's R:WHERE was asked: that answer says nothing about it.
    pub(super) late: bool,
    /// It was sent in this session: a further answer does not tell the round trip (Karn).
    pub(super) sent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    ToAsk,
    Asked,
    Answered,
}

/// How much of a lane may be on its way. After a gap or a temporary refusal the next message goes alone: where
/// it is refused as well, all behind it would have gone for nothing, each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Free,
    OneNext,
    OneSent,
}

#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) items: VecDeque<Item>,
    /// The number that a new message of this opening gets; `None` for a lane of an earlier one.
    pub(super) next: Option<u64>,
    /// The last number that the relay is known to hold, and the last one sent.
    pub(super) base: u64,
    pub(super) cursor: u64,
    pub(super) known: Known,
    pub(super) held: Option<Moment>,
    pub(super) pace: Pace,
    pub(super) unaccepted: usize,
    pub(super) late: usize,
    /// Resolutions not yet durable, and those among them that gave a number up.
    pub(super) unpersisted: usize,
    pub(super) given_up: usize,
    /// Counts the times that the cursor was set back: answers to what was sent before do so once only.
    pub(super) round: u32,
    pub(super) ready: bool,
}

impl Lane {
    pub(super) fn position(&self, n: u64) -> Option<usize> {
        let at = self.items.partition_point(|item| item.n < n);
        self.items.get(at).filter(|item| item.n == n).map(|_| at)
    }

    /// The next message to send, by its place in `items`: the first behind the cursor that is not accepted.
    pub(super) fn next_to_send(&mut self) -> Option<usize> {
        let mut at = self.items.partition_point(|item| item.n <= self.cursor);
        while let Some(item) = self.items.get(at).filter(|item| item.accepted) {
            self.cursor = item.n;
            at += 1;
        }
        let late = match self.late {
            0 => None,
            _ => self.items.iter().position(|item| item.late && !item.accepted),
        };
        let in_order = (at < self.items.len()).then_some(at);
        late.into_iter().chain(in_order).min()
    }

    pub(super) fn set_back(&mut self, to: u64) {
        self.cursor = to;
        self.round = self.round.wrapping_add(1);
    }

    /// The message that went alone has been answered, or will not be.
    pub(super) fn free_pace(&mut self) {
        if self.pace == Pace::OneSent {
            self.pace = Pace::OneNext;
        }
    }

    /// Nothing of it is left to do but to tell the relay so.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_none() && self.items.is_empty() && self.unpersisted == 0
    }
}
