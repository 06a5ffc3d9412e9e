//! Rows kept in memory within one transaction: loaded once, written down for the journal with each group that changes
//! them, and into their table once, in the order of their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use redb::{Key, ReadableTable, Table};

use super::super::fault::Fault;
use super::logged::LoggedTable;
use super::schema::Row;
use crate::delivery::Damaged;

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Self {
        Self::corrupt(damaged.to_string())
    }
}

/// A key that redb takes by value.
pub(super) trait Plain: for<'a> Key<SelfType<'a> = Self> + Ord + Copy + 'static {}
impl<K: for<'a> Key<SelfType<'a> = K> + Ord + Copy + 'static> Plain for K {}

#[derive(Debug)]
struct Entry<R> {
    row: Option<R>,
    dirty: bool,
}

impl<R> Entry<R> {
    /// Notes in `dirty` that the row is being changed.
    fn soil<K>(&mut self, key: K, dirty: &mut Vec<K>) {
        if !mem::replace(&mut self.dirty, true) {
            dirty.push(key);
        }
    }
}

/// One table's rows.
pub(super) struct Rows<'t, K: Plain, R> {
    table: LoggedTable<'t, K, &'static [u8]>,
    loaded: BTreeMap<K, Entry<R>>,
    /// Changed, and not written down yet.
    dirty: Vec<K>,
    /// Written down, and not in the table.
    waiting: BTreeSet<K>,
    scratch: Vec<u8>,
}

impl<'t, K: Plain, R: Row> Rows<'t, K, R> {
    pub(super) const fn new(table: LoggedTable<'t, K, &'static [u8]>) -> Self {
        Self { table, loaded: BTreeMap::new(), dirty: Vec::new(), waiting: BTreeSet::new(), scratch: Vec::new() }
    }

    /// The table, with all that was changed.
    pub(super) fn written(&mut self) -> Result<&Table<'t, K, &'static [u8]>, Fault> {
        self.flush();
        self.write()?;
        Ok(self.table.table())
    }

    /// Brings into the table what was written down. After an error the transaction is of no use.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        for key in mem::take(&mut self.waiting) {
            let value = Self::encode(&self.loaded, key, &mut self.scratch);
            self.table.enter(key, value)?;
        }
        Ok(())
    }

    /// A loaded row as bytes, if there is one.
    fn encode<'a>(loaded: &BTreeMap<K, Entry<R>>, key: K, bytes: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let row = loaded.get(&key).and_then(|entry| entry.row.as_ref())?;
        bytes.clear();
        row.encode(bytes);
        Some(bytes)
    }

    fn entry(&mut self, key: K) -> Result<(&mut Entry<R>, &mut Vec<K>), Fault> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        let entry = match self.loaded.entry(key) {
            Occupied(entry) => entry.into_mut(),
            Vacant(vacant) => {
                // What was changed is among those that are loaded.
                let row = self.table.table().get(key)?.map(|bytes| R::decode(bytes.value())).transpose()?;
                vacant.insert(Entry { row, dirty: false })
            }
        };
        Ok((entry, &mut self.dirty))
    }

    pub(super) fn get(&mut self, key: K) -> Result<Option<&R>, Fault> {
        Ok(self.entry(key)?.0.row.as_ref())
    }

    /// The row, to be changed.
    pub(super) fn change(&mut self, key: K) -> Result<Option<&mut R>, Fault> {
        let (entry, dirty) = self.entry(key)?;
        if entry.row.is_some() {
            entry.soil(key, dirty);
        }
        Ok(entry.row.as_mut())
    }

    /// The row, made if there is none, to be changed.
    pub(super) fn change_or(&mut self, key: K, make: impl FnOnce() -> R) -> Result<&mut R, Fault> {
        let (entry, dirty) = self.entry(key)?;
        entry.soil(key, dirty);
        Ok(entry.row.get_or_insert_with(make))
    }

    pub(super) fn put(&mut self, key: K, row: R) {
        self.replace(key, Some(row));
    }

    pub(super) fn remove(&mut self, key: K) {
        self.replace(key, None);
    }

    fn replace(&mut self, key: K, row: Option<R>) {
        let entry = self.loaded.entry(key).or_insert(Entry { row: None, dirty: false });
        entry.row = row;
        entry.soil(key, &mut self.dirty);
    }

    /// Takes the rows that were changed, so that they are not written: for a deliberate defect.
    pub(super) fn withhold(&mut self) -> Vec<(K, R)> {
        let changed = mem::take(&mut self.dirty);
        let withheld = changed.into_iter().filter_map(|key| {
            self.waiting.remove(&key);
            Some((key, self.loaded.remove(&key)?.row?))
        });
        withheld.collect()
    }

    /// Writes down what was changed.
    pub(super) fn flush(&mut self) {
        for key in self.dirty.drain(..) {
            let value = Self::encode(&self.loaded, key, &mut self.scratch);
            self.table.note(key, value.map(|value| [value, &[]]));
            if let Some(entry) = self.loaded.get_mut(&key) {
                entry.dirty = false;
            }
            self.waiting.insert(key);
        }
    }
}
