//! Whether the relay's tables agree with each other: for `posthouse check`, and for tests after every fault.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::super::fault::Fault;
use super::blocks::{Block, block_of};
use super::rows::Plain;
use super::schema::{
    BY_SENDER, BY_SIZE, CONTACTS, COUNTERS, COUNTS, Count, Counters, EXPIRY, LANES, LINKS, LaneAt, LaneEntry,
    MAILBOXES, MESSAGES, MailboxRow, MessageRow, NUMBERS, Number, PAIRS, PEERS, POLICIES, PeerRow, PolicyRow, REST,
    Row, SEEN, SESSIONS, Single, expiry_at,
};
use super::size::place;
use crate::delivery::lane::Fate;
use crate::id::PeerId;
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

/// What the rows read so far say that the others have to hold.
struct Check<'a> {
    transaction: &'a ReadTransaction,
    report: CheckReport,
    counts: BTreeMap<(Number, Number), Count>,
    /// Messages and bytes.
    pending: BTreeMap<LaneAt, (u64, u64)>,
    /// The peers' rows as they should be, but for their keys.
    peers: BTreeMap<Number, PeerRow>,
    provisional: u64,
    forwarding: Count,
}

/// Reads everything. Takes memory by mailboxes, senders and lanes, and a read transaction all the while: not
/// for a busy relay.
pub(super) fn check(transaction: &ReadTransaction) -> Result<CheckReport, Fault> {
    let mut check = Check {
        transaction,
        report: CheckReport::default(),
        counts: BTreeMap::new(),
        pending: BTreeMap::new(),
        peers: BTreeMap::new(),
        provisional: 0,
        forwarding: Count::default(),
    };
    check.messages()?;
    check.mailboxes()?;
    check.owners()?;
    check.lanes()?;
    check.peers()?;
    Ok(check.report)
}

fn row<K: Plain, R: Row>(table: &impl ReadableTable<K, &'static [u8]>, key: K) -> Result<Option<R>, Fault> {
    Ok(table.get(key)?.map(|bytes| R::decode(bytes.value())).transpose()?)
}

/// How many messages an index names.
fn named<K: Plain>(table: &impl ReadableTable<K, &'static [u8]>) -> Result<u64, Fault> {
    let mut all = 0;
    for entry in table.iter()? {
        all += Block::decode(entry?.1.value())?.count();
    }
    Ok(all)
}

impl Check<'_> {
    fn claim(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds && self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(problem());
        }
    }

    fn uses(&mut self, number: Number, lanes: u64, provisional: u64) {
        let none = PeerRow { key: PeerId::from_bytes([0; 32]), uses: 0, lanes: 0, provisional: 0 };
        let row = self.peers.entry(number).or_insert(none);
        row.uses += 1;
        row.lanes += lanes;
        row.provisional += provisional;
    }

    /// Every message is in its sender's index, has its deadline and is pending in its lane.
    fn messages(&mut self) -> Result<(), Fault> {
        let lanes = self.transaction.open_table(LANES)?;
        let (by_sender, expiry) = (self.transaction.open_table(BY_SENDER)?, self.transaction.open_table(EXPIRY)?);
        for entry in self.transaction.open_table(MESSAGES)?.iter()? {
            let (key, content) = entry?;
            let (mailbox, seq) = key.value();
            let (message, envelope) = MessageRow::decode(content.value())?;
            let bytes = envelope.len() as u64;
            let envelope = Envelope::parse(Bytes::copy_from_slice(envelope));
            let envelope = envelope.map_err(|error| Fault::corrupt(error.to_string()))?;
            let header = envelope.header();
            let at = message.lane(mailbox, header.lane.0);
            let lane: Option<LaneEntry> = row(&lanes, at)?;
            let pending = lane.is_some_and(|lane| lane.row.fate(header.n) == Fate::Pending);
            let held: Option<Block> = row(&by_sender, (mailbox, message.sender, block_of(seq)))?;
            let indexed = held.is_some_and(|block| block.contains(seq));
            let held: Option<Block> = row(&expiry, expiry_at(message.ends(), mailbox, seq))?;
            let dated = held.is_some_and(|block| block.contains(seq));
            self.claim(pending, || format!("message {seq} of mailbox {mailbox} is not pending in its lane"));
            self.claim(indexed, || format!("message {seq} of mailbox {mailbox} is not in its sender's index"));
            self.claim(dated, || format!("message {seq} of mailbox {mailbox} has no deadline"));
            let count = self.counts.entry((mailbox, message.sender)).or_default();
            count.messages += 1;
            count.bytes += bytes;
            if message.recipient.is_some() {
                self.forwarding.messages += 1;
                self.forwarding.bytes += bytes;
            }
            let held = self.pending.entry(at).or_default();
            held.0 += 1;
            held.1 += bytes;
            self.report.messages += 1;
        }
        let all = self.report.messages;
        let (named, dated) = (named(&by_sender)?, named(&expiry)?);
        self.claim(named == all, || "the senders' index names messages that are gone".to_owned());
        self.claim(dated == all, || "there are deadlines of messages that are gone".to_owned());
        Ok(())
    }

    /// Every mailbox counts what is in it, and its open sessions.
    fn mailboxes(&mut self) -> Result<(), Fault> {
        let mut open = BTreeMap::<Number, u32>::new();
        for entry in self.transaction.open_table(SESSIONS)?.iter()? {
            *open.entry(entry?.0.value().0).or_default() += 1;
        }
        let links = self.transaction.open_table(LINKS)?;
        for entry in self.transaction.open_table(MAILBOXES)?.iter()? {
            let (key, row) = entry?;
            let (key, row) = (key.value(), MailboxRow::decode(row.value())?);
            let of = self.counts.range((key, 0)..=(key, Number::MAX));
            let held = of.fold((0, 0), |sum, (_, count)| (sum.0 + count.messages, sum.1 + count.bytes));
            self.claim((row.messages, row.bytes) == held, || format!("mailbox {key} holds {held:?} and says {row:?}"));
            let sessions = open.remove(&key).unwrap_or(0);
            let sessions = sessions + u32::from(links.get(key)?.is_some());
            self.claim(row.open == sessions, || format!("mailbox {key} has {sessions} open sessions and says {row:?}"));
            self.claim(row.mark <= row.last_seq, || format!("mailbox {key} is marked beyond its last message"));
            self.uses(key, 0, 0);
            if let Some(causer) = row.caused_by() {
                self.claim(row.messages > 0, || format!("mailbox {key} is provisional and empty"));
                self.uses(causer, 0, 1);
                self.provisional += 1;
            }
            self.report.mailboxes += 1;
        }
        self.claim(open.is_empty(), || "a session is open without a mailbox".to_owned());
        let (counts, by_size) = (self.transaction.open_table(COUNTS)?, self.transaction.open_table(BY_SIZE)?);
        let in_place = counts.len()? == by_size.len()?;
        self.claim(in_place, || "senders that are gone have a place by their size".to_owned());
        for entry in counts.iter()? {
            let (key, count) = entry?;
            let (key, count) = (key.value(), Count::decode(count.value())?);
            let in_place = by_size.get((key.0, place(count.messages), key.1))?.is_some();
            self.claim(in_place, || format!("sender {} of mailbox {} is not where its size belongs", key.1, key.0));
            let right = self.counts.remove(&key) == Some(count);
            self.claim(right, || format!("what waits in mailbox {} from {} is counted wrong", key.0, key.1));
        }
        let uncounted = self.counts.len();
        self.claim(uncounted == 0, || format!("messages of {uncounted} pairs are not counted"));
        Ok(())
    }

    /// What owners have set belongs to a mailbox, and lists are counted right.
    fn owners(&mut self) -> Result<(), Fault> {
        let mailboxes = self.transaction.open_table(MAILBOXES)?;
        for entry in self.transaction.open_table(SEEN)?.iter()? {
            let number = entry?.0.value();
            let there = mailboxes.get(number)?.is_some();
            self.claim(there, || format!("the owner of mailbox {number}, which is gone, was seen"));
        }
        let mut contacts = BTreeMap::<Number, u64>::new();
        for entry in self.transaction.open_table(CONTACTS)?.iter()? {
            *contacts.entry(entry?.0.value().0).or_default() += 1;
        }
        for entry in self.transaction.open_table(POLICIES)?.iter()? {
            let (number, policy) = entry?;
            let (number, policy) = (number.value(), PolicyRow::decode(policy.value())?);
            let there = mailboxes.get(number)?.is_some();
            self.claim(there, || format!("the owner of mailbox {number}, which is gone, takes messages"));
            let right = contacts.remove(&number).unwrap_or(0) == policy.contacts;
            self.claim(right, || format!("the contacts of mailbox {number} are counted wrong"));
        }
        self.claim(contacts.is_empty(), || "there are contacts that are not counted".to_owned());
        Ok(())
    }

    /// Every lane counts what is pending, and will be looked at one day.
    fn lanes(&mut self) -> Result<(), Fault> {
        let rest = self.transaction.open_table(REST)?;
        let mut pairs = BTreeMap::<_, u32>::new();
        for entry in self.transaction.open_table(LANES)?.iter()? {
            let (key, entry) = entry?;
            let (at, entry) = (key.value(), LaneEntry::decode(entry.value())?);
            let (submitter, sender, recipient, lane) = at;
            let (says, held) = ((entry.row.pending(), entry.row.pending_bytes()), self.pending.remove(&at));
            let right = says == held.unwrap_or_default();
            self.claim(right, || format!("lane {at:?} says {says:?} are pending, of which are there {held:?}"));
            let resting = rest.get((entry.rest, submitter, sender, recipient, lane))?.is_some();
            self.claim(resting, || format!("lane {at:?} would stay for ever"));
            *pairs.entry((submitter, sender, recipient)).or_default() += 1;
            self.uses(submitter, 1, 0);
            self.uses(sender, 0, 0);
            self.uses(recipient, 0, 0);
            self.report.lanes += 1;
        }
        let all = self.report.lanes;
        self.claim(rest.len()? == all, || "lanes that are gone would be looked at".to_owned());
        for entry in self.transaction.open_table(PAIRS)?.iter()? {
            let (key, count) = entry?;
            let (key, count) = (key.value(), Single::decode(count.value())?.value);
            let right = pairs.remove(&key) == Some(count);
            self.claim(right, || format!("the lanes of {key:?} are counted wrong"));
        }
        self.claim(pairs.is_empty(), || "there are lanes that are not counted".to_owned());
        Ok(())
    }

    /// Every peer is found by its key, and has as many uses as rows speak of it.
    fn peers(&mut self) -> Result<(), Fault> {
        let numbers = self.transaction.open_table(NUMBERS)?;
        let counters: Counters = row(&self.transaction.open_table(COUNTERS)?, ())?.unwrap_or_default();
        let peers = self.transaction.open_table(PEERS)?;
        for entry in peers.iter()? {
            let (number, peer) = entry?;
            let (number, peer) = (number.value(), PeerRow::decode(peer.value())?);
            let found = self.peers.remove(&number).map(|found| PeerRow { key: peer.key, ..found });
            self.claim(found == Some(peer), || format!("peer {number} is {peer:?} and should be {found:?}"));
            let back: Option<Single> = row(&numbers, *peer.key.as_bytes())?;
            let right = back.is_some_and(|back| back.value == number);
            self.claim(right, || format!("peer {number} is not found by its key"));
            self.claim(number < counters.next_number, || format!("number {number} would be given twice"));
        }
        let unknown = self.peers.len();
        self.claim(unknown == 0, || format!("{unknown} numbers are used that no peer has"));
        self.claim(numbers.len()? == peers.len()?, || "there are keys of peers that are gone".to_owned());
        let forwarding = Count { messages: counters.forwarding, bytes: counters.forwarding_bytes };
        let held = self.forwarding;
        self.claim(held == forwarding, || format!("{held:?} is being forwarded, and {forwarding:?} is counted"));
        let provisional = self.provisional;
        self.claim(counters.provisional == provisional, || {
            format!("{provisional} mailboxes are provisional and {} are counted", counters.provisional)
        });
        Ok(())
    }
}
