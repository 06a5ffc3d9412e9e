//! `posthouse status` and `posthouse health`: how a running relay is.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args as ClapArgs;
use indicatif::{HumanBytes, HumanCount};
use serde::Deserialize;

use super::ask::{Question, Whose, ask};
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
    let lines = [
        ("posthouse", format!("{}, {}", status.version, status.trouble.as_deref().unwrap_or("ready"))),
        ("up for", humantime::format_duration(Duration::from_secs(status.uptime_seconds)).to_string()),
        ("sessions", HumanCount(status.sessions).to_string()),
        ("waiting", format!("{} messages in {} mailboxes", HumanCount(status.messages), HumanCount(status.mailboxes))),
        (
            "to forward",
            format!("{} messages for {} relays", HumanCount(status.outbox_messages), HumanCount(status.outboxes)),
        ),
        ("links", if links.is_empty() { "none".to_owned() } else { links.join(", ") }),
        ("store", HumanBytes(status.store_bytes).to_string()),
    ];
    lines.map(|(name, value)| format!("{name:<12}{value}")).join("\n")
}
