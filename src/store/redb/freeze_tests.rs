//! The stores frozen at every sync of a run: what is on the disk then opens, is sound, holds all that was answered, and
//! nothing by halves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redb::TableDefinition;

use super::client::{Change, ClientStore, KeptOutcome, Letter};
use super::disk::{Disk, Loss, TABLES};
use super::file_tests::now;
use super::relay::contract_tests::options;
use super::relay::{OpenOptions, RedbRelayStore};
use super::writer::WriterMode;
use crate::delivery::InboxRow;
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::protocol::{PolicyChange, Refusal, Senders, Taken, Verdict, sample};
use crate::random::SystemEntropy;
use crate::store::contract::{TestClock, fence, lane, message, peer, remote, taken};
use crate::store::{Append, Forward, Op, RelayStore as _};
use crate::time::{Clock as _, UnixMillis};

/// What a power cut at a sync may leave of what it should have synced. The chance is another at each.
const LOSSES: [Loss; 8] =
    [Loss::All, Loss::Nothing, Loss::Tail, Loss::Sectors, Loss::Tail, Loss::Sectors, Loss::Tail, Loss::Sectors];

/// Makes a store so long that each of its commits has two syncs.
fn lengthen(disk: &Disk) {
    const FILLING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("filling");
    let database = redb::Builder::new().create_with_backend(disk.medium(TABLES).unwrap()).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut filling = transaction.open_table(FILLING).unwrap();
    for key in 0..65 {
        filling.insert(key, &*vec![0; 1 << 20]).unwrap();
    }
    drop(filling);
    transaction.commit().unwrap();
    drop(database);
    assert!(disk.len() > 64 << 20);
}

/// Goes through the syncs of a run whose steps were answered after so many of them each. `look` opens the store on a
/// disk, and tells all that it holds.
fn hold_at_every_sync(disk: &Disk, answered: &[u64], losses: &[Loss], look: impl Fn(&Disk) -> String) {
    let states: Vec<_> = answered.iter().map(|syncs| look(&disk.at_sync(syncs + 1, Loss::All, 0))).collect();
    assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "each step changes something");
    for sync in 1..=disk.syncs() {
        let known = answered.iter().filter(|syncs| **syncs < sync).count();
        for (way, loss) in losses.iter().enumerate() {
            let found = disk.at_sync(sync, *loss, sync * 100 + way as u64);
            let shown = look(&found);
            let may_be = states.iter().skip(known - 1).take(2);
            let when = format!("frozen at sync {sync}, {known} steps known, {loss:?} lost");
            assert!(may_be.clone().any(|state| *state == shown), "{when}: {shown}\nis none of\n{may_be:#?}");
            let mut database = redb::Builder::new().create_with_backend(found.medium(TABLES).unwrap()).unwrap();
            assert!(database.check_integrity().unwrap(), "{when}: its pages are damaged");
        }
    }
}

/// A relay's store with a journal of this length.
fn open_relay(disk: &Disk, clock: &Arc<TestClock>, journal_bytes: u64) -> RedbRelayStore {
    let options = options(disk.backend(), clock, WriterMode::Inline);
    RedbRelayStore::open(OpenOptions { journal_bytes, ..options }).unwrap()
}

/// Whose session a relay's store knows to be cut off, and all of its rows, after a check of them. It has to go on.
fn relay_shows(disk: &Disk, clock: &Arc<TestClock>, journal_bytes: u64) -> String {
    let store = open_relay(disk, clock, journal_bytes);
    assert_eq!(now(store.check()).unwrap().problems, [] as [String; 0]);
    let rows = Arc::new(Mutex::new(Vec::new()));
    let kept = rows.clone();
    let take = move |piece: Bytes| {
        kept.lock().unwrap().push(piece);
        Ok(())
    };
    now(store.backup(Box::new(take))).unwrap();
    now(store.submit(fence(9, 1), vec![Op::Append(message(lane(9, 2, 1), 1))])).unwrap();
    assert_eq!(now(store.check()).unwrap().problems, [] as [String; 0]);
    let rows = rows.lock().unwrap();
    format!("{:?} {rows:?}", store.interrupted())
}

/// Runs a relay's store with a journal of this length through what can happen to it, as far as so many steps.
fn hold_a_relay(disk: &Disk, journal_bytes: u64, steps: usize, losses: &[Loss]) {
    let clock = TestClock::shared();
    let store = open_relay(disk, &clock, journal_bytes);
    disk.keep_diary();
    let append = |from, to, key, n| Op::Append(message(lane(from, to, key), n));
    let forward = Some(Forward { relay: RelayId::from_bytes([8; 32]), address: "elsewhere".to_owned() });
    let settle = |answers: Taken| Op::Settle { store: store.store_id(), answers, handed_out: u64::MAX, patient: false };
    // The seqs of a mailbox follow each other from the first one on.
    let first = clock.date().0 << 10;
    let refused =
        Taken { refused: vec![Refusal { seq: first + 1, text: Some("no".to_owned()) }], ..taken([(first, first)]) };
    let batches = [
        (2, vec![Op::Open { remote: remote(2), invitation: None }]),
        (1, vec![append(1, 2, 1, 1), append(1, 2, 2, 1)]),
        (1, vec![append(1, 2, 1, 2), append(1, 2, 1, 3), append(1, 2, 2, 2)]),
        (2, vec![settle(refused), Op::Where(Vec::new())]),
        (1, vec![append(1, 4, 1, 1), Op::Append(Append { forward, ..message(lane(1, 5, 1), 1) })]),
        (
            2,
            vec![Op::Policy(PolicyChange {
                senders: Some(Senders::Contacts),
                allow: vec![peer(1)],
                ..Default::default()
            })],
        ),
        (3, vec![append(3, 2, 1, 1)]),
        (2, vec![settle(taken([(0, u64::MAX)])), Op::End { handed_out: first }]),
        (1, vec![Op::Close(vec![lane(1, 2, 2)])]),
    ];
    let mut answered = vec![0];
    for (who, batch) in batches.into_iter().take(steps) {
        now(store.submit(fence(who, 1), batch)).unwrap();
        answered.push(disk.syncs());
    }
    if steps > answered.len() {
        clock.advance(Duration::from_secs(7200));
        now(store.expire(100)).unwrap();
        answered.push(disk.syncs());
    }
    hold_at_every_sync(disk, &answered, losses, |disk| relay_shows(disk, &clock, journal_bytes));
}

#[test]
fn nothing_answered_is_lost_and_no_batch_is_halved_by_a_power_cut() {
    // A journal that takes all, one that is full now and then, and none.
    for journal_bytes in [64 << 10, 2 << 10, 0] {
        hold_a_relay(&Disk::new(1), journal_bytes, usize::MAX, &LOSSES);
    }
}

#[test]
fn nor_in_a_file_whose_commits_have_two_syncs() {
    let disk = Disk::new(1);
    drop(RedbRelayStore::open(options(disk.backend(), &TestClock::shared(), WriterMode::Inline)).unwrap());
    lengthen(&disk);
    hold_a_relay(&disk, 0, 2, &[Loss::Nothing, Loss::Tail, Loss::Sectors]);
}

/// All that a client's store holds.
fn client_shows(disk: &Disk) -> String {
    let (store, recovered) = ClientStore::open(disk.backend(), WriterMode::Inline, &SystemEntropy).unwrap();
    let letters = now(store.letters((0..10).collect())).unwrap();
    now(store.commit(vec![Change::Forget(77)])).unwrap();
    format!("{recovered:?} {letters:?}")
}

fn hold_a_client(disk: &Disk, steps: usize, losses: &[Loss]) {
    let store = ClientStore::open(disk.backend(), WriterMode::Inline, &SystemEntropy).unwrap().0;
    disk.keep_diary();
    let keep = |n: u64| {
        let letter = Letter { envelope: sample(n, &[7; 3000]), home: None, deadline: UnixMillis(n) };
        Change::Keep(n, Arc::new(letter))
    };
    let resolve = |n: u64| {
        let header = sample(n, b"").header();
        let outcome = KeptOutcome { id: header.id, lane: header.lane_key(), n, verdict: Verdict::DELIVERED };
        Change::Resolve(n, outcome.into())
    };
    let (sender, inbox) = (PeerId::from_bytes([9; 32]), InboxRow { closed: 3, ..InboxRow::default() });
    let batches = [
        vec![Change::Remember { store: StoreId([5; 16]), foreign_below: 0 }, keep(1), keep(2)],
        vec![keep(3), keep(4), keep(5)],
        vec![resolve(1), Change::Answered(sender, LaneId(1), inbox.clone())],
        vec![Change::Forget(1), resolve(2), resolve(3), keep(6)],
        vec![Change::Answered(sender, LaneId(2), inbox), Change::Silent(sender, LaneId(1))],
        vec![Change::Remember { store: StoreId([6; 16]), foreign_below: 7 }, Change::Forget(2), resolve(4)],
    ];
    let mut answered = vec![0];
    for batch in batches.into_iter().take(steps) {
        now(store.commit(batch)).unwrap();
        answered.push(disk.syncs());
    }
    hold_at_every_sync(disk, &answered, losses, client_shows);
}

#[test]
fn nothing_committed_by_a_client_is_lost_or_halved_by_a_power_cut() {
    hold_a_client(&Disk::new(2), usize::MAX, &LOSSES);
}

#[test]
fn nor_in_a_clients_file_whose_commits_have_two_syncs() {
    let disk = Disk::new(2);
    drop(ClientStore::open(disk.backend(), WriterMode::Inline, &SystemEntropy).unwrap());
    lengthen(&disk);
    hold_a_client(&disk, 2, &[Loss::Nothing, Loss::Tail, Loss::Sectors]);
}
