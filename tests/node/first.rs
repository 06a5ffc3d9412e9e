//! A message goes all the way, through memory and through files, and through the man in the middle.

use posthouse::protocol::limit::MAX_PAGE_BYTES;
use posthouse::protocol::{Frame, Order, Outcome};
use posthouse::store::{Query, RelayStore as _};

use crate::support::client::{Taker, accepted, builder, client, client_in, outcomes, send};
use crate::support::proxy::Proxy;
use crate::support::relay::TestRelay;
use crate::support::{until, who};

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
    // ACK:N waits for no disk and comes on a stream of its own: it may be there before MSG:A.
    until("MSG:A", || packet("MsgA") > 0).await;
    // Whether it came with the backlog or after it, it came once, and was acknowledged with a page or by itself.
    let pages =
        proxy.seen().iter().filter(|frame| matches!(frame, Frame::PageA(page) if !page.messages.is_empty())).count();
    assert_eq!((packet("MsgR"), packet("MsgA"), packet("MsgN") + pages, packet("AckN")), (1, 1, 1, 1));
}

#[tokio::test]
async fn who_signs_all_signs_what_stays_at_its_relay_as_well() {
    let relay = TestRelay::in_memory().started();
    let home = relay.home();
    let signatures = |number: u8| {
        let query = Query {
            mailbox: who(number).peer_id(),
            order: Order::Oldest,
            cursor: None,
            sender: None,
            max_messages: 10,
            max_bytes: MAX_PAGE_BYTES,
        };
        let page = relay.store().page(query);
        async { page.await.unwrap().messages.iter().map(|stored| stored.signature.is_some()).collect::<Vec<_>>() }
    };
    for (builder, recipient, signed) in [(builder(1, &home), 2, false), (builder(3, &home).sign_all(), 4, true)] {
        let sender = builder.start().unwrap();
        let mut sent = send(&sender, &home, recipient, &["one"]).await;
        accepted(&mut sent).await;
        assert_eq!(signatures(recipient).await, [signed]);
        let taker = Taker::of(&client(recipient, &home));
        taker.count(1).await;
        assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    }
}
