//! Frames that come twice, and old ones that come again, change nothing.

use posthouse::client::Event;
use posthouse::id::LaneId;
use posthouse::protocol::{
    AckR, Answer, Frame, LaneQuestion, LaneRef, MsgA, MsgR, Order, Outcome, PageR, Taken, Verdict, WhereR,
};
use posthouse::ranges::Ranges;

use crate::support::client::{Log, Taker, accepted, builder, client, outcomes, send};
use crate::support::proxy::{Fate, Proxy, Way};
use crate::support::raw::{Session, hello, message, peer, reader};
use crate::support::relay::TestRelay;
use crate::support::until;

#[tokio::test]
async fn every_frame_that_may_be_repeated_is_repeated_and_each_message_is_taken_once() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let mut acceptances = 0;
    proxy.judge(move |way, _, frame| match (way, frame) {
        // Whoever numbers its requests twice breaks the protocol; A:HELLO ends a phase, and is no answer later.
        (Way::ToRelay, Frame::HelloR(_) | Frame::MsgR(_) | Frame::WhereR(_) | Frame::CloseR(_)) => Fate::Pass,
        (Way::ToClient, Frame::HelloA(_)) => Fate::Pass,
        (_, Frame::MsgA(_)) => {
            acceptances += 1;
            // Makes the client ask R:WHERE, whose answer comes twice as well.
            if acceptances == 3 { Fate::Cut } else { Fate::Instead(vec![frame.clone(), frame.clone()]) }
        }
        _ => Fate::Instead(vec![frame.clone(), frame.clone()]),
    });
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let words: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (backlog, live) = words.split_at(20);
    let mut sent = send(&alice, &home, 2, backlog).await;
    accepted(&mut sent).await;
    let bob = builder(2, &home).page_messages(7).start().unwrap();
    let taker = Taker::of(&bob);
    assert_eq!(bob.status(None).await.unwrap().senders.len(), 1);
    for word in live {
        sent.extend(send(&alice, &home, 2, &[word]).await);
        accepted(&mut sent).await;
    }
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 40]);
    until("all outcomes", || told.outcomes().len() >= 40).await;
    assert!(told.count(|event| matches!(event, Event::Disconnected { .. })) > 0);
    assert_eq!(taker.bodies(), words);
    assert_eq!(told.outcomes().len(), 40);
    relay.assert_sound().await;
}

#[tokio::test]
async fn an_old_push_and_an_old_outcome_are_recognised_in_a_later_session() {
    let mut relay = TestRelay::on_disk().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let (alice, bob) = (client(1, &home), client(2, &home));
    let (told, taker, connected) = (Log::of(&alice).await, Taker::of(&bob), Log::of(&bob).await);
    bob.status(None).await.unwrap();
    until("the end of the backlog", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) > 0).await;
    let mut sent = send(&alice, &home, 2, &["one"]).await;
    outcomes(&mut sent).await;
    let old: Vec<Frame> =
        proxy.seen().into_iter().filter(|frame| matches!(frame, Frame::MsgN(_) | Frame::AckN(_))).collect();
    let [Frame::MsgN(push), Frame::AckN(outcome)] = &old[..] else { panic!("{old:?}") };
    let (push, outcome) = (push.clone(), outcome.clone());
    let (before, alices) = (connected.connections(), told.connections());
    relay.stop().await;
    relay.start();
    connected.connected(before + 1).await;
    told.connected(alices + 1).await;
    proxy.judge(move |_, _, frame| match frame {
        Frame::MsgN(_) => Fate::Instead(vec![push.clone().into(), frame.clone(), push.clone().into()]),
        Frame::AckN(_) => Fate::Instead(vec![outcome.clone().into(), frame.clone(), outcome.clone().into()]),
        _ => Fate::Pass,
    });
    let mut next = send(&alice, &home, 2, &["two"]).await;
    assert_eq!(outcomes(&mut next).await, [Outcome::Delivered]);
    let mut last = send(&alice, &home, 2, &["three"]).await;
    assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one", "two", "three"]);
    until("all outcomes", || told.outcomes().len() >= 3).await;
    assert_eq!(told.outcomes().len(), 3);
}

/// The answer to a repeat of this.
async fn answer(session: &mut Session, message: MsgR) -> Answer {
    session.submit.say(message).await;
    match session.submit.hear().await {
        Some(Frame::MsgA(MsgA { answer, count: 1, .. })) => answer,
        other => panic!("{other:?}"),
    }
}

fn verdict(answer: &Answer) -> (bool, Option<&Verdict>) {
    let Answer::Accepted { duplicate, verdict, .. } = answer else { panic!("{answer:?}") };
    (*duplicate, verdict.as_ref())
}

#[tokio::test]
async fn a_repeated_message_is_answered_with_what_became_of_it_in_every_later_session() {
    let mut relay = TestRelay::on_disk().started();
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    assert_eq!(verdict(&answer(&mut alice, message(0, 1, 2, 7, 1, b"one")).await), (false, None));
    assert_eq!(verdict(&answer(&mut alice, message(1, 1, 2, 7, 1, b"one")).await), (true, None));
    assert_eq!(relay.waiting_for(2).await, 1);
    relay.kill().await;
    relay.start();
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    assert_eq!(verdict(&answer(&mut alice, message(0, 1, 2, 7, 1, b"one")).await), (true, None));
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    let delivered = loop {
        match alice.notify.hear().await {
            Some(Frame::AckN(told)) => break told.delivered,
            Some(_) => {}
            None => panic!("no outcome"),
        }
    };
    assert_eq!(delivered, Ranges::one(1));
    assert_eq!(verdict(&answer(&mut alice, message(1, 1, 2, 7, 1, b"one")).await), (true, Some(&Verdict::DELIVERED)));
    relay.kill().await;
    relay.start();
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    assert_eq!(verdict(&answer(&mut alice, message(0, 1, 2, 7, 1, b"one")).await), (true, Some(&Verdict::DELIVERED)));
    assert_eq!(taker.bodies(), ["one"]);
    relay.waits_for(2, 0).await;
}

#[tokio::test]
async fn an_acknowledgement_and_a_page_request_may_be_repeated() {
    let relay = TestRelay::in_memory().started();
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    for n in 1..=3 {
        answer(&mut alice, message(n - 1, 1, 2, 7, n, b"x")).await;
    }
    let mut bob = Session::open(relay.at(), 2, reader()).await;
    let mut sync = bob.speaker.open(posthouse::protocol::StreamKind::Sync).await;
    let ask = |answers: Taken| PageR {
        request: 5,
        order: Order::Oldest,
        cursor: None,
        sender: None,
        max_messages: 2,
        max_bytes: 1 << 20,
        store: bob.hello.store,
        answers,
    };
    let mut pages = Vec::new();
    for _ in 0..2 {
        sync.say(ask(Taken::default())).await;
        let Some(Frame::PageA(page)) = sync.hear().await else { panic!("no page") };
        pages.push(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>());
    }
    assert_eq!(pages[0], pages[1]);
    let answers = Taken { taken: pages[0].iter().map(|seq| (*seq, *seq)).collect(), refused: Vec::new() };
    let mut rest = Vec::new();
    for _ in 0..2 {
        sync.say(ask(answers.clone())).await;
        let Some(Frame::PageA(page)) = sync.hear().await else { panic!("no page") };
        rest.push(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>());
        assert!(page.complete);
    }
    assert_eq!((rest[0].len(), &rest[0]), (1, &rest[1]));
    for _ in 0..3 {
        bob.notify.say(AckR { request: 9, store: bob.hello.store, answers: answers.clone() }).await;
        assert!(matches!(bob.notify.hear().await, Some(Frame::AckA(confirmed)) if confirmed.request == 9));
    }
    assert_eq!(relay.waiting_for(2).await, 1);
    // Every outcome is told once, or found by asking.
    let lane = LaneQuestion { lane: LaneRef { sender: None, recipient: peer(2), lane: LaneId(7) }, from: 1, to: 3 };
    alice.submit.say(WhereR { request: 3, lanes: vec![lane] }).await;
    let Some(Frame::WhereA(row)) = alice.submit.hear().await else { panic!("no row") };
    assert_eq!((row.lanes[0].last, &row.lanes[0].delivered), (3, &[(1, 2)].into_iter().collect()));
    relay.assert_sound().await;
}

#[tokio::test]
async fn an_acknowledgement_of_an_earlier_session_counts_in_the_next() {
    let relay = TestRelay::in_memory().started();
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    for n in 1..=3 {
        answer(&mut alice, message(n - 1, 1, 2, 7, n, b"x")).await;
    }
    let bob = Session::open(relay.at(), 2, hello()).await;
    let mut sync = bob.speaker.open(posthouse::protocol::StreamKind::Sync).await;
    let (order, answers, store) = (Order::Oldest, Taken::default(), bob.hello.store);
    let page =
        PageR { request: 0, order, cursor: None, sender: None, max_messages: 2, max_bytes: 1000, store, answers };
    sync.say(page).await;
    let Some(Frame::PageA(page)) = sync.hear().await else { panic!("no page") };
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs.len(), 2);
    bob.speaker.connection.close(0u32.into(), b"");
    // The next session hands out nothing. The third message was never handed out, so nothing is said of it.
    let mut bob = Session::open(relay.at(), 2, hello()).await;
    let answers = Taken { taken: [(seqs[0], seqs[1])].into_iter().collect(), refused: Vec::new() };
    bob.notify.say(AckR { request: 0, store, answers }).await;
    assert!(matches!(bob.notify.hear().await, Some(Frame::AckA(_))));
    let Some(Frame::AckN(told)) = alice.notify.hear().await else { panic!("no outcome") };
    assert_eq!(told.delivered, [(1, 2)].into_iter().collect());
    assert_eq!(relay.waiting_for(2).await, 1);
    relay.assert_sound().await;
}
