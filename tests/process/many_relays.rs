//! A relay with messages for very many others, half of which do not answer: what that costs, and that nobody else
//! notices. Beside it runs another relay with links to those others that do answer, and to them alone.
//!
//! `FEDERATION_RELAYS` sets how many others (20 if not set), `FEDERATION_SECONDS` how long each look takes (1). Half of
//! those that do not answer are addresses at which nothing listens; the others share a socket that says nothing and
//! counts. The rest are relays of this crate, all in this process, whose recipients are away.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::client::{Client, Draft};
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::relay::{Relay as LiveRelay, RelayOptions};
use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::redb::writer::WriterMode;
use posthouse::time::SystemClock;
use posthouse::transport::Socket;
use serde_json::Value;

use super::lasting::lasting_place;
use super::program::Relay;

/// Messages that wait for each relay.
const EACH: u64 = 2;

/// From probe to probe.
const PACE: Duration = Duration::from_millis(20);

/// How long a link may take to find that its relay is there: the longest wait between two attempts, and more.
const PATIENCE: Duration = Duration::from_secs(150);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A relay in this process, which keeps everything in memory.
fn live_relay(identity: Identity, at: SocketAddr) -> (LiveRelay, RelayAddress) {
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let mut options = OpenOptions::new(Backend::Memory, clock.clone(), entropy);
    (options.writer, options.cache_bytes) = (WriterMode::Inline, 1 << 20);
    let store = Arc::new(RedbRelayStore::open(options).unwrap());
    let id = identity.relay_id();
    let options = RelayOptions { socket: Socket::Bind(at), clock, ..RelayOptions::new(identity, store) };
    let relay = LiveRelay::start(options).unwrap();
    let address = RelayAddress::new(id, relay.local_addr().into());
    (relay, address)
}

fn somebody() -> Identity {
    Identity::generate(&SystemEntropy)
}

/// A socket that says nothing, and counts what it hears: datagrams, and bytes.
struct Silence {
    at: SocketAddr,
    heard: Arc<[AtomicU64; 2]>,
}

impl Silence {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (at, heard) = (socket.local_addr().unwrap(), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let counts = heard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                counts[0].fetch_add(1, Ordering::Relaxed);
                counts[1].fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Self { at, heard }
    }

    fn heard(&self) -> [u64; 2] {
        [0, 1].map(|which: usize| self.heard[which].load(Ordering::Relaxed))
    }
}

/// What a process has: memory in KiB, and UDP sockets.
fn used(process: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let tables = ["udp", "udp6"].map(|table| std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap());
    let inodes: Vec<&str> =
        tables.iter().flat_map(|table| table.lines().skip(1)).flat_map(|line| line.split_whitespace().nth(9)).collect();
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let is_udp = |name: &Path| {
        let inode = name.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(&inode))
    };
    (memory, names.filter(|name| is_udp(name)).count())
}

/// How many links are in which state, by the relay's own word; of those that have as much waiting as they should.
fn links(data: &Path) -> BTreeMap<String, usize> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
    let output = command.args(["relays", "--json", "--data"]).arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut states = BTreeMap::new();
    for link in shown["relays"].as_array().unwrap().iter().filter(|link| link["waiting"] == EACH) {
        *states.entry(link["state"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    states
}

/// Waits until so many links are open. How long that took.
async fn open_links(data: PathBuf, count: usize) -> Duration {
    let looking = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        while links(&data).get("open").copied().unwrap_or_default() != count {
            assert!(begin.elapsed() < PATIENCE, "{:?}", links(&data));
            std::thread::sleep(Duration::from_millis(100));
        }
        begin.elapsed()
    });
    looking.await.unwrap()
}

/// A relay, who writes to others from there, and who measures: a sender, and recipients at its own relay and at
/// another.
struct Station {
    name: &'static str,
    relay: Relay,
    writer: Client,
    sender: Client,
    recipients: [PeerAddress; 2],
}

impl Station {
    fn start(name: &'static str, directory: &Path, other: &RelayAddress) -> Self {
        let place = directory.join(name);
        std::fs::create_dir(&place).unwrap();
        let relay = Relay::start(&place);
        let home: RelayAddress = relay.address.parse().unwrap();
        let client = |home: &RelayAddress| Client::builder(somebody(), home.clone()).start().unwrap();
        let take = |home: &RelayAddress| {
            let client = client(home);
            let address = client.address();
            tokio::spawn(async move {
                while let Ok(message) = client.recv().await {
                    drop(message.taken().await);
                }
            });
            address
        };
        let recipients = [take(&home), take(other)];
        Self { name, relay, writer: client(&home), sender: client(&home), recipients }
    }

    /// Has as much waiting for each of these as it should.
    async fn write(&self, relays: &[RelayAddress]) {
        let draft = |relay: &RelayAddress| Draft::new(relay.peer(somebody().peer_id()), "x");
        let drafts = (0..EACH).flat_map(|_| relays.iter().map(draft)).collect();
        for mut message in self.writer.send_all(drafts).await.unwrap() {
            message.accepted().await.unwrap();
        }
    }

    /// From send to outcome, to each of the two.
    async fn probe(&self, waits: &mut [Vec<Duration>; 2]) {
        for (to, waits) in self.recipients.iter().zip(waits) {
            let sent = Instant::now();
            let mut message = self.sender.send(Draft::new(to.clone(), "probe")).await.unwrap();
            assert_eq!(message.outcome().await.unwrap(), Outcome::Delivered);
            waits.push(sent.elapsed());
            tokio::time::sleep(PACE).await;
        }
    }
}

fn words(mut waits: Vec<Duration>) -> String {
    waits.sort();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    format!("p50 {:.1?}, p99 {:.1?}, longest {:.1?}", at(50), at(99), waits[waits.len() - 1])
}

/// Looks at both for so long, in turn.
async fn look(what: &str, stations: &[Station; 2], silence: &Silence, length: Duration) {
    let (begin, before) = (Instant::now(), silence.heard());
    let mut waits = [const { [const { Vec::new() }; 2] }; 2];
    while begin.elapsed() < length {
        for (station, waits) in stations.iter().zip(&mut waits) {
            station.probe(waits).await;
        }
    }
    let (took, after) = (begin.elapsed().as_secs_f64(), silence.heard());
    let [datagrams, bytes] = [0, 1].map(|which: usize| (after[which] - before[which]) as f64 / took);
    println!("{what}: {datagrams:.1} datagrams/s ({bytes:.0} B/s) to the silent half of the dead");
    for (station, [local, linked]) in stations.iter().zip(waits) {
        let (memory, sockets) = used(station.relay.id());
        println!("    {}: memory {memory} KiB, {sockets} UDP sockets", station.name);
        println!("        local {}; over a live link {}", words(local), words(linked));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_do_not_answer_cost_little_and_harm_nobody_else() {
    let (relays, length) = (setting("FEDERATION_RELAYS", 20), Duration::from_secs(setting("FEDERATION_SECONDS", 1)));
    let half = usize::try_from(relays / 2).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let living: Vec<_> = (0..half).map(|_| live_relay(somebody(), anywhere)).collect();
    let living_at: Vec<_> = living.iter().map(|(_, address)| address.clone()).collect();
    let silence = Silence::new();
    let nobody = lasting_place();
    let mut dead: Vec<Identity> = (0..half).map(|_| somebody()).collect();
    let dead_at = [silence.at, nobody].into_iter().cycle().zip(&dead);
    let dead_at: Vec<_> = dead_at.map(|(at, who)| RelayAddress::new(who.relay_id(), at.into())).collect();
    let start = |name| Station::start(name, directory.path(), &living_at[0]);
    let mut stations = [start("without"), start("with")];

    look("no other links", &stations, &silence, length).await;
    let sockets = used(stations[1].relay.id()).1;
    for station in &stations {
        station.write(&living_at).await;
        println!("{half} live links are open after {:.1?}", open_links(station.relay.data(), half).await);
    }
    look("live links", &stations, &silence, length).await;
    stations[1].write(&dead_at).await;
    look(&format!("with {half} dead ones, at once"), &stations, &silence, length).await;
    tokio::time::sleep(3 * length).await;
    look("later", &stations, &silence, length).await;

    for station in &mut stations {
        station.relay.kill();
        station.relay.start_again();
    }
    let opened = stations.each_ref().map(|station| tokio::spawn(open_links(station.relay.data(), half)));
    look("both killed and started again", &stations, &silence, length).await;
    for (station, opened) in stations.iter().zip(opened) {
        println!("    {}: all live links are open after {:.1?}", station.name, opened.await.unwrap());
    }
    tokio::time::sleep(3 * length).await;
    look("later", &stations, &silence, length).await;
    assert_eq!(used(stations[1].relay.id()).1, sockets, "one socket for all links");
    let states = links(&stations[1].relay.data());
    assert_eq!(states.values().sum::<usize>(), 2 * half, "nothing is lost, dead or alive: {states:?}");

    // One of the dead, at whose address nothing listened, comes to life.
    let _risen = live_relay(dead.remove(1), nobody);
    let took = open_links(stations[1].relay.data(), half + 1).await;
    println!("the link to one that comes to life is open after {took:.1?}");
}
