//! `posthouse status` and `posthouse health`: how a running relay is.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;
use indicatif::{HumanBytes, HumanCount};
use serde::Deserialize;

use super::ask::{Question, Whose, ask};
use super::output::count;
use super::{CliError, output};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example, as a check of a container or a supervisor:\n  posthouse health --data /var/lib/posthouse/data"
)]
pub(super) struct Health {
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    uptime_seconds: u64,
    trouble: Option<String>,
    sessions: u64,
    mailboxes: u64,
    messages: u64,
    outboxes: u64,
    outbox_messages: u64,
    links: BTreeMap<String, u64>,
    store_bytes: u64,
}

/// Says how the relay on a data directory is.
pub(super) fn run(question: Question) -> Result<(), CliError> {
    let Some(status) = question.ask::<Status>("status")? else { return Ok(()) };
    Ok(output::line(&words(&status)).context("standard output")?)
}

/// Succeeds if the relay on a data directory takes sessions and messages.
pub(super) fn health(args: Health) -> Result<(), CliError> {
    let text = ask(&args.whose.settings()?.data, "readyz")?;
    Ok(output::line(text.trim_end()).context("standard output")?)
}

fn words(status: &Status) -> String {
    let links: Vec<String> =
        status.links.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let messages = |number| count(number, "message", "messages");
    let lines = [
        ("posthouse", format!("{}, {}", status.version, status.trouble.as_deref().unwrap_or("ready"))),
        ("up for", humantime::format_duration(Duration::from_secs(status.uptime_seconds)).to_string()),
        ("sessions", HumanCount(status.sessions).to_string()),
        ("waiting", format!("{} in {}", messages(status.messages), count(status.mailboxes, "mailbox", "mailboxes"))),
        (
            "to forward",
            format!("{} for {}", messages(status.outbox_messages), count(status.outboxes, "relay", "relays")),
        ),
        ("links", if links.is_empty() { "none".to_owned() } else { links.join(", ") }),
        ("store", HumanBytes(status.store_bytes).to_string()),
    ];
    lines.map(|(name, value)| format!("{name:<12}{value}")).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_no_plural() {
        let status = Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: 7,
            trouble: None,
            sessions: 0,
            mailboxes: 1,
            messages: 1200,
            outboxes: 2,
            outbox_messages: 1,
            links: BTreeMap::new(),
            store_bytes: 1 << 20,
        };
        let words = words(&status);
        assert!(words.contains("1,200 messages in 1 mailbox\n"), "{words}");
        assert!(words.contains("1 message for 2 relays\n"), "{words}");
    }
}
