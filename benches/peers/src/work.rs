//! The work that all systems are given, and how it is measured: pairs of a sender and a recipient, each pair with a
//! window of messages on their way, from sending until the sender knows that the recipient's application has them.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

/// Bytes of a message's body.
pub const BODY_BYTES: usize = 256;

/// What goes before the measured time.
const WARM_UP: Duration = Duration::from_secs(2);

/// Clock ticks in a second, as Linux counts them for everybody.
const TICKS: u64 = 100;

/// Pairs, and messages on their way in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub pairs: u32,
    pub window: u32,
}

/// The four that are compared.
pub const LOADS: [Load; 4] = [
    Load { pairs: 1, window: 1 },
    Load { pairs: 1, window: 64 },
    Load { pairs: 16, window: 16 },
    Load { pairs: 64, window: 64 },
];

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time for each message: of the server, and of those who use it.
    pub server_us: f64,
    pub clients_us: f64,
}

/// When to measure.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    start: Instant,
    length: Duration,
}

impl Span {
    fn new(length: Duration) -> Self {
        Self { start: Instant::now(), length }
    }

    pub fn is_over(&self) -> bool {
        self.start.elapsed() >= WARM_UP + self.length
    }

    /// Waits until what counts begins.
    async fn warm_up(&self) {
        tokio::time::sleep_until((self.start + WARM_UP).into()).await;
    }

    /// A body, which says when it was sent.
    pub fn body(&self) -> Vec<u8> {
        let mut body = vec![b'.'; BODY_BYTES];
        let sent = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        body[..8].copy_from_slice(&sent.to_be_bytes());
        body
    }

    /// Enters a message by the first bytes of its body, which its receipt brings back.
    pub fn enter(&self, receipt: &[u8], latency: &mut Histogram<u64>) -> anyhow::Result<()> {
        let sent = receipt.first_chunk().context("a receipt without its time")?;
        let (sent, now) = (Duration::from_nanos(u64::from_be_bytes(*sent)), self.start.elapsed());
        if sent >= WARM_UP && sent < WARM_UP + self.length {
            latency.saturating_record(u64::try_from((now - sent).as_micros())?.max(1));
        }
        Ok(())
    }
}

/// A run of pairs, each of which sends by itself once all are there.
pub struct Run {
    load: Load,
    ready: Arc<Barrier>,
    span: watch::Sender<Option<Span>>,
    senders: JoinSet<anyhow::Result<Histogram<u64>>>,
    recipients: JoinSet<anyhow::Result<()>>,
}

/// When a sender begins.
pub struct Start {
    ready: Arc<Barrier>,
    span: watch::Receiver<Option<Span>>,
}

impl Start {
    /// Waits for the others.
    pub async fn wait(mut self) -> anyhow::Result<Span> {
        self.ready.wait().await;
        self.span.wait_for(Option::is_some).await?.context("no time to measure")
    }
}

impl Run {
    pub fn new(load: Load) -> Self {
        let ready = Arc::new(Barrier::new(2 * load.pairs as usize + 1));
        let (senders, recipients) = (JoinSet::new(), JoinSet::new());
        Self { load, ready, span: watch::Sender::new(None), senders, recipients }
    }

    /// A recipient answers, and a sender sends until its time is over and says how long its messages took.
    pub fn add<S, R>(&mut self, recipient: impl FnOnce(Arc<Barrier>) -> R, sender: impl FnOnce(u32, Start) -> S)
    where
        S: Future<Output = anyhow::Result<Histogram<u64>>> + Send + 'static,
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.recipients.spawn(recipient(self.ready.clone()));
        let start = Start { ready: self.ready.clone(), span: self.span.subscribe() };
        self.senders.spawn(sender(self.load.window, start));
    }

    /// Lets all of them begin, and measures for so long after a warm-up.
    pub async fn measure(mut self, server: u32, seconds: Duration) -> anyhow::Result<Figures> {
        self.ready.wait().await;
        let measured = Span::new(seconds);
        self.span.send_replace(Some(measured));
        measured.warm_up().await;
        let since = Used::so_far(server)?;
        let mut latency = histogram()?;
        while let Some(sender) = self.senders.join_next().await {
            latency.add(&sender??)?;
        }
        Ok(Used::so_far(server)?.figures(since, &latency, seconds))
    }
}

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

/// CPU time that this process and a server's have used.
#[derive(Debug, Clone, Copy)]
struct Used {
    server: Duration,
    clients: Duration,
}

impl Used {
    fn so_far(server: u32) -> anyhow::Result<Self> {
        Ok(Self { server: cpu(&server.to_string())?, clients: cpu("self")? })
    }

    /// All figures of a run that took this and began with `since`.
    fn figures(self, since: Self, latency: &Histogram<u64>, took: Duration) -> Figures {
        let messages = latency.len().max(1) as f64;
        let each = |now: Duration, then: Duration| (now - then).as_secs_f64() * 1e6 / messages;
        Figures {
            per_second: latency.len() as f64 / took.as_secs_f64(),
            p50_us: latency.value_at_quantile(0.5) as f64,
            p99_us: latency.value_at_quantile(0.99) as f64,
            server_us: each(self.server, since.server),
            clients_us: each(self.clients, since.clients),
        }
    }
}

fn cpu(process: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name in parentheses may hold anything; behind it is field 3.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}
