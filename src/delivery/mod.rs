//! The rules of delivery, sans-IO: time, randomness and ids are passed in, nothing is read or written here.
//!
//! [`lane`] is what a relay remembers of one lane, [`admission`] what it answers to a message that arrives.

pub mod admission;
pub(crate) mod compact;
pub mod lane;
mod lane_codec;

pub use compact::Damaged;
