//! A relay that is about to stop: what it says to its clients, and what they do.

use std::time::{Duration, Instant};

use posthouse::client::Event;
use posthouse::protocol::{CloseCode, Frame, GoawayN, Outcome, StreamKind};
use posthouse::transport::{Connection, RelayEndpoint, TransportError};
use tokio::task::JoinSet;

use crate::support::client::{Log, Taker, accepted, client, outcomes, send};
use crate::support::pretender::{pretender, welcome};
use crate::support::raw::{Session, Speaker, hello, message};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

/// A relay that sends everybody away.
const THERE: u8 = 250;

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
    submit.send(&welcome().into()).await?;
    let (notify, _from_notify) = connection.open(StreamKind::Notify, BUFFER_BYTES).await?;
    notify.send(&GoawayN { delay_ms: 0 }.into()).await?;
    connection.closed().await;
    Ok(())
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
    let (home, there) = pretender(THERE);
    let alice = client(1, &here.home());
    accepted(&mut send(&alice, &home, 2, &["one"]).await).await;
    is_tried_less_and_less_often(there).await;
}

#[tokio::test]
async fn a_home_relay_that_wants_its_clients_back_at_once_is_tried_less_and_less_often() {
    let (home, there) = pretender(THERE);
    let _alice = client(1, &home);
    is_tried_less_and_less_often(there).await;
}
