//! Scenario `expiry`: messages are delivered between pairs at a steady rate, well below what the relay can do, while
//! many messages for somebody who is away expire at once; and likewise without that, in turn.

use std::time::Duration;

use super::Bench;
use super::compare::Rounds;
use super::fill::{self, Senders};
use super::report::{self, duration};
use super::steady::{self, Load};
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
    pub(super) steady: steady::Plan,
    pub(super) rounds: u32,
    /// Messages that expire at once.
    pub(super) expiring: u64,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, plan: Plan) -> anyhow::Result<()> {
    let mut load = Load::start(bench, plan.steady).await?;
    let away = fill::somebody_away(bench).await?;
    let who: Vec<Identity> = (0..SENDERS).map(|_| Identity::generate(&*bench.entropy)).collect();
    let (mut rounds, mut longest) = (Rounds::new(), 0);
    for round in 1..=plan.rounds {
        let mut senders = Senders::open(bench, &who, away).await?;
        let (calm, begin) = fill(bench, &mut senders, plan.expiring).await?;
        sleep_until(&*bench.clock, Some(begin)).await;
        senders.all_expired().await?;
        let end = bench.clock.now();
        senders.close().await;
        let compared = load.between(calm, begin, end).await?;
        let sweep_us = u64::try_from((end - begin).as_micros()).unwrap_or(u64::MAX);
        let what = format!("every sender knew after {}", duration(sweep_us));
        compared.tell(bench, round, [("sweep_us", sweep_us.into())], &what)?;
        rounds.add(&compared, end - begin + QUIET);
        longest = longest.max(sweep_us);
    }
    let expired = plan.expiring * u64::from(plan.rounds);
    rounds.tell(bench, [("expired", expired.into()), ("sweep_us", longest.into())])?;
    load.end().await;
    Ok(())
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
