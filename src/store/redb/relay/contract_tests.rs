//! The contract of a relay's store, against this engine on every medium and with both kinds of writer.

use std::sync::Arc;

use super::super::backend::Backend;
use super::super::disk::{Disk, Loss};
use super::super::writer::WriterMode;
use super::{FreeSpace, OpenOptions, RedbRelayStore};
use crate::random::SystemEntropy;
use crate::store::StoreLimits;
use crate::store::contract::{Harness, Home, TestClock, contract_tests};

pub(in crate::store::redb) fn options(backend: Backend, clock: &Arc<TestClock>, writer: WriterMode) -> OpenOptions {
    OpenOptions {
        backend,
        free_space: FreeSpace::Unlimited,
        limits: StoreLimits::default(),
        clock: clock.clone(),
        entropy: SystemEntropy::shared(),
        writer,
        cache_bytes: 4 << 20,
        // So short that it is full now and then.
        journal_bytes: 8 << 10,
    }
}

#[derive(Debug)]
enum Medium {
    File(tempfile::TempDir),
    Memory,
    Disk(Disk),
}

#[derive(Debug)]
struct Redb {
    medium: Medium,
    writer: WriterMode,
}

impl Redb {
    fn file() -> Self {
        Self { medium: Medium::File(tempfile::tempdir().unwrap()), writer: WriterMode::Thread }
    }

    fn memory() -> Self {
        Self { medium: Medium::Memory, writer: WriterMode::Thread }
    }

    fn inline() -> Self {
        Self { medium: Medium::Disk(Disk::new(1)), writer: WriterMode::Inline }
    }
}

impl Harness for Redb {
    type Store = RedbRelayStore;

    fn open(&self, clock: &Arc<TestClock>) -> RedbRelayStore {
        let backend = match &self.medium {
            Medium::File(directory) => Backend::File(directory.path().join("relay.redb")),
            Medium::Memory => Backend::Memory,
            Medium::Disk(disk) => disk.backend(),
        };
        RedbRelayStore::open(options(backend, clock, self.writer)).unwrap()
    }

    fn set_limits(store: &RedbRelayStore, limits: StoreLimits) {
        store.set_limits(limits);
    }

    fn close(store: RedbRelayStore) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.close()).unwrap();
    }

    fn kill(&self, store: RedbRelayStore) -> bool {
        match &self.medium {
            Medium::Disk(disk) => {
                disk.power_off();
                drop(store);
                disk.power_on(Loss::All);
                true
            }
            Medium::File(_) | Medium::Memory => {
                Self::close(store);
                false
            }
        }
    }

    fn keeps(&self) -> bool {
        !matches!(self.medium, Medium::Memory)
    }

    fn check(store: &RedbRelayStore, home: &Home<Self>) {
        assert_eq!(home.get(store.check()).problems, [] as [String; 0]);
    }
}

contract_tests!(file, Redb::file());
contract_tests!(memory, Redb::memory());
contract_tests!(inline, Redb::inline());
