//! What clients notice of a relay that is started anew, and of a network that changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quinn::{Runtime as _, TokioRuntime};

use super::super::*;
use super::lasting::lasting_place;
use super::*;
use crate::id::RelayId;
use crate::identity::Identity;
use crate::protocol::{NopN, StreamKind};

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
    let relay = Doomed::start(lasting_place(), &who(1));
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
        sender.write();
    }
    for (_, connection, ..) in &clients {
        assert_eq!(within(2 * SECOND, connection.closed()).await, CloseReason::Reset);
    }
    println!("{CLIENTS} clients learned of the restart in {:?}", start.elapsed());
    assert!(start.elapsed() < 2 * SECOND);
    relay.kill().await;
}

/// Passes datagrams between one client and a relay, but for those that the client sends after its first one and before
/// `heard` is set.
fn deaf_ear(relay: SocketAddr, heard: Arc<AtomicBool>) -> SocketAddr {
    let [front, back] = [(); 2].map(|()| Arc::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()));
    let at = front.local_addr().unwrap();
    let (to_client, from_relay) = (front.clone(), back.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        let (length, client) = front.recv_from(&mut buffer).unwrap();
        back.send_to(&buffer[..length], relay).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok(length) = from_relay.recv(&mut buffer) {
                to_client.send_to(&buffer[..length], client).unwrap();
            }
        });
        while let Ok(length) = front.recv(&mut buffer) {
            if heard.load(Ordering::Relaxed) {
                back.send_to(&buffer[..length], relay).unwrap();
            }
        }
    });
    at
}

#[tokio::test]
async fn a_client_whose_relay_dies_before_it_has_heard_all_of_the_handshake_learns_of_the_restart() {
    let relay = Doomed::start(lasting_place(), &who(1));
    let (at, heard) = (relay.endpoint.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let (_client, connection, sender, _receiver) = connected(deaf_ear(at, heard.clone()), who(1).relay_id()).await;
    relay.kill().await;
    // It goes on repeating its last flight, all of which counts as on the way.
    assert_eq!(sender.try_send(&message(1, 800)), Ok(true));
    sender.write();
    tokio::time::sleep(3 * SECOND).await;
    let relay = Doomed::start(at, &who(1));
    heard.store(true, Ordering::Relaxed);
    assert_eq!(connection.close_reason(), None);
    sender.try_send(&NopN {}.into()).unwrap();
    sender.write();
    assert_eq!(within(SECOND, connection.closed()).await, CloseReason::Reset);
    relay.kill().await;
}

#[tokio::test]
async fn a_relay_with_another_identity_cannot_end_connections_of_the_one_before() {
    let relay = Doomed::start(lasting_place(), &who(1));
    let at = relay.endpoint.local_addr().unwrap();
    let (_client, connection, sender, _receiver) = connected(at, who(1).relay_id()).await;
    quiet().await;
    relay.kill().await;
    let relay = Doomed::start(at, &who(3));
    sender.try_send(&NopN {}.into()).unwrap();
    sender.write();
    assert!(tokio::time::timeout(2 * SECOND, connection.closed()).await.is_err());
    relay.kill().await;
}

#[tokio::test]
async fn an_idle_client_learns_of_a_restart_by_the_wake_datagram() {
    let relay = Doomed::start(lasting_place(), &who(1));
    let at = relay.endpoint.local_addr().unwrap();
    let (client, connection, sender, _receiver) = connected(at, who(1).relay_id()).await;
    quiet().await;
    relay.kill().await;
    let relay = Doomed::start(at, &who(1));
    let start = tokio::time::Instant::from_std(TokioRuntime.now());
    relay.endpoint.wake(client.local_addr().unwrap()).await.unwrap();
    assert_eq!(within(SECOND, client.woken()).await, at);
    sender.try_send(&NopN {}.into()).unwrap();
    sender.write();
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
