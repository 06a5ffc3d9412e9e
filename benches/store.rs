//! What the relay's store costs, by itself: `cargo bench --bench store -- [status] [pages] [drain] [expiry] [file]`.
//!
//! Each part prints its figures. `BENCH_DIR` names the directory whose disk is measured (default `target`), `BENCH_MESSAGES`
//! the size of the large mailbox (default 1,000,000).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthouse::id::{LaneId, MessageId, PeerId, RelayId};
use posthouse::protocol::{Answer, Envelope, Header, Order, Taken};
use posthouse::random::SystemEntropy;
use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::{Append, Done, Fence, Op, Query, RelayStore, StoreLimits};
use posthouse::time::{Clock, Moment, SharedClock, SystemClock, UnixMillis};

const SENDERS: u32 = 50;
const BODY: usize = 256;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const READER: u32 = u32::MAX;

/// The system's clocks, set forward.
#[derive(Debug)]
struct Ahead {
    clock: SharedClock,
    by_ms: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.clock.now() + Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }

    fn date(&self) -> UnixMillis {
        self.clock.date() + Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

/// A store in a directory of its own.
struct Bench {
    store: Arc<RedbRelayStore>,
    clock: Arc<Ahead>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn peer(name: u32) -> PeerId {
    let mut key = [0x5a; 32];
    key[..4].copy_from_slice(&name.wrapping_mul(0x9e37_79b1).to_be_bytes());
    key[4..8].copy_from_slice(&name.to_be_bytes());
    PeerId::from_bytes(key)
}

const fn fence(peer: PeerId) -> Fence {
    Fence { peer, device: 0, epoch: 1 }
}

fn append(from: u32, to: u32, n: u64, ttl: Duration) -> Op {
    let header = Header {
        sender: peer(from),
        relay: RelayId::from_bytes([7; 32]),
        recipient: peer(to),
        id: MessageId::new(n, &[7; 10]),
        lane: LaneId(u64::from(from) << 32 | u64::from(to)),
        n,
        created: UnixMillis(0),
        ttl,
    };
    let envelope = Envelope::new(header, &[n as u8; BODY]);
    Op::Append(Append { envelope, signature: None, prev: n - 1, ttl, refuse: None })
}

impl Bench {
    fn new() -> Self {
        let root = std::env::var("BENCH_DIR").unwrap_or_else(|_| "target".to_owned());
        let directory = tempfile::tempdir_in(root).unwrap();
        let path = directory.path().join("relay.redb");
        let clock = Arc::new(Ahead { clock: SystemClock::shared(), by_ms: AtomicU64::new(0) });
        let store = Arc::new(Self::open(&path, &clock));
        Self { store, clock, path, _directory: directory }
    }

    fn open(path: &std::path::Path, clock: &Arc<Ahead>) -> RedbRelayStore {
        let limits = StoreLimits { mailbox_messages: 10_000_000, mailbox_bytes: 16 << 30, ..StoreLimits::default() };
        let backend = Backend::File(path.to_owned());
        RedbRelayStore::open(OpenOptions {
            limits,
            ..OpenOptions::new(backend, clock.clone(), SystemEntropy::shared())
        })
        .unwrap()
    }

    async fn visit(&self, of: u32) {
        let remote = SocketAddr::from(([192, 0, 2, 1], 1));
        self.store.submit(fence(peer(of)), vec![Op::Open { remote }]).await.unwrap();
    }

    /// Messages in turn from so many senders, numbered from `first` in each lane.
    async fn fill(&self, to: u32, senders: u32, first: u64, messages: u64, ttl: Duration) {
        let mut flying = VecDeque::new();
        let mut at = 0;
        while at < messages {
            let end = messages.min(at + 1000);
            let batch = (at..end).map(|at| {
                let n = first + at / u64::from(senders);
                append((at % u64::from(senders)) as u32, to, n, ttl)
            });
            // One relay's link may carry many senders: a batch needs only one fence.
            flying.push_back(self.store.submit(fence(peer(READER - 1)), batch.collect()));
            at = end;
            if flying.len() > 8 {
                check(flying.pop_front().unwrap().await.unwrap());
            }
        }
        for reply in flying {
            check(reply.await.unwrap());
        }
    }

    fn query(&self, of: u32, order: Order, sender: Option<u32>, max_messages: u64) -> Query {
        Query { mailbox: peer(of), order, cursor: None, sender: sender.map(peer), max_messages, max_bytes: 1 << 20 }
    }

    fn settle(&self, range: (u64, u64)) -> Op {
        let answers = Taken { taken: [range].into_iter().collect(), refused: Vec::new() };
        Op::Settle { store: self.store.store_id(), answers, handed_out: range.1 }
    }

    /// Everything out of a mailbox, oldest first, in pages of 500 that are acknowledged with so many in flight.
    async fn drain(&self, of: u32, depth: usize) -> u64 {
        let (mut cursor, mut flying, mut count) = (None, VecDeque::new(), 0);
        loop {
            let query = Query { cursor, ..self.query(of, Order::Oldest, None, 500) };
            let page = self.store.page(query).await.unwrap();
            if let (Some(first), Some(last)) = (page.messages.first(), page.messages.last()) {
                count += page.messages.len() as u64;
                flying.push_back(self.store.submit(fence(peer(of)), vec![self.settle((first.seq, last.seq))]));
            }
            cursor = page.cursor;
            while flying.len() > if page.complete { 0 } else { depth } {
                flying.pop_front().unwrap().await.unwrap();
            }
            if page.complete {
                return count;
            }
        }
    }
}

fn check(done: Vec<Done>) {
    let accepted =
        |done: &Done| matches!(done, Done::Answered { answer: Answer::Accepted { duplicate: false, .. }, .. });
    assert!(done.iter().all(accepted), "{:?}", done.iter().find(|done| !accepted(done)));
}

fn quantile(times: &mut [Duration], at: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * at) as usize]
}

fn blocks(path: &std::path::Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).unwrap();
    (file.len() >> 20, file.blocks() * 512 >> 20)
}

/// `VmRSS` and `VmHWM` in MiB.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim).to_owned();
    format!("memory {} (peak {})", line("VmRSS:"), line("VmHWM:"))
}

macro_rules! median {
    ($name:expr, $times:expr, $body:expr) => {{
        let mut times = Vec::new();
        for _ in 0..$times {
            let start = Instant::now();
            let _value = std::hint::black_box($body);
            times.push(start.elapsed());
        }
        println!("  {:44} median {:>9.1?}, p99 {:>9.1?}", $name, quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    }};
}

async fn reads(bench: &Bench, of: u32, sender: u32) {
    let store = &bench.store;
    median!("status", 1000, store.status(peer(of), None).await.unwrap());
    median!("status of one sender", 1000, store.status(peer(of), Some(peer(sender))).await.unwrap());
    for order in [Order::Newest, Order::Oldest] {
        median!(format!("first page of 50, {order:?}"), 1000, {
            store.page(bench.query(of, order, None, 50)).await.unwrap()
        });
        median!(format!("first page of 50 of one sender, {order:?}"), 1000, {
            store.page(bench.query(of, order, Some(sender), 50)).await.unwrap()
        });
    }
}

async fn small_and_large(messages: u64) {
    let bench = Bench::new();
    for (of, messages) in [(READER, 10_000), (READER - 2, messages)] {
        bench.visit(of).await;
        bench.fill(of, SENDERS, 1, messages, WEEK).await;
    }
    for (of, messages) in [(READER, 10_000), (READER - 2, messages), (READER, 10_000), (READER - 2, messages)] {
        println!("a mailbox of {messages} messages from {SENDERS} senders:");
        reads(&bench, of, 7).await;
    }
    bench.visit(1).await;
    bench.fill(1, 100_000, 1, 100_000, WEEK).await;
    println!("a mailbox of one message from each of 100,000 senders:");
    reads(&bench, 1, 7).await;
    median!("HELLO (open, with status)", 200, bench.visit(1).await);
}

async fn drain(messages: u64) {
    for depth in std::env::var("BENCH_DEPTH")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(vec![0, 1, 2, 8], |depth| vec![depth])
    {
        let bench = Bench::new();
        bench.visit(READER).await;
        let start = Instant::now();
        bench.fill(READER, SENDERS, 1, messages, WEEK).await;
        let filled = messages as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        assert_eq!(bench.drain(READER, depth).await, messages);
        let drained = messages as f64 / start.elapsed().as_secs_f64();
        println!(
            "{messages}, {depth} settles in flight: filled at {filled:.0}/s, drained at {drained:.0}/s; {}",
            memory()
        );
    }
}

async fn one_by_one(bench: &Bench, of: u32, first: u64, stop: &AtomicBool) -> (Vec<Duration>, u64) {
    let (mut times, mut n) = (Vec::new(), first);
    while !stop.load(Ordering::SeqCst) {
        let start = Instant::now();
        let batch = (n..n + 10).map(|n| append(of + 1_000_000, of, n, WEEK)).collect();
        check(bench.store.submit(fence(peer(of + 1_000_000)), batch).await.unwrap());
        n += 10;
        let page = bench.store.page(bench.query(of, Order::Newest, None, 1)).await.unwrap();
        bench.store.submit(fence(peer(of)), vec![bench.settle((0, page.cursor.unwrap()))]).await.unwrap();
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (times, n)
}

async fn load(bench: &Arc<Bench>, first: &mut [u64], stop: Arc<AtomicBool>) -> Vec<Duration> {
    let tasks: Vec<_> = (0..first.len())
        .map(|at| {
            let (bench, stop, n) = (bench.clone(), stop.clone(), first[at]);
            tokio::spawn(async move { one_by_one(&bench, 2_000_000 + at as u32, n, &stop).await })
        })
        .collect();
    let mut all = Vec::new();
    for (at, task) in tasks.into_iter().enumerate() {
        let (times, n) = task.await.unwrap();
        first[at] = n;
        all.extend(times);
    }
    all
}

fn report(name: &str, mut times: Vec<Duration>) {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|at| quantile(&mut times, at));
    println!("  {name:32} {:6} rounds: p50 {p50:.1?}, p99 {p99:.1?}, max {most:.1?}", times.len());
}

async fn expiry() {
    let limit = std::env::var("BENCH_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(250);
    let bench = Arc::new(Bench::new());
    let mut first = [1; 4];
    for at in 0..4 {
        bench.visit(2_000_000 + at).await;
    }
    bench.visit(READER).await;
    bench.fill(READER, SENDERS, 1, 100_000, Duration::from_secs(3600)).await;
    median!("sweep with nothing due", 1000, bench.store.expire(limit).await.unwrap());
    for round in 0..2 {
        let n = 1 + 100_000 * (round + 1) / u64::from(SENDERS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopper = stop.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            stopper.store(true, Ordering::SeqCst);
        });
        report("without expiry", load(&bench, &mut first, stop).await);
        timer.await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (sweeper, stopper) = (bench.clone(), stop.clone());
        bench.clock.by_ms.fetch_add(3_601_000, Ordering::SeqCst);
        if round == 0 {
            for sender in [None, Some(7)] {
                median!(format!("first page of 50 behind what ran out ({sender:?})"), 100, {
                    bench.store.page(bench.query(READER, Order::Oldest, sender, 50)).await.unwrap()
                });
            }
        }
        let sweep = tokio::spawn(async move {
            let (start, mut steps, mut told, mut runs) = (Instant::now(), 0, 0, 0);
            while told < 100_000 {
                let begun = Instant::now();
                let expired = sweeper.store.expire(limit).await.unwrap();
                let all = expired.settled.iter().flat_map(|settled| &settled.exceptions);
                for run in all {
                    told += run.to - run.from + 1;
                    runs += 1;
                }
                steps += 1;
                tokio::time::sleep(begun.elapsed()).await;
            }
            println!("  100,000 expired in {:.1?}, {steps} steps, {runs} runs", start.elapsed());
            stopper.store(true, Ordering::SeqCst);
        });
        report("with 100,000 expiring", load(&bench, &mut first, stop).await);
        sweep.await.unwrap();
        bench.fill(READER, SENDERS, n, 100_000, Duration::from_secs(3600)).await;
    }
}

async fn file() {
    for readers in [false, true] {
        let bench = Arc::new(Bench::new());
        bench.visit(READER).await;
        println!("fill and drain of 200,000, readers: {readers}");
        let stop = Arc::new(AtomicBool::new(false));
        let reading: Vec<_> = (0..if readers { 2 } else { 0 })
            .map(|_| {
                let (bench, stop) = (bench.clone(), stop.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        bench.store.page(bench.query(READER, Order::Newest, None, 500)).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
            })
            .collect();
        for round in 0..10 {
            bench.fill(READER, SENDERS, 1 + round * 4000, 200_000, WEEK).await;
            let full = blocks(&bench.path);
            assert_eq!(bench.drain(READER, 8).await, 200_000);
            println!("  round {round}: full (MiB, on disk) {full:?}, drained {:?}; {}", blocks(&bench.path), memory());
        }
        stop.store(true, Ordering::SeqCst);
        for task in reading {
            task.await.unwrap();
        }
        if !readers {
            bench.fill(READER, SENDERS, 1 + 10 * 4000, 1_000_000, WEEK).await;
            let full = blocks(&bench.path);
            assert_eq!(bench.drain(READER, 8).await, 1_000_000);
            println!("  1,000,000: full {full:?}, drained {:?}; {}", blocks(&bench.path), memory());
            bench.fill(READER, SENDERS, 1 + 10 * 4000 + 20_000, 10_000, WEEK).await;
            println!("  then 10,000: {:?}", blocks(&bench.path));
        }
        bench.store.close().await.unwrap();
        println!("  closed {:?}", blocks(&bench.path));
        let start = Instant::now();
        let store = Bench::open(&bench.path, &bench.clock);
        println!("  opened in {:.1?}: {:?}", start.elapsed(), blocks(&bench.path));
        store.close().await.unwrap();
        println!("  closed {:?}", blocks(&bench.path));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let messages = std::env::var("BENCH_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let parts: Vec<_> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    runtime.block_on(async {
        if wanted("reads") {
            small_and_large(messages).await;
        }
        if wanted("drain") {
            drain(messages).await;
        }
        if wanted("expiry") {
            expiry().await;
        }
        if wanted("file") {
            file().await;
        }
    });
}
