//! Who gets a connection, and who is told why not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::sign::CertifiedKey;

use super::super::config;
use super::super::filter::{Filter, Filtered};
use super::super::tls::{self, ClientTls};
use super::super::*;
use super::*;
use crate::identity::key_of_certificate;
use crate::protocol::{CloseCode, StreamKind};
use crate::random::SystemEntropy;

#[tokio::test]
async fn both_ends_know_each_other_by_key() {
    let pair = pair().await;
    assert_eq!(pair.relay.peer_id(), Some(who(2).peer_id()));
    assert_eq!(pair.client.peer_id(), Some(who(1).peer_id()));
    assert_eq!(pair.relay.remote(), pair.client_endpoint.local_addr().unwrap());
}

#[tokio::test]
async fn a_relay_with_another_key_is_refused_by_name() {
    let relay = relay_at(any(), &who(1));
    let client = client(&who(2));
    let expected = who(9).relay_id();
    let (result, other) =
        tokio::join!(client.connect(relay.local_addr().unwrap(), expected, 5 * SECOND), handshake(&relay));
    let Err(ConnectError::WrongRelay { expected: pinned, found }) = result else { panic!("{result:?}") };
    assert_eq!((pinned, found), (expected, who(1).relay_id()));
    assert!(matches!(other, Err(HandshakeError::Tls(_))), "{other:?}");
}

#[tokio::test]
async fn a_relay_that_cannot_sign_for_its_certificate_is_refused() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = tls::relay_with(stolen(&who(1), &who(8)), provider, None).unwrap();
    let limits = TransportLimits::default();
    let relay = RelayEndpoint::with_tls(any(), &who(1), &limits, &SystemEntropy, None, tls).unwrap();
    let client = client(&who(2));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 5 * SECOND);
    let (result, _) = tokio::join!(connect, handshake(&relay));
    assert!(matches!(result, Err(ConnectError::BadSignature)), "{result:?}");
}

#[tokio::test]
async fn a_client_that_cannot_sign_for_its_certificate_is_refused() {
    let relay = relay_at(any(), &who(1));
    let client = client_at(any(), ClientTls::showing(Some(stolen(&who(2), &who(8)))));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 5 * SECOND);
    let (result, other) = tokio::join!(connect, handshake(&relay));
    assert_eq!(other.unwrap_err(), HandshakeError::BadSignature);
    // The client's own part was done before the relay could judge it.
    if let Ok(connection) = result {
        let reason = within(5 * SECOND, connection.closed()).await;
        assert!(matches!(reason, CloseReason::Transport { by_peer: true, .. }), "{reason:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_in_and_has_no_name() {
    let relay = relay_at(any(), &who(1));
    let client = client_at(any(), ClientTls::showing(None));
    let pair = pair_of(relay, client).await;
    assert_eq!(pair.relay.peer_id(), None);
}

#[tokio::test]
async fn a_certificate_with_a_key_of_another_kind_is_refused() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["posthouse".to_owned()]).unwrap().self_signed(&key).unwrap();
    assert_eq!(key_of_certificate(certificate.der()), None);
    let provider = rustls::crypto::ring::default_provider();
    let own = tls::certified_key(&who(2), &provider).unwrap();
    // It signs with Ed25519, which is asked for, under a certificate that cannot have made that.
    let shown = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], own.key.clone()));
    let relay = relay_at(any(), &who(1));
    let client = client_at(any(), ClientTls::showing(Some(shown)));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 5 * SECOND);
    let (_, other) = tokio::join!(connect, handshake(&relay));
    assert!(matches!(other, Err(HandshakeError::Tls(_))), "{other:?}");
}

#[test]
fn a_damaged_certificate_has_no_key() {
    let good = who(1).certificate_der().to_vec();
    assert_eq!(key_of_certificate(&good), Some(*who(1).peer_id().as_bytes()));
    for length in 0..good.len() {
        assert_eq!(key_of_certificate(&good[..length]), None, "cut to {length}");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        // Whatever it answers, it answers.
        let _ = key_of_certificate(&bytes);
    }
}

async fn offering(protocols: &[&[u8]]) -> (Result<(), ConnectError>, Result<Connection, HandshakeError>) {
    let relay = relay_at(any(), &who(1));
    let (tls, _) = ClientTls::new(&who(2), None).unwrap().offering(who(1).relay_id(), protocols).unwrap();
    let config = config::client(&TransportLimits::default(), &config::Chance::new(&SystemEntropy), tls);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connect = endpoint.connect_with(config, relay.local_addr().unwrap(), "posthouse").unwrap();
    let (result, other) = tokio::join!(connect, handshake(&relay));
    (result.map(|_| ()).map_err(ConnectError::from), other)
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_is_told_so() {
    for protocols in [&[&b"posthouse/2"[..]][..], &[b"h3"], &[]] {
        let (result, other) = offering(protocols).await;
        assert!(matches!(result, Err(ConnectError::Alpn)), "{protocols:?}: {result:?}");
        assert_eq!(other.unwrap_err(), HandshakeError::Alpn);
    }
    assert!(offering(&[b"h3", b"posthouse/1"]).await.1.is_ok());
}

// How a connection begins and ends.

#[tokio::test]
async fn nobody_there_is_a_timeout_and_a_refusal_is_a_refusal() {
    let client = client(&who(2));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let connect = client.connect(silent.local_addr().unwrap(), who(1).relay_id(), SECOND / 5);
    assert!(matches!(connect.await, Err(ConnectError::Timeout)));

    let relay = relay_at(any(), &who(1));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 5 * SECOND);
    let (result, ()) = tokio::join!(connect, async { relay.accept().await.unwrap().refuse() });
    assert!(matches!(result, Err(ConnectError::Refused)), "{result:?}");

    let nowhere = client.connect("127.0.0.1:0".parse().unwrap(), who(1).relay_id(), SECOND).await;
    assert!(matches!(nowhere, Err(ConnectError::Io(_))), "{nowhere:?}");
}

#[tokio::test]
async fn a_retry_validates_the_address_and_costs_the_client_nothing() {
    let relay = relay_at(any(), &who(1));
    let client = client(&who(2));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 5 * SECOND);
    let (result, attempt) = tokio::join!(connect, async {
        let first = relay.accept().await.unwrap();
        assert!(!first.is_validated());
        first.retry();
        let second = relay.accept().await.unwrap();
        assert!(second.is_validated());
        second.handshake().await
    });
    assert_eq!(attempt.unwrap().peer_id(), Some(who(2).peer_id()));
    result.unwrap();
}

/// Loses everything after the first few datagrams.
#[derive(Debug)]
struct Choking {
    left: AtomicUsize,
}

impl Filter for Choking {
    fn received(&self, _: SocketAddr, datagrams: &mut [u8], _: usize) -> usize {
        let open = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if open { datagrams.len() } else { 0 }
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_in_the_handshake_is_let_go() {
    let limits = TransportLimits { handshake_timeout: SECOND / 4, ..TransportLimits::default() };
    let (inner, runtime) = any().open().unwrap();
    let socket = Socket::Custom { socket: Filtered::new(inner, Choking { left: AtomicUsize::new(1) }), runtime };
    let relay = RelayEndpoint::bind(socket, &who(1), &limits, &SystemEntropy, None).unwrap();
    let client = client(&who(2));
    let connect = client.connect(relay.local_addr().unwrap(), who(1).relay_id(), 2 * SECOND);
    // The client has all it needs to believe that it is connected; the relay has not.
    let (_client, result) = tokio::join!(connect, within(SECOND, handshake(&relay)));
    assert_eq!(result.unwrap_err(), HandshakeError::Timeout);
}

#[tokio::test]
async fn a_close_carries_its_code_and_words() {
    let pair = pair().await;
    pair.relay.close(CloseCode::Superseded, &"é".repeat(400));
    let reason = within(5 * SECOND, pair.client.closed()).await;
    assert_eq!((reason.code(), reason.by_peer(), reason.is_transient()), (Some(CloseCode::Superseded), true, false));
    let CloseReason::Peer { number: 2, reason, .. } = reason else { panic!("{reason:?}") };
    assert_eq!(reason, "é".repeat(128));
    assert_eq!(pair.relay.closed().await, CloseReason::Local);
    assert!(matches!(pair.relay.open(StreamKind::Sync, 0).await, Err(TransportError::Closed(CloseReason::Local))));
}

#[tokio::test]
async fn closing_an_endpoint_tells_every_client() {
    let pair = pair().await;
    pair.relay_endpoint.close(CloseCode::GoingAway, "stops");
    within(5 * SECOND, pair.relay_endpoint.wait_idle()).await;
    assert_eq!(within(SECOND, pair.client.closed()).await.code(), Some(CloseCode::GoingAway));
    assert!(pair.relay_endpoint.accept().await.is_none());
}

#[tokio::test]
async fn an_address_of_ipv4_stays_one_on_a_socket_for_both() {
    let relay = relay_at(Socket::Bind("[::]:0".parse().unwrap()), &who(1));
    let pair = pair_of(relay, client(&who(2))).await;
    assert_eq!(pair.relay.remote(), pair.client_endpoint.local_addr().unwrap());
    pair.relay_endpoint.wake(pair.relay.remote()).await.unwrap();
    assert_eq!(within(5 * SECOND, pair.client_endpoint.woken()).await, pair.client.remote());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let relay = relay_at(any(), &who(1));
    let taken = Socket::Bind(relay.local_addr().unwrap());
    let error = RelayEndpoint::bind(taken, &who(1), &TransportLimits::default(), &SystemEntropy, None).unwrap_err();
    assert!(matches!(error, BindError::Socket { .. }), "{error:?}");
    assert!(error.to_string().contains(&relay.local_addr().unwrap().to_string()), "{error}");
}

// Streams.
