//! The recipient's memory of what its application answered, so that it is asked about each message once.
//!
//! One row per sender and lane, as ranges. The shell makes a row durable before the answer leaves as ACK:R,
//! and drops rows of lanes that were silent for the longest lifetime: no copy of theirs can come any more.

use std::collections::BTreeMap;

use crate::id::{LaneId, PeerId};
use crate::protocol::Refusal;
use crate::ranges::Ranges;
use crate::time::UnixMillis;

/// Words of refusals that a lane remembers. Of older ones only the fact remains.
const MAX_TEXTS: usize = 256;

/// What was answered on one lane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxRow {
    /// The numbers that were taken.
    pub taken: Ranges,
    /// The numbers that were refused.
    pub refused: Ranges,
    /// The words that came with the latest refusals.
    pub texts: BTreeMap<u64, String>,
    /// When the lane was last heard from.
    pub touched: UnixMillis,
}

/// What the inbox knows about a message that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: ask the application.
    New,
    /// Taken before: acknowledge it again (LAW 4).
    Taken,
    /// Refused before: say so again.
    Refused {
        /// The application's words.
        text: Option<String>,
    },
}

/// All rows of one recipient.
#[derive(Debug, Default)]
pub struct Inbox {
    rows: BTreeMap<(PeerId, LaneId), InboxRow>,
}

impl Inbox {
    /// An inbox with these rows, as a shell kept them.
    #[must_use]
    pub fn restore(rows: impl IntoIterator<Item = ((PeerId, LaneId), InboxRow)>) -> Self {
        Self { rows: rows.into_iter().collect() }
    }

    /// What was answered about this message, if anything.
    #[must_use]
    pub fn judge(&self, sender: PeerId, lane: LaneId, n: u64) -> Judgement {
        match self.rows.get(&(sender, lane)) {
            Some(row) if row.taken.contains(n) => Judgement::Taken,
            Some(row) if row.refused.contains(n) => Judgement::Refused { text: row.texts.get(&n).cloned() },
            _ => Judgement::New,
        }
    }

    /// The application took it. The row that comes back has to be durable before ACK:R goes out.
    pub fn take(&mut self, sender: PeerId, lane: LaneId, n: u64, date: UnixMillis) -> &InboxRow {
        let row = self.row(sender, lane, date);
        row.taken.insert(n);
        row
    }

    /// The application refused it. The row that comes back has to be durable before ACK:R goes out.
    pub fn refuse(
        &mut self,
        sender: PeerId,
        lane: LaneId,
        n: u64,
        text: Option<String>,
        date: UnixMillis,
    ) -> &InboxRow {
        let row = self.row(sender, lane, date);
        row.refused.insert(n);
        if let Some(text) = text {
            row.texts.insert(n, text);
        }
        while row.texts.len() > MAX_TEXTS {
            row.texts.pop_first();
        }
        row
    }

    /// Forgets the lanes that were silent since before `oldest`, and names them for the shell.
    pub fn forget(&mut self, oldest: UnixMillis) -> Vec<(PeerId, LaneId)> {
        self.rows.extract_if(.., |_, row| row.touched < oldest).map(|(key, _)| key).collect()
    }

    fn row(&mut self, sender: PeerId, lane: LaneId, date: UnixMillis) -> &mut InboxRow {
        let row = self.rows.entry((sender, lane)).or_default();
        row.touched = row.touched.max(date);
        row
    }
}

impl Judgement {
    /// The refusal to send again for this `seq`.
    #[must_use]
    pub fn refusal(&self, seq: u64) -> Option<Refusal> {
        match self {
            Self::Refused { text } => Some(Refusal { seq, text: text.clone() }),
            Self::New | Self::Taken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(7);

    fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn each_message_is_asked_about_once_and_answered_the_same_again() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(peer(1), LANE, 1), Judgement::New);
        inbox.take(peer(1), LANE, 1, UnixMillis(5));
        inbox.refuse(peer(1), LANE, 2, Some("no".into()), UnixMillis(5));
        assert_eq!(inbox.judge(peer(1), LANE, 1), Judgement::Taken);
        assert_eq!(inbox.judge(peer(1), LANE, 2), Judgement::Refused { text: Some("no".into()) });
        assert_eq!(inbox.judge(peer(1), LANE, 3), Judgement::New);
        assert_eq!(inbox.judge(peer(2), LANE, 1), Judgement::New, "another sender's lane may have the same id");
    }

    #[test]
    fn words_of_refusals_are_bounded_but_the_refusals_stay() {
        let mut inbox = Inbox::default();
        for n in 1..=1000 {
            inbox.refuse(peer(1), LANE, n, Some(n.to_string()), UnixMillis(5));
        }
        assert_eq!(inbox.judge(peer(1), LANE, 1), Judgement::Refused { text: None });
        assert_eq!(inbox.judge(peer(1), LANE, 1000), Judgement::Refused { text: Some("1000".into()) });
    }

    #[test]
    fn only_silent_lanes_are_forgotten() {
        let mut inbox = Inbox::default();
        inbox.take(peer(1), LaneId(1), 1, UnixMillis(10));
        inbox.take(peer(1), LaneId(2), 1, UnixMillis(10));
        inbox.take(peer(1), LaneId(2), 2, UnixMillis(20));
        assert_eq!(inbox.forget(UnixMillis(20)), [(peer(1), LaneId(1))]);
        assert_eq!(inbox.judge(peer(1), LaneId(2), 1), Judgement::Taken);
    }
}
