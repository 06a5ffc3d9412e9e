//! Scenario `large`: small messages are delivered between pairs at a steady rate, while one more pair sends large ones as
//! fast as it can; and likewise without that, in turn.

use super::Bench;
use super::clients::Pair;
use super::compare::Rounds;
use super::online::{self, Measured};
use super::report::count;
use super::steady::{self, Load};

/// Bytes of a large body, unless told otherwise.
pub(super) const BODY_BYTES: usize = 1 << 20;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The small messages.
    pub(super) steady: steady::Plan,
    pub(super) rounds: u32,
    /// The large messages of each round; the small ones are measured without them for as long.
    pub(super) large: online::Plan,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, plan: Plan) -> anyhow::Result<()> {
    let body_bytes = plan.large.body_bytes as u64;
    let relay: Vec<_> = bench.figures.iter().map(|figures| figures.process.clone()).collect();
    let mut load = Load::start(bench, plan.steady).await?;
    let pair = Pair::open(bench, 1).await?;
    let (mut rounds, mut large) = (Rounds::new(), Measured::new());
    for round in 1..=plan.rounds {
        let sending = online::measure(bench, &relay, &pair, plan.large);
        let (measured, took, compared) = load.beside(bench, plan.large.length, sending).await?;
        let bytes = measured.rate() * body_bytes;
        let what = format!("large ones of {} bytes: {} MB/s", count(body_bytes), bytes / 1_000_000);
        compared.tell(bench, round, [("large_bytes_per_second", bytes.into())], &what)?;
        rounds.add(&compared, plan.large.length + took);
        large.add(&measured);
    }
    let bytes = large.rate() * body_bytes;
    rounds.tell(bench, [("large_body_bytes", body_bytes.into()), ("large_bytes_per_second", bytes.into())])?;
    Pair::close(pair).await;
    load.end().await;
    Ok(())
}
