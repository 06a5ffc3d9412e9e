//! Copies of a store put back, at a client and at a relay: nothing is lost that a sender still holds, and nothing
//! comes twice that was not forgotten with the copy.

use std::path::Path;

use posthouse::client::{Client, Event, Outgoing};
use posthouse::protocol::{Frame, Outcome};

use crate::support::client::{Log, Taker, accepted, client, client_in, outcomes, send};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

const STORE: &str = "client.redb";
const COPY: &str = "copy.redb";

/// Closes a client and copies its store.
async fn copy(client: Client, directory: &Path) {
    within("the end of a client", client.close()).await;
    std::fs::copy(directory.join(STORE), directory.join(COPY)).unwrap();
}

/// Puts the copy in the place of the store.
async fn put_back(client: Client, directory: &Path) {
    within("the end of a client", client.close()).await;
    std::fs::copy(directory.join(COPY), directory.join(STORE)).unwrap();
}

/// Waits until nothing lacks its outcome.
async fn settled(client: &Client) {
    within("all outcomes", async {
        while client.waiting().await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn delivered(sent: &mut [Outgoing]) {
    assert_eq!(outcomes(sent).await, vec![Outcome::Delivered; sent.len()]);
}

#[tokio::test]
async fn a_sender_restored_from_an_old_copy_loses_nothing_and_repeats_nothing() {
    let relay = TestRelay::in_memory().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let place = place.path();
    let alice = client_in(place, 1, &home);
    let mut sent = send(&alice, &home, 2, &["one", "two"]).await;
    accepted(&mut sent).await;
    // The copy holds two messages that the relay has.
    copy(alice, place).await;
    let alice = client_in(place, 1, &home);
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    settled(&alice).await;
    delivered(&mut send(&alice, &home, 2, &["three", "four"]).await).await;
    put_back(alice, place).await;
    // What it holds was delivered long ago; what it sends has numbers that were given before.
    let alice = client_in(place, 1, &home);
    let told = Log::of(&alice).await;
    delivered(&mut send(&alice, &home, 2, &["five", "six"]).await).await;
    settled(&alice).await;
    assert_eq!(taker.bodies(), ["one", "two", "three", "four", "five", "six"]);
    until("the outcomes", || told.outcomes().len() == 4).await;
    assert!(told.outcomes().iter().all(|(_, outcome)| *outcome == Outcome::Delivered), "{:?}", told.outcomes());
    relay.assert_sound().await;
}

#[tokio::test]
async fn a_sender_restored_from_before_its_first_message_gives_no_number_twice() {
    let relay = TestRelay::in_memory().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let place = place.path();
    copy(client_in(place, 1, &home), place).await;
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    let alice = client_in(place, 1, &home);
    delivered(&mut send(&alice, &home, 2, &["one", "two"]).await).await;
    put_back(alice, place).await;
    let alice = client_in(place, 1, &home);
    delivered(&mut send(&alice, &home, 2, &["three"]).await).await;
    assert_eq!(taker.bodies(), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_recipient_restored_from_an_old_copy_repeats_at_most_what_it_forgot() {
    let relay = TestRelay::on_disk().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let place = place.path();
    let alice = client(1, &home);
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["one"]).await).await;
    drop(taker);
    copy(bob, place).await;
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["two"]).await).await;
    drop(taker);
    put_back(bob, place).await;
    // "two" is forgotten, but it left the mailbox: it cannot come again. "one" is remembered anyway.
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["three"]).await).await;
    assert_eq!(taker.bodies(), ["three"]);
}

#[tokio::test]
async fn recipient_and_relay_restored_together_repeat_what_both_forgot_and_nothing_else() {
    let mut relay = TestRelay::on_disk().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let place = place.path();
    let alice = client(1, &home);
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["one"]).await).await;
    drop(taker);
    copy(bob, place).await;
    let mut sent = send(&alice, &home, 2, &["two"]).await;
    accepted(&mut sent).await;
    relay.stop().await;
    let backup = relay.copy();
    relay.start();
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut sent).await;
    drop(taker);
    relay.stop().await;
    put_back(bob, place).await;
    relay.put_back(&backup);
    relay.start();
    let bob = client_in(place, 2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["three"]).await).await;
    assert_eq!(taker.bodies(), ["two", "three"]);
    relay.assert_sound().await;
}

/// Sends some that are delivered and some that wait, and gives both, with what Bob took.
async fn half_delivered(relay: &TestRelay, alice: &Client) -> (Vec<Outgoing>, Taker, Client) {
    let home = relay.home();
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(alice, &home, 2, &["one", "two"]).await).await;
    // Carol is away.
    let mut waiting = send(alice, &home, 3, &["three", "four"]).await;
    accepted(&mut waiting).await;
    (waiting, taker, bob)
}

#[tokio::test]
async fn a_relay_that_lost_its_disk_is_offered_again_what_has_no_outcome() {
    let mut relay = TestRelay::on_disk().started();
    let home = relay.home();
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let (mut waiting, taker, bob) = half_delivered(&relay, &alice).await;
    relay.kill().await;
    relay.lose_disk();
    relay.start();
    told.connected(2).await;
    let carol = client(3, &home);
    let carols = Taker::of(&carol);
    delivered(&mut waiting).await;
    let mut more = send(&alice, &home, 3, &["five"]).await;
    more.extend(send(&alice, &home, 2, &["six"]).await);
    delivered(&mut more).await;
    assert_eq!(carols.bodies(), ["three", "four", "five"]);
    assert_eq!(taker.bodies(), ["one", "two", "six"]);
    relay.assert_sound().await;
    bob.close().await;
}

#[tokio::test]
async fn a_relay_restored_from_an_old_copy_is_offered_again_what_has_no_outcome() {
    let mut relay = TestRelay::on_disk().started();
    let home = relay.home();
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    delivered(&mut send(&alice, &home, 2, &["one"]).await).await;
    let mut waiting = send(&alice, &home, 3, &["three"]).await;
    accepted(&mut waiting).await;
    relay.stop().await;
    let backup = relay.copy();
    relay.start();
    // All that happens from here on is unknown to the copy.
    waiting.extend(send(&alice, &home, 3, &["four", "five"]).await);
    accepted(&mut waiting).await;
    delivered(&mut send(&alice, &home, 2, &["two"]).await).await;
    let connections = told.connections();
    relay.kill().await;
    relay.put_back(&backup);
    relay.start();
    told.connected(connections + 1).await;
    let carol = client(3, &home);
    let carols = Taker::of(&carol);
    delivered(&mut waiting).await;
    let mut more = send(&alice, &home, 3, &["six"]).await;
    more.extend(send(&alice, &home, 2, &["seven"]).await);
    delivered(&mut more).await;
    assert_eq!(carols.bodies(), ["three", "four", "five", "six"]);
    assert_eq!(taker.bodies(), ["one", "two", "seven"]);
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_a_recipient_took_before_the_disk_was_lost_is_acknowledged_again_and_not_taken_twice() {
    let mut relay = TestRelay::on_disk().started();
    let proxy = crate::support::proxy::Proxy::before(&relay, &[1]);
    let alice = client(1, &proxy.home());
    let told = Log::of(&alice).await;
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    // Bob takes it, and Alice is not told: she holds it still when the disk is lost.
    let lost = proxy.lose_first(|frame| matches!(frame, Frame::AckN(_)));
    let mut sent = send(&alice, &relay.home(), 2, &["one"]).await;
    until("the outcome on its way", || lost.lock().unwrap().len() == 1).await;
    relay.kill().await;
    relay.lose_disk();
    relay.start();
    told.connected(2).await;
    delivered(&mut sent).await;
    delivered(&mut send(&alice, &relay.home(), 2, &["two"]).await).await;
    assert_eq!(taker.bodies(), ["one", "two"]);
    assert!(told.count(|event| matches!(event, Event::Outcome { .. })) >= 2);
}
