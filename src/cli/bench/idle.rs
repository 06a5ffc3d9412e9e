//! Scenario `idle`: sessions that do nothing. What one costs its relay, beside a bare QUIC connection of the same
//! configuration; then the relay is killed and started again, and all of them come back.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::Bench;
use super::clients::{self, OPEN_TIMEOUT, open_all, opened};
use super::latency::Latency;
use super::process::Process;
use super::report::{count, duration, fields};
use super::target::Target;
use crate::address::RelayAddress;
use crate::client::{Client, Connection, Reading};
use crate::identity::Identity;
use crate::random::SystemEntropy;
use crate::transport::{self, ClientEndpoint, RelayEndpoint, Socket, TransportLimits};

/// Bare connections that are opened at one time.
const AT_ONCE: usize = 128;

/// How long a process has to come to rest before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// How long one connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Descriptors that a process needs beside one for each session.
const OTHER_FILES: u64 = 64;

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, target: &mut Target, sessions: u32) -> anyhow::Result<()> {
    allow_files(u64::from(sessions) + OTHER_FILES)?;
    let figures = target.figures().context("there is no relay of our own")?;
    let bare = bare(bench, sessions).await?;
    let (before, begin) = (settled(&figures.process).await?, bench.clock.now());
    let clients = open_all(sessions, || start(bench), opened).await?;
    let took = bench.clock.now() - begin;
    let each = (settled(&figures.process).await?.saturating_sub(before)) / u64::from(sessions);
    let back = come_back(bench, target, &clients).await?;
    let words = format!(
        "{} sessions that do nothing, opened in {}\n{:.1} KiB of the relay's memory each; a bare QUIC connection {:.1} KiB \
         ({:.2})\nafter kill -9 and a new start half of them are back in {}, the last in {}",
        count(u64::from(sessions)),
        duration(micros(took)),
        kib(each),
        kib(bare),
        kib(each) / kib(bare),
        duration(back.p50_us()),
        duration(back.max_us()),
    );
    let all = fields([
        ("durability", bench.durability.into()),
        ("sessions", sessions.into()),
        ("bytes_per_session", each.into()),
        ("bytes_per_bare_connection", bare.into()),
        ("back_p50_us", back.p50_us().into()),
        ("back_last_us", back.max_us().into()),
    ]);
    bench.report.tell("result", all, &words)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kib(bytes: u64) -> f64 {
    bytes.max(1) as f64 / 1024.0
}

/// Each client has a socket of its own.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|most| most.max(wanted)) };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("so many sessions need {wanted} open files: raise the limit with ulimit -n {wanted}"))
}

async fn settled(process: &Process) -> anyhow::Result<u64> {
    tokio::time::sleep(SETTLE).await;
    Ok(process.memory().context("the memory of a process is known on Linux alone")?.now)
}

fn start(bench: &Bench) -> anyhow::Result<Client> {
    clients::start(bench, Identity::generate(&*bench.entropy), Reading::RecentFirst)
}

/// Kills the relay, starts it again, and says how long it took each client to be back.
async fn come_back(bench: &Bench, target: &mut Target, clients: &[Client]) -> anyhow::Result<Latency> {
    let mut connections: Vec<_> = clients.iter().map(Client::connection).collect();
    connections.iter_mut().for_each(|connection| drop(connection.borrow_and_update()));
    target.kill().await?;
    target.start_again(&bench.relay).await?;
    let begin = bench.clock.now();
    let waits = connections.into_iter().map(|mut connection| async move {
        let back = async {
            loop {
                connection.changed().await?;
                if matches!(*connection.borrow_and_update(), Connection::Open { .. }) {
                    return anyhow::Ok(bench.clock.now() - begin);
                }
            }
        };
        tokio::time::timeout(OPEN_TIMEOUT, back).await.context("a client did not come back")?
    });
    let mut latency = Latency::new();
    try_join_all(waits).await?.into_iter().for_each(|time| latency.record(time));
    Ok(latency)
}

/// Bytes that a connection costs a process which accepts them and does nothing else.
async fn bare(bench: &Bench, connections: u32) -> anyhow::Result<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--bare"]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let line = BufReader::new(output).lines().next_line().await?.context("the bare endpoint did not start")?;
    let address: RelayAddress = line.parse()?;
    let process = Process::new(child.id().context("it is gone")?);
    let place = address.hosts().first().context("no host")?;
    let place = (place.host.parse::<Ipv4Addr>()?, place.port).into();
    let before = settled(&process).await?;
    // One socket for all of them: to the other side that makes no difference.
    let anywhere = Socket::Bind((Ipv4Addr::UNSPECIFIED, 0).into());
    let who = Identity::generate(&*bench.entropy);
    let endpoint = ClientEndpoint::bind(anywhere, &who, &TransportLimits::default(), &*bench.entropy, None)?;
    let mut open = Vec::new();
    while open.len() < connections as usize {
        let next = (connections as usize - open.len()).min(AT_ONCE);
        let connect = |_| endpoint.connect(place, address.relay, CONNECT_TIMEOUT);
        open.extend(try_join_all((0..next).map(connect)).await?);
    }
    let cost = settled(&process).await?.saturating_sub(before) / u64::from(connections);
    child.kill().await?;
    Ok(cost)
}

/// The other side of [`bare`]: says where it is, and keeps whatever connects.
pub(super) async fn serve_bare() -> anyhow::Result<()> {
    let who = Identity::generate(&SystemEntropy);
    let socket = Socket::Bind((Ipv4Addr::LOCALHOST, 0).into());
    let endpoint = RelayEndpoint::bind(socket, &who, &TransportLimits::default(), &SystemEntropy, None)?;
    let address = RelayAddress::new(who.relay_id(), endpoint.local_addr()?.into());
    super::super::output::line(&address.to_string())?;
    let mut kept: Vec<transport::Connection> = Vec::new();
    let mut shaking = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            attempt = endpoint.accept() => match attempt {
                Some(attempt) => drop(shaking.spawn(attempt.handshake())),
                None => return Ok(()),
            },
            Some(done) = shaking.join_next() => kept.push(done??),
        }
    }
}
