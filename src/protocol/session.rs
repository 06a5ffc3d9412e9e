//! The frames that open and end a session: OPEN, HELLO, AGAIN, GOAWAY, NOP.

use serde::{Deserialize, Serialize};

use super::mailbox::Status;
use super::message::Durability;
use super::wire;
use crate::id::{PeerId, StoreId};

/// What a stream is for: the first frame on each says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Client to relay, once, first: HELLO, then MSG, WHERE and CLOSE.
    Submit,
    /// Relay to client, once: MSG:N, ACK:N and GOAWAY; back ACK:R, and ACK:A.
    Notify,
    /// Client to relay, any number: STATUS and PAGE.
    Sync,
}

/// N:OPEN, the first frame of each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenN {
    /// What follows.
    #[serde(rename = "k")]
    pub kind: StreamKind,
}

/// As what a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A peer, for its own messages.
    Peer,
    /// A relay, for messages of the peers whose home it is.
    Relay,
}

/// When the relay starts to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushMode {
    /// From A:HELLO on; what lies at or below its watermark is backlog, and is paged.
    AtOnce,
    /// From the end of the page that is the first oldest-first one to answer `complete`.
    AfterBacklog,
}

/// R:HELLO, the second frame of the submit stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloR {
    /// The protocol version; this one is 1.
    #[serde(rename = "v", deserialize_with = "wire::integer")]
    pub version: u64,
    /// As what.
    #[serde(rename = "r")]
    pub role: Role,
    /// Which of the peer's devices; 0 for now.
    #[serde(rename = "d", default, deserialize_with = "wire::integer")]
    pub device: u64,
    /// When pushing starts.
    #[serde(rename = "m")]
    pub push: PushMode,
    /// Only this sender's messages are pushed, and only they are the backlog.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<PeerId>,
    /// How many MSG:N may be unacknowledged; 0 for a client that only sends.
    #[serde(rename = "c", deserialize_with = "wire::integer")]
    pub credit_messages: u64,
    /// How many bytes of them.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub credit_bytes: u64,
    /// How long the relay waits for an ACK:R before it repeats, ms.
    #[serde(rename = "t", deserialize_with = "wire::integer")]
    pub ack_timeout_ms: u64,
    /// The token of an invitation, for a relay that wants one.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text")]
    pub invitation: Option<String>,
    /// The program, for the operator's eyes.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text")]
    pub agent: Option<String>,
}

/// A:HELLO: the session is open and every older one of this peer and device is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloA {
    /// The protocol version that both will speak.
    #[serde(rename = "v", deserialize_with = "wire::integer")]
    pub version: u64,
    /// The store that this session's `seq`s belong to.
    #[serde(rename = "i")]
    pub store: StoreId,
    /// How safely messages are kept here.
    #[serde(rename = "d")]
    pub durability: Durability,
    /// The highest `seq` of the mailbox: what is at or below it is backlog.
    #[serde(rename = "w", deserialize_with = "wire::integer")]
    pub watermark: u64,
    /// What waits in the mailbox.
    #[serde(rename = "s")]
    pub status: Status,
    /// The largest body taken here.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub max_body_bytes: u64,
    /// The credit that holds, where the client asked for more than is given.
    #[serde(rename = "c", deserialize_with = "wire::integer")]
    pub credit_messages: u64,
    /// The program, for the client's log.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text")]
    pub agent: Option<String>,
}

/// N:AGAIN: an older session of this peer and device is still open. Who says R:HELLO once more shows that it is alive,
/// and takes that one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainN {}

/// N:GOAWAY: the relay is about to close; come back after the delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoawayN {
    /// When to come back, ms.
    #[serde(rename = "a", deserialize_with = "wire::integer")]
    pub delay_ms: u64,
}

/// N:NOP: says nothing; either side may send it to learn whether the other is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NopN {}
