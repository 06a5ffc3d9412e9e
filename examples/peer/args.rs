//! The command line, and nothing of what the commands do.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::id::{IdError, PeerId};
use posthouse::protocol::limit::MAX_PAGE_MESSAGES;

/// Sends and receives messages through a posthouse relay.
#[derive(Debug, Parser)]
#[command(name = "peer", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of this peer: its key, its outbox and its inbox. Made at first use, for one process at a time
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address of the home relay, as `posthouse run` prints it. Remembered in the directory
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) relay: Option<RelayAddress>,
    /// The token of an invitation, for a relay that wants one. Remembered in the directory until it is used
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) invite: Option<String>,
    /// Print one JSON object a line instead of words
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Start here, with a relay from `posthouse run` (`peer` is `cargo run --release --example peer --`):
  peer --data bob --relay posthouse://RELAY@HOST:4433 id      bob's address, to give to others
  peer --data bob recv                                        waits for messages to bob
  peer --data alice --relay posthouse://RELAY@HOST:4433 send --to BOBS_ADDRESS 'hello, bob'
  peer --data alice chat BOBS_ADDRESS                         talk

For scripts:
  journalctl -f | peer --data alice send --to BOBS_ADDRESS    each line is a message
  peer --data bob --json recv --idle 2s                       takes what waits, then ends
  peer --data bob count                                       looks and takes nothing

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 some message ended expired or rejected
(also one of an earlier run that is told only now).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show this peer's id and address; makes them at first use
    #[command(after_help = "Example:\n  peer --data bob --relay posthouse://RELAY@HOST:4433 id")]
    Id,
    /// Send messages, and wait until their fate is known
    Send(SendArgs),
    /// Print messages and take them
    Recv(RecvArgs),
    /// Show what waits, and take nothing
    Count(CountArgs),
    /// Take no more messages of a peer; its senders are told
    #[command(after_help = "Example:\n  peer --data bob block ALICES_ADDRESS")]
    Block(PeerArgs),
    /// Take messages of a peer, also where only contacts may send
    #[command(after_help = "Example:\n  peer --data bob allow ALICES_ADDRESS")]
    Allow(PeerArgs),
    /// Show whose messages are taken, or say whose
    Policy(PolicyArgs),
    /// Talk with one other peer: each line you type is a message
    Chat(ChatArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peer --data alice send --to BOBS_ADDRESS 'hello, bob' 'are you there?'      two messages
  peer --data alice send --to BOBS_ADDRESS --until accepted --ttl 1h < lines  each line is one; good for an hour

Standard input may be anything and need not end: a line's bytes are the message, without the line feed; an
empty line is an empty message, and a last line without a line feed counts. A line above 1 MiB ends the
command with exit code 2 and its number: the lines before it are in the outbox, it and what follows are not.

What an earlier run left in the outbox goes first. While standard input is open, the command waits for more.")]
pub(crate) struct SendArgs {
    /// The recipient's address, as its `peer id` shows it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: PeerAddress,
    /// Messages; without any, each line of standard input is one
    pub(crate) text: Vec<OsString>,
    /// How long a message may wait to be taken, from 1s to 30days [default: 7days]
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<humantime::Duration>,
    /// What to wait for, of all that is in the outbox
    #[arg(long, value_enum, default_value_t = Until::Delivered)]
    pub(crate) until: Until,
    /// Give up after so long without progress; the outbox keeps the rest
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// They are safe on this machine's disk
    Queued,
    /// The relay has them
    Accepted,
    /// Each has its outcome: delivered, expired or rejected
    Delivered,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peer --data bob recv                              waits for messages
  peer --data bob --json recv --idle 2s             takes what waits, then ends
  peer --data bob recv --no-ack --order newest --max 1   looks at the newest one

A message is printed first and taken then: after a crash in between it is printed again. The outcomes of
messages that were sent earlier are printed as well.")]
pub(crate) struct RecvArgs {
    /// Leave after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Leave after so long with nothing new; without it, stay
    #[arg(long, value_name = "TIME")]
    pub(crate) idle: Option<humantime::Duration>,
    /// Which of the waiting messages come first
    #[arg(long, value_enum, default_value_t = Order::Oldest)]
    pub(crate) order: Order,
    /// Only messages from this peer (its id or its address); the others stay
    #[arg(long, value_name = "PEER", value_parser = peer)]
    pub(crate) from: Option<PeerId>,
    /// How many messages to fetch at a time
    #[arg(long, value_name = "N", default_value_t = MAX_PAGE_MESSAGES,
        value_parser = clap::value_parser!(u64).range(1..=MAX_PAGE_MESSAGES))]
    pub(crate) page: u64,
    /// Look only: take nothing
    #[arg(long)]
    pub(crate) no_ack: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// In the order of arrival, then what is new
    Oldest,
    /// What is new at once, the others from the newest on
    Newest,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  peer --data bob count")]
pub(crate) struct CountArgs {
    /// Give up after so long without an answer
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The other peer's id or address
    #[arg(value_name = "PEER", value_parser = peer)]
    pub(crate) peer: PeerId,
    /// Give up after so long without an answer
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peer --data bob policy              whose messages are taken
  peer --data bob policy contacts     from now on only those of peers that were allowed")]
pub(crate) struct PolicyArgs {
    /// Whose messages are taken from now on, but for those of peers that are blocked
    #[arg(value_enum)]
    pub(crate) senders: Option<Senders>,
    /// Give up after so long without an answer
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: humantime::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Senders {
    /// Everybody's
    Anyone,
    /// Those of peers that were allowed
    Contacts,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  peer --data alice chat BOBS_ADDRESS

On a terminal it begins with what was said before, which the directory remembers, and the ticks of a line change in
its place. One tick: the relay has it. Two ticks: the other one has it. Times are UTC. Empty lines are not sent, and what
others write stays for `peer recv`. The latest twenty messages that wait are shown at once. On a line of its own /page
shows twenty older ones, /count counts, /help explains, /quit ends, as do Ctrl-D and Ctrl-C; what has no second tick by
two seconds after that is delivered later, by the relay or by the next command on this directory.")]
pub(crate) struct ChatArgs {
    /// The other peer's address
    pub(crate) address: PeerAddress,
}

/// A peer's id; its address will do as well.
fn peer(text: &str) -> Result<PeerId, IdError> {
    text.parse::<PeerAddress>().map(|address| address.peer).or_else(|_| text.parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_shows_an_example() {
        use clap::CommandFactory as _;
        let command = Args::command();
        command.clone().debug_assert();
        for command in command.get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example") && after.contains("  peer --data "), "{}", command.get_name());
        }
    }

    #[test]
    fn options_of_the_peer_stand_before_or_behind_the_command() {
        for order in [["--json", "--data", "d", "id"], ["id", "--data", "d", "--json"]] {
            let args = Args::try_parse_from(["peer"].into_iter().chain(order)).unwrap();
            assert!(args.json);
            assert_eq!(args.data, Some("d".into()));
        }
    }

    #[test]
    fn a_peer_is_named_by_its_id_or_its_address() {
        let id = PeerId::from_bytes([7; 32]);
        assert_eq!(peer(&id.to_string()), Ok(id));
        assert_eq!(peer(&format!("posthouse://{id}@h:1/{id}")), Ok(id));
        assert!(peer("bob").is_err());
    }
}
