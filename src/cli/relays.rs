//! `posthouse relays`: how the links of a running relay to others stand.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Args as ClapArgs;
use serde::Deserialize;

use super::config::{Place, Settings};
use super::{CliError, output};
use crate::admin::Access;
use crate::time::{SystemClock, UnixMillis};

/// How long a running relay has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Directory of the running relay's store [default: ./data]
    #[arg(long, value_name = "DIR", env = "POSTHOUSE_DATA")]
    data: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

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
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let settings = Settings::load(&args.place, args.data.as_deref(), None)?;
    let text = ask(&settings.data, "relays")?;
    if args.json {
        return Ok(output::line(&text).context("standard output")?);
    }
    let answer: Answer = serde_json::from_str(&text).context("the relay's answer")?;
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

/// What the relay on this data directory answers to a question.
fn ask(data: &Path, what: &str) -> anyhow::Result<String> {
    let access = Access::read(data).with_context(|| {
        format!(
            "no relay was started on {} yet, or it is another user's: name its directory with --data",
            data.display()
        )
    })?;
    let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
    let asked = agent
        .get(format!("http://{}/{what}", access.address))
        .header("authorization", format!("Bearer {}", access.token))
        .call();
    match asked {
        Ok(mut answer) => Ok(answer.body_mut().read_to_string().context("the relay's answer")?),
        Err(ureq::Error::StatusCode(code)) => bail!("the relay at {} answers with {code}", access.address),
        Err(error) => Err(anyhow!(error)).with_context(|| format!("no relay runs on {} now", data.display())),
    }
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
