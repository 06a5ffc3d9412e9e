//! A message leaves its mailbox, and its outcome enters the lane's row: always both, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fault::Fault;
use super::blocks::{self, Block, block_of};
use super::messages::Leaving;
use super::rows::Rows;
use super::schema::{Counters, ExpiryAt, LaneAt, LaneEntry, MailboxRow, MessageRow, Number, SenderAt, expiry_at};
use super::size::Counts;
use super::work::Work;
use crate::delivery::lane::append;
use crate::id::PeerId;
use crate::measure::Lengths;
use crate::protocol::{Exception, Header, Outcome, RejectReason, Taken, Verdict};
use crate::ranges::Ranges;
use crate::store::{Counted, Settled};
use crate::time::UnixMillis;

/// Mailboxes of which it is remembered that their damage was told of.
const REMEMBERED_DAMAGE: usize = 1024;

/// What cannot be read is passed over. The first of each mailbox is told of: it will come up again and again.
#[derive(Debug, Default)]
pub(super) struct Damage(BTreeSet<Number>);

impl Damage {
    fn pass_over(&mut self, mailbox: Number, seq: u64, fault: Fault) -> Result<(), Fault> {
        let Fault::Corrupt(what) = fault else { return Err(fault) };
        if self.0.len() < REMEMBERED_DAMAGE && self.0.insert(mailbox) {
            tracing::error!(mailbox, seq, %what, "messages that cannot be read, or whose rows cannot, stay for ever");
        }
        Ok(())
    }
}

/// What a group will have counted.
#[derive(Debug, Default)]
pub(super) struct Counting {
    delivered: Lengths,
    expired: u64,
    rejected: u64,
}

impl Counting {
    fn add(&mut self, verdict: &Verdict, arrived: UnixMillis, now: UnixMillis) {
        match verdict.outcome {
            Outcome::Delivered => self.delivered.add(arrived.until(now)),
            Outcome::Expired { .. } => self.expired += 1,
            Outcome::Rejected { .. } => self.rejected += 1,
        }
    }

    pub(super) fn publish(self, counted: &Counted) {
        counted.delivered.add(&self.delivered);
        counted.expired.add(self.expired);
        counted.rejected.add(self.rejected);
    }
}

/// Outcomes, gathered by lane in the order in which the lanes come up. They enter the lanes' rows at the end, each
/// row once: a row with many gaps is long.
#[derive(Default)]
pub(super) struct Outcomes {
    settled: Vec<Settled>,
    /// Where in `settled`, and the bytes of its messages.
    lanes: BTreeMap<LaneAt, (usize, u64)>,
}

impl Outcomes {
    fn add(&mut self, at: LaneAt, row: &MessageRow, header: &Header, bytes: u64, verdict: Verdict) {
        let (index, sum) = self.lanes.entry(at).or_insert_with(|| {
            self.settled.push(Settled {
                submitter: row.submitter_key.unwrap_or(header.sender),
                lane: header.lane_key(),
                delivered: Ranges::new(),
                exceptions: Vec::new(),
            });
            (self.settled.len() - 1, 0)
        });
        *sum += bytes;
        let Some(settled) = self.settled.get_mut(*index) else { return };
        if verdict == Verdict::DELIVERED {
            settled.delivered.insert(header.n);
        } else {
            append(&mut settled.exceptions, Exception { from: header.n, to: header.n, verdict });
        }
    }

    /// Enters them.
    pub(super) fn enter(self, work: &mut Work<'_>) -> Result<Vec<Settled>, Fault> {
        for (at, (index, bytes)) in self.lanes {
            if let Some(settled) = self.settled.get(index)
                && let Some(entry) = work.lanes.change(at)?
            {
                entry.row.settle_all(&settled.delivered, &settled.exceptions, bytes, work.now);
            }
        }
        Ok(self.settled)
    }
}

/// Carries out what a recipient answered, as far as this session or an earlier one has handed it out.
pub(super) fn settle(
    work: &mut Work<'_>,
    damage: &mut Damage,
    recipient: PeerId,
    answers: &Taken,
    handed_out: u64,
) -> Result<Vec<Settled>, Fault> {
    let Some(mailbox) = work.number(recipient)? else { return Ok(Vec::new()) };
    let mark = work.mailboxes.get(mailbox)?.map_or(0, |row| row.mark);
    let highest = handed_out.max(mark);
    let mut outcomes = Outcomes::default();
    let taken = answers.taken.within(0, highest);
    remove(work, damage, mailbox, &taken, &mut outcomes, |_| Verdict::DELIVERED)?;
    let mut words = BTreeMap::new();
    for refusal in answers.refused.iter().filter(|refusal| refusal.seq <= highest) {
        words.entry(refusal.seq).or_insert(&refusal.text);
    }
    let refused = words.keys().copied().collect();
    let verdict = |seq| {
        let (reason, text) = (RejectReason::Refused, words.get(&seq).copied().cloned().flatten());
        // The application itself said so: there is nothing uncertain about it.
        Verdict::here(Outcome::Rejected { reason, text, maybe_taken: false })
    };
    remove(work, damage, mailbox, &refused, &mut outcomes, verdict)?;
    outcomes.enter(work)
}

/// Carries out what another relay said of messages in the outbox for it.
pub(super) fn resolve(
    work: &mut Work<'_>,
    damage: &mut Damage,
    outbox: PeerId,
    outcomes: &BTreeMap<u64, Verdict>,
) -> Result<Vec<Settled>, Fault> {
    let Some(mailbox) = work.number(outbox)? else { return Ok(Vec::new()) };
    let seqs = outcomes.keys().copied().collect();
    let mut settled = Outcomes::default();
    let verdict = |seq| outcomes.get(&seq).cloned().unwrap_or(Verdict::DELIVERED);
    remove(work, damage, mailbox, &seqs, &mut settled, verdict)?;
    settled.enter(work)
}

/// Takes out what is there of these `seq`s, each with its outcome. A message whose rows are damaged stays as it is.
pub(super) fn remove(
    work: &mut Work<'_>,
    damage: &mut Damage,
    mailbox: Number,
    wanted: &Ranges,
    outcomes: &mut Outcomes,
    verdict: impl Fn(u64) -> Verdict,
) -> Result<(), Fault> {
    let Work { now, messages, by_sender, expiry, mailboxes, counts, lanes, counters, counting, .. } = work;
    let now = *now;
    let mut books = Books { mailbox, now, by_sender, expiry, mailboxes, counts, lanes, counters, counting, outcomes };
    messages.take(mailbox, wanted, |seq, leaving| {
        match leaving.and_then(|leaving| books.enter(seq, &leaving, &verdict)) {
            Ok(()) => Ok(true),
            Err(fault) => damage.pass_over(mailbox, seq, fault).map(|()| false),
        }
    })
}

/// What else speaks of the messages that leave a mailbox.
struct Books<'a, 't> {
    mailbox: Number,
    now: UnixMillis,
    by_sender: &'a mut Rows<'t, SenderAt, Block>,
    expiry: &'a mut Rows<'t, ExpiryAt, Block>,
    mailboxes: &'a mut Rows<'t, Number, MailboxRow>,
    counts: &'a mut Counts<'t>,
    lanes: &'a mut Rows<'t, LaneAt, LaneEntry>,
    counters: &'a mut Counters,
    counting: &'a mut Counting,
    outcomes: &'a mut Outcomes,
}

impl Books<'_, '_> {
    /// Enters that a message leaves. Where a row is damaged nothing has been changed: all are read before.
    fn enter(&mut self, seq: u64, leaving: &Leaving, verdict: impl Fn(u64) -> Verdict) -> Result<(), Fault> {
        let (mailbox, Leaving { row, header, bytes }) = (self.mailbox, leaving);
        let sent = (mailbox, row.sender, block_of(seq));
        let due = expiry_at(row.ends(), mailbox, seq);
        let at = row.lane(mailbox, header.lane.0);
        self.by_sender.get(sent)?;
        self.expiry.get(due)?;
        self.mailboxes.get(mailbox)?;
        self.counts.get((mailbox, row.sender))?;
        self.lanes.get(at)?;

        blocks::take(self.by_sender, sent, seq)?;
        blocks::take(self.expiry, due, seq)?;
        if let Some(whole) = self.mailboxes.change(mailbox)? {
            whole.messages = whole.messages.saturating_sub(1);
            whole.bytes = whole.bytes.saturating_sub(*bytes);
        }
        if row.recipient.is_some() {
            self.counters.forwarding = self.counters.forwarding.saturating_sub(1);
            self.counters.forwarding_bytes = self.counters.forwarding_bytes.saturating_sub(*bytes);
        }
        self.counts.take((mailbox, row.sender), *bytes)?;
        let verdict = verdict(seq);
        self.counting.add(&verdict, UnixMillis(row.arrived), self.now);
        self.outcomes.add(at, row, header, *bytes, verdict);
        Ok(())
    }
}
