//! `posthouse peers` and `posthouse invite`: who may have a mailbox at a running relay, and what is in them.

use std::time::Duration;

use anyhow::Context;
use clap::{Args as ClapArgs, Subcommand};
use serde::{Deserialize, Serialize};

use super::ask::{Whose, ask, tell};
use super::{CliError, output};
use crate::address::PeerAddress;
use crate::id::{IdError, PeerId};
use crate::time::{SystemClock, UnixMillis, millis};

/// Peers that are asked for at a time.
const PAGE: usize = 500;

#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  posthouse peers                          every peer with a mailbox, and those that were allowed or blocked
  posthouse peers block PEER               throw it out, and take nothing more for it
  posthouse peers remove PEER              its mailbox with all messages: their senders are told"
)]
pub(super) struct Args {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, ClapArgs)]
struct List {
    #[command(flatten)]
    whose: Whose,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let a peer have a mailbox, whatever the configuration says of peers in general
    #[command(after_help = "Example:\n  posthouse peers allow PEER --data /var/lib/posthouse/data")]
    Allow(One),
    /// Keep a peer out: its session ends, it gets no other, and nothing more is taken for it
    #[command(after_help = "Example:\n  posthouse peers block PEER --data /var/lib/posthouse/data")]
    Block(One),
    /// Forget that a peer was allowed or blocked here: the configuration decides
    #[command(after_help = "Example:\n  posthouse peers reset PEER --data /var/lib/posthouse/data")]
    Reset(One),
    /// Remove a peer's mailbox with its messages, which end as rejected
    #[command(after_help = "Example:\n  posthouse peers remove PEER --data /var/lib/posthouse/data")]
    Remove(One),
}

#[derive(Debug, ClapArgs)]
struct One {
    /// The peer's id or address
    #[arg(value_name = "PEER", value_parser = peer)]
    peer: PeerId,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  posthouse invite                                   one peer may use it, for seven days
  posthouse invite --uses 20 --expires 1h            twenty peers, within an hour
The peer shows it once: peer --relay ADDRESS --invite TOKEN id")]
pub(super) struct Invite {
    /// How many peers may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "7d")]
    expires: humantime::Duration,
    #[command(flatten)]
    whose: Whose,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    peers: Vec<Peer>,
    next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Peer {
    peer: String,
    access: Option<String>,
    mailbox: bool,
    messages: u64,
    bytes: u64,
    provisional: bool,
    online: bool,
    last_seen: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Removed {
    messages: u64,
    gone: bool,
}

#[derive(Debug, Deserialize)]
struct Invited {
    token: String,
}

/// Asks or tells the relay that runs on this data directory.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let Some(command) = args.command else { return list(&args.list) };
    let (name, one) = match &command {
        Command::Allow(one) => ("allow", one),
        Command::Block(one) => ("block", one),
        Command::Reset(one) => ("reset", one),
        Command::Remove(one) => ("remove", one),
    };
    let answer = tell(&one.whose.settings()?.data, &format!("peers/{}/{name}", one.peer))?;
    if let Command::Remove(_) = command {
        let removed: Removed = serde_json::from_str(&answer).context("the relay's answer")?;
        if !removed.gone {
            let words = "its mailbox is still there, since its client keeps coming back, or it is damaged: \
                         try `posthouse peers block`, or `posthouse check`";
            return Err(anyhow::anyhow!("{} messages were removed, but {words}", removed.messages).into());
        }
        let text = format!("removed, with {} messages; their senders are told", removed.messages);
        return Ok(output::line(&text).context("standard output")?);
    }
    Ok(output::line("done").context("standard output")?)
}

/// Makes an invitation.
pub(super) fn invite(args: Invite) -> Result<(), CliError> {
    let expires_ms = millis(args.expires.into());
    let what = format!("invitations?uses={}&expires_ms={expires_ms}", args.uses);
    let answer = tell(&args.whose.settings()?.data, &what)?;
    let text = match args.json {
        true => answer,
        false => serde_json::from_str::<Invited>(&answer).context("the relay's answer")?.token,
    };
    Ok(output::line(&text).context("standard output")?)
}

fn list(args: &List) -> Result<(), CliError> {
    let data = args.whose.settings()?.data;
    let now = SystemClock::shared().date();
    let mut next: Option<String> = None;
    let mut empty = true;
    loop {
        let after = next.map(|next| format!("&after={next}")).unwrap_or_default();
        let page: Page =
            serde_json::from_str(&ask(&data, &format!("peers?limit={PAGE}{after}"))?).context("the relay's answer")?;
        for peer in &page.peers {
            let text = match args.json {
                true => serde_json::to_string(peer).context("standard output")?,
                false => words(peer, now),
            };
            output::line(&text).context("standard output")?;
            empty = false;
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if empty && !args.json {
        output::line("nobody has a mailbox here").context("standard output")?;
    }
    Ok(())
}

fn words(peer: &Peer, now: UnixMillis) -> String {
    let access = peer.access.as_ref().map(|access| format!("{access}; ")).unwrap_or_default();
    if !peer.mailbox {
        return format!("{}\n  {access}no mailbox", peer.peer);
    }
    let ago = |at| humantime::format_duration(Duration::from_secs(UnixMillis(at).until(now).as_secs()));
    let seen = match (peer.online, peer.last_seen) {
        (true, _) => "connected".to_owned(),
        (false, Some(at)) => format!("last seen {} ago", ago(at)),
        (false, None) => "never seen".to_owned(),
    };
    format!("{}\n  {access}{seen}; {} messages, {} bytes", peer.peer, peer.messages, peer.bytes)
}

/// A peer's id; its address will do as well.
fn peer(text: &str) -> Result<PeerId, IdError> {
    text.parse::<PeerAddress>().map(|address| address.peer).or_else(|_| text.parse())
}
