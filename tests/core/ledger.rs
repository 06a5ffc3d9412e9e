//! What really became of every message, and whether what its sender was told is true: the oracle.
//!
//! The promises, as an onlooker who sees all sides can check them:
//! - each message gets one outcome, and its sender learns it;
//! - *delivered* means that the recipient's application took it, and it took it once;
//! - nothing expires before its time;
//! - *expired* or *rejected* without `maybe_taken` means that it never did and never will;
//! - the messages of one pair are taken in the order in which they were sent.
//!
//! What is allowed besides, as DESIGN states it to users:
//! - a refused message whose refusal was lost with a relay's disk may be out of order;
//! - a refusal that left no row may be told as an expiry that leaves it open, if its answer was lost and a later
//!   message of the lane was accepted;
//! - a message that another relay refused may be taken after all, if its sender's relay told so and was then put
//!   back from an older copy: it holds the message again;
//! - of a sender that was put back from an older copy: a message that it forgot may come late; one that it had
//!   known to be refused may come after all; and of one that was taken it may hear a refusal that counts as
//!   certain, if it had known that it was taken and had closed the lane.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posthouse::id::LaneKey;
use posthouse::protocol::{Outcome, Verdict};
use posthouse::time::UnixMillis;

/// A lifetime travels in whole milliseconds, so each hop may take one away.
const ROUNDING: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sender: usize,
    pub(crate) recipient: usize,
    deadline: UnixMillis,
    /// It goes on to another relay.
    pub(crate) forwarded: bool,
    pub(crate) told: Option<Verdict>,
    /// Whether the application took it; `None` until it answers.
    pub(crate) answer: Option<bool>,
    /// Its sender was put back to a time before it was sent, or crashed before it was kept.
    pub(crate) forgotten: bool,
    /// It never reached its sender's disk.
    pub(crate) unsent: bool,
    /// A relay refused it on its arrival.
    pub(crate) refused: bool,
    pub(crate) lane: Option<LaneKey>,
    /// Its sender knew its outcome, and was put back to a time before that.
    unlearned: bool,
    /// Its sender was put back while it existed: later numbers of its lane may be at the relay.
    was_put_back: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) messages: Vec<Message>,
    /// The first promise that was broken.
    pub(crate) broken: Option<String>,
    /// A relay's disk was lost or put back.
    pub(crate) disk_lost: bool,
    /// Recipients that read in order.
    pub(crate) in_order: Vec<bool>,
    /// Lanes whose rows went because their senders needed them no longer.
    pub(crate) closed: BTreeSet<LaneKey>,
    last_taken: BTreeMap<(usize, usize), usize>,
}

impl Ledger {
    pub(crate) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(crate) fn submit(&mut self, sender: usize, recipient: usize, deadline: UnixMillis) -> usize {
        let message = Message {
            sender,
            recipient,
            deadline,
            forwarded: false,
            told: None,
            answer: None,
            forgotten: false,
            unsent: false,
            refused: false,
            lane: None,
            unlearned: false,
            was_put_back: false,
        };
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// Its sender knew the outcome, was put back to a time before, and had closed the lane: nobody can tell it
    /// any more.
    fn row_is_gone(&self, uid: usize) -> bool {
        let message = &self.messages[uid];
        message.unlearned && message.lane.is_some_and(|lane| self.closed.contains(&lane))
    }

    /// The sender's application learns an outcome.
    pub(crate) fn tell(&mut self, uid: usize, verdict: &Verdict, date: UnixMillis) {
        let message = &self.messages[uid];
        let excused = message.was_put_back || message.refused;
        if matches!(verdict.outcome, Outcome::Expired { .. }) && date + ROUNDING < message.deadline && !excused {
            self.breaks(format!("m{uid} is told as expired, but has time left"));
        }
        let row_is_gone = self.row_is_gone(uid);
        let message = &mut self.messages[uid];
        let answer = message.answer;
        let before = message.told.replace(verdict.clone());
        match (&verdict.outcome, answer) {
            (Outcome::Delivered, Some(true)) => {}
            (Outcome::Delivered, _) => self.breaks(format!("m{uid} is told as delivered, but was not taken")),
            (Outcome::Expired { maybe_taken: false } | Outcome::Rejected { maybe_taken: false, .. }, Some(true))
                if !row_is_gone =>
            {
                self.breaks(format!("m{uid} is told as not taken for certain, but was taken"));
            }
            _ => {}
        }
        if before.is_some_and(|before| before != *verdict) {
            self.breaks(format!("m{uid} is told two outcomes"));
        }
    }

    /// The recipient's application has answered, and that is on its disk.
    pub(crate) fn answer(&mut self, uid: usize, taken: bool) {
        let (order_is_due, pair) = {
            let message = &self.messages[uid];
            let excused = message.forgotten || (message.refused && (self.disk_lost || message.unlearned));
            (self.in_order[message.recipient] && !excused, (message.sender, message.recipient))
        };
        if self.messages[uid].answer.replace(taken).is_some() {
            self.breaks(format!("the application was asked about m{uid} again after it had answered"));
        }
        if self.messages[uid].unsent {
            self.breaks(format!("m{uid} arrived, but never was on its sender's disk"));
        }
        if !taken {
            return;
        }
        let message = &self.messages[uid];
        let told = message.told.as_ref().map(|verdict| &verdict.outcome);
        let excused = message.refused && message.forwarded && self.disk_lost;
        if let Some(Outcome::Expired { maybe_taken: false } | Outcome::Rejected { maybe_taken: false, .. }) = told
            && !excused
        {
            self.breaks(format!("m{uid} is taken, but was told as not taken for certain"));
        }
        let last = self.last_taken.entry(pair).or_insert(uid);
        let after = *last;
        *last = after.max(uid);
        if uid < after && order_is_due {
            self.breaks(format!("m{uid} is taken after m{after}, which was sent later"));
        }
    }

    /// The sender was put back: `holds` are without an outcome again, `knows` had theirs already.
    pub(crate) fn put_back(&mut self, sender: usize, holds: &[usize], knows: &[usize]) {
        for (uid, message) in self.messages.iter_mut().enumerate().filter(|(_, message)| message.sender == sender) {
            message.was_put_back = true;
            if holds.contains(&uid) {
                message.unlearned |= message.told.is_some();
                (message.told, message.forgotten) = (None, false);
            } else if !knows.contains(&uid) {
                message.forgotten = true;
            }
        }
    }

    /// Messages whose senders still wait for an outcome.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> + '_ {
        let messages = self.messages.iter().enumerate();
        messages.filter(|(_, message)| message.told.is_none() && !message.forgotten).map(|(uid, _)| uid)
    }
}
