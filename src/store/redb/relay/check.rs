//! Whether the relay's tables agree with each other: for `posthouse check`, and for tests after every fault.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable};

use super::super::fault::Fault;
use super::schema::{
    BY_SENDER, COUNTERS, COUNTS, Count, Counters, EXPIRY, LANES, LaneEntry, MAILBOXES, MESSAGES, MailboxRow,
    MessageRow, NUMBERS, Number, PAIRS, PEERS, PeerRow, REST, Row, SESSIONS, Single,
};
use crate::delivery::lane::Fate;
use crate::protocol::Envelope;

/// Problems that one check tells of.
const MAX_PROBLEMS: usize = 100;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Messages in all mailboxes.
    pub messages: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Lane rows.
    pub lanes: u64,
    /// What does not fit together; none in a sound store. At most 100 are told.
    pub problems: Vec<String>,
}

impl CheckReport {
    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds && self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem());
        }
    }
}

/// Reads everything. Takes memory by mailboxes, senders and lanes, and a read transaction all the while: not
/// for a busy relay.
pub(super) fn check(transaction: &ReadTransaction) -> Result<CheckReport, Fault> {
    let mut report = CheckReport::default();
    let mut counts = BTreeMap::<(Number, Number), Count>::new();
    let mut pending = BTreeMap::<(Number, Number, Number, u64), (u64, u64)>::new();
    let (by_sender, expiry) = (transaction.open_table(BY_SENDER)?, transaction.open_table(EXPIRY)?);
    let lanes = transaction.open_table(LANES)?;
    for entry in transaction.open_table(MESSAGES)?.iter()? {
        let (key, content) = entry?;
        let (mailbox, seq) = key.value();
        let (row, bytes) = MessageRow::decode(content.value())?;
        let envelope =
            Envelope::parse(bytes::Bytes::copy_from_slice(bytes)).map_err(|e| Fault::corrupt(e.to_string()))?;
        let (header, bytes) = (envelope.header(), bytes.len() as u64);
        let count = counts.entry((mailbox, row.sender)).or_default();
        count.messages += 1;
        count.bytes += bytes;
        let name = || format!("message {seq} of mailbox {mailbox}");
        report
            .expect(by_sender.get((mailbox, row.sender, seq))?.is_some(), || format!("{}: no sender's index", name()));
        report.expect(expiry.get((row.expires, mailbox, seq))?.is_some(), || format!("{}: no deadline", name()));
        let at = (row.submitter, row.sender, mailbox, header.lane.0);
        let lane = lanes.get(at)?.map(|bytes| LaneEntry::decode(bytes.value())).transpose()?;
        let is_pending = lane.is_some_and(|lane| lane.row.fate(header.n) == Fate::Pending);
        report.expect(is_pending, || format!("{}: not pending in its lane", name()));
        let (messages, all) = pending.entry(at).or_default();
        (*messages, *all) = (*messages + 1, *all + bytes);
        report.messages += 1;
    }
    let messages = report.messages;
    report.expect(by_sender.iter()?.count() as u64 == messages, || "the senders' index has more".to_owned());
    report.expect(expiry.iter()?.count() as u64 == messages, || "there are more deadlines than messages".to_owned());

    let mut uses = BTreeMap::<Number, PeerRow>::new();
    let mut used = |number: Number, lanes: u64, provisional: u64| {
        let none = PeerRow { key: crate::id::PeerId::from_bytes([0; 32]), uses: 0, lanes: 0, provisional: 0 };
        let row = uses.entry(number).or_insert(none);
        (row.uses, row.lanes, row.provisional) = (row.uses + 1, row.lanes + lanes, row.provisional + provisional);
    };
    let mut open = BTreeMap::<Number, u32>::new();
    for entry in transaction.open_table(SESSIONS)?.iter()? {
        *open.entry(entry?.0.value().0).or_default() += 1;
    }
    let mut provisional = 0;
    for entry in transaction.open_table(MAILBOXES)?.iter()? {
        let (key, row) = entry?;
        let (key, row) = (key.value(), MailboxRow::decode(row.value())?);
        let of = counts.range((key, 0)..=(key, Number::MAX));
        let (messages, bytes) = of.fold((0, 0), |(m, b), (_, count)| (m + count.messages, b + count.bytes));
        report.expect((row.messages, row.bytes) == (messages, bytes), || format!("mailbox {key} counts wrong"));
        report.expect(row.open == open.remove(&key).unwrap_or(0), || format!("mailbox {key}: open sessions"));
        report.expect(row.mark <= row.last_seq, || format!("mailbox {key}: marked beyond its last message"));
        used(key, 0, 0);
        if let Some(causer) = row.caused_by() {
            report.expect(row.messages > 0, || format!("mailbox {key} is provisional and empty"));
            used(causer, 0, 1);
            provisional += 1;
        }
        report.mailboxes += 1;
    }
    report.expect(open.is_empty(), || "a session without a mailbox".to_owned());
    for entry in transaction.open_table(COUNTS)?.iter()? {
        let (key, count) = entry?;
        let (key, count) = (key.value(), Count::decode(count.value())?);
        report.expect(counts.remove(&key) == Some(count), || format!("the count of {key:?} is wrong"));
    }
    report.expect(counts.is_empty(), || "messages that nobody counts".to_owned());

    let rest = transaction.open_table(REST)?;
    let mut pairs = BTreeMap::<_, u32>::new();
    for entry in lanes.iter()? {
        let (key, entry) = entry?;
        let (at, entry) = (key.value(), LaneEntry::decode(entry.value())?);
        let (submitter, sender, recipient, lane) = at;
        let held = (entry.row.pending(), entry.row.pending_bytes());
        report.expect(pending.remove(&at).unwrap_or_default() == held, || format!("lane {at:?} counts wrong"));
        let resting = rest.get((entry.rest, submitter, sender, recipient, lane))?.is_some();
        report.expect(resting, || format!("lane {at:?} would stay for ever"));
        *pairs.entry((submitter, sender, recipient)).or_default() += 1;
        used(submitter, 1, 0);
        used(sender, 0, 0);
        used(recipient, 0, 0);
        report.lanes += 1;
    }
    let lane_rows = report.lanes;
    report.expect(rest.iter()?.count() as u64 == lane_rows, || "more lanes rest than there are".to_owned());
    for entry in transaction.open_table(PAIRS)?.iter()? {
        let (key, count) = entry?;
        let (key, count) = (key.value(), Single::decode(count.value())?.value);
        report.expect(pairs.remove(&key) == Some(count), || format!("the lanes of {key:?} are counted wrong"));
    }
    report.expect(pairs.is_empty(), || "lanes that nobody counts".to_owned());

    let (numbers, mut peers) = (transaction.open_table(NUMBERS)?, 0);
    let counters =
        transaction.open_table(COUNTERS)?.get(())?.map(|bytes| Counters::decode(bytes.value())).transpose()?;
    let counters = counters.unwrap_or_default();
    for entry in transaction.open_table(PEERS)?.iter()? {
        let (number, row) = entry?;
        let (number, row) = (number.value(), PeerRow::decode(row.value())?);
        let right = uses.remove(&number).is_some_and(|found| PeerRow { key: row.key, ..found } == row);
        report.expect(right, || format!("peer {number} is counted wrong: {row:?}"));
        let back = numbers.get(*row.key.as_bytes())?.map(|bytes| Single::decode(bytes.value())).transpose()?;
        report
            .expect(back.is_some_and(|back| back.value == number), || format!("peer {number} is not found by its key"));
        report.expect(number < counters.next_number, || format!("peer {number} will be given again"));
        peers += 1;
    }
    report.expect(uses.is_empty(), || "numbers without a peer".to_owned());
    report.expect(numbers.iter()?.count() == peers, || "more keys than peers".to_owned());
    report.expect(counters.provisional == provisional, || "provisional mailboxes are counted wrong".to_owned());
    Ok(report)
}
