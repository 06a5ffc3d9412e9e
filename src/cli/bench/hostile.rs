//! Scenario `hostile`: pairs deliver as fast as they can, while the relay is attacked from this machine; and likewise
//! without that, in turn. The relay has the limits that it has by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::super::ask::ask;
use super::Bench;
use super::attack::Attack;
use super::clients::Pair;
use super::online::{self, Measured};
use super::process::Process;
use super::report::{self, count, duration, fields, rate_words, ratio};
use super::target::Figures;

/// Messages of a pair without an outcome: as many as its outbox sends without having heard of any.
pub(super) const WINDOW: u32 = 1024;

/// What `/metrics` tells of connections that were not let in.
const TURNED_AWAY: &str = "posthouse_refused_connections_total{reason=\"";
const RETRIES: &str = "posthouse_retries_total";
const UNREAD: &str = "posthouse_unread_packets_total";

/// What to do, with and without each attack in each round.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) round: online::Plan,
    pub(super) rounds: u32,
    pub(super) attacks: Vec<Attack>,
}

/// What was delivered in all rounds, during an attack or without one.
struct Way {
    measured: Measured,
    /// The most memory of the relay, bytes.
    peak: u64,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, figures: &Figures, plan: Plan) -> anyhow::Result<()> {
    let pairs = Pair::open(bench, plan.round.pairs).await?;
    let (mut quiet, mut busy, mut worst) = (Way::new(), Way::new(), f64::INFINITY);
    for attack in &plan.attacks {
        let (mut without, mut with, mut ratios) = (Way::new(), Way::new(), Vec::new());
        let mut attacked = Attacked::default();
        for _ in 0..plan.rounds {
            let calm = without.measure(bench, figures, &pairs, plan.round).await?;
            let attackers = Attackers::start(bench, figures, *attack).await?;
            let during = with.measure(bench, figures, &pairs, plan.round).await?;
            attacked.add(attackers.stop().await?);
            ratios.push(ratio(during, calm));
        }
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
        worst = worst.min(middle);
        tell(bench, *attack, &without, &with, &attacked, middle)?;
        quiet.add(&without);
        busy.add(&with);
    }
    let all: [(&str, Value); 9] = [
        ("messages", busy.measured.latency.count().into()),
        ("messages_per_second", busy.measured.rate().into()),
        ("durability", bench.durability.into()),
        ("pairs", plan.round.pairs.into()),
        ("window", plan.round.window.into()),
        ("quiet_messages_per_second", quiet.measured.rate().into()),
        ("quiet_p99_us", quiet.measured.latency.p99_us().into()),
        ("worst_median_ratio", worst.into()),
        ("relay_peak_bytes", busy.peak.into()),
    ];
    let words = format!(
        "all attacks, one after the other ({}):\n  without  {}\n  with     {}\n  at the worst, {worst:.2} of what is delivered without; the relay took {} of memory at the most",
        bench.durability,
        quiet.words(),
        busy.words(),
        report::bytes(busy.peak),
    );
    bench.report.tell("result", fields(all).chain(busy.measured.latency.fields()), &words)
}

fn tell(
    bench: &Bench,
    attack: Attack,
    without: &Way,
    with: &Way,
    attacked: &Attacked,
    middle: f64,
) -> anyhow::Result<()> {
    let [quiet_us, _] = without.measured.per_message();
    let [relay_us, _] = with.measured.per_message();
    let turned_away = attacked.turned_away.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
    let all: [(&str, Value); 12] = [
        ("attack", attack.name().into()),
        ("messages", with.measured.latency.count().into()),
        ("messages_per_second", with.measured.rate().into()),
        ("quiet_messages_per_second", without.measured.rate().into()),
        ("quiet_p99_us", without.measured.latency.p99_us().into()),
        ("median_ratio", middle.into()),
        ("relay_cpu_us_per_message", relay_us.into()),
        ("quiet_relay_cpu_us_per_message", quiet_us.into()),
        ("relay_peak_bytes", with.peak.into()),
        ("quiet_relay_peak_bytes", without.peak.into()),
        ("attackers_cpu_seconds", attacked.cpu.as_secs_f64().into()),
        ("turned_away", Value::Object(turned_away)),
    ];
    let refused: Vec<String> =
        attacked.turned_away.iter().map(|(name, number)| format!("{} {name}", count(*number))).collect();
    let words = format!(
        "{}: {middle:.2} of what is delivered without it, by the median of the rounds\n  without  {}\n  with     {}\n  the attackers took {} of the processors; turned away: {}\n",
        attack.name(),
        without.words(),
        with.words(),
        duration(u64::try_from(attacked.cpu.as_micros()).unwrap_or(u64::MAX)),
        if refused.is_empty() { "nobody".to_owned() } else { refused.join(", ") },
    );
    bench.report.tell("attack", fields(all).chain(with.measured.latency.fields()), &words)
}

impl Way {
    fn new() -> Self {
        Self { measured: Measured::new(), peak: 0 }
    }

    /// How many messages were delivered in a second.
    async fn measure(
        &mut self,
        bench: &Bench,
        figures: &Figures,
        pairs: &[Pair],
        plan: online::Plan,
    ) -> anyhow::Result<u64> {
        figures.process.forget_peak();
        let relay = [figures.process.clone()];
        let measured = online::measure(bench, &relay, pairs, plan).await?;
        let peak = figures.process.memory().map_or(0, |memory| memory.peak);
        let each_second = measured.rate();
        self.add(&Self { measured, peak });
        Ok(each_second)
    }

    fn add(&mut self, other: &Self) {
        self.measured.add(&other.measured);
        self.peak = self.peak.max(other.peak);
    }

    fn words(&self) -> String {
        let memory = report::bytes(self.peak);
        let cpu = match self.measured.per_message() {
            [Some(relay), _] => format!("; relay {relay} us of a processor for each, {memory} of memory"),
            _ => String::new(),
        };
        format!("{}, {}{cpu}", rate_words(self.measured.rate()), self.measured.latency.words())
    }
}

/// What attackers cost, and what the relay did about them.
#[derive(Default)]
struct Attacked {
    cpu: Duration,
    turned_away: BTreeMap<String, u64>,
}

impl Attacked {
    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        for (name, count) in other.turned_away {
            *self.turned_away.entry(name).or_default() += count;
        }
    }
}

/// The process that attacks. Dropped, it ends.
struct Attackers {
    child: Child,
    process: Process,
    data: PathBuf,
    /// What had been counted before.
    before: BTreeMap<String, u64>,
}

impl Attackers {
    /// Returns once the attack has begun.
    async fn start(bench: &Bench, figures: &Figures, attack: Attack) -> anyhow::Result<Self> {
        let data = figures.data().context("there is no store")?.to_owned();
        let before = turned_away(data.clone()).await?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--attacker", &attack.name(), "--relay", &bench.relay.to_string()]);
        let mut child = command
            // Our own end ends it: then it reads no more.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the attackers cannot be started")?;
        let output = child.stdout.take().context("the attackers' output is read already")?;
        let process = Process::new(child.id().context("the attackers are gone")?);
        if BufReader::new(output).lines().next_line().await?.is_none() {
            bail!("the attackers did not begin: see above");
        }
        Ok(Self { child, process, data, before })
    }

    async fn stop(mut self) -> anyhow::Result<Attacked> {
        let cpu = self.process.cpu().unwrap_or_default();
        let mut turned_away = turned_away(self.data).await?;
        for (name, count) in &mut turned_away {
            *count -= self.before.get(name).copied().unwrap_or(0).min(*count);
        }
        turned_away.retain(|_, count| *count > 0);
        self.child.kill().await.context("the attackers cannot be ended")?;
        Ok(Attacked { cpu, turned_away })
    }
}

/// What the relay has counted of connections that it did not let in, by reason.
async fn turned_away(data: PathBuf) -> anyhow::Result<BTreeMap<String, u64>> {
    let metrics = tokio::task::spawn_blocking(move || ask(&data, "metrics")).await??;
    let counted = metrics.lines().filter_map(|line| {
        let (name, count) = line.rsplit_once(' ')?;
        let reason = match name {
            RETRIES => "retry",
            UNREAD => "unread",
            _ => name.strip_prefix(TURNED_AWAY)?.trim_end_matches("\"}"),
        };
        Some((reason.to_owned(), count.parse().ok()?))
    });
    Ok(counted.collect())
}
