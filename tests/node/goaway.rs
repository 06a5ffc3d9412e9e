//! A relay that is about to stop: what it says to its clients, and what they do.

use std::time::{Duration, Instant};

use posthouse::address::RelayAddress;
use posthouse::client::Event;
use posthouse::id::StoreId;
use posthouse::protocol::limit::VERSION;
use posthouse::protocol::{CloseCode, Durability, Frame, GoawayN, HelloA, Outcome, Status, StreamKind};
use posthouse::random::SystemEntropy;
use posthouse::transport::{Connection, RelayEndpoint, Socket, TransportError, TransportLimits};
use tokio::task::JoinSet;

use crate::support::client::{Log, Taker, accepted, client, outcomes, send};
use crate::support::raw::{Session, Speaker, hello, message};
use crate::support::relay::TestRelay;
use crate::support::{until, who, within};

/// Bytes that wait in a stream.
const BUFFER_BYTES: usize = 64 << 10;

#[tokio::test]
async fn clients_leave_when_told_and_come_back_no_sooner() {
    let mut relay = TestRelay::on_disk().started();
    let home = relay.home();
    let (alice, bob) = (client(1, &home), client(2, &home));
    let taker = Taker::of(&bob);
    assert_eq!(outcomes(&mut send(&alice, &home, 2, &["one"]).await).await, [Outcome::Delivered]);
    let told = Log::of(&alice).await;
    within("everybody's leaving", relay.drain()).await;
    let drained = Instant::now();
    assert_eq!(relay.sessions(), 0);
    assert!(relay.trouble().await.unwrap().contains("draining"));
    relay.stop().await;
    relay.start();
    let mut sent = send(&alice, &home, 2, &["two"]).await;
    assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered]);
    let back = drained.elapsed();
    let waits = told.all().into_iter().filter_map(|event| match event {
        Event::Disconnected { reason, retry_in } => Some((reason, retry_in)),
        _ => None,
    });
    let waits: Vec<(String, Duration)> = waits.collect();
    let [(reason, wait)] = &waits[..] else { panic!("it left more than once: {waits:?}") };
    assert!(reason.contains("asks to come back"), "{reason}");
    assert!(*wait >= Duration::from_millis(500) && *wait <= Duration::from_millis(1500), "{wait:?}");
    assert!(back + Duration::from_millis(100) >= *wait, "it was back after {back:?} and should have waited {wait:?}");
    assert_eq!(taker.bodies(), ["one", "two"]);
}

#[tokio::test]
async fn what_was_begun_is_answered_and_who_stays_is_closed_and_nobody_gets_in() {
    let relay = TestRelay::in_memory().started();
    let mut session = Session::open(relay.at(), 1, hello()).await;
    session.submit.say(message(0, 1, 2, 7, 1, b"begun")).await;
    // Once it is there its answer may still be on the way.
    relay.waits_for(2, 1).await;
    let drain = relay.drain();
    let visit = async {
        let Some(Frame::MsgA(answer)) = session.submit.hear().await else { panic!("no answer") };
        assert_eq!(answer.request, 0);
        let Some(Frame::GoawayN(goaway)) = session.notify.hear().await else { panic!("no farewell") };
        assert!((500..=1500).contains(&goaway.delay_ms), "{goaway:?}");
        assert!(Speaker::try_connect(relay.at(), Some(3), 1 << 20).await.is_err(), "nobody gets in");
        assert!(relay.trouble().await.is_some());
        session.closed().await.0
    };
    let ((), code) = within("the end of the session", async { tokio::join!(drain, visit) }).await;
    assert_eq!(code, CloseCode::GoingAway);
    until("nobody is there", || relay.sessions() == 0).await;
}

/// A relay that sends whoever comes away at once, and asks to be tried again at once.
async fn send_away(connection: Connection) -> Result<(), TransportError> {
    let (_, submit, mut from_submit) = connection.accept().await?;
    from_submit.next().await?;
    let nothing = Status { messages: 0, bytes: 0, oldest_ms: None, newest_ms: None, senders: vec![], more: false };
    let hello = HelloA {
        version: VERSION,
        store: StoreId([7; 16]),
        durability: Durability::Disk,
        watermark: 0,
        status: nothing,
        max_body_bytes: 1000,
        credit_messages: 0,
        agent: None,
    };
    submit.send(&hello.into()).await?;
    let (notify, _from_notify) = connection.open(StreamKind::Notify, BUFFER_BYTES).await?;
    notify.send(&GoawayN { delay_ms: 0 }.into()).await?;
    connection.closed().await;
    Ok(())
}

/// A relay that sends everybody away: its address, and where it takes connections.
fn unwelcoming() -> (RelayAddress, RelayEndpoint) {
    let who = who(250);
    let anywhere = Socket::Bind("127.0.0.1:0".parse().unwrap());
    let endpoint = RelayEndpoint::bind(anywhere, &who, &TransportLimits::default(), &SystemEntropy, None).unwrap();
    (RelayAddress::new(who.relay_id(), endpoint.local_addr().unwrap().into()), endpoint)
}

/// Sends away whoever comes. It may come six times or so in two seconds: waits that double from a tenth of a second on
/// leave room for that.
async fn is_tried_less_and_less_often(there: RelayEndpoint) {
    let mut visits = JoinSet::new();
    let mut visit = async || {
        let visit = there.accept().await.unwrap().handshake().await.unwrap();
        visits.spawn(send_away(visit));
    };
    within("the first visit", visit()).await;
    let (begun, mut count) = (Instant::now(), 1);
    while let Ok(()) = tokio::time::timeout(Duration::from_secs(2).saturating_sub(begun.elapsed()), visit()).await {
        count += 1;
    }
    assert!((2..=12).contains(&count), "{count} visits in two seconds");
}

#[tokio::test]
async fn another_relay_that_wants_to_be_tried_again_at_once_is_tried_less_and_less_often() {
    let here = TestRelay::in_memory().started();
    let (home, there) = unwelcoming();
    let alice = client(1, &here.home());
    accepted(&mut send(&alice, &home, 2, &["one"]).await).await;
    is_tried_less_and_less_often(there).await;
}

#[tokio::test]
async fn a_home_relay_that_wants_its_clients_back_at_once_is_tried_less_and_less_often() {
    let (home, there) = unwelcoming();
    let _alice = client(1, &home);
    is_tried_less_and_less_often(there).await;
}
