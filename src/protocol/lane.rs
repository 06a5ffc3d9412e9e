//! The frames about lanes: WHERE asks what became of one, CLOSE lets its row go.

use serde::{Deserialize, Serialize};

use super::message::Exception;
use super::wire;
use crate::id::{LaneId, LaneKey, Pair, PeerId};
use crate::ranges::Ranges;

/// Names a lane of this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneRef {
    /// The sender, where the submitter is a relay.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<PeerId>,
    /// The recipient.
    #[serde(rename = "t")]
    pub recipient: PeerId,
    /// The lane.
    #[serde(rename = "l")]
    pub lane: LaneId,
}

impl LaneRef {
    /// The lane that a session of `submitter` means.
    #[must_use]
    pub fn key(&self, submitter: PeerId) -> LaneKey {
        let pair = Pair { sender: self.sender.unwrap_or(submitter), recipient: self.recipient };
        LaneKey { pair, lane: self.lane }
    }
}

/// A lane and the numbers of it that the asker still holds unresolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireLaneQuestion", into = "WireLaneQuestion")]
pub struct LaneQuestion {
    /// Which lane.
    pub lane: LaneRef,
    /// The first number asked about.
    pub from: u64,
    /// The last number asked about.
    pub to: u64,
}

/// Written out for the same reason as ACK:R.
#[derive(Serialize, Deserialize, Clone)]
struct WireLaneQuestion {
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    sender: Option<PeerId>,
    #[serde(rename = "t")]
    recipient: PeerId,
    #[serde(rename = "l")]
    lane: LaneId,
    #[serde(rename = "a", deserialize_with = "wire::integer")]
    from: u64,
    #[serde(rename = "b", deserialize_with = "wire::integer")]
    to: u64,
}

impl From<LaneQuestion> for WireLaneQuestion {
    fn from(LaneQuestion { lane: LaneRef { sender, recipient, lane }, from, to }: LaneQuestion) -> Self {
        Self { sender, recipient, lane, from, to }
    }
}

impl From<WireLaneQuestion> for LaneQuestion {
    fn from(WireLaneQuestion { sender, recipient, lane, from, to }: WireLaneQuestion) -> Self {
        Self { lane: LaneRef { sender, recipient, lane }, from, to }
    }
}

/// R:WHERE: what became of these?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereR {
    /// Counts the requests of this session.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// The lanes; at most [`MAX_LANES_ASKED`](super::limit::MAX_LANES_ASKED).
    #[serde(rename = "l", deserialize_with = "wire::list")]
    pub lanes: Vec<LaneQuestion>,
}

/// The row of one lane, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    /// The last number that the relay holds or has held; 0 if it has no row. Higher ones are unknown there.
    #[serde(rename = "n", deserialize_with = "wire::integer")]
    pub last: u64,
    /// The last number that this answer speaks of; below what was asked if the rest has to be asked again.
    #[serde(rename = "u", deserialize_with = "wire::integer")]
    pub upto: u64,
    /// The numbers that were delivered.
    #[serde(rename = "d", default, skip_serializing_if = "Ranges::is_empty")]
    pub delivered: Ranges,
    /// The numbers that ended otherwise; all others up to `last` are pending.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list")]
    pub exceptions: Vec<Exception>,
}

/// A:WHERE: one row for each lane asked about, in the order of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereA {
    /// The request it answers.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// The rows; fewer than asked if they do not fit a frame: the others have to be asked again.
    #[serde(rename = "r", deserialize_with = "wire::list")]
    pub lanes: Vec<LaneState>,
}

/// R:CLOSE: every outcome of these lanes is known and they will not be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseR {
    /// Counts the requests of this session.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
    /// The lanes; at most [`MAX_LANES_ASKED`](super::limit::MAX_LANES_ASKED).
    #[serde(rename = "l", deserialize_with = "wire::list")]
    pub lanes: Vec<LaneRef>,
}

/// A:CLOSE: the rows are gone, or were already; a row with something pending stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseA {
    /// The request it answers.
    #[serde(rename = "q", deserialize_with = "wire::integer")]
    pub request: u64,
}
