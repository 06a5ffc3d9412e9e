//! The names of things: peers, relays, messages, lanes, stores.
//!
//! Every id is a newtype, so that one kind can never be passed for another. This file knows how ids are
//! written and parsed; it makes none by itself: randomness and time are passed in.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};

/// Bytes of an Ed25519 public key.
pub const KEY_BYTES: usize = 32;

/// Characters of a key in unpadded base32: ceil(256 / 5).
pub const KEY_TEXT_CHARS: usize = 52;

/// RFC 4648 base32, lower case, without padding. Canonical: the four unused bits of the last character
/// must be zero, and upper case is refused, so that one key has exactly one spelling.
fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A key is exactly [`KEY_TEXT_CHARS`] characters long.
    #[error("an id has {KEY_TEXT_CHARS} characters, this has {0}")]
    Length(usize),
    /// A character that base32 (lower case) does not have.
    #[error("character {position} is not one of a-z and 2-7")]
    Character {
        /// Counted from 1.
        position: usize,
    },
    /// The last character carries bits beyond the 256 of the key.
    #[error("the last character is not possible in an id: was it copied whole?")]
    Trailing,
}

fn parse_key(text: &str) -> Result<[u8; KEY_BYTES], IdError> {
    let chars = text.chars().count();
    if chars != KEY_TEXT_CHARS {
        return Err(IdError::Length(chars));
    }
    if let Some(at) = text.chars().position(|c| !matches!(c, 'a'..='z' | '2'..='7')) {
        return Err(IdError::Character { position: at + 1 });
    }
    let bytes = base32().decode(text.as_bytes()).map_err(|_| IdError::Trailing)?;
    <[u8; KEY_BYTES]>::try_from(bytes).map_err(|_| IdError::Trailing)
}

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// The id of the holder of this Ed25519 public key.
            #[must_use]
            pub const fn from_bytes(key: [u8; KEY_BYTES]) -> Self {
                Self(key)
            }

            /// The Ed25519 public key.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            /// The first eight characters: enough for a log line, too few to reach the holder.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_key(text).map(Self)
            }
        }
    };
}

key_id! {
    /// Who sends and receives: an Ed25519 public key, written as 52 characters of lower-case base32.
    PeerId
}
key_id! {
    /// A relay: an Ed25519 public key, written like a [`PeerId`].
    RelayId
}

impl From<RelayId> for PeerId {
    /// A relay is an ordinary client of another relay; there it is known by the same key.
    fn from(relay: RelayId) -> Self {
        Self(relay.0)
    }
}

impl From<PeerId> for RelayId {
    /// The key that a client certificate showed, read as that of a relay.
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

/// One message, from its sender to its outcome: a UUIDv7 (RFC 9562, section 5.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(uuid::Uuid);

impl MessageId {
    /// Makes an id from a Unix time in milliseconds (48 bits are kept) and ten random bytes.
    #[must_use]
    pub const fn new(unix_ms: u64, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, random).into_uuid())
    }

    /// The id with these sixteen bytes, whatever their version: a relay does not judge a sender's ids.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A lane's id: 64 random bits chosen by the sender. On the wire eight bytes, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneId({self})")
    }
}

/// One sender and one recipient, in that direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pair {
    /// Who sends.
    pub sender: PeerId,
    /// Who receives.
    pub recipient: PeerId,
}

/// A lane together with its pair: what names a lane among many senders.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneKey {
    /// Whose messages the lane holds.
    pub pair: Pair,
    /// The lane among the pair's.
    pub lane: LaneId,
}

/// One life of a store file: made with the file and renewed by a restore, so that a `seq` or a cursor
/// given by another life is recognised and void.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_written_and_read_back_the_same() {
        let id = PeerId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        let text = id.to_string();
        assert_eq!(text.len(), KEY_TEXT_CHARS);
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn only_the_canonical_spelling_of_a_key_is_taken() {
        let text = RelayId::from_bytes([0xab; 32]).to_string();
        assert_eq!(text.to_uppercase().parse::<RelayId>(), Err(IdError::Character { position: 1 }));
        assert_eq!(text[1..].parse::<RelayId>(), Err(IdError::Length(51)));
        let mut last = text.clone();
        last.pop();
        last.push('b');
        assert_eq!(last.parse::<RelayId>(), Err(IdError::Trailing));
        assert_eq!(format!("{}0", &text[..51]).parse::<RelayId>(), Err(IdError::Character { position: 52 }));
    }

    #[test]
    fn a_message_id_is_a_version_7_uuid_of_its_time() {
        let id = MessageId::new(1_700_000_000_000, &[0xff; 10]);
        assert_eq!(id.to_string(), "018bcfe5-6800-7fff-bfff-ffffffffffff");
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_and_has_one_spelling(bytes in any::<[u8; 32]>(), at in 0usize..KEY_TEXT_CHARS, other in "[a-z2-7]") {
            let id = PeerId::from_bytes(bytes);
            let text = id.to_string();
            prop_assert_eq!(text.parse(), Ok(id));
            let mut changed = text.clone();
            changed.replace_range(at..=at, &other);
            prop_assert!(changed == text || changed.parse() != Ok(id));
        }

        #[test]
        fn any_text_is_the_one_spelling_of_a_key_or_an_error(text in prop_oneof!["\\PC{0,60}", "[a-z2-7]{51}.", "[a-z2-7]{52}"]) {
            if let Ok(id) = text.parse::<RelayId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
