//! `posthouse relays`: how the links of a running relay to others stand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Deserialize;

use super::ask::Question;
use super::{CliError, output};
use crate::time::{SystemClock, UnixMillis};

#[derive(Debug, Deserialize)]
struct Answer {
    relays: Vec<Link>,
}

#[derive(Debug, Deserialize)]
struct Link {
    relay: String,
    address: String,
    state: String,
    waiting: u64,
    oldest: Option<u64>,
    last_error: Option<String>,
    next_try: Option<u64>,
}

/// Asks the relay that runs on this data directory.
pub(super) fn run(question: Question) -> Result<(), CliError> {
    let Some(answer) = question.ask::<Answer>("relays")? else { return Ok(()) };
    if answer.relays.is_empty() {
        return Ok(output::line("nothing waits for other relays, and nothing was sent to one in the last minute")
            .context("standard output")?);
    }
    let now = SystemClock::shared().date();
    for link in &answer.relays {
        output::line(&words(link, now)).context("standard output")?;
    }
    Ok(())
}

fn words(link: &Link, now: UnixMillis) -> String {
    let Link { relay, address, state, waiting, .. } = link;
    let ago = |at: u64| humantime::format_duration(Duration::from_secs(UnixMillis(at).until(now).as_secs()));
    let oldest = link.oldest.map(|at| format!(", the oldest for {}", ago(at))).unwrap_or_default();
    let next = link.next_try.map(|at| {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(SystemTime::UNIX_EPOCH);
        format!(", next try at {}", humantime::format_rfc3339_seconds(at))
    });
    let error = link.last_error.as_ref().map(|error| format!("\n  last trouble: {error}")).unwrap_or_default();
    format!("{relay}\n  {address}\n  {state}; {waiting} wait{oldest}{}{error}", next.unwrap_or_default())
}
