//! placeholder

pub mod address;
pub mod client;
pub mod delivery;
pub mod id;
pub mod identity;
pub mod protocol;
pub mod random;
pub mod ranges;
pub mod relay;
pub mod store;
pub mod time;
pub mod transport;
