//! Three relays and their peers on one machine, in one process, and every packet between them as it arrives.
//!
//! ```sh
//! cargo run --release --example federation
//! ```
//!
//! What is printed is what relays and clients tell on the log target `posthouse::packets`; nothing else knows of the
//! packets. The same target shows them in any relay: `posthouse run --log posthouse::packets=trace`.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use posthouse::address::RelayAddress;
use posthouse::client::{Client, Draft, Event};
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::relay::{Relay, RelayOptions};
use posthouse::store::redb::{Backend, relay::OpenOptions, relay::RedbRelayStore};
use posthouse::time::SystemClock;
use posthouse::transport::{PACKETS, Socket};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Nothing more belongs to a scene once so long no packet has come.
const QUIET: Duration = Duration::from_millis(300);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let entropy = SystemEntropy::shared();
    let [a, b, c, alice, bob, carol] = std::array::from_fn(|_| Identity::generate(&*entropy));
    let names =
        [(&a, "relay A"), (&b, "relay B"), (&c, "relay C"), (&alice, "alice"), (&bob, "bob"), (&carol, "carol")];
    let watch = Watch {
        names: names.into_iter().map(|(identity, name)| (identity.peer_id().short(), name)).collect(),
        seen: Arc::default(),
    };
    let seen = watch.seen.clone();
    let only_packets = Targets::new().with_target(PACKETS, LevelFilter::TRACE);
    tracing_subscriber::registry().with(watch.with_filter(only_packets)).init();

    scene("Each relay starts, and its peer connects to it.")?;
    let place = |name: &str| directory.path().join(name);
    let mut homes = Vec::new();
    for (identity, name) in [(a, "a.redb"), (b, "b.redb"), (c, "c.redb")] {
        homes.push(Home::start(identity, place(name))?);
    }
    let [here, there, far] = &mut homes[..] else { return Ok(()) };
    let alices = place("alice");
    std::fs::create_dir(&alices)?;
    let come = |identity: &Identity, home: &Home| Client::builder(identity.clone(), home.address.clone());
    let [to_bob, to_carol] = [there.address.peer(bob.peer_id()), far.address.peer(carol.peer_id())];
    let sender = come(&alice, here).directory(&alices).start()?;
    let bobs = come(&bob, there).start()?;
    let carols = come(&carol, far).start()?;
    let reading = [read("bob", bobs.clone()), read("carol", carols.clone())];
    for client in [&sender, &bobs, &carols] {
        within(client.status(None)).await??;
    }
    quiet(&seen).await;

    scene("alice, at relay A, writes to bob, at relay B.")?;
    let mut sent = sender.send(Draft::new(to_bob.clone(), "hello, bob")).await?;
    let outcome = within(sent.outcome()).await??;
    quiet(&seen).await;
    note("alice", &Knows(&outcome))?;

    scene("Relay C is down while alice writes to carol, and comes back.")?;
    far.stop().await?;
    let mut sent = sender.send(Draft::new(to_carol, "hello, carol")).await?;
    within(sent.accepted()).await??;
    quiet(&seen).await;
    note("relay C", &"is back")?;
    far.start_again()?;
    let outcome = within(sent.outcome()).await??;
    quiet(&seen).await;
    note("alice", &Knows(&outcome))?;

    scene("bob is away; alice writes to him and leaves; bob comes and takes it.")?;
    reading[0].abort();
    within(bobs.close()).await?;
    let mut sent = sender.send(Draft::new(to_bob, "are you there?")).await?;
    within(sent.accepted()).await??;
    quiet(&seen).await;
    note("alice", &"leaves")?;
    within(sender.close()).await?;
    quiet(&seen).await;
    note("bob", &"comes")?;
    let bobs = come(&bob, there).start()?;
    let reading_again = read("bob", bobs.clone());
    // The outcome is with alice's relay, which keeps it.
    within(async {
        while !here.waits_for_nothing().await {
            tokio::time::sleep(QUIET).await
        }
    })
    .await?;
    quiet(&seen).await;
    note("alice", &"comes back, and asks")?;
    let sender = come(&alice, here).directory(&alices).start()?;
    let mut events = sender.events().await?;
    let outcome = within(async {
        loop {
            match events.next().await {
                Some(Event::Outcome { outcome, .. }) => return Ok(outcome),
                Some(_) => {}
                None => return Err(anyhow::anyhow!("alice's client is closed")),
            }
        }
    });
    let outcome = outcome.await??;
    quiet(&seen).await;
    note("alice", &Knows(&outcome))?;

    scene("All go.")?;
    reading_again.abort();
    reading[1].abort();
    for client in [sender, bobs, carols] {
        within(client.close()).await?;
    }
    for home in &mut homes {
        home.stop().await?;
    }
    Ok(())
}

/// A relay that always has the same key, place and store.
struct Home {
    identity: Identity,
    file: PathBuf,
    address: RelayAddress,
    at: SocketAddr,
    running: Option<(Relay, Arc<RedbRelayStore>)>,
}

impl Home {
    fn start(identity: Identity, file: PathBuf) -> Result<Self> {
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = RelayAddress::new(identity.relay_id(), at.into());
        let mut home = Self { identity, file, address, at, running: None };
        home.start_again()?;
        home.address = RelayAddress::new(home.identity.relay_id(), home.at.into());
        Ok(home)
    }

    fn start_again(&mut self) -> Result<()> {
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let options = OpenOptions::new(Backend::File(self.file.clone()), clock, entropy);
        let store = Arc::new(RedbRelayStore::open(options)?);
        let options = RelayOptions::new(self.identity.clone(), store.clone());
        let relay = Relay::start(RelayOptions { socket: Socket::Bind(self.at), ..options })?;
        self.at = relay.local_addr();
        self.running = Some((relay, store));
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some((relay, store)) = self.running.take() {
            relay.shutdown().await;
            store.close().await?;
        }
        Ok(())
    }

    /// Whether no message for another relay lacks its outcome.
    async fn waits_for_nothing(&self) -> bool {
        let Some((relay, _)) = &self.running else { return false };
        relay.observer().links().await.is_ok_and(|links| links.iter().all(|link| link.waiting == 0))
    }
}

/// An application that takes whatever comes.
fn read(name: &'static str, client: Client) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(message) = client.recv().await {
            let body = String::from_utf8_lossy(&message.body).into_owned();
            if note(name, &format_args!("takes {body:?}")).is_err() || message.taken().await.is_err() {
                return;
            }
        }
    })
}

/// Prints packets as they arrive.
struct Watch {
    /// By key, in short.
    names: HashMap<String, &'static str>,
    seen: Arc<AtomicU64>,
}

/// The fields of one packet.
#[derive(Debug, Default)]
struct Packet(HashMap<&'static str, String>);

impl Visit for Packet {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut packet = Packet::default();
        event.record(&mut packet);
        let field = |name| packet.0.get(name).map_or("", String::as_str);
        let frame = field("frame");
        // Each is told twice, and two kinds say nothing to a reader.
        if field("way") != "received" || matches!(frame, "N:OPEN" | "N:NOP") {
            return;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        let name = |short| self.names.get(short).copied().unwrap_or("somebody");
        let mut says = field("says").to_owned();
        for (short, name) in &self.names {
            says = says.replace(short.as_str(), name);
        }
        let (from, to) = (name(field("there")), name(field("here")));
        // With nobody to read it there is nobody to tell.
        writeln!(io::stdout(), "  {from:>7} -> {to:<7}  {frame:<7}  {says}").ok();
    }
}

/// Waits until no packet has come for a while.
async fn quiet(seen: &AtomicU64) {
    loop {
        let before = seen.load(Ordering::Relaxed);
        tokio::time::sleep(QUIET).await;
        if seen.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.context("that took too long")
}

/// What a sender knows in the end.
struct Knows<'a>(&'a Outcome);

impl fmt::Display for Knows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Delivered => f.write_str("knows: delivered"),
            Outcome::Expired { .. } => f.write_str("knows: expired"),
            Outcome::Rejected { reason, .. } => write!(f, "knows: rejected, {reason}"),
        }
    }
}

fn scene(title: &str) -> io::Result<()> {
    writeln!(io::stdout(), "\n{title}\n")
}

fn note(who: &str, what: &dyn fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "  {who:>7} {what}")
}
