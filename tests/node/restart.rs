//! A relay that stops, politely or by a crash, and comes back: so do its clients, soon.

use std::time::{Duration, Instant};

use posthouse::client::{Client, Event};
use posthouse::protocol::{CloseCode, Frame, NopN, Outcome, StreamKind};
use posthouse::transport::{Socket, TransportLimits};

use crate::support::client::{Log, Taker, builder, client, client_in, draft, outcomes, send};
use crate::support::hesitant::Hesitation;
use crate::support::lasting::lasting_place;
use crate::support::pretender::{pretender, welcome};
use crate::support::raw::{Session, hello};
use crate::support::relay::{RELAY, TestRelay};
use crate::support::{until, within};

/// From the start of a relay that was killed to a session of each of its clients. What is promised is two seconds,
/// which a busy machine may not keep; what is shown is that nobody waits for a keep-alive, which takes fifteen.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// A client whose keep-alive is the usual one.
fn usual(number: u8, relay: &TestRelay) -> Client {
    builder(number, &relay.home()).transport_limits(TransportLimits::default()).start().unwrap()
}

const fn is_connected(event: &Event) -> bool {
    matches!(event, Event::Connected { .. })
}

/// Kills a relay with idle receivers and a busy sender, starts it again after `down`, and says how long each of
/// them took to be connected again, the sender last.
async fn time_to_return(down: Duration) -> Vec<Duration> {
    let mut relay = TestRelay::on_disk().started();
    let idle: Vec<Client> = (2..12).map(|number| usual(number, &relay)).collect();
    let sender = usual(1, &relay);
    let mut logs = Vec::new();
    for client in idle.iter().chain([&sender]) {
        within("a connection", client.status(None)).await.unwrap();
        logs.push(Log::of(client).await);
    }
    let taker = Taker::of(&idle[0]);
    let (home, busy) = (relay.home(), sender.clone());
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        while let Ok(outgoing) = busy.send(draft(&home, 2, sent.len().to_string())).await {
            sent.push(outgoing);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if sent.len() == 200 {
                break;
            }
        }
        sent
    });
    taker.count(20).await;
    relay.kill().await;
    tokio::time::sleep(down).await;
    let started = Instant::now();
    relay.start();
    for log in &logs {
        until("a connection", || log.last(is_connected) > Some(started)).await;
    }
    let mut sent = sending.await.unwrap();
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 200]);
    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(taker.bodies(), numbers, "all of them, once, in order");
    relay.assert_sound().await;
    logs.iter().map(|log| log.last(is_connected).unwrap() - started).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_back_after_a_relays_crash_and_start_without_waiting_for_a_keep_alive() {
    let downs = [Duration::ZERO, Duration::from_millis(700), Duration::from_secs(5)];
    for (down, times) in downs.iter().zip(futures_util::future::join_all(downs.map(time_to_return)).await) {
        let (sender, idle) = times.split_last().unwrap();
        let slowest = idle.iter().max().unwrap();
        println!("down for {down:?}: the sender is back after {sender:?}, the last of ten idle receivers {slowest:?}");
        assert!(*sender < BACK_WITHIN && *slowest < BACK_WITHIN, "{times:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_relay_dies_over_its_greeting_does_not_wait_for_the_answer() {
    let mut relay = TestRelay::on_disk();
    relay.hesitation = Some(Hesitation::Sessions);
    relay.start();
    let client = usual(1, &relay);
    until("R:HELLO", || relay.sessions() == 1).await;
    relay.kill().await;
    relay.hesitation = None;
    relay.start();
    // It waits ten seconds for an answer, and the relay does not know whom to wake.
    let back = tokio::time::timeout(Duration::from_secs(6), client.status(None)).await;
    back.expect("a session").unwrap();
}

#[tokio::test]
async fn a_client_says_something_for_as_long_as_any_of_its_opening_session_is_missing() {
    let (home, relay) = pretender(RELAY);
    let client = client(1, &home);
    let connection = within("an attempt", relay.accept()).await.unwrap().handshake().await.unwrap();
    let (_, submit, mut heard) = within("a stream", connection.accept()).await.unwrap();
    assert!(matches!(within("R:HELLO", heard.next()).await, Ok(Some(Frame::HelloR(_)))));
    let mut something = async || assert_eq!(within("N:NOP", heard.next()).await, Ok(Some(NopN {}.into())));
    something().await;
    submit.send(&welcome().into()).await.unwrap();
    something().await;
    something().await;
    let _notify = connection.open(StreamKind::Notify, 1 << 20).await.unwrap();
    Log::of(&client).await.connected(1).await;
}

/// What a relay sends to the clients of its last run.
const WAKE: &[u8; 24] = b"\0posthouse wake 1\0\0\0\0\0\0\0";

#[tokio::test]
async fn a_forged_call_that_the_relay_is_back_ends_no_session() {
    let relay = TestRelay::in_memory().started();
    let forger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let free = lasting_place();
    let alice = builder(1, &relay.home()).socket(Socket::Bind(free)).start().unwrap();
    let told = Log::of(&alice).await;
    told.connected(1).await;
    // Longer than a client doubts.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        forger.send_to(WAKE, free).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((told.connections(), told.farewells()), (1, Vec::new()));
}

#[tokio::test]
async fn a_polite_stop_is_told_and_clients_come_back() {
    let mut relay = TestRelay::on_disk().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let (alice, bob) = (client(1, &home), client_in(place.path(), 2, &home));
    let (alices, bobs, taker) = (Log::of(&alice).await, Log::of(&bob).await, Taker::of(&bob));
    alices.connected(1).await;
    bobs.connected(1).await;
    let raw = Session::open(relay.at(), 3, hello()).await;
    relay.stop().await;
    assert_eq!(raw.closed().await.0, CloseCode::GoingAway);
    until("both are told", || !alices.farewells().is_empty() && !bobs.farewells().is_empty()).await;
    for log in [&alices, &bobs] {
        assert!(log.farewells()[0].contains("going_away"), "{:?}", log.farewells());
    }
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    let started = Instant::now();
    relay.start();
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    println!("after a polite stop: delivered {:?} after the start", started.elapsed());
    assert_eq!(taker.bodies(), ["one"]);
}

#[tokio::test]
async fn a_client_that_is_started_before_its_relay_connects_once_that_is_there() {
    let mut relay = TestRelay::in_memory().started();
    relay.stop().await;
    let alice = client(1, &relay.home());
    let told = Log::of(&alice).await;
    let mut sent = send(&alice, &relay.home(), 1, &["to myself"]).await;
    relay.start();
    told.connected(1).await;
    let message = within("the message", alice.recv()).await.unwrap();
    assert_eq!(&message.body[..], b"to myself");
    message.taken().await.unwrap();
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
}

#[tokio::test]
async fn what_a_crash_interrupted_between_push_and_answer_is_taken_once() {
    let mut relay = TestRelay::on_disk().started();
    let home = relay.home();
    let (alice, bob) = (client(1, &home), client(2, &home));
    let told = Log::of(&bob).await;
    told.connected(1).await;
    let mut sent = send(&alice, &home, 2, &["one", "two"]).await;
    let held = within("a message", bob.recv()).await.unwrap();
    relay.kill().await;
    relay.start();
    told.connected(2).await;
    held.taken().await.unwrap();
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    assert_eq!(taker.bodies(), ["two"]);
    relay.assert_sound().await;
}
