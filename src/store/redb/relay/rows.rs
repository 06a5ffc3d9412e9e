//! Rows kept in memory within one transaction: loaded once, written once, in the order of their keys.

use std::collections::BTreeMap;

use redb::{Key, ReadableTable, Table};

use super::super::fault::Fault;
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
    table: Table<'t, K, &'static [u8]>,
    loaded: BTreeMap<K, Entry<R>>,
}

impl<'t, K: Plain, R: Row> Rows<'t, K, R> {
    pub(super) const fn new(table: Table<'t, K, &'static [u8]>) -> Self {
        Self { table, loaded: BTreeMap::new() }
    }

    /// The table as it is on the disk: call [`flush`](Self::flush) before.
    pub(super) const fn table(&self) -> &Table<'t, K, &'static [u8]> {
        &self.table
    }

    fn entry(&mut self, key: K) -> Result<&mut Entry<R>, Fault> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.loaded.entry(key) {
            Occupied(entry) => Ok(entry.into_mut()),
            Vacant(vacant) => {
                let row = self.table.get(key)?.map(|bytes| R::decode(bytes.value())).transpose()?;
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

    /// Writes what was changed; whether anything was.
    pub(super) fn flush(&mut self) -> Result<bool, Fault> {
        self.flush_telling(|_, _, _| Ok(()))
    }

    /// The same, and tells of each row what it was on the disk and what it is.
    pub(super) fn flush_telling(
        &mut self,
        mut tell: impl FnMut(K, Option<&[u8]>, Option<&R>) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let (mut changed, mut bytes) = (false, Vec::new());
        for (key, entry) in self.loaded.iter_mut().filter(|(_, entry)| entry.dirty) {
            let before = match &entry.row {
                Some(row) => {
                    bytes.clear();
                    row.encode(&mut bytes);
                    self.table.insert(*key, bytes.as_slice())?
                }
                None => self.table.remove(*key)?,
            };
            tell(*key, before.as_ref().map(|bytes| bytes.value()), entry.row.as_ref())?;
            entry.dirty = false;
            changed = true;
        }
        Ok(changed)
    }
}
