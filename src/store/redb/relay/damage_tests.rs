//! The relay's store with a row that cannot be read: the others go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::super::backend::Backend;
use super::super::writer::WriterMode;
use super::RedbRelayStore;
use super::contract_tests::options;
use super::schema::{EXPIRY, LANES, LINKS, MESSAGES, REST};
use crate::id::RelayId;
use crate::store::contract::{EXPIRED, TestClock, fence, lane, message, remote, settled, taken};
use crate::store::{Append, Done, Forward, Op, RelayStore};
use crate::time::Clock;

/// Overwrites the first message, or the first lane's row.
pub(super) fn damage(path: &Path, messages: bool) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    if messages {
        let mut table = transaction.open_table(MESSAGES).unwrap();
        let key = table.first().unwrap().unwrap().0.value();
        table.insert(key, &[0xff; 3][..]).unwrap();
    } else {
        let mut table = transaction.open_table(LANES).unwrap();
        let key = table.first().unwrap().unwrap().0.value();
        table.insert(key, &[0xff; 3][..]).unwrap();
    }
    transaction.commit().unwrap();
}

fn open(path: &Path, clock: &Arc<TestClock>) -> RedbRelayStore {
    RedbRelayStore::open(options(Backend::File(path.to_owned()), clock, WriterMode::Thread)).unwrap()
}

/// A store with three lanes of two messages each, not yet due.
async fn filled(path: &Path, clock: &Arc<TestClock>) {
    let store = open(path, clock);
    store.submit(fence(2, 1), vec![Op::Open { remote: remote(1), invitation: None }]).await.unwrap();
    store.submit(fence(2, 1), vec![Op::End { handed_out: 0 }]).await.unwrap();
    for id in 1..=3 {
        let key = lane(1, 2, id);
        store.submit(fence(1, 1), vec![Op::Append(message(key, 1)), Op::Append(message(key, 2))]).await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_message_that_cannot_be_read_does_not_keep_the_others_from_expiring() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let path = directory.path().join("relay.redb");
    filled(&path, &clock).await;
    damage(&path, true);
    let store = open(&path, &clock);
    clock.advance(Duration::from_secs(3600));
    let told = store.expire(100).await.unwrap().settled;
    let rest = [
        settled(lane(1, 2, 1), &[], &[(2, 2, EXPIRED)]),
        settled(lane(1, 2, 2), &[], &[(1, 2, EXPIRED)]),
        settled(lane(1, 2, 3), &[], &[(1, 2, EXPIRED)]),
    ];
    assert_eq!(told, rest);
    // It stays where it is, and does not come up again.
    let again = store.expire(100).await.unwrap();
    assert_eq!(again.settled, []);
    assert!(again.next.is_some_and(|next| next > clock.date()), "it would come up for ever");
    store.close().await.unwrap();
}

#[tokio::test]
async fn deadlines_that_cannot_be_read_do_not_keep_later_ones_from_coming() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let path = directory.path().join("relay.redb");
    filled(&path, &clock).await;
    clock.advance(Duration::from_secs(10));
    let store = open(&path, &clock);
    store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), 3))]).await.unwrap();
    store.close().await.unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(EXPIRY).unwrap();
        let key = table.first().unwrap().unwrap().0.value();
        table.insert(key, &[0xff; 3][..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = open(&path, &clock);
    clock.advance(Duration::from_secs(3600));
    let told = store.expire(100).await.unwrap();
    assert_eq!(told.settled, [settled(lane(1, 2, 1), &[], &[(3, 3, EXPIRED)])]);
    assert!(told.next.is_some_and(|next| next > clock.date()), "they would come up for ever");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_lanes_row_that_cannot_be_read_does_not_keep_the_others_from_going() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let path = directory.path().join("relay.redb");
    filled(&path, &clock).await;
    damage(&path, false);
    let store = open(&path, &clock);
    clock.advance(Duration::from_secs(3600));
    // Its messages have no place to record their outcome, so they have none; the others do.
    let told = store.expire(100).await.unwrap().settled;
    assert_eq!(told.iter().map(|settled| settled.lane.lane.0).collect::<Vec<_>>(), [2, 3]);
    clock.advance(Duration::from_secs(40 * 24 * 3600));
    assert_eq!(store.expire(100).await.unwrap().next, None);
    store.close().await.unwrap();
    let database = Database::open(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(read.open_table(LANES).unwrap().len().unwrap(), 1, "the damaged one alone is left");
    assert_eq!(read.open_table(REST).unwrap().len().unwrap(), 0);
}

/// What an acknowledgement of everything settles.
async fn taken_of_all(store: &RedbRelayStore) -> Vec<Done> {
    let (store_id, answers) = (store.store_id(), taken([(0, u64::MAX)]));
    let settle = Op::Settle { store: store_id, answers, handed_out: u64::MAX, patient: false };
    store.submit(fence(2, 1), vec![settle]).await.unwrap()
}

#[tokio::test]
async fn a_message_or_a_lane_that_cannot_be_read_does_not_keep_the_others_from_being_acknowledged() {
    for (messages, whole) in [(true, settled(lane(1, 2, 1), &[(2, 2)], &[])), (false, settled(lane(1, 2, 1), &[], &[]))]
    {
        let (directory, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
        let path = directory.path().join("relay.redb");
        filled(&path, &clock).await;
        damage(&path, messages);
        let store = open(&path, &clock);
        let mut rest = vec![whole, settled(lane(1, 2, 2), &[(1, 2)], &[]), settled(lane(1, 2, 3), &[(1, 2)], &[])];
        rest.retain(|settled| !settled.delivered.is_empty());
        assert_eq!(taken_of_all(&store).await, [Done::Settled(rest)]);
        assert_eq!(taken_of_all(&store).await, [Done::Settled(Vec::new())], "the damaged ones stay");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_link_that_cannot_be_read_does_not_keep_the_others_from_going_on() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let path = directory.path().join("relay.redb");
    let store = open(&path, &clock);
    let to = |byte, n| {
        let forward = Forward { relay: RelayId::from_bytes([byte; 32]), address: "there".to_owned() };
        Op::Append(Append { forward: Some(forward), ..message(lane(1, 2, u64::from(byte)), n) })
    };
    store.submit(fence(1, 1), vec![to(8, 1), to(9, 1)]).await.unwrap();
    store.close().await.unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(LINKS).unwrap();
        let key = table.first().unwrap().unwrap().0.value();
        table.insert(key, &[0xff; 3][..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = open(&path, &clock);
    let links = store.links().await.unwrap();
    assert_eq!(
        links.iter().map(|link| (link.relay, link.waiting)).collect::<Vec<_>>(),
        [(RelayId::from_bytes([9; 32]), 1)]
    );
    assert!(store.submit(fence(1, 1), vec![to(8, 2)]).await.is_err(), "nothing more gets in without its state");
    store.submit(fence(1, 1), vec![to(9, 2)]).await.unwrap();
}
