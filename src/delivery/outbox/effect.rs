//! What goes into the outbox and what comes out: plain values.

use crate::id::{LaneKey, MessageId, StoreId};
use crate::protocol::{CloseR, Durability, Verdict, WaitReason, WhereR};
use crate::time::Moment;

/// A durable message that enters the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The shell's own name for it.
    pub key: u64,
    /// Its id, for those who are told.
    pub id: MessageId,
    /// Its lane.
    pub lane: LaneKey,
    /// Its number there.
    pub n: u64,
    /// Its size on the wire.
    pub bytes: usize,
    /// When its time runs out.
    pub deadline: Moment,
}

/// A message that was in the outbox when it was opened: it counts as offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The message.
    pub entry: Entry,
    /// It may have been offered to another store than the one last known.
    pub foreign: bool,
}

/// Something to do that is no request to the relay, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make durable that the relay's store is now this one, and that all messages held may have been offered
    /// to another; then call [`remembered`](super::Outbox::remembered). Nothing is offered before.
    Remember(StoreId),
    /// The relay holds the message: tell the application.
    Accepted {
        /// Which.
        key: u64,
        /// Which.
        id: MessageId,
        /// How safely it is kept.
        durability: Durability,
        /// The relay had it already.
        duplicate: bool,
    },
    /// The relay cannot take more of this lane now: tell the application.
    Held {
        /// Which lane.
        lane: LaneKey,
        /// Why.
        reason: WaitReason,
        /// When it is tried again.
        until: Moment,
    },
    /// The outcome is known: make durable that the message is done with, then tell the application and call
    /// [`persisted`](super::Outbox::persisted).
    Resolved {
        /// Which.
        key: u64,
        /// Which.
        id: MessageId,
        /// Its lane.
        lane: LaneKey,
        /// Its number there.
        n: u64,
        /// What became of it.
        verdict: Verdict,
        /// For [`persisted`](super::Outbox::persisted).
        receipt: Receipt,
    },
    /// The relay has not answered for long: give the connection up.
    Silent,
}

/// Names a resolution that was made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(super) lane: u64,
    pub(super) gave_up: bool,
}

/// Something to send on the submit stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// R:WHERE.
    Ask(WhereR),
    /// MSG:R.
    Offer(Offer),
    /// R:CLOSE.
    Close(CloseR),
}

/// A message to send as MSG:R.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The request's number.
    pub request: u64,
    /// Which message.
    pub key: u64,
    /// `prev` of MSG:R.
    pub prev: u64,
    /// When its time runs out; what remains travels along.
    pub deadline: Moment,
}
