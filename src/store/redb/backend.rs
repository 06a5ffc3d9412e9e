//! Where the bytes of a store lie, and the watch over its syncs.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

/// What a store keeps bytes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The tables.
    Tables,
    /// The journal of the latest commits, if it has one.
    Journal,
}

/// Opens a medium of a store anew; called again whenever the store has to be reopened.
pub type OpenMedium = dyn Fn(Part) -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// Where a store keeps its bytes.
#[derive(Clone)]
pub enum Backend {
    /// A file, with its journal beside it. Created if there is none; locked against other processes.
    File(PathBuf),
    /// Memory: gone with the process. For tests.
    Memory,
    /// Media that are wholly the store's own, such as a simulated disk. Empty ones, or such on which the creation was
    /// cut off, become a new store.
    Custom(Arc<OpenMedium>),
}

impl Backend {
    /// What to call it in a message to a person.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Memory => Path::new("(memory)"),
            Self::Custom(_) => Path::new("(custom medium)"),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.path().display())
    }
}

/// Remembers for all openings of one store whether a sync ever failed, and how long its medium is.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    failed: AtomicBool,
    length: AtomicU64,
}

impl Watch {
    /// Whether a sync failed: from then on nobody knows what the disk holds.
    pub(super) fn failed(&self) -> bool {
        self.0.failed.load(Ordering::SeqCst)
    }

    /// Bytes of the medium of the tables, used or not.
    pub(super) fn length(&self) -> u64 {
        self.0.length.load(Ordering::Relaxed)
    }

    /// Syncs, unless a sync failed before, and remembers whether it did.
    ///
    /// # Errors
    /// From the first failed one on.
    pub(super) fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.failed() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let synced = sync();
        if synced.is_err() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
        synced
    }
}

/// A backend whose failed syncs are noted. redb reports every I/O error alike, but a failed sync must never be
/// followed by another attempt: the kernel may have dropped the dirty pages and call the next sync a success.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    watch: Watch,
}

impl Watched {
    /// # Errors
    /// If the medium does not say how long it is.
    pub(super) fn new(inner: Box<dyn StorageBackend>, watch: &Watch) -> io::Result<Self> {
        watch.0.length.store(inner.len()?, Ordering::Relaxed);
        Ok(Self { inner, watch: watch.clone() })
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.watch.0.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.sync(|| self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::disk::{Disk, Faults};

    #[test]
    fn after_a_failed_sync_the_disk_is_not_asked_to_sync_again() {
        let disk = Disk::new(1);
        let Backend::Custom(open) = disk.backend() else { panic!("a disk is a custom medium") };
        let watch = Watch::default();
        let first = Watched::new(open(Part::Tables).unwrap(), &watch).unwrap();
        first.sync_data().unwrap();
        assert!(!watch.failed());
        disk.set_faults(Faults { sync_after: Some(0), ..Faults::default() });
        assert!(first.sync_data().is_err() && watch.failed());
        first.close().unwrap();
        // The kernel would call the next one a success; so does this disk.
        let second = Watched::new(open(Part::Tables).unwrap(), &watch).unwrap();
        assert!(second.sync_data().is_err());
        assert_eq!(disk.syncs(), 2);
    }
}
