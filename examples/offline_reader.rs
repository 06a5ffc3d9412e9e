//! What an application shows to somebody who was away for a week: first how much there is, then the most recent.
//!
//! ```sh
//! cargo run --release --example offline_reader -- posthouse://RELAY@HOST:4433 ./reader
//! ```
//!
//! While one page is shown, the next is on its way already, and the acknowledgement of each travels on the request
//! for a later one. What arrives meanwhile neither shifts the pages nor waits behind them.

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Context;
use posthouse::address::RelayAddress;
use posthouse::client::{Client, PageOptions, Reading};
use posthouse::identity::Identity;
use posthouse::random::SystemEntropy;

/// Messages on one screen.
const SCREEN: u64 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: offline_reader RELAY_ADDRESS DIRECTORY";
    let home: RelayAddress = arguments.next().context(usage)?.parse()?;
    let directory = PathBuf::from(arguments.next().context(usage)?);
    std::fs::create_dir_all(&directory)?;

    let identity = Identity::load_or_create(&directory, "reader", &*SystemEntropy::shared())?;
    // Recent first: `recv` gives what arrives from now on, and `pages` what waited.
    let reader = Client::builder(identity, home).directory(&directory).reading(Reading::RecentFirst).start()?;
    println!("{}", reader.address());

    let waiting = reader.status(None).await?;
    println!("{} messages wait, of {} senders", waiting.messages, waiting.senders.len());
    let mut pages = reader.pages(PageOptions { messages: SCREEN, ..PageOptions::default() }).await?;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let page = pages.next().await?;
        for message in &page.messages {
            println!("  {}  {}", message.from.short(), String::from_utf8_lossy(&message.body));
        }
        let (left, complete) = (page.remaining.saturating_sub(page.messages.len() as u64), page.complete);
        // Shown is taken: the senders are told.
        page.taken().await?;
        if complete {
            println!("that is all");
            break;
        }
        println!("{left} older ones; press return for more, Ctrl-D to leave");
        if lines.next().transpose()?.is_none() {
            break;
        }
    }
    drop(pages);
    // Tells the relay what was taken last.
    reader.close().await;
    Ok(())
}
