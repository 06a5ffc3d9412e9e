//! Where a relay's settings come from: flags over environment over file over defaults.
//!
//! ```text
//!  file    every setting, with its words, its bounds and its place here
//!  table   what such a list is made of
//!  written what may stand for a setting in the file
//!  show    posthouse config
//!  change  what a changed file changes in a running relay
//! ```

mod change;
mod file;
pub(super) mod show;
mod table;
mod written;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::address::HostPort;
use crate::relay::{DEFAULT_PORT, RelayLimits};
use crate::store::StoreLimits;

/// The name of the relay's store in its directory.
const STORE_FILE: &str = "relay.redb";

/// The flag that says where settings come from.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ConfigFile {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "POSTHOUSE_CONFIG")]
    config: Option<PathBuf>,
}

/// The flag that says which store is meant.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct DataDirectory {
    /// Directory of the relay's store [default: ./data]
    #[arg(long, value_name = "DIR", env = "POSTHOUSE_DATA")]
    data: Option<PathBuf>,
}

/// The flags that say who a relay is and where.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Place {
    /// IP address and UDP port to listen at [default: [::]:4433, and 0.0.0.0:4433 where there is no IPv6]
    #[arg(long, value_name = "IP:PORT", env = "POSTHOUSE_LISTEN", value_parser = written::read::<SocketAddr>)]
    listen: Option<SocketAddr>,
    /// What the relay's address shows, if that is not where it listens: what others reach
    #[arg(long, value_name = "HOST:PORT", env = "POSTHOUSE_ADVERTISE", value_parser = written::read::<HostPort>)]
    advertise: Option<HostPort>,
    /// Directory of the certificate and its key [default: ./certs]
    #[arg(long, value_name = "DIR", env = "POSTHOUSE_CERTS")]
    certs: Option<PathBuf>,
}

/// All flags that are settings.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) data: DataDirectory,
    /// IP address and TCP port of the admin endpoint [default: 127.0.0.1:9443]
    #[arg(long, value_name = "IP:PORT", env = "POSTHOUSE_ADMIN", value_parser = written::read::<SocketAddr>)]
    pub(super) admin: Option<SocketAddr>,
    /// What to log on standard error: error, warn, info, debug, or a tracing filter [default: info]
    #[arg(long, value_name = "FILTER", env = "POSTHOUSE_LOG", value_parser = right_log)]
    pub(super) log: Option<String>,
    /// How a line of the log looks [default: text]
    #[arg(long, value_name = "FORMAT", env = "POSTHOUSE_LOG_FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What to log. A word alone is a level: as the name of a target, which it may also be, it was a slip.
pub(super) fn log_filter(log: &str) -> Result<EnvFilter, String> {
    const RIGHT: &str = "use error, warn, info, debug or trace, and for a part of it PART=LEVEL after a comma";
    for word in log.split(',').filter(|word| !word.contains(['=', '['])) {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(format!("has {word:?}, which is no level; {RIGHT}"));
        }
    }
    EnvFilter::builder().parse(log).map_err(|error| format!("is no filter ({error}); {RIGHT}"))
}

/// The same of a flag.
fn right_log(log: &str) -> Result<String, String> {
    log_filter(log).map(|_| log.to_owned())
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
    /// What to log.
    pub(super) log: String,
    /// How a line of the log looks.
    pub(super) log_format: LogFormat,
    /// How long the relay may take to stop.
    pub(super) drain: Duration,
    /// What clients may do.
    pub(super) relay: RelayLimits,
    /// What the store may hold.
    pub(super) store: StoreLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            advertise: None,
            data: "data".into(),
            certs: "certs".into(),
            admin: ([127, 0, 0, 1], 9443).into(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            drain: Duration::from_secs(10),
            relay: RelayLimits::default(),
            store: StoreLimits::default(),
        }
    }
}

impl Settings {
    /// Brings flags, environment and file together.
    pub(super) fn load(flags: Flags) -> Result<Self, CliError> {
        let Flags { file, place, data, admin, log, log_format } = flags;
        let mut settings = Self::default();
        if let Some(path) = &file.config {
            file::read(path, &mut settings).map_err(CliError::Usage)?;
        }
        settings.listen = place.listen.unwrap_or(settings.listen);
        settings.advertise = place.advertise.or(settings.advertise);
        settings.data = data.data.unwrap_or(settings.data);
        settings.certs = place.certs.unwrap_or(settings.certs);
        settings.admin = admin.unwrap_or(settings.admin);
        settings.log = log.unwrap_or(settings.log);
        settings.log_format = log_format.unwrap_or(settings.log_format);
        // A lane's row has to outlive every message that could still be offered on it.
        settings.store.lane_rest = settings.relay.max_ttl;
        Ok(settings)
    }

    /// The file of the store.
    pub(super) fn store_file(&self) -> PathBuf {
        self.data.join(STORE_FILE)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn load(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("posthouse.toml");
        std::fs::write(&path, text).unwrap();
        let (file, data) = (ConfigFile { config: Some(path) }, DataDirectory { data: Some("/flag".into()) });
        Settings::load(Flags { file, data, ..Flags::default() }).map_err(|error| error.to_string())
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
    fn what_is_logged_is_a_level_and_parts_with_levels_of_their_own() {
        for right in ["info", "WARN", "off", "info,posthouse::packets=trace", "x[span]=debug"] {
            assert!(log_filter(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        let example = show::example();
        assert_eq!(load(&example).unwrap(), load("").unwrap(), "as it is, it changes nothing");
        // With every sign taken away it says the same, but for what is not set.
        let spelled = example.lines().filter_map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.contains("...") => None,
            Some(setting) => (!setting.starts_with(' ')).then_some(setting),
            None => Some(line),
        });
        let spelled: Vec<&str> = spelled.collect();
        assert_eq!(load(&spelled.join("\n")).unwrap(), load("").unwrap());
        assert!(spelled.len() > 30, "{spelled:?}");
    }

    #[test]
    fn a_setting_that_nobody_can_mean_is_named_with_its_line_and_what_would_be_right() {
        let relay = crate::id::RelayId::from_bytes([7; 32]);
        let listed = format!("admission = 'listed'\nallow = ['{relay}']");
        let both = format!("[federation]\n{listed}\nblock = ['{relay}']");
        let peers = format!(
            "[federation]\n{listed}\n\n[access]\nmailboxes = 'invited'\nallow = ['{relay}']\nblock = ['{relay}']"
        );
        let (all, anyone) = (format!("[federation]\nallow = ['{relay}']"), format!("[access]\n\nallow = ['{relay}']"));
        let closed = format!("[federation]\nadmission = 'closed'\nallow = ['{relay}']");
        let twice = format!("[federation]\nplaces = ['posthouse://{relay}@a:1', 'posthouse://{relay}@b:1']");
        let peer = format!("[federation]\nblock = ['posthouse://{relay}@a:1/{relay}']");
        for (text, named) in [
            ("\nlisen = '[::]:1'", &["line 2", "lisen", "`listen`"][..]),
            ("listen = 'nowhere'", &["line 1", "listen"]),
            ("listen = 4433", &["line 1", "listen", "string"]),
            ("listen = 'localhost:4433'", &["line 1", "no IP address", "[::]:4433"]),
            ("data = ''", &["line 1", "data is empty"]),
            ("\ncerts = ''", &["line 2", "certs is empty"]),
            ("log = 'inof'", &["line 1", "log has \"inof\", which is no level", "info"]),
            ("log = ''", &["line 1", "log has \"\""]),
            ("log = 'info,posthouse=loud'", &["line 1", "log is no filter", "info"]),
            ("[rates]\npeer_burst = 5", &["line 2", "peer_burst means nothing", "peer_messages_per_second"]),
            ("[rates]\nrelay_burst = 5", &["line 2", "relay_burst", "relay_messages_per_second"]),
            ("listen = '[::]:1'\nlisten = '[::]:2'", &["line 2", "duplicate", "keep one of the two"]),
            ("advertise = 'host'", &["line 1", "advertise", "HOST:PORT"]),
            ("advertise = 'posthouse://host:1'", &["line 1", "advertise", "write HOST:PORT alone"]),
            ("advertise = '0.0.0.0:4433'", &["line 1", "advertise", "leads nowhere"]),
            ("advertise = '[::]:4433'", &["line 1", "advertise", "leads nowhere"]),
            ("data = 7", &["line 1", "data"]),
            ("data = 'a", &["line 1"]),
            ("log_format = 'xml'", &["line 1", "log_format", "`json`"]),
            ("drain_seconds = 4000", &["line 1", "drain_seconds is 4000; use 0 to 3600"]),
            ("limits = 7", &["line 1", "limits"]),
            ("[limit]", &["line 1", "limit", "`limits`"]),
            ("[limits]\nmailbox = 7", &["line 2", "mailbox", "`mailbox_messages`"]),
            ("[limits]\nbody_bytes = -1", &["line 2", "body_bytes", "-1 is negative; use 0 or more"]),
            ("[limits]\nbody_bytes = 1.5", &["line 2", "body_bytes", "whole number"]),
            (
                "[limits]\nbody_bytes = '1M'",
                &["line 2", "body_bytes", "whole number, without quotes and without a unit"],
            ),
            (
                "[limits]\nbody_bytes = 99999999999999999999",
                &["line 2", "body_bytes", "too large; use at most 18446744073709551615"],
            ),
            ("[rates]\npeer_burst = 4294967296", &["line 2", "peer_burst", "too large; use at most 4294967295"]),
            ("[limits]\nbody_bytes = 0", &["line 2", "body_bytes is 0; use 1 to 1048576"]),
            ("[limits]\n\nbody_bytes = 2000000", &["line 3", "body_bytes is 2000000; use 1 to 1048576"]),
            ("[limits]\nopen = true\n\nlisten = '[::]:1'", &["line 4", "listen belongs above all tables"]),
            ("[rates]\nmailbox_messages = 7", &["line 2", "mailbox_messages belongs below [limits]"]),
            ("[limits]\nallow = []", &["line 2", "allow belongs below [access] or below [federation]"]),
            ("[[limits]]\nopen = true", &["line 1", "limits", "a table: its name in single brackets"]),
            ("rates = [1, 1, 1, 1]", &["line 1", "rates", "a table"]),
            ("[limits]\npair_percent = 0", &["line 2", "pair_percent is 0; use 1 to 100"]),
            ("[limits]\nconnections = 0", &["line 2", "connections is 0"]),
            ("[limits]\nmailbox_messages = 0", &["line 2", "mailbox_messages is 0; use 1 or more"]),
            ("[limits]\nmax_ttl_seconds = 99999999999", &["line 2", "max_ttl_seconds"]),
            ("[limits]\nopen = 1", &["line 2", "open"]),
            ("[limits]\nmin_ttl_seconds = 10\nmax_ttl_seconds = 9", &["line 2", "min_ttl_seconds", "max_ttl_seconds"]),
            ("[limits]\nidle_timeout_seconds = 10", &["line 2", "idle_timeout_seconds is 10; use 20"]),
            ("[access]\nmailboxes = 'closed'", &["line 2", "mailboxes", "`invited`"]),
            ("[access]\nallow = ['nobody']", &["line 2", "allow", "no peer's id"]),
            ("[access]\nallow = 'nobody'", &["line 2", "allow", "a list of peers' ids"]),
            (&peers, &["line 8", "access.block", "allow"]),
            (&anyone, &["line 3", "access.allow means nothing while mailboxes is \"open\"", "\"invited\""]),
            (&all, &["line 2", "federation.allow means nothing while admission is \"open\"", "\"listed\""]),
            (&closed, &["line 3", "federation.allow means nothing while admission is \"closed\""]),
            ("[rates]\npeer_burst = -1", &["line 2", "peer_burst"]),
            ("[federation]\nadmission = 'opened'", &["line 2", "admission", "`open`"]),
            ("[federation]\nallow = 'all'", &["line 2", "allow"]),
            ("[federation]\nblock = ['nobody']", &["line 2", "block", "no relay's id"]),
            ("[federation]\nplaces = ['posthouse://somewhere']", &["line 2", "places", "no relay's address"]),
            (&twice, &["line 2", "places", "two addresses", "one that names both places"]),
            (&peer, &["line 2", "block", "this is a peer's address"]),
            (&both, &["line 4", "block", "allow"]),
        ] {
            let error = load(text).unwrap_err();
            for named in named {
                assert!(error.contains(named), "{text}: {error}");
            }
        }
    }
}
