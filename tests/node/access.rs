//! Who may have a mailbox, whose messages it takes, and how fast: what is refused is refused with a reason that the
//! client shows, and leaves nothing behind.

use std::time::Duration;

use posthouse::client::{Client, Connection, Event, Stop};
use posthouse::protocol::limit::MAX_PEERS_CHANGED;
use posthouse::protocol::{CloseCode, HelloR, MsgR, Outcome, PolicyChange, RejectReason, Role, Senders, WaitReason};
use posthouse::relay::{Admission, Operator, Policy, Rate};
use posthouse::store::{Mailboxes, Standing};

use crate::support::client::{Log, Taker, accepted, builder, client, outcomes, send};
use crate::support::raw::{Session, Speaker, hello, message, peer};
use crate::support::relay::TestRelay;
use crate::support::{until, who, within};

const WINDOW: u32 = 1 << 20;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn rejected(reason: RejectReason) -> Outcome {
    Outcome::Rejected { reason, text: None, maybe_taken: false }
}

fn inviting() -> TestRelay {
    TestRelay::on_disk().with(|_, store| store.access.mailboxes = Mailboxes::Invited).started()
}

async fn invite(operator: &Operator, uses: u64) -> String {
    within("an invitation", operator.invite(uses, WEEK)).await.unwrap().unwrap().0
}

/// Why a client stopped for good.
#[track_caller]
fn refusal(client: &Client) -> impl Future<Output = String> {
    let mut connection = client.connection();
    within("a refusal", async move {
        let stopped = connection.wait_for(|now| matches!(now, Connection::Stopped(_))).await.unwrap();
        match &*stopped {
            Connection::Stopped(Stop::Refused(reason)) => reason.clone(),
            other => panic!("{other:?}"),
        }
    })
}

async fn at_home(number: u8, relay: &TestRelay) -> Client {
    let client = client(number, &relay.home());
    within("a session", client.status(None)).await.unwrap();
    client
}

async fn peers(relay: &TestRelay) -> usize {
    relay.operator().peers(None, 100).await.unwrap().peers.len()
}

#[tokio::test]
async fn an_uninvited_peer_is_told_why_and_does_not_come_back_and_an_invited_one_is_let_in_for_good() {
    let mut relay = inviting();
    let home = relay.home();
    let stranger = client(1, &home);
    let told = Log::of(&stranger).await;
    assert!(refusal(&stranger).await.contains("not_invited"));
    assert_eq!((told.connections(), told.farewells().len()), (0, 1), "one attempt, and its end");
    assert!(matches!(stranger.status(None).await, Err(Stop::Refused(_))));
    assert_eq!(peers(&relay).await, 0, "nothing was stored");
    let token = invite(&relay.operator(), 1).await;
    let invited = builder(1, &home).invitation(&token).start().unwrap();
    within("a session", invited.status(None)).await.unwrap();
    within("its end", invited.close()).await;
    let again = at_home(1, &relay).await;
    let late = builder(2, &home).invitation(&token).start().unwrap();
    assert!(refusal(&late).await.contains("used up"), "it was for one");
    let mut sent = send(&again, &home, 2, &["anybody?"]).await;
    assert_eq!(outcomes(&mut sent).await, [rejected(RejectReason::UnknownPeer)]);
    drop(again);
    relay.stop().await;
    relay.start();
    at_home(1, &relay).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn an_invitation_is_used_up_once_though_its_user_comes_again_and_again() {
    let relay = inviting();
    let token = invite(&relay.operator(), 2).await;
    for _ in 0..3 {
        let client = builder(1, &relay.home()).invitation(&token).start().unwrap();
        within("a session", client.status(None)).await.unwrap();
        within("its end", client.close()).await;
    }
    let other = builder(2, &relay.home()).invitation(&token).start().unwrap();
    within("a session", other.status(None)).await.unwrap();
}

#[tokio::test]
async fn a_blocked_sender_is_told_so_and_nothing_of_it_is_stored() {
    let relay = TestRelay::on_disk().started();
    let (home, bob) = (relay.home(), at_home(2, &relay).await);
    let taker = Taker::of(&bob);
    let alice = client(1, &home);
    assert_eq!(outcomes(&mut send(&alice, &home, 2, &["before"]).await).await, [Outcome::Delivered]);
    within("an answer", bob.block(peer(1))).await.unwrap();
    let mut sent = send(&alice, &home, 2, &["one", "two", "three"]).await;
    assert_eq!(outcomes(&mut sent).await, vec![rejected(RejectReason::Blocked); 3]);
    assert_eq!(relay.waiting_for(2).await, 0);
    let carol = client(3, &home);
    assert_eq!(outcomes(&mut send(&carol, &home, 2, &["hello"]).await).await, [Outcome::Delivered]);
    within("an answer", bob.allow(peer(1))).await.unwrap();
    assert_eq!(outcomes(&mut send(&alice, &home, 2, &["after"]).await).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies_from(1), ["before", "after"]);
    relay.assert_sound().await;
}

#[tokio::test]
async fn who_takes_messages_of_contacts_alone_does_so_over_restarts_and_from_other_relays() {
    let (mut here, there) = (TestRelay::on_disk().started(), TestRelay::on_disk().named(250).started());
    let bob = at_home(2, &here).await;
    within("an answer", bob.set_policy(Senders::Contacts)).await.unwrap();
    within("an answer", bob.allow(peer(1))).await.unwrap();
    within("its end", bob.close()).await;
    here.stop().await;
    here.start();
    let bob = at_home(2, &here).await;
    let policy = within("an answer", bob.policy()).await.unwrap();
    assert_eq!((policy.senders, policy.allowed, policy.blocked), (Senders::Contacts, vec![peer(1)], vec![]));
    let taker = Taker::of(&bob);
    let (friend, stranger) = (client(1, &there.home()), client(3, &there.home()));
    let mut friendly = send(&friend, &here.home(), 2, &["from afar"]).await;
    let mut strange = send(&stranger, &here.home(), 2, &["from afar", "again"]).await;
    assert_eq!(outcomes(&mut friendly).await, [Outcome::Delivered]);
    assert_eq!(outcomes(&mut strange).await, vec![rejected(RejectReason::Blocked); 2]);
    assert_eq!(taker.len(), 1);
    here.assert_sound().await;
    there.assert_sound().await;
}

#[tokio::test]
async fn a_policy_is_changed_in_the_order_of_the_calls_and_by_so_many_peers_at_once() {
    let relay = TestRelay::in_memory().started();
    let bob = client(2, &relay.home());
    for number in 0..50 {
        let (allow, block) = (bob.allow(peer(number)), bob.block(peer(number)));
        let (allowed, blocked) = within("answers", async { tokio::join!(allow, block) }).await;
        assert_eq!((allowed, blocked), (Ok(()), Ok(())));
    }
    let policy = within("an answer", bob.policy()).await.unwrap();
    assert_eq!((policy.allowed, policy.blocked.len()), (vec![], 50));
    let many = |count: usize| PolicyChange { forget: vec![peer(1); count], ..PolicyChange::default() };
    assert!(bob.change_policy(many(MAX_PEERS_CHANGED + 1)).await.is_err());
    within("an answer", bob.change_policy(many(MAX_PEERS_CHANGED))).await.unwrap();
}

#[tokio::test]
async fn a_relay_has_no_policy() {
    let relay = TestRelay::in_memory().started();
    let session = Session::open(relay.at(), 9, HelloR { role: Role::Relay, ..hello() }).await;
    let mut sync = session.speaker.open(posthouse::protocol::StreamKind::Sync).await;
    sync.say(posthouse::protocol::PolicyR { request: 0, change: PolicyChange::default() }).await;
    assert_eq!(session.closed().await.0, CloseCode::UnexpectedFrame);
}

#[tokio::test]
async fn a_peer_over_its_rate_waits_and_others_do_not() {
    let rate = Rate { per_second: 20, burst: 5 };
    let relay = TestRelay::on_disk().with(|relay, _| relay.peer_rate = rate).started();
    let (home, bob) = (relay.home(), at_home(2, &relay).await);
    let words: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let mut sent = send(&alice, &home, 2, &words).await;
    let over = |event: &Event| matches!(event, Event::Waiting { reason: WaitReason::Rate, .. });
    until("a lane that waits", || told.count(over) > 0).await;
    let carol = client(3, &home);
    accepted(&mut send(&carol, &home, 2, &["at once"]).await).await;
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 20]);
    assert_eq!(taker.bodies_from(1), words, "all, once, in order");
    assert_eq!((told.connections(), told.farewells()), (1, vec![]));
}

#[tokio::test]
async fn what_is_over_the_rate_is_not_stored_also_of_another_relay() {
    let slow = Rate { per_second: 1, burst: 3 };
    let relay = TestRelay::on_disk().with(|relay, _| relay.relay_rate = slow).started();
    let there = TestRelay::on_disk().named(250).started();
    let bob = at_home(2, &relay).await;
    within("its end", bob.close()).await;
    let alice = client(1, &there.home());
    let words: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut sent = send(&alice, &relay.home(), 2, &words).await;
    accepted(&mut sent).await;
    // At that rate they take longer than this test has.
    relay.waits_for(2, 3).await;
    relay.waits_for(2, 4).await;
    relay.set_limits(|relay, _| relay.relay_rate = Rate::default());
    relay.waits_for(2, 100).await;
    let bob = at_home(2, &relay).await;
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 100]);
    assert_eq!(taker.bodies_from(1), words);
}

#[tokio::test]
async fn a_message_without_time_left_ends_though_its_sender_is_over_the_rate() {
    let relay = TestRelay::in_memory().with(|relay, _| relay.peer_rate = Rate { per_second: 1, burst: 1 }).started();
    let mut session = Session::open(relay.at(), 1, hello()).await;
    session.submit.say(message(0, 1, 2, 7, 1, b"one")).await;
    session.submit.say(message(1, 1, 2, 7, 2, b"two")).await;
    session.submit.say(MsgR { ttl_ms: 0, prev: 1, ..message(2, 1, 2, 7, 2, b"two") }).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        match session.submit.hear().await {
            Some(posthouse::protocol::Frame::MsgA(answer)) => answers.push(answer.answer),
            other => panic!("{other:?}"),
        }
    }
    use posthouse::protocol::Answer;
    assert!(matches!(answers[0], Answer::Accepted { .. }), "{answers:?}");
    let Answer::Wait { reason: WaitReason::Rate, retry_after_ms: 1..=1000 } = answers[1] else { panic!("{answers:?}") };
    assert!(
        matches!(&answers[2], Answer::Final(verdict) if verdict.outcome == Outcome::Expired { maybe_taken: false })
    );
}

#[tokio::test]
async fn who_is_blocked_by_the_operator_is_thrown_out_and_stays_out() {
    let relay = TestRelay::on_disk().started();
    let operator = relay.operator();
    let (home, bob) = (relay.home(), at_home(2, &relay).await);
    operator.decide(peer(2), Some(Standing::Blocked)).await.unwrap();
    assert!(refusal(&bob).await.contains("not_allowed"));
    assert!(refusal(&client(2, &home)).await.contains("blocked"));
    let alice = client(1, &home);
    let mut sent = send(&alice, &home, 2, &["hello"]).await;
    assert_eq!(outcomes(&mut sent).await, [rejected(RejectReason::UnknownPeer)]);
    operator.decide(peer(2), None).await.unwrap();
    let bob = at_home(2, &relay).await;
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut send(&alice, &home, 2, &["again"]).await).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["again"]);
}

#[tokio::test]
async fn a_removed_mailbox_tells_its_senders_and_its_owner() {
    let relay = inviting();
    let home = relay.home();
    let token = invite(&relay.operator(), 2).await;
    let [alice, bob] = [1, 2].map(|number| builder(number, &home).invitation(&token).start().unwrap());
    within("a session", bob.status(None)).await.unwrap();
    let words: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut sent = send(&alice, &home, 2, &words).await;
    accepted(&mut sent).await;
    let removal = within("the end", relay.operator().remove(peer(2))).await.unwrap();
    assert_eq!((removal.messages, removal.gone), (600, true));
    // The word that closes a connection may be lost: then it comes back, and hears that it has to be invited.
    let reason = refusal(&bob).await;
    assert!(reason.contains("removed") || reason.contains("not_invited"), "{reason}");
    for outcome in outcomes(&mut sent).await {
        assert!(matches!(outcome, Outcome::Rejected { reason: RejectReason::Removed, .. }), "{outcome:?}");
    }
    assert_eq!(peers(&relay).await, 1, "alice alone");
    relay.assert_sound().await;
}

#[tokio::test]
async fn limits_that_are_exchanged_hold_for_sessions_that_are_open() {
    let relay = TestRelay::on_disk().started();
    let home = relay.home();
    let (alice, bob, carol) = (at_home(1, &relay).await, at_home(2, &relay).await, at_home(3, &relay).await);
    let told = Log::of(&carol).await;
    relay.set_limits(|relay, store| {
        relay.body_bytes = 3;
        relay.federation = Policy { admission: Admission::Closed, ..Policy::default() };
        store.access.mailboxes = Mailboxes::Listed;
        store.access.allow = [peer(1)].into();
    });
    relay.operator().decide(peer(3), Some(Standing::Allowed)).await.unwrap();
    relay.judge_anew();
    assert!(refusal(&bob).await.contains("not_allowed"));
    told.connected(1).await;
    assert_eq!(told.farewells().len(), 1, "allowed by command: it is back at once");
    let mut sent = send(&alice, &home, 3, &["long"]).await;
    sent.extend(send(&alice, &home, 2, &["no"]).await);
    let said = outcomes(&mut sent).await;
    assert_eq!(said, [rejected(RejectReason::TooLarge), rejected(RejectReason::UnknownPeer)]);
    let speaker = Speaker::connect(relay.at(), Some(9), WINDOW).await;
    let mut submit = speaker.open(posthouse::protocol::StreamKind::Submit).await;
    submit.say(HelloR { role: Role::Relay, ..hello() }).await;
    assert_eq!(speaker.closed().await.0, CloseCode::NotAllowed);
}

#[tokio::test]
async fn a_relay_that_is_not_admitted_any_more_is_closed() {
    let relay = TestRelay::in_memory().started();
    let session = Session::open(relay.at(), 9, HelloR { role: Role::Relay, ..hello() }).await;
    let blocked = [who(9).relay_id()].into();
    relay.set_limits(|relay, _| relay.federation = Policy { block: blocked, ..Policy::default() });
    assert_eq!(session.closed().await.0, CloseCode::NotAllowed);
}

#[tokio::test]
async fn connections_are_limited_and_the_limit_can_be_raised_while_they_are_open() {
    let relay = TestRelay::in_memory().with(|relay, _| relay.connections = 2).started();
    let first = Session::open(relay.at(), 1, hello()).await;
    let _second = Session::open(relay.at(), 2, hello()).await;
    assert!(Speaker::try_connect(relay.at(), Some(3), WINDOW).await.is_err());
    relay.set_limits(|relay, _| relay.connections = 3);
    let _third = Session::open(relay.at(), 3, hello()).await;
    assert!(Speaker::try_connect(relay.at(), Some(4), WINDOW).await.is_err());
    drop(first);
    until("the end of a session", || relay.sessions() == 2).await;
    within("a place", async { while Speaker::try_connect(relay.at(), Some(4), WINDOW).await.is_err() {} }).await;
}
