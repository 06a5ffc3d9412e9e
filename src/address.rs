//! `posthouse://` addresses: where a relay is and, with a path, which peer lives there.
//!
//! The form is `posthouse://<relay id>@<host>:<port>[,<host>:<port>...][/<peer id>]`; an IPv6 host stands
//! in brackets. This file parses and writes them; it never resolves a name.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::{IdError, PeerId, RelayId};

/// What every address starts with.
pub const SCHEME: &str = "posthouse://";

/// Hosts that one address may name: enough for IPv4, IPv6 and a few spares.
pub const MAX_HOSTS: usize = 8;

/// Characters of a host name (RFC 1035, section 2.3.4).
pub const MAX_HOST_CHARS: usize = 253;

/// One place a relay listens at: a name or an IP address, and a UDP port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// A DNS name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The UDP port; never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Host(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(wrong)?;
                inner.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string()
            }
            None if host.contains(':') => return Err(AddressError::Brackets(text.to_owned())),
            None => host.to_ascii_lowercase(),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > MAX_HOST_CHARS || !host.chars().all(fits) {
            return Err(wrong());
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits && port != 0 => Ok(Self { host, port }),
            _ => Err(AddressError::Port(port.to_owned())),
        }
    }
}

/// Where a relay is: its key and the places it listens at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelayAddress {
    /// The key that the relay must prove to hold.
    pub relay: RelayId,
    /// Shared: an address is cloned with every message.
    hosts: Arc<[HostPort]>,
}

impl RelayAddress {
    /// A relay that listens at one place.
    #[must_use]
    pub fn new(relay: RelayId, host: HostPort) -> Self {
        Self { relay, hosts: [host].into() }
    }

    /// The places it listens at, one at least, in the order to try them.
    #[must_use]
    pub fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }

    /// Adds places to try before those that it names. Beyond [`MAX_HOSTS`] the last are forgotten. If it names all of
    /// them already, it stays as it is: false.
    pub fn add(&mut self, hosts: &[HostPort]) -> bool {
        let news = hosts.iter().any(|host| !self.hosts.contains(host));
        if news {
            self.prefer(hosts);
        }
        news
    }

    /// Puts these places before all others.
    pub fn prefer(&mut self, hosts: &[HostPort]) {
        let others = self.hosts.iter().filter(|host| !hosts.contains(host));
        self.hosts = hosts.iter().chain(others).take(MAX_HOSTS).cloned().collect();
    }

    /// The address of a peer whose home is this relay.
    #[must_use]
    pub fn peer(&self, peer: PeerId) -> PeerAddress {
        PeerAddress { relay: self.clone(), peer }
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@", self.relay)?;
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Where a peer gets its messages: its home relay and its own key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerAddress {
    /// The home relay.
    pub relay: RelayAddress,
    /// The peer.
    pub peer: PeerId,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.relay, self.peer)
    }
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not start with [`SCHEME`].
    #[error("an address starts with {SCHEME}<relay id>@<host>:<port>, this is {0:?}")]
    Scheme(String),
    /// Nothing before the `@`, or no `@`.
    #[error("the relay's id and an @ are missing before the host")]
    NoRelay,
    /// The relay's id is none.
    #[error("the relay's id is wrong: {0}")]
    Relay(#[source] IdError),
    /// The peer's id is none.
    #[error("the peer's id (after the /) is wrong: {0}")]
    Peer(#[source] IdError),
    /// A peer's address was wanted, this one names a relay.
    #[error("this is a relay's address; a peer's has /<peer id> at its end")]
    NoPeer,
    /// A relay's address was wanted, this one names a peer.
    #[error("this is a peer's address; the relay's is the part before /{0}")]
    NotARelay(String),
    /// No port.
    #[error("{0:?} has no port: write <host>:<port>")]
    NoPort(String),
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is no port: use a number from 1 to 65535")]
    Port(String),
    /// Neither a name nor an IP address.
    #[error("{0:?} is no <host>:<port>")]
    Host(String),
    /// An IPv6 address without brackets.
    #[error("{0:?}: an IPv6 address stands in brackets, like [::1]:4433")]
    Brackets(String),
    /// More than [`MAX_HOSTS`].
    #[error("an address names at most {MAX_HOSTS} hosts, this {0}")]
    TooManyHosts(usize),
}

fn split(text: &str) -> Result<(RelayAddress, Option<&str>), AddressError> {
    let rest = text.strip_prefix(SCHEME).ok_or_else(|| AddressError::Scheme(text.chars().take(80).collect()))?;
    let (rest, path) = match rest.split_once('/') {
        Some((rest, path)) => (rest, Some(path)),
        None => (rest, None),
    };
    let (relay, hosts) = rest.split_once('@').ok_or(AddressError::NoRelay)?;
    if relay.is_empty() {
        return Err(AddressError::NoRelay);
    }
    let relay = relay.parse().map_err(AddressError::Relay)?;
    let count = hosts.split(',').count();
    if count > MAX_HOSTS {
        return Err(AddressError::TooManyHosts(count));
    }
    let hosts = hosts.split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok((RelayAddress { relay, hosts }, path))
}

impl FromStr for RelayAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match split(text)? {
            (relay, None) => Ok(relay),
            (_, Some(path)) => Err(AddressError::NotARelay(path.chars().take(80).collect())),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (relay, path) = split(text)?;
        let path = path.ok_or(AddressError::NoPeer)?;
        Ok(Self { relay, peer: path.parse().map_err(AddressError::Peer)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relay() -> String {
        RelayId::from_bytes([7; 32]).to_string()
    }

    #[test]
    fn an_address_is_written_and_read_back_the_same() {
        let peer = PeerId::from_bytes([9; 32]);
        for hosts in ["127.0.0.1:4433", "[::1]:4433", "relay.example:1,[2001:db8::7]:65535"] {
            let text = format!("posthouse://{}@{hosts}", relay());
            assert_eq!(text.parse::<RelayAddress>().unwrap().to_string(), text);
            let text = format!("{text}/{peer}");
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn new_places_come_first_and_the_oldest_are_forgotten() {
        let at = |hosts: &str| format!("posthouse://{}@{hosts}", relay()).parse::<RelayAddress>().unwrap();
        let mut known = at("a:1,b:1");
        assert!(!known.add(at("b:1").hosts()));
        assert_eq!(known, at("a:1,b:1"));
        assert!(known.add(at("b:1,c:1").hosts()));
        assert_eq!(known, at("b:1,c:1,a:1"));
        known.prefer(at("a:1").hosts());
        assert_eq!(known, at("a:1,b:1,c:1"));
        assert!(known.add(at("1:1,2:1,3:1,4:1,5:1,6:1").hosts()));
        assert_eq!(known, at("1:1,2:1,3:1,4:1,5:1,6:1,a:1,b:1"));
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong_with_it() {
        let relay = relay();
        let wrong = |text: String| text.parse::<RelayAddress>().unwrap_err();
        assert!(matches!(wrong("http://x".into()), AddressError::Scheme(_)));
        assert_eq!(wrong("posthouse://host:1".into()), AddressError::NoRelay);
        assert_eq!(wrong("posthouse://abc@host:1".into()), AddressError::Relay(IdError::Length(3)));
        assert_eq!(wrong(format!("posthouse://{relay}@host")), AddressError::NoPort("host".into()));
        for port in ["0", "65536", "+1", ""] {
            assert_eq!(wrong(format!("posthouse://{relay}@host:{port}")), AddressError::Port(port.into()));
        }
        assert_eq!(wrong(format!("posthouse://{relay}@::1:1")), AddressError::Brackets("::1:1".into()));
        assert_eq!(wrong(format!("posthouse://{relay}@ho st:1")), AddressError::Host("ho st:1".into()));
        assert!(matches!(wrong(format!("posthouse://{relay}@h:1/x")), AddressError::NotARelay(_)));
        let hosts = ["h:1"; 9].join(",");
        assert_eq!(wrong(format!("posthouse://{relay}@{hosts}")), AddressError::TooManyHosts(9));
        assert_eq!(format!("posthouse://{relay}@h:1").parse::<PeerAddress>(), Err(AddressError::NoPeer));
        assert!(matches!(format!("posthouse://{relay}@h:1/x").parse::<PeerAddress>(), Err(AddressError::Peer(_))));
    }

    /// Text that is nearly an address: pieces of one, in an order that need not make sense.
    fn nearly() -> impl Strategy<Value = String> {
        let key = RelayId::from_bytes([7; 32]).to_string();
        let pieces = ["posthouse://", &key, "@", ":", ",", "/", "[", "]", "::1", "host", "4433", "0", "é", " "];
        let pieces: Vec<String> = pieces.into_iter().map(str::to_owned).collect();
        let piece = prop_oneof![4 => prop::sample::select(pieces), 1 => "\\PC{0,5}"];
        (any::<bool>(), prop::collection::vec(piece, 0..12)).prop_map(move |(begun, pieces)| {
            format!("{}{}", if begun { relay_at() } else { String::new() }, pieces.concat())
        })
    }

    fn relay_at() -> String {
        format!("posthouse://{}@", relay())
    }

    fn host() -> impl Strategy<Value = HostPort> {
        let name = prop_oneof!["[a-z0-9._-]{1,40}", any::<Ipv6Addr>().prop_map(|address| address.to_string())];
        (name, 1..=u16::MAX).prop_map(|(host, port)| HostPort { host, port })
    }

    proptest! {
        #[test]
        fn every_address_is_read_back(key in any::<[u8; 32]>(), hosts in prop::collection::vec(host(), 1..=MAX_HOSTS)) {
            let address = RelayAddress { relay: RelayId::from_bytes(key), hosts: hosts.into() };
            prop_assert_eq!(address.to_string().parse(), Ok(address.clone()));
            let peer = address.peer(PeerId::from_bytes(key));
            prop_assert_eq!(peer.to_string().parse(), Ok(peer));
        }

        #[test]
        fn any_text_is_an_address_that_is_read_back_or_an_error(text in prop_oneof![nearly(), "\\PC{0,80}"]) {
            if let Ok(address) = text.parse::<RelayAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(address) = text.parse::<PeerAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Err(error) = text.parse::<PeerAddress>() {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
