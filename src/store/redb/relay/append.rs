//! A message arrives: what the recipient's side has room for, and what is written when it is accepted.

use std::sync::Arc;
use std::time::Duration;

use super::super::fault::Fault;
use super::blocks::{self, block_of};
use super::engine::RelayEngine;
use super::rows::Rows;
use super::schema::{Count, Counters, LaneAt, MailboxRow, MessageRow, Number, PairAt, PeerRow, Single, expiry_at};
use super::work::Work;
use crate::delivery::admission::{Arrival, Decision, Room, decide};
use crate::id::PeerId;
use crate::protocol::limit::MAX_INTEGER;
use crate::protocol::{Answer, Verdict, WaitReason};
use crate::store::{Append, Done, StoreLimits, Stored};
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
    counts: &'a mut Rows<'t, (Number, Number), Count>,
    pairs: &'a mut Rows<'t, PairAt, Single>,
}

impl RelayEngine {
    pub(super) fn append(&mut self, work: &mut Work<'_>, submitter: PeerId, append: &Append) -> Result<Done, Fault> {
        let header = append.envelope.header();
        let numbers = Numbers {
            submitter: work.number(submitter)?,
            sender: work.number(header.sender)?,
            recipient: work.number(header.recipient)?,
        };
        let bytes = append.envelope.bytes().len() as u64;
        let arrival = Arrival { n: header.n, prev: append.prev, expired: append.ttl.is_zero(), refuse: append.refuse };
        let Work { lanes, limits, counters, peers, mailboxes, counts, pairs, .. } = work;
        let row = match numbers.lane(header.lane.0) {
            Some(at) => lanes.get(at)?.map(|entry| &entry.row),
            None => None,
        };
        let side = Side { limits, counters, peers, mailboxes, counts, pairs };
        let decision = decide(row, arrival, || self.room(side, numbers, bytes, row.is_some()))?;
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
    fn room(&mut self, side: Side<'_, '_>, numbers: Numbers, bytes: u64, has_row: bool) -> Result<Room, Fault> {
        let limits = side.limits;
        let wait = |reason, retry_after| Ok(Room::Wait { reason, retry_after });
        let fits = |held: Count, messages: u64, max_bytes: u64| {
            held.messages < messages && held.bytes.saturating_add(bytes) <= max_bytes
        };
        let (lanes, caused) = match numbers.submitter {
            Some(number) => side.peers.get(number)?.map_or((0, 0), |peer| (peer.lanes, peer.provisional)),
            None => (0, 0),
        };
        let mailbox = match numbers.recipient {
            Some(number) => side.mailboxes.get(number)?.copied(),
            None => None,
        };
        let held = mailbox.map_or(Count::default(), |row| Count { messages: row.messages, bytes: row.bytes });
        let provisional = mailbox.is_none_or(|row| row.caused_by().is_some());
        let (most_messages, most_bytes) = if provisional {
            (limits.provisional_messages, limits.provisional_bytes)
        } else {
            (limits.mailbox_messages, limits.mailbox_bytes)
        };
        let share = |all: u64| u128::from(all) * u128::from(limits.pair_percent) / 100;
        let [pair_messages, pair_bytes] =
            [most_messages, most_bytes].map(|all| u64::try_from(share(all)).unwrap_or(u64::MAX));
        // What is larger than a pair's share by itself would take a stranger's mailbox from everybody else.
        if provisional && (!fits(held, most_messages, most_bytes) || bytes > pair_bytes) {
            return Ok(Room::Nobody);
        }
        if mailbox.is_none() {
            let full = side.counters.provisional >= limits.provisional_total;
            if !limits.open || full || caused >= limits.provisional_per_submitter {
                return Ok(Room::Nobody);
            }
        }
        if self.failed_until.is_some_and(|until| self.clock.now() < until) {
            return wait(WaitReason::Unavailable, FAILED_RETRY);
        }
        if !self.space.is_enough() {
            return wait(WaitReason::NoRoom, NO_ROOM_RETRY);
        }
        if !provisional && !fits(held, most_messages, most_bytes) {
            return wait(WaitReason::Quota, QUOTA_RETRY);
        }
        if let (Some(recipient), Some(sender)) = (numbers.recipient, numbers.sender) {
            let waiting = side.counts.get((recipient, sender))?.copied().unwrap_or_default();
            // However small the mailbox, a pair's share holds one message.
            if waiting.messages > 0 && !fits(waiting, pair_messages, pair_bytes) {
                return wait(WaitReason::QuotaPair, QUOTA_RETRY);
            }
        }
        if !has_row {
            let of_pair = match numbers.pair() {
                Some(pair) => side.pairs.get(pair)?.map_or(0, |lanes| u64::from(lanes.value)),
                None => 0,
            };
            if lanes >= limits.lanes_per_submitter || of_pair >= limits.lanes_per_pair {
                return wait(WaitReason::Lanes, LANES_RETRY);
            }
        }
        Ok(if mailbox.is_some() { Room::Free } else { Room::New })
    }

    /// Writes an accepted message.
    fn store(&mut self, work: &mut Work<'_>, at: LaneAt, submitter: PeerId, append: &Append) -> Result<(), Fault> {
        let (submitter_number, sender, recipient, _) = at;
        let (now, header) = (work.now, append.envelope.header());
        if work.mailboxes.get(recipient)?.is_none() {
            work.make_mailbox(recipient, Some(submitter_number))?;
        }
        let bytes = append.envelope.bytes().len() as u64;
        work.lane(at)?.accept(header.n, bytes, now);

        let no_mailbox = || Fault::corrupt("a message without a mailbox");
        let mailbox = work.mailboxes.change(recipient)?.ok_or_else(no_mailbox)?;
        let seq = mailbox.last_seq.saturating_add(1).max(self.first_seq);
        if seq > MAX_INTEGER {
            return Err(Fault::corrupt("a mailbox has no seq left"));
        }
        mailbox.last_seq = seq;
        mailbox.messages += 1;
        mailbox.bytes += bytes;
        let count = work.counts.change_or((recipient, sender), Count::default)?;
        count.messages += 1;
        count.bytes += bytes;

        let expires = now + append.ttl;
        let row = MessageRow {
            submitter: submitter_number,
            submitter_key: (submitter != header.sender).then_some(submitter),
            sender,
            arrived: now.0,
            expires: expires.0,
            signature: append.signature,
        };
        self.scratch.clear();
        row.encode(&mut self.scratch);
        self.scratch.extend_from_slice(append.envelope.bytes());
        work.messages.insert((recipient, seq), self.scratch.as_slice())?;
        blocks::add(&mut work.by_sender, (recipient, sender, block_of(seq)), seq)?;
        blocks::add(&mut work.expiry, expiry_at(expires.0, recipient, seq), seq)?;
        let (envelope, signature) = (append.envelope.clone(), append.signature);
        work.news.push(Arc::new(Stored { seq, submitter, envelope, signature, expires }));
        Ok(())
    }
}

fn number_all(work: &mut Work<'_>, submitter: PeerId, append: &Append) -> Result<LaneAt, Fault> {
    let header = append.envelope.header();
    let submitter = work.number_or_new(submitter)?;
    let sender = work.number_or_new(header.sender)?;
    Ok((submitter, sender, work.number_or_new(header.recipient)?, header.lane.0))
}
