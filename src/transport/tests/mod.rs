//! Tests of the transport, with real QUIC on loopback. Here is what they share: two ends and the way between.

mod handshake;
#[path = "../../../tests/node/support/lasting.rs"]
mod lasting;
mod restart;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::sign::CertifiedKey;

use super::tls::{self, ClientTls};
use super::*;
use crate::identity::Identity;
use crate::protocol::{AckA, Frame, MsgR};
use crate::random::SystemEntropy;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn any() -> Socket {
    Socket::Bind("127.0.0.1:0".parse().unwrap())
}

pub(super) fn who(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

pub(super) fn relay_at(socket: Socket, identity: &Identity) -> RelayEndpoint {
    RelayEndpoint::bind(socket, identity, &TransportLimits::default(), &SystemEntropy, None).unwrap()
}

pub(super) fn client_at(socket: Socket, tls: ClientTls) -> ClientEndpoint {
    ClientEndpoint::with_tls(socket, who(9).peer_id(), &TransportLimits::default(), &SystemEntropy, tls).unwrap()
}

pub(super) fn client(identity: &Identity) -> ClientEndpoint {
    ClientEndpoint::bind(any(), identity, &TransportLimits::default(), &SystemEntropy, None).unwrap()
}

pub(super) async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, what).await.expect("it comes in time")
}

pub(super) async fn handshake(relay: &RelayEndpoint) -> Result<Connection, HandshakeError> {
    relay.accept().await.unwrap().handshake().await
}

/// Two ends of one connection, and the endpoints that must live as long.
pub(super) struct Pair {
    pub(super) relay: Connection,
    pub(super) client: Connection,
    pub(super) relay_endpoint: RelayEndpoint,
    pub(super) client_endpoint: ClientEndpoint,
}

pub(super) async fn pair() -> Pair {
    pair_of(relay_at(any(), &who(1)), client(&who(2))).await
}

pub(super) async fn pair_of(relay_endpoint: RelayEndpoint, client_endpoint: ClientEndpoint) -> Pair {
    let mut remote = relay_endpoint.local_addr().unwrap();
    if remote.ip().is_unspecified() {
        remote.set_ip([127, 0, 0, 1].into());
    }
    let connect = client_endpoint.connect(remote, who(1).relay_id(), 5 * SECOND);
    let (client, relay) = tokio::join!(connect, handshake(&relay_endpoint));
    Pair { relay: relay.unwrap(), client: client.unwrap(), relay_endpoint, client_endpoint }
}

pub(super) fn ack(request: u64) -> Frame {
    AckA { request }.into()
}

pub(super) fn message(request: u64, bytes: usize) -> Frame {
    let envelope = Bytes::from(vec![7; bytes]);
    MsgR { request, prev: 0, ttl_ms: 1, envelope, signature: None, home: None }.into()
}

/// The certificate of one identity with the key of another.
pub(super) fn stolen(certificate: &Identity, key: &Identity) -> Arc<CertifiedKey> {
    let provider = rustls::crypto::ring::default_provider();
    let shown = tls::certified_key(certificate, &provider).unwrap();
    let held = tls::certified_key(key, &provider).unwrap();
    Arc::new(CertifiedKey::new(shown.cert.clone(), held.key.clone()))
}

// Who is at the other end.
