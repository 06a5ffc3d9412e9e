//! The journal of a store: what its latest commits changed, each in one short write that is synced at once.
//!
//! A redb commit writes every page on the way to each row, all over the file, and its header; a record here lies behind
//! the one before. So a commit is durable once its record is synced, while redb keeps its pages in memory; now and then
//! one commit of redb syncs them all, and the journal begins anew (a lap). After a crash the records behind the file's
//! last commit are carried out once more. What they say is the store's affair.
//!
//! ```text
//! record:  "phj1"   u32 CRC-32 of the store's id and all that follows   u32 length of the content
//!          u64 number of the commit   16 bytes of chance   content
//! ```
//!
//! All numbers are big-endian. Records lie one behind the other from the beginning; the first that is not whole, or whose
//! commit is not the next one, ends them. Behind it lie remains of earlier laps, and in those are bodies that senders
//! wrote: the chance, which never leaves this file, tells records from what only looks like one.

use std::io;

use redb::StorageBackend;

use super::backend::Watch;
use super::fault::Fault;
use crate::id::StoreId;

/// The longest that a journal becomes, unless its user says otherwise. More makes redb's own commits rarer, which take
/// some milliseconds; less makes a start after a crash shorter, which carries out as much.
pub const DEFAULT_JOURNAL_BYTES: u64 = 32 << 20;

/// It grows by so much, in zeros: a sync of what was written before needs no change of the file's length, and takes
/// half the time.
const GROWTH_BYTES: u64 = 1 << 20;

/// It is written in such pieces: Linux keeps what was written at once together in its cache, and each sync would have to
/// look through all of that for what has changed.
const PAGE_BYTES: usize = 4096;

const MAGIC: &[u8; 4] = b"phj1";
const SEED_BYTES: usize = 16;
pub(super) const HEAD_BYTES: usize = 36;

/// What a commit changed, in the words of its store.
#[derive(Debug, Clone)]
pub struct Record {
    /// Room for the head, then the content.
    bytes: Vec<u8>,
}

impl Default for Record {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD_BYTES] }
    }
}

impl Record {
    /// Whether it has no content.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// Its content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.bytes.get(HEAD_BYTES..).unwrap_or_default()
    }

    /// What to add content to.
    pub const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is durable.
    Synced,
    /// It does not fit; or the disk took it not, and it may be there or not.
    NoRoom,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    medium: Box<dyn StorageBackend>,
    watch: Watch,
    most: u64,
    seed: [u8; SEED_BYTES],
    store: StoreId,
    /// Where the next record goes.
    end: u64,
    /// How long the medium is.
    length: u64,
}

impl Journal {
    /// A journal of a store, on this medium, that becomes so long at the most. Before anything is entered its
    /// [records](Self::records) are to be read.
    ///
    /// # Errors
    /// If the medium does not say how long it is.
    pub(super) fn open(
        medium: Box<dyn StorageBackend>,
        watch: Watch,
        most: u64,
        seed: [u8; SEED_BYTES],
    ) -> io::Result<Self> {
        let length = medium.len()?;
        Ok(Self { medium, watch, most, seed, store: StoreId([0; 16]), end: 0, length })
    }

    /// Whether a start after a crash would have something to carry out.
    pub(super) const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Hands out what the commits of the store behind this one changed, in their order, and syncs them: who entered them
    /// may have died before. The number of the last one.
    ///
    /// # Errors
    /// What `each` says; [`Fault::Storage`] if the medium cannot be read, or not be synced.
    pub(super) fn records(
        &mut self,
        store: StoreId,
        mut serial: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<u64, Fault> {
        (self.store, self.end) = (store, 0);
        let (mut at, mut before) = (0, None::<Head>);
        while let Some((head, content)) = self.record_at(at).map_err(storage)? {
            let follows = before.is_none_or(|before| head.serial == before.serial + 1 && head.seed == before.seed);
            if !follows || head.serial > serial + 1 {
                break;
            }
            before = Some(head);
            at += (HEAD_BYTES + content.len()) as u64;
            if head.serial > serial {
                each(&content)?;
                serial = head.serial;
                // The next one goes behind it. Where all of them are of an earlier lap, it goes to the beginning.
                (self.seed, self.end) = (head.seed, at);
            }
        }
        if !self.is_empty() {
            self.sync().map_err(storage)?;
        }
        Ok(serial)
    }

    /// Enters what a commit changes, and syncs it.
    ///
    /// # Errors
    /// If syncing fails: then nobody knows what is there.
    pub(super) fn enter(&mut self, serial: u64, record: &mut Record) -> io::Result<Outcome> {
        let content = record.bytes.len() - HEAD_BYTES;
        let (Ok(content), bytes) = (u32::try_from(content), record.bytes.len() as u64) else {
            return Ok(Outcome::NoRoom);
        };
        let end = self.end + bytes;
        if end > self.most || self.grow(end).is_err() {
            return Ok(Outcome::NoRoom);
        }
        let head = Head { length: content, serial, seed: self.seed };
        head.put(&mut record.bytes, self.store);
        if self.medium.write(self.end, &record.bytes).is_err() {
            return Ok(Outcome::NoRoom);
        }
        self.sync()?;
        self.end = end;
        Ok(Outcome::Synced)
    }

    fn sync(&self) -> io::Result<()> {
        self.watch.sync(|| self.medium.sync_data())
    }

    /// All that it holds is synced in the store itself.
    pub(super) const fn begin_lap(&mut self) {
        self.end = 0;
    }

    /// Ends it for good: nothing is left of it.
    pub(super) fn clear(self) {
        if let Err(error) = self.medium.set_len(0) {
            tracing::debug!(%error, "a journal that is needed no more stays");
        }
    }

    /// Makes room up to here.
    fn grow(&mut self, end: u64) -> io::Result<()> {
        let wanted = end.next_multiple_of(GROWTH_BYTES).min(self.most).max(end);
        while self.length < wanted {
            let zeros = [0; PAGE_BYTES];
            let piece = zeros.get(..usize::try_from(wanted - self.length).unwrap_or(PAGE_BYTES)).unwrap_or(&zeros);
            self.medium.write(self.length, piece)?;
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    fn record_at(&self, at: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
        let mut bytes = [0; HEAD_BYTES];
        let begin = at + HEAD_BYTES as u64;
        if begin > self.length {
            return Ok(None);
        }
        self.medium.read(at, &mut bytes)?;
        let Some((head, sum)) = Head::parse(&bytes) else { return Ok(None) };
        if u64::from(head.length) > self.length - begin {
            return Ok(None);
        }
        let mut content = vec![0; head.length as usize];
        self.medium.read(begin, &mut content)?;
        let found = checksum(self.store, bytes.get(8..).unwrap_or_default(), &content);
        Ok((found == sum).then_some((head, content)))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whatever it says: what has to be there was synced.
        drop(self.medium.close());
    }
}

fn storage(error: io::Error) -> Fault {
    Fault::Storage(error.into())
}

#[derive(Debug, Clone, Copy)]
struct Head {
    length: u32,
    serial: u64,
    seed: [u8; SEED_BYTES],
}

impl Head {
    /// Puts itself before the content.
    fn put(&self, bytes: &mut [u8], store: StoreId) {
        let Some((head, content)) = bytes.split_at_mut_checked(HEAD_BYTES) else { return };
        let parts = [&self.length.to_be_bytes()[..], &self.serial.to_be_bytes(), &self.seed].concat();
        let sum = checksum(store, &parts, content);
        head.copy_from_slice(&[&MAGIC[..], &sum.to_be_bytes(), &parts].concat());
    }

    /// A head and the checksum of its record.
    fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<(Self, u32)> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (serial, seed) = rest.split_first_chunk()?;
        let head = Self {
            length: u32::from_be_bytes(*length),
            serial: u64::from_be_bytes(*serial),
            seed: seed.try_into().ok()?,
        };
        Some((head, u32::from_be_bytes(*sum)))
    }
}

fn checksum(store: StoreId, head: &[u8], content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    [&store.0[..], head, content].into_iter().for_each(|part| sum.update(part));
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::disk::{Disk, Faults, JOURNAL, Loss};

    const STORE: StoreId = StoreId([7; 16]);
    const MOST: u64 = 4096;

    fn on_disk(disk: &Disk, seed: u8) -> Journal {
        let medium = Box::new(disk.medium(JOURNAL).unwrap());
        Journal::open(medium, Watch::default(), MOST, [seed; SEED_BYTES]).unwrap()
    }

    fn record(content: &[u8]) -> Record {
        let mut record = Record::default();
        record.bytes_mut().extend_from_slice(content);
        record
    }

    fn enter(journal: &mut Journal, serial: u64, content: &[u8]) -> Outcome {
        journal.enter(serial, &mut record(content)).unwrap()
    }

    /// What is handed out to tables whose last commit had this number.
    fn read(journal: &mut Journal, store: StoreId, serial: u64) -> (u64, Vec<Vec<u8>>) {
        let mut found = Vec::new();
        let last = journal.records(store, serial, |content| {
            found.push(content.to_vec());
            Ok(())
        });
        (last.unwrap(), found)
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_was_entered_is_handed_out_in_order_and_what_the_tables_have_is_not() {
        let disk = Disk::new(1);
        let mut journal = on_disk(&disk, 1);
        assert_eq!(read(&mut journal, STORE, 4), (4, Vec::new()));
        for (serial, word) in [(5, "five"), (6, ""), (7, "seven")] {
            assert_eq!(enter(&mut journal, serial, word.as_bytes()), Outcome::Synced);
        }
        drop(journal);
        for (known, last, left) in [(4, 7, &["five", "", "seven"][..]), (6, 7, &["seven"]), (7, 7, &[]), (9, 9, &[])] {
            assert_eq!(read(&mut on_disk(&disk, 2), STORE, known), (last, words(left)), "behind {known}");
        }
        // They follow no tables that are older than when they began, nor those of another store.
        assert_eq!(read(&mut on_disk(&disk, 2), STORE, 3), (3, Vec::new()));
        assert_eq!(read(&mut on_disk(&disk, 2), StoreId([8; 16]), 4), (4, Vec::new()));
    }

    #[test]
    fn an_opening_goes_on_behind_the_last_record() {
        let disk = Disk::new(1);
        let mut journal = on_disk(&disk, 1);
        read(&mut journal, STORE, 0);
        enter(&mut journal, 1, b"one");
        drop(journal);
        let mut journal = on_disk(&disk, 2);
        assert_eq!(read(&mut journal, STORE, 0).0, 1);
        enter(&mut journal, 2, b"two");
        drop(journal);
        assert_eq!(read(&mut on_disk(&disk, 3), STORE, 0), (2, words(&["one", "two"])));
    }

    #[test]
    fn a_lap_begins_where_the_last_one_did_and_nothing_of_that_is_handed_out_again() {
        let disk = Disk::new(1);
        let mut journal = on_disk(&disk, 1);
        read(&mut journal, STORE, 0);
        for serial in 1..=5 {
            enter(&mut journal, serial, b"earlier");
        }
        // The sixth commit is one of the tables.
        journal.begin_lap();
        enter(&mut journal, 7, b"a later");
        assert_eq!(read(&mut journal, STORE, 6), (7, words(&["a later"])));
        // Nothing has been entered yet when the power fails: the next one goes to the beginning all the same.
        journal.begin_lap();
        assert_eq!(read(&mut journal, STORE, 8), (8, Vec::new()));
        enter(&mut journal, 9, b"the next");
        assert_eq!(read(&mut journal, STORE, 8), (9, words(&["the next"])));
    }

    #[test]
    fn nobody_can_write_a_message_that_is_taken_for_a_record() {
        let mut journal = on_disk(&Disk::new(1), 1);
        read(&mut journal, STORE, 0);
        // A body is a record as it would be, but for the chance.
        let mut forged = record(b"forged");
        Head { length: 6, serial: 3, seed: [9; SEED_BYTES] }.put(&mut forged.bytes, STORE);
        enter(&mut journal, 1, &[&[0; 4][..], &forged.bytes].concat());
        journal.begin_lap();
        // The next record ends where the forged one begins.
        enter(&mut journal, 2, b"real");
        assert_eq!(journal.record_at(journal.end).unwrap().map(|(_, content)| content), Some(b"forged".to_vec()));
        assert_eq!(read(&mut journal, STORE, 1), (2, words(&["real"])));
    }

    #[test]
    fn what_does_not_fit_is_not_entered_and_the_rest_stays() {
        let mut journal = on_disk(&Disk::new(1), 1);
        read(&mut journal, STORE, 0);
        assert_eq!(enter(&mut journal, 1, &[1; 4000]), Outcome::Synced);
        assert_eq!(enter(&mut journal, 2, &[2; 100]), Outcome::NoRoom);
        assert_eq!(enter(&mut journal, 2, &[3; 20]), Outcome::Synced);
        assert_eq!(read(&mut journal, STORE, 0), (2, vec![vec![1; 4000], vec![3; 20]]));
    }

    #[test]
    fn a_disk_that_takes_no_more_says_so_and_the_next_record_takes_the_place_of_the_failed_one() {
        for at in 0..4 {
            let disk = Disk::new(at);
            let mut journal = on_disk(&disk, 1);
            read(&mut journal, STORE, 0);
            enter(&mut journal, 1, b"one");
            disk.set_faults(Faults { write_after: Some(0), ..Faults::default() });
            assert_eq!(enter(&mut journal, 2, b"two"), Outcome::NoRoom);
            assert_eq!(enter(&mut journal, 2, b"another two"), Outcome::Synced);
            assert_eq!(read(&mut journal, STORE, 0), (2, words(&["one", "another two"])));
        }
    }

    #[test]
    fn what_was_synced_survives_a_power_cut_and_of_the_rest_there_is_all_or_nothing() {
        for (seed, loss) in (0..200).flat_map(|seed| [Loss::All, Loss::Tail, Loss::Sectors].map(|loss| (seed, loss))) {
            let disk = Disk::new(seed);
            let mut journal = on_disk(&disk, 1);
            read(&mut journal, STORE, 0);
            let word = |serial: u64| vec![b'a' + serial as u8; 300 * serial as usize];
            enter(&mut journal, 1, &word(1));
            enter(&mut journal, 2, &word(2));
            disk.set_faults(Faults { power_after: Some(seed % 3), ..Faults::default() });
            let entered = journal.enter(3, &mut record(&word(3)));
            disk.power_off();
            drop(journal);
            disk.power_on(loss);
            let (last, found) = read(&mut on_disk(&disk, 2), STORE, 0);
            assert_eq!(found, (1..=last).map(word).collect::<Vec<_>>());
            let known = if matches!(entered, Ok(Outcome::Synced)) { 3 } else { 2 };
            assert!(last >= known, "{last} of {known} after {loss:?}");
        }
    }

    #[test]
    fn what_is_handed_out_is_synced_though_who_entered_it_died_before_that() {
        let disk = Disk::new(1);
        let mut journal = on_disk(&disk, 1);
        read(&mut journal, STORE, 0);
        enter(&mut journal, 1, b"one");
        // It is written, and killed then: the machine goes on.
        disk.set_faults(Faults { power_after: Some(1), ..Faults::default() });
        journal.enter(2, &mut record(b"two")).unwrap_err();
        drop(journal);
        disk.power_on(Loss::Nothing);
        for _ in 0..2 {
            assert_eq!(read(&mut on_disk(&disk, 2), STORE, 0), (2, words(&["one", "two"])));
            disk.power_off();
            disk.power_on(Loss::All);
        }
    }
}
