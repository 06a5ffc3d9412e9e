//! What arrives while the recipient is away: pages, counts, and the seam between the backlog and what is new.

use std::sync::Arc;

use posthouse::client::{Client, Event, Reading};
use posthouse::protocol::{Frame, Outcome};
use tokio::sync::Notify;

use crate::support::client::{Log, Taker, accepted, builder, client, draft, outcomes, send};
use crate::support::proxy::{Fate, Proxy};
use crate::support::raw::peer;
use crate::support::relay::TestRelay;
use crate::support::{until, within};

/// Makes 2 known to the relay, with a mailbox of the full size.
pub(crate) async fn bob_was_here(relay: &TestRelay) {
    let bob = client(2, &relay.home());
    within("a session", bob.status(None)).await.unwrap();
    within("its end", bob.close()).await;
}

pub(crate) fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) async fn send_numbered(from: &Client, relay: &TestRelay, range: std::ops::Range<usize>) {
    let drafts = numbered(range).into_iter().map(|word| draft(&relay.home(), 2, word)).collect();
    let mut sent = within("room in the outbox", from.send_all(drafts)).await.unwrap();
    accepted(&mut sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_hundred_messages_and_those_sent_meanwhile_arrive_once_in_each_senders_order() {
    let relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let (alice, carol) = (client(1, &relay.home()), client(3, &relay.home()));
    for part in 0..10 {
        send_numbered(&alice, &relay, part * 100..(part + 1) * 100).await;
        send_numbered(&carol, &relay, part * 50..(part + 1) * 50).await;
    }
    assert_eq!(relay.waiting_for(2).await, 1500);
    let bob = builder(2, &relay.home()).page_messages(200).start().unwrap();
    let taker = Taker::of(&bob);
    // While the backlog is read, and after.
    for part in 0..30 {
        send_numbered(&alice, &relay, 1000 + part * 10..1010 + part * 10).await;
        send_numbered(&carol, &relay, 500 + part * 5..505 + part * 5).await;
    }
    taker.count(1950).await;
    let mut last = send(&alice, &relay.home(), 2, &["1300"]).await;
    last.extend(send(&carol, &relay.home(), 2, &["650"]).await);
    assert_eq!(outcomes(&mut last).await, vec![Outcome::Delivered; 2]);
    assert_eq!(taker.bodies_from(1), numbered(0..1301));
    assert_eq!(taker.bodies_from(3), numbered(0..651));
    let backlog = taker.all().iter().filter(|taken| taken.backlog).count();
    assert!((1500..1952).contains(&backlog), "{backlog} came as backlog, and the seam lies between");
    relay.waits_for(2, 0).await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn a_push_that_overtakes_the_last_page_waits_for_it() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..5).await;
    let overtaken = Arc::new(Notify::new());
    let permission = overtaken.clone();
    proxy.judge(move |_, _, frame| match frame {
        Frame::PageA(page) if page.complete => Fate::PassAfter(permission.clone()),
        _ => Fate::Pass,
    });
    let bob = builder(2, &proxy.home()).page_messages(3).start().unwrap();
    let taker = Taker::of(&bob);
    until("the last page", || proxy.count(|frame| matches!(frame, Frame::PageA(page) if page.complete)) > 0).await;
    let mut sent = send(&alice, &relay.home(), 2, &["5", "6"]).await;
    until("both pushes", || proxy.count(|frame| matches!(frame, Frame::MsgN(_))) > 1).await;
    // They are with the client before the page is: what it takes of them it would take now.
    within("a connection", bob.waiting()).await.unwrap();
    overtaken.notify_one();
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 2]);
    assert_eq!(taker.bodies(), numbered(0..7));
}

#[tokio::test]
async fn the_counts_are_told_at_the_beginning_and_whenever_one_asks() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let (alice, carol) = (client(1, &relay.home()), client(3, &relay.home()));
    send_numbered(&alice, &relay, 0..7).await;
    send_numbered(&carol, &relay, 0..3).await;
    let bob = builder(2, &relay.home()).reading(Reading::Nothing).start().unwrap();
    let told = Log::of(&bob).await;
    told.connected(1).await;
    let Some(Event::Connected { status: first }) = told.all().into_iter().next() else { panic!("{:?}", told.all()) };
    let counts = |status: &posthouse::protocol::Status| {
        status.senders.iter().map(|count| (count.sender, count.messages)).collect::<Vec<_>>()
    };
    assert_eq!((first.messages, counts(&first)), (10, vec![(peer(1), 7), (peer(3), 3)]));
    assert!(first.bytes > 10 * 145 && first.oldest_ms <= first.newest_ms && first.oldest_ms.is_some() && !first.more);
    let now = within("a count", bob.status(None)).await.unwrap();
    assert_eq!(now, first);
    let of_carol = within("a count", bob.status(Some(peer(3)))).await.unwrap();
    assert_eq!((of_carol.messages, counts(&of_carol)), (3, vec![(peer(3), 3)]));
    assert_eq!(within("a count", bob.status(Some(peer(9)))).await.unwrap().messages, 0);
    send_numbered(&carol, &relay, 3..4).await;
    assert_eq!(within("a count", bob.status(None)).await.unwrap().messages, 11);
    assert_eq!(relay.waiting_for(2).await, 11, "counting takes nothing");
}

#[tokio::test]
async fn looking_deletes_nothing() {
    let relay = TestRelay::on_disk().started();
    bob_was_here(&relay).await;
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..30).await;
    for _ in 0..2 {
        let bob = builder(2, &relay.home()).page_messages(7).start().unwrap();
        for number in numbered(0..30) {
            let message = within("a message", bob.recv()).await.unwrap();
            assert_eq!(message.body, number);
            message.leave();
        }
        within("its end", bob.close()).await;
        assert_eq!(relay.waiting_for(2).await, 30);
    }
    let bob = client(2, &relay.home());
    Taker::of(&bob).count(30).await;
    relay.waits_for(2, 0).await;
}

#[tokio::test]
async fn acknowledgements_ride_on_the_next_page_request() {
    let relay = TestRelay::in_memory().started();
    bob_was_here(&relay).await;
    let proxy = Proxy::before(&relay, &[2]);
    let alice = client(1, &relay.home());
    send_numbered(&alice, &relay, 0..300).await;
    let bob = builder(2, &proxy.home()).page_messages(10).start().unwrap();
    let taker = Taker::of(&bob);
    taker.count(300).await;
    relay.waits_for(2, 0).await;
    let riding = proxy.count(|frame| matches!(frame, Frame::PageR(ask) if !ask.answers.is_empty()));
    assert!(riding > 0, "{:?}", proxy.seen().iter().map(Frame::frame_type).collect::<Vec<_>>());
    assert_eq!(taker.bodies(), numbered(0..300));
}

#[tokio::test]
async fn one_may_write_to_a_peer_who_was_never_seen() {
    let relay = TestRelay::on_disk().started();
    let alice = client(1, &relay.home());
    let mut sent = send(&alice, &relay.home(), 2, &["welcome", "to", "posthouse"]).await;
    accepted(&mut sent).await;
    let bob = client(2, &relay.home());
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 3]);
    assert_eq!(taker.bodies(), ["welcome", "to", "posthouse"]);
    relay.assert_sound().await;
}
