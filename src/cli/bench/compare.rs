//! Delivery with and without something else that the relay has to do, round by round.

use std::time::Duration;

use serde_json::Value;

use super::Bench;
use super::latency::Latency;
use super::report::{count, fields, rate, ratio};

/// Latencies of one round, or of all of them.
pub(super) struct Compared {
    /// Without.
    pub(super) quiet: Latency,
    /// With.
    pub(super) busy: Latency,
}

impl Compared {
    /// For people: both, with how many messages they are about.
    fn words(&self) -> String {
        let line = |latency: &Latency| format!("{} ({} messages)", latency.words(), count(latency.count()));
        format!("  without  {}\n  with     {}", line(&self.quiet), line(&self.busy))
    }

    /// Says how a round went.
    pub(super) fn tell<const N: usize>(
        &self,
        bench: &Bench,
        round: u32,
        own: [(&str, Value); N],
        what: &str,
    ) -> anyhow::Result<()> {
        let all: [(&str, Value); 3] = [
            ("round", round.into()),
            ("quiet_p50_us", self.quiet.p50_us().into()),
            ("quiet_p99_us", self.quiet.p99_us().into()),
        ];
        let words = format!("round {round}: {what}\n{}", self.words());
        bench.report.tell("round", fields(all).chain(fields(own)).chain(self.busy.fields()), &words)
    }
}

/// All rounds.
pub(super) struct Rounds {
    all: Compared,
    ratios: Vec<f64>,
    measured: Duration,
}

impl Rounds {
    pub(super) fn new() -> Self {
        let all = Compared { quiet: Latency::new(), busy: Latency::new() };
        Self { all, ratios: Vec::new(), measured: Duration::ZERO }
    }

    /// One more round, which was measured for so long.
    pub(super) fn add(&mut self, round: &Compared, measured: Duration) {
        self.all.quiet.merge(&round.quiet);
        self.all.busy.merge(&round.busy);
        self.ratios.push(ratio(round.busy.p99_us(), round.quiet.p99_us()));
        self.measured += measured;
    }

    /// Says what came out.
    pub(super) fn tell<const N: usize>(mut self, bench: &Bench, own: [(&str, Value); N]) -> anyhow::Result<()> {
        // A machine that is busy with something else for a while spoils some rounds, but not the one in the middle.
        self.ratios.sort_by(f64::total_cmp);
        let middle = self.ratios.get(self.ratios.len() / 2).copied().unwrap_or(1.0);
        let Compared { quiet, busy } = &self.all;
        let delivered = quiet.count() + busy.count();
        let all: [(&str, Value); 8] = [
            ("messages", delivered.into()),
            ("messages_per_second", rate(delivered, self.measured).into()),
            ("durability", bench.durability.into()),
            ("quiet_p50_us", quiet.p50_us().into()),
            ("quiet_p99_us", quiet.p99_us().into()),
            ("p50_ratio", ratio(busy.p50_us(), quiet.p50_us()).into()),
            ("p99_ratio", ratio(busy.p99_us(), quiet.p99_us()).into()),
            ("median_p99_ratio", middle.into()),
        ];
        let words = format!(
            "\nall rounds, from send to outcome ({}):\n  without  {}\n  with     {}\n  the p99 is {middle:.2} times as long, by the median of the rounds",
            bench.durability,
            quiet.words(),
            busy.words(),
        );
        bench.report.tell("result", fields(all).chain(fields(own)).chain(busy.fields()), &words)
    }
}
