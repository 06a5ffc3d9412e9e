//! One open store file: transactions, and what becomes of them when the disk fails.
//!
//! After any I/O error redb answers nothing but errors, so the database is dropped and opened anew before it
//! is next used. A failed sync is another matter: what the disk holds is then unknown, so nothing is tried
//! again and every request from then on is answered [`StoreError::Fatal`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError};

use redb::{CompactionError, Database, Durability, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};

use super::backend::{Backend, Watch};
use super::fault::Fault;
pub(super) use super::open::set_store_id;
pub use super::open::{Fill, OpenError, Schema, Upgrade};
use super::open::{Opening, serial, set_serial};
use crate::id::StoreId;
use crate::mutant::Mutant;
use crate::random::Entropy;
use crate::store::StoreError;

/// Memory for pages, in bytes: half of it at most holds what a transaction has written so far. More makes
/// reading large backlogs cheaper; less makes large transactions go to the disk in parts.
pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;

/// A file up to this length is walked when it is opened after a kill, which takes some tenths of a second. Of a
/// longer one each commit writes what spares the walk, at the cost of a second sync.
const WALKED_BYTES: u64 = 64 << 20;

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
    /// would destroy it.
    gate: Mutex<()>,
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

/// A write transaction and the right to have one. Dropped without a commit, it changes nothing.
pub struct Writing<'a> {
    file: &'a StoreFile,
    transaction: WriteTransaction,
    opening: u64,
    _gate: MutexGuard<'a, ()>,
}

impl std::fmt::Debug for Writing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("file", &self.file).field("opening", &self.opening).finish()
    }
}

impl Writing<'_> {
    /// The transaction itself.
    #[must_use]
    pub const fn transaction(&self) -> &WriteTransaction {
        &self.transaction
    }

    /// Takes note of a fault met in this transaction, and says how to answer.
    pub fn report(&self, fault: Fault) -> StoreError {
        self.file.report(self.opening, fault)
    }

    /// Undoes the transaction.
    ///
    /// # Errors
    /// See [`StoreError`]: the file has to be opened anew then; nothing was changed all the same.
    pub fn abort(self) -> Result<(), StoreError> {
        let Self { file, transaction, opening, _gate } = self;
        transaction.abort().map_err(|error| file.report(opening, error.into()))
    }

    /// Commits and syncs. A commit that redb reports as failed may have happened all the same: whether it did
    /// is found out here, so that an answer is never a guess.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nothing of the transaction was kept; after `Fatal` either may be true.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { file, transaction, opening, _gate: gate } = self;
        let serial = file.serial.load(Ordering::SeqCst) + 1;
        let committed = set_serial(&transaction, serial).and_then(|()| Ok(transaction.commit()?));
        match committed.map_err(|fault| file.report(opening, fault)) {
            Ok(()) => {}
            Err(StoreError::Fatal(why)) => return Err(StoreError::Fatal(why)),
            Err(error) => {
                file.unsure.store(serial, Ordering::SeqCst);
                let reopened = file.reopen_if_broken(&gate);
                // Found later, when this is answered, it would make the answer a lie: that ends the process.
                file.unsure.store(0, Ordering::SeqCst);
                if reopened.is_err() || file.serial.load(Ordering::SeqCst) != serial {
                    return Err(error);
                }
            }
        }
        file.serial.store(serial, Ordering::SeqCst);
        Ok(())
    }
}

impl StoreFile {
    /// Opens the store, or makes a new one whose first commit holds what `fill` puts into it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn open(
        backend: Backend,
        schema: Schema,
        cache_bytes: usize,
        entropy: &dyn Entropy,
        fill: &mut Fill<'_>,
    ) -> Result<Self, OpenError> {
        let watch = Watch::default();
        let opening = Opening { backend: &backend, schema, cache_bytes, watch: &watch };
        let (database, id) = opening.open_or_create(StoreId(entropy.bytes()), fill)?;
        let file = Self {
            current: RwLock::new(Current { database: Some(database), closed: false }),
            gate: Mutex::new(()),
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
        Ok(file)
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

    /// Reads all pages and compares their checksums. Nobody may be reading.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the file is damaged.
    pub fn check_pages(&self) -> Result<(), StoreError> {
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
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.reopen_if_broken(&gate)?;
        let (begun, opening) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            let database = current.database.as_ref().ok_or(StoreError::Closed)?;
            let begun = database.begin_write().map_err(Fault::from).and_then(|mut transaction| {
                let unsafe_relay = Mutant::AcknowledgedBeforeStored.is_planted() && self.schema.kind == "relay";
                transaction.set_durability(if unsafe_relay { Durability::None } else { Durability::Immediate })?;
                transaction.set_quick_repair(self.watch.length() > WALKED_BYTES);
                Ok(transaction)
            });
            (begun, self.opening.load(Ordering::SeqCst))
        };
        let transaction = begun.map_err(|fault| self.report(opening, fault))?;
        Ok(Writing { file: self, transaction, opening, _gate: gate })
    }

    /// Reads within one transaction.
    ///
    /// # Errors
    /// See [`StoreError`]; after `Unavailable` a later call may work.
    pub fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        // Without a writer that reopens the file, the reader does it.
        match self.gate.try_lock() {
            Ok(gate) => self.reopen_if_broken(&gate)?,
            Err(TryLockError::Poisoned(gate)) => self.reopen_if_broken(&gate.into_inner())?,
            Err(TryLockError::WouldBlock) => {}
        }
        let (begun, opening) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(fatal) = self.fatal.get() {
                return Err(StoreError::Fatal(fatal.clone()));
            }
            let database = current.database.as_ref();
            let unavailable = || StoreError::Unavailable("it is being opened anew".into());
            let database = database.ok_or_else(|| if current.closed { StoreError::Closed } else { unavailable() })?;
            (database.begin_read().map_err(Fault::from), self.opening.load(Ordering::SeqCst))
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
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.reopen_if_broken(&gate)?;
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

    /// Closes the file well, once its last write transaction has ended.
    pub fn close(&self) {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { database: None, closed: true };
        drop(gate);
    }

    fn reopen_if_broken(&self, _gate: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        if let Some(fatal) = self.fatal.get() {
            return Err(StoreError::Fatal(fatal.clone()));
        }
        let opening = self.opening.load(Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) < opening {
            return Ok(());
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.closed {
            return Err(StoreError::Closed);
        }
        current.database = None;
        let Self { backend, schema, cache_bytes, watch, .. } = self;
        let reopened = Opening { backend, schema: *schema, cache_bytes: *cache_bytes, watch }.reopen();
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
