//! What the parts of a message's way cost by themselves: its frames, the decision about it, the commit that stores it
//! and the page that finds it. The store's file is in memory, so that the disk does not count, but where it is said to be
//! on one: then below `TMPDIR`, with its journal and without.
//!
//! `cargo bench --bench parts` compares with the run before.

#[path = "store/traffic.rs"]
mod traffic;

use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use posthouse::delivery::admission::{Arrival, Room, decide};
use posthouse::delivery::lane::LaneRow;
use posthouse::protocol::{Frame, MsgR, Order, Taken, decode, encode};
use posthouse::random::SystemEntropy;
use posthouse::store::redb::Backend;
use posthouse::store::redb::file::DEFAULT_JOURNAL_BYTES;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::redb::writer::WriterMode;
use posthouse::store::{Op, RelayStore};
use posthouse::time::{SystemClock, UnixMillis};

use self::traffic::{HOUR, READER, accepted, append, fence, peer, query};

/// Messages of one commit.
const GROUPS: [u64; 3] = [1, 64, 1024];

fn message(n: u64) -> Frame {
    let Op::Append(append) = append(1, 2, n, HOUR) else { unreachable!("an append") };
    let envelope = append.envelope.bytes().clone();
    MsgR { request: n, prev: n - 1, ttl_ms: 3_600_000, envelope, signature: None, home: None }.into()
}

fn codec(bench: &mut Criterion) {
    let (frame, mut buffer) = (message(7), BytesMut::with_capacity(1 << 10));
    bench.bench_function("MSG:R to bytes", |timer| {
        timer.iter(|| {
            buffer.clear();
            encode(&frame, &mut buffer);
        });
    });
    buffer.clear();
    encode(&frame, &mut buffer);
    bench.bench_function("MSG:R from bytes", |timer| {
        timer.iter_batched(|| buffer.clone(), |mut bytes| decode(&mut bytes), BatchSize::SmallInput);
    });
}

fn admission(bench: &mut Criterion) {
    let mut row = LaneRow::new(UnixMillis(0));
    (1..=1000).for_each(|n| row.accept(n, 400, UnixMillis(0)));
    let arrival = Arrival { n: 1001, prev: 1000, expired: false, refuse: None };
    bench.bench_function("the decision about a message", |timer| {
        timer.iter(|| decide(Some(&row), arrival, || Ok::<_, ()>(Room::Free)));
    });
}

/// A store, and the runtime to wait for it.
struct Store {
    store: RedbRelayStore,
    runtime: tokio::runtime::Runtime,
    n: u64,
}

impl Store {
    fn in_memory() -> Self {
        Self::new(Backend::Memory, DEFAULT_JOURNAL_BYTES)
    }

    fn new(backend: Backend, journal_bytes: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut options = OpenOptions::new(backend, SystemClock::shared(), SystemEntropy::shared());
        (options.writer, options.journal_bytes) = (WriterMode::Inline, journal_bytes);
        let store = RedbRelayStore::open(options).expect("a store");
        for name in [1, READER] {
            let open = Op::Open { remote: ([192, 0, 2, 1], 1).into(), invitation: None };
            runtime.block_on(store.submit(fence(name), vec![open])).expect("a session");
        }
        Self { store, runtime, n: 0 }
    }

    fn append(&mut self, messages: u64) {
        let next = (self.n + 1..=self.n + messages).map(|n| append(1, READER, n, HOUR)).collect();
        self.n += messages;
        let done = self.runtime.block_on(self.store.submit(fence(1), next)).expect("a commit");
        accepted(&done).expect("all are taken");
    }

    /// Takes everything that waits.
    fn drain(&self) {
        let page = self.runtime.block_on(self.store.page(query(READER, Order::Oldest, None, 1 << 20))).expect("a page");
        let taken = page.messages.iter().map(|message| (message.seq, message.seq)).collect();
        let answers = Taken { taken, refused: Vec::new() };
        let settle = Op::Settle { store: self.store.store_id(), answers, handed_out: u64::MAX, patient: false };
        self.runtime.block_on(self.store.submit(fence(READER), vec![settle])).expect("a commit");
    }
}

fn store(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a commit of new messages and one that takes them");
    for messages in GROUPS {
        let mut store = Store::in_memory();
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::from_parameter(messages), |timer| {
            timer.iter(|| {
                store.append(messages);
                store.drain();
            });
        });
    }
    group.finish();
    let mut store = Store::in_memory();
    store.append(10_000);
    bench.bench_function("a page of 500 of 10,000", |timer| {
        timer.iter(|| store.runtime.block_on(store.store.page(query(READER, Order::Newest, None, 500))));
    });
    let reader = peer(READER);
    bench.bench_function("the status of a mailbox", |timer| {
        timer.iter(|| store.runtime.block_on(store.store.status(reader, None)));
    });
}

fn disk(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("the same on a disk");
    for (name, journal_bytes) in [("journal", DEFAULT_JOURNAL_BYTES), ("none", 0)] {
        for messages in GROUPS {
            let directory = tempfile::tempdir().expect("a directory");
            let mut store = Store::new(Backend::File(directory.path().join("relay.redb")), journal_bytes);
            group.throughput(Throughput::Elements(messages));
            group.bench_function(BenchmarkId::new(name, messages), |timer| {
                timer.iter(|| {
                    store.append(messages);
                    store.drain();
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = codec, admission, store, disk
}
criterion_main!(parts);
