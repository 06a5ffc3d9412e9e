//! A relay inside an application, with two clients of it in the same process.
//!
//! ```sh
//! cargo run --release --example embedded_relay
//! ```
//!
//! A test of your own application can do just that: nothing has to be installed, and no port is fixed.

use std::sync::Arc;

use posthouse::client::{Client, Draft};
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::relay::{Relay, RelayOptions};
use posthouse::store::redb::{Backend, relay::OpenOptions, relay::RedbRelayStore};
use posthouse::time::SystemClock;
use posthouse::transport::Socket;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let entropy = SystemEntropy::shared();

    // The relay: who it is, and where it keeps what waits. `Backend::Memory` if it need not survive anything.
    let file = Backend::File(directory.path().join("relay.redb"));
    let store = Arc::new(RedbRelayStore::open(OpenOptions::new(file, SystemClock::shared(), entropy.clone()))?);
    let identity = Identity::load_or_create(directory.path(), "relay", &*entropy)?;
    let options = RelayOptions::new(identity, store.clone());
    let relay = Relay::start(RelayOptions { socket: Socket::Bind("127.0.0.1:0".parse()?), ..options })?;
    let home = relay.address(relay.local_addr().into());
    println!("a relay at {home}");

    // Bob is away when alice writes.
    let bob = Identity::generate(&*entropy);
    let alice = Client::builder(Identity::generate(&*entropy), home.clone()).start()?;
    let mut sent = alice.send(Draft::new(home.peer(bob.peer_id()), "hello, bob")).await?;
    sent.accepted().await?;
    println!("alice wrote; the relay has it on its disk");

    // Once he comes he finds it, and what he answers reaches her.
    let bob = Client::builder(bob, home).start()?;
    println!("bob comes; {} message waits", bob.status(None).await?.messages);
    let message = bob.recv().await?;
    println!("bob reads {:?}", String::from_utf8_lossy(&message.body));
    message.taken().await?;
    match sent.outcome().await? {
        Outcome::Delivered => println!("alice knows that bob has it"),
        other => println!("alice knows that it ended otherwise: {other:?}"),
    }

    alice.close().await;
    bob.close().await;
    relay.shutdown().await;
    Ok(store.close().await?)
}
