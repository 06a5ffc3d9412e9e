//! The relay's tables and rows.
//!
//! Peers are known by numbers: 32-byte keys in every row cost a third of the throughput. A peer's row lives as
//! long as something uses its number, and a number is never given twice.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | numbers | peer's key | its number |
//! | peers | number | [`PeerRow`] |
//! | mailboxes | number | [`MailboxRow`] |
//! | sessions | mailbox, device | the client's address: the sessions that are open |
//! | messages | mailbox, seq | [`MessageRow`] and the envelope |
//! | by_sender | mailbox, sender, block | [`Block`](super::blocks::Block): which `seq`s of that block are the sender's |
//! | counts | mailbox, sender | [`Count`]: what waits from one sender |
//! | by_size | mailbox, place, sender | nothing: the senders, those with the most messages first |
//! | expiry | deadline in Unix s, mailbox, block | [`Block`](super::blocks::Block): which `seq`s of that block run out then |
//! | lanes | submitter, sender, recipient, lane | [`LaneEntry`] |
//! | pairs | submitter, sender, recipient | how many lanes |
//! | rest | hour, submitter, sender, recipient, lane | nothing: when to look whether a lane's row may go |
//! | counters | nothing | [`Counters`] |
//! | links | number of an outbox | [`LinkRow`]: the relay that it is for |
//! | seen | mailbox | when a session of its owner began or ended last, Unix ms |
//! | policies | mailbox | [`PolicyRow`]: whose messages its owner takes |
//! | contacts | mailbox, peer's key | how its owner decided about that peer: [`ALLOWED`] or [`BLOCKED`] |
//! | access | peer's key | how the operator decided about it: [`ALLOWED`] or [`BLOCKED`] |
//! | invitations | what is kept of the token | [`InvitationRow`] |
//!
//! What is forwarded lies in the outbox for its relay. That is a mailbox as well, whose owner is this relay itself:
//! all of the above holds for it, but that its messages are for many recipients, which their rows name.

use redb::TableDefinition;

use crate::delivery::Damaged;
use crate::delivery::compact::{Reader, put_number};
use crate::delivery::lane::LaneRow;
use crate::id::{PeerId, RelayId, StoreId};
use crate::protocol::limit::SILENCE_GRACE;
use crate::time::millis;

use super::super::file::Schema;
use super::blocks::block_of;
use super::logged::replay;
use super::size::SizeAt;

/// The version of all this. Whoever changes a table of a release adds the step that leads there.
pub(super) const SCHEMA: Schema = Schema { kind: "relay", upgrades: &[], replay: Some(replay) };

/// The number of a peer in this file.
pub(super) type Number = u32;
/// Submitter, sender, recipient, lane.
pub(super) type LaneAt = (Number, Number, Number, u64);
/// Submitter, sender, recipient.
pub(super) type PairAt = (Number, Number, Number);
/// Mailbox, sender, block.
pub(super) type SenderAt = (Number, Number, u64);
/// Deadline in Unix seconds, mailbox, block.
pub(super) type ExpiryAt = (u64, Number, u64);
/// Mailbox, and the key of a peer that its owner decided about.
pub(super) type ContactAt = (Number, [u8; 32]);
/// Hour, submitter, sender, recipient, lane.
pub(super) type RestAt = (u64, Number, Number, Number, u64);

type Bytes = &'static [u8];
pub(super) const NUMBERS: TableDefinition<'_, [u8; 32], Bytes> = TableDefinition::new("numbers");
pub(super) const PEERS: TableDefinition<'_, Number, Bytes> = TableDefinition::new("peers");
pub(super) const MAILBOXES: TableDefinition<'_, Number, Bytes> = TableDefinition::new("mailboxes");
pub(super) const SESSIONS: TableDefinition<'_, (Number, u64), &str> = TableDefinition::new("sessions");
pub(super) const MESSAGES: TableDefinition<'_, (Number, u64), Bytes> = TableDefinition::new("messages");
pub(super) const BY_SENDER: TableDefinition<'_, SenderAt, Bytes> = TableDefinition::new("by_sender");
pub(super) const COUNTS: TableDefinition<'_, (Number, Number), Bytes> = TableDefinition::new("counts");
pub(super) const BY_SIZE: TableDefinition<'_, SizeAt, ()> = TableDefinition::new("by_size");
pub(super) const EXPIRY: TableDefinition<'_, ExpiryAt, Bytes> = TableDefinition::new("expiry");
pub(super) const LANES: TableDefinition<'_, LaneAt, Bytes> = TableDefinition::new("lanes");
pub(super) const PAIRS: TableDefinition<'_, PairAt, Bytes> = TableDefinition::new("pairs");
pub(super) const REST: TableDefinition<'_, RestAt, ()> = TableDefinition::new("rest");
pub(super) const COUNTERS: TableDefinition<'_, (), Bytes> = TableDefinition::new("counters");
pub(super) const LINKS: TableDefinition<'_, Number, Bytes> = TableDefinition::new("links");
pub(super) const SEEN: TableDefinition<'_, Number, Bytes> = TableDefinition::new("seen");
pub(super) const POLICIES: TableDefinition<'_, Number, Bytes> = TableDefinition::new("policies");
pub(super) const CONTACTS: TableDefinition<'_, ContactAt, Bytes> = TableDefinition::new("contacts");
pub(super) const ACCESS: TableDefinition<'_, [u8; 32], Bytes> = TableDefinition::new("access");
pub(super) const INVITATIONS: TableDefinition<'_, [u8; 32], Bytes> = TableDefinition::new("invitations");

/// In `contacts` and `access`.
pub(super) const ALLOWED: u32 = 1;
pub(super) const BLOCKED: u32 = 2;

/// Hands every table to a macro. A new one is added at the end: journals name them by their places.
macro_rules! each_table {
    ($do:ident) => {
        $do! {
            NUMBERS,
            PEERS,
            MAILBOXES,
            SESSIONS,
            MESSAGES,
            BY_SENDER,
            COUNTS,
            BY_SIZE,
            EXPIRY,
            LANES,
            PAIRS,
            REST,
            COUNTERS,
            LINKS,
            SEEN,
            POLICIES,
            CONTACTS,
            ACCESS,
            INVITATIONS
        }
    };
}
pub(super) use each_table;

/// Where a message's deadline stands. In whole seconds, rounded up: what was sent at about the same time shares
/// rows, and a message without takers ends up to a second later than it could.
pub(super) const fn expiry_at(expires: u64, mailbox: Number, seq: u64) -> ExpiryAt {
    (expires.div_ceil(1000), mailbox, block_of(seq))
}

/// A row as bytes.
pub(super) trait Row: Sized {
    fn encode(&self, bytes: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Result<Self, Damaged>;
}

/// A row that is a list of numbers, in the order of its fields.
macro_rules! number_row {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(super) struct $name {
            $($(#[$field_doc])* pub(super) $field: $type,)*
        }

        impl Row for $name {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $(put_number(bytes, u64::from(self.$field));)*
            }

            fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
                let mut reader = Reader::new(bytes);
                let row = Self { $($field: {
                    let number = reader.number()?;
                    <$type>::try_from(number).map_err(|_| Damaged("a number is too large"))?
                },)* };
                reader.end().map(|()| row)
            }
        }
    };
}

number_row! {
    /// A single number: of a peer, or of lanes.
    Single {
        value: u32,
    }
}

number_row! {
    /// What waits in a mailbox from one sender.
    Count {
        /// Messages.
        messages: u64,
        /// Bytes of their envelopes.
        bytes: u64,
    }
}

number_row! {
    /// A mailbox.
    MailboxRow {
        /// Messages in it.
        messages: u64,
        /// Bytes of their envelopes.
        bytes: u64,
        /// The highest `seq` it ever gave.
        last_seq: u64,
        /// Messages up to this `seq` may have been handed out. Never goes down.
        mark: u64,
        /// Sessions that are open: any message may be handed out.
        open: u32,
        /// Who caused this mailbox of a peer never seen, as number plus 1; 0 for a lasting one.
        provisional_by: u32,
    }
}

number_row! {
    /// A date, Unix ms.
    DateRow {
        ms: u64,
    }
}

number_row! {
    /// Whose messages the owner of a mailbox takes.
    PolicyRow {
        /// 1 if only those of peers that it allowed.
        contacts_only: u32,
        /// How many peers it decided about.
        contacts: u64,
    }
}

number_row! {
    /// An invitation.
    InvitationRow {
        /// How many peers may still use it.
        uses: u64,
        /// When it is over, Unix ms.
        expires: u64,
    }
}

number_row! {
    /// Numbers about the whole store.
    Counters {
        /// The number that the next new peer gets.
        next_number: u32,
        /// Provisional mailboxes.
        provisional: u64,
        /// The highest `seq` that a mailbox gave which is gone: a new one goes on from there.
        seq_floor: u64,
        /// Messages in all outboxes, and their bytes.
        forwarding: u64,
        forwarding_bytes: u64,
    }
}

impl MailboxRow {
    /// Whether a message may have been taken by the recipient.
    pub(super) const fn may_have_handed_out(&self, seq: u64) -> bool {
        self.open > 0 || seq <= self.mark
    }

    /// Who caused it, if it is provisional.
    pub(super) const fn caused_by(&self) -> Option<Number> {
        self.provisional_by.checked_sub(1)
    }
}

/// A peer that some row speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerRow {
    pub(super) key: PeerId,
    /// Rows that use its number: its mailbox, lanes (three uses each), provisional mailboxes it caused.
    pub(super) uses: u64,
    /// Lane rows it has as a submitter.
    pub(super) lanes: u64,
    /// Provisional mailboxes it caused.
    pub(super) provisional: u64,
}

impl Row for PeerRow {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.key.as_bytes());
        for number in [self.uses, self.lanes, self.provisional] {
            put_number(bytes, number);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let key = PeerId::from_bytes(reader.array()?);
        let (uses, lanes, provisional) = (reader.number()?, reader.number()?, reader.number()?);
        reader.end().map(|()| Self { key, uses, lanes, provisional })
    }
}

/// A lane's row, and in which hour of `rest` it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneEntry {
    pub(super) rest: u64,
    pub(super) row: LaneRow,
}

impl Row for LaneEntry {
    fn encode(&self, bytes: &mut Vec<u8>) {
        put_number(bytes, self.rest);
        self.row.encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let rest = reader.number()?;
        Ok(Self { rest, row: LaneRow::decode(reader.rest())? })
    }
}

/// What an outbox belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkRow {
    pub(super) relay: RelayId,
    /// The store that answered there last, and the `seq` below which messages may have been offered to another.
    pub(super) store: Option<StoreId>,
    pub(super) foreign_below: u64,
    /// Where it is, as the last message said.
    pub(super) address: String,
}

impl Row for LinkRow {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.relay.as_bytes());
        bytes.push(u8::from(self.store.is_some()));
        if let Some(store) = self.store {
            bytes.extend_from_slice(&store.0);
        }
        put_number(bytes, self.foreign_below);
        bytes.extend_from_slice(self.address.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let relay = RelayId::from_bytes(reader.array()?);
        let store = if reader.byte()? == 0 { None } else { Some(StoreId(reader.array()?)) };
        let foreign_below = reader.number()?;
        let address = std::str::from_utf8(reader.rest()).map_err(|_| Damaged("an address is no text"))?;
        Ok(Self { relay, store, foreign_below, address: address.to_owned() })
    }
}

/// What stands before the envelope in `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageRow {
    /// Whose lane row it is pending in.
    pub(super) submitter: Number,
    /// The same, where it is not the sender itself.
    pub(super) submitter_key: Option<PeerId>,
    pub(super) sender: Number,
    /// For whom it is, where it lies in an outbox.
    pub(super) recipient: Option<Number>,
    /// When it came, Unix ms.
    pub(super) arrived: u64,
    /// When its time runs out, Unix ms.
    pub(super) expires: u64,
    pub(super) signature: Option<[u8; 64]>,
}

const HAS_SIGNATURE: u8 = 1;
const HAS_SUBMITTER: u8 = 2;
const HAS_RECIPIENT: u8 = 4;

impl MessageRow {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        bytes.push(
            flag(self.signature.is_some(), HAS_SIGNATURE)
                | flag(self.submitter_key.is_some(), HAS_SUBMITTER)
                | flag(self.recipient.is_some(), HAS_RECIPIENT),
        );
        put_number(bytes, u64::from(self.submitter));
        put_number(bytes, u64::from(self.sender));
        put_number(bytes, self.arrived);
        put_number(bytes, self.expires.saturating_sub(self.arrived));
        if let Some(recipient) = self.recipient {
            put_number(bytes, u64::from(recipient));
        }
        if let Some(submitter) = &self.submitter_key {
            bytes.extend_from_slice(submitter.as_bytes());
        }
        if let Some(signature) = &self.signature {
            bytes.extend_from_slice(signature);
        }
    }

    /// Reads it, and what follows it: the envelope.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Damaged> {
        let mut reader = Reader::new(bytes);
        let flags = reader.byte()?;
        let number = |value| Number::try_from(value).map_err(|_| Damaged("a number is too large"));
        let (submitter, sender) = (number(reader.number()?)?, number(reader.number()?)?);
        let (arrived, lifetime) = (reader.number()?, reader.number()?);
        let expires = arrived.saturating_add(lifetime);
        let recipient = if flags & HAS_RECIPIENT == 0 { None } else { Some(number(reader.number()?)?) };
        let submitter_key = if flags & HAS_SUBMITTER == 0 { None } else { Some(PeerId::from_bytes(reader.array()?)) };
        let signature = if flags & HAS_SIGNATURE == 0 { None } else { Some(reader.array()?) };
        Ok((Self { submitter, submitter_key, sender, recipient, arrived, expires, signature }, reader.rest()))
    }

    /// The lane that it is pending in, if it lies in this mailbox.
    pub(super) fn lane(&self, mailbox: Number, lane: u64) -> LaneAt {
        (self.submitter, self.sender, self.recipient.unwrap_or(mailbox), lane)
    }

    /// When a sweep ends it, Unix ms. What was forwarded waits longer: the other relay's word decides.
    pub(super) fn ends(&self) -> u64 {
        let grace = if self.recipient.is_some() { millis(SILENCE_GRACE) } else { 0 };
        self.expires.saturating_add(grace)
    }
}

/// Reads bytes as each kind of row: for the fuzzer, which has to reach them.
#[cfg(fuzzing)]
pub fn read_any_row(bytes: &[u8]) {
    fn read<R: Row + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(row) = R::decode(bytes) else { return };
        let mut again = Vec::new();
        row.encode(&mut again);
        assert_eq!(R::decode(&again), Ok(row));
    }
    read::<PeerRow>(bytes);
    read::<MailboxRow>(bytes);
    read::<Counters>(bytes);
    read::<LinkRow>(bytes);
    read::<LaneEntry>(bytes);
    read::<super::blocks::Block>(bytes);
    if let Ok((row, _)) = MessageRow::decode(bytes) {
        assert!(row.ends() >= row.arrived);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_read_back() {
        let mailbox = MailboxRow { messages: 1, bytes: 300, last_seq: 1 << 50, mark: 7, open: 1, provisional_by: 9 };
        let mut bytes = Vec::new();
        mailbox.encode(&mut bytes);
        assert_eq!(MailboxRow::decode(&bytes), Ok(mailbox));
        bytes.push(0);
        assert!(MailboxRow::decode(&bytes).is_err());
        for (submitter_key, signature) in [(None, None), (Some(PeerId::from_bytes([1; 32])), Some([2; 64]))] {
            let recipient = signature.map(|_| 7);
            let (arrived, expires) = (1 << 40, 1 << 41);
            let row = MessageRow { submitter: 1, submitter_key, sender: 300, recipient, arrived, expires, signature };
            let mut bytes = Vec::new();
            row.encode(&mut bytes);
            bytes.extend_from_slice(b"envelope");
            assert_eq!(MessageRow::decode(&bytes), Ok((row, &b"envelope"[..])));
        }
    }

    fn read_back<R: Row + PartialEq + std::fmt::Debug>(row: &R) {
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        assert_eq!(R::decode(&bytes).as_ref(), Ok(row));
    }

    /// What bytes are read as is written in a way that is read as the same.
    fn settled<R: Row + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(row) = R::decode(bytes) {
            read_back(&row);
        }
    }

    proptest! {
        #[test]
        fn every_row_is_read_back(
            key in any::<[u8; 32]>(),
            numbers in any::<[u64; 5]>(),
            small in any::<[u32; 4]>(),
            store in prop::option::of(any::<[u8; 16]>()),
            address in "\\PC{0,40}",
            flags in any::<[bool; 3]>(),
            envelope in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let [a, b, c, d, e] = numbers;
            read_back(&PeerRow { key: PeerId::from_bytes(key), uses: a, lanes: b, provisional: c });
            read_back(&MailboxRow { messages: a, bytes: b, last_seq: c, mark: d, open: small[0], provisional_by: small[1] });
            read_back(&Counters { next_number: small[0], provisional: a, seq_floor: b, forwarding: c, forwarding_bytes: d });
            let relay = RelayId::from_bytes(key);
            read_back(&LinkRow { relay, store: store.map(StoreId), foreign_below: e, address });
            let row = MessageRow {
                submitter: small[0],
                submitter_key: flags[0].then_some(PeerId::from_bytes(key)),
                sender: small[1],
                recipient: flags[1].then_some(small[2]),
                arrived: a.min(b),
                expires: a.max(b),
                signature: flags[2].then_some([7; 64]),
            };
            let mut bytes = Vec::new();
            row.encode(&mut bytes);
            bytes.extend_from_slice(&envelope);
            prop_assert_eq!(MessageRow::decode(&bytes), Ok((row, &envelope[..])));
        }

        #[test]
        fn any_bytes_are_rows_or_errors(bytes in prop::collection::vec(prop_oneof![0..8u8, any::<u8>()], 0..150)) {
            settled::<PeerRow>(&bytes);
            settled::<MailboxRow>(&bytes);
            settled::<Counters>(&bytes);
            settled::<LinkRow>(&bytes);
            settled::<LaneEntry>(&bytes);
            settled::<super::super::blocks::Block>(&bytes);
            if let Ok((row, rest)) = MessageRow::decode(&bytes) {
                prop_assert!(rest.len() < bytes.len() && row.expires >= row.arrived);
            }
        }
    }
}
