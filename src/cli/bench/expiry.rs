//! Scenario `expiry`: messages are delivered between pairs at a steady rate, well below what the relay can do, while
//! many messages for somebody who is away expire at once; and likewise without that, in turn.

use std::time::Duration;

use serde_json::Value;

use super::Bench;
use super::fill::Senders;
use super::latency::Latency;
use super::raw::Session;
use super::report::{self, count, duration, fields, rate, ratio};
use super::steady::Load;
use crate::identity::Identity;
use crate::time::{Moment, sleep_until};

/// Sessions that send what expires.
const SENDERS: u32 = 10;

/// How long delivery is measured without expiry, right before each time with it.
const QUIET: Duration = Duration::from_secs(2);

/// What goes before that, so that the filling is over and done with.
const CALM: Duration = Duration::from_secs(1);

/// How many messages are expected to be accepted in a second; if they are fewer, the round begins anew with twice
/// the time.
const FILL_RATE: u64 = 40_000;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) pairs: u32,
    /// Messages delivered in a second, by all pairs together.
    pub(super) rate: u32,
    pub(super) rounds: u32,
    /// Messages that expire at once.
    pub(super) expiring: u64,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, plan: Plan) -> anyhow::Result<()> {
    let mut load = Load::start(bench, plan.pairs, plan.rate)?;
    let away = Identity::generate(&*bench.entropy);
    // Who was never here has a smaller mailbox.
    Session::open(&bench.relay, &away, &*bench.entropy).await?.close().await;
    let who: Vec<Identity> = (0..SENDERS).map(|_| Identity::generate(&*bench.entropy)).collect();
    let (mut quiet, mut busy) = (Latency::new(), Latency::new());
    let (mut sweeps, mut ratios, mut measured) = (Vec::new(), Vec::new(), Duration::ZERO);
    for round in 1..=plan.rounds {
        let mut senders = Senders::open(bench, &who, away.peer_id()).await?;
        let (calm, begin) = fill(bench, &mut senders, plan.expiring).await?;
        sleep_until(&*bench.clock, Some(begin)).await;
        senders.all_expired().await?;
        let end = bench.clock.now();
        senders.close().await;
        let (round_quiet, round_busy) = load.between(calm, begin, end).await?;
        tell_round(bench, round, end - begin, &round_quiet, &round_busy)?;
        quiet.merge(&round_quiet);
        busy.merge(&round_busy);
        sweeps.push(end - begin);
        ratios.push(ratio(round_busy.p99_us(), round_quiet.p99_us()));
        measured += end - begin + QUIET;
    }
    // A machine that is busy with something else for a while spoils some rounds, but not the one in the middle.
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    let sweep_us = sweeps.iter().max().map_or(0, |longest| u64::try_from(longest.as_micros()).unwrap_or(u64::MAX));
    let delivered = quiet.count() + busy.count();
    let all: [(&str, Value); 10] = [
        ("messages", delivered.into()),
        ("messages_per_second", rate(delivered, measured).into()),
        ("durability", bench.durability.into()),
        ("quiet_p50_us", quiet.p50_us().into()),
        ("quiet_p99_us", quiet.p99_us().into()),
        ("p50_ratio", ratio(busy.p50_us(), quiet.p50_us()).into()),
        ("p99_ratio", ratio(busy.p99_us(), quiet.p99_us()).into()),
        ("median_p99_ratio", middle.into()),
        ("expired", (plan.expiring * u64::from(plan.rounds)).into()),
        ("sweep_us", sweep_us.into()),
    ];
    let words = format!(
        "\nall rounds, from send to outcome ({}):\n  without  {}\n  with     {}\n  the p99 is {middle:.2} times as long, by the median of the rounds",
        bench.durability,
        quiet.words(),
        busy.words(),
    );
    bench.report.tell("result", fields(all).chain(busy.fields()), &words)
}

/// Sends what is to expire. When the measuring of delivery without expiry begins, and when it ends, because all of
/// that expires at once.
async fn fill(bench: &Bench, senders: &mut Senders, messages: u64) -> anyhow::Result<(Moment, Moment)> {
    let mut time = Duration::from_secs(1 + messages / FILL_RATE);
    loop {
        let filled = bench.clock.now() + time;
        let (calm, expiry) = (filled + CALM, filled + CALM + QUIET);
        let bar = report::progress("filling", messages);
        senders.send(messages, Some(expiry), &bar).await?;
        bar.finish_and_clear();
        if bench.clock.now() <= filled {
            return Ok((calm, expiry));
        }
        senders.all_expired().await?;
        time *= 2;
    }
}

fn tell_round(bench: &Bench, round: u32, sweep: Duration, quiet: &Latency, busy: &Latency) -> anyhow::Result<()> {
    let sweep_us = u64::try_from(sweep.as_micros()).unwrap_or(u64::MAX);
    let all: [(&str, Value); 4] = [
        ("round", round.into()),
        ("quiet_p50_us", quiet.p50_us().into()),
        ("quiet_p99_us", quiet.p99_us().into()),
        ("sweep_us", sweep_us.into()),
    ];
    let words = format!(
        "round {round}: every sender knew after {}\n  without  {} ({} messages)\n  with     {} ({} messages)",
        duration(sweep_us),
        quiet.words(),
        count(quiet.count()),
        busy.words(),
        count(busy.count()),
    );
    bench.report.tell("round", fields(all).chain(busy.fields()), &words)
}
