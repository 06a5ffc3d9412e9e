//! A bot: whatever somebody writes to it, it writes back.
//!
//! ```sh
//! cargo run --release --example echo_bot -- posthouse://RELAY@HOST:4433 ./bot
//! ```
//!
//! It prints its address once it is there. Killed at any point and started again, it answers every message: an
//! answer is durable in its outbox before the message counts as taken. One that it was killed over in between comes
//! again, and is answered once more; the id in the answer tells which one it is about.

use std::path::PathBuf;

use anyhow::Context;
use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::client::{Client, Draft, Incoming};
use posthouse::identity::Identity;
use posthouse::random::SystemEntropy;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: echo_bot RELAY_ADDRESS DIRECTORY";
    let home: RelayAddress = arguments.next().context(usage)?.parse()?;
    let directory = PathBuf::from(arguments.next().context(usage)?);
    std::fs::create_dir_all(&directory)?;

    let identity = Identity::load_or_create(&directory, "bot", &*SystemEntropy::shared())?;
    let bot = Client::builder(identity, home.clone()).directory(&directory).start()?;
    println!("{}", bot.address());

    loop {
        tokio::select! {
            message = bot.recv() => answer(&bot, &home, message?).await?,
            interrupted = tokio::signal::ctrl_c() => break interrupted?,
        }
    }
    // What has no outcome yet stays in the outbox, for the next time.
    bot.close().await;
    Ok(())
}

async fn answer(bot: &Client, home: &RelayAddress, message: Incoming) -> anyhow::Result<()> {
    if message.body.is_empty() {
        // Its sender is told that it was rejected, with this reason.
        return Ok(message.refuse("there is nothing to echo").await?);
    }
    // A peer of another relay is written to by the address that its application gives; a message names the key and
    // the relay alone. This bot answers at home.
    let to = PeerAddress { relay: home.clone(), peer: message.from };
    let text = format!("{}: {}", message.id, String::from_utf8_lossy(&message.body));
    // Returns once the answer is on disk.
    bot.send(Draft::new(to, text)).await?;
    Ok(message.taken().await?)
}
