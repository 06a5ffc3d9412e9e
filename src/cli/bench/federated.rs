//! Scenario `federated`: what a second relay on the way costs. Pairs as in `online`, whose messages are all signed
//! and checked: in turn with one relay for both of a pair, and with a relay for each.

use serde_json::Value;

use super::Bench;
use super::clients::Pair;
use super::online::{self, Measured};
use super::process::Process;
use super::report::{count, fields, rate_words, ratio};
use crate::address::RelayAddress;

/// What to do, each way in each round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) round: online::Plan,
    pub(super) rounds: u32,
}

/// Messages that go over one relay, or over two; and what was measured of them.
struct Way {
    relays: u64,
    pairs: Vec<Pair>,
    measured: Measured,
}

/// Runs the scenario: both ways in each round, so that whatever else the machine does meets both.
pub(super) async fn run(bench: &Bench, other: &RelayAddress, relays: &[Process], plan: Plan) -> anyhow::Result<()> {
    let [mut one, mut two] =
        [Way::over(bench, 1, &bench.relay, plan.round).await?, Way::over(bench, 2, other, plan.round).await?];
    let mut ratios = Vec::new();
    for round in 1..=plan.rounds {
        let over_one = one.measure(bench, relays, plan.round, round).await?;
        let over_two = two.measure(bench, relays, plan.round, round).await?;
        ratios.push(ratio(over_two, over_one));
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let all_rounds = ratio(two.measured.rate(), one.measured.rate());
    let all: [(&str, Value); 9] = [
        ("messages", two.measured.latency.count().into()),
        ("messages_per_second", two.measured.rate().into()),
        ("durability", bench.durability.into()),
        ("pairs", plan.round.pairs.into()),
        ("window", plan.round.window.into()),
        ("ratio", all_rounds.into()),
        ("median_ratio", middle.into()),
        ("one_relay", one.report()),
        ("two_relays", two.report()),
    ];
    let words = format!(
        "\nall rounds ({}), every message signed and checked\n{}\n{}\n\
         two relays take {all_rounds:.2} of what one does; {middle:.2} by the median of the rounds",
        bench.durability,
        one.words(),
        two.words(),
    );
    bench.report.tell("result", fields(all).chain(two.measured.latency.fields()), &words)
}

impl Way {
    async fn over(bench: &Bench, relays: u64, recipients: &RelayAddress, plan: online::Plan) -> anyhow::Result<Self> {
        let pairs = Pair::open_signed(bench, plan.pairs, recipients).await?;
        Ok(Self { relays, pairs, measured: Measured::new() })
    }

    /// How many messages were delivered in a second.
    async fn measure(
        &mut self,
        bench: &Bench,
        relays: &[Process],
        plan: online::Plan,
        round: u32,
    ) -> anyhow::Result<u64> {
        let measured = online::measure(bench, relays, &self.pairs, plan).await?;
        let (each_second, latency) = (measured.rate(), &measured.latency);
        let all: [(&str, Value); 4] = [
            ("round", round.into()),
            ("relays", self.relays.into()),
            ("messages", latency.count().into()),
            ("messages_per_second", each_second.into()),
        ];
        let words = format!(
            "round {round}, {}: {} messages delivered, {}; from send to outcome {}",
            self.name(),
            count(latency.count()),
            rate_words(each_second),
            latency.words(),
        );
        bench.report.tell("round", fields(all).chain(latency.fields()), &words)?;
        self.measured.add(&measured);
        Ok(each_second)
    }

    const fn name(&self) -> &'static str {
        if self.relays == 1 { "one relay" } else { "two relays" }
    }

    fn report(&self) -> Value {
        let ([relays, clients], latency) = (self.measured.per_message(), &self.measured.latency);
        let all: [(&str, Value); 4] = [
            ("messages", latency.count().into()),
            ("messages_per_second", self.measured.rate().into()),
            ("relay_cpu_us_per_message", relays.into()),
            ("clients_cpu_us_per_message", clients.into()),
        ];
        Value::Object(fields(all).chain(latency.fields()).collect())
    }

    fn words(&self) -> String {
        let Measured { latency, used, .. } = &self.measured;
        format!(
            "{}: {}; from send to outcome: {}{}",
            self.name(),
            rate_words(self.measured.rate()),
            latency.words(),
            used.words(latency.count()),
        )
    }
}
