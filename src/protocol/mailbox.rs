//! The frames of the sync streams: STATUS counts, PAGE fetches and acknowledges.

use serde::{Deserialize, Serialize};

use super::message::{MsgN, Taken};
use super::wire;
use crate::id::{PeerId, StoreId};

/// What waits from one sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderCount {
    /// The sender.
    #[serde(rename = "f")]
    pub sender: PeerId,
    /// Messages.
    #[serde(rename = "n", deserialize_with = "wire::integer")]
    pub messages: u64,
    /// Bytes, envelopes included.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub bytes: u64,
}

/// What waits in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Messages.
    #[serde(rename = "n", deserialize_with = "wire::integer")]
    pub messages: u64,
    /// Bytes, envelopes included.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub bytes: u64,
    /// When the oldest arrived, by the relay's clock, Unix ms.
    #[serde(
        rename = "o",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    pub oldest_ms: Option<u64>,
    /// When the newest arrived.
    #[serde(
        rename = "w",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    pub newest_ms: Option<u64>,
    /// By sender, the largest first.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub senders: Vec<SenderCount>,
    /// There are more senders than are listed.
    #[serde(rename = "m", default, skip_serializing_if = "wire::is_false")]
    pub more: bool,
}

/// R:STATUS: what waits?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusR {
    /// Counts the requests of this stream, from 0.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// Only from this sender.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<PeerId>,
}

/// A:STATUS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusA {
    /// The request it answers.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// What waits.
    #[serde(rename = "s")]
    pub status: Status,
}

/// From which end a mailbox is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The longest waiting first.
    Oldest,
    /// The latest arrival first.
    Newest,
}

/// R:PAGE: the next messages, please, and these from before are answered. Repeating it does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageR {
    /// Counts the requests of this stream, from 0.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// From which end.
    #[serde(rename = "o")]
    pub order: Order,
    /// Go on behind this `seq`; absent, begin at the end that `order` names.
    #[serde(
        rename = "c",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    pub cursor: Option<u64>,
    /// Only from this sender.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<PeerId>,
    /// At most so many messages; 0 is none, above the limit is the limit.
    #[serde(rename = "n", deserialize_with = "wire::integer")]
    pub max_messages: u64,
    /// At most so many bytes, but one message at least.
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    pub max_bytes: u64,
    /// The store that gave `cursor` and the answers' `seq`s; for another one they are void.
    #[serde(rename = "i")]
    pub store: StoreId,
    /// The answers to messages of earlier pages.
    #[serde(rename = "k", default, skip_serializing_if = "Taken::is_empty")]
    pub answers: Taken,
}

/// A:PAGE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageA {
    /// The request it answers.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// The messages, in the order asked for; empty if there are none.
    #[serde(rename = "m", deserialize_with = "wire::list")]
    pub messages: Vec<MsgN>,
    /// Where the next page goes on: the last `seq` looked at.
    #[serde(
        rename = "c",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "wire::optional_integer"
    )]
    pub cursor: Option<u64>,
    /// Messages that wait in the mailbox, of this sender if one was named, those of this page included.
    #[serde(rename = "r", deserialize_with = "wire::integer")]
    pub remaining: u64,
    /// Nothing lies beyond this page.
    #[serde(rename = "e")]
    pub complete: bool,
}
