//! Tables whose changes are written down for the journal first, and into the table later.
//!
//! ```text
//! entry:  u8 table, its place in the list of all   u8 1 put, 0 removed   key and, if put, value, each with its length
//! ```
//!
//! Entries say what a row is, not how it came about: so it does no harm to carry them out twice, and no rule of the relay
//! has to give the same answer again. What the journal has may wait for many groups, so that a row that changes with each
//! of them enters its table once, and one that comes and goes never does. What reads a table has to see what was changed
//! before: it goes through [`Logged::written`], and the like of the others that keep rows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use redb::{Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};

use super::super::fault::Fault;
use super::super::file::Record;
use super::rows::Plain;
use super::schema::{self, each_table};
use crate::delivery::compact::{Reader, put_bytes, put_number};

const REMOVED: u8 = 0;
const PUT: u8 = 1;

/// What a group has changed so far. Clones are the same.
pub(super) type Log = Rc<RefCell<Record>>;

macro_rules! places {
    ($($table:ident),*) => {
        /// The places of the tables in the list of all: a table keeps its own for ever.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "they are named as the tables are")]
        #[derive(Debug, Clone, Copy)]
        #[repr(u8)]
        pub(super) enum Place { $($table),* }
    };
}
each_table!(places);

/// A table that is open for writing, and the log of what changes in it.
pub(super) struct LoggedTable<'t, K: Plain, V: Value + 'static> {
    table: Table<'t, K, V>,
    place: u8,
    log: Log,
}

impl<'t, K: Plain, V: Value + 'static> LoggedTable<'t, K, V> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        definition: TableDefinition<'_, K, V>,
        place: Place,
        log: &Log,
    ) -> Result<Self, Fault> {
        Ok(Self { table: transaction.open_table(definition)?, place: place as u8, log: log.clone() })
    }

    /// The table, without what has only been noted.
    pub(super) const fn table(&self) -> &Table<'t, K, V> {
        &self.table
    }

    /// Writes down that a row was put, whose value may be in pieces, or taken out.
    pub(super) fn note(&self, key: K, value: Option<[&[u8]; 2]>) {
        let mut record = self.log.borrow_mut();
        let bytes = record.bytes_mut();
        bytes.extend_from_slice(&[self.place, if value.is_some() { PUT } else { REMOVED }]);
        put_bytes(bytes, K::as_bytes(&key).as_ref());
        if let Some(pieces) = value {
            put_number(bytes, pieces.iter().map(|piece| piece.len() as u64).sum());
            pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        }
    }

    /// Brings into the table what was noted of a row.
    pub(super) fn enter(&mut self, key: K, value: Option<&[u8]>) -> Result<(), Fault> {
        match value {
            Some(value) => drop(self.table.insert(key, V::from_bytes(value))?),
            None => drop(self.table.remove(key)?),
        }
        Ok(())
    }
}

impl<K: Plain> LoggedTable<'_, K, &'static [u8]> {
    /// Takes those rows of a range out of the table that are not to be kept, and writes that down.
    pub(super) fn retain_in(
        &mut self,
        range: RangeInclusive<K>,
        mut keep: impl FnMut(K, &[u8]) -> bool,
    ) -> Result<(), Fault> {
        let mut gone = Vec::new();
        self.table.retain_in(range, |key, value| {
            let kept = keep(key, value);
            if !kept {
                gone.push(key);
            }
            kept
        })?;
        gone.into_iter().for_each(|key| self.note(key, None));
        Ok(())
    }
}

/// A table, and those of its rows that were changed and have not entered it.
pub(super) struct Logged<'t, K: Plain, V: Value + 'static> {
    table: LoggedTable<'t, K, V>,
    waiting: BTreeMap<K, Option<Vec<u8>>>,
}

impl<'t, K: Plain, V: Value + 'static> Logged<'t, K, V> {
    pub(super) const fn new(table: LoggedTable<'t, K, V>) -> Self {
        Self { table, waiting: BTreeMap::new() }
    }

    /// The table, with all that was changed.
    pub(super) fn written(&mut self) -> Result<&Table<'t, K, V>, Fault> {
        self.write()?;
        Ok(self.table.table())
    }

    /// Brings into the table what was changed. After an error the transaction is of no use.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        for (key, value) in std::mem::take(&mut self.waiting) {
            self.table.enter(key, value.as_deref())?;
        }
        Ok(())
    }

    /// Whether there is such a row.
    pub(super) fn contains(&self, key: K) -> Result<bool, Fault> {
        match self.waiting.get(&key) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.table.table().get(key)?.is_some()),
        }
    }

    /// Puts a row.
    pub(super) fn insert(&mut self, key: K, value: V::SelfType<'_>) {
        let value = V::as_bytes(&value);
        self.table.note(key, Some([value.as_ref(), &[]]));
        self.waiting.insert(key, Some(value.as_ref().to_vec()));
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, key: K) {
        self.table.note(key, None);
        self.waiting.insert(key, None);
    }
}

/// Does to the tables what a record says.
pub(super) fn replay(transaction: &WriteTransaction, record: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(record);
    while !reader.rest().is_empty() {
        let place = reader.byte()?;
        macro_rules! enter {
            ($($table:ident),*) => { match place {
                $(place if place == Place::$table as u8 => enter(transaction, schema::$table, &mut reader)?,)*
                _ => return Err(Fault::corrupt("the journal has a table that no relay has")),
            } };
        }
        each_table!(enter);
    }
    Ok(())
}

fn enter<K: Key, V: Value>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    reader: &mut Reader<'_>,
) -> Result<(), Fault> {
    let (deed, key) = (reader.byte()?, reader.bytes()?);
    let value = if deed == PUT { Some(reader.bytes()?) } else { None };
    put(&mut transaction.open_table(table)?, key, value)
}

/// Puts a row, or takes it out. The bytes may be anybody's.
pub(super) fn put<K: Key, V: Value>(
    table: &mut Table<'_, K, V>,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), Fault> {
    let fits = |bytes: &[u8], width: Option<usize>| width.is_none_or(|width| width == bytes.len());
    if !fits(key, K::fixed_width()) || !value.is_none_or(|value| fits(value, V::fixed_width())) {
        return Err(Fault::corrupt("a row of it has another length than it should"));
    }
    let key = K::from_bytes(key);
    match value {
        Some(value) => drop(table.insert(key, V::from_bytes(value))?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

    use super::super::schema::{LANES, MAILBOXES, MESSAGES, REST};
    use super::*;

    fn database() -> Database {
        Builder::new().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    /// What a transaction left of two tables.
    fn shown(database: &Database) -> Vec<String> {
        let transaction = database.begin_read().unwrap();
        let messages = transaction.open_table(MESSAGES).unwrap();
        let rows = messages.iter().unwrap().map(|row| {
            let (key, value) = row.unwrap();
            format!("{:?} {:?}", key.value(), value.value())
        });
        let rest = transaction.open_table(REST).unwrap().len().unwrap();
        rows.chain([format!("{rest} at rest")]).collect()
    }

    #[test]
    fn a_record_does_what_the_transaction_did_however_often_it_is_carried_out() {
        let (did, log) = (database(), Log::default());
        let transaction = did.begin_write().unwrap();
        {
            let open = LoggedTable::open(&transaction, MESSAGES, Place::MESSAGES, &log).unwrap();
            let mut messages = Logged::new(open);
            let mut rest = Logged::new(LoggedTable::open(&transaction, REST, Place::REST, &log).unwrap());
            for seq in 1..=6 {
                messages.insert((7, seq), [&b"head"[..], &[seq as u8; 3]].concat().as_slice());
                rest.insert((seq, 1, 1, 1, 1), ());
            }
            messages.insert((7, 6), b"another".as_slice());
            messages.remove((7, 1));
            rest.remove((1, 1, 1, 1, 1));
            // Who looks sees what was changed before.
            assert!(messages.contains((7, 2)).unwrap() && !messages.contains((7, 1)).unwrap());
            assert_eq!(messages.written().unwrap().len().unwrap(), 5);
            assert!(messages.contains((7, 2)).unwrap() && !messages.contains((7, 1)).unwrap());
            let keep = |(_, seq): (u32, u64), value: &[u8]| seq == 3 && value == b"head\x03\x03\x03";
            messages.table.retain_in((7, 2)..=(7, 5), keep).unwrap();
            messages.insert((7, 2), b"again".as_slice());
            messages.write().unwrap();
            rest.write().unwrap();
        }
        transaction.commit().unwrap();
        assert_eq!(shown(&did).len(), 4);
        let replayed = database();
        for _ in 0..2 {
            let transaction = replayed.begin_write().unwrap();
            replay(&transaction, log.borrow().content()).unwrap();
            transaction.commit().unwrap();
            assert_eq!(shown(&replayed), shown(&did));
        }
    }

    #[test]
    fn tables_keep_their_places() {
        let places = [Place::NUMBERS, Place::MAILBOXES, Place::MESSAGES, Place::LANES, Place::INVITATIONS];
        assert_eq!(places.map(|place| place as u8), [0, 2, 4, 9, 18]);
    }

    proptest! {
        #[test]
        fn a_record_that_makes_no_sense_is_an_error(
            bytes in prop::collection::vec(prop_oneof![0..3u8, any::<u8>()], 1..80),
        ) {
            let database = database();
            let transaction = database.begin_write().unwrap();
            // Where it is an error nothing panics; where it is none it has put rows as wide as they should be.
            if replay(&transaction, &bytes).is_ok() {
                for row in transaction.open_table(MAILBOXES).unwrap().iter().unwrap() {
                    row.unwrap().0.value();
                }
                for row in transaction.open_table(LANES).unwrap().iter().unwrap() {
                    row.unwrap().0.value();
                }
            }
        }
    }
}
