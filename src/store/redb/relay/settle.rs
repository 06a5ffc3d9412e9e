//! A message leaves its mailbox, and its outcome enters the lane's row: always both, in one transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::ReadableTable;

use super::super::fault::Fault;
use super::schema::{LaneAt, MessageRow, Number};
use super::work::{Work, hour_after};
use crate::delivery::lane::{TOUCH, append};
use crate::id::PeerId;
use crate::protocol::{Envelope, Exception, HEADER_BYTES, Header, Outcome, RejectReason, Taken, Verdict};
use crate::ranges::Ranges;
use crate::store::{Expired, Settled};
use crate::time::{UnixMillis, millis};

/// Messages in a row that nothing is said about, before the next one that something is said about is searched
/// for: a search costs about as much as so many steps.
const WALKED: usize = 16;

/// Outcomes, gathered by lane in the order in which the lanes come up.
#[derive(Default)]
struct Outcomes {
    settled: Vec<Settled>,
    lanes: BTreeMap<LaneAt, usize>,
}

impl Outcomes {
    fn add(&mut self, at: LaneAt, row: &MessageRow, header: &Header, verdict: Verdict) {
        let index = *self.lanes.entry(at).or_insert_with(|| {
            self.settled.push(Settled {
                submitter: row.submitter_key.unwrap_or(header.sender),
                lane: header.lane_key(),
                delivered: Ranges::new(),
                exceptions: Vec::new(),
            });
            self.settled.len() - 1
        });
        let Some(settled) = self.settled.get_mut(index) else { return };
        if verdict == Verdict::DELIVERED {
            settled.delivered.insert(header.n);
        } else {
            append(&mut settled.exceptions, Exception { from: header.n, to: header.n, verdict });
        }
    }
}

/// Carries out what a recipient answered, as far as this session or an earlier one has handed it out.
pub(super) fn settle(
    work: &mut Work<'_>,
    recipient: PeerId,
    answers: &Taken,
    handed_out: u64,
) -> Result<Vec<Settled>, Fault> {
    let Some(mailbox) = work.number(recipient)? else { return Ok(Vec::new()) };
    let mark = work.mailboxes.get(mailbox)?.map_or(0, |row| row.mark);
    let highest = handed_out.max(mark);
    let mut outcomes = Outcomes::default();
    for seq in held(&work.messages, mailbox, &answers.taken, highest)? {
        remove(work, mailbox, seq, Verdict::DELIVERED, &mut outcomes)?;
    }
    let places = answers.refused.iter().map(|refusal| refusal.seq).collect();
    let there = held(&work.messages, mailbox, &places, highest)?;
    let mut refused: Vec<_> =
        answers.refused.iter().filter(|refusal| there.binary_search(&refusal.seq).is_ok()).collect();
    refused.sort_by_key(|refusal| refusal.seq);
    for refusal in refused {
        let (reason, text) = (RejectReason::Refused, refusal.text.clone());
        // The application itself said so: there is nothing uncertain about it.
        let verdict = Verdict::here(Outcome::Rejected { reason, text, maybe_taken: false });
        remove(work, mailbox, refusal.seq, verdict, &mut outcomes)?;
    }
    Ok(outcomes.settled)
}

/// Which of these `seq`s, as far as `highest`, a mailbox holds. Ranges may be enormous, and many about nothing:
/// messages and ranges are walked side by side, and the table is searched anew only across many messages.
fn held(
    messages: &impl ReadableTable<(Number, u64), &'static [u8]>,
    mailbox: Number,
    wanted: &Ranges,
    highest: u64,
) -> Result<Vec<u64>, Fault> {
    let mut found = Vec::new();
    let mut ranges = wanted.iter().take_while(|range| range.0 <= highest);
    let mut range = ranges.next();
    while let Some((low, _)) = range {
        let mut passed = 0;
        let mut walk = messages.range((mailbox, low)..=(mailbox, highest))?;
        while passed < WALKED {
            let Some(entry) = walk.next() else { return Ok(found) };
            let seq = entry?.0.value().1;
            while range.is_some_and(|(_, to)| to < seq) {
                range = ranges.next();
            }
            match range {
                None => return Ok(found),
                Some((from, _)) if from <= seq => {
                    found.push(seq);
                    passed = 0;
                }
                Some(_) => passed += 1,
            }
        }
    }
    Ok(found)
}

/// Ends up to `limit` messages whose time has run out, and looks at as many lanes that may have rested enough.
pub(super) fn expire(work: &mut Work<'_>, limit: usize) -> Result<Expired, Fault> {
    let mut outcomes = Outcomes::default();
    let due = work.expiry.range(..=(work.now.0, Number::MAX, u64::MAX))?.take(limit);
    let due = due.map(|entry| Ok(entry?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
    for (deadline, mailbox, seq) in due {
        match end(work, mailbox, seq, &mut outcomes) {
            Ok(true) => work.drop_empty_provisional(mailbox)?,
            // A deadline without a message would come up for ever.
            Ok(false) => work.changed |= work.expiry.remove((deadline, mailbox, seq))?.is_some(),
            // So would a damaged row, and no message behind it would ever end. It stays where it is.
            Err(Fault::Corrupt(what)) => {
                tracing::error!(mailbox, seq, %what, "a message that cannot be read will never expire");
                work.changed |= work.expiry.remove((deadline, mailbox, seq))?.is_some();
            }
            Err(fault) => return Err(fault),
        }
    }
    drop_rested(work, limit)?;
    let message = work.expiry.first()?.map(|(key, _)| key.value().0);
    let lane = work.rest.first()?.map(|(key, _)| key.value().0.saturating_mul(millis(TOUCH)));
    let next = message.into_iter().chain(lane).min().map(UnixMillis);
    Ok(Expired { settled: outcomes.settled, next })
}

/// Ends a message whose time has run out; false if it is not there. Where a row of it is damaged nothing has been
/// changed: all of them are read before.
fn end(work: &mut Work<'_>, mailbox: Number, seq: u64, outcomes: &mut Outcomes) -> Result<bool, Fault> {
    let (row, header, _) = match work.messages.get((mailbox, seq))? {
        Some(content) => read(content.value())?,
        None => return Ok(false),
    };
    work.counts.get((mailbox, row.sender))?;
    work.lanes.get((row.submitter, row.sender, mailbox, header.lane.0))?;
    let maybe_taken = work.mailboxes.get(mailbox)?.is_none_or(|row| row.may_have_handed_out(seq));
    remove(work, mailbox, seq, Verdict::here(Outcome::Expired { maybe_taken }), outcomes)
}

/// Removes the rows of lanes that rested long enough; the others are looked at again when they could have.
fn drop_rested(work: &mut Work<'_>, limit: usize) -> Result<(), Fault> {
    let lane_rest = work.limits.lane_rest;
    let hour = work.now.0 / millis(TOUCH);
    let due = work.rest.range(..=(hour, Number::MAX, Number::MAX, Number::MAX, u64::MAX))?.take(limit);
    let due = due.map(|entry| Ok(entry?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
    for key in due {
        let (_, submitter, sender, recipient, lane) = key;
        let at = (submitter, sender, recipient, lane);
        work.changed = true;
        let entry = match work.lanes.change(at) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                work.rest.remove(key)?;
                continue;
            }
            Err(Fault::Corrupt(what)) => {
                tracing::error!(?at, %what, "a lane's row that cannot be read will never go");
                work.rest.remove(key)?;
                continue;
            }
            Err(fault) => return Err(fault),
        };
        // Something pending ends later than now, and rests from then on.
        let over = entry.row.resting_since().unwrap_or(work.now) + lane_rest;
        if entry.row.pending() == 0 && over <= work.now {
            work.drop_lane(at)?;
            continue;
        }
        entry.rest = hour_after(over).max(hour + 1);
        let rest = entry.rest;
        work.rest.remove(key)?;
        work.rest.insert((rest, submitter, sender, recipient, lane), ())?;
    }
    Ok(())
}

/// Takes one message out, with its outcome; false if it is not there.
fn remove(
    work: &mut Work<'_>,
    mailbox: Number,
    seq: u64,
    verdict: Verdict,
    outcomes: &mut Outcomes,
) -> Result<bool, Fault> {
    let (row, header, bytes) = match work.messages.remove((mailbox, seq))? {
        Some(content) => read(content.value())?,
        None => return Ok(false),
    };
    work.by_sender.remove((mailbox, row.sender, seq))?;
    work.expiry.remove((row.expires, mailbox, seq))?;
    if let Some(mailbox) = work.mailboxes.change(mailbox)? {
        mailbox.messages = mailbox.messages.saturating_sub(1);
        mailbox.bytes = mailbox.bytes.saturating_sub(bytes);
    }
    if let Some(count) = work.counts.change((mailbox, row.sender))? {
        count.messages = count.messages.saturating_sub(1);
        count.bytes = count.bytes.saturating_sub(bytes);
        if count.messages == 0 {
            work.counts.remove((mailbox, row.sender));
        }
    }
    let at = (row.submitter, row.sender, mailbox, header.lane.0);
    if let Some(entry) = work.lanes.change(at)? {
        entry.row.settle(header.n, bytes, verdict.clone(), work.now);
    }
    outcomes.add(at, &row, &header, verdict);
    Ok(true)
}

/// What has to be known of a message that leaves. Its body is of no interest any more: it is not copied.
fn read(content: &[u8]) -> Result<(MessageRow, Header, u64), Fault> {
    let (row, envelope) = MessageRow::decode(content)?;
    let head = envelope.get(..HEADER_BYTES).unwrap_or(envelope);
    let head = Envelope::parse(Bytes::copy_from_slice(head));
    let head = head.map_err(|error| Fault::corrupt(error.to_string()))?;
    Ok((row, *head.header(), envelope.len() as u64))
}
