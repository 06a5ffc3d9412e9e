//! The recipient's memory of what its application answered, so that it is asked about each message once.
//!
//! One row per sender and lane, as ranges. The shell makes a row durable before the answer leaves as ACK:R,
//! and drops rows of lanes that were silent for the longest lifetime: no copy of theirs can come any more.

use std::collections::BTreeMap;

use crate::id::{LaneId, PeerId};
use crate::mutant::Mutant;
use crate::protocol::Refusal;
use crate::ranges::Ranges;
use crate::time::UnixMillis;

/// Words of refusals that a lane remembers. Of older ones only the fact remains.
const MAX_TEXTS: usize = 256;

/// Runs of numbers that a lane remembers. They are as many as the gaps between them, so a sender that leaves every
/// second number out could make any number of them: of the lowest only the fact remains that they are over.
const MAX_RUNS: usize = 4096;

/// Lanes of one sender that are remembered. Beyond, those that are silent for longest are forgotten.
const MAX_LANES: usize = 10_000;

/// What is said about a number that is over and of which nothing else is known any more.
const FORGOTTEN: &str = "forgotten";

/// What was answered on one lane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxRow {
    /// The numbers that were taken.
    pub taken: Ranges,
    /// The numbers that were refused.
    pub refused: Ranges,
    /// The words that came with the latest refusals.
    pub texts: BTreeMap<u64, String>,
    /// At or below it, what is neither taken nor refused is refused if it comes: it was never answered, or so
    /// long ago that it came again only from a relay that was put back from a backup. To call it taken could
    /// be a lie about a message that no application has seen.
    pub closed: u64,
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
#[derive(Debug, Clone, Default)]
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
        if Mutant::NoDedup.is_planted() {
            return Judgement::New;
        }
        match self.rows.get(&(sender, lane)) {
            Some(row) if row.taken.contains(n) => Judgement::Taken,
            Some(row) if row.refused.contains(n) => Judgement::Refused { text: row.texts.get(&n).cloned() },
            Some(row) if n <= row.closed => Judgement::Refused { text: Some(FORGOTTEN.to_owned()) },
            _ => Judgement::New,
        }
    }

    /// The row of a lane, to be made durable.
    #[must_use]
    pub fn row(&self, sender: PeerId, lane: LaneId) -> Option<&InboxRow> {
        self.rows.get(&(sender, lane))
    }

    /// The application took it. The lane's row has to be durable before ACK:R goes out.
    pub fn take(&mut self, sender: PeerId, lane: LaneId, n: u64, date: UnixMillis) {
        let row = self.touch(sender, lane, date);
        row.taken.insert(n);
        row.bound();
    }

    /// The application refused it. The lane's row has to be durable before ACK:R goes out.
    pub fn refuse(&mut self, sender: PeerId, lane: LaneId, n: u64, text: Option<String>, date: UnixMillis) {
        let row = self.touch(sender, lane, date);
        row.refused.insert(n);
        if let Some(text) = text {
            row.texts.insert(n, text);
        }
        while row.texts.len() > MAX_TEXTS {
            row.texts.pop_first();
        }
        row.bound();
    }

    /// Forgets the lanes that were silent since before `oldest`, and of a sender's too many lanes those that
    /// were silent for longest. Names them for the shell.
    pub fn forget(&mut self, oldest: UnixMillis) -> Vec<(PeerId, LaneId)> {
        let mut gone: Vec<_> = self.rows.extract_if(.., |_, row| row.touched < oldest).map(|(key, _)| key).collect();
        let keys: Vec<_> = self.rows.iter().map(|((sender, lane), row)| (*sender, row.touched, *lane)).collect();
        for lanes in keys.chunk_by(|one, next| one.0 == next.0).filter(|lanes| lanes.len() > MAX_LANES) {
            let mut lanes = lanes.to_vec();
            lanes.sort_unstable();
            let surplus = lanes.len() - MAX_LANES;
            for (sender, _, lane) in lanes.into_iter().take(surplus) {
                self.rows.remove(&(sender, lane));
                gone.push((sender, lane));
            }
        }
        gone
    }

    fn touch(&mut self, sender: PeerId, lane: LaneId, date: UnixMillis) -> &mut InboxRow {
        let row = self.rows.entry((sender, lane)).or_default();
        row.touched = row.touched.max(date);
        row
    }
}

impl InboxRow {
    /// Forgets the lowest runs that are too many.
    fn bound(&mut self) {
        while self.taken.len() + self.refused.len() > MAX_RUNS {
            let lowest = self.taken.iter().next().into_iter().chain(self.refused.iter().next()).min();
            let Some((_, end)) = lowest else { break };
            self.closed = self.closed.max(end);
            self.taken.forget_below(end + 1);
            self.refused.forget_below(end + 1);
            self.texts = self.texts.split_off(&(end + 1));
        }
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
    fn a_sender_that_leaves_numbers_out_costs_a_bounded_row() {
        let mut inbox = Inbox::default();
        let most = MAX_RUNS as u64;
        inbox.refuse(peer(1), LANE, 1, Some("no".into()), UnixMillis(5));
        for n in 1..=3 * most {
            inbox.take(peer(1), LANE, 2 * n + 1, UnixMillis(5));
        }
        let row = inbox.row(peer(1), LANE).unwrap();
        assert_eq!((row.taken.len(), row.refused.len(), row.texts.len()), (MAX_RUNS, 0, 0));
        let forgotten = Judgement::Refused { text: Some(FORGOTTEN.into()) };
        // What was left out was never taken, so it is not called taken; nor is the application asked again.
        assert_eq!(inbox.judge(peer(1), LANE, 4), forgotten);
        assert_eq!(inbox.judge(peer(1), LANE, 5), forgotten);
        assert_eq!(inbox.judge(peer(1), LANE, 6 * most + 1), Judgement::Taken);
        assert_eq!(inbox.judge(peer(1), LANE, 6 * most), Judgement::New, "a gap among what is remembered");
        assert_eq!(inbox.judge(peer(1), LANE, 6 * most + 2), Judgement::New);
        // One that was in hand meanwhile is taken all the same.
        inbox.take(peer(1), LANE, 6 * most, UnixMillis(5));
        assert_eq!(inbox.judge(peer(1), LANE, 6 * most), Judgement::Taken);
    }

    #[test]
    fn answers_that_alternate_are_bounded_as_well() {
        let mut inbox = Inbox::default();
        for n in (1..=4 * MAX_RUNS as u64).step_by(2) {
            inbox.take(peer(1), LANE, n, UnixMillis(5));
            inbox.refuse(peer(1), LANE, n + 1, None, UnixMillis(5));
        }
        let row = inbox.row(peer(1), LANE).unwrap();
        assert_eq!((row.taken.len() + row.refused.len(), row.closed), (MAX_RUNS, 3 * MAX_RUNS as u64));
    }

    #[test]
    fn of_too_many_lanes_of_a_sender_the_longest_silent_are_forgotten() {
        let mut inbox = Inbox::default();
        for lane in 0..MAX_LANES as u64 + 2 {
            inbox.take(peer(1), LaneId(lane), 1, UnixMillis(if lane == 7 { 1 } else { 2 + lane }));
        }
        inbox.take(peer(2), LANE, 1, UnixMillis(1));
        assert_eq!(inbox.forget(UnixMillis(0)), [(peer(1), LaneId(7)), (peer(1), LaneId(0))]);
        assert_eq!(inbox.judge(peer(2), LANE, 1), Judgement::Taken);
        assert_eq!(inbox.forget(UnixMillis(0)), []);
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
