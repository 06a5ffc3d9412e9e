//! Backups of stores in use, and what is made of them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::super::backend::Backend;
use super::super::writer::WriterMode;
use super::contract_tests::options;
use super::{BackupError, OpenError, RedbRelayStore, backup_file, check_file, restore_file, verify_backup};
use crate::random::SystemEntropy;
use crate::store::contract::{MAYBE, TestClock, fence, lane, message, peer, remote, settled};
use crate::store::{Op, RelayStore as _, StoreError};

fn open(path: &Path, clock: &Arc<TestClock>) -> RedbRelayStore {
    RedbRelayStore::open(options(Backend::File(path.to_owned()), clock, WriterMode::Thread)).unwrap()
}

async fn send(store: &RedbRelayStore, numbers: std::ops::RangeInclusive<u64>) {
    let messages = numbers.map(|n| Op::Append(message(lane(1, 2, 1), n))).collect();
    store.submit(fence(1, 1), messages).await.unwrap();
}

async fn backup(store: &RedbRelayStore, file: &Path) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let taken = bytes.clone();
    let take = move |piece: Bytes| {
        taken.lock().unwrap().extend_from_slice(&piece);
        Ok(())
    };
    store.backup(Box::new(take)).await.unwrap();
    std::fs::write(file, &*bytes.lock().unwrap()).unwrap();
}

#[tokio::test]
async fn a_backup_holds_what_was_there_when_it_began_and_is_another_store_when_it_is_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let [path, file, restored] = ["relay.redb", "backup", "restored.redb"].map(|name| directory.path().join(name));
    let clock = TestClock::shared();
    let store = open(&path, &clock);
    store.submit(fence(2, 1), vec![Op::Open { remote: remote(7), invitation: None }]).await.unwrap();
    send(&store, 1..=300).await;
    // One whose recipient never was there, so that nobody could have taken it from the store that was lost by then.
    store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 3, 1), 1))]).await.unwrap();
    // While the first piece is being taken, more comes: the writer does not wait, and the backup does not see it.
    let (began, begun) = tokio::sync::oneshot::channel();
    let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
    let (mut began, bytes) = (Some(began), Arc::new(Mutex::new(Vec::new())));
    let taken = bytes.clone();
    let reply = store.backup(Box::new(move |piece| {
        if let Some(began) = began.take() {
            began.send(()).unwrap();
            gone_on.recv().unwrap();
        }
        taken.lock().unwrap().extend_from_slice(&piece);
        Ok(())
    }));
    let reply = tokio::spawn(reply);
    begun.await.unwrap();
    send(&store, 301..=400).await;
    go_on.send(()).unwrap();
    reply.await.unwrap().unwrap();
    std::fs::write(&file, &*bytes.lock().unwrap()).unwrap();
    let earlier = store.store_id();
    store.close().await.unwrap();

    let mut last = None;
    restore_file(&file, &restored, (&*clock, &SystemEntropy), &mut |progress| last = Some(progress)).unwrap();
    let last = last.unwrap();
    assert_eq!(last.rows, last.of);
    let report = check_file(&restored, &SystemEntropy).unwrap();
    assert_eq!((report.messages, report.problems), (301, vec![]));
    let store = open(&restored, &clock);
    assert_ne!(store.store_id(), earlier);
    assert_eq!(store.interrupted(), [remote(7)], "whoever was there is told that it is back");
    clock.advance(Duration::from_secs(3602));
    let settled_in = |recipient, last| settled(lane(1, recipient, 1), &[], &[(1, last, MAYBE)]);
    assert_eq!(store.expire(1000).await.unwrap().settled, [settled_in(2, 300), settled_in(3, 1)]);
}

#[tokio::test]
async fn the_backup_of_a_stopped_store_is_that_of_a_running_one() {
    let directory = tempfile::tempdir().unwrap();
    let [path, running] = ["relay.redb", "running"].map(|name| directory.path().join(name));
    let clock = TestClock::shared();
    let store = open(&path, &clock);
    send(&store, 1..=10).await;
    backup(&store, &running).await;
    let in_use = backup_file(&path, &SystemEntropy, Box::new(|_| Ok(())));
    assert!(matches!(in_use, Err(BackupError::Store(OpenError::InUse { .. }))), "{in_use:?}");
    assert!(matches!(check_file(&path, &SystemEntropy), Err(OpenError::InUse { .. })));
    store.close().await.unwrap();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let taken = bytes.clone();
    let take = move |piece: Bytes| {
        taken.lock().unwrap().extend_from_slice(&piece);
        Ok(())
    };
    backup_file(&path, &SystemEntropy, Box::new(take)).unwrap();
    assert!(*bytes.lock().unwrap() == std::fs::read(&running).unwrap());
}

#[tokio::test]
async fn every_table_is_in_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.redb");
    open(&path, &TestClock::shared()).close().await.unwrap();
    let database = redb::Database::open(&path).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    let mut there: Vec<String> =
        transaction.list_tables().unwrap().map(|table| redb::TableHandle::name(&table).to_owned()).collect();
    let mut backed_up = vec!["meta".to_owned()];
    macro_rules! names {
        ($($table:ident),*) => { $(backed_up.push(redb::TableHandle::name(&super::schema::$table).to_owned());)* };
    }
    super::schema::each_table!(names);
    there.sort();
    backed_up.sort();
    assert_eq!(there, backed_up, "of meta each store has its own");
}

#[tokio::test]
async fn a_backup_by_a_later_program_is_called_that() {
    let directory = tempfile::tempdir().unwrap();
    let [path, file] = ["relay.redb", "backup"].map(|name| directory.path().join(name));
    let store = open(&path, &TestClock::shared());
    backup(&store, &file).await;
    let mut later = std::fs::read(&file).unwrap();
    let version = super::backup_file::MAGIC.len() + 7;
    later[version] += 1;
    let refused = verify_backup(&*later, &mut |_| ());
    assert!(matches!(refused, Err(BackupError::LaterSchema { found: 2, known: 1 })), "{refused:?}");
}

#[tokio::test]
async fn a_backup_that_nobody_takes_is_given_up_and_a_damaged_one_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let [path, file, restored] = ["relay.redb", "backup", "restored.redb"].map(|name| directory.path().join(name));
    let clock = TestClock::shared();
    let store = open(&path, &clock);
    send(&store, 1..=10).await;
    let refused = StoreError::Unavailable("nobody takes it".into());
    let error = refused.clone();
    assert_eq!(store.backup(Box::new(move |_| Err(error.clone()))).await, Err(refused));
    let late = clock.clone();
    let slow = store.backup(Box::new(move |_| {
        late.advance(Duration::from_secs(901));
        Ok(())
    }));
    assert!(slow.await.unwrap_err().to_string().contains("too long"));
    backup(&store, &file).await;
    let whole = std::fs::read(&file).unwrap();
    assert!(verify_backup(&*whole, &mut |_| ()).is_ok());
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let torn = restore_file(&file, &restored, (&*clock, &SystemEntropy), &mut |_| ());
    assert!(matches!(torn, Err(BackupError::Damaged(_))), "{torn:?}");
    assert!(!restored.exists());
    std::fs::write(&file, &whole).unwrap();
    let over = restore_file(&file, &path, (&*clock, &SystemEntropy), &mut |_| ());
    assert!(matches!(over, Err(BackupError::Io(_))), "a store that is there stays: {over:?}");
    // The store still takes messages for whoever is there.
    send(&store, 11..=12).await;
    let query = crate::store::Query {
        mailbox: peer(2),
        order: crate::protocol::Order::Oldest,
        cursor: None,
        sender: None,
        max_messages: 50,
        max_bytes: 1 << 20,
    };
    assert_eq!(store.page(query).await.unwrap().messages.len(), 12);
}
