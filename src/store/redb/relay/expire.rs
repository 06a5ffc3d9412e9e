//! What runs out of time: messages, and the rows of lanes that rested long enough.

use redb::ReadableTable;

use super::super::fault::Fault;
use super::blocks::{self, Block};
use super::schema::{ExpiryAt, Number, Row};
use super::settle::{Damage, Outcomes, remove};
use super::work::{Work, hour_after};
use crate::delivery::Damaged;
use crate::delivery::lane::TOUCH;
use crate::protocol::{Outcome, Verdict};
use crate::ranges::Ranges;
use crate::store::Expired;
use crate::time::{UnixMillis, millis};

/// A row of deadlines, and which messages of it are at hand.
type Due = (ExpiryAt, Result<Ranges, Damaged>);

/// Ends up to `limit` messages whose time has run out, and looks at as many lanes that may have rested enough.
pub(super) fn expire(work: &mut Work<'_>, damage: &mut Damage, limit: usize) -> Result<Expired, Fault> {
    let mut outcomes = Outcomes::default();
    for (key, seqs) in due(work, limit as u64)? {
        let mailbox = key.1;
        match seqs {
            Ok(seqs) => {
                end(work, damage, mailbox, &seqs, &mut outcomes)?;
                forget(work, key, &seqs)?;
                work.drop_empty_provisional(mailbox)?;
            }
            Err(damaged) => {
                tracing::error!(mailbox, %damaged, "messages whose deadlines cannot be read will never expire");
                work.expiry.remove(key);
            }
        }
    }
    let settled = outcomes.enter(work)?;
    drop_rested(work, limit)?;
    let message = work.expiry.written()?.first()?.map(|(key, _)| key.value().0.saturating_mul(1000));
    let lane = work.rest.written()?.first()?.map(|(key, _)| key.value().0.saturating_mul(millis(TOUCH)));
    let next = message.into_iter().chain(lane).min().map(UnixMillis);
    Ok(Expired { settled, next })
}

/// The first `limit` messages that are due, by the row that names them.
fn due(work: &mut Work<'_>, mut limit: u64) -> Result<Vec<Due>, Fault> {
    // What this transaction did to the rows so far counts as well.
    let mut due = Vec::new();
    for entry in work.expiry.written()?.range(..=(work.now.0 / 1000, Number::MAX, u64::MAX))? {
        if limit == 0 {
            break;
        }
        let (key, block) = entry?;
        let seqs = Block::decode(block.value()).map(|block| block.first(key.value().2, limit));
        limit = limit.saturating_sub(seqs.as_ref().map_or(1, Ranges::count));
        due.push((key.value(), seqs));
    }
    Ok(due)
}

/// Ends messages of one mailbox.
fn end(
    work: &mut Work<'_>,
    damage: &mut Damage,
    mailbox: Number,
    seqs: &Ranges,
    outcomes: &mut Outcomes,
) -> Result<(), Fault> {
    let row = work.mailboxes.get(mailbox)?.copied();
    let verdict = |seq| {
        let maybe_taken = row.is_none_or(|row| row.may_have_handed_out(seq));
        Verdict::here(Outcome::Expired { maybe_taken })
    };
    remove(work, damage, mailbox, seqs, outcomes, verdict)
}

/// Forgets the deadlines of messages that are not there, or are damaged and stay: they would come up for ever, and
/// nothing behind them would end.
fn forget(work: &mut Work<'_>, key: ExpiryAt, seqs: &Ranges) -> Result<(), Fault> {
    if work.expiry.get(key)?.is_some() {
        for seq in seqs.numbers() {
            blocks::take(&mut work.expiry, key, seq)?;
        }
    }
    Ok(())
}

/// Removes the rows of lanes that rested long enough; the others are looked at again when they could have.
fn drop_rested(work: &mut Work<'_>, limit: usize) -> Result<(), Fault> {
    let lane_rest = work.limits.lane_rest;
    let hour = work.now.0 / millis(TOUCH);
    let due = work.rest.written()?.range(..=(hour, Number::MAX, Number::MAX, Number::MAX, u64::MAX))?.take(limit);
    let due = due.map(|entry| Ok(entry?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
    for key in due {
        let (_, submitter, sender, recipient, lane) = key;
        let at = (submitter, sender, recipient, lane);
        let entry = match work.lanes.change(at) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                work.rest.remove(key);
                continue;
            }
            Err(Fault::Corrupt(what)) => {
                tracing::error!(?at, %what, "a lane's row that cannot be read will never go");
                work.rest.remove(key);
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
        work.rest.remove(key);
        work.rest.insert((rest, submitter, sender, recipient, lane), ());
    }
    Ok(())
}
