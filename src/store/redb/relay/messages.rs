//! The messages of all mailboxes. One that is taken before its table is next written never enters that.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table};

use super::super::fault::Fault;
use super::logged::LoggedTable;
use super::schema::{MessageRow, Number};
use crate::protocol::{Envelope, Header};
use crate::ranges::Ranges;

/// `seq`s between two ranges that are walked over: a search costs about as much as so many steps.
const WALKED: u64 = 16;

/// Mailbox, `seq`.
type MessageAt = (Number, u64);

/// What has to be known of a message that leaves. Its body is of no interest any more.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) row: MessageRow,
    pub(super) header: Header,
    pub(super) bytes: u64,
}

impl Leaving {
    fn read(content: &[u8]) -> Result<Self, Fault> {
        let (row, envelope) = MessageRow::decode(content)?;
        let header = Header::parse(envelope).map_err(|error| Fault::corrupt(error.to_string()))?;
        Ok(Self { row, header, bytes: envelope.len() as u64 })
    }
}

struct Waiting {
    row: MessageRow,
    envelope: Envelope,
}

impl Waiting {
    fn leaving(&self) -> Leaving {
        let Self { row, envelope } = self;
        Leaving { row: *row, header: envelope.header(), bytes: envelope.bytes().len() as u64 }
    }
}

/// See the head of this file.
pub(super) struct Messages<'t> {
    table: LoggedTable<'t, MessageAt, &'static [u8]>,
    /// What has not entered the table. In each mailbox it came after all that is there: all of it enters at once.
    waiting: BTreeMap<MessageAt, Waiting>,
    scratch: Vec<u8>,
}

impl<'t> Messages<'t> {
    pub(super) const fn new(table: LoggedTable<'t, MessageAt, &'static [u8]>) -> Self {
        Self { table, waiting: BTreeMap::new(), scratch: Vec::new() }
    }

    /// Puts a message, which is newer than all in its mailbox.
    pub(super) fn insert(&mut self, at: MessageAt, row: MessageRow, envelope: Envelope) {
        self.scratch.clear();
        row.encode(&mut self.scratch);
        self.table.note(at, Some([&self.scratch, envelope.bytes()]));
        self.waiting.insert(at, Waiting { row, envelope });
    }

    /// The table, with all messages.
    pub(super) fn written(&mut self) -> Result<&Table<'t, MessageAt, &'static [u8]>, Fault> {
        self.write()?;
        Ok(self.table.table())
    }

    /// Brings into the table what is not there. After an error the transaction is of no use.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        for (at, Waiting { row, envelope }) in std::mem::take(&mut self.waiting) {
            self.scratch.clear();
            row.encode(&mut self.scratch);
            self.scratch.extend_from_slice(envelope.bytes());
            self.table.enter(at, Some(&self.scratch))?;
        }
        Ok(())
    }

    /// Takes out those of a mailbox's messages for which `leaves` says so, in their order. It is asked of all that are
    /// there of these `seq`s. Ranges may be enormous, and many about nothing.
    pub(super) fn take(
        &mut self,
        mailbox: Number,
        wanted: &Ranges,
        mut leaves: impl FnMut(u64, Result<Leaving, Fault>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut failed = Ok(());
        let mut leaves = |seq, leaving: &dyn Fn() -> Result<Leaving, Fault>| {
            failed.is_ok()
                && wanted.contains(seq)
                && leaves(seq, leaving()).unwrap_or_else(|fault| {
                    failed = Err(fault);
                    false
                })
        };
        let waits_from = self.waiting.range((mailbox, 0)..=(mailbox, u64::MAX)).next().map(|(at, _)| at.1);
        if waits_from.is_none_or(|first| wanted.first().is_some_and(|lowest| lowest < first)) {
            let next = |table: &LoggedTable<'_, MessageAt, &'static [u8]>, low, high| {
                let next = table.table().range((mailbox, low)..=(mailbox, high))?.next().transpose()?;
                Ok(next.map(|(at, _)| at.value().1))
            };
            each_there(&mut self.table, wanted, next, |table, low, high| {
                table.retain_in((mailbox, low)..=(mailbox, high), |(_, seq), content| {
                    !leaves(seq, &|| Leaving::read(content))
                })
            })?;
        }
        if waits_from.is_some() {
            let Self { table, waiting, .. } = self;
            let next = |waiting: &BTreeMap<MessageAt, Waiting>, low, high| {
                Ok(waiting.range((mailbox, low)..=(mailbox, high)).next().map(|(at, _)| at.1))
            };
            each_there(waiting, wanted, next, |waiting, low, high| {
                let gone = waiting.extract_if((mailbox, low)..=(mailbox, high), |(_, seq), waiting| {
                    leaves(*seq, &|| Ok(waiting.leaving()))
                });
                gone.for_each(|(at, _)| table.note(at, None));
                Ok(())
            })?;
        }
        failed
    }
}

/// Visits the parts of ranges in which something is there. Where that begins, `next` says: ranges about nothing are passed
/// over, and those close to each other visited together.
fn each_there<T>(
    place: &mut T,
    wanted: &Ranges,
    next: impl Fn(&T, u64, u64) -> Result<Option<u64>, Fault>,
    mut visit: impl FnMut(&mut T, u64, u64) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let highest = wanted.last().unwrap_or(0);
    let mut ranges = wanted.iter().peekable();
    while let Some((low, mut high)) = ranges.next() {
        let Some(there) = next(place, low, highest)? else { return Ok(()) };
        if there > high {
            while ranges.next_if(|(_, to)| *to < there).is_some() {}
            continue;
        }
        while let Some((_, to)) = ranges.next_if(|(from, _)| from - high <= WALKED) {
            high = to;
        }
        visit(place, there, high)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase as _};

    use super::super::logged::{Log, Place, replay};
    use super::super::schema::MESSAGES;
    use super::*;
    use crate::id::{LaneId, MessageId, PeerId, RelayId};
    use crate::time::UnixMillis;

    fn database() -> Database {
        Builder::new().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn message(n: u64) -> (MessageRow, Envelope) {
        let peer = PeerId::from_bytes([1; 32]);
        let header = Header {
            sender: peer,
            relay: RelayId::from_bytes([2; 32]),
            recipient: peer,
            id: MessageId::new(n, &[3; 10]),
            lane: LaneId(7),
            n,
            created: UnixMillis(n),
            ttl: Duration::from_secs(1),
        };
        let row = MessageRow {
            submitter: 1,
            submitter_key: None,
            sender: 1,
            recipient: None,
            arrived: n,
            expires: n + 1,
            signature: None,
        };
        (row, Envelope::new(header, &n.to_be_bytes()))
    }

    /// Mailbox, `seq` and number of all messages of a table.
    fn held(database: &Database) -> BTreeMap<MessageAt, u64> {
        let transaction = database.begin_read().unwrap();
        let rows = transaction.open_table(MESSAGES).unwrap();
        let rows = rows.iter().unwrap().map(|row| {
            let (at, content) = row.unwrap();
            (at.value(), Leaving::read(content.value()).unwrap().header.n)
        });
        rows.collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u32),
        /// Of what is there of these ranges, all but every so manieth leaves.
        Take(u32, Vec<(u64, u64)>, u64),
        Write,
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = (0..40u64, 0..6u64, prop::bool::weighted(0.1));
        let range = range.prop_map(|(from, more, open)| (from, if open { u64::MAX } else { from + more }));
        prop_oneof![
            6 => (1..3u32).prop_map(Step::Insert),
            4 => (1..3u32, prop::collection::vec(range, 1..4), 2..5u64).prop_map(|(m, r, k)| Step::Take(m, r, k)),
            1 => Just(Step::Write),
        ]
    }

    proptest! {
        #[test]
        fn wherever_messages_are_those_leave_that_are_to_leave_in_their_order(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (did, log) = (database(), Log::default());
            let (mut model, mut next) = (BTreeMap::new(), 0);
            let transaction = did.begin_write().unwrap();
            {
                let table = LoggedTable::open(&transaction, MESSAGES, Place::MESSAGES, &log).unwrap();
                let mut messages = Messages::new(table);
                for step in steps {
                    match step {
                        Step::Insert(mailbox) => {
                            next += 1;
                            let (row, envelope) = message(next);
                            messages.insert((mailbox, next), row, envelope);
                            model.insert((mailbox, next), next);
                        }
                        Step::Take(mailbox, ranges, keep) => {
                            let wanted: Ranges = ranges.into_iter().collect();
                            let mut asked = Vec::new();
                            let leaves = |seq, leaving: Result<Leaving, Fault>| {
                                asked.push((seq, leaving.unwrap().header.n));
                                Ok(seq % keep != 0)
                            };
                            messages.take(mailbox, &wanted, leaves).unwrap();
                            let there = model.range((mailbox, 0)..=(mailbox, u64::MAX));
                            let there = there.map(|((_, seq), n)| (*seq, *n)).filter(|(seq, _)| wanted.contains(*seq));
                            prop_assert_eq!(asked, there.collect::<Vec<_>>());
                            model.retain(|at, _| at.0 != mailbox || !wanted.contains(at.1) || at.1 % keep == 0);
                        }
                        Step::Write => messages.write().unwrap(),
                    }
                }
                messages.write().unwrap();
            }
            transaction.commit().unwrap();
            prop_assert_eq!(&held(&did), &model);
            let replayed = database();
            let transaction = replayed.begin_write().unwrap();
            transaction.open_table(MESSAGES).unwrap();
            replay(&transaction, log.borrow().content()).unwrap();
            transaction.commit().unwrap();
            prop_assert_eq!(held(&replayed), model);
        }
    }
}
