//! A relay that is none: it says what a test wants it to say.

use posthouse::address::RelayAddress;
use posthouse::id::StoreId;
use posthouse::protocol::{Durability, HelloA, Status};
use posthouse::random::SystemEntropy;
use posthouse::transport::{RelayEndpoint, Socket, TransportLimits};

use super::who;

/// The address of one with the key of this member of the cast, and where it takes connections.
pub(crate) fn pretender(number: u8) -> (RelayAddress, RelayEndpoint) {
    let who = who(number);
    let anywhere = Socket::Bind("127.0.0.1:0".parse().unwrap());
    let endpoint = RelayEndpoint::bind(anywhere, &who, &TransportLimits::default(), &SystemEntropy, None).unwrap();
    (RelayAddress::new(who.relay_id(), endpoint.local_addr().unwrap().into()), endpoint)
}

/// A:HELLO of a relay that has nothing for its client.
pub(crate) fn welcome() -> HelloA {
    HelloA {
        version: 1,
        store: StoreId([7; 16]),
        durability: Durability::Disk,
        watermark: 0,
        status: Status::default(),
        max_body_bytes: 1 << 20,
        credit_messages: 4096,
        agent: None,
    }
}
