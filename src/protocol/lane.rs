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

impl LaneState {
    /// Bytes that a row takes in a frame besides its runs, at most: the map, four keys, two numbers, two lengths.
    pub const BYTES: usize = 1 + 4 * 2 + 2 * wire::NUMBER_BYTES + 2 * 3;

    /// Bytes that it takes in a frame, at most.
    #[must_use]
    pub fn max_wire_bytes(&self) -> usize {
        let exceptions: usize = self.exceptions.iter().map(Exception::max_wire_bytes).sum();
        Self::BYTES + self.delivered.len() * wire::RANGE_BYTES + exceptions
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::RelayId;
    use crate::protocol::limit::MAX_INTEGER;
    use crate::protocol::{Frame, Outcome, PREFIX_BYTES, RejectReason, Verdict, encode};

    fn verdict() -> impl Strategy<Value = Verdict> {
        let reason = prop::sample::select(RejectReason::ALL);
        let outcome = prop_oneof![
            Just(Outcome::Delivered),
            any::<bool>().prop_map(|maybe_taken| Outcome::Expired { maybe_taken }),
            (reason, prop::option::of("[a-zäß]{0,128}"), any::<bool>())
                .prop_map(|(reason, text, maybe_taken)| Outcome::Rejected { reason, text, maybe_taken }),
        ];
        let relay = any::<bool>().prop_map(|elsewhere| elsewhere.then(|| RelayId::from_bytes([7; 32])));
        (outcome, relay).prop_map(|(outcome, relay)| Verdict { outcome, relay })
    }

    fn row() -> impl Strategy<Value = LaneState> {
        let number = 1..=MAX_INTEGER;
        let run = (number.clone(), number.clone(), verdict()).prop_map(|(one, other, verdict)| Exception {
            from: one.min(other),
            to: one.max(other),
            verdict,
        });
        let delivered = prop::collection::vec(number.clone(), 0..40);
        (number.clone(), number, delivered, prop::collection::vec(run, 0..20)).prop_map(
            |(last, upto, delivered, exceptions)| LaneState {
                last,
                upto,
                delivered: delivered.into_iter().collect(),
                exceptions,
            },
        )
    }

    proptest! {
        #[test]
        fn rows_take_no_more_bytes_than_they_are_counted_for(lanes in prop::collection::vec(row(), 1..8)) {
            let counted: usize = lanes.iter().map(LaneState::max_wire_bytes).sum();
            let mut written = bytes::BytesMut::new();
            encode(&Frame::from(WhereA { request: MAX_INTEGER, lanes }), &mut written);
            // The map, its two keys, the number and the length of the list.
            let around = PREFIX_BYTES + 1 + 2 + 9 + 2 + 3;
            prop_assert!(written.len() <= counted + around, "{} bytes, counted as {counted}", written.len());
        }
    }
}
