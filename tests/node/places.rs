//! Where another relay is: over IPv4 and IPv6, after it moved, and although somebody names a wrong place.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use posthouse::address::RelayAddress;
use posthouse::client::{Client, Outgoing};
use posthouse::federation::Standing;
use posthouse::protocol::Outcome;
use posthouse::relay::Policy;
use posthouse::time::{SystemClock, UnixMillis};
use posthouse::transport::Socket;

use crate::support::client::{Taker, accepted, builder, client, outcomes, send};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

/// The second relay of the cast.
const THERE: u8 = 250;

/// A relay's address with another host.
fn elsewhere(relay: &TestRelay, at: SocketAddr) -> RelayAddress {
    RelayAddress::new(relay.identity().relay_id(), at.into())
}

/// Where nobody answers, as long as the socket is held.
fn nowhere() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Sends one word and waits until the sender's relay has it.
async fn leave(from: &Client, to: &RelayAddress, word: &str) -> Vec<Outgoing> {
    let mut sent = send(from, to, 2, &[word]).await;
    accepted(&mut sent).await;
    sent
}

async fn known_at(relay: &TestRelay) -> Taker {
    let bob = client(2, &relay.home());
    within("a session", bob.status(None)).await.unwrap();
    Taker::of(&bob)
}

#[tokio::test]
async fn relays_reach_each_other_whichever_of_ipv4_and_ipv6_they_listen_at() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let [four, six, both] = [("127.0.0.1:0", 0), ("[::1]:0", THERE), ("[::]:0", 251)]
        .map(|(at, name)| TestRelay::in_memory().named(name).listening_at(at).started());
    let both_at = |host: &str| elsewhere(&both, SocketAddr::new(host.parse().unwrap(), both.at().port()));
    let anywhere = |number, home: &RelayAddress| {
        builder(number, home).socket(Socket::Bind("[::]:0".parse().unwrap())).start().unwrap()
    };
    let homes = [four.home(), six.home(), both_at("::1"), both_at("127.0.0.1")];
    for (from, to) in [(0, 1), (1, 0), (0, 2), (1, 3), (2, 0), (3, 1)] {
        let (alice, bob) = (anywhere(1, &homes[from]), anywhere(2, &homes[to]));
        within("a session", bob.status(None)).await.unwrap();
        let taker = Taker::of(&bob);
        let mut sent = send(&alice, &homes[to], 2, &["hello"]).await;
        assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered], "from {} to {}", homes[from], homes[to]);
        assert_eq!(taker.bodies(), ["hello"]);
    }
}

#[tokio::test]
async fn what_waits_for_a_relay_that_moved_follows_it_once_a_newer_address_says_where() {
    let (mut here, mut there) = (TestRelay::on_disk().started(), TestRelay::on_disk().named(THERE).started());
    let old = there.home();
    drop(known_at(&there).await);
    there.stop().await;
    let _nobody = UdpSocket::bind(there.at()).unwrap();
    let alice = client(1, &here.home());
    let mut sent = leave(&alice, &old, "one").await;
    there.move_away();
    there.start();
    assert_ne!(there.home(), old);
    sent.extend(leave(&alice, &there.home(), "two").await);
    let taker = known_at(&there).await;
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    // The newer address is on disk: it holds for the next run of the sender's relay.
    there.stop().await;
    sent.extend(leave(&alice, &old, "three").await);
    here.kill().await;
    there.start();
    here.start();
    taker.count(3).await;
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 3]);
    assert_eq!(taker.bodies(), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_wrong_place_that_one_sender_names_keeps_nobody_elses_messages_back() {
    let (here, mut there) = (TestRelay::on_disk().started(), TestRelay::on_disk().named(THERE).started());
    let taker = known_at(&there).await;
    let (alice, mallory) = (client(1, &here.home()), client(3, &here.home()));
    let mut sent = leave(&alice, &there.home(), "one").await;
    taker.count(1).await;
    there.kill().await;
    // As many as an address can name, so that they take all the room there is.
    let silent: Vec<_> = (0..posthouse::address::MAX_HOSTS).map(|_| nowhere()).collect();
    let hosts: Vec<String> = silent.iter().map(|(_, at)| at.to_string()).collect();
    let wrong = format!("posthouse://{}@{}", there.identity().relay_id(), hosts.join(","));
    let mut lies = leave(&mallory, &wrong.parse().unwrap(), "x").await;
    sent.extend(leave(&alice, &there.home(), "two").await);
    lies.extend(leave(&mallory, &wrong.parse().unwrap(), "y").await);
    there.start();
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    until("hers, too", || taker.len() == 4).await;
    assert_eq!(taker.bodies_from(1), ["one", "two"]);
}

#[tokio::test]
async fn where_the_configuration_says_that_a_relay_is_counts_whatever_messages_say() {
    let there = TestRelay::in_memory().named(THERE).started();
    let policy = Policy { places: [(there.identity().relay_id(), there.home())].into(), ..Policy::default() };
    let here = TestRelay::in_memory().with(|limits, _| limits.federation = policy).started();
    let (_silent, wrong) = nowhere();
    let taker = known_at(&there).await;
    let alice = client(1, &here.home());
    let mut sent = leave(&alice, &elsewhere(&there, wrong), "hello").await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["hello"]);
}

/// When the only link is tried again.
async fn next_try(relay: &TestRelay) -> Option<UnixMillis> {
    match relay.links().await.first()?.standing {
        Standing::Waiting { retry_at } => Some(retry_at),
        _ => None,
    }
}

#[tokio::test]
async fn one_more_message_does_not_hurry_a_link() {
    let here = TestRelay::in_memory().started();
    let there = TestRelay::in_memory().named(THERE).started();
    let taker = known_at(&there).await;
    let alice = client(1, &here.home());
    // Somebody else is there, who says so at once.
    let wrong = elsewhere(&there, here.at());
    let mut sent = leave(&alice, &wrong, "0").await;
    let enough = Duration::from_secs(5);
    let retry_at = within("a long wait", async {
        loop {
            match next_try(&here).await {
                Some(at) if SystemClock::shared().date().until(at) > enough => return at,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    for word in ["1", "2", "3"] {
        sent.extend(leave(&alice, &wrong, word).await);
        assert_eq!(next_try(&here).await, Some(retry_at));
    }
    sent.extend(leave(&alice, &there.home(), "4").await);
    taker.count(5).await;
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 5]);
}
