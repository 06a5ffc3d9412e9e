//! Rows kept in memory within one transaction: loaded once, written down once, in the order of their keys.

use std::collections::BTreeMap;

use redb::{Key, ReadableTable, Table};

use super::super::fault::Fault;
use super::logged::Logged;
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

/// One table's rows.
pub(super) struct Rows<'t, K: Plain, R> {
    table: Logged<'t, K, &'static [u8]>,
    loaded: BTreeMap<K, Entry<R>>,
}

impl<'t, K: Plain, R: Row> Rows<'t, K, R> {
    pub(super) const fn new(table: Logged<'t, K, &'static [u8]>) -> Self {
        Self { table, loaded: BTreeMap::new() }
    }

    /// The table, with all that was changed.
    pub(super) fn written(&mut self) -> Result<&Table<'t, K, &'static [u8]>, Fault> {
        self.flush();
        self.table.written()
    }

    /// Brings into the table what was flushed.
    pub(super) fn write(&mut self) -> Result<(), Fault> {
        self.table.write()
    }

    fn entry(&mut self, key: K) -> Result<&mut Entry<R>, Fault> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.loaded.entry(key) {
            Occupied(entry) => Ok(entry.into_mut()),
            Vacant(vacant) => {
                // What was changed is among those that are loaded.
                let row = self.table.as_it_is().get(key)?.map(|bytes| R::decode(bytes.value())).transpose()?;
                Ok(vacant.insert(Entry { row, dirty: false }))
            }
        }
    }

    pub(super) fn get(&mut self, key: K) -> Result<Option<&R>, Fault> {
        Ok(self.entry(key)?.row.as_ref())
    }

    /// The row, to be changed.
    pub(super) fn change(&mut self, key: K) -> Result<Option<&mut R>, Fault> {
        let entry = self.entry(key)?;
        entry.dirty |= entry.row.is_some();
        Ok(entry.row.as_mut())
    }

    /// The row, made if there is none, to be changed.
    pub(super) fn change_or(&mut self, key: K, make: impl FnOnce() -> R) -> Result<&mut R, Fault> {
        let entry = self.entry(key)?;
        entry.dirty = true;
        Ok(entry.row.get_or_insert_with(make))
    }

    pub(super) fn put(&mut self, key: K, row: R) {
        self.loaded.insert(key, Entry { row: Some(row), dirty: true });
    }

    pub(super) fn remove(&mut self, key: K) {
        self.loaded.insert(key, Entry { row: None, dirty: true });
    }

    /// Takes the rows that were changed, so that they are not written: for a deliberate defect.
    pub(super) fn withhold(&mut self) -> Vec<(K, R)> {
        let changed = self.loaded.iter().filter(|(_, entry)| entry.dirty).map(|(key, _)| *key).collect::<Vec<_>>();
        changed.into_iter().filter_map(|key| Some((key, self.loaded.remove(&key)?.row?))).collect()
    }

    /// Writes down what was changed.
    pub(super) fn flush(&mut self) {
        let mut bytes = Vec::new();
        for (key, entry) in self.loaded.iter_mut().filter(|(_, entry)| entry.dirty) {
            match &entry.row {
                Some(row) => {
                    bytes.clear();
                    row.encode(&mut bytes);
                    self.table.insert(*key, bytes.as_slice());
                }
                None => self.table.remove(*key),
            }
            entry.dirty = false;
        }
    }

    /// The same, and tells of each row what it was when it was last flushed and what it is.
    pub(super) fn flush_telling(
        &mut self,
        mut tell: impl FnMut(K, Option<&[u8]>, Option<&R>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let table = self.table.written()?;
        for (key, entry) in self.loaded.iter().filter(|(_, entry)| entry.dirty) {
            let before = table.get(*key)?;
            tell(*key, before.as_ref().map(|bytes| bytes.value()), entry.row.as_ref())?;
        }
        self.flush();
        Ok(())
    }
}
