//! What a relay counts while it runs: packets, refusals, and how sessions end. The store counts for itself.

use std::sync::Arc;

use crate::measure::{Counter, Named};
use crate::protocol::{Answer, CloseCode, Outcome, RejectReason, WaitReason};

/// A refusal that has no reason of its own on the wire: the lane has a gap before the message.
const GAP: &str = "gap";
/// Likewise: its time had run out when it came.
const EXPIRED: &str = "expired";

/// Why a connection is refused before it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// The relay is about to stop.
    Draining,
    /// Its address tries more often than it may.
    TooOften,
    /// Its address has as many connections without R:HELLO as it may.
    AddressFull,
    /// The relay has as many connections as it may, in all or without R:HELLO.
    Full,
}

impl TurnedAway {
    const ALL: [Self; 4] = [Self::Draining, Self::TooOften, Self::AddressFull, Self::Full];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::TooOften => "too_often",
            Self::AddressFull => "address_full",
            Self::Full => "full",
        }
    }
}

/// Counters of one relay since its start. Those of packets count frames, of which one may be about many messages.
#[derive(Debug)]
pub struct Meter {
    /// MSG:R.
    pub msg_r: Counter,
    /// MSG:A.
    pub msg_a: Counter,
    /// MSG:N, repeated ones included.
    pub msg_n: Counter,
    /// ACK:R.
    pub ack_r: Counter,
    /// ACK:A.
    pub ack_a: Counter,
    /// ACK:N.
    pub ack_n: Counter,
    /// Messages handed out on pages.
    pub paged: Counter,
    /// Messages that were not accepted, by reason.
    pub refusals: Named,
    /// Sessions and connections that the relay closed, by close code.
    pub closed: Named,
    /// Connections that were refused before they were any, by reason.
    pub turned_away: Named,
    /// First packets of handshakes that were left unread: too many came from their addresses.
    pub unread: Arc<Counter>,
    /// Attempts that were told to come again with a proof of their address.
    pub retries: Counter,
}

impl Default for Meter {
    fn default() -> Self {
        let rejected = RejectReason::ALL.iter().map(|reason| reason.name());
        let waits = WaitReason::ALL.iter().map(|reason| reason.name());
        Self {
            msg_r: Counter::default(),
            msg_a: Counter::default(),
            msg_n: Counter::default(),
            ack_r: Counter::default(),
            ack_a: Counter::default(),
            ack_n: Counter::default(),
            paged: Counter::default(),
            refusals: Named::new(rejected.chain(waits).chain([GAP, EXPIRED])),
            closed: Named::new(CloseCode::ALL.iter().map(|code| code.name())),
            turned_away: Named::new(TurnedAway::ALL.iter().map(|why| why.name())),
            unread: Arc::default(),
            retries: Counter::default(),
        }
    }
}

impl Meter {
    /// The six packets, and how many frames of each there were.
    #[must_use]
    pub fn packets(&self) -> [(&'static str, u64); 6] {
        [
            ("MSG:R", self.msg_r.count()),
            ("MSG:A", self.msg_a.count()),
            ("MSG:N", self.msg_n.count()),
            ("ACK:R", self.ack_r.count()),
            ("ACK:A", self.ack_a.count()),
            ("ACK:N", self.ack_n.count()),
        ]
    }

    /// A message was answered: counted if it was refused.
    pub(super) fn answered(&self, answer: &Answer) {
        match answer {
            Answer::Accepted { .. } => {}
            Answer::Wait { reason, .. } => self.refusals.add(reason.name()),
            Answer::Gap { .. } => self.refusals.add(GAP),
            Answer::Final(verdict) => match &verdict.outcome {
                Outcome::Rejected { reason, .. } => self.refusals.add(reason.name()),
                Outcome::Expired { .. } => self.refusals.add(EXPIRED),
                Outcome::Delivered => {}
            },
        }
    }
}
