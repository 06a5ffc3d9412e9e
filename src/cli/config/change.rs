//! What a changed configuration changes in a relay that runs, and what only a new start takes up.

use super::{Settings, file};
use crate::transport::TransportLimits;

/// Settings that a relay is made with.
const AT_START: &[&str] = &[
    "listen",
    "advertise",
    "data",
    "certs",
    "admin",
    "log_format",
    "first_packets_per_address",
    "idle_timeout_seconds",
];

/// A setting that is another one now.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Change {
    /// With its table.
    pub(in crate::cli) key: String,
    pub(in crate::cli) from: String,
    pub(in crate::cli) to: String,
    /// Only a new start takes it up.
    pub(in crate::cli) at_start: bool,
}

impl Settings {
    /// What is different in `new`.
    pub(in crate::cli) fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((table, before), (_, after)) in file::shown(self).into_iter().zip(file::shown(new)) {
            for (before, after) in before.into_iter().zip(after).filter(|(before, after)| before.value != after.value) {
                let words =
                    |value: Option<toml::Value>| value.map_or_else(|| "not set".to_owned(), |value| value.to_string());
                let dot = if table.is_empty() { "" } else { "." };
                changes.push(Change {
                    key: format!("{table}{dot}{}", before.key),
                    from: words(before.value),
                    to: words(after.value),
                    at_start: AT_START.contains(&before.key),
                });
            }
        }
        changes
    }

    /// These settings in a relay that was started with `old` ones.
    pub(in crate::cli) fn in_running(self, old: &Self) -> Self {
        let Self { listen, advertise, data, certs, admin, log_format, .. } = old.clone();
        let mut new = Self { listen, advertise, data, certs, admin, log_format, ..self };
        let TransportLimits { idle_timeout, first_packets_per_address, .. } = old.relay.transport;
        new.relay.transport = TransportLimits { idle_timeout, first_packets_per_address, ..new.relay.transport };
        new
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::LogFormat;
    use super::*;

    #[test]
    fn every_setting_that_needs_a_start_is_named_until_there_is_one() {
        let old = Settings::default();
        let mut new = old.clone();
        new.listen.set_port(1);
        new.advertise = Some("host:1".parse().unwrap());
        (new.data, new.certs) = ("other".into(), "other".into());
        new.admin.set_port(1);
        new.log_format = LogFormat::Json;
        new.relay.transport.idle_timeout = Duration::from_secs(99);
        new.relay.transport.first_packets_per_address = 7;
        new.relay.body_bytes = 7;
        new.store.access.block = [crate::id::PeerId::from_bytes([7; 32])].into();
        let named =
            |changes: &[Change]| changes.iter().map(|change| (change.key.clone(), change.at_start)).collect::<Vec<_>>();
        let changes = old.changes(&new);
        let at_start: Vec<_> = changes.iter().filter(|change| change.at_start).collect();
        assert_eq!(at_start.len(), AT_START.len(), "{at_start:?}");
        let running = new.clone().in_running(&old);
        let taken = old.changes(&running);
        assert_eq!(named(&taken), [("limits.body_bytes".to_owned(), false), ("access.block".to_owned(), false)]);
        assert!(taken[0].from == "1048576" && taken[0].to == "7", "{taken:?}");
        assert_eq!(running.changes(&new).len(), AT_START.len());
        assert_eq!(old.changes(&old), []);
    }
}
