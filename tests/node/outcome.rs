//! Outcomes other than *delivered*: refused by the relay, refused by the application, out of time. Each is true,
//! and reaches its sender.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use posthouse::client::{Client, Event, Outgoing};
use posthouse::protocol::{AckR, Frame, Outcome, Refusal, RejectReason, Taken};
use posthouse::ranges::Ranges;
use posthouse::store::StoreLimits;

use crate::support::client::{Log, Taker, accepted, client, client_in, draft, outcomes, send, short_lived};
use crate::support::hesitant::Hesitation;
use crate::support::proxy::Proxy;
use crate::support::raw::{Session, hello, reader};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

const SECOND: Duration = Duration::from_secs(1);

fn rejected(reason: RejectReason) -> Outcome {
    Outcome::Rejected { reason, text: None, maybe_taken: false }
}

const fn expired(maybe_taken: bool) -> Outcome {
    Outcome::Expired { maybe_taken }
}

/// A message to 2 that lives for a second, accepted.
async fn second_long(alice: &Client, relay: &TestRelay) -> Vec<Outgoing> {
    let mut sent = vec![alice.send(short_lived(&relay.home(), 2, "soon over", SECOND)).await.unwrap()];
    accepted(&mut sent).await;
    sent
}

#[tokio::test]
async fn in_closed_mode_an_unknown_peer_is_refused_by_name() {
    let relay = TestRelay::on_disk().with(|_, store| store.open = false).started();
    let alice = client(1, &relay.home());
    let mut sent = send(&alice, &relay.home(), 2, &["one", "two"]).await;
    assert_eq!(outcomes(&mut sent).await, vec![rejected(RejectReason::UnknownPeer); 2]);
    // Once it was seen, it may be written to.
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    within("a session", bob.status(None)).await.unwrap();
    let mut sent = send(&alice, &relay.home(), 2, &["three"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["three"]);
    relay.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_nothing_waits_every_outcome_has_been_told() {
    let relay = TestRelay::in_memory().started();
    // In a file, so that an outcome is on its way to the disk for a while.
    let directory = tempfile::tempdir().unwrap();
    let alice = client_in(directory.path(), 1, &relay.home());
    let bob = client(2, &relay.home());
    let _taker = Taker::of(&bob);
    let mut events = alice.events().await.unwrap();
    for round in 0..20 {
        let drafts = (0..200).map(|number| draft(&relay.home(), 2, format!("{round}/{number}"))).collect();
        drop(alice.send_all(drafts).await.unwrap());
        while alice.waiting().await.unwrap() > 0 {}
        let mut told = 0;
        while let Some(event) = tokio::task::coop::unconstrained(events.next()).now_or_never().flatten() {
            told += usize::from(matches!(event, Event::Outcome { .. }));
        }
        assert_eq!(told, 200, "round {round}");
    }
}

#[tokio::test]
async fn a_thousand_messages_in_a_row_to_an_unknown_peer_all_get_their_outcome_soon() {
    let relay = TestRelay::in_memory().with(|_, store| store.open = false).started();
    let proxy = Proxy::before(&relay, &[1]);
    let alice = client(1, &proxy.home());
    let told = Log::of(&alice).await;
    let started = Instant::now();
    let drafts = (0..1000).map(|number| draft(&relay.home(), 2, number.to_string())).collect();
    let mut sent = alice.send_all(drafts).await.unwrap();
    assert_eq!(outcomes(&mut sent).await, vec![rejected(RejectReason::UnknownPeer); 1000]);
    println!("1,000 messages to an unknown peer: all outcomes after {:?}", started.elapsed());
    assert!(started.elapsed() < 10 * SECOND);
    assert_eq!((told.connections(), told.farewells()), (1, Vec::new()));
    let offers = proxy.count(|frame| matches!(frame, Frame::MsgR(_)));
    assert!(offers <= 1100, "{offers} offers: those on their way together are answered together");
    until("all events", || told.outcomes().len() >= 1000).await;
    assert_eq!(told.outcomes().len(), 1000);
}

#[tokio::test]
async fn a_provisional_mailbox_is_small_and_becomes_a_whole_one() {
    let narrow = |store: &mut StoreLimits| (store.provisional_messages, store.pair_percent) = (5, 100);
    let relay = TestRelay::in_memory().with(|_, store| narrow(store)).started();
    let alice = client(1, &relay.home());
    let mut sent = send(&alice, &relay.home(), 2, &["1", "2", "3", "4", "5"]).await;
    accepted(&mut sent).await;
    let mut refused = send(&alice, &relay.home(), 2, &["6", "7"]).await;
    assert_eq!(outcomes(&mut refused).await, vec![rejected(RejectReason::UnknownPeer); 2]);
    let bob = client(2, &relay.home());
    within("a session", bob.status(None)).await.unwrap();
    sent.extend(send(&alice, &relay.home(), 2, &["8", "9", "10", "11", "12", "13"]).await);
    accepted(&mut sent).await;
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 11]);
    assert_eq!(taker.bodies(), ["1", "2", "3", "4", "5", "8", "9", "10", "11", "12", "13"]);
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_lane_goes_on() {
    let relay = TestRelay::in_memory().with(|limits, _| limits.body_bytes = 100).started();
    let (alice, bob) = (client(1, &relay.home()), client(2, &relay.home()));
    let taker = Taker::of(&bob);
    within("a session", bob.status(None)).await.unwrap();
    let large = "x".repeat(101);
    let mut sent = send(&alice, &relay.home(), 2, &["before", &large, &large[1..]]).await;
    let expected = [Outcome::Delivered, rejected(RejectReason::TooLarge), Outcome::Delivered];
    assert_eq!(outcomes(&mut sent).await, expected);
    assert_eq!(taker.bodies(), ["before", &large[1..]]);
}

#[tokio::test]
async fn the_words_of_a_refusal_reach_the_sender() {
    let relay = TestRelay::on_disk().started();
    let (alice, bob) = (client(1, &relay.home()), client(2, &relay.home()));
    let mut sent = send(&alice, &relay.home(), 2, &["one", "two", "three", "four"]).await;
    let long = "ä".repeat(200);
    for words in ["not today", "", &long] {
        within("a message", bob.recv()).await.unwrap().refuse(words).await.unwrap();
    }
    within("a message", bob.recv()).await.unwrap().taken().await.unwrap();
    let refused = |text: Option<&str>| Outcome::Rejected {
        reason: RejectReason::Refused,
        text: text.map(str::to_owned),
        maybe_taken: false,
    };
    let expected = [refused(Some("not today")), refused(None), refused(Some(&long[..256])), Outcome::Delivered];
    assert_eq!(outcomes(&mut sent).await, expected);
    relay.waits_for(2, 0).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn a_refusal_reaches_its_sender_though_who_refused_was_gone_before_it_was_durable() {
    let mut relay = TestRelay::in_memory();
    relay.hesitation = Some(Hesitation::Answers);
    relay.start();
    let mut bob = Session::open(relay.at(), 2, reader()).await;
    let alice = client(1, &relay.home());
    let told = Log::of(&alice).await;
    let mut sent = send(&alice, &relay.home(), 2, &["one"]).await;
    let Some(Frame::MsgN(message)) = bob.notify.hear().await else { panic!("no MSG:N") };
    let answers = Taken { taken: Ranges::new(), refused: vec![Refusal { seq: message.seq, text: None }] };
    bob.notify.say(AckR { request: 1, store: bob.hello.store, answers }).await;
    assert!(matches!(bob.notify.hear().await, Some(Frame::AckA(_))));
    assert!(told.outcomes().is_empty(), "it is told before it is durable");
    drop(bob);
    assert_eq!(outcomes(&mut sent).await, [rejected(RejectReason::Refused)]);
    assert_eq!(told.connections(), 1);
}

#[tokio::test]
async fn a_sender_that_was_away_learns_of_a_refusal_and_of_a_delivery() {
    let relay = TestRelay::on_disk().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let alice = client_in(place.path(), 1, &home);
    let mut sent = send(&alice, &home, 2, &["one", "two"]).await;
    accepted(&mut sent).await;
    within("its end", alice.close()).await;
    let bob = client(2, &home);
    within("a message", bob.recv()).await.unwrap().refuse("no").await.unwrap();
    within("a message", bob.recv()).await.unwrap().taken().await.unwrap();
    relay.waits_for(2, 0).await;
    let alice = client_in(place.path(), 1, &home);
    let told = Log::of(&alice).await;
    until("both outcomes", || told.outcomes().len() == 2).await;
    let text = Some("no".to_owned());
    let refused = Outcome::Rejected { reason: RejectReason::Refused, text, maybe_taken: false };
    let outcomes: std::collections::HashMap<_, _> = told.outcomes().into_iter().collect();
    assert_eq!(outcomes, [(sent[0].id, refused), (sent[1].id, Outcome::Delivered)].into());
}

#[tokio::test]
async fn what_expires_without_having_been_handed_out_was_not_taken() {
    let relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    let mut sent = second_long(&alice, &relay).await;
    assert_eq!(outcomes(&mut sent).await, [expired(false)]);
    // Also where the recipient was here before, and left without a trace of this.
    let bob = client(2, &relay.home());
    within("a session", bob.status(None)).await.unwrap();
    within("its end", bob.close()).await;
    until("no session of his", || relay.sessions() == 1).await;
    let mut sent = second_long(&alice, &relay).await;
    assert_eq!(outcomes(&mut sent).await, [expired(false)]);
    relay.waits_for(2, 0).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_expires_after_it_was_pushed_may_have_been_taken() {
    let relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    let mut bob = Session::open(relay.at(), 2, reader()).await;
    let mut sent = second_long(&alice, &relay).await;
    assert!(matches!(bob.notify.hear().await, Some(Frame::MsgN(_))));
    drop(bob);
    assert_eq!(outcomes(&mut sent).await, [expired(true)]);
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_expires_while_a_session_is_open_may_have_been_taken() {
    let relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    // It never asks and is never pushed to; but the relay does not bet on that.
    let bob = Session::open(relay.at(), 2, hello()).await;
    let mut sent = second_long(&alice, &relay).await;
    assert_eq!(outcomes(&mut sent).await, [expired(true)]);
    drop(bob);
}

#[tokio::test]
async fn what_expires_after_a_crash_that_cut_a_session_off_may_have_been_taken() {
    let mut relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    let bob = Session::open(relay.at(), 2, hello()).await;
    let mut sent = second_long(&alice, &relay).await;
    relay.kill().await;
    drop(bob);
    relay.start();
    assert_eq!(outcomes(&mut sent).await, [expired(true)]);
}

#[tokio::test]
async fn a_sender_that_was_away_learns_that_its_message_expired() {
    let relay = TestRelay::on_disk().started();
    let (home, place) = (relay.home(), tempfile::tempdir().unwrap());
    let alice = client_in(place.path(), 1, &home);
    let sent = second_long(&alice, &relay).await;
    within("its end", alice.close()).await;
    relay.waits_for(2, 0).await;
    let alice = client_in(place.path(), 1, &home);
    let told = Log::of(&alice).await;
    until("the outcome", || told.outcomes().len() == 1).await;
    assert_eq!(told.outcomes(), [(sent[0].id, expired(false))]);
    // It was seen, so it is not told again.
    assert_eq!(within("a count", alice.waiting()).await.unwrap(), 0);
}

#[tokio::test]
async fn what_expires_before_the_relay_was_ever_reached_was_not_taken() {
    let mut relay = TestRelay::in_memory().started();
    relay.stop().await;
    let alice = client(1, &relay.home());
    let mut sent = vec![alice.send(short_lived(&relay.home(), 2, "soon over", SECOND)).await.unwrap()];
    assert_eq!(outcomes(&mut sent).await, [expired(false)]);
}

#[tokio::test]
async fn an_expired_message_is_not_handed_out() {
    let relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    let mut sent = vec![alice.send(short_lived(&relay.home(), 2, "over", SECOND)).await.unwrap()];
    sent.extend(send(&alice, &relay.home(), 2, &["lasting"]).await);
    accepted(&mut sent).await;
    assert_eq!(outcomes(&mut sent[..1]).await, [expired(false)]);
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent[1..]).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["lasting"]);
}
