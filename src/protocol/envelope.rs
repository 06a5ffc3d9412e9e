//! The envelope: the one byte string of a message that travels unchanged from sender to recipient.
//!
//! A fixed layout, so that it can be signed, stored and passed on without being written anew:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | layout version, 1 |
//! | 1 | 32 | sender |
//! | 33 | 32 | sender's home relay |
//! | 65 | 32 | recipient |
//! | 97 | 16 | message id |
//! | 113 | 8 | lane |
//! | 121 | 8 | n, big-endian, 1 to 2^53 - 1 |
//! | 129 | 8 | created by the sender's clock, Unix ms, big-endian |
//! | 137 | 8 | lifetime at the start, ms, big-endian |
//! | 145 | rest | body |

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::limit::MAX_INTEGER;
use crate::id::{LaneId, LaneKey, MessageId, Pair, PeerId, RelayId};
use crate::time::{UnixMillis, millis};

/// Bytes in front of the body.
pub const HEADER_BYTES: usize = 145;

/// Where its fields begin.
const SENDER: usize = 1;
const RELAY: usize = 33;
const RECIPIENT: usize = 65;
const ID: usize = 97;
const LANE: usize = 113;
const N: usize = 121;
const CREATED: usize = 129;
const TTL: usize = 137;

/// What an Ed25519 signature over an envelope starts with, so that it can never be one over something else.
pub const SIGNATURE_LABEL: &[u8] = b"posthouse envelope 1\0";

/// A message in the form in which it travels. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Checked: a whole header with its numbers in range, and the body.
    bytes: Bytes,
}

/// The fields of an envelope, without the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Who sends.
    pub sender: PeerId,
    /// The sender's home relay.
    pub relay: RelayId,
    /// Who receives.
    pub recipient: PeerId,
    /// The message's id.
    pub id: MessageId,
    /// The lane it stands in.
    pub lane: LaneId,
    /// Its number there, from 1.
    pub n: u64,
    /// When it was made, by the sender's clock. For people; nothing is decided by it.
    pub created: UnixMillis,
    /// The lifetime that the sender gave it. What remains of it travels beside the envelope.
    pub ttl: Duration,
}

impl Header {
    /// Reads the beginning of an envelope.
    ///
    /// # Errors
    /// [`EnvelopeError`], as [`Envelope::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() < HEADER_BYTES {
            return Err(EnvelopeError::Short(bytes.len()));
        }
        let [version] = field(bytes, 0);
        if version != 1 {
            return Err(EnvelopeError::Version(version));
        }
        let in_range = |at, name| match u64::from_be_bytes(field(bytes, at)) {
            value if value <= MAX_INTEGER => Ok(()),
            _ => Err(EnvelopeError::Range(name)),
        };
        in_range(N, "n")?;
        in_range(CREATED, "creation time")?;
        in_range(TTL, "lifetime")?;
        let header = Self::read(bytes);
        if header.n == 0 { Err(EnvelopeError::Range("n")) } else { Ok(header) }
    }

    #[inline]
    fn read(bytes: &[u8]) -> Self {
        let number = |at| u64::from_be_bytes(field(bytes, at));
        Self {
            sender: PeerId::from_bytes(field(bytes, SENDER)),
            relay: RelayId::from_bytes(field(bytes, RELAY)),
            recipient: PeerId::from_bytes(field(bytes, RECIPIENT)),
            id: MessageId::from_bytes(field(bytes, ID)),
            lane: LaneId(number(LANE)),
            n: number(N),
            created: UnixMillis(number(CREATED)),
            ttl: Duration::from_millis(number(TTL)),
        }
    }

    /// The lane together with its pair.
    #[must_use]
    pub const fn lane_key(&self) -> LaneKey {
        LaneKey { pair: Pair { sender: self.sender, recipient: self.recipient }, lane: self.lane }
    }
}

/// The field at this offset of a header that is whole.
#[inline]
fn field<const BYTES: usize>(bytes: &[u8], at: usize) -> [u8; BYTES] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; BYTES])
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than its header.
    #[error("an envelope has at least {HEADER_BYTES} bytes, this has {0}")]
    Short(usize),
    /// A layout this version does not know.
    #[error("envelope layout {0} is not known")]
    Version(u8),
    /// A number that is 0 or reaches 2^53.
    #[error("the envelope's {0} is out of range")]
    Range(&'static str),
}

impl Envelope {
    /// Writes a message down.
    #[must_use]
    pub fn new(header: Header, body: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body.len());
        bytes.put_u8(1);
        bytes.put_slice(header.sender.as_bytes());
        bytes.put_slice(header.relay.as_bytes());
        bytes.put_slice(header.recipient.as_bytes());
        bytes.put_slice(header.id.as_bytes());
        bytes.put_u64(header.lane.0);
        bytes.put_u64(header.n);
        bytes.put_u64(header.created.0);
        bytes.put_u64(millis(header.ttl));
        bytes.put_slice(body);
        Self { bytes: bytes.freeze() }
    }

    /// Reads a message that somebody else wrote.
    ///
    /// # Errors
    /// [`EnvelopeError`]: always the writer's fault.
    pub fn parse(bytes: Bytes) -> Result<Self, EnvelopeError> {
        Header::parse(&bytes)?;
        Ok(Self { bytes })
    }

    /// Who, to whom, and where in its lane: read from the bytes each time, so that an envelope is small.
    #[inline]
    #[must_use]
    pub fn header(&self) -> Header {
        Header::read(&self.bytes)
    }

    /// What the application gave to be sent.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Bytes of the body.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// All of it, as it travels.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What its sender signs: [`SIGNATURE_LABEL`] and all of its bytes.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [SIGNATURE_LABEL, &self.bytes].concat()
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = self.header();
        write!(f, "Envelope({} {}/{}, {} bytes)", header.id, header.lane, header.n, self.bytes.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn sample(n: u64, body: &[u8]) -> Envelope {
        let header = Header {
            sender: PeerId::from_bytes([1; 32]),
            relay: RelayId::from_bytes([2; 32]),
            recipient: PeerId::from_bytes([3; 32]),
            id: MessageId::from_bytes([4; 16]),
            lane: LaneId(0x0506_0708_090a_0b0c),
            n,
            created: UnixMillis(1_700_000_000_000),
            ttl: Duration::from_secs(3600),
        };
        Envelope::new(header, body)
    }

    #[test]
    fn an_envelope_has_the_documented_bytes() {
        let envelope = sample(7, b"hi");
        let expected = [
            "01".to_owned(),
            "01".repeat(32),
            "02".repeat(32),
            "03".repeat(32),
            "04".repeat(16),
            "05060708090a0b0c".to_owned(),
            "0000000000000007".to_owned(),
            "0000018bcfe56800".to_owned(),
            "000000000036ee80".to_owned(),
            "6869".to_owned(),
        ];
        assert_eq!(data_encoding::HEXLOWER.encode(envelope.bytes()), expected.concat());
        assert_eq!(envelope.bytes().len(), HEADER_BYTES + 2);
    }

    #[test]
    fn an_envelope_is_read_back_as_it_was_written() {
        for body in [&b""[..], b"hello", &[0xff; 1000]] {
            let envelope = sample(9, body);
            let read = Envelope::parse(envelope.bytes().clone()).unwrap();
            assert_eq!((read.header(), &read.body()[..]), (envelope.header(), body));
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused_by_name() {
        let good = sample(1, b"").bytes().to_vec();
        let parse = |bytes: Vec<u8>| Envelope::parse(bytes.into()).unwrap_err();
        assert_eq!(parse(good[..144].to_vec()), EnvelopeError::Short(144));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(parse(with(0, 2)), EnvelopeError::Version(2));
        assert_eq!(parse(with(128, 0)), EnvelopeError::Range("n"));
        assert_eq!(parse(with(121, 1)), EnvelopeError::Range("n"));
        assert_eq!(parse(with(137, 1)), EnvelopeError::Range("lifetime"));
    }

    proptest! {
        #[test]
        fn every_envelope_is_read_back(
            keys in any::<[[u8; 32]; 3]>(),
            id in any::<[u8; 16]>(),
            lane in any::<u64>(),
            n in 1..=MAX_INTEGER,
            times in (0..=MAX_INTEGER, 0..=MAX_INTEGER),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let header = Header {
                sender: PeerId::from_bytes(keys[0]),
                relay: RelayId::from_bytes(keys[1]),
                recipient: PeerId::from_bytes(keys[2]),
                id: MessageId::from_bytes(id),
                lane: LaneId(lane),
                n,
                created: UnixMillis(times.0),
                ttl: Duration::from_millis(times.1),
            };
            let envelope = Envelope::new(header, &body);
            prop_assert_eq!(Envelope::parse(envelope.bytes().clone()), Ok(envelope.clone()));
            prop_assert_eq!(&envelope.body()[..], &body[..]);
        }

        #[test]
        fn any_bytes_are_an_envelope_with_a_single_form_or_an_error(
            version in prop::option::of(0..3u8),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            high in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let mut bytes = bytes;
            if let Some(version) = version
                && bytes.len() >= HEADER_BYTES
            {
                bytes[0] = version;
                // Numbers at random are nearly all too large.
                for at in [121, 129, 137] {
                    bytes[at..at + 2].fill(0);
                }
                for at in high {
                    *at.get_mut(&mut bytes[..]) = 0xff;
                }
            }
            if let Ok(envelope) = Envelope::parse(bytes.clone().into()) {
                let again = Envelope::new(envelope.header(), &envelope.body());
                prop_assert_eq!(&again.bytes()[..], &bytes[..]);
            }
        }
    }
}
