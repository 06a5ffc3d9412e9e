//! How single values look in MessagePack: ids as `bin`, integers below 2^53, ranges as pairs.

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;

use super::limit::{MAX_INTEGER, MAX_LIST, MAX_TEXT_BYTES};
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::ranges::Ranges;

macro_rules! as_bin {
    ($name:ty, $length:literal, $to:expr, $from:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&$to(self))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                ByteArray::<$length>::deserialize(deserializer).map(|bytes| $from(bytes.into_array()))
            }
        }
    };
}

as_bin!(PeerId, 32, |id: &PeerId| *id.as_bytes(), PeerId::from_bytes);
as_bin!(RelayId, 32, |id: &RelayId| *id.as_bytes(), RelayId::from_bytes);
as_bin!(StoreId, 16, |id: &StoreId| id.0, StoreId);
as_bin!(LaneId, 8, |id: &LaneId| id.0.to_be_bytes(), |bytes| LaneId(u64::from_be_bytes(bytes)));

/// Bytes of an integer, at most.
pub(super) const NUMBER_BYTES: usize = 9;

/// Bytes of one range in a frame, at most.
pub const RANGE_BYTES: usize = 1 + 2 * NUMBER_BYTES;

/// For `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// An integer below 2^53.
pub(super) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if value > MAX_INTEGER { Err(D::Error::custom("an integer of 2^53 or more")) } else { Ok(value) }
}

/// An integer below 2^53 that may be absent.
pub(super) fn optional_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    integer(deserializer).map(Some)
}

/// A text for people, of bounded length.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MAX_TEXT_BYTES { Err(D::Error::custom("a text that is too long")) } else { Ok(Some(text)) }
}

/// Cuts a text for people to what may travel.
#[must_use]
pub fn clip_text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Bytes as `bin`.
pub(super) mod blob {
    use super::{Bytes, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(deserializer).map(Bytes::from)
    }
}

/// A list with a bound on its length, checked before memory is taken.
pub(super) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MAX_LIST}")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX_LIST {
                    return Err(A::Error::custom("a list that is too long"));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Bounded(std::marker::PhantomData))
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(self.len()))?;
        for range in self.iter() {
            items.serialize_element(&range)?;
        }
        items.end()
    }
}

impl<'de> Deserialize<'de> for Ranges {
    /// Overlapping and unordered ranges melt together; a reversed one is an error.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ranges: Vec<(u64, u64)> = list(deserializer)?;
        if ranges.iter().any(|(from, to)| from > to || *to > MAX_INTEGER) {
            return Err(D::Error::custom("a range that is reversed or reaches 2^53"));
        }
        ranges.sort_unstable();
        Ok(ranges.into_iter().collect())
    }
}
