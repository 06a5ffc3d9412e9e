//! The same work done by posthouse, mosquitto and NATS JetStream, in one run: each on this machine, with a server of
//! its own, in turn, round after round; the medians are printed and can be written into the documents.

mod bodies;
mod floor;
mod mosquitto;
mod nats;
mod posthouse_itself;
mod report;
mod scale;
mod server;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rumqttc::mqttbytes::QoS;
use tokio::runtime::Builder;

use crate::nats::Sync;
use crate::report::Report;
use crate::work::{BODY_BYTES, Figures, LOADS, Load};

/// Compares posthouse with mosquitto and NATS JetStream.
#[derive(Debug, Parser)]
struct Args {
    /// posthouse's program.
    #[arg(long, default_value = "target/release/posthouse")]
    posthouse: String,
    /// mosquitto's program; Debian's package has it in /usr/sbin.
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: String,
    /// nats-server's program.
    #[arg(long, default_value = "nats-server")]
    nats: String,
    /// How long each is measured, after two seconds of warm-up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds, of which the medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only systems of whose names this is a part.
    #[arg(long)]
    only: Option<String>,
    /// Only this load: pairs, an x, and the window, such as 64x64. Then there is no floor, there are no large bodies, and no more pairs.
    #[arg(long, value_parser = load)]
    load: Option<Load>,
    /// A document to write the figures into, between its marks.
    #[arg(long)]
    write: Option<PathBuf>,
    /// A file for the plot.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Reads a load as it is given on the command line.
fn load(words: &str) -> Result<Load, &'static str> {
    let known = LOADS.into_iter().find(|load| words == format!("{}x{}", load.pairs, load.window));
    known.ok_or("it is one of 1x1, 1x64, 16x16 and 64x64")
}

/// What is compared. The first is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Posthouse,
    Mosquitto(QoS),
    Nats(Sync),
}

impl System {
    const ALL: [Self; 5] = [
        Self::Posthouse,
        Self::Mosquitto(QoS::AtLeastOnce),
        Self::Mosquitto(QoS::ExactlyOnce),
        Self::Nats(Sync::Always),
        Self::Nats(Sync::Default),
    ];

    pub fn title(&self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse (fsync, TLS 1.3)",
            Self::Mosquitto(QoS::ExactlyOnce) => "mosquitto QoS 2 (no disk, no TLS)",
            Self::Mosquitto(_) => "mosquitto QoS 1 (no disk, no TLS)",
            Self::Nats(Sync::Always) => "JetStream, sync always (no TLS)",
            Self::Nats(Sync::Default) => "JetStream, default (fsync every 2 min, no TLS)",
        }
    }

    fn run(&self, args: &Args, load: Load) -> anyhow::Result<Figures> {
        let seconds = Duration::from_secs(args.seconds);
        match self {
            Self::Posthouse => posthouse_itself::run(&args.posthouse, load, BODY_BYTES, seconds),
            // It answers one message sooner if a second thread is there to take it. Otherwise both are as fast or faster
            // with load from one: their servers need the rest of this machine.
            Self::Mosquitto(qos) if load.window == 1 => {
                on_all_threads(mosquitto::run(&args.mosquitto, *qos, load, seconds))
            }
            Self::Mosquitto(qos) => on_one_thread(mosquitto::run(&args.mosquitto, *qos, load, seconds)),
            Self::Nats(sync) => on_one_thread(nats::run(&args.nats, *sync, load, seconds)),
        }
    }
}

/// What posthouse's own program has, for all load generators.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Work that is never handed from one processor to the other.
fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn on_all_threads<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::default();
    for round in 1..=args.rounds {
        for (place, load) in LOADS.iter().enumerate() {
            for (number, system) in System::ALL.iter().enumerate() {
                let other_load = args.load.is_some_and(|only| only != *load);
                if other_load || args.only.as_ref().is_some_and(|only| !system.title().contains(only.as_str())) {
                    continue;
                }
                let figures = system.run(&args, *load)?;
                eprintln!(
                    "round {round}, {} x {}, {}: {:.0}/s, p50 {:.0} µs",
                    load.pairs,
                    load.window,
                    system.title(),
                    figures.per_second,
                    figures.p50_us
                );
                report.add(number, place, figures);
            }
        }
        if args.load.is_some() {
            continue;
        }
        let short = Duration::from_secs(args.seconds.min(3));
        report.add_floor(on_one_thread(floor::run(short))?);
        report.add_bodies(on_one_thread(bodies::run(&args.posthouse, short))?);
        report.add_scale(on_one_thread(scale::run(&args.posthouse, short))?);
    }
    println!("{}", report.table(&System::ALL));
    if let Some(document) = &args.write {
        report.write(&System::ALL, document)?;
    }
    if let Some(file) = &args.plot {
        report.plot(&System::ALL, file)?;
    }
    Ok(())
}
