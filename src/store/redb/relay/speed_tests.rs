//! How fast the store is, roughly. Not run by itself:
//! `cargo test --release --lib store_speed -- --ignored --nocapture`

use std::sync::Arc;

use super::super::backend::Backend;
use super::super::writer::WriterMode;
use super::contract_tests::options;
use super::{OpenOptions, RedbRelayStore};
use crate::protocol::{Envelope, Order};
use crate::store::contract::{TestClock, fence, lane, message, peer, remote, taken};
use crate::store::{Append, Done, Op, Query, RelayStore};
use crate::time::SystemClock;

/// Pairs of a sender and a recipient, batches in flight for each, messages of 300-byte bodies in a batch.
async fn run(pairs: u8, depth: usize, batch: u64, rounds: u64) {
    let directory = tempfile::tempdir_in(std::env::var("SPEED_DIR").unwrap_or_else(|_| "target".to_owned())).unwrap();
    let backend = Backend::File(directory.path().join("relay.redb"));
    let cache_bytes = super::super::file::DEFAULT_CACHE_BYTES;
    let options = OpenOptions { cache_bytes, ..options(backend, &TestClock::shared(), WriterMode::Thread) };
    let store = Arc::new(RedbRelayStore::open(options).unwrap());
    let clock = SystemClock::shared();
    let start = clock.now();
    let tasks: Vec<_> = (0..pairs)
        .map(|pair| {
            let store = store.clone();
            tokio::spawn(async move {
                let (from, to) = (pair, 128 + pair);
                let key = lane(from, to, 1);
                store.submit(fence(to, 1), vec![Op::Open { remote: remote(1), invitation: None }]).await.unwrap();
                let mut flying = std::collections::VecDeque::new();
                for round in 0..rounds {
                    let appends = (1..=batch).map(|n| {
                        let n = round * batch + n;
                        let append = message(key, n);
                        let envelope = Envelope::new(append.envelope.header(), &[n as u8; 300]);
                        Op::Append(Append { envelope, ..append })
                    });
                    flying.push_back(store.submit(fence(from, 1), appends.collect()));
                    if flying.len() > depth {
                        flying.pop_front().unwrap().await.unwrap();
                    }
                    let query = Query {
                        mailbox: peer(to),
                        order: Order::Newest,
                        cursor: None,
                        sender: None,
                        max_messages: 1,
                        max_bytes: 1,
                    };
                    if round > depth as u64 {
                        // The recipient takes all that is committed.
                        let newest = store.page(query).await.unwrap().cursor.unwrap_or(0);
                        let settle = Op::Settle {
                            store: store.store_id(),
                            answers: taken([(0, newest)]),
                            handed_out: newest,
                            patient: false,
                        };
                        flying.push_back(store.submit(fence(to, 1), vec![settle]));
                    }
                }
                for reply in flying {
                    reply.await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let took = clock.now().since(start);
    let all = u64::from(pairs) * rounds * batch;
    let file = std::fs::metadata(directory.path().join("relay.redb")).unwrap().len() >> 20;
    println!(
        "{pairs:3} pairs, batches of {batch:4}: {:8.0} messages/s ({all} in {took:.1?}, file {file} MiB)",
        all as f64 / took.as_secs_f64()
    );
    store.close().await.unwrap();
}

/// How long a store takes to open after its process was killed.
async fn repair(messages: u64) {
    let directory = tempfile::tempdir_in(std::env::var("SPEED_DIR").unwrap_or_else(|_| "target".to_owned())).unwrap();
    let path = directory.path().join("relay.redb");
    let cache_bytes = super::super::file::DEFAULT_CACHE_BYTES;
    let open = |path| {
        let options = options(Backend::File(path), &TestClock::shared(), WriterMode::Thread);
        RedbRelayStore::open(OpenOptions { cache_bytes, ..options }).unwrap()
    };
    let store = open(path.clone());
    for name in 0..100 {
        store.submit(fence(name, 1), vec![Op::Open { remote: remote(1), invitation: None }]).await.unwrap();
    }
    for n in 1..=messages / 100 {
        let batch = (0..100).map(|to| {
            let append = message(lane(200, to, 1), n);
            let envelope = Envelope::new(append.envelope.header(), &[n as u8; 300]);
            Op::Append(Append { envelope, ..append })
        });
        drop(store.submit(fence(200, 1), batch.collect()));
        if n % 50 == 0 {
            store.ready().await;
        }
    }
    store.submit(fence(200, 1), Vec::new()).await.unwrap();
    // The file as a kill would leave it.
    let copy = directory.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(super::super::file::journal_of(&path), super::super::file::journal_of(&copy)).unwrap();
    let clock = SystemClock::shared();
    let start = clock.now();
    let killed = open(copy.clone());
    let took = clock.now().since(start);
    let waits = killed.status(crate::store::contract::peer(0), None).await.unwrap().messages;
    let file = std::fs::metadata(copy).unwrap().len() >> 20;
    println!("opened {file} MiB with {messages} messages ({waits} in the first mailbox) after a kill in {took:.1?}");
    killed.close().await.unwrap();
    store.close().await.unwrap();
}

/// How long one acknowledgement takes of everything that lanes hold whose sender uses every so-manieth number.
async fn one_range(step: u64, messages: u64, lanes: u64) {
    let directory = tempfile::tempdir_in(std::env::var("SPEED_DIR").unwrap_or_else(|_| "target".to_owned())).unwrap();
    let backend = Backend::File(directory.path().join("relay.redb"));
    let cache_bytes = super::super::file::DEFAULT_CACHE_BYTES;
    let options = OpenOptions { cache_bytes, ..options(backend, &TestClock::shared(), WriterMode::Thread) };
    let store = RedbRelayStore::open(options).unwrap();
    let clock = SystemClock::shared();
    store.submit(fence(2, 1), vec![Op::Open { remote: remote(1), invitation: None }]).await.unwrap();
    let start = clock.now();
    let appends: Vec<_> = (0..messages)
        .map(|at| {
            let n = (at / lanes + 1) * step;
            Op::Append(Append { prev: n - step, ..message(lane(1, 2, at % lanes + 1), n) })
        })
        .collect();
    for batch in appends.chunks(512) {
        store.submit(fence(1, 1), batch.to_vec()).await.unwrap();
    }
    let filled = clock.now().since(start);
    let start = clock.now();
    let settle =
        Op::Settle { store: store.store_id(), answers: taken([(0, u64::MAX)]), handed_out: u64::MAX, patient: false };
    let Done::Settled(settled) = store.submit(fence(2, 1), vec![settle]).await.unwrap().remove(0) else { panic!() };
    let took = clock.now().since(start);
    let count = settled.iter().map(|settled| settled.delivered.count()).sum::<u64>();
    assert_eq!(count, messages);
    println!(
        "{messages} messages of {lanes} lanes, numbered by {step}s: filled in {filled:.1?}, one range took {took:.1?}"
    );
    store.close().await.unwrap();
}

#[test]
#[ignore = "a measurement"]
fn store_speed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        run(1, 2, 1024, 200).await;
        run(16, 1, 1024, 16).await;
        run(64, 1, 64, 60).await;
        run(64, 1, 8, 200).await;
        run(1, 0, 1, 500).await;
        for (step, lanes) in [(1, 1), (2, 1), (2, 4), (1, 10_000)] {
            one_range(step, 50_000, lanes).await;
        }
        repair(100_000).await;
        repair(1_000_000).await;
    });
}
