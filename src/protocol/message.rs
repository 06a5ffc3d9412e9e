//! The six packets of a message: MSG:R, MSG:A, MSG:N, ACK:R, ACK:A, ACK:N.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::outcome::{Verdict, WaitReason};
use super::wire;
use crate::id::{LaneId, PeerId, StoreId};
use crate::ranges::Ranges;

/// MSG:R, sender to relay: here is a message. Sent once it is in the sender's outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsgR {
    /// Numbers the requests of this session, from 0, ascending.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// The last number of this lane that the sender believes the relay to hold; 0 for none.
    #[serde(rename = "p", deserialize_with = "wire::integer")]
    pub prev: u64,
    /// What remains of its lifetime, ms.
    #[serde(rename = "t", deserialize_with = "wire::integer")]
    pub ttl_ms: u64,
    /// The message; see [`Envelope`](super::Envelope).
    #[serde(rename = "e", with = "wire::blob")]
    pub envelope: Bytes,
    /// The sender's signature over it; needed where it leaves its sender's relay.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none", with = "signature")]
    pub signature: Option<[u8; 64]>,
    /// The relay to forward it to, as an address, if that is not this one.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// How durable an accepted message is (LAW 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Synced to the relay's disk.
    Disk,
    /// Synced to the disks of several machines.
    Replicated,
    /// In the relay's memory alone: for tests.
    Memory,
}

impl Durability {
    /// The name on the wire and in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Replicated => "replicated",
            Self::Memory => "memory",
        }
    }
}

/// What the relay decided about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored, now or already.
    Accepted {
        /// How safely.
        durability: Durability,
        /// The relay had this number already; nothing was stored.
        duplicate: bool,
        /// The lifetime that remains, ms, where the relay clamped what the sender named.
        ttl_ms: Option<u64>,
        /// What became of it, if that is known: only a duplicate can have one.
        verdict: Option<Verdict>,
    },
    /// It is not stored and never will be: this is its outcome.
    Final(Verdict),
    /// Numbers before it are missing: go on from the first one above `last`, naming `last` as `prev`.
    Gap {
        /// The last number that the relay holds.
        last: u64,
    },
    /// Not now; the lane waits.
    Wait {
        /// Why.
        reason: WaitReason,
        /// For how long, ms.
        retry_after_ms: u64,
    },
}

/// MSG:A, relay to sender: the answer to one MSG:R or to a run of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireMsgA", into = "WireMsgA")]
pub struct MsgA {
    /// The first request it answers.
    pub request: u64,
    /// How many consecutive requests have this same answer; at least 1.
    pub count: u64,
    /// The answer.
    pub answer: Answer,
}

#[derive(Serialize, Deserialize, Clone)]
struct WireMsgA {
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    request: u64,
    #[serde(rename = "c", default = "one", skip_serializing_if = "is_one", deserialize_with = "wire::integer")]
    count: u64,
    #[serde(rename = "k")]
    kind: u8,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    #[serde(rename = "u", default, skip_serializing_if = "wire::is_false")]
    duplicate: bool,
    #[serde(
        rename = "t",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    ttl_ms: Option<u64>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(
        rename = "l",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    last: Option<u64>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    reason: Option<WaitReason>,
    #[serde(
        rename = "a",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    retry_after_ms: Option<u64>,
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}

impl From<MsgA> for WireMsgA {
    fn from(message: MsgA) -> Self {
        let mut wire = Self {
            request: message.request,
            count: message.count,
            kind: 0,
            durability: None,
            duplicate: false,
            ttl_ms: None,
            verdict: None,
            last: None,
            reason: None,
            retry_after_ms: None,
        };
        match message.answer {
            Answer::Accepted { durability, duplicate, ttl_ms, verdict } => {
                wire.durability = Some(durability);
                (wire.duplicate, wire.ttl_ms, wire.verdict) = (duplicate, ttl_ms, verdict);
            }
            Answer::Final(verdict) => (wire.kind, wire.verdict) = (1, Some(verdict)),
            Answer::Gap { last } => (wire.kind, wire.last) = (2, Some(last)),
            Answer::Wait { reason, retry_after_ms } => {
                (wire.kind, wire.reason, wire.retry_after_ms) = (3, Some(reason), Some(retry_after_ms));
            }
        }
        wire
    }
}

impl TryFrom<WireMsgA> for MsgA {
    type Error = &'static str;
    fn try_from(wire: WireMsgA) -> Result<Self, Self::Error> {
        let answer = match wire.kind {
            0 => Answer::Accepted {
                durability: wire.durability.ok_or("an acceptance names its durability")?,
                duplicate: wire.duplicate,
                ttl_ms: wire.ttl_ms,
                verdict: wire.verdict,
            },
            1 => Answer::Final(wire.verdict.ok_or("a final refusal carries the outcome")?),
            2 => Answer::Gap { last: wire.last.ok_or("a gap names the last number")? },
            3 => Answer::Wait {
                reason: wire.reason.ok_or("a temporary refusal names its reason")?,
                retry_after_ms: wire.retry_after_ms.ok_or("a temporary refusal names a time")?,
            },
            _ => return Err("an answer is of kind 0 to 3"),
        };
        if wire.count == 0 {
            return Err("an answer is to one request at least");
        }
        Ok(Self { request: wire.request, count: wire.count, answer })
    }
}

/// MSG:N, relay to recipient: a message for you. Also one item of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsgN {
    /// Its place in the mailbox.
    #[serde(rename = "s", deserialize_with = "wire::integer")]
    pub seq: u64,
    /// What remains of its lifetime, ms.
    #[serde(rename = "t", deserialize_with = "wire::integer")]
    pub ttl_ms: u64,
    /// Which attempt this is, from 1; always 1 on a page.
    #[serde(rename = "a", default = "one", skip_serializing_if = "is_one", deserialize_with = "wire::integer")]
    pub attempt: u64,
    /// The message; see [`Envelope`](super::Envelope).
    #[serde(rename = "e", with = "wire::blob")]
    pub envelope: Bytes,
    /// The sender's signature over it, where it has one.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none", with = "signature")]
    pub signature: Option<[u8; 64]>,
}

/// What a recipient's application answered: part of ACK:R and of R:PAGE.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Taken {
    /// The `seq`s that were taken.
    #[serde(rename = "d", default, skip_serializing_if = "Ranges::is_empty")]
    pub taken: Ranges,
    /// Those that the application refused.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub refused: Vec<Refusal>,
}

impl Taken {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.refused.is_empty()
    }
}

/// One message that the recipient's application refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its place in the mailbox.
    #[serde(rename = "s", deserialize_with = "wire::integer")]
    pub seq: u64,
    /// The application's words.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text")]
    pub text: Option<String>,
}

/// ACK:R, recipient to relay: taken, or refused. Sent once the inbox has it on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireAckR", into = "WireAckR")]
pub struct AckR {
    /// Counts the requests of this stream, from 0.
    pub request: u64,
    /// The store that gave the `seq`s; for another one they are void.
    pub store: StoreId,
    /// What was answered.
    pub answers: Taken,
}

/// Written out, since `serde(flatten)` would first keep all that came, unknown keys included, at 32 bytes a
/// value and more.
#[derive(Serialize, Deserialize, Clone)]
struct WireAckR {
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    request: u64,
    #[serde(rename = "i")]
    store: StoreId,
    #[serde(rename = "d", default, skip_serializing_if = "Ranges::is_empty")]
    taken: Ranges,
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    refused: Vec<Refusal>,
}

impl From<AckR> for WireAckR {
    fn from(AckR { request, store, answers: Taken { taken, refused } }: AckR) -> Self {
        Self { request, store, taken, refused }
    }
}

impl From<WireAckR> for AckR {
    fn from(WireAckR { request, store, taken, refused }: WireAckR) -> Self {
        Self { request, store, answers: Taken { taken, refused } }
    }
}

/// ACK:A, relay to recipient: all ACK:R up to this one are received; stop repeating them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckA {
    /// The newest request that is received.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
}

/// The outcomes of a run of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// The first number.
    #[serde(rename = "a", deserialize_with = "wire::integer")]
    pub from: u64,
    /// The last number.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub to: u64,
    /// What became of all of them.
    #[serde(rename = "v")]
    pub verdict: Verdict,
}

impl Exception {
    pub(super) const fn is_reversed(&self) -> bool {
        self.from == 0 || self.from > self.to
    }

    /// Bytes that it takes in a frame, at most.
    #[must_use]
    pub fn max_wire_bytes(&self) -> usize {
        // The map, its three keys, and the numbers.
        1 + 3 * 2 + 2 * wire::NUMBER_BYTES + self.verdict.max_wire_bytes()
    }
}

/// ACK:N, relay to sender: outcomes of messages of one lane. Not acknowledged: R:WHERE finds what was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckN {
    /// The sender, where the submitter is a relay.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<PeerId>,
    /// The recipient.
    #[serde(rename = "t")]
    pub recipient: PeerId,
    /// The lane.
    #[serde(rename = "l")]
    pub lane: LaneId,
    /// The numbers that were delivered.
    #[serde(rename = "d", default, skip_serializing_if = "Ranges::is_empty")]
    pub delivered: Ranges,
    /// The numbers that ended otherwise.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub exceptions: Vec<Exception>,
}

mod signature {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::ByteArray;

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(signature: &Option<[u8; 64]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(signature.as_ref().map_or(&[], |bytes| bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 64]>, D::Error> {
        ByteArray::<64>::deserialize(deserializer).map(|bytes| Some(bytes.into_array()))
    }
}
