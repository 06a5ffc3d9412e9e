//! The oracle: what was promised, held against what happened, as seen from outside.
//!
//! It knows what applications sent, were handed, answered and were told; nothing of what lies in between. The first
//! broken promise ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posthouse::id::{MessageId, PeerId};
use posthouse::protocol::{Outcome, RejectReason};
use tokio::time::Instant;

use super::net::HostNumber;

/// A message by the number in its body.
pub(crate) type Number = u64;

/// Whether a message is in its sender's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// `send` has not returned; it may never.
    Unsure,
    /// `send` returned.
    Yes,
    /// `send` said that it is not.
    No,
    /// It was, and the outbox was replaced by an older one.
    Lost,
}

#[derive(Debug)]
struct Letter {
    from: HostNumber,
    to: HostNumber,
    kept: Kept,
    /// When its lifetime is over.
    due: Instant,
    id: Option<MessageId>,
    /// The lives in which the application has it, or had it last, and whether it dropped it.
    handed_in: Option<u64>,
    dropped: bool,
    asked_to_take: bool,
    asked_to_refuse: bool,
    /// The application's answer is durable: `taken` or `refuse` returned.
    taken: bool,
    refused: bool,
    /// What the sender was told, and in which of its lives last.
    outcome: Option<(Outcome, u64)>,
    /// Its sender was restored from an older copy since: only that it is taken once still holds.
    blurred: bool,
}

/// What has become of the hosts that weakens what they promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weakness {
    /// A relay's store was restored or lost: refusals that were told may be forgotten, and with them the order of what
    /// was refused.
    pub(crate) restored: bool,
    /// A relay's store was replaced by an older copy without anybody knowing: what was handed out is forgotten.
    pub(crate) put_back: bool,
    /// Clocks are set: what expires may do so before its time.
    pub(crate) clocks_jump: bool,
}

/// Counts, for a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) expired: u64,
    pub(crate) rejected: u64,
    pub(crate) maybe_taken: u64,
    pub(crate) handed_again: u64,
    pub(crate) told_again: u64,
    /// Processes that were started.
    pub(crate) lives: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    letters: Vec<Letter>,
    by_id: BTreeMap<MessageId, Number>,
    /// Outcomes of messages that nobody knows yet: their `send` never returned.
    strangers: BTreeMap<MessageId, Outcome>,
    peers: BTreeMap<PeerId, HostNumber>,
    /// For each reader, sender and life the last message that was handed out for the first time.
    last_handed: BTreeMap<(HostNumber, HostNumber), (u64, Number)>,
    /// For each reader and sender the last message that was ever handed out.
    newest_handed: BTreeMap<(HostNumber, HostNumber), Number>,
    weakness: Weakness,
    counts: Counts,
    broken: Option<String>,
}

impl Ledger {
    pub(crate) fn know(&mut self, peer: PeerId, host: HostNumber) {
        self.peers.insert(peer, host);
    }

    /// The first promise that was broken.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(crate) fn break_promise(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A process starts.
    pub(crate) const fn lives(&mut self) {
        self.counts.lives += 1;
    }

    pub(crate) const fn weaken(&mut self, weakness: Weakness) {
        self.weakness.restored |= weakness.restored;
        self.weakness.put_back |= weakness.put_back;
        self.weakness.clocks_jump |= weakness.clocks_jump;
    }

    /// An application sends a message, whose number is given back. `send` has not returned yet.
    pub(crate) fn sends(&mut self, from: HostNumber, to: HostNumber, ttl: Duration) -> Number {
        self.letters.push(Letter {
            from,
            to,
            kept: Kept::Unsure,
            due: Instant::now() + ttl,
            id: None,
            handed_in: None,
            dropped: false,
            asked_to_take: false,
            asked_to_refuse: false,
            taken: false,
            refused: false,
            outcome: None,
            blurred: false,
        });
        self.letters.len() as Number - 1
    }

    fn letter(&mut self, number: Number) -> &mut Letter {
        &mut self.letters[usize::try_from(number).unwrap()]
    }

    /// `send` returned.
    pub(crate) fn sent(&mut self, number: Number, id: MessageId) {
        self.counts.sent += 1;
        let letter = self.letter(number);
        letter.kept = Kept::Yes;
        self.name(number, id);
    }

    /// `send` failed, and the message is not in the outbox.
    pub(crate) fn not_sent(&mut self, number: Number) {
        self.letter(number).kept = Kept::No;
    }

    /// The message's id is known now; perhaps it was spoken of before.
    fn name(&mut self, number: Number, id: MessageId) {
        self.letter(number).id = Some(id);
        self.by_id.insert(id, number);
        if let Some(outcome) = self.strangers.remove(&id) {
            self.letter(number).outcome.get_or_insert((outcome, 0));
        }
    }

    /// A message is handed to an application, in one life of it.
    pub(crate) fn handed(
        &mut self,
        to: HostNumber,
        life: u64,
        in_order: bool,
        (from, id): (PeerId, MessageId),
        number: Option<Number>,
    ) -> Option<Number> {
        let from = self.peers.get(&from).copied();
        let known = number.filter(|number| *number < self.letters.len() as Number);
        let Some((number, from)) = known.zip(from) else {
            self.break_promise(format!("peer {to} was handed a message that nobody sent"));
            return None;
        };
        let weakness = self.weakness;
        let letter = self.letter(number);
        let what = |why: &str| Some(format!("message {number} from {from} to {to}: {why}"));
        let mut broken = None;
        if (letter.from, letter.to) != (from, to) {
            broken = what("it was handed to somebody else, or comes from somebody else");
        } else if letter.kept == Kept::No {
            broken = what("handed out, though `send` said that it is not in the outbox");
        } else if letter.taken || letter.refused {
            broken = what("handed out again after its answer was durable");
        } else if letter.handed_in == Some(life) && !letter.dropped {
            broken = what("handed out twice in one life");
        }
        let certain = match &letter.outcome {
            Some((Outcome::Expired { maybe_taken: false }, _)) => !weakness.put_back,
            Some((Outcome::Rejected { maybe_taken: false, .. }, _)) => !weakness.restored && !weakness.put_back,
            _ => false,
        };
        if broken.is_none() && certain && !letter.blurred {
            broken = what(&format!("handed out after its sender was told {:?}", letter.outcome));
        }
        let (again, before) = (letter.handed_in == Some(life), letter.handed_in.is_some());
        (letter.handed_in, letter.dropped) = (Some(life), false);
        let excused = letter.blurred || weakness.restored || weakness.put_back;
        self.counts.handed_again += u64::from(before);
        self.name(number, id);
        if in_order && !again {
            let newest = self.newest_handed.entry((to, from)).or_insert(number);
            if !before && *newest > number && !excused && broken.is_none() {
                broken = what(&format!("handed out after message {newest}"));
            }
            *newest = (*newest).max(number);
            let last = self.last_handed.entry((to, from)).or_insert((life, number));
            if last.0 == life && last.1 > number && !excused && broken.is_none() {
                broken = what(&format!("handed out after message {}, in this life", last.1));
            }
            *last = (life, number);
        }
        if let Some(broken) = broken {
            self.break_promise(broken);
        }
        Some(number)
    }

    pub(crate) fn drops(&mut self, number: Number) {
        self.letter(number).dropped = true;
    }

    pub(crate) fn takes(&mut self, number: Number) {
        self.letter(number).asked_to_take = true;
    }

    pub(crate) fn refuses(&mut self, number: Number) {
        self.letter(number).asked_to_refuse = true;
    }

    /// The application's answer is durable.
    pub(crate) fn answered(&mut self, number: Number, taken: bool) {
        let letter = self.letter(number);
        if letter.taken || letter.refused {
            self.break_promise(format!("message {number}: answered twice"));
        } else if taken {
            letter.taken = true;
        } else {
            letter.refused = true;
        }
    }

    /// A sender is told an outcome, in one life of it.
    pub(crate) fn told(&mut self, life: u64, id: MessageId, outcome: Outcome) {
        let weakness = self.weakness;
        let Some(number) = self.by_id.get(&id).copied() else {
            if outcome == Outcome::Delivered {
                self.break_promise(format!("message {id} is delivered, and was never handed out"));
            }
            let before = self.strangers.insert(id, outcome.clone());
            if before.is_some_and(|before| before != outcome) {
                self.break_promise(format!("message {id}: another outcome"));
            }
            return;
        };
        let letter = self.letter(number);
        let what =
            |why: &str| Some(format!("message {number} from {} to {}: {outcome:?}, {why}", letter.from, letter.to));
        let mut broken = match &letter.outcome {
            _ if letter.blurred => None,
            Some((before, _)) if *before != outcome => what(&format!("after {before:?}")),
            Some((_, told_in)) if *told_in == life => what("told twice in one life"),
            _ => None,
        };
        let certain = !letter.blurred && !weakness.put_back;
        let timely = letter.blurred || weakness.put_back || weakness.clocks_jump;
        let early = !timely && Instant::now() < letter.due;
        let false_word = match &outcome {
            Outcome::Expired { .. } if early => Some("before its time"),
            Outcome::Delivered if !letter.asked_to_take => Some("and no application took it"),
            Outcome::Delivered if letter.refused => Some("and the application refused it"),
            Outcome::Expired { maybe_taken: false } if certain && letter.handed_in.is_some() => {
                Some("and it was handed out")
            }
            Outcome::Rejected { reason: RejectReason::Refused, .. } if !letter.asked_to_refuse => {
                Some("and no application refused it")
            }
            Outcome::Rejected { maybe_taken: false, .. } if certain && letter.taken => Some("and it was taken"),
            Outcome::Rejected { reason, maybe_taken: false, .. }
                if *reason != RejectReason::Refused && certain && letter.handed_in.is_some() =>
            {
                Some("and it was handed out")
            }
            _ => None,
        };
        broken = broken.or_else(|| what(false_word?));
        let again = letter.outcome.is_some();
        let first = letter.outcome.take().map_or(outcome.clone(), |(first, _)| first);
        letter.outcome = Some((first, life));
        if again {
            self.counts.told_again += 1;
        } else {
            let counts = &mut self.counts;
            let (count, maybe_taken) = match &outcome {
                Outcome::Delivered => (&mut counts.delivered, false),
                Outcome::Expired { maybe_taken } => (&mut counts.expired, *maybe_taken),
                Outcome::Rejected { maybe_taken, .. } => (&mut counts.rejected, *maybe_taken),
            };
            *count += 1;
            counts.maybe_taken += u64::from(maybe_taken);
        }
        if let Some(broken) = broken {
            self.break_promise(broken);
        }
    }

    /// What is in an outbox for certain: `send` has returned.
    pub(crate) fn kept(&self, from: HostNumber) -> BTreeSet<Number> {
        let kept = |letter: &Letter| letter.from == from && letter.kept == Kept::Yes;
        let numbered = self.letters.iter().enumerate().filter(|(_, letter)| kept(letter));
        numbered.map(|(number, _)| number as Number).collect()
    }

    /// A sender's outbox was replaced by a copy, in which these messages were for certain.
    pub(crate) fn sender_restored(&mut self, from: HostNumber, kept: &BTreeSet<Number>) {
        for (number, letter) in self.letters.iter_mut().enumerate() {
            if letter.from == from {
                letter.blurred = true;
                if !kept.contains(&(number as Number)) {
                    letter.kept = Kept::Lost;
                }
            }
        }
    }

    /// A message in an outbox whose sender knows no outcome, in words.
    pub(crate) fn first_open(&self) -> Option<String> {
        let open = |letter: &Letter| letter.kept == Kept::Yes && letter.outcome.is_none();
        let (number, letter) = self.letters.iter().enumerate().find(|(_, letter)| open(letter))?;
        Some(format!("message {number}, {letter:?}"))
    }
}
