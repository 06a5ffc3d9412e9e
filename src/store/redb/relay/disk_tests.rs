//! The relay's store on disks that fail: what was answered is there, what failed is not, and the tables agree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::backend::Backend;
use super::super::disk::{Disk, Faults};
use super::super::writer::WriterMode;
use super::contract_tests::options;
use super::{DiskRoom, FreeSpace, OpenOptions, RedbRelayStore};
use crate::id::LaneKey;
use crate::protocol::{Answer, Order, WaitReason};
use crate::store::contract::{TestClock, fence, lane, message, peer, remote, taken};
use crate::store::{Done, Op, Query, RelayStore, Reply, StoreError};

pub(super) fn now<T>(reply: Reply<T>) -> Result<T, StoreError> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());
    RUNTIME.block_on(reply)
}

fn open(backend: Backend, clock: &Arc<TestClock>) -> RedbRelayStore {
    RedbRelayStore::open(options(backend, clock, WriterMode::Inline)).unwrap()
}

/// What a store has to hold: of each lane the last number, and which are still in the mailbox.
type Model = BTreeMap<LaneKey, (u64, Vec<u64>)>;

/// A session of batches against one mailbox, and what they should have left.
pub(super) struct Traffic {
    random: u64,
    model: Model,
    /// What the batch that failed last would have left.
    doubtful: Option<Model>,
}

impl Traffic {
    pub(super) fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { random, model: Model::new(), doubtful: None }
    }

    pub(super) fn chance(&mut self, of: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % of
    }

    /// One batch: messages of two lanes, or an acknowledgement. Both lanes belong to one submitter, so that
    /// half of a batch would show.
    pub(super) fn batch(&mut self, store: &RedbRelayStore) -> Result<Vec<Done>, StoreError> {
        let mut after = self.model.clone();
        let batch = if self.chance(3) > 0 {
            [lane(1, 2, 1), lane(1, 2, 2)].map(|key| {
                let (last, waiting) = after.entry(key).or_default();
                *last += 1;
                waiting.push(*last);
                Op::Append(message(key, *last))
            })
        } else {
            let seqs = now(store.page(all_of(2))).map(|page| page.messages).unwrap_or_default();
            let chosen = self.chance(2 + seqs.len() as u64);
            let Some(message) = usize::try_from(chosen).ok().and_then(|at| seqs.get(at)) else { return Ok(Vec::new()) };
            let header = message.envelope.header();
            let waiting = &mut after.get_mut(&header.lane_key()).unwrap().1;
            waiting.retain(|n| *n != header.n);
            let answers = taken([(message.seq, message.seq)]);
            let settle = Op::Settle { store: store.store_id(), answers, handed_out: u64::MAX, patient: false };
            [settle, Op::Where(Vec::new())]
        };
        // The mailbox is the submitter's peer's: settling needs the recipient's fence.
        let who = if matches!(batch[0], Op::Settle { .. }) { 2 } else { 1 };
        let answer = now(store.submit(fence(who, 1), batch.to_vec()));
        match &answer {
            Ok(done) if done.iter().any(|done| matches!(done, Done::Answered { answer: Answer::Wait { .. }, .. })) => {}
            Ok(_) => self.model = after,
            Err(_) => self.doubtful = Some(after),
        }
        answer
    }

    /// Whether the store holds what it has to.
    pub(super) fn check(&self, store: &RedbRelayStore, when: &str) {
        assert_eq!(Self::held(store, when), self.model, "{when}");
    }

    /// The same, where the batch that failed last may have happened all the same; then it has.
    pub(super) fn check_in_doubt(&mut self, store: &RedbRelayStore, when: &str) {
        if let Some(doubtful) = self.doubtful.take_if(|doubtful| Self::held(store, when) == *doubtful) {
            self.model = doubtful;
        }
        self.check(store, when);
    }

    fn held(store: &RedbRelayStore, when: &str) -> Model {
        let problems = now(store.check()).unwrap().problems;
        assert_eq!(problems, [] as [String; 0], "{when}");
        let mut found = Model::new();
        for key in [lane(1, 2, 1), lane(1, 2, 2)] {
            let Done::Lanes(states) =
                now(store.submit(fence(1, 9), vec![Op::Where(vec![(key, 1, 10_000)])])).unwrap().remove(0)
            else {
                panic!("no answer")
            };
            if states[0].last > 0 {
                found.insert(key, (states[0].last, Vec::new()));
                assert_eq!(states[0].exceptions, [], "{when}");
            }
        }
        for message in now(store.page(all_of(2))).unwrap().messages {
            let header = message.envelope.header();
            found.get_mut(&header.lane_key()).unwrap().1.push(header.n);
        }
        found
    }
}

pub(super) fn all_of(name: u8) -> Query {
    Query {
        mailbox: peer(name),
        order: Order::Oldest,
        cursor: None,
        sender: None,
        max_messages: 500,
        max_bytes: 1 << 30,
    }
}

pub(super) fn begin(store: &RedbRelayStore) {
    now(store.submit(fence(2, 1), vec![Op::Open { remote: remote(2), invitation: None }])).unwrap();
}

#[test]
fn an_io_error_leaves_nothing_of_the_batch_that_met_it() {
    for (at, reading) in (0..80).flat_map(|at| [(at, true), (at, false)]) {
        let clock = TestClock::shared();
        let disk = Disk::new(at);
        let mut store = open(disk.backend(), &clock);
        begin(&store);
        let mut traffic = Traffic::new(at);
        let after = Some(at);
        let faults = Faults::default();
        disk.set_faults(if reading {
            Faults { read_after: after, ..faults }
        } else {
            Faults { write_after: after, ..faults }
        });
        let mut failed = 0;
        for round in 0..30 {
            match traffic.batch(&store) {
                Ok(_) => {}
                Err(StoreError::Unavailable(_)) => failed += 1,
                Err(error) => panic!("{error}"),
            }
            clock.advance(Duration::from_secs(2));
            if round == 15 {
                // Everything is read from the disk again.
                drop(store);
                store = RedbRelayStore::open(options(disk.backend(), &clock, WriterMode::Inline))
                    .or_else(|_| RedbRelayStore::open(options(disk.backend(), &clock, WriterMode::Inline)))
                    .unwrap();
            }
        }
        assert!(failed <= 1, "one error failed {failed} batches");
        disk.set_faults(Faults::default());
        let when = format!("{} {at} failed", if reading { "read" } else { "write" });
        traffic.check(&store, &when);
        drop(store);
        traffic.check(&open(disk.backend(), &clock), &when);
    }
}

#[test]
fn a_failed_sync_is_fatal_to_everything() {
    let clock = TestClock::shared();
    let disk = Disk::new(1);
    let store = open(disk.backend(), &clock);
    begin(&store);
    disk.set_faults(Faults { sync_after: Some(0), ..Faults::default() });
    let fatal = |answer| assert!(matches!(answer, Err(StoreError::Fatal(_))));
    fatal(now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), 1))])).map(drop));
    fatal(now(store.submit(fence(1, 1), vec![Op::Where(Vec::new())])).map(drop));
    fatal(now(store.expire(1)).map(drop));
    fatal(now(store.page(all_of(2))).map(drop));
    fatal(now(store.status(peer(2), None)).map(drop));
}

#[test]
fn a_disk_that_fills_up_refuses_messages_and_serves_again_by_itself() {
    let clock = TestClock::shared();
    let disk = Disk::new(1);
    let store = open(disk.backend(), &clock);
    begin(&store);
    let key = lane(1, 2, 1);
    let append = |n| now(store.submit(fence(1, 1), vec![Op::Append(message(key, n))]));
    disk.set_faults(Faults { room: Some(disk.len()), ..Faults::default() });
    let full = (1..100_000).find(|n| append(*n).is_err()).expect("the disk fills");
    assert!(matches!(append(full), Ok(done) if matches!(
        done[0],
        Done::Answered { answer: Answer::Wait { reason: WaitReason::Unavailable, .. }, remember: false }
    )));
    assert_eq!(now(store.status(peer(2), None)).unwrap().messages, full - 1);
    disk.set_faults(Faults::default());
    clock.advance(Duration::from_secs(2));
    assert!(matches!(
        &append(full).unwrap()[0],
        Done::Answered { answer: Answer::Accepted { duplicate: false, .. }, .. }
    ));
}

#[test]
fn below_min_free_messages_wait_and_removals_go_on() {
    let clock = TestClock::shared();
    let free = Arc::new(AtomicU64::new(1 << 30));
    let asked = free.clone();
    let room = move || Some(DiskRoom { free: asked.load(Ordering::SeqCst), file: 0 });
    let space = FreeSpace::Custom(Arc::new(room));
    let options = OpenOptions { free_space: space, ..options(Backend::Memory, &clock, WriterMode::Inline) };
    let store = RedbRelayStore::open(options).unwrap();
    begin(&store);
    let append = |n| now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), n))])).unwrap().remove(0);
    let accepted = |done: Done| matches!(done, Done::Answered { answer: Answer::Accepted { .. }, .. });
    assert!(accepted(append(1)));
    free.store((256 << 20) - 1, Ordering::SeqCst);
    let wait = Answer::Wait { reason: WaitReason::NoRoom, retry_after_ms: 5000 };
    assert_eq!(append(2), Done::Answered { answer: wait, remember: false });
    let answers = taken([(0, u64::MAX)]);
    let settle = Op::Settle { store: store.store_id(), answers, handed_out: u64::MAX, patient: false };
    let done = now(store.submit(fence(2, 1), vec![settle])).unwrap();
    assert!(matches!(&done[0], Done::Settled(settled) if settled.len() == 1));
    free.store(256 << 20, Ordering::SeqCst);
    assert!(accepted(append(2)));
}

const DISK_BYTES: u64 = 4 << 20;

/// A store on a disk of [`DISK_BYTES`], half of which is the reserve.
fn on_a_small_disk(disk: &Disk, clock: &Arc<TestClock>) -> RedbRelayStore {
    let of = disk.clone();
    let room = move || Some(DiskRoom { free: DISK_BYTES.saturating_sub(of.len()), file: of.len() });
    let mut options = options(disk.backend(), clock, WriterMode::Inline);
    options.free_space = FreeSpace::Custom(Arc::new(room));
    options.limits.min_free_bytes = DISK_BYTES / 2;
    let store = RedbRelayStore::open(options).unwrap();
    disk.set_faults(Faults { room: Some(DISK_BYTES - disk.len()), ..Faults::default() });
    begin(&store);
    store
}

/// Appends messages from this one on, each so long after the other, until one is not accepted.
fn fill(store: &RedbRelayStore, clock: &TestClock, from: u64, pause: Duration) -> (u64, Answer) {
    for n in from.. {
        clock.advance(pause);
        let append = vec![Op::Append(message(lane(1, 2, 1), n))];
        match now(store.submit(fence(1, 1), append)).unwrap().remove(0) {
            Done::Answered { answer: Answer::Accepted { .. }, .. } => {}
            Done::Answered { answer, .. } => return (n, answer),
            done => panic!("{done:?}"),
        }
    }
    unreachable!("numbers do not end")
}

/// The same, until none is accepted though the file was looked into.
fn fill_up(store: &RedbRelayStore, clock: &TestClock, from: u64) -> u64 {
    let refused = fill(store, clock, from, Duration::from_secs(1)).0;
    if refused == from { from } else { fill_up(store, clock, refused) }
}

fn take_all(store: &RedbRelayStore) {
    let settle =
        Op::Settle { store: store.store_id(), answers: taken([(0, u64::MAX)]), handed_out: u64::MAX, patient: false };
    now(store.submit(fence(2, 1), vec![settle])).unwrap();
}

/// A store that was full and is empty now, looked into a moment ago; and the next number.
fn emptied(disk: &Disk, clock: &Arc<TestClock>) -> (RedbRelayStore, u64) {
    let store = on_a_small_disk(disk, clock);
    let full = fill_up(&store, clock, 1);
    take_all(&store);
    assert_eq!(fill_up(&store, clock, full), full, "what is freed is found by the next look");
    assert!(disk.len() > DISK_BYTES / 2, "the file did not shrink, or this shows nothing");
    (store, full)
}

#[test]
fn nothing_is_left_to_a_journal_that_the_tables_might_have_no_room_for() {
    let (clock, disk) = (TestClock::shared(), Disk::new(1));
    let journal_bytes = 64 << 10;
    let free = Arc::new(AtomicU64::new(4 * journal_bytes - 1));
    let asked = free.clone();
    let room = move || Some(DiskRoom { free: asked.load(Ordering::SeqCst), file: 0 });
    let mut options = OpenOptions { journal_bytes, ..options(disk.backend(), &clock, WriterMode::Inline) };
    (options.free_space, options.limits.min_free_bytes) = (FreeSpace::Custom(Arc::new(room)), 0);
    let store = RedbRelayStore::open(options).unwrap();
    let append = |n| now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), n))])).unwrap();
    append(1);
    assert_eq!(disk.journal_len(), 0);
    free.store(4 * journal_bytes, Ordering::SeqCst);
    append(2);
    assert!(disk.journal_len() > 0);
}

#[test]
fn what_removals_freed_inside_the_file_is_room_for_new_messages() {
    let (clock, disk) = (TestClock::shared(), Disk::new(1));
    let (store, full) = emptied(&disk, &clock);
    assert!(full > 1000, "{full}");
    let more = fill_up(&store, &clock, full) - full;
    assert!(more > full / 2, "{more} after {full}");
    assert!(disk.len() <= DISK_BYTES, "the reserve is kept");
}

#[test]
fn the_reserve_is_kept_between_two_looks_into_the_file() {
    let (clock, disk) = (TestClock::shared(), Disk::new(1));
    let (store, full) = emptied(&disk, &clock);
    // From here on no look is due.
    let (more, why) = fill(&store, &clock, full, Duration::ZERO);
    assert!(more > full, "there was room");
    assert_eq!(why, Answer::Wait { reason: WaitReason::NoRoom, retry_after_ms: 5000 });
    take_all(&store);
}

#[test]
fn what_was_found_in_the_file_counts_no_more_after_writing_failed() {
    let (clock, disk) = (TestClock::shared(), Disk::new(1));
    let (store, full) = emptied(&disk, &clock);
    disk.set_faults(Faults { write_after: Some(0), ..Faults::default() });
    now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), full))])).unwrap_err();
    disk.set_faults(Faults::default());
    clock.advance(Duration::from_secs(1));
    let no_room = Answer::Wait { reason: WaitReason::NoRoom, retry_after_ms: 5000 };
    assert_eq!(fill(&store, &clock, full, Duration::ZERO), (full, no_room));
    // It is looked at again.
    assert!(fill(&store, &clock, full, Duration::ZERO).0 > full);
}

#[test]
fn a_store_from_before_peers_could_be_let_in_or_kept_out_opens_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.redb");
    let clock = TestClock::shared();
    let open = || RedbRelayStore::open(options(Backend::File(path.clone()), &clock, WriterMode::Inline)).unwrap();
    let store = open();
    now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), 1))])).unwrap();
    now(store.close()).unwrap();
    let database = redb::Database::create(&path).unwrap();
    let writing = database.begin_write().unwrap();
    for table in ["seen", "policies", "contacts", "access", "invitations"] {
        let handles: Vec<_> = writing.list_tables().unwrap().collect();
        let handle = handles.into_iter().find(|handle| redb::TableHandle::name(handle) == table).unwrap();
        assert!(writing.delete_table(handle).unwrap(), "{table}");
    }
    writing.commit().unwrap();
    drop(database);
    let store = open();
    assert_eq!(now(store.peers(None, 10)).unwrap().peers.len(), 1);
    assert_eq!(now(store.policy(crate::store::contract::peer(2))).unwrap(), crate::protocol::Policy::default());
    assert_eq!(now(store.check()).unwrap().problems, [] as [String; 0]);
    assert_eq!(now(store.status(crate::store::contract::peer(2), None)).unwrap().messages, 1);
}
