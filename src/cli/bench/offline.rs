//! Scenario `offline`: many senders fill the mailbox of one who is away; it comes back, looks, and takes all.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use super::Bench;
use super::clients::{start, take};
use super::fill::Senders;
use super::latency::Latency;
use super::process::{Memory, Process};
use super::raw::Session;
use super::report::{self, bytes, count, fields, rate, rate_words};
use super::target::FileSize;
use super::views::{PAGE_MESSAGES, Views};
use crate::client::{Client, Reading};
use crate::identity::Identity;
use crate::time::Moment;

/// The mailbox is looked into twice: when it is full, and with so many times fewer messages, but enough for whole
/// pages of each sender.
const FEWER: u64 = 100;

/// How long the relay may take to settle the last answers.
const SETTLING: Duration = Duration::from_secs(60);

/// How often it is asked whether it has.
const SETTLING_PAUSE: Duration = Duration::from_millis(5);

/// What one drain took.
struct Drain {
    took: Duration,
    relay_memory: Option<Memory>,
    relay_cpu: Option<Duration>,
    client_cpu: Option<Duration>,
}

/// Runs the scenario: fill and drain, so many times, in the same mailbox.
pub(super) async fn run(bench: &Bench, senders: u32, messages: u64, rounds: u32) -> anyhow::Result<()> {
    let owner = Identity::generate(&*bench.entropy);
    // Who was never here has a smaller mailbox.
    Session::open(&bench.relay, &owner, &*bench.entropy).await?.close().await;
    let who: Vec<Identity> = (0..senders).map(|_| Identity::generate(&*bench.entropy)).collect();
    let mut result = Vec::new();
    for round in 1..=rounds {
        let (latency, each_second) = fill(bench, &owner, &who, messages, round == 1).await?;
        tell_fill(bench, round, messages, &latency, each_second)?;
        let drain = drain(bench, &owner, messages).await?;
        drain.tell(bench, round, messages)?;
        let drained: [(&str, Value); 4] = [
            ("messages", messages.into()),
            ("messages_per_second", rate(messages, drain.took).into()),
            ("durability", bench.durability.into()),
            ("filled_per_second", each_second.into()),
        ];
        result = fields(drained).chain(latency.fields()).chain(drain.fields()).chain(file_fields(bench)).collect();
    }
    bench.report.tell("result", result, "nothing is left")
}

/// Fills the mailbox, and looks into it on the way. How long messages took to be accepted, and how many were in a
/// second.
async fn fill(
    bench: &Bench,
    owner: &Identity,
    who: &[Identity],
    messages: u64,
    look: bool,
) -> anyhow::Result<(Latency, u64)> {
    let mut senders = Senders::open(bench, who, owner.peer_id()).await?;
    let Some(first) = who.first().map(Identity::peer_id) else { bail!("there are no senders") };
    let whole_pages = PAGE_MESSAGES * who.len() as u64;
    let fewer = if look { (messages / FEWER).max(whole_pages).min(messages) } else { 0 };
    let mut latency = Latency::new();
    let mut earlier: Option<Views> = None;
    let mut took = Duration::ZERO;
    for (part, all) in [(fewer, fewer), (messages - fewer, messages)] {
        let (bar, begin) = (report::progress("filling", part), bench.clock.now());
        latency.merge(&senders.send(part, None, &bar).await?);
        took += bench.clock.now() - begin;
        bar.finish_and_clear();
        if look {
            let views = Views::take(bench, owner, first).await?;
            views.tell(bench, all)?;
            if let Some(earlier) = &earlier {
                tell_growth(bench, (fewer, messages), &views, earlier)?;
            }
            earlier = Some(views);
        }
    }
    senders.close().await;
    Ok((latency, rate(messages, took)))
}

fn tell_growth(bench: &Bench, (fewer, messages): (u64, u64), views: &Views, earlier: &Views) -> anyhow::Result<()> {
    bench.report.words(&format!("medians, {} messages to {}:", count(fewer), count(messages)))?;
    for (name, seen, above) in views.growth(earlier) {
        let growth: [(&str, Value); 5] = [
            ("view", name.into()),
            ("from_messages", fewer.into()),
            ("messages", messages.into()),
            ("growth", seen.into()),
            ("growth_above_round_trip", above.into()),
        ];
        let words = format!("  {name:22} {seen:.2} times as long; without the round trip {above:.2}");
        bench.report.tell("growth", fields(growth), &words)?;
    }
    bench.report.words("")
}

fn tell_fill(bench: &Bench, round: u32, messages: u64, latency: &Latency, each_second: u64) -> anyhow::Result<()> {
    let filled: [(&str, Value); 4] = [
        ("round", round.into()),
        ("messages", messages.into()),
        ("messages_per_second", each_second.into()),
        ("durability", bench.durability.into()),
    ];
    let words = format!(
        "round {round}: filled with {} messages, {} ({})\n  from send to acceptance: {}{}",
        count(messages),
        rate_words(each_second),
        bench.durability,
        latency.words(),
        file_words(bench),
    );
    bench.report.tell("fill", fields(filled).chain(latency.fields()).chain(file_fields(bench)), &words)
}

/// Takes all messages, the oldest first, as an application does.
async fn drain(bench: &Bench, owner: &Identity, messages: u64) -> anyhow::Result<Drain> {
    let relay = bench.figures.as_ref().map(|figures| &figures.process);
    let own = Process::own();
    if let Some(relay) = relay {
        relay.forget_peak();
    }
    let (relay_before, own_before) = (relay.and_then(Process::cpu), own.cpu());
    let begin = bench.clock.now();
    let client = start(bench, owner.clone(), Reading::InOrder)?;
    let bar = report::progress("draining", messages);
    for _ in 0..messages {
        take(&client).await?;
        bar.inc(1);
    }
    settled(bench, &client, bench.clock.now()).await?;
    let took = bench.clock.now() - begin;
    bar.finish_and_clear();
    let since = |before: Option<Duration>, now: Option<Duration>| Some(now?.saturating_sub(before?));
    let drain = Drain {
        took,
        relay_memory: relay.and_then(Process::memory),
        relay_cpu: since(relay_before, relay.and_then(Process::cpu)),
        client_cpu: since(own_before, own.cpu()),
    };
    client.close().await;
    Ok(drain)
}

/// Waits until nothing is left in the mailbox.
async fn settled(bench: &Bench, client: &Client, begin: Moment) -> anyhow::Result<()> {
    loop {
        let left = client.status(None).await?.messages;
        if left == 0 {
            return Ok(());
        }
        if bench.clock.now() - begin > SETTLING {
            bail!("{left} messages that were taken are still in the mailbox");
        }
        tokio::time::sleep(SETTLING_PAUSE).await;
    }
}

impl Drain {
    fn tell(&self, bench: &Bench, round: u32, messages: u64) -> anyhow::Result<()> {
        let each_second = rate(messages, self.took);
        let drained: [(&str, Value); 3] =
            [("round", round.into()), ("messages", messages.into()), ("messages_per_second", each_second.into())];
        let memory = self.relay_memory.map_or_else(String::new, |memory| {
            format!("\n  the relay's memory: {} at the most, {} at the end", bytes(memory.peak), bytes(memory.now))
        });
        let cpu = match (self.relay_cpu, self.client_cpu) {
            (Some(relay), Some(client)) => format!("\n  processor time: relay {relay:.2?}, client {client:.2?}"),
            _ => String::new(),
        };
        let words = format!(
            "round {round}: drained by one client in {:.2?}, {}{memory}{cpu}{}\n",
            self.took,
            rate_words(each_second),
            file_words(bench),
        );
        bench.report.tell("drain", fields(drained).chain(self.fields()).chain(file_fields(bench)), &words)
    }

    fn fields(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        let seconds = |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64().into());
        let all = [
            ("relay_peak_bytes", self.relay_memory.map(|memory| memory.peak.into())),
            ("relay_bytes", self.relay_memory.map(|memory| memory.now.into())),
            ("relay_cpu_seconds", seconds(self.relay_cpu)),
            ("client_cpu_seconds", seconds(self.client_cpu)),
        ];
        all.into_iter().filter_map(|(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?)))
    }
}

fn file_size(bench: &Bench) -> Option<FileSize> {
    bench.figures.as_ref()?.store_size()
}

fn file_fields(bench: &Bench) -> impl Iterator<Item = (String, Value)> + use<> {
    let size = file_size(bench);
    size.into_iter()
        .flat_map(|size| fields([("store_bytes", size.length.into()), ("store_blocks_bytes", size.blocks.into())]))
}

fn file_words(bench: &Bench) -> String {
    file_size(bench).map_or_else(String::new, |size| {
        format!("\n  the relay's file: {}, {} of them on the disk", bytes(size.length), bytes(size.blocks))
    })
}
