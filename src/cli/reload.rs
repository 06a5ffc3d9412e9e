//! SIGHUP: a running relay takes up what was changed in its configuration file.

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

use super::CliError;
use super::config::{Settings, log_filter};
use crate::relay::Relay;
use crate::store::redb::relay::RedbRelayStore;

/// Exchanges what is logged.
pub(super) type SetLog = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send>;

/// What a relay was started with, and how to read it anew.
pub(super) struct Reload {
    pub(super) now: Settings,
    pub(super) read: Box<dyn Fn() -> Result<Settings, CliError> + Send>,
    pub(super) set_log: SetLog,
}

impl Reload {
    /// Reads the configuration anew. One that is wrong changes nothing.
    pub(super) fn run(&mut self, relay: &Relay, store: &RedbRelayStore) {
        let read = (self.read)().map_err(anyhow::Error::from);
        let taken = read.and_then(|new| {
            let filter = log_filter(&new.log).map_err(|what| anyhow!("log {what}"))?;
            Ok((new, filter))
        });
        let (new, filter) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!("nothing was changed, since the configuration is wrong: {error:#}");
                return;
            }
        };
        let changes = self.now.changes(&new);
        let new = new.in_running(&self.now);
        store.set_limits(new.store.clone());
        relay.set_limits(new.relay.clone());
        let access = &new.store.access;
        if *access != self.now.store.access {
            // Whom the operator allowed by a command comes back at once.
            relay.judge_anew(|peer| access.entry(access.standing(peer, None), true).is_err());
        }
        for change in &changes {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            match change.at_start {
                false => tracing::info!(key, %from, %to, "a setting was changed"),
                true => tracing::warn!(key, %from, %to, "a setting was changed: start the relay anew for it to hold"),
            }
        }
        tracing::info!(changes = changes.len(), "the configuration was read anew");
        // Last: whoever reads what was logged so far reads this report as well.
        if new.log != self.now.log
            && let Err(error) = (self.set_log)(filter)
        {
            tracing::error!("what is logged stays: {error:#}");
        }
        self.now = new;
    }
}
