//! Scenario `large`: small messages are delivered between pairs at a steady rate, while one more pair sends large ones as
//! fast as it can; and likewise without that, in turn.

use std::time::Duration;

use super::Bench;
use super::clients::Pair;
use super::compare::Rounds;
use super::online::{self, Measured};
use super::report::{count, rate};
use super::steady::Load;
use crate::time::sleep_until;

/// Bytes of a large body, unless told otherwise.
pub(super) const BODY_BYTES: usize = 1 << 20;

/// What goes before each round.
const CALM: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) pairs: u32,
    /// Small messages delivered in a second, by all pairs together.
    pub(super) rate: u32,
    pub(super) rounds: u32,
    /// How long each way is measured in each round.
    pub(super) length: Duration,
    /// Bytes of each large body.
    pub(super) body_bytes: usize,
    /// Large messages without an outcome.
    pub(super) window: u32,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, plan: Plan) -> anyhow::Result<()> {
    let relay: Vec<_> = bench.figures.iter().map(|figures| figures.process.clone()).collect();
    let mut load = Load::start(bench, plan.pairs, plan.rate)?;
    let large = [Pair::start(bench)?];
    let body = vec![b'.'; plan.body_bytes];
    let (mut rounds, mut sent, mut time) = (Rounds::new(), 0, Duration::ZERO);
    for round in 1..=plan.rounds {
        let calm = bench.clock.now() + CALM;
        let begin = calm + plan.length;
        sleep_until(&*bench.clock, Some(begin)).await;
        let measured = online::measure(bench, &relay, &large, (&body, plan.window), (plan.length, None)).await?;
        let Measured { latency, took, .. } = measured;
        let end = bench.clock.now();
        let compared = load.between(calm, begin, end).await?;
        let bytes = rate(latency.count() * plan.body_bytes as u64, took);
        let what = format!("large ones of {} bytes: {} MB/s", count(plan.body_bytes as u64), bytes / 1_000_000);
        compared.tell(bench, round, [("large_bytes_per_second", bytes.into())], &what)?;
        rounds.add(&compared, end - calm);
        (sent, time) = (sent + latency.count(), time + took);
    }
    let bytes = rate(sent * plan.body_bytes as u64, time);
    rounds.tell(bench, [("large_body_bytes", plan.body_bytes.into()), ("large_bytes_per_second", bytes.into())])
}
