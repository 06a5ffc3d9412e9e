//! The frames by which a recipient says whose messages it takes: POLICY, on the sync streams.

use serde::{Deserialize, Serialize};

use super::wire;
use crate::id::PeerId;

/// Whose messages a recipient takes, but for those that it blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Senders {
    /// Everybody's.
    #[default]
    Anyone,
    /// Those of the peers that it allowed.
    Contacts,
}

impl Senders {
    /// The name on the wire and in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Contacts => "contacts",
        }
    }
}

/// What is to be different from now on. Doing it twice is doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Whose messages are taken in general.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<Senders>,
    /// Peers to take off the list; before those below.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub forget: Vec<PeerId>,
    /// Peers to allow.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub allow: Vec<PeerId>,
    /// Peers to block; one that is to be allowed as well is blocked.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub block: Vec<PeerId>,
}

impl PolicyChange {
    /// Whether nothing is to be different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.senders.is_none() && self.peers() == 0
    }

    /// How many peers it names.
    #[must_use]
    pub const fn peers(&self) -> usize {
        self.forget.len() + self.allow.len() + self.block.len()
    }
}

/// Whose messages a recipient takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// In general.
    #[serde(rename = "m")]
    pub senders: Senders,
    /// Peers that are allowed.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub allowed: Vec<PeerId>,
    /// Peers that are blocked.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub blocked: Vec<PeerId>,
}

/// R:POLICY: from now on it is like this; or, without a change: how is it?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyR {
    /// Counts the requests of this stream, from 0.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// What is to be different.
    #[serde(rename = "c", default, skip_serializing_if = "PolicyChange::is_empty")]
    pub change: PolicyChange,
}

/// A:POLICY: the change holds; or this is how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyA {
    /// The request it answers.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// How it is; told where nothing was to be changed.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The list would be too long: nothing was changed.
    #[serde(rename = "x", default, skip_serializing_if = "wire::is_false")]
    pub full: bool,
}
