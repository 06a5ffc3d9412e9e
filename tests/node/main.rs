//! The node from outside: relays and clients of this crate, and speakers that break the rules, on real QUIC over
//! loopback.
//!
//! | module | promise |
//! | --- | --- |
//! | `first` | a message goes all the way |
//! | `lost`, `repeated` | whatever frame is lost or comes twice, a message is taken once and has one outcome |
//! | `restored` | copies of a store put back lose nothing and repeat nothing that was not forgotten |
//! | `session`, `restart` | who is connected, and how soon again |
//! | `greeting`, `rules`, `foreign` | what breaks the protocol is closed by name, alone |
//! | `offline`, `pages`, `outcome`, `quota` | mailboxes: the backlog, pages, counts, lifetimes, refusals, limits |
//! | `access` | who is let in, whose messages are taken, and how fast |
//! | `federation` | messages between peers of different relays |
//! | `places` | other relays are found, wherever they are |
//! | `forged` | what its sender did not write is refused, and told |
//! | `federation_restored` | the same when one of the relays has lost some or all that it knew |
//! | `memory` | what a session costs that does not read, or ends no frame |
//! | `hostile` | floods, silence, and acknowledgements of anything: others are served, and keep what is theirs |
//!
//! Nothing here sleeps for a fixed time to let something happen: all waits are for a condition, with a deadline
//! that is far away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail, and measures real time"
)]

mod access;
mod federation;
mod federation_restored;
mod first;
mod foreign;
mod forged;
mod goaway;
mod greeting;
mod hostile;
mod lost;
mod memory;
mod offline;
mod outcome;
mod pages;
mod places;
mod quota;
mod repeated;
mod restart;
mod restored;
mod rules;
mod session;
mod support;
