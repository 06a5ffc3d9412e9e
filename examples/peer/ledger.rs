//! What became of sent messages, as this run learns it: tells each step once, in order, and keeps count.

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt as _;
use posthouse::address::PeerAddress;
use posthouse::client::{Event, Events, Outgoing};
use posthouse::id::{MessageId, RelayId};
use posthouse::protocol::Outcome;

use crate::fault::{Done, Fault};
use crate::output::{Output, Report};
use crate::words;

/// A person sees a line for each step of so many messages; of more, failures alone and a summary at the end.
const SHOWN: u64 = 20;

/// Numbers of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) queued: u64,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) expired: u64,
    pub(crate) rejected: u64,
}

impl Tally {
    pub(crate) const fn ended(&self) -> u64 {
        self.delivered + self.expired + self.rejected
    }

    pub(crate) const fn done(&self) -> Done {
        if self.expired + self.rejected > 0 { Done::SomeLost } else { Done::Well }
    }

    /// The outcomes in words.
    pub(crate) fn outcomes(&self) -> String {
        let parts = [(self.delivered, "delivered"), (self.expired, "expired"), (self.rejected, "rejected")];
        let parts = parts.iter().filter(|(number, what)| *number > 0 || *what == "delivered");
        parts.map(|(number, what)| format!("{number} {what}")).collect::<Vec<_>>().join(", ")
    }
}

/// A message of this run.
#[derive(Debug)]
struct Own {
    number: u64,
    preview: String,
    accepted: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tally: Tally,
    unaccepted: u64,
    /// Of this run, without an outcome.
    own: HashMap<MessageId, Own>,
    /// Of earlier runs, accepted in this one and without an outcome.
    earlier: HashSet<MessageId>,
    /// Lines about messages that went well, and about others, those included that were too many to be shown.
    lines: (u64, u64),
    /// Something was told about messages of earlier runs.
    met_earlier: bool,
    /// Every line about messages of this run is shown: for a conversation.
    all: bool,
}

impl Ledger {
    pub(crate) fn of_all() -> Self {
        Self { all: true, ..Self::default() }
    }

    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the tally counts messages of earlier runs as well.
    pub(crate) const fn met_earlier(&self) -> bool {
        self.met_earlier
    }

    /// Messages of this run without an outcome.
    pub(crate) fn open(&self) -> usize {
        self.own.len()
    }

    /// Messages of this run that are neither accepted nor ended.
    pub(crate) const fn unaccepted(&self) -> u64 {
        self.unaccepted
    }

    /// Messages are in the outbox. To be told before any event is read that comes after that.
    pub(crate) fn queued(
        &mut self,
        sent: &[Outgoing],
        bodies: &[bytes::Bytes],
        to: &PeerAddress,
        out: &Output,
    ) -> Result<(), Fault> {
        self.tally.queued += sent.len() as u64;
        self.unaccepted += sent.len() as u64;
        let first = self.tally.queued - sent.len() as u64 + 1;
        let to = to.to_string();
        for ((number, outgoing), body) in (first..).zip(sent).zip(bodies) {
            let preview = if self.is_short() { words::preview(body) } else { String::new() };
            self.own.insert(outgoing.id, Own { number, preview, accepted: false });
            out.tell(&Report::Queued { id: outgoing.id.to_string(), to: to.clone(), n: outgoing.n }, None)?;
        }
        Ok(())
    }

    /// Tells an event about a sent message; false if it was about something else.
    pub(crate) fn apply(&mut self, event: &Event, out: &Output) -> Result<bool, Fault> {
        match event {
            Event::Accepted { id, durability, duplicate } => {
                let report =
                    Report::Accepted { id: id.to_string(), durability: durability.name(), duplicate: *duplicate };
                let is_new = match self.own.get_mut(id) {
                    // A relay that lost a message has it accepted again; that is no news.
                    Some(own) => !std::mem::replace(&mut own.accepted, true),
                    None => self.earlier.insert(*id),
                };
                if is_new {
                    let is_own = self.own.contains_key(id);
                    self.unaccepted -= u64::from(is_own);
                    self.met_earlier |= !is_own;
                    self.tally.accepted += 1;
                    // Of an earlier message a person saw it then, or will see how it ends.
                    let line = (is_own && self.has_line(*id, true)).then(|| format!("✓   {}", self.name(*id)));
                    out.tell(&report, line)?;
                }
                Ok(true)
            }
            Event::Outcome { id, outcome, relay, .. } => {
                self.ended(*id, outcome, *relay, out)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn ended(&mut self, id: MessageId, outcome: &Outcome, relay: RelayId, out: &Output) -> Result<(), Fault> {
        let number = match outcome {
            Outcome::Delivered => &mut self.tally.delivered,
            Outcome::Expired { .. } => &mut self.tally.expired,
            Outcome::Rejected { .. } => &mut self.tally.rejected,
        };
        *number += 1;
        let line = self.has_line(id, *outcome == Outcome::Delivered);
        let line = line.then(|| fate(&self.name(id), outcome, relay));
        let own = self.own.remove(&id);
        self.met_earlier |= own.is_none();
        self.unaccepted -= u64::from(own.is_some_and(|own| !own.accepted));
        self.earlier.remove(&id);
        out.tell(&Report::outcome(id, outcome, relay), line)
    }

    /// Whether there are so few messages that each has its lines.
    const fn is_short(&self) -> bool {
        self.all || self.tally.queued <= SHOWN
    }

    fn has_line(&mut self, id: MessageId, good: bool) -> bool {
        if self.all && self.own.contains_key(&id) {
            return true;
        }
        let shown = if good { &mut self.lines.0 } else { &mut self.lines.1 };
        *shown += 1;
        // Two lines to each message: one tick, two ticks.
        *shown <= SHOWN * 2 && (!good || self.tally.queued <= SHOWN)
    }

    fn name(&self, id: MessageId) -> String {
        match self.own.get(&id) {
            Some(own) => format!("{:>3}  {}", own.number, own.preview),
            None => format!("{id} (sent earlier)"),
        }
    }
}

/// One line about how a message ended.
fn fate(name: &str, outcome: &Outcome, relay: RelayId) -> String {
    let taken = |maybe: bool| if maybe { ", but the recipient may have it" } else { "" };
    match outcome {
        Outcome::Delivered => format!("✓✓  {name}"),
        Outcome::Expired { maybe_taken } => {
            format!("✗   {name}: expired at relay {}..{}", relay.short(), taken(*maybe_taken))
        }
        Outcome::Rejected { reason, text, maybe_taken } => {
            let text =
                text.as_ref().map_or_else(String::new, |text| format!(" \"{}\"", words::printable(text.as_bytes())));
            format!("✗   {name}: rejected by relay {}.., {reason}{text}{}", relay.short(), taken(*maybe_taken))
        }
    }
}

/// The events that have come already. To be asked for at the end too: it confirms the last one that was told.
pub(crate) fn come_already(events: &mut Events) -> Option<Event> {
    tokio::task::unconstrained(events.next()).now_or_never().flatten()
}
