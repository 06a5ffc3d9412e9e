//! The promises of the file and the writer, with an engine that does nothing but count.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::backend::Backend;
use super::disk::{Disk, Faults, Loss};
use super::engine::{Changes, Engine, Weight};
use super::fault::Fault;
use super::file::{OpenError, Schema, Sizes, StoreFile};
use super::writer::{Writer, WriterMode};
use crate::random::SystemEntropy;
use crate::store::{Reply, StoreError};
use crate::time::Moment;

const COUNTS: TableDefinition<'_, u64, u64> = TableDefinition::new("counts");
const FIRST: Schema = Schema { kind: "test", upgrades: &[], replay: None };
const SCHEMA: Schema = Schema { kind: "test", upgrades: &[add_one, times_ten], replay: None };
const CACHE: usize = 1 << 20;
/// So short that it is soon full.
const JOURNAL_BYTES: u64 = 200;

/// Requests: add one to a key. Key 13 is a corrupt row, 14 refused, 15 a bug, 16 a question; 17 waits for the
/// gate, 18 carries a MiB, and 19 may wait for company.
#[derive(Debug, Default)]
struct Counter {
    groups: Arc<Mutex<Vec<Vec<u64>>>>,
    done: Vec<u64>,
    gate: Arc<Mutex<()>>,
    /// Transactions that were begun.
    begun: Arc<AtomicU64>,
}

impl Engine for Counter {
    type Request = u64;
    type Answer = u64;
    type Work<'t> = (Table<'t, u64, u64>, bool);

    fn begin<'t>(&mut self, transaction: &'t WriteTransaction) -> Result<Self::Work<'t>, Fault> {
        let table = transaction.open_table(COUNTS)?;
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok((table, false))
    }

    fn apply(&mut self, work: &mut Self::Work<'_>, key: &u64) -> Result<u64, Fault> {
        match key {
            14 => return Err(Fault::Refused(StoreError::Superseded)),
            15 => panic!("a bug"),
            16 => return Ok(work.0.get(1)?.map_or(0, |count| count.value())),
            17 => drop(self.gate.lock().unwrap()),
            _ => {}
        }
        let count = work.0.get(key)?.map_or(0, |count| count.value()) + 1;
        work.0.insert(key, count)?;
        work.1 = true;
        if *key == 13 {
            return Err(Fault::corrupt("thirteen"));
        }
        self.done.push(*key);
        Ok(count)
    }

    fn finish(&mut self, work: &mut Self::Work<'_>) -> Result<Changes, Fault> {
        Ok(if work.1 { Changes::Some } else { Changes::None })
    }

    fn committed(&mut self) {
        self.groups.lock().unwrap().push(std::mem::take(&mut self.done));
    }

    fn aborted(&mut self) {
        self.done.clear();
    }

    fn weight(key: &u64) -> Weight {
        Weight { ops: 1, bytes: if *key == 18 { 1 << 20 } else { 0 }, patient: *key == 19 }
    }
}

fn change_first(transaction: &WriteTransaction, change: impl Fn(u64) -> u64) -> Result<(), Fault> {
    let mut counts = transaction.open_table(COUNTS)?;
    let count = counts.get(1)?.map_or(0, |count| count.value());
    counts.insert(1, change(count))?;
    Ok(())
}

fn add_one(transaction: &WriteTransaction) -> Result<(), Fault> {
    change_first(transaction, |count| count + 1)
}

fn times_ten(transaction: &WriteTransaction) -> Result<(), Fault> {
    change_first(transaction, |count| count * 10)
}

const fn sizes(cache_bytes: usize) -> Sizes {
    Sizes { cache_bytes, journal_bytes: JOURNAL_BYTES }
}

fn open_schema(backend: Backend, schema: Schema) -> Result<StoreFile, OpenError> {
    open_with(backend, schema, CACHE)
}

fn open_with(backend: Backend, schema: Schema, cache: usize) -> Result<StoreFile, OpenError> {
    StoreFile::open(backend, schema, sizes(cache), &SystemEntropy, &mut |transaction| {
        transaction.open_table(COUNTS)?;
        Ok(())
    })
}

fn open(backend: Backend) -> Result<StoreFile, OpenError> {
    open_schema(backend, SCHEMA)
}

fn inline(backend: Backend) -> Writer<Counter> {
    Writer::start(open(backend).unwrap(), Counter::default(), WriterMode::Inline, "test").unwrap()
}

pub(super) fn now<T>(mut reply: Reply<T>) -> Result<T, StoreError> {
    match reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("an inline writer answers at once"),
    }
}

fn count(writer: &Writer<Counter>, key: u64) -> Result<u64, StoreError> {
    now(writer.read(move |transaction| Ok(transaction.open_table(COUNTS)?.get(key)?.map_or(0, |count| count.value()))))
}

#[test]
fn a_file_is_made_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/store.redb");
    let temporary = directory.path().join("deep/store.redb.new");
    let failed = StoreFile::open(Backend::File(path.clone()), SCHEMA, sizes(CACHE), &SystemEntropy, &mut |_| {
        Err(Fault::corrupt("the process dies here"))
    });
    assert!(failed.is_err());
    assert!(!path.exists(), "a store whose first commit did not happen has the store's name");
    assert!(temporary.exists());
    // Whatever a crash left under the temporary name, whole, cut or empty, is no obstacle.
    for left in [fs::read(&temporary).unwrap(), vec![7; 3000], Vec::new()] {
        fs::write(&temporary, left).unwrap();
        let id = open(Backend::File(path.clone())).unwrap().id();
        assert!(!temporary.exists());
        assert_eq!(open(Backend::File(path.clone())).unwrap().id(), id, "the id is made with the file");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    open(Backend::File(path.clone())).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A store of this version, in which the first count is 4.
fn made_as(schema: Schema, path: &std::path::Path) -> StoreFile {
    let fill = &mut |transaction: &_| change_first(transaction, |_| 4);
    StoreFile::open(Backend::File(path.to_owned()), schema, sizes(CACHE), &SystemEntropy, fill).unwrap()
}

#[test]
fn a_store_of_an_earlier_version_goes_through_each_step_that_it_lacks_once() {
    let directory = tempfile::tempdir().unwrap();
    let second = Schema { upgrades: &[add_one], ..FIRST };
    for (earlier, count_then) in [(FIRST, 50), (second, 40), (SCHEMA, 4)] {
        let path = directory.path().join(format!("{}.redb", earlier.version()));
        let id = made_as(earlier, &path).id();
        for _ in 0..2 {
            assert_eq!(open(Backend::File(path.clone())).unwrap().id(), id);
            assert_eq!(count(&inline(Backend::File(path.clone())), 1), Ok(count_then));
        }
        assert!(matches!(
            open_schema(Backend::File(path), FIRST),
            Err(OpenError::LaterSchema { found: 3, known: 1, .. })
        ));
    }
}

#[test]
fn an_upgrade_that_fails_leaves_the_earlier_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    made_as(FIRST, &path);
    let failing = Schema { upgrades: &[add_one, |_| Err(Fault::corrupt("a row makes no sense"))], ..FIRST };
    let error = open_schema(Backend::File(path.clone()), failing).unwrap_err();
    assert!(error.to_string().contains("a row makes no sense"), "{error}");
    let file = open_schema(Backend::File(path), FIRST).unwrap();
    let first = file.read(|transaction| Ok(transaction.open_table(COUNTS)?.get(1)?.map(|count| count.value())));
    assert_eq!(first, Ok(Some(4)));
}

#[test]
fn a_version_that_never_was_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    made_as(SCHEMA, &path).close();
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(super::open::META).unwrap().insert("version", 0_u64.to_be_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(Backend::File(path)).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }) && error.to_string().contains("schema 0"), "{error}");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let error = open(Backend::File(path.clone())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), content, "the file was touched: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error} does not name the file");
        error
    };
    assert!(matches!(refused(b""), OpenError::Foreign { .. }));
    assert!(matches!(refused(&[42; 100_000]), OpenError::Foreign { .. }));

    let make = |schema| {
        let other = directory.path().join("other.redb");
        let _gone = fs::remove_file(&other);
        open_schema(Backend::File(other.clone()), schema).unwrap().close();
        fs::read(other).unwrap()
    };
    assert!(matches!(refused(&make(Schema { kind: "else", ..SCHEMA })), OpenError::Foreign { .. }));
    assert!(matches!(
        refused(&make(Schema { upgrades: &[add_one, times_ten, add_one], ..SCHEMA })),
        OpenError::LaterSchema { found: 4, known: 3, .. }
    ));
    let whole = make(SCHEMA);
    assert!(matches!(refused(&whole[..whole.len() / 2]), OpenError::Corrupt { .. } | OpenError::Foreign { .. }));
    let mut torn = whole.clone();
    torn[..4096].fill(0);
    assert!(matches!(refused(&torn), OpenError::Corrupt { .. } | OpenError::Foreign { .. }));
    let mut garbled = whole;
    garbled[4096..].fill(0xab);
    assert!(matches!(refused(&garbled), OpenError::Corrupt { .. }));

    fs::remove_file(&path).unwrap();
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(COUNTS).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&fs::read(&path).unwrap()), OpenError::Foreign { .. }));
}

#[test]
fn a_second_opening_is_told_that_the_file_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::File(directory.path().join("store.redb"));
    let first = open(backend.clone()).unwrap();
    let error = open(backend.clone()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    first.close();
    open(backend).unwrap();
}

#[test]
fn processes_that_create_at_the_same_time_share_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        match open(Backend::File(path.clone())) {
                            Ok(file) => return file.id(),
                            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_power_cut_at_any_point_of_the_creation_leaves_a_medium_that_opens() {
    let whole = Disk::new(1);
    drop(inline(whole.backend()));
    for at in 0..=whole.operations() {
        for loss in [Loss::All, Loss::Tail, Loss::Sectors, Loss::Nothing] {
            let disk = Disk::new(at);
            disk.set_faults(Faults { power_after: Some(at), ..Faults::default() });
            drop(open(disk.backend()));
            disk.power_off();
            disk.power_on(loss);
            let writer = inline(disk.backend());
            assert_eq!(now(writer.submit(1)), Ok(1), "power cut at operation {at}, {loss:?}");
        }
    }
}

#[test]
fn what_was_answered_survives_a_power_cut_at_any_point() {
    for loss in [Loss::All, Loss::Tail, Loss::Sectors, Loss::Nothing] {
        for at in 0..60 {
            let disk = Disk::new(at);
            let writer = inline(disk.backend());
            disk.set_faults(Faults { power_after: Some(at), ..Faults::default() });
            let mut answered = BTreeMap::new();
            for key in 0..10 {
                if let Ok(count) = now(writer.submit(key % 4)) {
                    answered.insert(key % 4, count);
                }
            }
            disk.power_off();
            drop(writer);
            disk.power_on(loss);
            let writer = inline(disk.backend());
            for (key, answered) in answered {
                assert!(count(&writer, key).unwrap() >= answered, "key {key} lost, cut at {at}, {loss:?}");
            }
        }
    }
}

#[test]
fn an_error_undoes_the_request_and_the_next_one_works() {
    // Without a cache redb reads while it tidies up after a commit: an error then hits one that has happened.
    let cases = (0..60).flat_map(|at| [(at, true, CACHE), (at, true, 0), (at, false, CACHE)]);
    for (at, reading, cache) in cases {
        let disk = Disk::new(at);
        let file = open_with(disk.backend(), SCHEMA, cache).unwrap();
        let writer = Writer::start(file, Counter::default(), WriterMode::Inline, "test").unwrap();
        let mut counted = 0;
        for round in 0..20 {
            if round == 3 {
                let after = Some(at);
                disk.set_faults(if reading {
                    Faults { read_after: after, ..Faults::default() }
                } else {
                    Faults { write_after: after, ..Faults::default() }
                });
            }
            match now(writer.submit(1)) {
                Ok(count) => {
                    counted += 1;
                    assert_eq!(count, counted, "operation {at}");
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error} at operation {at}"),
            }
        }
        assert!(counted >= 18, "one error cost {} requests", 20 - counted);
        // The disk may fail under the closing as well; what was answered is there all the same.
        drop(writer);
        disk.set_faults(Faults::default());
        assert_eq!(count(&inline(disk.backend()), 1), Ok(counted), "operation {at}");
    }
}

#[test]
fn a_read_that_fails_does_not_end_the_reading() {
    let disk = Disk::new(5);
    drop(inline(disk.backend()));
    let writer = inline(disk.backend());
    disk.set_faults(Faults { read_after: Some(0), ..Faults::default() });
    let first = count(&writer, 1);
    if first.is_err() {
        assert!(matches!(first, Err(StoreError::Unavailable(_))));
    }
    assert_eq!(count(&writer, 1), Ok(0));
    assert_eq!(now(writer.submit(1)), Ok(1));
}

#[test]
fn a_failed_sync_is_the_end_and_never_tried_again() {
    let disk = Disk::new(2);
    let writer = inline(disk.backend());
    assert_eq!(now(writer.submit(1)), Ok(1));
    disk.set_faults(Faults { sync_after: Some(0), ..Faults::default() });
    assert!(matches!(now(writer.submit(1)), Err(StoreError::Fatal(_))));
    let syncs = disk.syncs();
    assert!(matches!(now(writer.submit(1)), Err(StoreError::Fatal(_))));
    assert!(matches!(count(&writer, 1), Err(StoreError::Fatal(_))));
    drop(writer);
    assert_eq!(disk.syncs(), syncs, "a sync after the failed one");
}

#[test]
fn a_full_disk_is_waited_out() {
    let disk = Disk::new(3);
    let writer = inline(disk.backend());
    assert_eq!(now(writer.submit(1)), Ok(1));
    disk.set_faults(Faults { room: Some(disk.len()), ..Faults::default() });
    let full = (100..100_000).find(|key| now(writer.submit(*key)).is_err()).expect("the disk fills");
    assert!(full > 110, "full at once");
    assert!(matches!(now(writer.submit(full)), Err(StoreError::Unavailable(_))));
    assert_eq!((count(&writer, full - 1), count(&writer, full)), (Ok(1), Ok(0)));
    disk.set_faults(Faults::default());
    assert_eq!(now(writer.submit(full)), Ok(1));
}

#[test]
fn a_corrupt_row_costs_only_the_request_that_met_it() {
    let groups = Arc::new(Mutex::new(Vec::new()));
    let engine = Counter { groups: groups.clone(), ..Counter::default() };
    let writer = Writer::start(open(Backend::Memory).unwrap(), engine, WriterMode::Thread, "test").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // The first one keeps the writer busy while the others gather.
        let replies: Vec<_> = [1, 2, 13, 2, 14, 3].into_iter().map(|key| writer.submit(key)).collect();
        let mut answers = Vec::new();
        for reply in replies {
            answers.push(reply.await);
        }
        assert_eq!(answers[0], Ok(1));
        assert_eq!(answers[1], Ok(1));
        assert!(matches!(answers[2], Err(StoreError::Unavailable(_))));
        assert_eq!(answers[3], Ok(2));
        assert!(matches!(answers[4], Err(StoreError::Superseded)));
        assert_eq!(answers[5], Ok(1));
        let thirteen = writer.read(|transaction| Ok(transaction.open_table(COUNTS)?.get(13)?.is_some())).await;
        assert_eq!(thirteen, Ok(false), "half a request was kept");
    });
    assert_eq!(groups.lock().unwrap().concat(), [1, 2, 2, 3], "published what was not done, or twice");
}

#[tokio::test]
async fn an_error_that_a_reader_meets_while_the_writer_waits_costs_no_request() {
    let disk = Disk::new(1);
    let engine = Counter::default();
    let begun = engine.begun.clone();
    // Without a cache everything is read from the disk.
    let file = open_with(disk.backend(), SCHEMA, 0).unwrap();
    let writer = Writer::start(file, engine, WriterMode::Thread, "test").unwrap();
    for count in 1..=20 {
        assert_eq!(writer.submit(1).await, Ok(count));
        // The next transaction is at hand: each request but the first had another one in the place of that.
        while begun.load(Ordering::SeqCst) < 2 * count {
            std::thread::yield_now();
        }
        disk.set_faults(Faults { read_after: Some(0), ..Faults::default() });
        let read = writer.file().read(|transaction| Ok(transaction.open_table(COUNTS)?.get(1)?.map(|one| one.value())));
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
    writer.close().await.unwrap();
}

#[tokio::test]
async fn what_may_wait_for_company_is_done_without_it_and_with_whatever_comes() {
    let groups = Arc::new(Mutex::new(Vec::new()));
    let engine = Counter { groups: groups.clone(), ..Counter::default() };
    let writer = Writer::start(open(Backend::Memory).unwrap(), engine, WriterMode::Thread, "test").unwrap();
    assert_eq!(writer.submit(19).await, Ok(1), "nothing else comes");
    // A busy machine may part the two now and then.
    let mut together = false;
    for _ in 0..100 {
        let (patient, other) = (writer.submit(19), writer.submit(1));
        other.await.unwrap();
        patient.await.unwrap();
        together |= groups.lock().unwrap().contains(&vec![19, 1]);
    }
    assert!(together, "the one went with the other");
    drop(writer.submit(19));
    writer.close().await.unwrap();
    assert_eq!(groups.lock().unwrap().concat().len(), 202, "also at the end");
}

#[test]
fn a_question_costs_no_sync() {
    let disk = Disk::new(4);
    let writer = inline(disk.backend());
    now(writer.submit(1)).unwrap();
    let syncs = disk.syncs();
    assert_eq!(now(writer.submit(16)), Ok(1));
    assert_eq!(disk.syncs(), syncs);
}

#[test]
fn a_bug_ends_the_store_and_answers_everybody() {
    let writer = inline(Backend::Memory);
    assert!(matches!(now(writer.submit(15)), Err(StoreError::Fatal(_))));
    assert!(matches!(now(writer.submit(1)), Err(StoreError::Fatal(_))));
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::File(directory.path().join("store.redb"));
    let groups = Arc::new(Mutex::new(Vec::new()));
    let engine = Counter { groups: groups.clone(), ..Counter::default() };
    let writer = Writer::start(open(backend.clone()).unwrap(), engine, WriterMode::Thread, "test").unwrap();
    let replies: Vec<_> = (0..1000).map(|_| writer.submit(1)).collect();
    // Nobody waits for these: they are done all the same.
    drop((0..10).map(|_| writer.submit(2)).collect::<Vec<_>>());
    writer.close().await.unwrap();
    for (at, reply) in (1..).zip(replies) {
        assert_eq!(reply.await, Ok(at));
    }
    assert_eq!(writer.submit(1).await, Err(StoreError::Closed));
    assert!(matches!(writer.read(|_| Ok(())).await, Err(StoreError::Closed)));
    assert!(groups.lock().unwrap().len() < 500, "{} commits for 1,010 requests", groups.lock().unwrap().len());
    let writer = inline(backend);
    assert_eq!((count(&writer, 1), count(&writer, 2)), (Ok(1000), Ok(10)));
}

#[tokio::test]
async fn a_long_queue_makes_wait_and_an_endless_one_refuses() {
    let engine = Counter::default();
    let gate = engine.gate.clone();
    let closed = gate.lock().unwrap();
    let writer = Writer::start(open(Backend::Memory).unwrap(), engine, WriterMode::Thread, "test").unwrap();
    let waits_not = || Box::pin(writer.room()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let has_room = || {
        assert_eq!(waits_not(), writer.has_room());
        writer.has_room()
    };
    let first = writer.submit(17);
    assert!(has_room());
    let replies: Vec<_> = (0..255).map(|_| writer.submit(18)).collect();
    assert!(!has_room(), "the queue never fills");
    // The first few may be at work already; no more than a group of them.
    let more: Vec<_> = (0..20).map(|_| writer.submit(18)).collect();
    let small = writer.submit(1);
    drop(closed);
    assert_eq!(first.await, Ok(1));
    for (at, reply) in (1..).zip(replies) {
        assert_eq!(reply.await, Ok(at));
    }
    let mut refused = 0;
    for reply in more {
        refused += u32::from(matches!(reply.await, Err(StoreError::Unavailable(_))));
    }
    assert!(refused > 0, "memory would grow without end");
    assert_eq!(small.await, Ok(1), "what carries nothing is not refused");
    writer.room().await;
}

#[test]
fn a_commit_is_synced_once_and_twice_where_a_kill_would_mean_a_long_walk() {
    const FILLING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("filling");
    let disk = Disk::new(7);
    let file = open(disk.backend()).unwrap();
    let commit = |key| {
        let writing = file.write().unwrap();
        writing.transaction().open_table(COUNTS).unwrap().insert(key, 1).unwrap();
        let before = disk.syncs();
        writing.commit().unwrap();
        disk.syncs() - before
    };
    assert_eq!(commit(1), 1);
    let writing = file.write().unwrap();
    let mut filling = writing.transaction().open_table(FILLING).unwrap();
    for key in 0..65 {
        filling.insert(key, &*vec![0; 1 << 20]).unwrap();
    }
    drop(filling);
    writing.commit().unwrap();
    assert_eq!(commit(2), 2);
    // What that was for: nothing of the filling is read when the file is opened after a power cut.
    disk.power_off();
    drop(file);
    disk.power_on(Loss::All);
    let before = disk.operations();
    let file = open(disk.backend()).unwrap();
    assert!(disk.operations() - before < 100, "{} operations", disk.operations() - before);
    let there = file.read(|transaction| Ok(transaction.open_table(COUNTS)?.get(2)?.is_some()));
    assert_eq!(there, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_writer_on_a_task_takes_its_time_and_does_what_has_come_meanwhile_in_two_groups() {
    let engine = Counter::default();
    let groups = engine.groups.clone();
    let pause = std::time::Duration::from_millis(20);
    let file = open(Backend::Memory).unwrap();
    let writer = Writer::start(file, engine, WriterMode::Task(pause), "test").unwrap();
    let clock = crate::time::SystemClock::shared();
    let all = tokio::join!(writer.submit(1), writer.submit(2), writer.submit(3));
    assert_eq!((all, clock.now().since(Moment::default())), ((Ok(1), Ok(1), Ok(1)), pause));
    assert_eq!(writer.submit(1).await, Ok(2));
    assert_eq!(*groups.lock().unwrap(), [vec![1, 2], vec![3], vec![1]]);
    let last = writer.submit(2);
    writer.close().await.unwrap();
    assert_eq!((last.await, writer.submit(1).await), (Ok(2), Err(StoreError::Closed)));
}
