//! The wire: frames, envelopes, limits and errors. Pure: bytes in, values out.
//!
//! ```text
//!  sender                      relay                      recipient
//!    | MSG:R   here is a message |                            |
//!    |-------------------------->| commit                     |
//!    | MSG:A   accepted          |                            |
//!    |<--------------------------| MSG:N   a message for you  |
//!    |                           |--------------------------->| commit, application
//!    |                           | ACK:R   taken              |
//!    |                           |<---------------------------|
//!    | ACK:N   delivered         | ACK:A   stop repeating     |
//!    |<--------------------------|--------------------------->|
//! ```
//!
//! docs/PROTOCOL.md is the same for people who write a client in another language.

mod codec;
mod envelope;
mod error;
mod frame;
mod lane;
pub mod limit;
mod mailbox;
mod message;
mod outcome;
mod policy;
mod session;
mod summary;
#[cfg(test)]
mod tests;
mod wire;

pub use codec::{PREFIX_BYTES, decode, encode};
pub use envelope::{Envelope, EnvelopeError, HEADER_BYTES, Header, SIGNATURE_LABEL};
pub use error::{CloseCode, WireError};
pub use frame::{FIRST_SKIPPABLE, Frame, FrameType};
pub use lane::{CloseA, CloseR, LaneQuestion, LaneRef, LaneState, WhereA, WhereR};
pub use mailbox::{Order, PageA, PageR, SenderCount, Status, StatusA, StatusR};
pub use message::{AckA, AckN, AckR, Answer, Durability, Exception, MsgA, MsgN, MsgR, Refusal, Taken};
pub use outcome::{Outcome, RejectReason, Verdict, WaitReason};
pub use policy::{Policy, PolicyA, PolicyChange, PolicyR, Senders};
pub use session::{AgainN, GoawayN, HelloA, HelloR, NopN, OpenN, PushMode, Role, StreamKind};
pub use summary::Summary;
pub use wire::{RANGE_BYTES, clip_text};

#[cfg(test)]
pub(crate) use envelope::tests::sample;
