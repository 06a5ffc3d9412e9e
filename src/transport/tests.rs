//! The promises of the transport, each held on real QUIC over loopback.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};
use rustls::sign::CertifiedKey;

use super::config;
use super::tls::{self, ClientTls};
use super::*;
use crate::id::RelayId;
use crate::identity::{Identity, key_of_certificate};
use crate::protocol::limit::MAX_FRAME_BYTES;
use crate::protocol::{AckA, CloseCode, Frame, MsgR, NopN, StreamKind, WireError, encode};
use crate::random::SystemEntropy;

const SECOND: Duration = Duration::from_secs(1);

fn any() -> Socket {
    Socket::Bind("127.0.0.1:0".parse().unwrap())
}

fn who(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn relay_at(socket: Socket, identity: &Identity) -> RelayEndpoint {
    RelayEndpoint::bind(socket, identity, &TransportLimits::default(), &SystemEntropy, None).unwrap()
}

fn client_at(socket: Socket, tls: ClientTls) -> ClientEndpoint {
    ClientEndpoint::with_tls(socket, &TransportLimits::default(), &SystemEntropy, tls).unwrap()
}

fn client(identity: &Identity) -> ClientEndpoint {
    ClientEndpoint::bind(any(), identity, &TransportLimits::default(), &SystemEntropy, None).unwrap()
}

async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, what).await.expect("it comes in time")
}

async fn handshake(relay: &RelayEndpoint) -> Result<Connection, HandshakeError> {
    relay.accept().await.unwrap().handshake().await
}

/// Two ends of one connection, and the endpoints that must live as long.
struct Pair {
    relay: Connection,
    client: Connection,
    relay_endpoint: RelayEndpoint,
    client_endpoint: ClientEndpoint,
}

async fn pair() -> Pair {
    pair_of(relay_at(any(), &who(1)), client(&who(2))).await
}

async fn pair_of(relay_endpoint: RelayEndpoint, client_endpoint: ClientEndpoint) -> Pair {
    let mut remote = relay_endpoint.local_addr().unwrap();
    if remote.ip().is_unspecified() {
        remote.set_ip([127, 0, 0, 1].into());
    }
    let connect = client_endpoint.connect(remote, who(1).relay_id(), 5 * SECOND);
    let (client, relay) = tokio::join!(connect, handshake(&relay_endpoint));
    Pair { relay: relay.unwrap(), client: client.unwrap(), relay_endpoint, client_endpoint }
}

fn ack(request: u64) -> Frame {
    AckA { request }.into()
}

fn message(request: u64, bytes: usize) -> Frame {
    let envelope = Bytes::from(vec![7; bytes]);
    MsgR { request, prev: 0, ttl_ms: 1, envelope, signature: None, home: None }.into()
}

/// The certificate of one identity with the key of another.
fn stolen(certificate: &Identity, key: &Identity) -> Arc<CertifiedKey> {
    let provider = rustls::crypto::ring::default_provider();
    let shown = tls::certified_key(certificate, &provider).unwrap();
    let held = tls::certified_key(key, &provider).unwrap();
    Arc::new(CertifiedKey::new(shown.cert.clone(), held.key.clone()))
}

// Who is at the other end.

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

/// A socket that loses everything after its first few datagrams.
#[derive(Debug)]
struct Choking {
    inner: Arc<dyn AsyncUdpSocket>,
    left: AtomicUsize,
}

impl AsyncUdpSocket for Choking {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let open = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if open { self.inner.try_send(transmit) } else { Ok(()) }
    }
    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, metas)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_in_the_handshake_is_let_go() {
    let limits = TransportLimits { handshake_timeout: SECOND / 4, ..TransportLimits::default() };
    let relay = RelayEndpoint::bind(any(), &who(1), &limits, &SystemEntropy, None).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = Choking { inner: TokioRuntime.wrap_udp_socket(udp).unwrap(), left: AtomicUsize::new(1) };
    let socket = Socket::Custom { socket: Arc::new(socket), runtime: Arc::new(TokioRuntime) };
    let client = client_at(socket, ClientTls::new(&who(2), None).unwrap());
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

#[tokio::test]
async fn a_stream_begins_with_its_kind_and_frames_arrive_in_order() {
    const FRAMES: u64 = 100_000;
    let pair = pair().await;
    let (sender, mut answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let reading = tokio::spawn(async move {
        let (kind, back, mut receiver) = pair.relay.accept().await.unwrap();
        assert_eq!(kind, StreamKind::Submit);
        let mut next = 0;
        while let Some(frame) = receiver.next().await.unwrap() {
            assert_eq!(frame, ack(next));
            next += 1;
        }
        back.send(&ack(next)).await.unwrap();
        back.finish();
        assert_eq!(back.send(&ack(0)).await, Err(TransportError::Finished));
        pair.relay.closed().await;
    });
    for request in 0..FRAMES {
        sender.send(&ack(request)).await.unwrap();
    }
    drop(sender);
    assert_eq!(within(20 * SECOND, answers.next()).await, Ok(Some(ack(FRAMES))));
    assert_eq!(answers.next().await, Ok(None));
    pair.client.close(CloseCode::Done, "");
    reading.await.unwrap();
}

#[tokio::test]
async fn frames_that_wait_go_in_one_write() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let before = pair.client.quinn().stats().frame_tx.stream;
    // Nothing is awaited in between, so the writing task of this one-threaded runtime cannot run.
    for request in 0..1000 {
        assert_eq!(sender.try_send(&ack(request)), Ok(true));
    }
    let waiting = sender.pending_bytes() as u64;
    sender.flush().await.unwrap();
    assert_eq!(sender.pending_bytes(), 0);
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    for request in 0..1000 {
        assert_eq!(receiver.next().await, Ok(Some(ack(request))));
        // What one read brought can be had without waiting.
    }
    let sent = pair.client.quinn().stats().frame_tx.stream - before;
    assert!(sent <= waiting / 1000 + 2, "{sent} stream frames for {waiting} bytes");
}

#[tokio::test]
async fn what_has_come_can_be_had_without_waiting() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    for request in 0..10 {
        sender.try_send(&ack(request)).unwrap();
    }
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    // All of it fits one packet.
    for request in 0..10 {
        assert_eq!(receiver.try_buffered(), Ok(Some(ack(request))));
    }
    assert_eq!(receiver.try_buffered(), Ok(None));
}

#[tokio::test]
async fn a_sender_waits_while_nobody_reads_and_holds_no_more_than_its_bound() {
    const LIMIT: usize = 64 << 10;
    const BODY: usize = 10_000;
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, LIMIT).await.unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    let mut sent = 0;
    while tokio::time::timeout(SECOND / 2, sender.send(&message(sent, BODY))).await.is_ok() {
        sent += 1;
        assert!(sender.pending_bytes() <= LIMIT + BODY + 100, "{}", sender.pending_bytes());
        assert!(sent < 10_000, "it never waits");
    }
    assert_eq!(sender.try_send(&message(sent, BODY)), Ok(false));
    // The send that was dropped has sent nothing; what was sent before comes whole.
    let reading = tokio::spawn(async move {
        for request in 0..=sent {
            assert_eq!(receiver.next().await, Ok(Some(message(request, BODY))));
        }
    });
    within(20 * SECOND, sender.send(&message(sent, BODY))).await.unwrap();
    within(20 * SECOND, reading).await.unwrap();
    // A raised limit lets a waiting sender go on.
    assert_eq!(sender.pending_bytes(), 0);
}

#[tokio::test]
async fn a_frame_above_the_limit_is_not_sent() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 8 << 20).await.unwrap();
    let error = sender.try_send(&message(0, MAX_FRAME_BYTES)).unwrap_err();
    assert!(matches!(error, TransportError::FrameTooLong { .. }), "{error:?}");
    sender.try_send(&message(1, MAX_FRAME_BYTES - 100)).unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(within(5 * SECOND, receiver.next()).await, Ok(Some(message(1, MAX_FRAME_BYTES - 100))));
}

#[tokio::test]
async fn a_receiver_that_is_dropped_stops_the_sender() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 0).await.unwrap();
    drop(pair.relay.accept().await.unwrap());
    let stopped = within(5 * SECOND, async {
        loop {
            if let Err(error) = sender.send(&ack(0)).await {
                break error;
            }
            tokio::time::sleep(SECOND / 100).await;
        }
    });
    assert_eq!(stopped.await, TransportError::StreamStopped(0));
    assert_eq!(sender.flush().await, Err(TransportError::StreamStopped(0)));
}

#[tokio::test]
async fn waiting_senders_and_tasks_end_with_the_connection() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let pair = pair().await;
    let idle = tasks();
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1000).await.unwrap();
    let (quiet, _answers) = pair.client.open(StreamKind::Sync, 1000).await.unwrap();
    let (_, back, _receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(tasks(), idle + 3);
    let waiting = async {
        loop {
            if let Err(error) = sender.send(&message(0, 100_000)).await {
                break error;
            }
        }
    };
    let close = async {
        tokio::time::sleep(SECOND / 5).await;
        pair.relay.close(CloseCode::GoingAway, "");
    };
    let (error, ()) = within(5 * SECOND, async { tokio::join!(waiting, close) }).await;
    let TransportError::Closed(reason) = error else { panic!("{error:?}") };
    assert_eq!(reason.code(), Some(CloseCode::GoingAway));
    within(5 * SECOND, async {
        while tasks() + 2 > idle + 2 {
            tokio::time::sleep(SECOND / 100).await;
        }
    })
    .await;
    assert!(quiet.try_send(&ack(0)).is_err() && back.try_send(&ack(0)).is_err());
    assert_eq!(sender.pending_bytes(), 0);
}

#[tokio::test]
async fn no_more_streams_than_the_relay_needs() {
    let pair = pair().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(within(SECOND, pair.client.open(StreamKind::Sync, 0)).await.unwrap());
    }
    assert!(tokio::time::timeout(SECOND / 5, pair.client.open(StreamKind::Sync, 0)).await.is_err());
    assert!(tokio::time::timeout(SECOND / 5, pair.client.quinn().open_uni()).await.is_err());
    let _notify = within(SECOND, pair.relay.open(StreamKind::Notify, 0)).await.unwrap();
    assert!(tokio::time::timeout(SECOND / 5, pair.relay.open(StreamKind::Notify, 0)).await.is_err());
    assert_eq!(pair.client.quinn().max_datagram_size(), None);
}

// What a hostile peer sends.

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut buffer));
    buffer.to_vec()
}

fn opening() -> Vec<u8> {
    bytes(&[crate::protocol::OpenN { kind: StreamKind::Submit }.into()])
}

#[tokio::test]
async fn what_is_no_protocol_is_named_and_closes_the_connection() {
    let long = [&opening()[..], &(MAX_FRAME_BYTES as u32 + 1).to_be_bytes(), &[1, 1]].concat();
    let longest_prefix = [&opening()[..], &u32::MAX.to_be_bytes()].concat();
    let cut_map = [&opening()[..], &[0, 0, 0, 2, 0x02, 0x02, 0x81, 0xa1]].concat();
    let unknown = [&opening()[..], &[0, 0, 0, 1, 0x7f, 0xff, 0x80]].concat();
    let cut = [&opening()[..], &bytes(&[ack(1)])[..7]].concat();
    type Case = (&'static str, Vec<u8>, fn(&WireError) -> bool, CloseCode);
    let cases: [Case; 8] = [
        ("too long", long, |e| matches!(e, WireError::FrameTooLong { .. }), CloseCode::FrameTooLong),
        ("by far", longest_prefix, |e| matches!(e, WireError::FrameTooLong { .. }), CloseCode::FrameTooLong),
        ("a cut map", cut_map, |e| matches!(e, WireError::Malformed { .. }), CloseCode::Malformed),
        ("unknown type", unknown, |e| *e == WireError::UnknownFrame(0x7fff), CloseCode::UnknownFrame),
        ("a cut frame", cut, |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("nothing", vec![], |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("a cut opening", opening()[..3].to_vec(), |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("no opening", bytes(&[ack(1)]), |e| matches!(e, WireError::Unexpected { .. }), CloseCode::UnexpectedFrame),
    ];
    for (name, sent, expected, code) in cases {
        let pair = pair().await;
        let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
        raw.write_all(&sent).await.unwrap();
        raw.finish().unwrap();
        let error = within(5 * SECOND, async {
            let (_, _, mut receiver) = pair.relay.accept().await?;
            let error = receiver.next().await.expect_err("no frame is in it");
            assert_eq!(receiver.next().await, Err(error.clone()), "{name}: an error stays one");
            Err::<(), _>(error)
        })
        .await
        .unwrap_err();
        let TransportError::Wire(wire) = &error else { panic!("{name}: {error:?}") };
        assert!(expected(wire), "{name}: {wire:?}");
        pair.relay.close_for(&error);
        let reason = within(5 * SECOND, pair.client.closed()).await;
        assert_eq!(reason.code(), Some(code), "{name}: {reason}");
    }
}

#[tokio::test]
async fn a_client_cannot_make_a_relay_keep_more_than_its_windows() {
    let pair = pair().await;
    let mut streams = Vec::new();
    let mut kept = 0;
    for _ in 0..16 {
        let (mut raw, back) = pair.client.quinn().open_bi().await.unwrap();
        let mut of_stream = 0;
        while let Ok(written) = tokio::time::timeout(SECOND / 5, raw.write(&[0; 64 << 10])).await {
            of_stream += written.unwrap();
        }
        assert!(of_stream <= 1 << 20, "{of_stream}");
        kept += of_stream;
        streams.push((raw, back));
    }
    assert!(kept <= 2 << 20, "{kept}");
}

#[tokio::test]
async fn unknown_frames_that_may_be_skipped_are_skipped() {
    let pair = pair().await;
    let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
    let sent = [&opening()[..], &[0, 0, 0, 3, 0xff, 0xff, 1, 2, 3], &bytes(&[NopN {}.into(), ack(5)])].concat();
    raw.write_all(&sent).await.unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(receiver.next().await, Ok(Some(NopN {}.into())));
    assert_eq!(receiver.next().await, Ok(Some(ack(5))));
    raw.reset(7u32.into()).unwrap();
    assert_eq!(receiver.next().await, Err(TransportError::StreamReset(7)));
}

#[tokio::test]
async fn waiting_for_a_stream_or_a_frame_can_be_given_up_and_taken_up_again() {
    let pair = pair().await;
    let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
    let sent = [opening(), bytes(&[ack(1)])].concat();
    let mut stream = None;
    let mut frame = None;
    // Byte by byte, and each wait is dropped once before the next byte comes.
    for byte in &sent {
        raw.write_all(std::slice::from_ref(byte)).await.unwrap();
        match &mut stream {
            None => stream = tokio::time::timeout(SECOND / 50, pair.relay.accept()).await.ok().map(Result::unwrap),
            Some((_, _, receiver)) => frame = tokio::time::timeout(SECOND / 50, receiver.next()).await.ok(),
        }
    }
    assert_eq!(frame, Some(Ok(Some(ack(1)))));
}

// A relay that is killed and comes back.

/// A relay in a runtime of its own, to be killed without a word.
struct Doomed {
    runtime: tokio::runtime::Runtime,
    endpoint: RelayEndpoint,
}

impl Doomed {
    fn start(at: SocketAddr, identity: &Identity) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = {
            let _inside = runtime.enter();
            relay_at(Socket::Bind(at), identity)
        };
        let accepting = endpoint.clone();
        runtime.spawn(async move {
            while let Some(attempt) = accepting.accept().await {
                tokio::spawn(async move {
                    if let Ok(connection) = attempt.handshake().await {
                        connection.closed().await;
                    }
                });
            }
        });
        Self { runtime, endpoint }
    }

    /// As kill -9: its tasks are gone between two polls, and so nobody is told.
    async fn kill(self) {
        let Self { runtime, endpoint } = self;
        tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(5 * SECOND);
            drop(endpoint);
        })
        .await
        .unwrap();
    }
}

/// Until all that follows a handshake is acknowledged, and a client would wait for hours.
async fn quiet() {
    tokio::time::sleep(SECOND / 4).await;
}

async fn connected(at: SocketAddr, relay: RelayId) -> (ClientEndpoint, Connection, FrameSender, FrameReceiver) {
    let client = client(&who(2));
    let connection = client.connect(at, relay, 5 * SECOND).await.unwrap();
    let (sender, receiver) = connection.open(StreamKind::Submit, 1000).await.unwrap();
    (client, connection, sender, receiver)
}

#[tokio::test]
async fn clients_of_a_restarted_relay_learn_of_it_with_their_next_packet() {
    const CLIENTS: usize = 300;
    let relay = Doomed::start("127.0.0.1:0".parse().unwrap(), &who(1));
    let at = relay.endpoint.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connected(at, who(1).relay_id()).await);
    }
    quiet().await;
    relay.kill().await;
    assert!(clients.iter().all(|(_, connection, ..)| connection.close_reason().is_none()));
    let relay = Doomed::start(at, &who(1));
    let start = tokio::time::Instant::from_std(TokioRuntime.now());
    for (_, _, sender, _) in &clients {
        assert_eq!(sender.try_send(&NopN {}.into()), Ok(true));
    }
    for (_, connection, ..) in &clients {
        assert_eq!(within(2 * SECOND, connection.closed()).await, CloseReason::Reset);
    }
    println!("{CLIENTS} clients learned of the restart in {:?}", start.elapsed());
    assert!(start.elapsed() < 2 * SECOND);
    relay.kill().await;
}

#[tokio::test]
async fn a_relay_with_another_identity_cannot_end_connections_of_the_one_before() {
    let relay = Doomed::start("127.0.0.1:0".parse().unwrap(), &who(1));
    let at = relay.endpoint.local_addr().unwrap();
    let (_client, connection, sender, _receiver) = connected(at, who(1).relay_id()).await;
    quiet().await;
    relay.kill().await;
    let relay = Doomed::start(at, &who(3));
    sender.try_send(&NopN {}.into()).unwrap();
    assert!(tokio::time::timeout(2 * SECOND, connection.closed()).await.is_err());
    relay.kill().await;
}

#[tokio::test]
async fn an_idle_client_learns_of_a_restart_by_the_wake_datagram() {
    let relay = Doomed::start("127.0.0.1:0".parse().unwrap(), &who(1));
    let at = relay.endpoint.local_addr().unwrap();
    let (client, connection, sender, _receiver) = connected(at, who(1).relay_id()).await;
    quiet().await;
    relay.kill().await;
    let relay = Doomed::start(at, &who(1));
    let start = tokio::time::Instant::from_std(TokioRuntime.now());
    relay.endpoint.wake(client.local_addr().unwrap()).await.unwrap();
    assert_eq!(within(SECOND, client.woken()).await, at);
    sender.try_send(&NopN {}.into()).unwrap();
    assert_eq!(within(2 * SECOND, connection.closed()).await, CloseReason::Reset);
    println!("an idle client learned of the restart in {:?}", start.elapsed());
    relay.kill().await;
}

#[tokio::test]
async fn wake_datagrams_disturb_no_connection_and_are_heeded_once_a_second() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let (_, back, mut receiver) = pair.relay.accept().await.unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = pair.client_endpoint.local_addr().unwrap();
    for request in 0..200 {
        pair.relay_endpoint.wake(at).await.unwrap();
        stranger.send_to(b"no wake and no QUIC", at).unwrap();
        back.send(&ack(request)).await.unwrap();
        sender.send(&ack(request)).await.unwrap();
        assert_eq!(within(5 * SECOND, receiver.next()).await, Ok(Some(ack(request))));
    }
    assert_eq!(within(SECOND, pair.client_endpoint.woken()).await, pair.client.remote());
    let heeded = tokio::time::Instant::from_std(TokioRuntime.now());
    // A call that comes too early is not lost, and not heeded early.
    pair.relay_endpoint.wake(at).await.unwrap();
    assert!(tokio::time::timeout(SECOND / 2, pair.client_endpoint.woken()).await.is_err());
    within(SECOND, pair.client_endpoint.woken()).await;
    assert!(heeded.elapsed() >= SECOND, "{:?}", heeded.elapsed());
    assert!(tokio::time::timeout(3 * SECOND / 2, pair.client_endpoint.woken()).await.is_err());
    assert_eq!(pair.client.close_reason(), None);
}

#[tokio::test]
async fn a_connection_moves_to_another_socket() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1000).await.unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    let before = pair.relay.remote();
    pair.client_endpoint.rebind(any()).unwrap();
    sender.send(&ack(1)).await.unwrap();
    assert_eq!(within(5 * SECOND, receiver.next()).await, Ok(Some(ack(1))));
    let after = pair.client_endpoint.local_addr().unwrap();
    assert!(after != before && pair.relay.remote() == after);
    pair.relay_endpoint.wake(after).await.unwrap();
    within(5 * SECOND, pair.client_endpoint.woken()).await;
}
