//! Scenario `backup`: messages are delivered between pairs at a steady rate, while `posthouse backup` copies a mailbox
//! that is full; and likewise without that, in turn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::compare::Rounds;
use super::report::{count, duration};
use super::steady::{self, Load};
use super::{Bench, fill};

/// How long delivery is measured without a backup, right before each time with it.
const QUIET: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) steady: steady::Plan,
    pub(super) rounds: u32,
    /// Messages in the mailbox.
    pub(super) messages: u64,
}

/// Runs the scenario.
pub(super) async fn run(bench: &Bench, data: &Path, plan: Plan) -> anyhow::Result<()> {
    fill::keep_for_nobody(bench, plan.messages).await?;
    let mut load = Load::start(bench, plan.steady).await?;
    let (mut rounds, mut longest) = (Rounds::new(), 0);
    let file = data.with_file_name("backup");
    for round in 1..=plan.rounds {
        let ((), took, compared) = load.beside(bench, QUIET, back_up(data, &file)).await?;
        let backup_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bytes = std::fs::metadata(&file)?.len();
        let what = format!("{} bytes in {}", count(bytes), duration(backup_us));
        let own = [("backup_us", backup_us.into()), ("backup_bytes", bytes.into())];
        compared.tell(bench, round, own, &what)?;
        rounds.add(&compared, QUIET + took);
        longest = longest.max(backup_us);
    }
    rounds.tell(bench, [("backup_us", longest.into())])?;
    load.end().await;
    Ok(())
}

/// The command itself, as an operator runs it.
async fn back_up(data: &Path, file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("backup").arg(file).arg("--data").arg(data).env_remove("POSTHOUSE_CONFIG").kill_on_drop(true);
    let output = command.output().await.context("the backup cannot be started")?;
    if !output.status.success() {
        bail!("the backup failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
