//! The delivery core, sans-IO: what is decided about messages, without a clock, a socket, a file or a thread.
//!
//! Time, chance and ids are passed in; what has to happen comes out as values, in order. The shells around it
//! (`client`, `relay`, `store`, `federation`) do it: they make durable what has to be, and only then let go out
//! what depends on it. A client and a forwarding relay use the same [`Outbox`]; [`lane`] is what a relay
//! remembers of one lane, and [`admission`] what it answers to a message that arrives.

pub mod admission;
pub(crate) mod compact;
mod inbox;
pub mod lane;
mod lane_codec;
mod outbox;
mod push;
mod retry;

pub use compact::Damaged;
pub use inbox::{Inbox, InboxRow, Judgement};
pub use outbox::{Effect, Entry, Offer, Outbox, OutboxOptions, Receipt, Request, Restored};
pub use push::{PushWindow, Repeat, Stalled};
pub use retry::{Backoff, RoundTrip};
