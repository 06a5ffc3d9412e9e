//! One open store file: transactions, and what becomes of them when the disk fails.
//!
//! After any I/O error redb answers nothing but errors, so the database is dropped and opened anew before it
//! is next used. A failed sync is another matter: what the disk holds is then unknown, so nothing is tried
//! again and every request from then on is answered [`StoreError::Fatal`].
//!
//! A store that has a journal enters there what a group of requests changed, and goes on in the same transaction: its
//! tables stay behind what is durable until redb commits, without a sync, all that was entered. Who reads waits for that.
//! What does not fit into the journal is committed by redb with a sync, which makes the journal begin anew.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};

use redb::{CompactionError, Database, Durability, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};

use super::backend::{Backend, Watch};
use super::fault::Fault;
pub use super::journal::{DEFAULT_JOURNAL_BYTES, Record};
use super::journal::{Journal, Outcome};
pub(super) use super::open::set_store_id;
pub use super::open::{Fill, OpenError, Replay, Schema, Upgrade, journal_of};
use super::open::{NewJournal, Opening, serial, set_serial};
use crate::id::StoreId;
use crate::mutant::Mutant;
use crate::random::Entropy;
use crate::store::StoreError;

/// Memory for pages, in bytes: half of it at most holds what a transaction has written so far. More makes
/// reading large backlogs cheaper; less makes large transactions go to the disk in parts.
pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;

/// A file up to this length is walked when it is opened after a kill, which takes some tenths of a second. Of a
/// longer one each commit of redb writes what spares the walk, at the cost of a second sync.
const WALKED_BYTES: u64 = 64 << 20;

/// What a store may take.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Memory for pages; see [`DEFAULT_CACHE_BYTES`].
    pub cache_bytes: usize,
    /// Length of the journal; see [`DEFAULT_JOURNAL_BYTES`].
    pub journal_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { cache_bytes: DEFAULT_CACHE_BYTES, journal_bytes: DEFAULT_JOURNAL_BYTES }
    }
}

/// Pages that become free are used again only once the tables are synced: that is done as soon as the file has grown by
/// so much since, or by a quarter if that is more.
const GROWTH_BYTES: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Current {
    database: Option<Database>,
    closed: bool,
}

/// An open store file.
#[derive(Debug)]
pub struct StoreFile {
    backend: Backend,
    schema: Schema,
    cache_bytes: usize,
    watch: Watch,
    id: StoreId,
    current: RwLock<Current>,
    /// Held while a write transaction lives and while the database is reopened: two databases on one medium
    /// would destroy it. The journal belongs to who holds it.
    gate: Mutex<Option<Journal>>,
    new_journal: NewJournal,
    /// Held by who begins to read, and by who has told of what is not in the tables yet.
    reading: RwLock<()>,
    /// How many wait to read until it is.
    awaiting: AtomicUsize,
    /// Somebody has begun to read since it last was.
    was_read: AtomicBool,
    /// The journal holds what no synced commit of redb does.
    logged: AtomicBool,
    /// How long the tables were when redb synced them last.
    synced_length: AtomicU64,
    /// Counts the openings, so that an error of an earlier one does not close a later one.
    opening: AtomicU64,
    /// The opening that met an error and is of no further use.
    broken: AtomicU64,
    /// The number of the last commit.
    serial: AtomicU64,
    /// The number of a commit of which it is not known whether it happened; 0 for none.
    unsure: AtomicU64,
    fatal: OnceLock<Arc<str>>,
}

/// A write transaction and the right to have one. Dropped without a commit, it changes nothing, unless the journal has it.
pub struct Writing<'a> {
    file: &'a StoreFile,
    transaction: WriteTransaction,
    opening: u64,
    gate: MutexGuard<'a, Option<Journal>>,
    entered: Option<Entered<'a>>,
}

/// Why a store takes nothing more after a panic.
pub(super) const BUG: &str = "the writer met a bug";

/// What the journal has of a transaction: nobody may read before it is in the tables.
#[derive(Debug)]
struct Entered<'a> {
    file: &'a StoreFile,
    records: Vec<Record>,
    bytes: usize,
    _reading: RwLockWriteGuard<'a, ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Before anybody can read what lacks it.
            self.file.condemn(BUG);
        }
    }
}

impl std::fmt::Debug for Writing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("file", &self.file).field("opening", &self.opening).finish()
    }
}

/// Enters into the journal what a transaction changes.
#[derive(Debug)]
pub struct Pen<'w, 'a> {
    file: &'a StoreFile,
    opening: u64,
    journal: &'w mut Option<Journal>,
    entered: &'w mut Option<Entered<'a>>,
}

impl Pen<'_, '_> {
    /// Makes durable what the transaction has changed since the last time, and makes all who read wait for its commit.
    /// Takes the record. False if there is no journal, or no room in it: then the commit makes it durable.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if syncing fails.
    pub fn enter(&mut self, record: &mut Record) -> Result<bool, StoreError> {
        let file = self.file;
        let Some(journal) = self.journal.as_mut().filter(|_| !file.is_unsafe()) else { return Ok(false) };
        let synced = file.synced_length.load(Ordering::Relaxed);
        if file.watch.length() > synced + GROWTH_BYTES.max(synced / 4) {
            return Ok(false);
        }
        let serial = file.serial.load(Ordering::SeqCst) + 1;
        match journal.enter(serial, record) {
            Ok(Outcome::NoRoom) => Ok(false),
            Ok(Outcome::Synced) => {
                let entered = self.entered.get_or_insert_with(|| Entered {
                    file,
                    records: Vec::new(),
                    bytes: 0,
                    _reading: file.reading.write().unwrap_or_else(PoisonError::into_inner),
                });
                entered.bytes += record.content().len();
                entered.records.push(mem::take(record));
                file.serial.store(serial, Ordering::SeqCst);
                file.logged.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) => Err(file.condemn(&format!("syncing the journal failed: {error}"))),
        }
    }

    /// How many bytes the journal has of the transaction; none if it has nothing.
    #[must_use]
    pub fn entered_bytes(&self) -> Option<usize> {
        self.entered.as_ref().map(|entered| entered.bytes)
    }

    /// See [`Writing::report`].
    pub fn report(&self, fault: Fault) -> StoreError {
        self.file.report(self.opening, fault)
    }
}

impl<'a> Writing<'a> {
    /// The transaction itself.
    #[must_use]
    pub const fn transaction(&self) -> &WriteTransaction {
        &self.transaction
    }

    /// The transaction, and what enters it into the journal.
    pub fn parts(&mut self) -> (&WriteTransaction, Pen<'_, 'a>) {
        let Self { file, transaction, opening, gate, entered } = self;
        (transaction, Pen { file, opening: *opening, journal: gate, entered })
    }

    /// Takes note of a fault met in this transaction, and says how to answer.
    pub fn report(&self, fault: Fault) -> StoreError {
        self.file.report(self.opening, fault)
    }

    /// Undoes the transaction, but for what the journal has of it: that is carried out alone, and committed. Where that
    /// cannot be done, the file is opened anew before it is next used, and finds it in the journal.
    pub fn undo(self) {
        let Self { file, transaction, opening, gate: _gate, entered } = self;
        let aborted = transaction.abort().map_err(Fault::from);
        let (Some(entered), Some(replay)) = (&entered, file.schema.replay) else {
            aborted.unwrap_or_else(|fault| drop(file.report(opening, fault)));
            return;
        };
        if file.is_broken() || file.fatal.get().is_some() {
            return;
        }
        let redone = aborted.and_then(|()| {
            let current = file.current.read().unwrap_or_else(PoisonError::into_inner);
            let database = current.database.as_ref().ok_or(Fault::Refused(StoreError::Closed))?;
            let transaction = database.begin_write()?;
            entered.records.iter().try_for_each(|record| replay(&transaction, record.content()))?;
            file.commit_entered(transaction)
        });
        file.judge_entered(opening, redone);
    }

    /// Commits what the journal has, unless bringing it into the tables failed. Where that cannot be done, the file is
    /// opened anew before it is next used, and finds it in the journal.
    pub fn settle(self, written: Result<(), Fault>) {
        let Self { file, transaction, opening, gate: _gate, entered } = self;
        if entered.is_some() {
            file.judge_entered(opening, written.and_then(|()| file.commit_entered(transaction)));
        } else {
            // Before the gate opens: who reopens the file has to find it unused.
            drop(transaction);
        }
    }

    /// Commits and syncs. A commit that redb reports as failed may have happened all the same: whether it did
    /// is found out here, so that an answer is never a guess.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nothing of the transaction was kept; after `Fatal` either may be true.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { file, mut transaction, opening, mut gate, entered: _entered } = self;
        let serial = file.serial.load(Ordering::SeqCst) + 1;
        let durability = if file.is_unsafe() { Durability::None } else { Durability::Immediate };
        let committed = transaction
            .set_durability(durability)
            .map_err(Fault::from)
            .and_then(|()| set_serial(&transaction, serial))
            .and_then(|()| Ok(transaction.commit()?));
        match committed.map_err(|fault| file.report(opening, fault)) {
            Ok(()) => {}
            Err(StoreError::Fatal(why)) => return Err(StoreError::Fatal(why)),
            Err(error) => {
                file.unsure.store(serial, Ordering::SeqCst);
                let reopened = file.reopen_if_broken(&mut gate);
                // Found later, when this is answered, it would make the answer a lie: that ends the process.
                file.unsure.store(0, Ordering::SeqCst);
                if reopened.is_err() || file.serial.load(Ordering::SeqCst) != serial {
                    return Err(error);
                }
            }
        }
        file.serial.store(serial, Ordering::SeqCst);
        if let Some(journal) = &mut *gate {
            journal.begin_lap();
        }
        file.logged.store(false, Ordering::Relaxed);
        file.synced_length.store(file.watch.length(), Ordering::Relaxed);
        Ok(())
    }
}

impl StoreFile {
    /// Commits what the journal has.
    fn commit_entered(&self, mut transaction: WriteTransaction) -> Result<(), Fault> {
        self.was_read.store(false, Ordering::Relaxed);
        transaction.set_durability(Durability::None)?;
        set_serial(&transaction, self.serial.load(Ordering::SeqCst))?;
        Ok(transaction.commit()?)
    }

    fn judge_entered(&self, opening: u64, committed: Result<(), Fault>) {
        if let Err(fault) = committed {
            let error = self.report(opening, fault);
            self.broken.fetch_max(opening, Ordering::SeqCst);
            tracing::warn!(%error, "what the journal has could not be brought into the tables yet");
        }
    }

    /// Opens the store, or makes a new one whose first commit holds what `fill` puts into it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn open(
        backend: Backend,
        schema: Schema,
        sizes: Sizes,
        entropy: &dyn Entropy,
        fill: &mut Fill<'_>,
    ) -> Result<Self, OpenError> {
        let Sizes { cache_bytes, journal_bytes } = sizes;
        let (watch, mut journal) = (Watch::default(), None);
        let new_journal = NewJournal { most_bytes: journal_bytes, seed: entropy.bytes() };
        let mut opening =
            Opening { backend: &backend, schema, cache_bytes, watch: &watch, journal: &mut journal, new_journal };
        let (database, id) = opening.open_or_create(StoreId(entropy.bytes()), fill)?;
        let logged = journal.as_ref().is_some_and(|journal| !journal.is_empty());
        let file = Self {
            current: RwLock::new(Current { database: Some(database), closed: false }),
            gate: Mutex::new(journal),
            reading: RwLock::default(),
            awaiting: AtomicUsize::new(0),
            was_read: AtomicBool::new(false),
            new_journal,
            logged: AtomicBool::new(logged),
            synced_length: AtomicU64::new(watch.length()),
            opening: AtomicU64::new(1),
            broken: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            unsure: AtomicU64::new(0),
            fatal: OnceLock::new(),
            backend,
            schema,
            cache_bytes,
            watch,
            id,
        };
        let last = file.read(serial).map_err(|error| {
            let source = std::io::Error::other(error);
            OpenError::Io { path: file.backend.path().to_owned(), source }
        })?;
        file.serial.store(last, Ordering::SeqCst);
        file.part_from_copies();
        Ok(file)
    }

    /// Takes the next number for a commit of its own, if there is a journal: so what will stand there does not follow a
    /// copy that was made of the tables before.
    fn part_from_copies(&self) {
        let is_journaled = self.gate.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let parted = if is_journaled { self.write().and_then(Writing::commit) } else { Ok(()) };
        if let Err(error) = parted {
            // A full disk is no reason not to open.
            tracing::warn!(%error, "the tables could not be synced at the opening");
        }
    }

    /// Which life of which store this is.
    #[must_use]
    pub const fn id(&self) -> StoreId {
        self.id
    }

    /// Where it lies.
    #[must_use]
    pub const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Knows how long the medium is.
    pub(super) const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether this opening met an error: the file is opened anew before it is next used.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst) >= self.opening.load(Ordering::SeqCst)
    }

    /// A deliberate defect: nothing is durable when it is answered.
    fn is_unsafe(&self) -> bool {
        Mutant::AcknowledgedBeforeStored.is_planted() && self.schema.kind == "relay"
    }

    /// Whether [`checkpoint`](Self::checkpoint) would have something to do.
    pub fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    /// Syncs the tables, so that nothing depends on the journal.
    ///
    /// # Errors
    /// See [`StoreError`]; the journal keeps what it has then.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        if self.is_logged() { self.write()?.commit() } else { Ok(()) }
    }

    /// Reads all pages and compares their checksums. Nobody may be reading.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the file is damaged.
    pub fn check_pages(&self) -> Result<(), StoreError> {
        self.checkpoint()?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match current.database.as_mut().ok_or(StoreError::Closed)?.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.condemn("its pages were damaged; what could be mended is, and a second check tells")),
            Err(error) => Err(self.condemn(&error.to_string())),
        }
    }

    /// Begins a write transaction whose commit is synced, after reopening the file if it has to be.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the file does not work now, `Fatal` or `Closed` if it never will again.
    pub fn write(&self) -> Result<Writing<'_>, StoreError> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.reopen_if_broken(&mut gate)?;
        let (begun, opening) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            let database = current.database.as_ref().ok_or(StoreError::Closed)?;
            let begun = database.begin_write().map_err(Fault::from).map(|mut transaction| {
                transaction.set_quick_repair(self.watch.length() > WALKED_BYTES);
                transaction
            });
            (begun, self.opening.load(Ordering::SeqCst))
        };
        let transaction = begun.map_err(|fault| self.report(opening, fault))?;
        Ok(Writing { file: self, transaction, opening, gate, entered: None })
    }

    /// Whether somebody waits to read until all that is durable is in the tables.
    pub fn is_awaited(&self) -> bool {
        self.awaiting.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody has begun to read since the tables were last brought up to what is durable: somebody may want to
    /// once more.
    pub fn was_read(&self) -> bool {
        self.was_read.load(Ordering::Relaxed)
    }

    /// Begins to read; where that has to wait, `call` is called, which is to make the wait short.
    fn begin_reading(&self, call: impl FnOnce()) -> RwLockReadGuard<'_, ()> {
        self.was_read.store(true, Ordering::Relaxed);
        match self.reading.try_read() {
            Ok(reading) => reading,
            Err(TryLockError::Poisoned(reading)) => reading.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.awaiting.fetch_add(1, Ordering::SeqCst);
                call();
                let reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
                self.awaiting.fetch_sub(1, Ordering::SeqCst);
                reading
            }
        }
    }

    /// Reads within one transaction. Nobody may be writing.
    ///
    /// # Errors
    /// See [`StoreError`]; after `Unavailable` a later call may work.
    pub fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.read_beside(|| (), look)
    }

    /// Reads within one transaction beside somebody who writes, and who is called if what is durable has to be
    /// [brought into the tables](Writing::settle) first.
    ///
    /// # Errors
    /// See [`StoreError`]; after `Unavailable` a later call may work.
    pub fn read_beside<T>(
        &self,
        call: impl FnOnce(),
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        // Without a writer that reopens the file, the reader does it.
        match self.gate.try_lock() {
            Ok(mut gate) => self.reopen_if_broken(&mut gate)?,
            Err(TryLockError::Poisoned(gate)) => self.reopen_if_broken(&mut gate.into_inner())?,
            Err(TryLockError::WouldBlock) => {}
        }
        let (begun, opening) = {
            let _reading = self.begin_reading(call);
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(fatal) = self.fatal.get() {
                return Err(StoreError::Fatal(fatal.clone()));
            }
            let database = current.database.as_ref();
            let unavailable = || StoreError::Unavailable("it is being opened anew".into());
            let database = database.ok_or_else(|| if current.closed { StoreError::Closed } else { unavailable() })?;
            let opening = self.opening.load(Ordering::SeqCst);
            if self.is_broken() {
                // It may lack what was told of.
                return Err(unavailable());
            }
            (database.begin_read().map_err(Fault::from), opening)
        };
        begun.and_then(|transaction| look(&transaction)).map_err(|fault| self.report(opening, fault))
    }

    fn report(&self, opening: u64, fault: Fault) -> StoreError {
        match fault {
            Fault::Refused(error) => error,
            Fault::Corrupt(what) => StoreError::Unavailable(what),
            Fault::Storage(error) => {
                self.broken.fetch_max(opening, Ordering::SeqCst);
                if self.watch.failed() {
                    return self.condemn(&format!("syncing to the disk failed: {error}"));
                }
                match error {
                    StorageError::Corrupted(_) => self.condemn(&error.to_string()),
                    _ => StoreError::Unavailable(error.to_string().into()),
                }
            }
        }
    }

    /// Ends the use of this store in this process: its state is no longer known.
    pub fn condemn(&self, why: &str) -> StoreError {
        StoreError::Fatal(self.fatal.get_or_init(|| why.into()).clone())
    }

    /// Moves what the file holds to its beginning and cuts the rest off. Nobody may be reading; to be called before
    /// anybody does, since all wait for it.
    ///
    /// # Errors
    /// See [`StoreError`]. What the file holds is the same, whether it was moved or not.
    pub fn compact(&self) -> Result<(), StoreError> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.reopen_if_broken(&mut gate)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let compacted = current.database.as_mut().ok_or(StoreError::Closed)?.compact();
        match compacted {
            Ok(_) => Ok(()),
            Err(CompactionError::Storage(error)) => {
                Err(self.report(self.opening.load(Ordering::SeqCst), Fault::Storage(error)))
            }
            Err(error) => Err(StoreError::Unavailable(error.to_string().into())),
        }
    }

    /// Closes the file well, once its last write transaction has ended. If its tables can be synced, nothing is left in
    /// the journal, which could be taken for what follows another copy of them.
    pub fn close(&self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the journal is needed at the next start");
        }
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { database: None, closed: true };
        if let Some(journal) = gate.take().filter(|_| !self.is_logged()) {
            journal.clear();
        }
    }

    fn reopen_if_broken(&self, journal: &mut Option<Journal>) -> Result<(), StoreError> {
        if let Some(fatal) = self.fatal.get() {
            return Err(StoreError::Fatal(fatal.clone()));
        }
        let opening = self.opening.load(Ordering::SeqCst);
        if !self.is_broken() {
            return Ok(());
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.closed {
            return Err(StoreError::Closed);
        }
        current.database = None;
        let Self { backend, schema, cache_bytes, watch, new_journal, .. } = self;
        let (schema, cache_bytes, new_journal) = (*schema, *cache_bytes, *new_journal);
        let reopened = Opening { backend, schema, cache_bytes, watch, journal, new_journal }.reopen();
        if watch.failed() {
            return Err(self.condemn("syncing to the disk failed while the store was opened anew"));
        }
        match reopened {
            Ok((database, id)) if id == self.id => {
                let found = database.begin_read().map_err(Fault::from).and_then(|transaction| serial(&transaction));
                let found = found.map_err(|fault| self.report(opening, fault))?;
                self.settle_doubt(found)?;
                current.database = Some(database);
                self.opening.store(opening + 1, Ordering::SeqCst);
                Ok(())
            }
            Ok(_) => Err(self.condemn("another store has taken its place")),
            Err(error) => Err(StoreError::Unavailable(error.to_string().into())),
        }
    }

    /// Compares the number of the last commit found with the one known.
    fn settle_doubt(&self, found: u64) -> Result<(), StoreError> {
        let (known, unsure) = (self.serial.load(Ordering::SeqCst), self.unsure.swap(0, Ordering::SeqCst));
        match found {
            _ if found == known => Ok(()),
            _ if found == unsure && found == known + 1 => {
                self.serial.store(found, Ordering::SeqCst);
                Ok(())
            }
            _ => Err(self.condemn(&format!("commit {known} was the last one, and {found} is found"))),
        }
    }
}
