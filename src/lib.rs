//! posthouse: a relay node over QUIC that gets one-to-one messages delivered and tells the sender so.
//!
//! A peer connects to its home relay; the relay keeps what arrives while the peer is away. Every message that
//! a relay has accepted gets one outcome, *delivered*, *expired* or *rejected*, and its sender learns it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`client`] | the SDK: send, receive, know what became of it |
//! | [`relay`] | the node |
//! | [`store`] | what must survive: mailboxes, lanes, outboxes, inboxes |
//! | [`transport`], [`identity`] | QUIC and TLS by key |
//! | [`federation`] | links to other relays |
//! | [`delivery`] | the rules, sans-IO |
//! | [`protocol`] | the wire |
//! | [`address`], [`id`], [`ranges`], [`time`], [`random`] | the words that all others use |
//! | [`admin`], [`cli`] | the binary |
//!
//! Imports point downwards in this table. docs/ARCHITECTURE.md has the map, docs/PROTOCOL.md the wire.

pub mod address;
pub mod admin;
pub mod cli;
pub mod client;
pub mod delivery;
pub mod federation;
pub mod id;
pub mod identity;
mod link;
pub mod measure;
#[doc(hidden)]
pub mod mutant;
pub mod protocol;
pub mod random;
pub mod ranges;
pub mod relay;
pub mod store;
pub mod time;
pub mod transport;
