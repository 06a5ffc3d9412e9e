//! Pages that the application turns itself, and what comes beside them: recent first, one sender alone, looking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use posthouse::client::{Incoming, Page, PageOptions, Pages, Reading};
use posthouse::protocol::{Frame, Order, Outcome};

use crate::offline::{bob_was_here, numbered, send_numbered};
use crate::support::client::{Taker, builder, client, outcomes, send};
use crate::support::proxy::{Fate, Proxy};
use crate::support::raw::peer;
use crate::support::relay::TestRelay;
use crate::support::{until, within};

fn bodies(messages: &[Incoming]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

async fn turn(pages: &mut Pages) -> Page {
    within("a page", pages.next()).await.unwrap()
}

/// All that the pages show, none of it answered.
async fn look_at_all(pages: &mut Pages) -> Vec<String> {
    let mut shown = Vec::new();
    loop {
        let page = turn(pages).await;
        shown.extend(bodies(&page.messages));
        if page.complete {
            return shown;
        }
    }
}

fn reversed(range: std::ops::Range<usize>) -> Vec<String> {
    numbered(range).into_iter().rev().collect()
}

const RECENT: PageOptions = PageOptions { order: Order::Newest, sender: None, after: None, messages: 10 };

#[tokio::test]
async fn what_is_new_does_not_wait_behind_the_backlog_and_older_pages_come_when_turned() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..25).await;
    let bob = builder(2, &relay.home()).reading(Reading::RecentFirst).start().unwrap();
    let mut pages = bob.pages(RECENT).await.unwrap();
    let first = turn(&mut pages).await;
    assert_eq!((bodies(&first.messages), first.remaining, first.complete), (reversed(15..25), 25, false));
    assert!(first.messages.iter().all(|message| message.backlog));
    let mut sent = send(&alice, &relay.home(), 2, &["new"]).await;
    let new = within("the new one", bob.recv()).await.unwrap();
    assert_eq!((new.body.as_ref(), new.backlog), (b"new".as_slice(), false));
    within("the disk", new.taken()).await.unwrap();
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    within("the disk", first.taken()).await.unwrap();
    // What came meanwhile neither shifts nor repeats anything.
    let second = turn(&mut pages).await;
    assert_eq!(bodies(&second.messages), reversed(5..15));
    let third = turn(&mut pages).await;
    assert_eq!((bodies(&third.messages), third.complete), (reversed(0..5), true));
    let beyond = turn(&mut pages).await;
    assert_eq!((beyond.messages.len(), beyond.complete), (0, true), "an explicit empty page");
    within("the disk", second.taken()).await.unwrap();
    within("the disk", third.taken()).await.unwrap();
    relay.waits_for(2, 0).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_came_between_two_sessions_reaches_who_reads_the_recent_first() {
    let relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..3).await;
    let bob = builder(2, &proxy.home()).reading(Reading::RecentFirst).page_messages(2).start().unwrap();
    let taker = Taker::of(&bob);
    within("a session", bob.status(None)).await.unwrap();
    send_numbered(&alice, &relay, 3..5).await;
    taker.count(2).await;
    // Bob is cut off by the first of those that arrive, and cannot connect before the last.
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    proxy.judge(move |_, _, frame| match frame {
        Frame::MsgN(_) | Frame::HelloR(_) if is_away.load(Ordering::SeqCst) => Fate::Cut,
        _ => Fate::Pass,
    });
    send_numbered(&alice, &relay, 5..10).await;
    away.store(false, Ordering::SeqCst);
    taker.count(7).await;
    let mut last = send(&alice, &relay.home(), 2, &["10"]).await;
    assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), numbered(3..11));
    // What was there before stays for pages.
    relay.waits_for(2, 3).await;
}

#[tokio::test]
async fn one_sender_alone_is_read_and_then_followed_while_the_others_wait() {
    let relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let (alice, carol) = (client(1, &relay.home()), client(3, &relay.home()));
    send_numbered(&carol, &relay, 0..5).await;
    send_numbered(&alice, &relay, 0..12).await;
    let bob = builder(2, &relay.home()).only_from(peer(1)).page_messages(5).credit(4, 1 << 20).start().unwrap();
    let taker = Taker::of(&bob);
    taker.count(12).await;
    // More of the others' than the credit: it is not theirs to use.
    send_numbered(&carol, &relay, 5..20).await;
    let mut last = send(&alice, &relay.home(), 2, &["12"]).await;
    assert_eq!(outcomes(&mut last).await, [Outcome::Delivered]);
    assert_eq!(taker.bodies(), numbered(0..13));
    assert_eq!(taker.bodies_from(1), taker.bodies());
    relay.waits_for(2, 20).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn pages_of_one_sender_from_either_end_and_from_a_place_on() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let (alice, carol) = (client(1, &relay.home()), client(3, &relay.home()));
    for part in 0..4 {
        send_numbered(&alice, &relay, part * 5..(part + 1) * 5).await;
        send_numbered(&carol, &relay, 100 + part * 3..103 + part * 3).await;
    }
    let bob = builder(2, &relay.home()).reading(Reading::Nothing).start().unwrap();
    let of = |sender, order| PageOptions { order, sender, messages: 7, after: None };
    for (options, expected) in [
        (of(Some(peer(1)), Order::Oldest), numbered(0..20)),
        (of(Some(peer(1)), Order::Newest), reversed(0..20)),
        (of(Some(peer(3)), Order::Oldest), numbered(100..112)),
        (of(Some(peer(9)), Order::Newest), Vec::new()),
    ] {
        let mut pages = bob.pages(options).await.unwrap();
        assert_eq!(look_at_all(&mut pages).await, expected, "{options:?}");
    }
    let mut all = bob.pages(of(None, Order::Oldest)).await.unwrap();
    let place = turn(&mut all).await.messages[6].seq;
    let behind = PageOptions { after: Some(place), ..of(Some(peer(1)), Order::Oldest) };
    assert_eq!(look_at_all(&mut bob.pages(behind).await.unwrap()).await, numbered(5..20));
    assert_eq!(relay.waiting_for(2).await, 32, "looking takes nothing");
}

#[tokio::test]
async fn ten_pages_cost_eleven_requests_acknowledgements_included() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..100).await;
    let bob = builder(2, &proxy.home()).reading(Reading::Nothing).start().unwrap();
    let mut pages = bob.pages(PageOptions { order: Order::Oldest, ..RECENT }).await.unwrap();
    let mut taken = Vec::new();
    loop {
        let page = turn(&mut pages).await;
        taken.extend(bodies(&page.messages));
        let complete = page.complete;
        within("the disk", page.taken()).await.unwrap();
        if complete {
            break;
        }
    }
    assert_eq!(taken, numbered(0..100));
    let empty = turn(&mut pages).await;
    assert_eq!((empty.messages.len(), empty.remaining, empty.complete), (0, 0, true));
    let asked = proxy.count(|frame| matches!(frame, Frame::PageR(_)));
    let acknowledged = proxy.count(|frame| matches!(frame, Frame::AckR(_)));
    assert_eq!((asked, acknowledged), (11, 0));
    assert_eq!(relay.waiting_for(2).await, 0);
}

#[tokio::test]
async fn the_next_page_comes_while_one_is_read_and_no_more_than_that() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..100).await;
    let bob = builder(2, &proxy.home()).reading(Reading::Nothing).start().unwrap();
    let came = || proxy.count(|frame| matches!(frame, Frame::PageA(_)));
    let mut pages = bob.pages(RECENT).await.unwrap();
    until("the first page", || came() == 1).await;
    let first = turn(&mut pages).await;
    until("the second page", || came() == 2).await;
    // Whatever was asked for before this count would have been answered before it.
    within("a count", bob.status(None)).await.unwrap();
    assert_eq!(came(), 2);
    let second = turn(&mut pages).await;
    until("the third page", || came() == 3).await;
    assert_eq!((bodies(&first.messages), bodies(&second.messages)), (reversed(90..100), reversed(80..90)));
}

#[tokio::test]
async fn pages_go_on_where_they_were_after_the_relay_is_killed() {
    let mut relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..60).await;
    let bob = builder(2, &relay.home()).reading(Reading::RecentFirst).start().unwrap();
    let mut pages = bob.pages(RECENT).await.unwrap();
    let mut shown = Vec::new();
    for round in 0.. {
        let page = turn(&mut pages).await;
        shown.extend(bodies(&page.messages));
        let complete = page.complete;
        within("the disk", page.taken()).await.unwrap();
        if complete {
            break;
        }
        if round % 2 == 1 {
            relay.kill().await;
            relay.start();
        }
    }
    assert_eq!(shown, reversed(0..60));
    relay.waits_for(2, 0).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn a_message_on_a_page_does_not_come_by_recv_unless_it_is_let_go() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..10).await;
    let bob = builder(2, &relay.home()).reading(Reading::Nothing).start().unwrap();
    let mut pages = bob.pages(RECENT).await.unwrap();
    let mut first = turn(&mut pages).await;
    // The same messages on another way are in hand already.
    let mut again = bob.pages(RECENT).await.unwrap();
    assert_eq!(turn(&mut again).await.messages.len(), 0);
    let kept = first.messages.split_off(5);
    drop(first);
    let mut anew = bob.pages(RECENT).await.unwrap();
    assert_eq!(bodies(&turn(&mut anew).await.messages), reversed(5..10));
    for message in kept {
        within("the disk", message.refuse("no")).await.unwrap();
    }
    relay.waits_for(2, 5).await;
}

#[tokio::test]
async fn a_gap_between_two_sessions_stays_known_through_attempts_that_fail() {
    let relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    let bob = builder(2, &proxy.home()).reading(Reading::RecentFirst).page_messages(2).start().unwrap();
    let taker = Taker::of(&bob);
    within("a session", bob.status(None)).await.unwrap();
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let (mut pages, mut hellos) = (0, 0);
    proxy.judge(move |_, _, frame| {
        let cut = match frame {
            Frame::MsgN(_) => is_away.load(Ordering::SeqCst),
            // The third page of what came between is cut off, and then two attempts.
            Frame::PageA(_) => {
                pages += 1;
                pages == 3
            }
            Frame::HelloR(_) if is_away.load(Ordering::SeqCst) => true,
            Frame::HelloR(_) => {
                hellos += 1;
                (2..4).contains(&hellos)
            }
            _ => false,
        };
        if cut { Fate::Cut } else { Fate::Pass }
    });
    send_numbered(&alice, &relay, 0..20).await;
    away.store(false, Ordering::SeqCst);
    taker.count(20).await;
    assert_eq!(taker.bodies(), numbered(0..20));
}

#[tokio::test]
async fn answers_to_pushed_messages_give_credit_back_when_they_ride_on_pages() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..200).await;
    let bob = builder(2, &relay.home()).reading(Reading::RecentFirst).credit(2, 1 << 20).start().unwrap();
    let taker = Taker::of(&bob);
    let mut pages = bob.pages(RECENT).await.unwrap();
    // What arrives from here on is above all pages.
    within("the disk", turn(&mut pages).await.taken()).await.unwrap();
    // Pages are turned all the while, so that every answer finds one to ride on.
    let turning = tokio::spawn(async move {
        while let Ok(page) = pages.next().await {
            page.taken().await.unwrap();
        }
    });
    for new in 0..10 {
        let mut sent = send(&alice, &relay.home(), 2, &["new"]).await;
        assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered], "the {new}th");
    }
    taker.count(10).await;
    turning.abort();
}

#[tokio::test]
async fn answers_on_a_request_for_a_page_that_nobody_wants_any_more_are_told_again() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..100).await;
    let bob = builder(2, &proxy.home()).reading(Reading::RecentFirst).start().unwrap();
    let mut pages = bob.pages(RECENT).await.unwrap();
    let first = turn(&mut pages).await;
    until("the second page", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) == 2).await;
    proxy.judge(|_, _, frame| match frame {
        Frame::PageR(ask) if !ask.answers.is_empty() => Fate::Lose,
        Frame::StatusR(_) => Fate::Cut,
        _ => Fate::Pass,
    });
    let taken = tokio::spawn(first.taken());
    drop(turn(&mut pages).await);
    within("the disk", taken).await.unwrap().unwrap();
    drop(pages);
    let counted = tokio::spawn(async move { bob.status(None).await });
    until("the cut", || proxy.count(|frame| matches!(frame, Frame::StatusR(_))) > 0).await;
    proxy.judge(|_, _, _| Fate::Pass);
    within("a count", counted).await.unwrap().unwrap();
    relay.waits_for(2, 90).await;
}

#[tokio::test]
async fn a_page_that_nobody_looked_at_holds_nothing_back_from_who_reads_in_order() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..60).await;
    let bob = builder(2, &proxy.home()).page_messages(10).start().unwrap();
    let mut pages = bob.pages(RECENT).await.unwrap();
    until("pages", || proxy.count(|frame| matches!(frame, Frame::PageA(_))) > 1).await;
    let taker = Taker::of(&bob);
    taker.count(60).await;
    assert_eq!(taker.bodies(), numbered(0..60));
    assert_eq!(turn(&mut pages).await.messages.len(), 0, "what was taken meanwhile is on no page");
}
