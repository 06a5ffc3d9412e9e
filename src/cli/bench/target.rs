//! The relay that is measured: the one that was named, or one of our own, which is a process of this program with
//! a fresh directory, and is gone afterwards.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::process::Process;
use crate::address::RelayAddress;

/// What our own relay is told: its clients may do all that its disk has room for.
pub(super) const WITHOUT_LIMITS: &str = "\
[limits]
connections_per_address = 1000000
first_packets_per_address = 4000000
connections_without_hello = 100000
mailbox_messages = 1000000000
mailbox_bytes = 1000000000000
pair_percent = 100
";

/// Or it has the limits that it has by itself.
pub(super) const USUAL_LIMITS: &str = "";

/// Any port of this machine.
const ANYWHERE: &str = "127.0.0.1:0";

/// See the head of this file.
pub(super) struct Target {
    directory: TempDir,
    relay: Relay,
}

enum Relay {
    Named(RelayAddress),
    Own(Child),
}

/// Where to look what our own relay has used.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) process: Process,
    store: PathBuf,
}

/// A file's size, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSize {
    pub(super) length: u64,
    /// What it takes on the disk.
    pub(super) blocks: u64,
}

impl Target {
    /// Makes the directory, and starts a relay with this configuration in it if none is named. Ends with
    /// [`Self::stop`], always.
    pub(super) fn start(named: Option<RelayAddress>, config: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("posthouse-bench-").tempdir();
        let directory = directory.context("no temporary directory: name another place with TMPDIR")?;
        let relay = match named {
            Some(address) => Relay::Named(address),
            None => Relay::Own(spawn(directory.path(), Some(config), ANYWHERE).context("the relay cannot be started")?),
        };
        Ok(Self { directory, relay })
    }

    /// Waits until the relay serves. Its address.
    pub(super) async fn ready(&mut self) -> anyhow::Result<RelayAddress> {
        let child = match &mut self.relay {
            Relay::Named(address) => return Ok(address.clone()),
            Relay::Own(child) => child,
        };
        let output = child.stdout.take().context("the relay's output is read already")?;
        let Some(line) = BufReader::new(output).lines().next_line().await? else {
            bail!("the relay did not start: see above");
        };
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("the relay said {line}"))?;
        let address = ready.get("address").and_then(Value::as_str).context("the relay named no address")?;
        Ok(address.parse()?)
    }

    /// Kills our own relay as a crash would.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.relay {
            Relay::Named(_) => bail!("only a relay of our own is killed"),
            Relay::Own(child) => child.kill().await.context("the relay cannot be ended"),
        }
    }

    /// Starts it again where it was, and waits until it serves.
    pub(super) async fn start_again(&mut self, at: &RelayAddress) -> anyhow::Result<()> {
        let host = at.hosts().first().context("the relay's address names no host")?;
        self.relay = Relay::Own(spawn(self.directory.path(), None, &host.to_string())?);
        self.ready().await.map(drop)
    }

    /// Waits until our own relay ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match &mut self.relay {
            Relay::Named(_) => std::future::pending().await,
            Relay::Own(child) => match child.wait().await {
                Ok(status) => anyhow!("the relay ended by itself, with {status}"),
                Err(error) => error.into(),
            },
        }
    }

    /// Where things may be kept until the end.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn figures(&self) -> Option<Figures> {
        let Relay::Own(child) = &self.relay else { return None };
        let store = self.directory.path().join("data").join("relay.redb");
        Some(Figures { process: Process::new(child.id()?), store })
    }

    /// Ends our own relay and removes the directory.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        if let Relay::Own(mut child) = self.relay
            && child.try_wait()?.is_none()
        {
            child.kill().await.context("the relay cannot be ended")?;
        }
        let path = self.directory.path().to_owned();
        self.directory.close().with_context(|| format!("{} cannot be removed", path.display()))
    }
}

impl Figures {
    /// Its data directory.
    pub(super) fn data(&self) -> Option<&Path> {
        self.store.parent()
    }

    pub(super) fn store_size(&self) -> Option<FileSize> {
        let file = fs::metadata(&self.store).ok()?;
        // POSIX counts blocks of 512 bytes, whatever those of the file system are.
        Some(FileSize { length: file.len(), blocks: file.blocks() * 512 })
    }
}

/// With `settings`, or with those that it had before.
fn spawn(directory: &Path, settings: Option<&str>, listen: &str) -> anyhow::Result<Child> {
    let config = directory.join("posthouse.toml");
    if let Some(settings) = settings {
        fs::write(&config, settings)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--json", "--log", "warn", "--listen", listen, "--admin", "127.0.0.1:0"]);
    command.arg("--config").arg(config);
    command.arg("--data").arg(directory.join("data")).arg("--certs").arg(directory.join("certs"));
    // What is set for a relay of the user's is not for this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTHOUSE_")) {
        command.env_remove(name);
    }
    // Its own group: Ctrl-C reaches it through us alone, after the clients.
    command.process_group(0).kill_on_drop(true);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}
