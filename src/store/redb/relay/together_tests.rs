//! The relay's store where many groups of requests share a transaction: whoever reads finds all that was answered, and so
//! does whoever opens the store after a power cut, whatever became of the transaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::backend::Backend;
use super::super::disk::{Disk, Faults, Loss};
use super::super::writer::WriterMode;
use super::contract_tests::options;
use super::damage_tests::damage;
use super::disk_tests::{Traffic, all_of, begin, now};
use super::{OpenOptions, RedbRelayStore};
use crate::store::contract::{TestClock, fence, lane, message, peer};
use crate::store::{Op, RelayStore, StoreError};

/// With a journal that has room for all.
fn open(backend: Backend) -> RedbRelayStore {
    let options = options(backend, &TestClock::shared(), WriterMode::Thread);
    RedbRelayStore::open(OpenOptions { journal_bytes: 16 << 20, ..options }).unwrap()
}

#[test]
fn what_was_answered_is_there_after_a_power_cut_wherever_the_tables_were_by_then() {
    for (seed, loss) in (0..60).flat_map(|seed| [Loss::All, Loss::Sectors, Loss::Nothing].map(|loss| (seed, loss))) {
        let disk = Disk::new(seed);
        let mut traffic = Traffic::new(seed);
        for life in 0..3 {
            let when = format!("life {life} of {seed}, {loss:?}");
            let store = open(disk.backend());
            traffic.check_in_doubt(&store, &when);
            begin(&store);
            let end = traffic.chance(60);
            disk.set_faults(Faults { power_after: Some(end), ..Faults::default() });
            while traffic.batch(&store).is_ok() {}
            // It has no power to close anything with: this waits until its thread is gone.
            now(store.close()).unwrap();
            disk.power_on(loss);
        }
        traffic.check_in_doubt(&open(disk.backend()), "at the end");
    }
}

#[test]
fn an_error_of_the_disk_costs_the_batch_that_met_it_and_nothing_that_was_answered() {
    // Its journal is full now and then, and it keeps no pages in memory.
    let bare = |disk: &Disk| {
        let options = options(disk.backend(), &TestClock::shared(), WriterMode::Thread);
        RedbRelayStore::open(OpenOptions { cache_bytes: 0, ..options })
    };
    for reading in [true, false] {
        let mut failed = 0;
        for at in 0..60 {
            let disk = Disk::new(at);
            let mut traffic = Traffic::new(at);
            let store = bare(&disk).unwrap();
            begin(&store);
            (0..10).for_each(|_| drop(traffic.batch(&store).unwrap()));
            now(store.close()).unwrap();
            let store = bare(&disk).unwrap();
            begin(&store);
            let (after, faults) = (Some(at), Faults::default());
            disk.set_faults(if reading {
                Faults { read_after: after, ..faults }
            } else {
                Faults { write_after: after, ..faults }
            });
            for _ in 0..20 {
                match traffic.batch(&store) {
                    Ok(_) => {}
                    Err(StoreError::Unavailable(_)) => failed += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            disk.set_faults(Faults::default());
            let when = format!("{} {at} failed", if reading { "read" } else { "write" });
            traffic.check(&store, &when);
            now(store.close()).unwrap();
            traffic.check(&bare(&disk).unwrap(), &when);
        }
        // A write that fails is mostly one of the tables, whose batch the journal has.
        assert!(failed > 0 || !reading, "no error met a batch");
    }
}

#[test]
fn a_request_that_meets_a_damaged_row_costs_nothing_of_those_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.redb");
    let append = |store: &RedbRelayStore, id, n| {
        now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, id), n))])).map(drop)
    };
    let store = open(Backend::File(path.clone()));
    begin(&store);
    append(&store, 1, 1).unwrap();
    append(&store, 2, 1).unwrap();
    now(store.close()).unwrap();
    damage(&path, false);
    let store = open(Backend::File(path));
    for n in 2..=20 {
        append(&store, 2, n).unwrap();
        assert!(matches!(append(&store, 1, n), Err(StoreError::Unavailable(_))));
    }
    let there = now(store.page(all_of(2))).unwrap().messages;
    let there: Vec<_> =
        there.iter().map(|stored| stored.envelope.header()).map(|header| (header.lane.0, header.n)).collect();
    let expected = [(1, 1)].into_iter().chain((1..=20).map(|n| (2, n)));
    assert_eq!(there, expected.collect::<Vec<_>>());
}

/// Says that it is over, however that comes about.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_reads_finds_what_was_answered_and_waits_for_few_of_those_who_write() {
    let store = open(Disk::new(1).backend());
    begin(&store);
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&over);
            for n in (1..).take_while(|_| !over.load(Ordering::SeqCst)) {
                now(store.submit(fence(1, 1), vec![Op::Append(message(lane(1, 2, 1), n))])).unwrap();
                written.store(n, Ordering::SeqCst);
            }
        });
        let _over = Over(&over);
        while written.load(Ordering::SeqCst) == 0 && !over.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let mut waited: Vec<_> = (0..50)
            .map(|_| {
                let before = written.load(Ordering::SeqCst);
                let found = now(store.status(peer(2), None)).unwrap().messages;
                assert!(found >= before, "{found} of {before}");
                written.load(Ordering::SeqCst) - before
            })
            .collect();
        waited.sort_unstable();
        // A transaction would take thousands. On a busy machine some reads begin late.
        assert!(waited[25] < 500, "{waited:?} were written meanwhile");
    });
}
