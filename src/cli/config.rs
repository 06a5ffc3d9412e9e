//! Where a relay's settings come from: flags over environment over file over defaults.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Deserialize;

use super::CliError;
use crate::address::{HostPort, RelayAddress};
use crate::id::RelayId;
use crate::protocol::limit::MAX_BODY_BYTES;
use crate::relay::{Admission, Policy, RelayLimits};
use crate::store::StoreLimits;

/// The UDP port that relays listen at.
const DEFAULT_PORT: u16 = 4433;

/// The flags that say who a relay is and where.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "POSTHOUSE_CONFIG")]
    config: Option<PathBuf>,
    /// UDP address to listen at [default: [::]:4433, and 0.0.0.0:4433 where there is no IPv6]
    #[arg(long, value_name = "HOST:PORT", env = "POSTHOUSE_LISTEN")]
    listen: Option<SocketAddr>,
    /// What the relay's address shows, if that is not where it listens
    #[arg(long, value_name = "HOST:PORT", env = "POSTHOUSE_ADVERTISE")]
    advertise: Option<HostPort>,
    /// Directory of the certificate and its key [default: ./certs]
    #[arg(long, value_name = "DIR", env = "POSTHOUSE_CERTS")]
    certs: Option<PathBuf>,
}

/// The configuration file. Everything in it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    data: Option<PathBuf>,
    certs: Option<PathBuf>,
    admin: Option<SocketAddr>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    federation: FederationTable,
}

/// The `[federation]` table: which other relays this one has to do with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FederationTable {
    /// `open`, `listed` or `closed`.
    #[serde(default)]
    admission: Admission,
    #[serde(default)]
    allow: Vec<RelayName>,
    #[serde(default)]
    block: Vec<RelayName>,
    /// Where relays are, whatever the addresses in messages say.
    #[serde(default)]
    places: Vec<RelayPlace>,
}

/// A relay's id, or an address of it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct RelayName(RelayId);

impl TryFrom<String> for RelayName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<RelayAddress>().map(|address| address.relay);
        address.or_else(|_| text.parse()).map(Self).map_err(|error| format!("{text:?} is no relay's id: {error}"))
    }
}

/// A relay's address.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct RelayPlace(RelayAddress);

impl TryFrom<String> for RelayPlace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?} is no relay's address: {error}"))
    }
}

impl From<FederationTable> for Policy {
    fn from(table: FederationTable) -> Self {
        let ids = |names: Vec<RelayName>| names.into_iter().map(|name| name.0).collect();
        let places = table.places.into_iter().map(|RelayPlace(address)| (address.relay, address)).collect();
        Self { admission: table.admission, allow: ids(table.allow), block: ids(table.block), places }
    }
}

/// The `[limits]` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    body_bytes: Option<usize>,
    min_ttl_seconds: Option<u64>,
    max_ttl_seconds: Option<u64>,
    connections: Option<usize>,
    connections_per_address: Option<u32>,
    connections_without_hello: Option<usize>,
    outcome_ranges: Option<usize>,
    mailbox_messages: Option<u64>,
    mailbox_bytes: Option<u64>,
    pair_percent: Option<u64>,
    open: Option<bool>,
    provisional_messages: Option<u64>,
    provisional_bytes: Option<u64>,
    provisional_per_sender: Option<u64>,
    provisional_total: Option<u64>,
    outbox_messages: Option<u64>,
    outbox_bytes: Option<u64>,
    outboxes_messages: Option<u64>,
    outboxes_bytes: Option<u64>,
    lanes_per_submitter: Option<u64>,
    lanes_per_pair: Option<u64>,
    min_free_bytes: Option<u64>,
}

/// All settings of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where to listen.
    pub(super) listen: SocketAddr,
    /// What the address shows.
    pub(super) advertise: Option<HostPort>,
    /// Where the store lies.
    pub(super) data: PathBuf,
    /// Where certificate and key lie.
    pub(super) certs: PathBuf,
    /// Where the admin endpoint listens.
    pub(super) admin: SocketAddr,
    /// What clients may do.
    pub(super) relay: RelayLimits,
    /// What the store may hold.
    pub(super) store: StoreLimits,
}

impl Settings {
    /// Brings flags, environment and file together.
    pub(super) fn load(place: &Place, data: Option<&Path>, admin: Option<SocketAddr>) -> Result<Self, CliError> {
        let file = match &place.config {
            Some(path) => read(path).map_err(CliError::Usage)?,
            None => File::default(),
        };
        let advertise = match file.advertise {
            Some(text) => Some(text.parse().context("advertise").map_err(CliError::Usage)?),
            None => None,
        };
        let (mut relay, store) = file.limits.apply().map_err(CliError::Usage)?;
        relay.federation = file.federation.into();
        let default_listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
        Ok(Self {
            listen: place.listen.or(file.listen).unwrap_or(default_listen),
            advertise: place.advertise.clone().or(advertise),
            data: data.map(Path::to_owned).or(file.data).unwrap_or_else(|| "data".into()),
            certs: place.certs.clone().or(file.certs).unwrap_or_else(|| "certs".into()),
            admin: admin.or(file.admin).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9443))),
            relay,
            store,
        })
    }

    /// What the relay's address shows when it listens at `local`; true if that is a guess for this machine only.
    pub(super) fn shown(&self, local: SocketAddr) -> (HostPort, bool) {
        match &self.advertise {
            Some(advertise) => (advertise.clone(), false),
            None if local.ip().is_unspecified() => (SocketAddr::from(([127, 0, 0, 1], local.port())).into(), true),
            None => (local.into(), false),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

impl Limits {
    fn apply(self) -> anyhow::Result<(RelayLimits, StoreLimits)> {
        let (mut relay, mut store) = (RelayLimits::default(), StoreLimits::default());
        set(&mut relay.body_bytes, self.body_bytes);
        set(&mut relay.min_ttl, self.min_ttl_seconds.map(Duration::from_secs));
        set(&mut relay.max_ttl, self.max_ttl_seconds.map(Duration::from_secs));
        set(&mut relay.connections, self.connections);
        set(&mut relay.connections_per_address, self.connections_per_address);
        set(&mut relay.transport.max_without_hello, self.connections_without_hello);
        set(&mut relay.outcome_ranges, self.outcome_ranges);
        set(&mut store.mailbox_messages, self.mailbox_messages);
        set(&mut store.mailbox_bytes, self.mailbox_bytes);
        set(&mut store.pair_percent, self.pair_percent);
        set(&mut store.open, self.open);
        set(&mut store.provisional_messages, self.provisional_messages);
        set(&mut store.provisional_bytes, self.provisional_bytes);
        set(&mut store.provisional_per_submitter, self.provisional_per_sender);
        set(&mut store.provisional_total, self.provisional_total);
        set(&mut store.outbox_messages, self.outbox_messages);
        set(&mut store.outbox_bytes, self.outbox_bytes);
        set(&mut store.outboxes_messages, self.outboxes_messages);
        set(&mut store.outboxes_bytes, self.outboxes_bytes);
        set(&mut store.lanes_per_submitter, self.lanes_per_submitter);
        set(&mut store.lanes_per_pair, self.lanes_per_pair);
        set(&mut store.min_free_bytes, self.min_free_bytes);
        if relay.body_bytes > MAX_BODY_BYTES {
            return Err(anyhow!("limits.body_bytes is {}; the most is {MAX_BODY_BYTES}", relay.body_bytes));
        }
        if relay.min_ttl > relay.max_ttl {
            return Err(anyhow!("limits.min_ttl_seconds is above limits.max_ttl_seconds"));
        }
        if !(1..=100).contains(&store.pair_percent) {
            return Err(anyhow!("limits.pair_percent is {}; use 1 to 100", store.pair_percent));
        }
        // A lane's row has to outlive every message that could still be offered on it.
        store.lane_rest = relay.max_ttl;
        Ok((relay, store))
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("posthouse.toml");
        std::fs::write(&path, text).unwrap();
        let place = Place { config: Some(path), listen: None, advertise: None, certs: None };
        Settings::load(&place, Some(Path::new("/flag")), None).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_over_the_file_and_the_file_is_over_the_defaults() {
        let settings = load("data = '/file'\ncerts = '/file'\n[limits]\nmailbox_messages = 7").unwrap();
        assert_eq!(settings.data, Path::new("/flag"));
        assert_eq!(settings.certs, Path::new("/file"));
        assert_eq!(settings.listen.port(), DEFAULT_PORT);
        assert_eq!(settings.store.mailbox_messages, 7);
        assert_eq!(settings.store.mailbox_bytes, StoreLimits::default().mailbox_bytes);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (text, named) in [
            ("lisen = '[::]:1'", "lisen"),
            ("listen = 'nowhere'", "listen"),
            ("advertise = 'host'", "advertise"),
            ("[federation]\nplaces = ['posthouse://somewhere']", "places"),
            ("[limits]\nbody_bytes = -1", "body_bytes"),
            ("[limits]\nbody_bytes = 2000000", "body_bytes"),
            ("[limits]\npair_percent = 0", "pair_percent"),
            ("[limits]\nmin_ttl_seconds = 10\nmax_ttl_seconds = 9", "min_ttl_seconds"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
