//! A copy of a relay's store that takes the place of the store: the next life of the same mailboxes.
//!
//! What happened after the copy was made is unknown to it. So it gets an id of its own, by which everybody who knew
//! the store notices; and as any of its messages may have been handed out since, it takes all of them for handed out.

use std::io;
use std::sync::Arc;

use redb::{ReadableTable as _, WriteTransaction};

use super::super::backend::Backend;
use super::super::fault::Fault;
use super::super::file::{OpenError, Sizes, StoreFile, set_store_id};
use super::work::Work;
use super::{RedbRelayStore, schema};
use crate::id::StoreId;
use crate::random::Entropy;
use crate::store::StoreLimits;
use crate::time::Clock;

impl RedbRelayStore {
    /// Makes a copy that was put in the place of a lost store ready to be opened: a store with an id of its own,
    /// which is returned, all of whose messages may have been handed out. Not for a store that is open.
    ///
    /// # Errors
    /// [`OpenError`] if there is no copy, or it cannot be written. It is as it was then.
    pub fn restored(backend: Backend, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<StoreId, OpenError> {
        let path = backend.path().to_owned();
        let failed = |source| OpenError::Io { path: path.clone(), source };
        if let Backend::File(path) = &backend {
            std::fs::metadata(path).map_err(failed)?;
        }
        let missing = &mut |_: &_| Err(Fault::corrupt("there is nothing to restore"));
        let file = StoreFile::open(backend, schema::SCHEMA, Sizes::default(), entropy, missing)?;
        let id = StoreId(entropy.bytes());
        let renew = || {
            let writing = file.write()?;
            let transaction = writing.transaction();
            let renewed = renew(transaction, clock).and_then(|()| set_store_id(transaction, id));
            renewed.map_err(|fault| writing.report(fault))?;
            writing.commit()
        };
        let renewed = renew();
        file.close();
        renewed.map(|()| id).map_err(|error| failed(io::Error::other(error)))
    }
}

/// Takes all messages for handed out.
pub(super) fn renew(transaction: &WriteTransaction, clock: &dyn Clock) -> Result<(), Fault> {
    let mut work = Work::open(transaction, Arc::new(StoreLimits::default()), clock.date())?;
    let mut numbers = Vec::new();
    for entry in work.mailboxes.written()?.iter()? {
        numbers.push(entry?.0.value());
    }
    for number in numbers {
        if let Some(row) = work.mailboxes.change(number)? {
            row.mark = row.last_seq;
        }
    }
    work.flush()?;
    work.write()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::contract_tests::options;
    use super::*;
    use crate::random::SystemEntropy;
    use crate::store::contract::{MAYBE, TestClock, fence, lane, message, peer, settled};
    use crate::store::redb::file::journal_of;
    use crate::store::redb::writer::WriterMode;
    use crate::store::{Op, RelayStore as _};

    #[tokio::test]
    async fn a_store_that_was_put_back_has_a_new_id_and_counts_as_having_handed_out_all() {
        let directory = tempfile::tempdir().unwrap();
        let backend = Backend::File(directory.path().join("relay.redb"));
        let clock = TestClock::shared();
        let open = || RedbRelayStore::open(options(backend.clone(), &clock, WriterMode::Thread)).unwrap();
        let key = lane(1, 2, 1);
        let store = open();
        store.submit(fence(1, 1), vec![Op::Append(message(key, 1))]).await.unwrap();
        let earlier = store.store_id();
        store.close().await.unwrap();
        let id = RedbRelayStore::restored(backend.clone(), &*clock, &SystemEntropy).unwrap();
        let store = open();
        assert_eq!(store.store_id(), id);
        assert_ne!(id, earlier);
        clock.advance(Duration::from_secs(3602));
        assert_eq!(store.expire(10).await.unwrap().settled, [settled(key, &[], &[(1, 1, MAYBE)])]);
        assert_eq!(store.check().await.unwrap().problems, [] as [String; 0]);
    }

    #[tokio::test]
    async fn what_a_killed_relay_left_in_its_journal_does_not_follow_an_older_copy_of_its_tables() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.redb");
        let (clock, key) = (TestClock::shared(), lane(1, 2, 1));
        let open = || {
            let backend = Backend::File(path.clone());
            RedbRelayStore::open(options(backend, &clock, WriterMode::Thread)).unwrap()
        };
        let append = async |store: &RedbRelayStore, n| {
            store.submit(fence(1, 1), vec![Op::Append(message(key, n))]).await.unwrap();
        };
        let holds = async |store: &RedbRelayStore| store.status(peer(2), None).await.unwrap().messages;
        let store = open();
        append(&store, 1).await;
        store.close().await.unwrap();
        let copies = ["tables", "journal"].map(|name| directory.path().join(name));
        std::fs::copy(&path, &copies[0]).unwrap();
        let store = open();
        append(&store, 2).await;
        std::fs::copy(journal_of(&path), &copies[1]).unwrap();
        store.close().await.unwrap();
        std::fs::copy(&copies[0], &path).unwrap();
        std::fs::copy(&copies[1], journal_of(&path)).unwrap();
        let store = open();
        assert_eq!(holds(&store).await, 1);
        store.close().await.unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_restored_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.redb");
        let restored = RedbRelayStore::restored(Backend::File(path.clone()), &*TestClock::shared(), &SystemEntropy);
        assert!(matches!(restored, Err(OpenError::Io { .. })), "{restored:?}");
        assert!(!path.exists());
    }
}
