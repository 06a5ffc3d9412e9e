//! A message arrives: what the recipient's side has room for, and what is written when it is accepted.

use std::sync::Arc;
use std::time::Duration;

use super::super::fault::Fault;
use super::access::standing;
use super::blocks::{self, block_of};
use super::engine::RelayEngine;
use super::policy::Policies;
use super::rows::Rows;
use super::schema::{
    Count, Counters, LaneAt, LinkRow, MailboxRow, MessageRow, Number, PairAt, PeerRow, Single, expiry_at,
};
use super::size::Counts;
use super::work::Work;
use crate::delivery::admission::{Arrival, Decision, Room, decide};
use crate::id::PeerId;
use crate::protocol::limit::MAX_INTEGER;
use crate::protocol::{Answer, RejectReason, Verdict, WaitReason};
use crate::store::{Append, Done, StoreLimits, Stored, outbox_key};
use crate::time::millis;

/// When to try again where a mailbox is full: its owner has to read first.
pub(super) const QUOTA_RETRY: Duration = Duration::from_secs(5);
/// When to try again where too many lanes are open: some have to be closed, or grow old.
pub(super) const LANES_RETRY: Duration = Duration::from_secs(60);
/// When to try again where the disk is nearly full: recipients or the operator have to make room.
pub(super) const NO_ROOM_RETRY: Duration = Duration::from_secs(5);
/// For how long no message is accepted after writing failed, so that removals alone can try to make room.
pub(super) const FAILED_RETRY: Duration = Duration::from_secs(1);

/// The peers of one message, as far as they have numbers.
#[derive(Clone, Copy)]
struct Numbers {
    submitter: Option<Number>,
    sender: Option<Number>,
    recipient: Option<Number>,
    /// Where it would lie: in the recipient's mailbox, or in the outbox for another relay.
    mailbox: Option<Number>,
}

impl Numbers {
    fn lane(self, lane: u64) -> Option<LaneAt> {
        let (submitter, sender, recipient) = self.pair()?;
        Some((submitter, sender, recipient, lane))
    }

    fn pair(self) -> Option<PairAt> {
        Some((self.submitter?, self.sender?, self.recipient?))
    }
}

/// The tables that say whether there is room; the lane's row is read beside them.
struct Side<'a, 't> {
    limits: &'a StoreLimits,
    counters: &'a Counters,
    peers: &'a mut Rows<'t, Number, PeerRow>,
    mailboxes: &'a mut Rows<'t, Number, MailboxRow>,
    counts: &'a mut Counts<'t>,
    pairs: &'a mut Rows<'t, PairAt, Single>,
    links: &'a mut Rows<'t, Number, LinkRow>,
    access: &'a mut Rows<'t, [u8; 32], Single>,
}

impl Side<'_, '_> {
    fn mailbox(&mut self, numbers: Numbers) -> Result<Option<MailboxRow>, Fault> {
        let Some(number) = numbers.mailbox else { return Ok(None) };
        Ok(self.mailboxes.get(number)?.copied())
    }

    fn submitter(&mut self, numbers: Numbers) -> Result<PeerRow, Fault> {
        let none = PeerRow { key: PeerId::from_bytes([0; 32]), uses: 0, lanes: 0, provisional: 0 };
        let Some(number) = numbers.submitter else { return Ok(none) };
        Ok(self.peers.get(number)?.copied().unwrap_or(none))
    }

    /// Whether the relay takes messages for this peer at all.
    fn is_taken_for(&mut self, recipient: PeerId, mailbox: Option<MailboxRow>) -> Result<bool, Fault> {
        let access = &self.limits.access;
        let decided = self.access.get(*recipient.as_bytes())?.map(standing);
        let has = mailbox.is_some_and(|row| row.caused_by().is_none());
        Ok(access.takes(access.standing(&recipient, decided), has))
    }

    /// Whether the mailbox is the outbox for another relay.
    fn is_outbox(&mut self, numbers: Numbers) -> Result<bool, Fault> {
        let Some(number) = numbers.mailbox else { return Ok(false) };
        Ok(self.links.get(number)?.is_some())
    }

    /// What waits there from this sender.
    fn waiting(&mut self, numbers: Numbers) -> Result<Count, Fault> {
        let (Some(mailbox), Some(sender)) = (numbers.mailbox, numbers.sender) else { return Ok(Count::default()) };
        Ok(self.counts.get((mailbox, sender))?.unwrap_or_default())
    }

    /// What one sender may have of so much.
    fn share(&self, of: Count) -> Count {
        let share = |all: u64| {
            let share = u128::from(all) * u128::from(self.limits.pair_percent) / 100;
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        Count { messages: share(of.messages), bytes: share(of.bytes) }
    }

    /// Whether there is no place for another lane.
    fn lanes_are_many(&mut self, numbers: Numbers) -> Result<bool, Fault> {
        let of_pair = match numbers.pair() {
            Some(pair) => self.pairs.get(pair)?.map_or(0, |lanes| u64::from(lanes.value)),
            None => 0,
        };
        let (submitter, limits) = (self.submitter(numbers)?, self.limits);
        Ok(submitter.lanes >= limits.lanes_per_submitter || of_pair >= limits.lanes_per_pair)
    }
}

const fn wait(reason: WaitReason, retry_after: Duration) -> Room {
    Room::Wait { reason, retry_after }
}

/// Whether another message of so many bytes fits.
const fn fits(held: Count, bytes: u64, most: Count) -> bool {
    held.messages < most.messages && held.bytes.saturating_add(bytes) <= most.bytes
}

impl RelayEngine {
    pub(super) fn append(&mut self, work: &mut Work<'_>, submitter: PeerId, append: &Append) -> Result<Done, Fault> {
        let header = append.envelope.header();
        let numbers = Numbers {
            submitter: work.number(submitter)?,
            sender: work.number(header.sender)?,
            recipient: work.number(header.recipient)?,
            mailbox: match &append.forward {
                Some(forward) => work.number(outbox_key(&forward.relay))?,
                None => work.number(header.recipient)?,
            },
        };
        let bytes = append.envelope.bytes().len() as u64;
        let Work {
            lanes, limits, counters, peers, mailboxes, counts, pairs, links, access, policies, contacts, ..
        } = work;
        let mut refuse = append.refuse;
        if refuse.is_none() && append.forward.is_none() {
            let takes = Policies { policies, contacts }.takes(numbers.mailbox, header.sender)?;
            refuse = (!takes).then_some(RejectReason::Blocked);
        }
        let arrival = Arrival { n: header.n, prev: append.prev, expired: append.ttl.is_zero(), refuse };
        let row = match numbers.lane(header.lane.0) {
            Some(at) => lanes.get(at)?.map(|entry| &entry.row),
            None => None,
        };
        let side = Side { limits, counters, peers, mailboxes, counts, pairs, links, access };
        let decision = decide(row, arrival, || match append.forward {
            Some(_) => self.room_to_forward(side, numbers, bytes, row.is_some()),
            None => self.room(side, (header.recipient, numbers), bytes, row.is_some()),
        })?;
        let answered = |answer| Ok(Done::Answered { answer, remember: false });
        match decision {
            Decision::Duplicate(verdict) => answered(self.accepted(true, verdict)),
            Decision::Gap { last } => answered(Answer::Gap { last }),
            Decision::Wait { reason, retry_after } => {
                answered(Answer::Wait { reason, retry_after_ms: millis(retry_after) })
            }
            Decision::Unrecorded { verdict, remember } => {
                Ok(Done::Answered { answer: Answer::Final(verdict), remember })
            }
            Decision::Recorded(verdict) => {
                let at = number_all(work, submitter, append)?;
                let now = work.now;
                work.lane(at)?.refuse(header.n, verdict.clone(), now);
                answered(Answer::Final(verdict))
            }
            Decision::Accept => {
                let at = number_all(work, submitter, append)?;
                self.store(work, at, submitter, append)?;
                answered(self.accepted(false, None))
            }
        }
    }

    const fn accepted(&self, duplicate: bool, verdict: Option<Verdict>) -> Answer {
        Answer::Accepted { durability: self.durability, duplicate, ttl_ms: None, verdict }
    }

    /// What the recipient's mailbox, the disk and the lanes say to one more message.
    fn room(
        &self,
        mut side: Side<'_, '_>,
        (recipient, numbers): (PeerId, Numbers),
        bytes: u64,
        has_row: bool,
    ) -> Result<Room, Fault> {
        let limits = side.limits;
        if side.is_outbox(numbers)? {
            return Ok(Room::Nobody);
        }
        let mailbox = side.mailbox(numbers)?;
        if !side.is_taken_for(recipient, mailbox)? {
            return Ok(Room::Nobody);
        }
        let held = mailbox.map_or(Count::default(), |row| Count { messages: row.messages, bytes: row.bytes });
        let provisional = mailbox.is_none_or(|row| row.caused_by().is_some());
        let most = if provisional {
            Count { messages: limits.provisional_messages, bytes: limits.provisional_bytes }
        } else {
            Count { messages: limits.mailbox_messages, bytes: limits.mailbox_bytes }
        };
        let share = side.share(most);
        // What is larger than a pair's share by itself would take a stranger's mailbox from everybody else.
        if provisional && (!fits(held, bytes, most) || bytes > share.bytes) {
            return Ok(Room::Nobody);
        }
        if mailbox.is_none() {
            let full = side.counters.provisional >= limits.provisional_total;
            if !limits.open || full || side.submitter(numbers)?.provisional >= limits.provisional_per_submitter {
                return Ok(Room::Nobody);
            }
        }
        if let Some(wait) = self.no_room() {
            return Ok(wait);
        }
        if !provisional && !fits(held, bytes, most) {
            return Ok(wait(WaitReason::Quota, QUOTA_RETRY));
        }
        let waiting = side.waiting(numbers)?;
        // However small the mailbox, a pair's share holds one message.
        if waiting.messages > 0 && !fits(waiting, bytes, share) {
            return Ok(wait(WaitReason::QuotaPair, QUOTA_RETRY));
        }
        if !has_row && side.lanes_are_many(numbers)? {
            return Ok(wait(WaitReason::Lanes, LANES_RETRY));
        }
        Ok(if mailbox.is_some() { Room::Free } else { Room::New })
    }

    /// The same for one that goes on to another relay.
    fn room_to_forward(
        &self,
        mut side: Side<'_, '_>,
        numbers: Numbers,
        bytes: u64,
        has_row: bool,
    ) -> Result<Room, Fault> {
        if let Some(wait) = self.no_room() {
            return Ok(wait);
        }
        let limits = side.limits;
        let most = Count { messages: limits.outbox_messages, bytes: limits.outbox_bytes };
        let all = Count { messages: limits.outboxes_messages, bytes: limits.outboxes_bytes };
        let held =
            side.mailbox(numbers)?.map_or(Count::default(), |row| Count { messages: row.messages, bytes: row.bytes });
        let held_by_all = Count { messages: side.counters.forwarding, bytes: side.counters.forwarding_bytes };
        let waiting = side.waiting(numbers)?;
        let share = side.share(most);
        let share_is_full = waiting.messages > 0 && !fits(waiting, bytes, share);
        if !fits(held, bytes, most) || !fits(held_by_all, bytes, all) || share_is_full {
            return Ok(wait(WaitReason::OutboxFull, QUOTA_RETRY));
        }
        if !has_row && side.lanes_are_many(numbers)? {
            return Ok(wait(WaitReason::Lanes, LANES_RETRY));
        }
        Ok(Room::Free)
    }

    /// Whether anything at all is taken just now.
    pub(super) fn has_room(&self) -> bool {
        self.no_room().is_none()
    }

    /// Why nothing at all is taken just now.
    fn no_room(&self) -> Option<Room> {
        if self.failed_until.is_some_and(|until| self.clock.now() < until) {
            return Some(wait(WaitReason::Unavailable, FAILED_RETRY));
        }
        (!self.space.is_enough()).then(|| wait(WaitReason::NoRoom, NO_ROOM_RETRY))
    }

    /// Writes an accepted message.
    fn store(&mut self, work: &mut Work<'_>, at: LaneAt, submitter: PeerId, append: &Append) -> Result<(), Fault> {
        let (submitter_number, sender, recipient, _) = at;
        let (now, header) = (work.now, append.envelope.header());
        let bytes = append.envelope.bytes().len() as u64;
        let (mailbox_number, owner) = match &append.forward {
            None => {
                if work.mailboxes.get(recipient)?.is_none() {
                    work.make_mailbox(recipient, Some(submitter_number))?;
                }
                (recipient, header.recipient)
            }
            Some(forward) => {
                work.counters.forwarding += 1;
                work.counters.forwarding_bytes += bytes;
                (work.outbox(forward)?, outbox_key(&forward.relay))
            }
        };
        work.lane(at)?.accept(header.n, bytes, now);
        self.space.wrote(bytes);

        let no_mailbox = || Fault::corrupt("a message without a mailbox");
        let mailbox = work.mailboxes.change(mailbox_number)?.ok_or_else(no_mailbox)?;
        let seq = mailbox.last_seq.saturating_add(1).max(self.first_seq);
        if seq > MAX_INTEGER {
            return Err(Fault::corrupt("a mailbox has no seq left"));
        }
        mailbox.last_seq = seq;
        mailbox.messages += 1;
        mailbox.bytes += bytes;
        work.counts.add((mailbox_number, sender), bytes)?;

        let expires = now + append.ttl;
        let row = MessageRow {
            submitter: submitter_number,
            submitter_key: (submitter != header.sender).then_some(submitter),
            sender,
            recipient: append.forward.as_ref().map(|_| recipient),
            arrived: now.0,
            expires: expires.0,
            signature: append.signature,
        };
        blocks::add(&mut work.by_sender, (mailbox_number, sender, block_of(seq)), seq)?;
        blocks::add(&mut work.expiry, expiry_at(row.ends(), mailbox_number, seq), seq)?;
        work.messages.insert((mailbox_number, seq), row, append.envelope.clone());
        let (envelope, signature) = (append.envelope.clone(), append.signature);
        work.news.push((owner, Arc::new(Stored { seq, submitter, envelope, signature, expires })));
        Ok(())
    }
}

fn number_all(work: &mut Work<'_>, submitter: PeerId, append: &Append) -> Result<LaneAt, Fault> {
    let header = append.envelope.header();
    let submitter = work.number_or_new(submitter)?;
    let sender = work.number_or_new(header.sender)?;
    Ok((submitter, sender, work.number_or_new(header.recipient)?, header.lane.0))
}
