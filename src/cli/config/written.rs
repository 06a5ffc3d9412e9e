//! What stands in the configuration file: numbers, texts, lists and tables. What is none of these is refused in the
//! words of the file, not in those of this program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::address::{HostPort, PeerAddress, RelayAddress, SCHEME};
use crate::id::{PeerId, RelayId};

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<T>(pub(super) T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Number(PhantomData))
    }
}

struct Number<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Visitor<'_> for Number<T> {
    type Value = Whole<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, without quotes and without a unit")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole<T>, E> {
        self.visit_i128(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole<T>, E> {
        self.visit_i128(number.into())
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Whole<T>, E> {
        let most = || (1i128 << (8 * size_of::<T>())) - 1;
        T::try_from(number).map(Whole).map_err(|_| match number < 0 {
            true => E::custom(format!("{number} is negative; use 0 or more")),
            false => E::custom(format!("{number} is too large; use at most {}", most())),
        })
    }
}

/// Something that is read from a text.
#[derive(Debug)]
pub(super) struct Text<T>(pub(super) T);

/// How a text is read.
pub(super) trait FromText: Sized {
    /// What a list of such texts looks like.
    const LIST: &'static str = "";

    /// # Errors
    /// What is wrong, and what would be right.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// The same of a flag.
pub(in crate::cli) fn read<T: FromText>(text: &str) -> Result<T, String> {
    T::from_text(text)
}

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::from_text(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl FromText for SocketAddr {
    fn from_text(text: &str) -> Result<Self, String> {
        let right = r#"write one like "[::]:4433" or "127.0.0.1:9443""#;
        text.parse().map_err(|_| format!("{text:?} is no IP address with a port: {right}"))
    }
}

impl FromText for HostPort {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.starts_with(SCHEME) {
            return Err(format!("{text:?} is a whole address: write HOST:PORT alone, as relay.example.org:4433"));
        }
        let host: Self = text.parse().map_err(|error| format!("{text:?} is no HOST:PORT: {error}"))?;
        match host.host.parse() {
            Ok::<IpAddr, _>(address) if address.is_unspecified() => {
                Err(format!("{text:?} leads nowhere: name the host or the IP address that others reach"))
            }
            _ => Ok(host),
        }
    }
}

impl FromText for RelayAddress {
    const LIST: &'static str = r#"a list of relays' addresses, such as ["posthouse://ID@HOST:PORT"]"#;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?} is no relay's address: {error}"))
    }
}

/// Relays by id, or by an address of theirs.
impl FromText for RelayId {
    const LIST: &'static str = r#"a list of relays' ids or addresses, such as ["ID", "ID"]"#;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.starts_with(SCHEME) {
            return RelayAddress::from_text(text).map(|address| address.relay);
        }
        text.parse().map_err(|error| format!("{text:?} is no relay's id: {error}"))
    }
}

/// Peers by id, or by address.
impl FromText for PeerId {
    const LIST: &'static str = r#"a list of peers' ids or addresses, such as ["ID", "ID"]"#;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.starts_with(SCHEME) {
            let address: Result<PeerAddress, _> = text.parse();
            return address
                .map(|address| address.peer)
                .map_err(|error| format!("{text:?} is no peer's address: {error}"));
        }
        text.parse().map_err(|error| format!("{text:?} is no peer's id: {error}"))
    }
}

/// Things that are read from texts, each once.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) BTreeSet<T>);

impl<'de, T: FromText + Ord> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Elements(PhantomData)).map(|listed| Self(listed.into_iter().collect()))
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: FromText> Visitor<'de> for Elements<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::LIST)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(Text(element)) = list.next_element()? {
            read.push(element);
        }
        Ok(read)
    }
}

/// Where relays are: one address for each, which may name several places.
#[derive(Debug)]
pub(super) struct Places(pub(super) BTreeMap<RelayId, RelayAddress>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut places = BTreeMap::new();
        for address in from.deserialize_any(Elements::<RelayAddress>(PhantomData))? {
            if let Some(other) = places.insert(address.relay, address) {
                let relay = other.relay;
                return Err(D::Error::custom(format!(
                    "{relay} has two addresses here: write one that names both places, \
                     posthouse://ID@HOST:PORT,HOST:PORT"
                )));
            }
        }
        Ok(Self(places))
    }
}

/// A table inside the file. A list of settings in their order is none.
pub(super) fn table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Table(PhantomData))
}

struct Table<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table: its name in single brackets on a line of its own, and its settings below")
    }

    fn visit_map<A: MapAccess<'de>>(self, settings: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(settings))
    }
}
