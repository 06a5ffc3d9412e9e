//! Scenario `online`: pairs of clients, each with a window of messages on their way, from send to outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::task::JoinSet;

use super::Bench;
use super::clients::Pair;
use super::latency::Latency;
use super::report::{self, count, fields, rate, rate_words};
use crate::client::Draft;
use crate::protocol::Outcome;
use crate::time::{Moment, SharedClock};

/// What goes before the measured time, so that connections, caches and windows are as they stay.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

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

/// Runs the scenario for so long, or until so many messages have their outcome.
pub(super) async fn run(
    bench: &Bench,
    pairs: u32,
    window: u32,
    length: Duration,
    messages: Option<u64>,
) -> anyhow::Result<()> {
    let pairs = (0..pairs).map(|_| Pair::start(bench)).collect::<Result<Vec<_>, _>>()?;
    let (latency, took) = measure(bench, &pairs, window, length, messages).await?;
    let each_second = rate(latency.count(), took);
    let words = format!(
        "{} messages delivered, {} ({})\nfrom send to outcome: {}",
        count(latency.count()),
        rate_words(each_second),
        bench.durability,
        latency.words(),
    );
    let all: [(&str, Value); 5] = [
        ("messages", latency.count().into()),
        ("messages_per_second", each_second.into()),
        ("durability", bench.durability.into()),
        ("pairs", pairs.len().into()),
        ("window", window.into()),
    ];
    bench.report.tell("result", fields(all).chain(latency.fields()), &words)
}

/// Lets pairs send, each with a window, for so long or until so many messages have their outcome. How long those
/// took that were sent after a warm-up, and how long that went on.
pub(super) async fn measure(
    bench: &Bench,
    pairs: &[Pair],
    window: u32,
    length: Duration,
    messages: Option<u64>,
) -> anyhow::Result<(Latency, Duration)> {
    let begin = bench.clock.now() + WARM_UP;
    let span = Span {
        clock: bench.clock.clone(),
        begin,
        end: begin + length,
        left: Arc::new(AtomicU64::new(messages.unwrap_or(u64::MAX))),
        bar: report::progress("sending", messages.unwrap_or_default()),
    };
    let mut workers = JoinSet::new();
    for pair in pairs {
        for _ in 0..window {
            let (client, draft) = (pair.sender.clone(), Draft::new(pair.to.clone(), bench.body.clone()));
            workers.spawn(work(client, draft, span.clone()));
        }
    }
    let (mut latency, mut end) = (Latency::new(), begin);
    while let Some(done) = workers.join_next().await {
        let (worker, last) = done??;
        latency.merge(&worker);
        end = end.max(last);
    }
    span.bar.finish_and_clear();
    if latency.count() == 0 {
        bail!("no message had its outcome in time: measure for longer");
    }
    Ok((latency, end - begin))
}

/// Sends one message after the other. How long those took that were sent after the warm-up, and when the last of
/// them was over.
async fn work(client: crate::client::Client, draft: Draft, span: Span) -> anyhow::Result<(Latency, Moment)> {
    let (mut latency, mut last) = (Latency::new(), span.begin);
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
            latency.record(last - sent);
            span.bar.inc(1);
        }
    }
    Ok((latency, last))
}
