//! `posthouse bench`: measures a relay as its clients see it, one of its own unless another is named.
//!
//! ```text
//!  target    the relay, as a process with a fresh directory     online    pairs that send and take all the time
//!  process   what a process has used                            offline   a mailbox that fills up and is drained
//!  raw       a session that is frames and nothing else          expiry    delivery while messages expire
//!  fill      senders on raw sessions                            federated over two relays, and over one
//!  clients   senders and recipients of the library              views     status and first pages, timed
//!  steady    pairs that send at a steady rate                   backup    delivery while the relay is backed up
//!  compare   delivery with and without something else           hostile   delivery while the relay is attacked
//!  report    what is printed                                    attack    those who attack; flood, before a session
//!                                                               idle      sessions that do nothing
//!  large     small messages beside large ones                   latency   histograms
//!                                                               threads   where clients of pairs live
//! ```

mod attack;
mod backup;
mod clients;
mod compare;
mod expiry;
mod federated;
mod fill;
mod flood;
mod hostile;
mod idle;
mod large;
mod latency;
mod offline;
mod online;
mod process;
mod raw;
mod report;
mod steady;
mod target;
mod threads;
mod views;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args as ClapArgs, ValueEnum};
use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::address::RelayAddress;
use crate::identity::Identity;
use crate::protocol::limit::MAX_BODY_BYTES;
use crate::random::{SharedEntropy, SystemEntropy};
use crate::time::{SharedClock, SystemClock};
use attack::Attack;
use raw::Session;
use report::Report;
use target::{Figures, Target, USUAL_LIMITS, WITHOUT_LIMITS};
use threads::Threads;

/// Bytes of a message's body, unless told otherwise.
const BODY_BYTES: usize = 256;

#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Senders, each with a recipient of its own; offline: all with the same one
    /// [default: 50; expiry, backup, large: 10; hostile: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pairs: Option<u32>,
    /// online, federated, hostile: messages of one pair without an outcome at any time [default: 16; hostile: 1024];
    /// large: of those that are large [default: 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: Option<u32>,
    /// Bytes of each message's body [default: 256]; large: of those that are large [default: 1048576]
    #[arg(long, value_name = "BYTES", value_parser = body_bytes)]
    body: Option<usize>,
    /// online: how long to measure, after a warm-up [default: 10]; federated, hostile, large: each way in each round
    /// [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// How many messages: online ends after so many, federated and hostile each way in each round; offline: the
    /// mailbox is filled with them [default: 100000];
    /// expiry: they expire at once [default: 100000]; backup: they are copied [default: 300000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: Option<u64>,
    /// online: messages that wait for somebody who is away, put there before [default: 0]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    stored: Option<u64>,
    /// expiry, backup, large: small messages delivered in a second, by all pairs together [default: 1000]; online: the same,
    /// instead of a window
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// offline: how often the same mailbox is filled and drained [default: 1]; expiry: how often messages expire
    /// [default: 5]; federated, hostile, large: how often each way is measured [default: 3]; backup: how often
    /// [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// The relay to measure [default: one of its own, on a fresh directory below TMPDIR, without limits that matter]
    #[arg(long, value_name = "ADDRESS")]
    relay: Option<RelayAddress>,
    /// idle: how many sessions [default: 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    sessions: Option<u32>,
    /// hostile: this attack alone [default: each in turn]
    #[arg(long, value_enum)]
    attack: Option<Attack>,
    /// Be the attackers of `hostile`, and nothing else
    #[arg(long, value_enum, hide = true, requires = "relay")]
    attacker: Option<Attack>,
    /// Accept connections and do nothing else
    #[arg(long, hide = true)]
    bare: bool,
    /// Keep outbox and inbox of every client on disk, as applications do; without this they are in memory
    #[arg(long)]
    durable_clients: bool,
    /// Print one JSON object a line instead of words
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  posthouse bench                                            50 pairs, 16 messages of each on their way
  posthouse bench --pairs 1000 --rate 2000                   1,000 pairs, 2,000 messages a second of all together
  posthouse bench --scenario offline --messages 1000000      a mailbox with a million messages
  posthouse bench --scenario offline --rounds 3              does its file keep growing?
  posthouse bench --scenario expiry                          delivery while 100,000 messages expire
  posthouse bench --scenario backup                          delivery while the relay is backed up
  posthouse bench --scenario federated                       what a second relay on the way costs
  posthouse bench --scenario hostile --attack initials       delivery during a flood of handshakes
  posthouse bench --scenario idle --sessions 20000           what a session costs that does nothing
  posthouse bench --scenario large                           small messages while others send large ones
  posthouse bench --stored 1000000                           delivery by a relay that keeps a million messages

Build with --release. The relay's file is synced with each commit, so the disk below TMPDIR counts.";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Scenario {
    /// Pairs of clients: from send to outcome
    #[default]
    Online,
    /// One absent recipient: filling its mailbox, looking into it, draining it
    Offline,
    /// Delivery between pairs, with and without many messages that expire at the same time
    Expiry,
    /// Delivery between pairs, with and without a backup at the same time
    Backup,
    /// Pairs of clients whose messages are all signed: with one relay for both, and with one for each
    Federated,
    /// Delivery between pairs, with and without attacks on the relay from this machine
    Hostile,
    /// Sessions that do nothing, and their return after the relay was killed
    Idle,
    /// Delivery of small messages between pairs, with and without one more pair that sends large ones
    Large,
}

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Expiry => "expiry",
            Self::Backup => "backup",
            Self::Federated => "federated",
            Self::Hostile => "hostile",
            Self::Idle => "idle",
            Self::Large => "large",
        }
    }

    const fn relays(self) -> usize {
        match self {
            Self::Online | Self::Offline | Self::Expiry | Self::Backup | Self::Hostile | Self::Idle | Self::Large => 1,
            Self::Federated => 2,
        }
    }

    /// How the relays are configured.
    const fn config(self) -> &'static str {
        match self {
            // What is measured there is what its limits are good for.
            Self::Hostile => USUAL_LIMITS,
            _ => WITHOUT_LIMITS,
        }
    }
}

fn body_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= MAX_BODY_BYTES => Ok(bytes),
        _ => Err(format!("use 0 to {MAX_BODY_BYTES}, the largest body there is")),
    }
}

impl Args {
    /// What pairs do that send as fast as they can, unless told otherwise.
    fn round(&self, pairs: u32, window: u32, seconds: u64) -> online::Plan {
        online::Plan {
            pairs: self.pairs.unwrap_or(pairs),
            window: self.window.unwrap_or(window),
            length: Duration::from_secs(self.seconds.unwrap_or(seconds)),
            messages: self.messages,
            body_bytes: self.body.unwrap_or(BODY_BYTES),
        }
    }

    /// What pairs do that send at a steady rate, unless told otherwise.
    fn steady(&self) -> steady::Plan {
        steady::Plan { pairs: self.pairs.unwrap_or(10), rate: self.rate.unwrap_or(1000) }
    }

    /// As long as it takes, if it ends after so many messages.
    fn unless_counted(&self, seconds: u64) -> u64 {
        if self.messages.is_some() { u64::MAX } else { seconds }
    }

    /// A flag that the scenario does not look at is a mistake of whoever wrote it.
    fn check(&self) -> anyhow::Result<()> {
        use Scenario::{Backup, Expiry, Federated, Hostile, Idle, Large, Offline, Online};
        let flags: [(&str, bool, &[Scenario]); 8] = [
            ("--window", self.window.is_some(), &[Online, Federated, Hostile, Large]),
            ("--seconds", self.seconds.is_some(), &[Online, Federated, Hostile, Large]),
            ("--stored", self.stored.is_some(), &[Online]),
            ("--rate", self.rate.is_some(), &[Online, Expiry, Backup, Large]),
            ("--rounds", self.rounds.is_some(), &[Offline, Expiry, Federated, Backup, Hostile, Large]),
            ("--sessions", self.sessions.is_some(), &[Idle]),
            ("--attack", self.attack.is_some(), &[Hostile]),
            ("--relay", self.relay.is_some(), &[Online, Offline, Expiry, Large]),
        ];
        for (flag, given, scenarios) in flags {
            if given && !scenarios.contains(&self.scenario) {
                let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name()).collect();
                bail!("{flag} is for --scenario {}, not for {}", names.join(" and "), self.scenario.name());
            }
        }
        if self.scenario == Online && self.window.is_some() && self.rate.is_some() {
            bail!(
                "give --window or --rate: a window is how many messages may be on their way, however fast they are sent"
            );
        }
        Ok(())
    }
}

/// What every scenario is given.
struct Bench {
    relay: RelayAddress,
    /// How many relays take part.
    relays: usize,
    /// Of the relay's process and file, if it is our own.
    figures: Option<Figures>,
    /// Where clients keep what they must not lose; nowhere if in memory.
    clients: Option<PathBuf>,
    /// What the relay says about how safely it keeps messages.
    durability: &'static str,
    body: Vec<u8>,
    clock: SharedClock,
    entropy: SharedEntropy,
    threads: Threads,
    report: Report,
}

/// Runs one scenario.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    if args.attacker.is_none() {
        args.check().map_err(CliError::Usage)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    if let (Some(attack), Some(relay)) = (args.attacker, &args.relay) {
        return Ok(runtime.block_on(attack::run(attack, relay.clone()))?);
    }
    if args.bare {
        return Ok(runtime.block_on(idle::serve_bare())?);
    }
    Ok(runtime.block_on(measure(args))?)
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let start = |_| Target::start(args.relay.clone(), args.scenario.config());
    let mut targets = (0..args.scenario.relays()).map(start).collect::<Result<Vec<_>, _>>()?;
    let measured = tokio::select! {
        biased;
        name = signals.next() => Err(anyhow!("ended by {name}")),
        measured = run_scenario(&args, &mut targets) => measured,
    };
    // In every case: nothing is left running, and nothing in the temporary directory.
    let mut stopped = Ok(());
    for target in targets {
        stopped = stopped.and(target.stop().await);
    }
    measured.and(stopped)
}

async fn run_scenario(args: &Args, targets: &mut [Target]) -> anyhow::Result<()> {
    let mut relays = Vec::new();
    for target in &mut *targets {
        relays.push(target.ready().await?);
    }
    let (Some(target), Some(relay)) = (targets.first(), relays.first().cloned()) else { bail!("there is no relay") };
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let nobody = Session::open(&relay, &Identity::generate(&*entropy), &*entropy).await?;
    let durability = nobody.hello.durability.name();
    nobody.close().await;
    let bench = Bench {
        figures: target.figures(),
        relays: relays.len(),
        clients: args.durable_clients.then(|| target.directory().to_owned()),
        durability,
        body: vec![b'.'; args.body.filter(|_| args.scenario != Scenario::Large).unwrap_or(BODY_BYTES)],
        clock,
        entropy,
        threads: Threads::start()?,
        report: Report::new(args.scenario.name(), args.json),
        relay,
    };
    bench.introduce()?;
    let processes: Vec<_> = targets.iter().filter_map(Target::figures).map(|figures| figures.process).collect();
    match args.scenario {
        Scenario::Online => {
            let plan = args.round(50, 16, args.unless_counted(10));
            unless_ended(targets, online::run(&bench, plan, args.stored.unwrap_or(0), args.rate)).await
        }
        Scenario::Offline => {
            let (senders, rounds) = (args.pairs.unwrap_or(50), args.rounds.unwrap_or(1));
            unless_ended(targets, offline::run(&bench, senders, args.messages.unwrap_or(100_000), rounds)).await
        }
        Scenario::Expiry => {
            let plan = expiry::Plan {
                steady: args.steady(),
                rounds: args.rounds.unwrap_or(5),
                expiring: args.messages.unwrap_or(100_000),
            };
            unless_ended(targets, expiry::run(&bench, plan)).await
        }
        Scenario::Backup => {
            let Some(data) = bench.figures.as_ref().and_then(Figures::data) else { bail!("there is no store") };
            let plan = backup::Plan {
                steady: args.steady(),
                rounds: args.rounds.unwrap_or(3),
                messages: args.messages.unwrap_or(300_000),
            };
            unless_ended(targets, backup::run(&bench, data, plan)).await
        }
        Scenario::Federated => {
            let Some(other) = relays.get(1) else { bail!("there is no second relay") };
            let round = args.round(50, 16, args.unless_counted(5));
            let plan = federated::Plan { round, rounds: args.rounds.unwrap_or(3) };
            unless_ended(targets, federated::run(&bench, other, &processes, plan)).await
        }
        Scenario::Hostile => {
            let Some(figures) = &bench.figures else { bail!("there is no relay of our own") };
            let attacks = args.attack.map_or_else(|| Attack::value_variants().to_vec(), |attack| vec![attack]);
            let round = args.round(1, hostile::WINDOW, 5);
            let plan = hostile::Plan { round, rounds: args.rounds.unwrap_or(3), attacks };
            unless_ended(targets, hostile::run(&bench, figures, plan)).await
        }
        Scenario::Large => {
            let large =
                online::Plan { pairs: 1, body_bytes: args.body.unwrap_or(large::BODY_BYTES), ..args.round(1, 4, 5) };
            let plan = large::Plan { steady: args.steady(), rounds: args.rounds.unwrap_or(3), large };
            unless_ended(targets, large::run(&bench, plan)).await
        }
        Scenario::Idle => {
            let [target] = targets else { bail!("there is one relay") };
            idle::run(&bench, target, args.sessions.unwrap_or(1000)).await
        }
    }
}

/// Runs a scenario that ends early, with an error, if a relay of ours ends by itself.
async fn unless_ended(
    targets: &mut [Target],
    scenario: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let ended = select_all(targets.iter_mut().map(|target| Box::pin(target.ended())));
    tokio::select! {
        biased;
        (error, ..) = ended => Err(error),
        done = scenario => done,
    }
}

impl Bench {
    fn introduce(&self) -> anyhow::Result<()> {
        let whose = match (&self.figures, self.relays) {
            (None, _) => "the relay that was named".to_owned(),
            (Some(_), 1) => "a relay of its own, fsync on".to_owned(),
            (Some(_), relays) => format!("{relays} relays of its own, fsync on"),
        };
        let kept = if self.clients.is_some() { "on disk" } else { "in memory" };
        let build = if cfg!(debug_assertions) { "\nthis is a debug build: its figures say nothing" } else { "" };
        self.report.words(&format!(
            "{}: {whose}, messages of {} bytes; clients keep outbox and inbox {kept}{build}\n",
            self.report.scenario,
            self.body.len(),
        ))
    }
}

/// What ends a program from outside.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
