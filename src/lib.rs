//! placeholder

pub mod address;
pub mod delivery;
pub mod id;
pub mod protocol;
pub mod random;
pub mod ranges;
pub mod store;
pub mod time;
