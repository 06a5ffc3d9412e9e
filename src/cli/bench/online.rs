//! Scenario `online`: pairs of clients, each with a window of messages on their way or all together at a steady rate, from
//! send to outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::task::JoinSet;

use super::clients::Pair;
use super::latency::Latency;
use super::process::{Process, Used};
use super::report::{self, count, fields, rate, rate_words};
use super::steady::{self, Load};
use super::{Bench, fill};
use crate::client::Draft;
use crate::protocol::Outcome;
use crate::time::{Moment, SharedClock, sleep_until};

/// What goes before the measured time, so that connections, caches and windows are as they stay.
const WARM_UP: Duration = Duration::from_secs(2);

/// How late the last message may be delivered at a steady rate. Later, those before it were not delivered as fast as they
/// were sent.
const LAG: Duration = Duration::from_secs(1);

/// When to measure.
#[derive(Clone)]
struct Span {
    clock: SharedClock,
    begin: Moment,
    end: Moment,
    /// Messages that may still be counted.
    left: Arc<AtomicU64>,
    bar: ProgressBar,
}

/// What to do: here, and each time in scenarios that do it again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) pairs: u32,
    /// Messages of one pair without an outcome.
    pub(super) window: u32,
    /// How long is measured, and how many messages that may be at the most.
    pub(super) length: Duration,
    pub(super) messages: Option<u64>,
    /// Of each message.
    pub(super) body_bytes: usize,
}

/// Runs the scenario, with so many messages in the store that wait for somebody who is away. All pairs together send so
/// many messages in a second, if that is given, and as many as their windows let them otherwise.
pub(super) async fn run(bench: &Bench, plan: Plan, stored: u64, steady_rate: Option<u32>) -> anyhow::Result<()> {
    if stored > 0 {
        fill::keep_for_nobody(bench, stored).await?;
    }
    let relay: Vec<Process> = bench.figures.iter().map(|figures| figures.process.clone()).collect();
    let measured = match steady_rate {
        Some(rate) => measure_steadily(bench, &relay, plan, rate).await?,
        None => {
            let pairs = Pair::open(bench, plan.pairs).await?;
            let measured = measure(bench, &relay, &pairs, plan).await?;
            Pair::close(pairs).await;
            measured
        }
    };
    let (each_second, [relay_us, clients_us]) = (measured.rate(), measured.per_message());
    let Measured { latency, used, .. } = measured;
    let words = format!(
        "{} messages delivered, {} ({})\nfrom send to outcome: {}{}",
        count(latency.count()),
        rate_words(each_second),
        bench.durability,
        latency.words(),
        used.words(latency.count()),
    );
    let load = steady_rate.map_or(("window", plan.window.into()), |rate| ("rate", rate.into()));
    let all: [(&str, Value); 8] = [
        ("messages", latency.count().into()),
        ("messages_per_second", each_second.into()),
        ("durability", bench.durability.into()),
        ("pairs", plan.pairs.into()),
        load,
        ("stored", stored.into()),
        ("relay_cpu_us_per_message", relay_us.into()),
        ("clients_cpu_us_per_message", clients_us.into()),
    ];
    bench.report.tell("result", fields(all).chain(latency.fields()), &words)
}

/// Measures pairs that send at a steady rate, however long earlier messages take: how long those take that were to be sent
/// after the warm-up, from when they were to be sent.
async fn measure_steadily(bench: &Bench, relays: &[Process], plan: Plan, rate: u32) -> anyhow::Result<Measured> {
    let mut load = Load::start(bench, steady::Plan { pairs: plan.pairs, rate }).await?;
    let length = plan.messages.map_or(plan.length, |messages| Duration::from_secs(messages) / rate);
    let begin = bench.clock.now() + WARM_UP;
    let end = begin + length;
    sleep_until(&*bench.clock, Some(begin)).await;
    let used = Used::so_far(relays);
    // Before the latencies are asked for: each pair goes on with its next message, which may be long after the end.
    sleep_until(&*bench.clock, Some(end)).await;
    let used = Used::so_far(relays).since(&used);
    let latency = load.between(begin, begin, end).await?.busy;
    let last = load.last;
    load.end().await;
    if latency.count() == 0 {
        bail!("no message was due in time: measure for longer");
    }
    if last.since(end) > LAG {
        bail!("{rate} messages a second are more than relay and clients can deliver here: ask for fewer with --rate");
    }
    Ok(Measured { latency, took: length, used })
}

/// What was measured.
pub(super) struct Measured {
    pub(super) latency: Latency,
    /// How long that went on.
    pub(super) took: Duration,
    pub(super) used: Used,
}

impl Measured {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { latency: Latency::new(), took: Duration::ZERO, used: Used::default() }
    }

    /// This as well.
    pub(super) fn add(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.took += other.took;
        self.used = self.used.and(other.used);
    }

    /// How many messages were delivered in a second.
    pub(super) fn rate(&self) -> u64 {
        rate(self.latency.count(), self.took)
    }

    /// See [`Used::per_message`].
    pub(super) fn per_message(&self) -> [Option<f64>; 2] {
        self.used.per_message(self.latency.count())
    }
}

/// Lets pairs send, each with a window, for so long or until so many messages have their outcome. What is measured
/// begins after a warm-up.
pub(super) async fn measure(
    bench: &Bench,
    relays: &[Process],
    pairs: &[Pair],
    Plan { window, length, messages, body_bytes, .. }: Plan,
) -> anyhow::Result<Measured> {
    let begin = bench.clock.now() + WARM_UP;
    let span = Span {
        clock: bench.clock.clone(),
        begin,
        end: begin + length,
        left: Arc::new(AtomicU64::new(messages.unwrap_or(u64::MAX))),
        bar: report::progress("sending", messages.unwrap_or_default()),
    };
    let mut workers = JoinSet::new();
    let each: Vec<_> = pairs.iter().map(|_| Arc::new(Mutex::new(Latency::new()))).collect();
    for (pair, latency) in pairs.iter().zip(&each) {
        for _ in 0..window {
            let (client, draft) = (pair.sender.clone(), Draft::new(pair.to.clone(), vec![b'.'; body_bytes]));
            workers.spawn_on(work(client, draft, span.clone(), latency.clone()), &pair.thread);
        }
    }
    sleep_until(&*bench.clock, Some(begin)).await;
    let used = Used::so_far(relays);
    let (mut latency, mut end) = (Latency::new(), begin);
    while let Some(done) = workers.join_next().await {
        end = end.max(done??);
    }
    each.iter().for_each(|of_pair| latency.merge(&lock(of_pair)));
    let used = Used::so_far(relays).since(&used);
    span.bar.finish_and_clear();
    if latency.count() == 0 {
        bail!("no message had its outcome in time: measure for longer");
    }
    Ok(Measured { latency, took: end - begin, used })
}

/// Sends one message after the other, and enters how long those took that were sent after the warm-up. When the last
/// of them was over.
async fn work(
    client: crate::client::Client,
    draft: Draft,
    span: Span,
    latency: Arc<Mutex<Latency>>,
) -> anyhow::Result<Moment> {
    let mut last = span.begin;
    loop {
        let sent = span.clock.now();
        if sent >= span.end {
            break;
        }
        let counts = sent >= span.begin;
        if counts && span.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            break;
        }
        match client.send(draft.clone()).await?.outcome().await? {
            Outcome::Delivered => {}
            other => bail!("a message was not delivered: {other:?}"),
        }
        if counts {
            last = span.clock.now();
            lock(&latency).record(last - sent);
            span.bar.inc(1);
        }
    }
    Ok(last)
}

fn lock(latency: &Mutex<Latency>) -> MutexGuard<'_, Latency> {
    latency.lock().unwrap_or_else(PoisonError::into_inner)
}
