//! The relay's store on redb: mailboxes, lane rows, and the sessions that are open.
//!
//! [`RelayStore`] says what it promises. Here is only how it is put together: the
//! engine that the writer drives, the reads beside it, and the limits that may be changed while it runs.

mod access;
mod append;
mod backup;
mod backup_file;
#[cfg(test)]
mod backup_tests;
mod blocks;
mod check;
#[cfg(test)]
pub(super) mod contract_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod disk_tests;
mod engine;
mod expire;
mod fences;
mod logged;
mod messages;
mod peers;
mod policy;
mod read;
mod restore;
mod rows;
mod schema;
mod settle;
mod shrink;
mod size;
mod space;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod together_tests;
mod work;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

pub use self::backup::{backup_file, check_file, restore_file, verify_backup};
pub use self::backup_file::{BackupError, Progress};
pub use self::check::CheckReport;
#[cfg(fuzzing)]
pub use self::schema::read_any_row;
pub use self::space::{DiskRoom, FreeSpace};

use self::engine::{RelayEngine, Reported, Request, take_interrupted};
use self::fences::Fences;
use self::settle::{Counting, Damage};
use self::space::SpaceWatch;
use super::backend::Backend;
use super::file::{DEFAULT_CACHE_BYTES, DEFAULT_JOURNAL_BYTES, OpenError, Sizes, StoreFile};
use super::writer::{Writer, WriterMode};
use crate::id::{PeerId, StoreId};
use crate::mutant::Mutant;
use crate::protocol::{Durability, Policy, Status};
use crate::random::SharedEntropy;
use crate::store::{
    Counted, Done, Expired, Fence, LinkState, Op, Page, PeerPage, Query, RelayStore, Reply, StoreError, StoreLimits,
    TakePiece, Totals, Watch, Watchers,
};
use crate::time::SharedClock;

/// `seq`s of an opening begin at the date in ms, shifted so far: a restored store goes on above all that the
/// lost one gave, unless that took more than a thousand messages a millisecond, without a pause, into one mailbox.
const SEQ_SHIFT: u32 = 10;

/// How to open a relay's store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where its bytes lie.
    pub backend: Backend,
    /// How to find out whether there is room for more.
    pub free_space: FreeSpace,
    /// What mailboxes may hold, and the like.
    pub limits: StoreLimits,
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where a new store's id comes from.
    pub entropy: SharedEntropy,
    /// On which thread it writes.
    pub writer: WriterMode,
    /// Memory for pages; see [`DEFAULT_CACHE_BYTES`].
    pub cache_bytes: usize,
    /// Length of the journal; see [`DEFAULT_JOURNAL_BYTES`].
    pub journal_bytes: u64,
}

impl OpenOptions {
    /// A store with the default limits, on a thread of its own, that does not look at the room on its disk.
    #[must_use]
    pub fn new(backend: Backend, clock: SharedClock, entropy: SharedEntropy) -> Self {
        Self {
            backend,
            free_space: FreeSpace::Unlimited,
            limits: StoreLimits::default(),
            clock,
            entropy,
            writer: WriterMode::default(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            journal_bytes: DEFAULT_JOURNAL_BYTES,
        }
    }
}

/// A relay's store in a redb file. Dropping it does what is queued and closes the file, without waiting for
/// either; [`close`](Self::close) waits.
#[derive(Debug)]
pub struct RedbRelayStore {
    writer: Writer<RelayEngine>,
    watchers: Arc<Watchers>,
    limits: Arc<RwLock<Arc<StoreLimits>>>,
    clock: SharedClock,
    durability: Durability,
    interrupted: Vec<SocketAddr>,
    counted: Arc<Counted>,
}

impl RedbRelayStore {
    /// Opens the store, or makes a new one.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(options: OpenOptions) -> Result<Self, OpenError> {
        let OpenOptions { backend, free_space, limits, clock, entropy, writer, cache_bytes, journal_bytes } = options;
        let durability = match &backend {
            Backend::Memory => Durability::Memory,
            Backend::File(_) | Backend::Custom(_) => Durability::Disk,
        };
        let path = backend.path().to_owned();
        let fill = &mut |transaction: &_| work::make_tables(transaction);
        let file = StoreFile::open(backend, schema::SCHEMA, Sizes { cache_bytes, journal_bytes }, &*entropy, fill)?;
        let failed = |source| OpenError::Io { path: path.clone(), source };
        shrink::shrink(&file);
        let limits = Arc::new(limits);
        let interrupted = take_interrupted(&file, &limits, &clock);
        let interrupted = interrupted.map_err(|error| failed(std::io::Error::other(error)))?;
        let limits = Arc::new(RwLock::new(limits));
        let watchers = Arc::new(Watchers::default());
        let counted = Arc::new(Counted::default());
        let engine = RelayEngine {
            counted: counted.clone(),
            counting: Counting::default(),
            begun: None,
            entering: None,
            clock: clock.clone(),
            limits: limits.clone(),
            watchers: watchers.clone(),
            durability,
            store: file.id(),
            first_seq: if Mutant::SeqReusedAfterRestore.is_planted() { 0 } else { clock.date().0 << SEQ_SHIFT },
            space: SpaceWatch::new(free_space, clock.clone()),
            journal_bytes,
            failed_until: None,
            fences: Fences::default(),
            damage: Damage::default(),
            began: BTreeMap::new(),
            ended: Vec::new(),
            news: Vec::new(),
            withheld: Vec::new(),
        };
        let writer = Writer::start(file, engine, writer, "relay-store").map_err(failed)?;
        Ok(Self { writer, watchers, limits, clock, durability, interrupted, counted })
    }

    /// Takes other limits from the next group of batches on.
    pub fn set_limits(&self, limits: StoreLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// Reads the whole store and says what does not fit together.
    pub fn check(&self) -> Reply<CheckReport> {
        self.writer.read(check::check)
    }

    /// Closes the file once all that is queued is done. Later requests are answered [`StoreError::Closed`].
    pub fn close(&self) -> Reply<()> {
        self.writer.close()
    }
}

fn mixed_up<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the writer answered another question".into()))
}

impl RelayStore for RedbRelayStore {
    fn store_id(&self) -> StoreId {
        self.writer.file().id()
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn interrupted(&self) -> Vec<SocketAddr> {
        self.interrupted.clone()
    }

    fn submit(&self, fence: Fence, batch: Vec<Op>) -> Reply<Vec<Done>> {
        let reply = self.writer.submit(Request::Batch(fence, batch));
        Box::pin(async move {
            match reply.await? {
                Reported::Batch(done) => Ok(done),
                _ => mixed_up(),
            }
        })
    }

    fn has_room(&self) -> bool {
        self.writer.has_room()
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.writer.room())
    }

    fn expire(&self, limit: usize) -> Reply<Expired> {
        let reply = self.writer.submit(Request::Expire(limit));
        Box::pin(async move {
            match reply.await? {
                Reported::Expired(expired) => Ok(expired),
                _ => mixed_up(),
            }
        })
    }

    fn page(&self, query: Query) -> Reply<Page> {
        let clock = self.clock.clone();
        self.writer.read(move |transaction| read::page(transaction, &query, clock.date()))
    }

    fn status(&self, mailbox: PeerId, sender: Option<PeerId>) -> Reply<Status> {
        self.writer.read(move |transaction| read::status(transaction, mailbox, sender))
    }

    fn links(&self) -> Reply<Vec<LinkState>> {
        self.writer.read(read::links)
    }

    fn counted(&self) -> &Counted {
        &self.counted
    }

    fn totals(&self) -> Reply<Totals> {
        let watch = self.writer.file().watch().clone();
        self.writer.read(move |transaction| read::totals(transaction, watch.length()))
    }

    fn probe(&self) -> Reply<bool> {
        let reply = self.writer.submit(Request::Probe);
        Box::pin(async move {
            match reply.await? {
                Reported::Probed { has_room } => Ok(has_room),
                _ => mixed_up(),
            }
        })
    }

    fn policy(&self, mailbox: PeerId) -> Reply<Policy> {
        self.writer.read(move |transaction| policy::read(transaction, mailbox))
    }

    fn peers(&self, after: Option<PeerId>, limit: usize) -> Reply<PeerPage> {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.writer.read(move |transaction| peers::peers(transaction, &limits.access, after, limit))
    }

    fn backup(&self, take: Box<TakePiece>) -> Reply<()> {
        backup::running(&self.writer, self.clock.clone(), take)
    }

    fn watch(&self, mailbox: PeerId) -> Watch {
        self.watchers.watch(mailbox)
    }
}
