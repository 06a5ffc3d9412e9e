//! Real processes on real files: the relay's binary and the example peer, killed with kill -9 and started again.
//!
//! `PROCESS_LINES` sets how many lines the long walk sends (2,000 if not set); see `drain` for the long drain,
//! `kills` for a thousand kills, and `many_relays` for a thousand destinations.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test panics, and waits by the real clock"
)]

mod access;
mod backup;
mod bench;
mod drain;
mod examples;
mod federation;
mod health;
mod kills;
#[path = "../node/support/lasting.rs"]
mod lasting;
#[cfg(target_os = "linux")]
mod many_relays;
mod mortal;
mod program;
mod reading;
mod record;
mod stop;
mod terminal;
mod trouble;
mod use_by_scripts;
mod walk;
