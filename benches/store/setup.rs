//! A store in a directory of its own, and what fills and drains it.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthouse::protocol::{Order, Taken};
use posthouse::random::SystemEntropy;
use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::{Op, Query, RelayStore, StoreLimits};
use posthouse::time::{Clock, Moment, SharedClock, SystemClock, UnixMillis};

use crate::traffic::{Outcome, accepted, append, fence, query};

/// Who send to a large mailbox, in turn.
pub(crate) const SENDERS: u32 = 50;
pub(crate) const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// The page that a client asks for.
const PAGE: u64 = 500;
/// Who submits for all senders, as their relay would.
const LINK: u32 = 2_000_000;

/// The system's clocks, set forward.
#[derive(Debug)]
pub(crate) struct Ahead {
    clock: SharedClock,
    by_ms: AtomicU64,
}

impl Ahead {
    pub(crate) fn advance(&self, by: Duration) {
        self.by_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.clock.now() + self.by()
    }

    fn date(&self) -> UnixMillis {
        self.clock.date() + self.by()
    }
}

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) store: RedbRelayStore,
    pub(crate) clock: Arc<Ahead>,
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

pub(crate) fn open(path: PathBuf, clock: Arc<Ahead>) -> Outcome<RedbRelayStore> {
    let limits = StoreLimits { mailbox_messages: 10_000_000, mailbox_bytes: 16 << 30, ..StoreLimits::default() };
    let options = OpenOptions::new(Backend::File(path), clock, SystemEntropy::shared());
    Ok(RedbRelayStore::open(OpenOptions { limits, ..options })?)
}

impl Bench {
    pub(crate) fn new() -> Outcome<Self> {
        let root = std::env::var("BENCH_DIR").unwrap_or_else(|_| std::env::temp_dir().display().to_string());
        let directory = tempfile::tempdir_in(root)?;
        let path = directory.path().join("relay.redb");
        let clock = Arc::new(Ahead { clock: SystemClock::shared(), by_ms: AtomicU64::new(0) });
        let store = open(path.clone(), clock.clone())?;
        Ok(Self { store, clock, path, _directory: directory })
    }

    /// Begins a session.
    pub(crate) async fn visit(&self, name: u32) -> Outcome<()> {
        let remote = SocketAddr::from(([192, 0, 2, 1], 1));
        self.store.submit(fence(name), vec![Op::Open { remote, invitation: None }]).await?;
        Ok(())
    }

    /// Messages from so many senders in turn, numbered from `first` in each lane.
    pub(crate) async fn fill(&self, to: u32, senders: u32, first: u64, messages: u64, ttl: Duration) -> Outcome<()> {
        let mut flying = VecDeque::new();
        for begin in (0..messages).step_by(1000) {
            let batch = (begin..messages.min(begin + 1000)).map(|at| {
                let from = u32::try_from(at % u64::from(senders)).unwrap_or(0);
                append(from, to, first + at / u64::from(senders), ttl)
            });
            flying.push_back(self.store.submit(fence(LINK), batch.collect()));
            if flying.len() > 8
                && let Some(reply) = flying.pop_front()
            {
                accepted(&reply.await?)?;
            }
        }
        for reply in flying {
            accepted(&reply.await?)?;
        }
        Ok(())
    }

    pub(crate) fn settle(&self, from: u64, to: u64) -> Op {
        let answers = Taken { taken: [(from, to)].into_iter().collect(), refused: Vec::new() };
        Op::Settle { store: self.store.store_id(), answers, handed_out: to, patient: false }
    }

    /// Takes everything out of a mailbox, oldest first, with so many acknowledgements of pages on their way to the
    /// disk while the next page is read.
    pub(crate) async fn drain(&self, of: u32, depth: usize) -> Outcome<u64> {
        let (mut cursor, mut flying, mut count) = (None, VecDeque::new(), 0);
        loop {
            let page = self.store.page(Query { cursor, ..query(of, Order::Oldest, None, PAGE) }).await?;
            if let (Some(first), Some(last)) = (page.messages.first(), page.messages.last()) {
                count += page.messages.len() as u64;
                flying.push_back(self.store.submit(fence(of), vec![self.settle(first.seq, last.seq)]));
            }
            cursor = page.cursor;
            while flying.len() > if page.complete { 0 } else { depth } {
                if let Some(reply) = flying.pop_front() {
                    reply.await?;
                }
            }
            if page.complete {
                return Ok(count);
            }
        }
    }

    /// Length of the store's file and what it takes on the disk, in MiB.
    pub(crate) fn file(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&self.path).map_or_else(
            |error| error.to_string(),
            |file| format!("{} MiB long, {} on the disk", file.len() >> 20, (file.blocks() * 512) >> 20),
        )
    }
}

/// Times of something.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) clock: SharedClock,
    pub(crate) all: Vec<Duration>,
}

impl Times {
    pub(crate) fn new() -> Self {
        Self { clock: SystemClock::shared(), all: Vec::new() }
    }

    pub(crate) async fn of<T>(&mut self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let begun = self.clock.now();
        let done = work.await?;
        self.all.push(self.clock.now().since(begun));
        Ok(done)
    }

    pub(crate) fn report(&mut self, name: &str) {
        self.all.sort_unstable();
        let at = |part: f64| {
            let last = self.all.len().saturating_sub(1);
            self.all.get((last as f64 * part) as usize).copied().unwrap_or_default()
        };
        let (middle, high, most) = (at(0.5), at(0.99), at(1.0));
        println!("  {name:44} {:5} times: median {middle:>8.1?}, p99 {high:>8.1?}, max {most:>8.1?}", self.all.len());
    }
}

/// What the process takes, and took at most.
pub(crate) fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim);
    format!("memory {}, at most {}", line("VmRSS:"), line("VmHWM:"))
}
