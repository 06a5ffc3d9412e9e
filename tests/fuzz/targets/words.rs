//! Envelopes, ids and addresses: what is read has one form, or can be read again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::id::PeerId;
use posthouse::protocol::Envelope;

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::parse(Bytes::copy_from_slice(data)) {
        assert_eq!(Envelope::new(envelope.header(), &envelope.body()).bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(address) = text.parse::<RelayAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(address) = text.parse::<PeerAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
