//! A message goes all the way, through memory and through files, and through the man in the middle.

use posthouse::protocol::{Frame, Outcome};

use crate::support::client::{Taker, client, client_in, outcomes, send};
use crate::support::proxy::Proxy;
use crate::support::relay::TestRelay;

#[tokio::test]
async fn messages_are_delivered_in_order_and_their_sender_learns_it() {
    let relay = TestRelay::on_disk().started();
    let (home, directory) = (relay.home(), tempfile::tempdir().unwrap());
    let (alice, bob) = (client(1, &home), client_in(directory.path(), 2, &home));
    let taker = Taker::of(&bob);
    let mut sent = send(&alice, &home, 2, &["one", "two", "three"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered, Outcome::Delivered, Outcome::Delivered]);
    assert_eq!(taker.bodies(), ["one", "two", "three"]);
    relay.assert_sound().await;
}

#[tokio::test]
async fn one_message_is_six_packets() {
    let relay = TestRelay::in_memory().started();
    let proxy = Proxy::before(&relay, &[1, 2]);
    let home = proxy.home();
    let (alice, bob) = (client(1, &home), client(2, &home));
    let taker = Taker::of(&bob);
    bob.status(None).await.unwrap();
    let mut sent = send(&alice, &home, 2, &["hello"]).await;
    outcomes(&mut sent).await;
    assert_eq!(taker.bodies(), ["hello"]);
    let packet = |name: &str| proxy.count(|frame| format!("{:?}", frame.frame_type()) == name);
    // Whether it came with the backlog or after it, it came once, and was acknowledged with a page or by itself.
    let pages =
        proxy.seen().iter().filter(|frame| matches!(frame, Frame::PageA(page) if !page.messages.is_empty())).count();
    assert_eq!((packet("MsgR"), packet("MsgA"), packet("MsgN") + pages, packet("AckN")), (1, 1, 1, 1));
}
