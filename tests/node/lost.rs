//! Whatever frame is lost on its way, its message is taken once and has one outcome.
//!
//! QUIC loses no frames; relays and clients that fail between receiving and answering do.

use std::collections::HashSet;
use std::time::Duration;

use posthouse::client::{Client, Event};
use posthouse::protocol::{Answer, Frame, HelloR, MsgA, MsgN, Outcome};

use crate::support::client::{Log, Taker, accepted, builder, client, outcomes, send};
use crate::support::proxy::Proxy;
use crate::support::raw::{Session, Speaker, hello, message, reader};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

/// Alice and Bob behind a man in the middle. Bob takes what comes.
struct Stage {
    relay: TestRelay,
    proxy: Proxy,
    alice: Client,
    told: Log,
    bob: Client,
    taker: Taker,
}

impl Stage {
    async fn set() -> Self {
        let relay = TestRelay::in_memory().started();
        let proxy = Proxy::before(&relay, &[1, 2]);
        let (alice, bob) = (client(1, &proxy.home()), builder(2, &proxy.home()).start().unwrap());
        let (told, taker) = (Log::of(&alice).await, Taker::of(&bob));
        // Both are connected, and Bob has read his empty backlog: what comes now is pushed.
        within("a connection", alice.status(None)).await.unwrap();
        until("the end of the backlog", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) > 0).await;
        Self { relay, proxy, alice, told, bob, taker }
    }

    /// Sends three messages; each is taken once, in order, and its outcome told once.
    async fn three_arrive(&self) {
        let home = self.proxy.home();
        let mut sent = send(&self.alice, &home, 2, &["one", "two", "three"]).await;
        assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 3]);
        self.once(&["one", "two", "three"]).await;
    }

    /// After another message has gone all the way, it is still true that these were taken once, in this order,
    /// and that each outcome was told once.
    async fn once(&self, words: &[&str]) {
        let mut last = send(&self.alice, &self.proxy.home(), 2, &["last"]).await;
        assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
        assert_eq!(self.taker.bodies(), [words, &["last"]].concat());
        until("all outcomes", || self.told.outcomes().len() > words.len()).await;
        let mut told = self.told.outcomes();
        told.sort_by_key(|(id, _)| *id);
        told.dedup_by_key(|(id, _)| *id);
        assert_eq!((told.len(), self.told.outcomes().len()), (words.len() + 1, words.len() + 1));
        self.relay.waits_for(2, 0).await;
        self.relay.assert_sound().await;
    }
}

#[tokio::test]
async fn a_lost_message_is_sent_again() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::MsgR(_)));
    let mut sent = send(&stage.alice, &stage.proxy.home(), 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    stage.once(&["one"]).await;
    assert_eq!(lost.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_message_is_missed_by_the_next_one() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::MsgR(_)));
    stage.three_arrive().await;
    assert_eq!(lost.lock().unwrap().len(), 1);
    assert!(stage.proxy.count(|frame| matches!(frame, Frame::MsgA(MsgA { answer: Answer::Gap { .. }, .. }))) > 0);
}

#[tokio::test]
async fn after_a_lost_acceptance_the_repeat_is_answered_as_a_duplicate() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::MsgA(_)));
    // Nobody takes it before the repeat, so it is the repeat's answer that counts.
    drop(stage.taker);
    let mut sent = send(&stage.alice, &stage.proxy.home(), 2, &["one"]).await;
    let accepted = within("acceptance", sent[0].accepted()).await.unwrap().unwrap();
    assert!(accepted.duplicate, "the relay had it since the first time");
    let duplicates = stage
        .proxy
        .count(|frame| matches!(frame, Frame::MsgA(MsgA { answer: Answer::Accepted { duplicate: true, .. }, .. })));
    assert_eq!((lost.lock().unwrap().len(), duplicates), (1, 1));
    let taker = Taker::of(&stage.bob);
    let stage = Stage { taker, ..stage };
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    stage.once(&["one"]).await;
}

#[tokio::test]
async fn a_lost_push_is_pushed_again() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let bob = builder(2, &home).ack_timeout(Duration::from_millis(200)).start().unwrap();
    let alice = client(1, &home);
    until("the end of the backlog", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) > 0).await;
    let lost = proxy.lose_first(|frame| matches!(frame, Frame::MsgN(_)));
    let taker = Taker::of(&bob);
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!((taker.bodies(), lost.lock().unwrap().len()), (vec!["one".to_owned()], 1));
    assert_eq!(attempts(&proxy), [1, 2]);
}

#[tokio::test]
async fn what_is_pushed_again_waits_for_room_on_its_stream() {
    const MESSAGES: u64 = 60;
    let relay = TestRelay::in_memory().started();
    let slow = Speaker::connect(relay.at(), Some(2), 64 << 10).await;
    let mut slow = slow.greet(HelloR { ack_timeout_ms: 5000, ..reader() }).await;
    let mut sender = Session::open(relay.at(), 1, hello()).await;
    for n in 1..=MESSAGES {
        sender.submit.say(message(n, 1, 2, 1, n, &[7; 64 << 10])).await;
    }
    for _ in 0..MESSAGES {
        assert!(matches!(slow.notify.hear().await, Some(Frame::MsgN(MsgN { attempt: 1, .. }))));
    }
    // As much as QUIC takes of a stream that nobody reads, and no more.
    until("a push again", || relay.pushed() > MESSAGES).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(relay.pushed() < 2 * MESSAGES, "{} pushes", relay.pushed());
    let mut again = HashSet::new();
    while again.len() < MESSAGES as usize {
        let Some(Frame::MsgN(message)) = slow.notify.hear().await else { panic!("no push") };
        again.insert(message.seq);
    }
}

/// The attempts of all pushes that came by.
fn attempts(proxy: &Proxy) -> Vec<u64> {
    let attempt = |frame| match frame {
        Frame::MsgN(message) => Some(message.attempt),
        _ => None,
    };
    proxy.seen().into_iter().filter_map(attempt).collect()
}

#[tokio::test]
async fn after_a_lost_acknowledgement_the_push_is_repeated_and_acknowledged_again() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    // Sooner than the client repeats its acknowledgement by itself, after a second.
    let bob = builder(2, &home).ack_timeout(Duration::from_millis(200)).start().unwrap();
    let alice = client(1, &home);
    until("the end of the backlog", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) > 0).await;
    let lost = proxy.lose_first(|frame| matches!(frame, Frame::AckR(_)));
    let taker = Taker::of(&bob);
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!((taker.bodies(), lost.lock().unwrap().len()), (vec!["one".to_owned()], 1));
    assert_eq!(attempts(&proxy), [1, 2]);
    let mut last = send(&alice, &home, 2, &["last"]).await;
    assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one", "last"]);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_repeated_by_the_client_itself() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::AckR(_)));
    let mut sent = send(&stage.alice, &stage.proxy.home(), 2, &["one"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    stage.once(&["one"]).await;
    assert_eq!(lost.lock().unwrap().len(), 1);
    assert!(attempts(&stage.proxy).iter().all(|attempt| *attempt == 1), "the relay waits for 30 s");
}

#[tokio::test]
async fn after_a_lost_confirmation_the_acknowledgement_is_repeated_and_changes_nothing() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::AckA(_)));
    stage.three_arrive().await;
    assert_eq!(lost.lock().unwrap().len(), 1);
    let acks = || stage.proxy.count(|frame| matches!(frame, Frame::AckR(_)));
    let confirmations = || stage.proxy.count(|frame| matches!(frame, Frame::AckA(_)));
    until("a confirmation for all", || acks() > 1 && confirmations() > 1).await;
    stage.bob.close().await;
}

#[tokio::test]
async fn a_lost_outcome_is_asked_for_in_the_next_session() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::AckN(_)));
    let mut sent = send(&stage.alice, &stage.proxy.home(), 2, &["one"]).await;
    until("the outcome on its way", || lost.lock().unwrap().len() == 1).await;
    assert_eq!(stage.told.outcomes(), [], "this one is lost");
    // The next acceptance is where the connection breaks.
    let before = stage.told.connections();
    stage.proxy.judge({
        let mut cut = false;
        move |_, _, frame| match frame {
            Frame::MsgA(_) if !std::mem::replace(&mut cut, true) => crate::support::proxy::Fate::Cut,
            _ => crate::support::proxy::Fate::Pass,
        }
    });
    let mut next = send(&stage.alice, &stage.proxy.home(), 2, &["two"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    assert_eq!(outcomes(&mut next).await, [Outcome::Delivered]);
    assert!(stage.told.connections() > before);
    assert!(stage.proxy.count(|frame| matches!(frame, Frame::WhereR(_))) > 0);
    stage.once(&["one", "two"]).await;
}

#[tokio::test]
async fn after_a_lost_greeting_the_client_connects_again() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let lost = proxy.lose_first(|frame| matches!(frame, Frame::HelloA(_)));
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    let mut sent = send(&alice, &home, 2, &["one", "two"]).await;
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    assert_eq!((taker.bodies(), lost.lock().unwrap().len()), (vec!["one".into(), "two".into()], 1));
    assert_eq!(told.outcomes().len(), 2);
}

#[tokio::test]
async fn after_a_lost_answer_about_lanes_the_question_is_repeated() {
    let stage = Stage::set().await;
    let mut judge_cut = false;
    stage.proxy.judge(move |_, _, frame| match frame {
        Frame::MsgA(_) if !std::mem::replace(&mut judge_cut, true) => crate::support::proxy::Fate::Cut,
        _ => crate::support::proxy::Fate::Pass,
    });
    let mut sent = send(&stage.alice, &stage.proxy.home(), 2, &["one", "two"]).await;
    until("the break", || stage.told.count(|event| matches!(event, Event::Disconnected { .. })) > 0).await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::WhereA(_)));
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    assert_eq!(lost.lock().unwrap().len(), 1);
    assert!(stage.proxy.count(|frame| matches!(frame, Frame::WhereR(_))) > 1);
    stage.once(&["one", "two"]).await;
}

#[tokio::test]
async fn after_a_lost_page_it_is_asked_for_again() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let alice = client(1, &home);
    let mut sent = send(&alice, &home, 2, &["one", "two", "three", "four", "five"]).await;
    accepted(&mut sent).await;
    let lost = proxy.lose_first(|frame| matches!(frame, Frame::PageA(page) if page.messages.len() == 2));
    let bob = builder(2, &home).page_messages(2).start().unwrap();
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 5]);
    assert_eq!(lost.lock().unwrap().len(), 1);
    assert_eq!(taker.bodies(), ["one", "two", "three", "four", "five"]);
    let mut last = send(&alice, &home, 2, &["last"]).await;
    assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
    assert_eq!(taker.len(), 6);
}

#[tokio::test]
async fn after_a_lost_count_it_is_asked_for_again() {
    let stage = Stage::set().await;
    let lost = stage.proxy.lose_first(|frame| matches!(frame, Frame::StatusA(_)));
    let status = within("a count", stage.bob.status(None)).await.unwrap();
    assert_eq!((status.messages, lost.lock().unwrap().len()), (0, 1));
}
