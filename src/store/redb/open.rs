//! Opening and creating a store's file, so that nothing is touched that is not ours and no creation is half done.
//!
//! A file is made under a temporary name, filled by one commit, synced, renamed, and the directory synced: a
//! crash at any point leaves either no store or a whole one. An existing file is first looked at without write
//! access, so that a wrong one is refused as it was found.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageBackend, StorageError,
    TableDefinition, TableError, WriteTransaction,
};

use super::backend::{Backend, Part, Watch, Watched};
use super::fault::Fault;
use super::journal::Journal;
use crate::id::StoreId;
use crate::mutant::Mutant;

/// What every store file has: its kind, its schema's version, its store id.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const KIND: &str = "kind";
const VERSION: &str = "version";
const STORE_ID: &str = "store_id";
const SERIAL: &str = "serial";

/// The first bytes of a redb file, written last when it is made.
const MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1A, 0x0A, 0xA9, 0x0D, 0x0A];

/// What is in a file: whose store, and in which version of its tables.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Whose store: `relay` or `client`.
    pub kind: &'static str,
    /// The steps that lead from each version of its tables to the next: the first from version 1 to version 2.
    pub upgrades: &'static [Upgrade],
    /// Carries out what a journal says of one commit; without it there is no journal. It reads what earlier versions
    /// wrote as well.
    pub replay: Option<Replay>,
}

/// Does to the tables what a commit did, from the content of its record.
pub type Replay = fn(&WriteTransaction, &[u8]) -> Result<(), Fault>;

/// Makes of the tables of one version those of the next.
pub type Upgrade = fn(&WriteTransaction) -> Result<(), Fault>;

impl Schema {
    /// Which version of the tables this program reads and writes.
    #[must_use]
    pub const fn version(&self) -> u64 {
        1 + self.upgrades.len() as u64
    }

    /// Brings tables of an earlier version to this one, in the transaction that is to be committed with it.
    pub(super) fn upgrade(&self, transaction: &WriteTransaction, from: u64) -> Result<(), Fault> {
        let known = from.checked_sub(1).and_then(|done| self.upgrades.get(usize::try_from(done).ok()?..));
        let steps = known.ok_or_else(|| Fault::corrupt(format!("there is no schema {from}")))?;
        steps.iter().try_for_each(|step| step(transaction))
    }
}

/// Why a store could not be opened. Nothing was changed, the version of its tables included.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process: stop that one, or use another directory", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later version of this program.
    #[error("{path} has schema {found} and this program knows {known}: use a newer posthouse", path = .path.display())]
    LaterSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema known here.
        known: u64,
    },
    /// A file of something else, or another kind of store.
    #[error("{path} is no {wanted} store ({found}): name another file, or move it away", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The kind of store that was wanted.
        wanted: &'static str,
        /// What it is instead.
        found: String,
    },
    /// A store that is damaged.
    #[error("{path} is damaged ({detail}): restore a backup, or move it away to start with nothing", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The operating system refused.
    #[error("{path} cannot be opened", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// How many commits the store has seen: tells after a failed commit whether it happened all the same.
pub(super) fn serial(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let meta = transaction.open_table(META)?;
    let value = meta.get(SERIAL)?;
    Ok(value.and_then(|bytes| Some(u64::from_be_bytes(bytes.value().try_into().ok()?))).unwrap_or(0))
}

/// Writes the number of this commit.
pub(super) fn set_serial(transaction: &WriteTransaction, serial: u64) -> Result<(), Fault> {
    transaction.open_table(META)?.insert(SERIAL, serial.to_be_bytes().as_slice())?;
    Ok(())
}

/// Gives the store another id.
pub(super) fn set_store_id(transaction: &WriteTransaction, id: StoreId) -> Result<(), Fault> {
    transaction.open_table(META)?.insert(STORE_ID, id.0.as_slice())?;
    Ok(())
}

/// The tables that a new store begins with.
pub type Fill<'a> = dyn FnMut(&WriteTransaction) -> Result<(), Fault> + 'a;

/// One opening of a store's medium.
pub(super) struct Opening<'a> {
    pub(super) backend: &'a Backend,
    pub(super) schema: Schema,
    pub(super) cache_bytes: usize,
    pub(super) watch: &'a Watch,
    /// Opened with the tables, if the store has one.
    pub(super) journal: &'a mut Option<Journal>,
    pub(super) new_journal: NewJournal,
}

/// What a journal needs when it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewJournal {
    pub(super) most_bytes: u64,
    pub(super) seed: [u8; 16],
}

impl Opening<'_> {
    /// Opens what is there, or makes it.
    pub(super) fn open_or_create(
        &mut self,
        id: StoreId,
        fill: &mut Fill<'_>,
    ) -> Result<(Database, StoreId), OpenError> {
        match self.backend {
            Backend::File(path) => {
                if !path.try_exists().map_err(|source| self.io(source))? {
                    self.create_file(path, id, fill)?;
                }
                self.open_file(path)
            }
            Backend::Memory => {
                let database = self.database(Box::new(InMemoryBackend::new()))?;
                self.fill(&database, id, fill)?;
                Ok((database, id))
            }
            Backend::Custom(open) => {
                let medium = open(Part::Tables).map_err(|source| self.io(source))?;
                if let Err(source) = clear_torn_creation(medium.as_ref()) {
                    drop(medium.close());
                    return Err(self.io(source));
                }
                let database = self.database(medium)?;
                if is_unfilled(&database).map_err(|fault| self.judge_fault(fault))? {
                    self.fill(&database, id, fill)?;
                }
                self.upgraded(database)
            }
        }
    }

    /// Opens what was open before.
    pub(super) fn reopen(&mut self) -> Result<(Database, StoreId), OpenError> {
        match self.backend {
            Backend::File(path) => self.open_file(path),
            Backend::Memory => Err(self.io(io::Error::other("memory is gone once closed"))),
            Backend::Custom(open) => {
                let medium = open(Part::Tables).map_err(|source| self.io(source))?;
                let database = self.database(medium)?;
                self.upgraded(database)
            }
        }
    }

    fn create_file(&self, path: &Path, id: StoreId, fill: &mut Fill<'_>) -> Result<(), OpenError> {
        let wrap = |source| self.io(source);
        let directory = directory_of(path);
        fs::create_dir_all(directory).map_err(wrap)?;
        // Two processes may find no file at the same time: the second waits here and then finds the first's.
        let directory = File::open(directory).map_err(wrap)?;
        directory.lock().map_err(wrap)?;
        if path.try_exists().map_err(wrap)? {
            return Ok(());
        }
        let temporary = with_ending(path, ".new");
        // What a crash left behind was never a store.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrap(error)),
            Err(_) | Ok(()) => {}
        }
        // Messages are nobody else's business: readable by the owner alone.
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&temporary).map_err(wrap)?;
        let synced = file.try_clone().map_err(wrap)?;
        let database = self.database(Box::new(FileBackend::new(file).map_err(|error| self.judge(error))?))?;
        self.fill(&database, id, fill)?;
        database.close().map_err(|error| self.judge(error))?;
        synced.sync_all().map_err(wrap)?;
        fs::rename(&temporary, path).map_err(wrap)?;
        directory.sync_all().map_err(wrap)
    }

    fn open_file(&mut self, path: &Path) -> Result<(Database, StoreId), OpenError> {
        let open = |write| File::options().read(true).write(write).open(path).map_err(|source| self.io(source));
        let file = open(false)?;
        if file.metadata().map_err(|source| self.io(source))?.len() == 0 {
            return Err(self.foreign("an empty file"));
        }
        let look = FileBackend::new(file).map_err(|error| self.judge(error))?;
        match self.guarded(|| Builder::new().open_read_only_with_backend(look)) {
            Ok(database) => {
                self.check(database.begin_read().map_err(Fault::from))?;
            }
            // Left by a crash: only an opening for writing can read it.
            Err(DatabaseError::RepairAborted) => {}
            Err(error) => return Err(self.judge(error)),
        }
        let database = self.database(Box::new(FileBackend::new(open(true)?).map_err(|error| self.judge(error))?))?;
        self.upgraded(database)
    }

    /// Carries out what the journal holds, and then brings a store of an earlier version to this one, in one commit: it
    /// is the one or the other.
    fn upgraded(&mut self, database: Database) -> Result<(Database, StoreId), OpenError> {
        let (id, found) = self.check(database.begin_read().map_err(Fault::from))?;
        self.replay(&database, id)?;
        let known = self.schema.version();
        if found < known {
            let commit = || -> Result<(), Fault> {
                let transaction = database.begin_write()?;
                self.schema.upgrade(&transaction, found)?;
                transaction.open_table(META)?.insert(VERSION, known.to_be_bytes().as_slice())?;
                Ok(transaction.commit()?)
            };
            commit().map_err(|fault| self.judge_fault(fault))?;
            tracing::info!(store = %self.backend.path().display(), from = found, to = known, "store upgraded");
        }
        Ok((database, id))
    }

    /// Commits what the journal holds and the tables do not. It stays in the journal: on a full disk nothing could be
    /// synced here.
    fn replay(&mut self, database: &Database, id: StoreId) -> Result<(), OpenError> {
        let Some(replay) = self.schema.replay else { return Ok(()) };
        if self.journal.is_none() {
            *self.journal = self.open_journal()?;
        }
        let Some(journal) = self.journal else { return Ok(()) };
        let mut carry_out = || -> Result<u64, Fault> {
            let before = serial(&database.begin_read()?)?;
            let mut transaction = database.begin_write()?;
            let last = journal.records(id, before, |record| {
                if Mutant::JournalForgotten.is_planted() {
                    return Ok(());
                }
                // Whoever puts another file in its place may have made it say anything.
                catch_unwind(AssertUnwindSafe(|| replay(&transaction, record)))
                    .unwrap_or_else(|_| Err(Fault::corrupt("its journal makes no sense")))
            })?;
            if last == before {
                transaction.abort()?;
            } else {
                set_serial(&transaction, last)?;
                transaction.set_durability(Durability::None)?;
                transaction.commit()?;
            }
            Ok(last - before)
        };
        let commits = carry_out().map_err(|fault| self.judge_fault(fault))?;
        if commits > 0 {
            tracing::info!(store = %self.backend.path().display(), commits, "carried out what the journal held");
        }
        Ok(())
    }

    fn open_journal(&self) -> Result<Option<Journal>, OpenError> {
        let open = || -> io::Result<Option<Box<dyn StorageBackend>>> {
            match self.backend {
                Backend::File(path) => Ok(Some(open_beside(path)?)),
                Backend::Custom(open) => Ok(Some(open(Part::Journal)?)),
                Backend::Memory => Ok(None),
            }
        };
        let NewJournal { most_bytes, seed } = self.new_journal;
        let opened = open().and_then(|medium| {
            medium.map(|medium| Journal::open(medium, self.watch.clone(), most_bytes, seed)).transpose()
        });
        opened.map_err(|source| OpenError::Io { path: journal_of(self.backend.path()), source })
    }

    fn database(&self, medium: Box<dyn StorageBackend>) -> Result<Database, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let medium = Watched::new(medium, self.watch).map_err(|error| self.io(error))?;
        self.guarded(|| builder.create_with_backend(medium)).map_err(|error| self.judge(error))
    }

    /// redb trusts a file that was closed well, and may panic over one that was damaged since.
    fn guarded<T>(&self, open: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
            Err(DatabaseError::Storage(StorageError::Corrupted("its pages make no sense".to_owned())))
        })
    }

    fn fill(&self, database: &Database, id: StoreId, fill: &mut Fill<'_>) -> Result<(), OpenError> {
        let mut first_commit = || -> Result<(), Fault> {
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                meta.insert(KIND, self.schema.kind.as_bytes())?;
                meta.insert(VERSION, self.schema.version().to_be_bytes().as_slice())?;
                meta.insert(STORE_ID, id.0.as_slice())?;
            }
            fill(&transaction)?;
            Ok(transaction.commit()?)
        };
        first_commit().map_err(|fault| self.judge_fault(fault))
    }

    /// Whether this is a store of the wanted kind, of a version that is known; its id and that version.
    fn check(&self, transaction: Result<ReadTransaction, Fault>) -> Result<(StoreId, u64), OpenError> {
        let read = || -> Result<_, Fault> {
            let transaction = transaction?;
            let meta = match transaction.open_table(META) {
                Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => return Ok(None),
                opened => opened?,
            };
            let value = |key| Ok::<_, Fault>(meta.get(key)?.map(|value| value.value().to_vec()));
            Ok(Some((value(KIND)?, value(VERSION)?, value(STORE_ID)?)))
        };
        let read = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Fault::corrupt("its tables")));
        let Some((kind, version, id)) = read.map_err(|fault| self.judge_fault(fault))? else {
            return Err(self.foreign("a redb file of another program"));
        };
        let kind = kind.unwrap_or_default();
        if kind != self.schema.kind.as_bytes() {
            return Err(self.foreign(&format!("a {} store", String::from_utf8_lossy(&kind))));
        }
        let version = version.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        let version = version.ok_or_else(|| self.corrupt("it has no schema version"))?;
        let known = self.schema.version();
        if version > known {
            return Err(OpenError::LaterSchema { path: self.backend.path().to_owned(), found: version, known });
        }
        let id = id.and_then(|bytes| Some(StoreId(bytes.try_into().ok()?)));
        id.map(|id| (id, version)).ok_or_else(|| self.corrupt("it has no store id"))
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io { path: self.backend.path().to_owned(), source }
    }

    fn corrupt(&self, detail: &str) -> OpenError {
        OpenError::Corrupt { path: self.backend.path().to_owned(), detail: detail.to_owned() }
    }

    fn foreign(&self, found: &str) -> OpenError {
        let path = self.backend.path().to_owned();
        OpenError::Foreign { path, wanted: self.schema.kind, found: found.to_owned() }
    }

    fn judge(&self, error: DatabaseError) -> OpenError {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                OpenError::InUse { path: self.backend.path().to_owned() }
            }
            DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
                io::ErrorKind::InvalidData => self.foreign("no redb file"),
                io::ErrorKind::UnexpectedEof => self.corrupt("it was cut short"),
                _ => self.io(source),
            },
            DatabaseError::UpgradeRequired(format) => self.foreign(&format!("a redb file of format {format}")),
            other => self.corrupt(&other.to_string()),
        }
    }

    fn judge_fault(&self, fault: Fault) -> OpenError {
        match fault {
            Fault::Storage(error) => self.judge(DatabaseError::Storage(error)),
            Fault::Corrupt(detail) => self.corrupt(&detail),
            Fault::Refused(error) => self.io(io::Error::other(error)),
        }
    }
}

/// Where the journal of a store's file lies.
#[must_use]
pub fn journal_of(store: &Path) -> PathBuf {
    with_ending(store, ".journal")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// The journal of a store's file, made if there is none.
fn open_beside(store: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let path = journal_of(store);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    // What is entered must be found after a power cut, and so must its file.
    File::open(directory_of(store))?.sync_all()?;
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("."))
}

/// Empties a medium whose creation was cut off: its magic number is not, or not all, there.
fn clear_torn_creation(medium: &dyn StorageBackend) -> io::Result<()> {
    let length = medium.len()?;
    let mut magic = MAGIC;
    let head = magic.get_mut(..usize::try_from(length).unwrap_or(MAGIC.len()).min(MAGIC.len())).unwrap_or_default();
    medium.read(0, head)?;
    let torn = head.len() < MAGIC.len()
        || (magic != MAGIC && magic.iter().zip(MAGIC).all(|(found, wanted)| *found == 0 || *found == wanted));
    if torn && length > 0 { medium.set_len(0) } else { Ok(()) }
}

/// Whether the creation was cut off before the first commit.
fn is_unfilled(database: &Database) -> Result<bool, Fault> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}
