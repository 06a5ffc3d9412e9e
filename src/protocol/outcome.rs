//! What becomes of a message, and why: the closed lists of reasons.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::wire;
use crate::id::RelayId;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $line:literal])+ $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $line])+ #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire and in every output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a message was rejected for good.
    RejectReason {
        /// The recipient's application refused it; its words come along.
        Refused = "refused",
        /// The body is larger than the relay takes.
        TooLarge = "too_large",
        /// Nobody with this id lives at the relay that the address names.
        UnknownPeer = "unknown_peer",
        /// The recipient does not take messages from this sender.
        Blocked = "blocked",
        /// The address names another relay, and this one does not forward to it.
        NoRoute = "no_route",
        /// The envelope names another sender, or another home relay, than the session's.
        WrongSender = "wrong_sender",
        /// The sender's signature is missing or does not fit.
        BadSignature = "bad_signature",
        /// An operator removed it.
        Removed = "removed",
    }
}

reasons! {
    /// Why a message cannot be accepted now. Its lane waits for the time that the answer names.
    WaitReason {
        /// The recipient's mailbox is full.
        Quota = "quota",
        /// This sender's share of the recipient's mailbox is full.
        QuotaPair = "quota_pair",
        /// Too much waits for the recipient's relay.
        OutboxFull = "outbox_full",
        /// Too many lanes of this submitter or this pair are open.
        Lanes = "lanes",
        /// Too many messages in too short a time.
        Rate = "rate",
        /// The relay's disk is nearly full.
        NoRoom = "no_room",
        /// The relay's store does not work just now.
        Unavailable = "unavailable",
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The recipient's application took it.
    Delivered,
    /// Its time ran out.
    Expired {
        /// Whether the recipient may have taken it all the same.
        maybe_taken: bool,
    },
    /// It was refused for good.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The words of the recipient's application, if it is the one that refused; at most
        /// [`MAX_TEXT_BYTES`](super::limit::MAX_TEXT_BYTES).
        text: Option<String>,
        /// Whether the recipient may have taken it all the same.
        maybe_taken: bool,
    },
}

impl Outcome {
    /// The same outcome with the certainty gone: the message was also offered elsewhere.
    #[must_use]
    pub fn maybe_taken(self) -> Self {
        match self {
            Self::Delivered => Self::Delivered,
            Self::Expired { .. } => Self::Expired { maybe_taken: true },
            Self::Rejected { reason, text, .. } => Self::Rejected { reason, text, maybe_taken: true },
        }
    }
}

/// An outcome and the relay where it happened: `None` is the relay that tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "WireVerdict", into = "WireVerdict")]
pub struct Verdict {
    /// What became of it.
    pub outcome: Outcome,
    /// Where, if not at the relay that tells it.
    pub relay: Option<RelayId>,
}

impl Verdict {
    /// An outcome that happened at the relay that tells it.
    #[must_use]
    pub const fn here(outcome: Outcome) -> Self {
        Self { outcome, relay: None }
    }

    /// Delivered, at the relay that tells it.
    pub const DELIVERED: Self = Self::here(Outcome::Delivered);

    /// Bytes that it takes in a frame, at most.
    #[must_use]
    pub fn max_wire_bytes(&self) -> usize {
        // The map, `o` and `m`; each part with its key and its length.
        let relay = self.relay.map_or(0, |_| 2 + 2 + 32);
        let outcome = match &self.outcome {
            Outcome::Delivered | Outcome::Expired { .. } => 0,
            Outcome::Rejected { reason, text, .. } => {
                2 + 1 + reason.name().len() + text.as_ref().map_or(0, |text| 2 + 3 + text.len())
            }
        };
        1 + 3 + 3 + outcome + relay
    }
}

#[derive(Serialize, Deserialize, Clone)]
struct WireVerdict {
    #[serde(rename = "o")]
    outcome: u8,
    #[serde(rename = "m", default, skip_serializing_if = "wire::is_false")]
    maybe_taken: bool,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    reason: Option<RejectReason>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::text")]
    text: Option<String>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    relay: Option<RelayId>,
}

impl From<Verdict> for WireVerdict {
    fn from(verdict: Verdict) -> Self {
        let relay = verdict.relay;
        let plain = |outcome, maybe_taken| Self { outcome, maybe_taken, reason: None, text: None, relay };
        match verdict.outcome {
            Outcome::Delivered => plain(1, false),
            Outcome::Expired { maybe_taken } => plain(2, maybe_taken),
            Outcome::Rejected { reason, text, maybe_taken } => {
                Self { reason: Some(reason), text, ..plain(3, maybe_taken) }
            }
        }
    }
}

impl TryFrom<WireVerdict> for Verdict {
    type Error = &'static str;
    fn try_from(wire: WireVerdict) -> Result<Self, Self::Error> {
        let outcome = match (wire.outcome, wire.reason) {
            (1, _) => Outcome::Delivered,
            (2, _) => Outcome::Expired { maybe_taken: wire.maybe_taken },
            (3, Some(reason)) => Outcome::Rejected { reason, text: wire.text, maybe_taken: wire.maybe_taken },
            (3, None) => return Err("a rejection names its reason"),
            _ => return Err("an outcome is 1, 2 or 3"),
        };
        Ok(Self { outcome, relay: wire.relay })
    }
}
