//! Who is connected: the newest session of a peer wins, and one that takes nothing is ended without loss.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use posthouse::client::{Client, Event, Stop};
use posthouse::protocol::{AckR, AgainN, CloseCode, Frame, HelloR, Outcome, StreamKind, Taken};

use crate::support::client::{Log, Taker, accepted, builder, client, outcomes, send};
use crate::support::raw::{Session, Speaker, hello, reader};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

#[tokio::test]
async fn the_newest_session_wins_and_the_older_one_is_told_and_stays_away() {
    let relay = TestRelay::in_memory().started();
    let home = relay.home();
    let older = client(2, &home);
    let told = Log::of(&older).await;
    told.connected(1).await;
    let newer = client(2, &home);
    let taker = Taker::of(&newer);
    until("the end of the older one", || told.count(|event| matches!(event, Event::Stopped { .. })) > 0).await;
    assert_eq!(told.farewells().len(), 1);
    assert!(told.farewells()[0].contains("superseded"), "{:?}", told.farewells());
    assert_eq!(within("the end of receiving", older.recv()).await.unwrap_err(), Stop::Superseded);
    let alice = client(1, &home);
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one"]);
    assert_eq!(told.connections(), 1, "it did not come back");
}

#[tokio::test]
async fn a_greeting_that_comes_when_its_client_is_dead_ends_no_session_of_a_live_one() {
    let mut relay = TestRelay::in_memory();
    relay.limits.transport.hello_timeout = Duration::from_millis(500);
    relay.start();
    let dead = Speaker::connect(relay.at(), Some(2), 1 << 20).await;
    let home = relay.home();
    let bob = client(2, &home);
    let told = Log::of(&bob).await;
    told.connected(1).await;
    let mut submit = dead.open(StreamKind::Submit).await;
    submit.say(hello()).await;
    assert_eq!(submit.hear().await, Some(AgainN {}.into()));
    assert_eq!(dead.closed().await.0, CloseCode::HelloTimeout);
    let (taker, alice) = (Taker::of(&bob), client(1, &home));
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!((taker.bodies(), told.connections()), (vec!["one".to_owned()], 1));
}

/// The question that a living client answers is younger than every session that may give way to the answer.
#[tokio::test]
async fn an_answer_that_is_older_than_the_session_it_would_end_is_asked_for_anew() {
    let relay = TestRelay::in_memory().started();
    let first = Session::open(relay.at(), 2, hello()).await;
    let late = Speaker::connect(relay.at(), Some(2), 1 << 20).await;
    let mut submit = late.open(StreamKind::Submit).await;
    submit.say(hello()).await;
    assert_eq!(submit.hear().await, Some(AgainN {}.into()));
    let second = Session::open(relay.at(), 2, hello()).await;
    assert_eq!(first.closed().await.0, CloseCode::Superseded);
    submit.say(hello()).await;
    assert_eq!(submit.hear().await, Some(AgainN {}.into()), "it was alive, but was it when the second one began?");
    submit.say(hello()).await;
    assert!(matches!(submit.hear().await, Some(Frame::HelloA(_))));
    assert_eq!(second.closed().await.0, CloseCode::Superseded);
}

#[tokio::test]
async fn what_an_older_session_still_says_is_not_heard() {
    let relay = TestRelay::in_memory().started();
    let older = Session::open(relay.at(), 1, hello()).await;
    let newer = Session::open(relay.at(), 1, hello()).await;
    assert_eq!(older.closed().await.0, CloseCode::Superseded);
    assert_eq!(relay.sessions(), 1);
    drop(newer);
    until("no session", || relay.sessions() == 0).await;
}

#[tokio::test]
async fn two_devices_of_one_peer_do_not_end_each_other() {
    let relay = TestRelay::in_memory().started();
    let first = Session::open(relay.at(), 1, hello()).await;
    let second = Session::open(relay.at(), 1, HelloR { device: 1, ..hello() }).await;
    assert_eq!(relay.sessions(), 2);
    drop((first, second));
    until("no session", || relay.sessions() == 0).await;
}

/// The next MSG:N: its attempt, and when it came.
async fn push(session: &mut Session) -> Option<(u64, Instant)> {
    loop {
        if let Frame::MsgN(message) = session.notify.hear().await? {
            return Some((message.attempt, Instant::now()));
        }
    }
}

#[tokio::test]
async fn a_message_that_is_never_acknowledged_is_pushed_five_times_then_the_session_is_closed_as_stalled() {
    let relay = TestRelay::in_memory().started();
    let mut bob = Session::open(relay.at(), 2, HelloR { ack_timeout_ms: 100, ..reader() }).await;
    let alice = client(1, &relay.home());
    let mut sent = send(&alice, &relay.home(), 2, &["one"]).await;
    accepted(&mut sent).await;
    let mut pushes = Vec::new();
    while let Some(push) = push(&mut bob).await {
        pushes.push(push);
    }
    let attempts: Vec<u64> = pushes.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    for ((pair, times), wait) in pushes.windows(2).zip(1..).zip([100, 200, 400, 800]) {
        let waited = pair[1].1 - pair[0].1;
        // How much later it is read is the machine's affair; earlier than the timer it cannot be.
        assert!(waited + Duration::from_millis(50) >= Duration::from_millis(wait), "{times}: {waited:?}");
    }
    let (code, reason) = bob.closed().await;
    assert_eq!(code, CloseCode::Stalled, "{reason}");
    let bob = Session::open(relay.at(), 2, reader()).await;
    assert_eq!(bob.hello.status.messages, 1, "the message is still there");
    drop(bob);
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one"]);
}

#[tokio::test]
async fn the_confirmation_of_an_acknowledgement_goes_along_with_the_next_message() {
    let relay = TestRelay::in_memory().started();
    // One message at a time.
    let mut bob = Session::open(relay.at(), 2, HelloR { credit_messages: 1, ..reader() }).await;
    let alice = client(1, &relay.home());
    accepted(&mut send(&alice, &relay.home(), 2, &["one", "two"]).await).await;
    let Some(Frame::MsgN(one)) = bob.notify.hear().await else { panic!("no message") };
    let answers = Taken { taken: [(one.seq, one.seq)].into_iter().collect(), refused: Vec::new() };
    bob.notify.say(AckR { request: 0, store: bob.hello.store, answers }).await;
    let Some(Frame::MsgN(two)) = bob.notify.hear().await else { panic!("no second message") };
    assert!(two.seq > one.seq);
    // What was written with one call comes in one datagram.
    let along = bob.notify.hear().now_or_never().flatten();
    assert!(matches!(&along, Some(Frame::AckA(confirmed)) if confirmed.request == 0), "{along:?}");
}

#[tokio::test]
async fn an_application_that_holds_a_message_for_too_long_gets_it_once_all_the_same() {
    let relay = TestRelay::in_memory().started();
    let home = relay.home();
    let bob = builder(2, &home).ack_timeout(Duration::from_millis(100)).start().unwrap();
    let told = Log::of(&bob).await;
    told.connected(1).await;
    bob.status(None).await.unwrap();
    let alice = client(1, &home);
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    let held = within("a message", bob.recv()).await.unwrap();
    until("the end of the session", || told.farewells().len() == 1).await;
    assert!(told.farewells()[0].contains("stalled"), "{:?}", told.farewells());
    told.connected(2).await;
    assert_eq!(bob.status(None).await.unwrap().messages, 1);
    let mut next = send(&alice, &home, 2, &["two"]).await;
    let second = within("the next message", bob.recv()).await.unwrap();
    assert_eq!((&held.body[..], &second.body[..]), (&b"one"[..], &b"two"[..]), "nothing was handed out twice");
    held.taken().await.unwrap();
    second.taken().await.unwrap();
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(outcomes(&mut next).await, [Outcome::Delivered]);
    relay.waits_for(2, 0).await;
}

#[tokio::test]
async fn a_message_that_is_dropped_unanswered_comes_again_after_those_already_given() {
    let relay = TestRelay::in_memory().started();
    let home = relay.home();
    let (alice, bob) = (client(1, &home), client(2, &home));
    let mut sent = send(&alice, &home, 2, &["one", "two"]).await;
    let next = |bob: &Client| {
        let bob = bob.clone();
        async move { within("a message", bob.recv()).await.unwrap() }
    };
    let (one, two) = (next(&bob).await, next(&bob).await);
    drop(one);
    two.taken().await.unwrap();
    let one = next(&bob).await;
    assert_eq!(&one.body[..], b"one");
    one.taken().await.unwrap();
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
}
