//! The embedded engine: one redb file, one writer, group commit.
//!
//! [`mod@file`] opens, creates and reopens a file and knows which errors end a process; [`writer`] gathers requests
//! into transactions, and what they mean is said by an [`engine`]. They know nothing of mailboxes and serve the client's
//! store as well; the tables of the relay are in [`relay`]. redb's types stay inside this module, but for the storage backend that a simulation
//! passes in.

mod backend;
pub mod client;
#[cfg(test)]
pub(crate) mod disk;
pub mod engine;
mod fault;
pub mod file;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod freeze_tests;
mod journal;
#[cfg(test)]
mod look_tests;
mod open;
#[cfg(test)]
mod platter;
mod queue;
pub mod relay;
pub mod writer;

pub use backend::{Backend, OpenMedium, Part};
pub use fault::Fault;
