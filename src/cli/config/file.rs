//! The configuration file: every setting there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use toml::de::DeTable;

use super::table::{Shown, Wrong, settings};
use super::{LogFormat, Settings, log_filter};
use crate::address::{HostPort, RelayAddress};
use crate::id::{PeerId, RelayId};
use crate::protocol::limit::MAX_BODY_BYTES;
use crate::relay::{Admission, Rate};
use crate::store::Mailboxes;

/// A day and then some: longer than anybody waits for a connection.
const DAY_SECONDS: u64 = 86_400;
/// Lifetimes above this were a mistake.
const YEAR_SECONDS: u64 = 366 * DAY_SECONDS;

settings! {
    /// What stands before all tables.
    File of Settings {
        /// UDP address to listen at. Where there is no IPv6, [::] means 0.0.0.0.
        listen: SocketAddr = listen;
        /// What the relay's address shows as HOST:PORT, if that is not where it listens: what others reach.
        advertise: Option<HostPort> = advertise;
        /// Directory of the store. One relay at a time.
        data: PathBuf = data;
        /// Directory of the relay's certificate and key, which are the relay's identity: keep a copy.
        certs: PathBuf = certs;
        /// TCP address of the admin endpoint. Whatever can connect to it learns how the relay is; what changes or
        /// names anything wants the token in the data directory.
        admin: SocketAddr = admin;
        /// What to log on standard error: error, warn, info, debug, or a tracing filter such as
        /// "info,posthouse::federation=debug".
        log: String = log;
        /// How a line of the log looks: "text", or "json" for one JSON object a line.
        log_format: LogFormat = log_format;
        /// How long the relay may take to stop after SIGTERM, seconds: its clients are told to come back later, and what
        /// they have begun is finished.
        drain_seconds: Duration = drain, 0..=3_600;
    }
    limits: Limits, access: Access, rates: Rates, federation: Federation
}

settings! {
    /// What clients may do, and what the store may hold.
    Limits of Settings {
        /// The largest body of a message, bytes. Larger ones are rejected: too_large.
        body_bytes: usize = relay.body_bytes, 1..=MAX_BODY_BYTES as u64;
        /// The shortest lifetime of a message, seconds. Shorter ones are made as long.
        min_ttl_seconds: Duration = relay.min_ttl, 0..=YEAR_SECONDS;
        /// The longest lifetime of a message, seconds. Longer ones are made as short.
        max_ttl_seconds: Duration = relay.max_ttl, 1..=YEAR_SECONDS;
        /// Connections at one time. More are refused.
        connections: usize = relay.connections, 1..=u64::MAX;
        /// New connections from one address in a second before it has to prove itself; at sixteen times as many
        /// they are refused.
        connections_per_address: u32 = relay.connections_per_address, 1..=u64::MAX;
        /// First packets of handshakes from one address in a second. More are left unread.
        first_packets_per_address: u32 = relay.transport.first_packets_per_address, 1..=u64::MAX;
        /// Connections at one time that have not said R:HELLO. More are refused, and from one address more than a
        /// quarter of them.
        connections_without_hello: usize = relay.transport.max_without_hello, 1..=u64::MAX;
        /// How long a connection may be without R:HELLO, seconds.
        hello_timeout_seconds: Duration = relay.transport.hello_timeout, 1..=DAY_SECONDS;
        /// How long nothing may be heard on a connection before it is over, seconds. Clients say every 15 s that
        /// they are there.
        idle_timeout_seconds: Duration = relay.transport.idle_timeout, 20..=DAY_SECONDS;
        /// Ranges of outcomes that may wait for a session that does not read. At the limit it is closed, and asks
        /// when it comes back.
        outcome_ranges: usize = relay.outcome_ranges, 1..=u64::MAX;
        /// Messages in one mailbox. At the limit senders wait: quota.
        mailbox_messages: u64 = store.mailbox_messages, 1..=u64::MAX;
        /// Bytes in one mailbox, envelopes included.
        mailbox_bytes: u64 = store.mailbox_bytes, 1..=u64::MAX;
        /// What messages of one sender may take of a mailbox, percent. At the limit that one waits: quota_pair.
        pair_percent: u64 = store.pair_percent, 1..=100;
        /// Whether a message for a peer that never connected, but may have a mailbox ([access]), opens a small one for
        /// it; if not, it is rejected: unknown_peer.
        open: bool = store.open;
        /// Messages in such a mailbox.
        provisional_messages: u64 = store.provisional_messages, 1..=u64::MAX;
        /// Bytes in such a mailbox.
        provisional_bytes: u64 = store.provisional_bytes, 1..=u64::MAX;
        /// Such mailboxes that one sender may cause.
        provisional_per_sender: u64 = store.provisional_per_submitter, 0..=u64::MAX;
        /// Such mailboxes of the whole relay.
        provisional_total: u64 = store.provisional_total, 0..=u64::MAX;
        /// Messages that wait for one other relay. At the limit senders wait: outbox_full.
        outbox_messages: u64 = store.outbox_messages, 1..=u64::MAX;
        /// Bytes that wait for one other relay.
        outbox_bytes: u64 = store.outbox_bytes, 1..=u64::MAX;
        /// Messages that wait for other relays in all.
        outboxes_messages: u64 = store.outboxes_messages, 1..=u64::MAX;
        /// Bytes that wait for other relays in all.
        outboxes_bytes: u64 = store.outboxes_bytes, 1..=u64::MAX;
        /// Lanes that are remembered for one client. At the limit it waits: lanes.
        lanes_per_submitter: u64 = store.lanes_per_submitter, 1..=u64::MAX;
        /// Lanes that are remembered for one sender and recipient.
        lanes_per_pair: u64 = store.lanes_per_pair, 1..=u64::MAX;
        /// Bytes of the disk that stay free. Below, new messages wait: no_room.
        min_free_bytes: u64 = store.min_free_bytes;
    }
}

settings! {
    /// Who may have a mailbox here.
    Access of Settings {
        /// Which peers may have a mailbox: "open" for all of them, "listed" for those in allow and those of
        /// `posthouse peers allow`, "invited" for those, for who has one, and for who shows an invitation of
        /// `posthouse invite`. Messages for any other are rejected: unknown_peer.
        mailboxes: Mailboxes = store.access.mailboxes;
        /// Peers that may have a mailbox, by id or address.
        allow: BTreeSet<PeerId> = store.access.allow;
        /// Peers that are not let in, and get nothing more, in any case, by id or address.
        block: BTreeSet<PeerId> = store.access.block;
    }
}

settings! {
    /// How fast clients may send. Above, their messages wait: rate.
    Rates of Settings {
        /// Messages that one peer may send in a second, for long; 0 for any number.
        peer_messages_per_second: u32 = relay.peer_rate.per_second;
        /// Messages that one peer may send at once, after a pause; 0 for as many as in a second.
        peer_burst: u32 = relay.peer_rate.burst;
        /// Messages that one other relay may send in a second, for long; 0 for any number.
        relay_messages_per_second: u32 = relay.relay_rate.per_second;
        /// Messages that one other relay may send at once, after a pause; 0 for as many as in a second.
        relay_burst: u32 = relay.relay_rate.burst;
    }
}

settings! {
    /// Which other relays this one has to do with.
    Federation of Settings {
        /// Which relays may send messages here, and are sent messages: "open" for all of them, "listed" for those
        /// in allow, "closed" for none.
        admission: Admission = relay.federation.admission;
        /// Relays that are listed, by id or address.
        allow: BTreeSet<RelayId> = relay.federation.allow;
        /// Relays that are not admitted in any case, by id or address.
        block: BTreeSet<RelayId> = relay.federation.block;
        /// Where relays are, as addresses, whatever the addresses in messages say.
        places: BTreeMap<RelayId, RelayAddress> = relay.federation.places;
    }
}

/// Reads a file over the settings that are there. Says in which line what is wrong, and what would be right.
pub(super) fn read(path: &Path, into: &mut Settings) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let way_out = match error.kind() {
            ErrorKind::NotFound => "; `posthouse config --example` prints one to begin with",
            ErrorKind::IsADirectory => "; name the file in it",
            ErrorKind::InvalidData => "; save it as UTF-8",
            ErrorKind::PermissionDenied => "; it has to be readable for the user that runs this",
            _ => "",
        };
        anyhow!("the configuration file {}: {error}{way_out}", path.display())
    })?;
    let file: File = toml::from_str(&text).map_err(|error| {
        anyhow!("{}: {}{}", path.display(), error.to_string().trim(), advice(&text, &error).unwrap_or_default())
    })?;
    let wrong = match file.apply(into) {
        Ok(()) => match into.wrong() {
            Some(wrong) => wrong,
            None => return Ok(()),
        },
        Err(wrong) => wrong,
    };
    let line = place(&text, wrong.key).map_or(String::new(), |place| {
        let before = text.get(..place.start).unwrap_or_default();
        format!(" line {}", before.matches('\n').count() + 1)
    });
    Err(anyhow!("{}{line}: {} {}", path.display(), wrong.key, wrong.what))
}

/// What to do about an error that does not say it: where a setting belongs that is unknown where it stands, as a rule.
fn advice(text: &str, error: &toml::de::Error) -> Option<String> {
    if error.message().starts_with("duplicate key") {
        return Some("\nit stands further above as well: keep one of the two".to_owned());
    }
    let key = text.get(error.span()?)?.trim_matches(['"', '\'']);
    let tables = shown(&Settings::default());
    let has = |settings: &[Shown]| settings.iter().any(|setting| setting.key == key);
    let mut places = tables.iter().filter(|(_, settings)| has(settings)).map(|(table, _)| match *table {
        "" => "above all tables".to_owned(),
        table => format!("below [{table}]"),
    });
    let place = places.next().filter(|_| error.message().starts_with("unknown field"))?;
    Some(format!("\n{key} belongs {}", places.fold(place, |all, place| format!("{all} or {place}"))))
}

/// Where a key stands: in the table that it names, or in whichever has it.
fn place(text: &str, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let root = document.get_ref();
    let (named, key) = key.split_once('.').map_or((None, key), |(table, key)| (Some(table), key));
    let tables = root.iter().filter(|(name, _)| named.is_none_or(|named| name.get_ref() == named));
    let tables = tables.filter_map(|(_, value)| value.get_ref().as_table());
    tables.chain([root]).flat_map(|table| table.keys()).find(|found| found.get_ref() == key).map(|found| found.span())
}

/// All tables, by name, with every setting as it is; first what stands before all tables.
pub(super) fn shown(settings: &Settings) -> [(&'static str, Vec<Shown>); 5] {
    [
        ("", File::shown(settings)),
        ("limits", Limits::shown(settings)),
        ("access", Access::shown(settings)),
        ("rates", Rates::shown(settings)),
        ("federation", Federation::shown(settings)),
    ]
}

impl Settings {
    /// Settings that do not go together.
    fn wrong(&self) -> Option<Wrong> {
        let unlimited = |rate: Rate| rate.burst > 0 && rate.per_second == 0;
        let no_burst = |key| format!("means nothing while {key} is 0, which is any number; set both");
        let (key, what) = if self.data.as_os_str().is_empty() {
            ("data", "is empty; name a directory".to_owned())
        } else if self.certs.as_os_str().is_empty() {
            ("certs", "is empty; name a directory".to_owned())
        } else if let Err(what) = log_filter(&self.log) {
            ("log", what)
        } else if unlimited(self.relay.peer_rate) {
            ("peer_burst", no_burst("peer_messages_per_second"))
        } else if unlimited(self.relay.relay_rate) {
            ("relay_burst", no_burst("relay_messages_per_second"))
        } else if self.relay.min_ttl > self.relay.max_ttl {
            ("min_ttl_seconds", "is above max_ttl_seconds; use at most that".to_owned())
        } else if !self.relay.federation.allow.is_empty() && self.relay.federation.admission != Admission::Listed {
            let admission = self.relay.federation.admission.name();
            ("federation.allow", format!("means nothing while admission is \"{admission}\"; set it to \"listed\""))
        } else if !self.store.access.allow.is_empty() && self.store.access.mailboxes == Mailboxes::Open {
            let right = "set it to \"listed\" or \"invited\"";
            ("access.allow", format!("means nothing while mailboxes is \"open\"; {right}"))
        } else if let Some(relay) = self.relay.federation.allow.intersection(&self.relay.federation.block).next() {
            ("federation.block", format!("names {relay}, and so does allow; take it out of one of them"))
        } else if let Some(peer) = self.store.access.allow.intersection(&self.store.access.block).next() {
            ("access.block", format!("names {peer}, and so does allow; take it out of one of them"))
        } else {
            return None;
        };
        Some(Wrong { key, what })
    }
}
