//! Peers of different relays: what is promised within one relay holds between two.

use std::time::Duration;

use posthouse::client::Client;
use posthouse::id::{LaneId, PeerId};
use posthouse::protocol::{Answer, CloseCode, Frame, HelloR, MsgA, MsgR, Outcome, RejectReason, Role, Verdict};
use posthouse::relay::{Admission, Policy};

use crate::support::client::{Taker, accepted, client, client_in, outcomes, send, short_lived};
use crate::support::hesitant::Hesitation;
use crate::support::raw::{Session, Speaker, forwarded, hello, peer};
use crate::support::relay::TestRelay;
use crate::support::{until, who, within};

/// The second relay of the cast.
const THERE: u8 = 250;

fn two() -> (TestRelay, TestRelay) {
    (TestRelay::on_disk().started(), TestRelay::on_disk().named(THERE).started())
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn known(number: u8, relay: &TestRelay) -> Client {
    let client = client(number, &relay.home());
    within("a session", client.status(None)).await.unwrap();
    client
}

async fn send_numbered(
    from: &Client,
    to: (&TestRelay, u8),
    range: std::ops::Range<usize>,
) -> Vec<posthouse::client::Outgoing> {
    let words = numbered(range);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    send(from, &to.0.home(), to.1, &words).await
}

#[tokio::test]
async fn a_message_reaches_a_peer_of_another_relay_and_its_outcome_comes_back() {
    let (here, there) = two();
    let (alice, bob) = (client(1, &here.home()), known(2, &there).await);
    let mut sent = send(&alice, &there.home(), 2, &["one", "two", "three"]).await;
    let first = within("a message", bob.recv()).await.unwrap();
    assert_eq!((first.from, first.relay), (who(1).peer_id(), here.identity().relay_id()));
    within("the disk", first.taken()).await.unwrap();
    within("the disk", within("a message", bob.recv()).await.unwrap().refuse("no")).await.unwrap();
    within("the disk", within("a message", bob.recv()).await.unwrap().taken()).await.unwrap();
    let refused = Outcome::Rejected { reason: RejectReason::Refused, text: Some("no".into()), maybe_taken: false };
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered, refused, Outcome::Delivered]);
    here.assert_sound().await;
    there.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_arrive_once_and_in_order_though_both_relays_are_killed() {
    let (mut here, mut there) = two();
    let (alice, bob) = (known(1, &here).await, known(2, &there).await);
    let (from_alice, from_bob) = (Taker::of(&bob), Taker::of(&alice));
    let mut to_bob = send_numbered(&alice, (&there, 2), 0..300).await;
    let mut to_alice = send_numbered(&bob, (&here, 1), 0..300).await;
    until("some", || from_alice.len() > 50 || from_bob.len() > 50).await;
    here.kill().await;
    here.start();
    until("more", || from_alice.len() > 150).await;
    there.kill().await;
    there.start();
    assert_eq!(outcomes(&mut to_bob).await, vec![Outcome::Delivered; 300]);
    assert_eq!(outcomes(&mut to_alice).await, vec![Outcome::Delivered; 300]);
    assert_eq!((from_alice.bodies(), from_bob.bodies()), (numbered(0..300), numbered(0..300)));
    here.assert_sound().await;
    there.assert_sound().await;
}

#[tokio::test]
async fn the_outcome_waits_for_a_sender_that_left_before_the_other_relay_came() {
    let (here, mut there) = two();
    let place = tempfile::tempdir().unwrap();
    known(2, &there).await.close().await;
    there.stop().await;
    let alice = client_in(place.path(), 1, &here.home());
    accepted(&mut send(&alice, &there.home(), 2, &["patience"]).await).await;
    within("its end", alice.close()).await;
    there.start();
    let bob = client(2, &there.home());
    let taker = Taker::of(&bob);
    taker.count(1).await;
    here.outbox_drains(&there).await;
    let alice = client_in(place.path(), 1, &here.home());
    let log = crate::support::client::Log::of(&alice).await;
    until("the outcome", || log.outcomes().len() == 1).await;
    assert_eq!(log.outcomes()[0].1, Outcome::Delivered);
    assert_eq!(taker.bodies(), ["patience"]);
}

#[tokio::test]
async fn a_relay_that_lost_its_store_is_offered_again_what_others_hold() {
    let (here, mut there) = two();
    let alice = client(1, &here.home());
    known(2, &there).await.close().await;
    let mut sent = send(&alice, &there.home(), 2, &["one", "two", "three"]).await;
    accepted(&mut sent).await;
    until("they are there", || true).await;
    there.waits_for(2, 3).await;
    there.kill().await;
    there.lose_disk();
    there.start();
    let bob = client(2, &there.home());
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 3]);
    assert_eq!(taker.bodies(), ["one", "two", "three"]);
}

#[tokio::test]
async fn what_never_left_for_a_dead_relay_was_not_taken() {
    let (here, mut there) = two();
    there.stop().await;
    let alice = client(1, &here.home());
    let draft = short_lived(&there.home(), 2, "late", Duration::from_secs(1));
    let mut sent = within("the outbox", alice.send(draft)).await.unwrap();
    let outcome = within("the outcome", sent.outcome()).await.unwrap();
    assert_eq!(outcome, Outcome::Expired { maybe_taken: false });
    here.assert_sound().await;
}

#[tokio::test]
async fn a_policy_keeps_other_relays_out_and_names_no_route_to_them() {
    let closed = Policy { admission: Admission::Closed, ..Policy::default() };
    let here = TestRelay::in_memory().with(|limits, _| limits.federation = closed).started();
    let there = TestRelay::in_memory().named(THERE).started();
    let alice = client(1, &here.home());
    let mut sent = send(&alice, &there.home(), 2, &["out"]).await;
    let no_route = Outcome::Rejected { reason: RejectReason::NoRoute, text: None, maybe_taken: false };
    assert_eq!(outcomes(&mut sent).await, [no_route]);
    let relay = Speaker::connect(here.at(), Some(THERE), 1 << 20).await;
    let mut submit = relay.open(posthouse::protocol::StreamKind::Submit).await;
    submit.say(HelloR { role: Role::Relay, ..hello() }).await;
    assert_eq!(relay.closed().await.0, CloseCode::NotAllowed);
}

#[tokio::test]
async fn a_relay_speaks_for_its_own_peers_alone_and_forges_none() {
    let here = TestRelay::in_memory().started();
    let bob = known(2, &here).await;
    let taker = Taker::of(&bob);
    let mut relay = Session::open(here.at(), THERE, HelloR { role: Role::Relay, ..hello() }).await;
    let unsigned = MsgR { signature: None, ..forwarded(1, &who(1), THERE, 2, 1) };
    let onward =
        MsgR { home: Some(format!("posthouse://{}@127.0.0.1:1", peer(9))), ..forwarded(2, &who(1), THERE, 3, 1) };
    for (message, expected) in [
        (forwarded(0, &who(1), 9, 1, 1), RejectReason::WrongSender),
        (unsigned, RejectReason::BadSignature),
        (onward, RejectReason::NoRoute),
    ] {
        relay.submit.say(message).await;
        let Some(Frame::MsgA(MsgA { answer: Answer::Final(Verdict { outcome, .. }), .. })) = relay.submit.hear().await
        else {
            panic!("no refusal")
        };
        assert!(matches!(outcome, Outcome::Rejected { reason, maybe_taken: false, .. } if reason == expected));
    }
    // A forgery is stored, for the relay does not judge signatures; the recipient's client does.
    let forged = MsgR { signature: Some([7; 64]), ..forwarded(3, &who(1), THERE, 4, 1) };
    relay.submit.say(forged).await;
    assert!(matches!(relay.submit.hear().await, Some(Frame::MsgA(MsgA { answer: Answer::Accepted { .. }, .. }))));
    let Some(Frame::AckN(told)) = relay.notify.hear().await else { panic!("no outcome") };
    assert_eq!((told.sender, told.lane), (Some(who(1).peer_id()), LaneId(4)));
    assert!(matches!(&told.exceptions[0].verdict.outcome, Outcome::Rejected { reason: RejectReason::Refused, .. }));
    // And a genuine one is taken.
    relay.submit.say(forwarded(4, &who(1), THERE, 5, 1)).await;
    taker.count(1).await;
    assert_eq!(taker.all()[0].from, PeerId::from_bytes(*who(1).peer_id().as_bytes()));
}

#[tokio::test]
async fn nothing_is_said_of_what_an_earlier_run_forwarded_before_the_other_relay_is_asked() {
    let (mut here, mut there) = two();
    known(2, &there).await.close().await;
    let place = tempfile::tempdir().unwrap();
    let alice = client_in(place.path(), 1, &here.home());
    let ttl = Duration::from_secs(4);
    let mut first = within("the outbox", alice.send(short_lived(&there.home(), 2, "one", ttl))).await.unwrap();
    let over = tokio::time::sleep(ttl + Duration::from_secs(1));
    there.waits_for(2, 1).await;
    here.kill().await;
    let bob = client(2, &there.home());
    Taker::of(&bob).count(1).await;
    there.waits_for(2, 0).await;
    there.kill().await;
    // A message for the same relay comes while its store still looks for what the last run left.
    here.hesitation = Some(Hesitation::Links);
    here.start();
    accepted(&mut send(&alice, &there.home(), 2, &["two"]).await).await;
    over.await;
    there.start();
    assert_eq!(within("the outcome", first.outcome()).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn a_relay_that_nothing_waits_for_is_forgotten_at_the_next_start() {
    use posthouse::store::RelayStore as _;
    let (mut here, there) = two();
    let (alice, bob) = (client(1, &here.home()), known(2, &there).await);
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut send(&alice, &there.home(), 2, &["one"]).await).await, [Outcome::Delivered]);
    here.kill().await;
    here.start();
    let store = here.store().clone();
    within("no link", async {
        while !store.links().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(outcomes(&mut send(&alice, &there.home(), 2, &["two"]).await).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one", "two"]);
    here.assert_sound().await;
}
