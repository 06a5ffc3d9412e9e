//! Asks a running relay, by its admin endpoint: where that is, and the token, stand in the data directory.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::de::DeserializeOwned;

use super::config::{ConfigFile, DataDirectory, Flags, Settings};
use super::{CliError, output};
use crate::admin::{ACCESS_FILE, Access};

/// How long a running relay has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The flags that say which relay on this machine is meant.
#[derive(Debug, Args)]
pub(super) struct Whose {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    data: DataDirectory,
}

impl Whose {
    /// Its settings.
    pub(super) fn settings(&self) -> Result<Settings, CliError> {
        Settings::load(Flags { file: self.file.clone(), data: self.data.clone(), ..Flags::default() })
    }
}

/// A question of which the answer is shown in words, or as it is.
#[derive(Debug, Args)]
pub(super) struct Question {
    #[command(flatten)]
    whose: Whose,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Question {
    /// What the relay answers, to be put into words; nothing if it was printed as it is.
    pub(super) fn ask<T: DeserializeOwned>(&self, what: &str) -> Result<Option<T>, CliError> {
        let text = ask(&self.whose.settings()?.data, what)?;
        if self.json {
            output::line(&text).context("standard output")?;
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text).context("the relay's answer")?))
    }
}

/// What the relay on this data directory answers to a question.
pub(super) fn ask(data: &Path, what: &str) -> anyhow::Result<String> {
    whole(data, call(data, what, false)?)
}

/// Tells the relay on this data directory to do something; what it says to that.
pub(super) fn tell(data: &Path, what: &str) -> anyhow::Result<String> {
    whole(data, call(data, what, true)?)
}

/// The whole of an answer.
fn whole(data: &Path, answer: Option<impl Read>) -> anyhow::Result<String> {
    let mut text = String::new();
    let answer = answer.with_context(|| match data.join(ACCESS_FILE).exists() {
        true => format!("no relay runs on {} now", data.display()),
        false => {
            let data = data.display();
            format!("no relay was started on {data} yet, or it is another user's: name its directory with --data")
        }
    });
    answer?.read_to_string(&mut text).context("the relay's answer")?;
    Ok(text)
}

/// Its answer, to be read as it comes; nothing if none runs there.
pub(super) fn open(data: &Path, what: &str) -> anyhow::Result<Option<impl Read + use<>>> {
    call(data, what, false)
}

fn call(data: &Path, what: &str, changes: bool) -> anyhow::Result<Option<impl Read + use<>>> {
    let access = match Access::read(data) {
        Ok(access) => access,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let file = data.join(ACCESS_FILE);
            return Err(error).with_context(|| {
                format!("{} is not for you: be the user that runs the relay, or root", file.display())
            });
        }
    };
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response((!changes).then_some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let (place, shown) = (format!("http://{}/{what}", access.address), format!("Bearer {}", access.token));
    let asked = match changes {
        false => agent.get(place).header("authorization", shown).call(),
        true => agent.post(place).header("authorization", shown).send_empty(),
    };
    match asked {
        // Another relay has that port now.
        Ok(answer) if answer.status() == ureq::http::StatusCode::UNAUTHORIZED => Ok(None),
        Ok(answer) if answer.status().is_success() => Ok(Some(answer.into_body().into_reader())),
        Ok(mut answer) => {
            let words = answer.body_mut().read_to_string().unwrap_or_default();
            bail!("the relay at {} answers with {}: {}", access.address, answer.status(), words.trim())
        }
        // Nobody listens where the last one did.
        Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(anyhow!(error)).with_context(|| format!("the relay at {}", access.address)),
    }
}
