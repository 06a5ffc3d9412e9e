//! Reading mailboxes: pages from either end, and counts. Each answer is one short transaction.

use std::sync::Arc;

use bytes::Bytes;
use redb::{AccessGuard, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError};

use super::super::fault::Fault;
use super::blocks::{Block, block_of};
use super::schema::{
    BY_SENDER, BY_SIZE, COUNTERS, COUNTS, Count, Counters, LANES, LINKS, LinkRow, MAILBOXES, MESSAGES, MailboxRow,
    MessageRow, NUMBERS, Number, PEERS, PeerRow, Row, SenderAt, Single,
};
use super::size::SizeAt;
use crate::id::PeerId;
use crate::protocol::limit::MAX_STATUS_SENDERS;
use crate::protocol::{Envelope, Order, SenderCount, Status};
use crate::store::{LinkState, Page, Query, Stored, Totals};
use crate::time::UnixMillis;

/// Messages that one page looks at. Those whose time ran out and that no sweep has taken yet make it short,
/// but never long in coming.
const LOOKED_AT: usize = 4096;

/// Senders that one status compares: the first of the index, whose order is coarse. Twice those it tells, so that it
/// errs only where more than a hundred senders have nearly as many messages as the last one told.
const COMPARED_SENDERS: usize = 2 * MAX_STATUS_SENDERS;

type Bin = &'static [u8];
type Found<'a> = Result<(u64, AccessGuard<'a, Bin>), Fault>;
type SenderEntry<'a> = Result<(AccessGuard<'a, SenderAt>, AccessGuard<'a, Bin>), StorageError>;

pub(super) fn number(transaction: &ReadTransaction, peer: PeerId) -> Result<Option<Number>, Fault> {
    let found = transaction.open_table(NUMBERS)?.get(*peer.as_bytes())?;
    Ok(found.map(|bytes| Single::decode(bytes.value())).transpose()?.map(|number| number.value))
}

pub(super) fn row<K, R>(table: &impl ReadableTable<K, Bin>, key: K) -> Result<Option<R>, Fault>
where
    K: super::rows::Plain,
    R: Row,
{
    Ok(table.get(key)?.map(|bytes| R::decode(bytes.value())).transpose()?)
}

/// Reads a page.
pub(super) fn page(transaction: &ReadTransaction, query: &Query, now: UnixMillis) -> Result<Page, Fault> {
    let mut page = Page { messages: Vec::new(), cursor: query.cursor, remaining: 0, complete: true };
    let Some(mailbox) = number(transaction, query.mailbox)? else { return Ok(page) };
    let sender = match query.sender {
        Some(sender) => match number(transaction, sender)? {
            Some(sender) => Some(sender),
            None => return Ok(page),
        },
        None => None,
    };
    page.remaining = match sender {
        Some(sender) => row(&transaction.open_table(COUNTS)?, (mailbox, sender))?.map_or(0, |row: Count| row.messages),
        None => row(&transaction.open_table(MAILBOXES)?, mailbox)?.map_or(0, |row: MailboxRow| row.messages),
    };
    // A cursor is exclusive; at the end of all numbers nothing lies behind it.
    let bounds = match (query.order, query.cursor) {
        (_, None) => Some((0, u64::MAX)),
        (Order::Oldest, Some(cursor)) => cursor.checked_add(1).map(|low| (low, u64::MAX)),
        (Order::Newest, Some(cursor)) => cursor.checked_sub(1).map(|high| (0, high)),
    };
    let Some((low, high)) = bounds else { return Ok(page) };
    let messages = transaction.open_table(MESSAGES)?;
    match sender {
        None => {
            let range = messages.range((mailbox, low)..=(mailbox, high))?;
            fill(
                &mut page,
                query,
                now,
                ordered(range, query.order, |entry| {
                    let (key, bytes) = entry?;
                    Ok((key.value().1, bytes))
                }),
            )?;
        }
        Some(sender) => {
            let by_sender = transaction.open_table(BY_SENDER)?;
            let range = by_sender.range((mailbox, sender, block_of(low))..=(mailbox, sender, block_of(high)))?;
            let seqs = ordered(range, query.order, |entry| block_seqs(entry, query.order, low, high));
            let found = seqs.flat_map(|seqs| match seqs {
                Ok(seqs) => seqs.into_iter().map(Ok).collect(),
                Err(fault) => vec![Err(fault)],
            });
            fill(
                &mut page,
                query,
                now,
                found.map(|seq| {
                    let seq = seq?;
                    let bytes = messages.get((mailbox, seq))?;
                    Ok((seq, bytes.ok_or_else(|| Fault::corrupt("a sender's index names no message"))?))
                }),
            )?;
        }
    }
    Ok(page)
}

/// The entries of a range from the end that was asked for.
fn ordered<'a, I: DoubleEndedIterator + 'a, T>(
    range: I,
    order: Order,
    read: impl FnMut(I::Item) -> T + 'a,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match order {
        Order::Oldest => Box::new(range.map(read)),
        Order::Newest => Box::new(range.rev().map(read)),
    }
}

/// The `seq`s of one row of a sender's index, as far as they lie within bounds.
fn block_seqs(entry: SenderEntry<'_>, order: Order, low: u64, high: u64) -> Result<Vec<u64>, Fault> {
    let (key, block) = entry?;
    let block = Block::decode(block.value())?;
    let mut seqs: Vec<_> = block.seqs(key.value().2).filter(|seq| (low..=high).contains(seq)).collect();
    if order == Order::Newest {
        seqs.reverse();
    }
    Ok(seqs)
}

/// Takes messages until the page is full.
fn fill<'a>(
    page: &mut Page,
    query: &Query,
    now: UnixMillis,
    found: impl Iterator<Item = Found<'a>>,
) -> Result<(), Fault> {
    let mut bytes = 0;
    for (looked_at, entry) in found.enumerate() {
        let (seq, content) = entry?;
        let (message, envelope) = MessageRow::decode(content.value())?;
        let expires = UnixMillis(message.expires);
        if looked_at >= LOOKED_AT {
            page.complete = false;
            return Ok(());
        }
        if UnixMillis(message.ends()) > now {
            bytes += envelope.len() as u64;
            let full = page.messages.len() as u64 >= query.max_messages;
            if full || (bytes > query.max_bytes && !page.messages.is_empty()) {
                page.complete = false;
                return Ok(());
            }
            let envelope = Envelope::parse(Bytes::copy_from_slice(envelope));
            let envelope = envelope.map_err(|error| Fault::corrupt(error.to_string()))?;
            let submitter = message.submitter_key.unwrap_or(envelope.header().sender);
            let signature = message.signature;
            page.messages.push(Arc::new(Stored { seq, submitter, envelope, signature, expires }));
        }
        page.cursor = Some(seq);
    }
    Ok(())
}

/// Counts what waits in a mailbox.
pub(super) fn status(transaction: &ReadTransaction, mailbox: PeerId, sender: Option<PeerId>) -> Result<Status, Fault> {
    let Some(mailbox) = number(transaction, mailbox)? else { return Ok(Status::default()) };
    let messages = transaction.open_table(MESSAGES)?;
    let counts = transaction.open_table(COUNTS)?;
    let Some(key) = sender else {
        let whole = row(&transaction.open_table(MAILBOXES)?, mailbox)?.unwrap_or_default();
        let by_size = transaction.open_table(BY_SIZE)?;
        return mailbox_status(mailbox, &whole, &messages, (&by_size, &counts), &transaction.open_table(PEERS)?);
    };
    let Some(sender) = number(transaction, key)? else { return Ok(Status::default()) };
    let Some(count): Option<Count> = row(&counts, (mailbox, sender))? else { return Ok(Status::default()) };
    let by_sender = transaction.open_table(BY_SENDER)?;
    let end = |entry: Option<SenderEntry<'_>>, order| -> Result<Option<u64>, Fault> {
        let seqs = entry.map(|entry| block_seqs(entry, order, 0, u64::MAX)).transpose()?;
        Ok(seqs.and_then(|seqs| seqs.first().copied()))
    };
    let arrived = |seq: Option<u64>| -> Result<Option<u64>, Fault> {
        let content = seq.map(|seq| messages.get((mailbox, seq))).transpose()?.flatten();
        content.map(|bytes| Ok(MessageRow::decode(bytes.value())?.0.arrived)).transpose()
    };
    let bounds = (mailbox, sender, 0)..=(mailbox, sender, u64::MAX);
    let oldest_ms = arrived(end(by_sender.range(bounds.clone())?.next(), Order::Oldest)?)?;
    let newest_ms = arrived(end(by_sender.range(bounds)?.next_back(), Order::Newest)?)?;
    let Count { messages, bytes } = count;
    let senders = vec![SenderCount { sender: key, messages, bytes }];
    Ok(Status { messages, bytes, oldest_ms, newest_ms, senders, more: false })
}

/// Counts what waits in a whole mailbox, in whatever transaction the tables are open.
pub(super) fn mailbox_status(
    mailbox: Number,
    whole: &MailboxRow,
    messages: &impl ReadableTable<(Number, u64), Bin>,
    (by_size, counts): (&impl ReadableTable<SizeAt, ()>, &impl ReadableTable<(Number, Number), Bin>),
    peers: &impl ReadableTable<Number, Bin>,
) -> Result<Status, Fault> {
    let mut senders = Vec::new();
    for entry in by_size.range((mailbox, 0, 0)..=(mailbox, u16::MAX, Number::MAX))?.take(COMPARED_SENDERS) {
        let sender = entry?.0.value().2;
        let count: Option<Count> = row(counts, (mailbox, sender))?;
        senders.push((count.ok_or_else(|| Fault::corrupt("a sender without a count"))?, sender));
    }
    senders.sort_by_key(|(count, sender)| (std::cmp::Reverse(count.messages), *sender));
    let more = senders.len() > MAX_STATUS_SENDERS;
    let named = senders.into_iter().take(MAX_STATUS_SENDERS).map(|(count, sender)| {
        let peer: Option<PeerRow> = row(peers, sender)?;
        let sender = peer.ok_or_else(|| Fault::corrupt("a number without a peer"))?.key;
        Ok(SenderCount { sender, messages: count.messages, bytes: count.bytes })
    });
    let senders = named.collect::<Result<Vec<_>, Fault>>()?;
    let mut range = messages.range((mailbox, 0)..=(mailbox, u64::MAX))?;
    let arrived = |entry: Option<Result<(_, AccessGuard<'_, Bin>), StorageError>>| {
        let Some((_, content)): Option<(AccessGuard<'_, (Number, u64)>, _)> = entry.transpose()? else {
            return Ok(None);
        };
        Ok::<_, Fault>(Some(MessageRow::decode(content.value())?.0.arrived))
    };
    let oldest_ms = arrived(range.next())?;
    let newest_ms = arrived(range.next_back())?.or(oldest_ms);
    Ok(Status { messages: whole.messages, bytes: whole.bytes, oldest_ms, newest_ms, senders, more })
}

/// How much there is: tables know their lengths, and what else is told is counted as it changes.
pub(super) fn totals(transaction: &ReadTransaction, file_bytes: u64) -> Result<Totals, Fault> {
    let counters: Counters = row(&transaction.open_table(COUNTERS)?, ())?.unwrap_or_default();
    let outboxes = transaction.open_table(LINKS)?.len()?;
    Ok(Totals {
        mailboxes: transaction.open_table(MAILBOXES)?.len()?.saturating_sub(outboxes),
        provisional: counters.provisional,
        messages: transaction.open_table(MESSAGES)?.len()?.saturating_sub(counters.forwarding),
        outboxes,
        forwarding: counters.forwarding,
        forwarding_bytes: counters.forwarding_bytes,
        lanes: transaction.open_table(LANES)?.len()?,
        file_bytes,
    })
}

/// The relays that this one forwards to, but for those whose rows cannot be read: nothing gets into their outboxes, and
/// the others go on.
pub(super) fn links(transaction: &ReadTransaction) -> Result<Vec<LinkState>, Fault> {
    let mailboxes = transaction.open_table(MAILBOXES)?;
    let mut links = Vec::new();
    for entry in transaction.open_table(LINKS)?.iter()? {
        let (number, bytes) = entry?;
        let read = LinkRow::decode(bytes.value()).map_err(Fault::from).and_then(|link| {
            let waiting = row(&mailboxes, number.value())?.map_or(0, |row: MailboxRow| row.messages);
            Ok((link, waiting))
        });
        match read {
            Ok((LinkRow { relay, store, foreign_below, address }, waiting)) => {
                links.push(LinkState { relay, address, store, foreign_below, waiting });
            }
            Err(Fault::Corrupt(what)) => {
                tracing::error!(outbox = number.value(), %what, "what waits for a relay whose row cannot be read stays");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(links)
}
