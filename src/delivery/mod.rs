//! The delivery core, sans-IO: what is decided about messages, without a clock, a socket, a file or a thread.
//!
//! Time, chance and ids are passed in; what has to happen comes out as values, in order. The shells around it
//! (`client`, `relay`, `federation`) do it: they make durable what has to be, and only then let go out what
//! depends on it. A client and a forwarding relay use the same [`Outbox`].

mod inbox;
mod outbox;
mod push;
mod retry;

pub use inbox::{Inbox, InboxRow, Judgement};
pub use outbox::{Effect, Entry, Offer, Outbox, OutboxOptions, Receipt, Request, Restored};
pub use push::{PushWindow, Repeat, Stalled};
pub use retry::{Backoff, RoundTrip};
