//! posthouse: a relay node over QUIC that gets one-to-one messages delivered and tells the sender so.
//!
//! # The model
//!
//! A **peer** is an Ed25519 key. It has a **home relay**, which keeps what arrives while the peer is away. Others
//! reach it by its **address**, `posthouse://RELAY@HOST:PORT/PEER`: at which relay, where that relay is found, and
//! which peer ([`address::PeerAddress`]). Relays forward to each other, so sender and recipient may have different
//! homes.
//!
//! A **message** goes through six packets. R requests, A acknowledges, N notifies:
//!
//! ```text
//!  sender          relay           recipient
//!    │──── MSG:R ───>│                 │       "deliver this"
//!    │<─── MSG:A ────│                 │       accepted: it is on the relay's disk
//!    │               │───── MSG:N ────>│       "a message for you"
//!    │               │<──── ACK:R ─────│       its application took it
//!    │               │───── ACK:A ────>│
//!    │<─── ACK:N ────│                 │       delivered
//! ```
//!
//! Every message that a relay has accepted gets one **outcome**, and its sender learns it, now or when it is back:
//!
//! - *delivered*: the recipient's application said that it took it, not merely its device;
//! - *expired*: its lifetime ran out before that;
//! - *rejected*: with a reason, by the relay or by the recipient's application.
//!
//! The latter two say whether the recipient *may have taken* it all the same. Where they say no, it did not.
//!
//! # Sending
//!
//! [`Client::send`](client::Client::send) returns once the message is in the **outbox**, on disk. From then on it is
//! the client's affair: it is offered until its outcome is known, over lost connections, restarts of either side and a
//! relay that lost its store. Wait for the outcome at the handle, or read [`events`](client::Client::events), which
//! also bring those of earlier runs. Messages to one recipient arrive in the order in which they were sent.
//!
//! # Receiving
//!
//! [`Client::recv`](client::Client::recv) gives each message once. It stays at the relay until the application has
//! answered: [`taken`](client::Incoming::taken) or [`refuse`](client::Incoming::refuse). Do with it what has to be
//! done, and then say so: a crash in between means that it comes again, and nothing else does.
//!
//! Whoever was away asks [`status`](client::Client::status) how much waits and of whom, and either lets everything come
//! in order, or reads [`pages`](client::Client::pages) from the most recent on while what is new comes at once
//! ([`Reading`](client::Reading)).
//!
//! # To begin with
//!
//! ```sh
//! cargo run --release -- run                        # a relay: it prints its address
//! cargo run --release --example peer -- --help      # a peer for the command line
//! cargo run --release --example embedded_relay      # both in one process, in 60 lines
//! ```
//!
//! `examples/echo_bot.rs` and `examples/offline_reader.rs` are meant to be copied. The [`client`] module begins with
//! the smallest program there is.
//!
//! # The modules
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
