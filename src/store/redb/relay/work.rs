//! One transaction of the relay's store: its open tables, and the bookkeeping that keeps them in step.
//!
//! Whatever uses a peer's number holds a use of the peer's row, and lets it go here; a row that nothing uses is
//! removed, so that senders who come and go, each with a lane or two, leave nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::super::fault::Fault;
use super::blocks::Block;
use super::logged::{Log, Logged, LoggedTable, Place};
use super::messages::Messages;
use super::rows::Rows;
use super::schema::{
    ACCESS, BY_SENDER, BY_SIZE, CONTACTS, COUNTERS, COUNTS, ContactAt, Counters, DateRow, EXPIRY, ExpiryAt,
    INVITATIONS, InvitationRow, LANES, LINKS, LaneAt, LaneEntry, LinkRow, MAILBOXES, MESSAGES, MailboxRow, NUMBERS,
    Number, PAIRS, PEERS, POLICIES, PairAt, PeerRow, PolicyRow, REST, RestAt, Row, SEEN, SESSIONS, SenderAt, Single,
};
use super::settle::Counting;
use super::size::Counts;
use crate::delivery::lane::{LaneRow, TOUCH};
use crate::id::{LaneKey, PeerId};
use crate::store::{Forward, StoreLimits, Stored, outbox_key};
use crate::time::{UnixMillis, millis};

/// Opens every table, so that a new file has them all.
pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), Fault> {
    Work::open(transaction, Arc::default(), UnixMillis(0)).map(drop)
}

/// Hands to a macro the tables that are kept as rows, but for that of the counts, which keeps another in step.
macro_rules! each_rows {
    ($do:ident) => {
        $do!(
            numbers,
            peers,
            mailboxes,
            by_sender,
            expiry,
            lanes,
            pairs,
            links,
            seen,
            policies,
            contacts,
            access,
            invitations
        )
    };
}

/// The open tables of a transaction.
pub(super) struct Work<'t> {
    pub(super) now: UnixMillis,
    pub(super) limits: Arc<StoreLimits>,
    numbers: Rows<'t, [u8; 32], Single>,
    pub(super) peers: Rows<'t, Number, PeerRow>,
    pub(super) mailboxes: Rows<'t, Number, MailboxRow>,
    pub(super) counts: Counts<'t>,
    pub(super) lanes: Rows<'t, LaneAt, LaneEntry>,
    pub(super) pairs: Rows<'t, PairAt, Single>,
    pub(super) sessions: Logged<'t, (Number, u64), &'static str>,
    pub(super) messages: Messages<'t>,
    pub(super) by_sender: Rows<'t, SenderAt, Block>,
    pub(super) expiry: Rows<'t, ExpiryAt, Block>,
    pub(super) rest: Logged<'t, RestAt, ()>,
    pub(super) links: Rows<'t, Number, LinkRow>,
    pub(super) seen: Rows<'t, Number, DateRow>,
    pub(super) policies: Rows<'t, Number, PolicyRow>,
    pub(super) contacts: Rows<'t, ContactAt, Single>,
    pub(super) access: Rows<'t, [u8; 32], Single>,
    pub(super) invitations: Rows<'t, [u8; 32], InvitationRow>,
    counters_table: Logged<'t, (), &'static [u8]>,
    pub(super) counters: Counters,
    /// As they were written down last.
    counters_noted: Counters,
    /// There is something to commit, even if nothing was changed.
    pub(super) probed: bool,
    /// Sessions that began in this group of batches: the newest epoch of each peer and device.
    pub(super) fences: BTreeMap<(PeerId, u64), u64>,
    /// Sessions that ended in it, with their epochs.
    pub(super) ended: Vec<((PeerId, u64), u64)>,
    /// Messages to tell the watches of, and in whose mailboxes they are.
    pub(super) news: Vec<(PeerId, Arc<Stored>)>,
    pub(super) counting: Counting,
    log: Log,
}

impl<'t> Work<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        limits: Arc<StoreLimits>,
        now: UnixMillis,
    ) -> Result<Self, Fault> {
        let log = Log::default();
        macro_rules! open {
            ($table:ident) => {
                LoggedTable::open(transaction, $table, Place::$table, &log)?
            };
        }
        let counters_table = open!(COUNTERS);
        let counters = match counters_table.table().get(())? {
            Some(bytes) => Counters::decode(bytes.value())?,
            None => Counters::default(),
        };
        Ok(Self {
            now,
            limits,
            numbers: Rows::new(open!(NUMBERS)),
            peers: Rows::new(open!(PEERS)),
            mailboxes: Rows::new(open!(MAILBOXES)),
            counts: Counts::new(Rows::new(open!(COUNTS)), Logged::new(open!(BY_SIZE))),
            lanes: Rows::new(open!(LANES)),
            pairs: Rows::new(open!(PAIRS)),
            sessions: Logged::new(open!(SESSIONS)),
            messages: Messages::new(open!(MESSAGES)),
            by_sender: Rows::new(open!(BY_SENDER)),
            expiry: Rows::new(open!(EXPIRY)),
            rest: Logged::new(open!(REST)),
            links: Rows::new(open!(LINKS)),
            seen: Rows::new(open!(SEEN)),
            policies: Rows::new(open!(POLICIES)),
            contacts: Rows::new(open!(CONTACTS)),
            access: Rows::new(open!(ACCESS)),
            invitations: Rows::new(open!(INVITATIONS)),
            counters_table: Logged::new(counters_table),
            counters,
            counters_noted: counters,
            probed: false,
            fences: BTreeMap::new(),
            ended: Vec::new(),
            news: Vec::new(),
            counting: Counting::default(),
            log,
        })
    }

    /// Writes down what is kept in memory.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.counts.flush()?;
        macro_rules! flush {
            ($($rows:ident),*) => { $(self.$rows.flush();)* };
        }
        each_rows!(flush);
        if self.counters != self.counters_noted {
            let mut bytes = Vec::new();
            self.counters.encode(&mut bytes);
            self.counters_table.insert((), bytes.as_slice());
            self.counters_noted = self.counters;
        }
        Ok(())
    }

    /// What was written down, if there is something to commit.
    pub(super) fn changes(&self) -> Option<&Log> {
        let empty = self.log.borrow().is_empty();
        (!empty || self.probed).then_some(&self.log)
    }

    /// Brings into the tables what was written down.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        macro_rules! write {
            ($($table:ident),*) => { $(self.$table.write()?;)* };
        }
        each_rows!(write);
        write!(counts, sessions, messages, rest, counters_table);
        Ok(())
    }

    /// The peer's number, if any row speaks of it.
    pub(super) fn number(&mut self, peer: PeerId) -> Result<Option<Number>, Fault> {
        Ok(self.numbers.get(*peer.as_bytes())?.map(|number| number.value))
    }

    /// The peer's number, made if it has none. The caller then takes a use of it, in the same transaction.
    pub(super) fn number_or_new(&mut self, peer: PeerId) -> Result<Number, Fault> {
        if let Some(number) = self.number(peer)? {
            return Ok(number);
        }
        let value = self.counters.next_number;
        self.counters.next_number = value.checked_add(1).ok_or_else(|| Fault::corrupt("all peer numbers are used"))?;
        self.numbers.put(*peer.as_bytes(), Single { value });
        self.peers.put(value, PeerRow { key: peer, uses: 0, lanes: 0, provisional: 0 });
        Ok(value)
    }

    /// The row of a peer whose number is in use.
    pub(super) fn peer(&mut self, number: Number) -> Result<&mut PeerRow, Fault> {
        self.peers.change(number)?.ok_or_else(|| Fault::corrupt("a number without a peer"))
    }

    fn use_number(&mut self, number: Number) -> Result<(), Fault> {
        self.peer(number)?.uses += 1;
        Ok(())
    }

    fn release_number(&mut self, number: Number) -> Result<(), Fault> {
        let peer = self.peer(number)?;
        peer.uses = peer.uses.saturating_sub(1);
        if peer.uses == 0 {
            let key = *peer.key.as_bytes();
            self.numbers.remove(key);
            self.peers.remove(number);
        }
        Ok(())
    }

    /// Makes the mailbox of a peer that has none; a provisional one if somebody caused it by a message.
    pub(super) fn make_mailbox(&mut self, of: Number, caused_by: Option<Number>) -> Result<(), Fault> {
        self.use_number(of)?;
        let last_seq = self.counters.seq_floor;
        let mut row = MailboxRow { last_seq, ..MailboxRow::default() };
        if let Some(causer) = caused_by {
            self.use_number(causer)?;
            self.peer(causer)?.provisional += 1;
            self.counters.provisional += 1;
            row.provisional_by = causer.saturating_add(1);
        }
        self.mailboxes.put(of, row);
        Ok(())
    }

    /// Makes the outbox for another relay if there is none, and notes where that relay is. Whatever is in it may be
    /// handed out at any time.
    pub(super) fn outbox(&mut self, forward: &Forward) -> Result<Number, Fault> {
        let number = self.number_or_new(outbox_key(&forward.relay))?;
        if self.links.get(number)?.is_none() {
            // Somebody may have written to a peer of that name before.
            if self.mailboxes.get(number)?.is_none() {
                self.make_mailbox(number, None)?;
            }
            self.keep_mailbox(number)?;
            self.mailboxes.change_or(number, MailboxRow::default)?.open = 1;
        }
        let address = &forward.address;
        if self.links.get(number)?.is_none_or(|row| row.address != *address) {
            let new = || LinkRow { relay: forward.relay, store: None, foreign_below: 0, address: String::new() };
            self.links.change_or(number, new)?.address.clone_from(address);
        }
        Ok(number)
    }

    /// The mailbox is not provisional any more.
    pub(super) fn keep_mailbox(&mut self, of: Number) -> Result<(), Fault> {
        let Some(row) = self.mailboxes.change(of)? else { return Ok(()) };
        let Some(causer) = row.caused_by() else { return Ok(()) };
        row.provisional_by = 0;
        self.counters.provisional = self.counters.provisional.saturating_sub(1);
        let peer = self.peer(causer)?;
        peer.provisional = peer.provisional.saturating_sub(1);
        self.release_number(causer)
    }

    /// A provisional mailbox with nothing left in it goes: otherwise whoever fills them once has used up all
    /// the relay's for good.
    pub(super) fn drop_empty_provisional(&mut self, of: Number) -> Result<(), Fault> {
        let Some(row) = self.mailboxes.get(of)? else { return Ok(()) };
        if row.messages > 0 || row.caused_by().is_none() {
            return Ok(());
        }
        self.drop_mailbox(of)
    }

    /// A mailbox with nothing in it goes.
    pub(super) fn drop_mailbox(&mut self, of: Number) -> Result<(), Fault> {
        let Some(row) = self.mailboxes.get(of)?.copied() else { return Ok(()) };
        self.counters.seq_floor = self.counters.seq_floor.max(row.last_seq);
        self.keep_mailbox(of)?;
        self.mailboxes.remove(of);
        self.release_number(of)
    }

    /// An outbox with nothing in it goes, and what is known of its relay: otherwise every relay that anybody ever
    /// named would stay for good.
    pub(super) fn drop_empty_outbox(&mut self, of: PeerId) -> Result<(), Fault> {
        let Some(number) = self.number(of)? else { return Ok(()) };
        let Some(row) = self.mailboxes.get(number)?.copied() else { return Ok(()) };
        if row.messages > 0 || self.links.get(number)?.is_none() {
            return Ok(());
        }
        self.links.remove(number);
        self.drop_mailbox(number)
    }

    /// Where the lane of a submitter stands, if all of its peers are known.
    pub(super) fn lane_at(&mut self, submitter: PeerId, key: &LaneKey) -> Result<Option<LaneAt>, Fault> {
        let Some(submitter) = self.number(submitter)? else { return Ok(None) };
        let Some(sender) = self.number(key.pair.sender)? else { return Ok(None) };
        let Some(recipient) = self.number(key.pair.recipient)? else { return Ok(None) };
        Ok(Some((submitter, sender, recipient, key.lane.0)))
    }

    /// The lane's row, to be changed, made if there is none.
    pub(super) fn lane(&mut self, at: LaneAt) -> Result<&mut LaneRow, Fault> {
        if self.lanes.get(at)?.is_none() {
            let (submitter, sender, recipient, lane) = at;
            for number in [submitter, sender, recipient] {
                self.use_number(number)?;
            }
            self.peer(submitter)?.lanes += 1;
            self.pairs.change_or((submitter, sender, recipient), Single::default)?.value += 1;
            let rest = hour_after(self.now + TOUCH + self.limits.lane_rest);
            self.rest.insert((rest, submitter, sender, recipient, lane), ());
            self.lanes.put(at, LaneEntry { rest, row: LaneRow::new(self.now) });
        }
        let entry = self.lanes.change(at)?.ok_or_else(|| Fault::corrupt("a lane without its row"))?;
        Ok(&mut entry.row)
    }

    /// Removes a lane's row, unless something is pending in it; false if it stays or there is none.
    pub(super) fn drop_lane(&mut self, at: LaneAt) -> Result<bool, Fault> {
        let (submitter, sender, recipient, lane) = at;
        let Some(entry) = self.lanes.get(at)?.filter(|entry| entry.row.pending() == 0) else { return Ok(false) };
        self.rest.remove((entry.rest, submitter, sender, recipient, lane));
        self.lanes.remove(at);
        let peer = self.peer(submitter)?;
        peer.lanes = peer.lanes.saturating_sub(1);
        let pair = (submitter, sender, recipient);
        let left = self.pairs.change_or(pair, Single::default)?;
        left.value = left.value.saturating_sub(1);
        if left.value == 0 {
            self.pairs.remove(pair);
        }
        for number in [submitter, sender, recipient] {
            self.release_number(number)?;
        }
        Ok(true)
    }
}

/// The first full hour at or after a date, in hours since 1970.
pub(super) fn hour_after(date: UnixMillis) -> u64 {
    date.0.div_ceil(millis(TOUCH))
}
