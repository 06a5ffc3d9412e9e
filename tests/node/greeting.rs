//! Before A:HELLO: who is let in, how long one may be silent, and what is closed by which name.

use std::time::Duration;

use posthouse::protocol::{CloseCode, Frame, HelloR, OpenN, StreamKind};
use quinn::ConnectionError;

use crate::support::bystander::Bystanders;
use crate::support::raw::{Session, Speaker, hello, message};
use crate::support::relay::TestRelay;
use crate::support::until;

const WINDOW: u32 = 1 << 20;

/// What a connection that begins like this is closed with, while others go on.
async fn closed_with(begin: impl AsyncFn(&Speaker)) -> CloseCode {
    let relay = TestRelay::in_memory().started();
    let bystanders = Bystanders::of(&relay).await;
    let speaker = Speaker::connect(relay.at(), Some(1), WINDOW).await;
    begin(&speaker).await;
    let (code, reason) = speaker.closed().await;
    assert!(!reason.is_empty(), "{code} says why");
    bystanders.assert_unharmed().await;
    assert_eq!(relay.sessions(), 2);
    code
}

#[tokio::test]
async fn who_shows_no_certificate_is_told_so() {
    let relay = TestRelay::in_memory().started();
    let bystanders = Bystanders::of(&relay).await;
    let nobody = Speaker::connect(relay.at(), None, WINDOW).await;
    let mut submit = nobody.open(StreamKind::Submit).await;
    submit.say(hello()).await;
    assert_eq!(nobody.closed().await.0, CloseCode::NoIdentity);
    bystanders.assert_unharmed().await;
}

#[tokio::test]
async fn another_version_is_refused_by_name() {
    for version in [0, 2, (1 << 53) - 1] {
        let code = closed_with(async |speaker| {
            speaker.open(StreamKind::Submit).await.say(HelloR { version, ..hello() }).await;
        });
        assert_eq!(code.await, CloseCode::Version);
    }
}

#[tokio::test]
async fn the_first_frame_of_a_stream_is_open_and_the_second_is_hello() {
    let frames: [Vec<Frame>; 5] = [
        vec![hello().into()],
        vec![OpenN { kind: StreamKind::Sync }.into()],
        vec![OpenN { kind: StreamKind::Notify }.into()],
        vec![OpenN { kind: StreamKind::Submit }.into(), message(0, 1, 2, 7, 1, b"early").into()],
        vec![OpenN { kind: StreamKind::Submit }.into(), OpenN { kind: StreamKind::Submit }.into()],
    ];
    for frames in frames {
        let code = closed_with(async |speaker| {
            let mut stream = speaker.stream().await;
            for frame in &frames {
                stream.say(frame.clone()).await;
            }
        });
        assert_eq!(code.await, CloseCode::UnexpectedFrame, "{frames:?}");
    }
}

#[tokio::test]
async fn a_submit_stream_that_ends_before_hello_is_malformed() {
    for whole in [true, false] {
        let code = closed_with(async |speaker| {
            let mut stream = speaker.stream().await;
            if whole {
                stream.say(OpenN { kind: StreamKind::Submit }).await;
            } else {
                stream.say_bytes(&[0, 0, 0, 9, 3]).await;
            }
            stream.send.finish().unwrap();
        });
        assert_eq!(code.await, CloseCode::Malformed);
    }
}

#[tokio::test]
async fn who_does_not_say_hello_is_closed_in_time() {
    let mut relay = TestRelay::in_memory();
    relay.limits.transport.hello_timeout = Duration::from_millis(300);
    relay.start();
    let bystanders = Bystanders::of(&relay).await;
    let silent = Speaker::connect(relay.at(), Some(1), WINDOW).await;
    let opened = Speaker::connect(relay.at(), Some(2), WINDOW).await;
    let _stream = opened.open(StreamKind::Submit).await;
    // A frame that never becomes whole gains no time.
    let slow = Speaker::connect(relay.at(), Some(3), WINDOW).await;
    let mut trickle = slow.open(StreamKind::Submit).await;
    let dripping = async {
        trickle.say_bytes(&[0, 0, 1, 0, 1, 3]).await;
        loop {
            trickle.say_bytes(&[0]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async { (silent.closed().await.0, opened.closed().await.0, slow.closed().await.0) };
    let codes = tokio::select! {
        codes = closed => codes,
        () = dripping => unreachable!("it goes on for ever"),
    };
    assert_eq!(codes, (CloseCode::HelloTimeout, CloseCode::HelloTimeout, CloseCode::HelloTimeout));
    bystanders.assert_unharmed().await;
}

#[tokio::test]
async fn connections_without_hello_are_limited_and_sessions_are_not() {
    let mut relay = TestRelay::in_memory();
    // A quarter of them from one address.
    relay.limits.transport.max_without_hello = 12;
    relay.start();
    let bystanders = Bystanders::of(&relay).await;
    let mut strangers = Vec::new();
    for number in 1..=3 {
        strangers.push(Speaker::connect(relay.at(), Some(number), WINDOW).await);
    }
    let refused = Speaker::try_connect(relay.at(), Some(4), WINDOW).await.err().unwrap();
    assert!(
        matches!(&refused, ConnectionError::ConnectionClosed(close) if close.error_code
        == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{refused}"
    );
    bystanders.assert_unharmed().await;
    // One says HELLO, and is none of them any more.
    let session = strangers.pop().unwrap().greet(hello()).await;
    let next = Speaker::connect(relay.at(), Some(4), WINDOW).await;
    let another = Speaker::try_connect(relay.at(), Some(5), WINDOW).await;
    assert!(another.is_err(), "three again");
    drop((session, next, strangers));
    until("the end of the sessions", || relay.sessions() == 2).await;
    let welcome = Session::open(relay.at(), 6, hello()).await;
    drop(welcome);
    bystanders.assert_unharmed().await;
}

#[tokio::test]
async fn what_hello_asks_for_is_brought_within_the_limits() {
    let relay = TestRelay::in_memory().started();
    let most = (1 << 53) - 1;
    let greedy = HelloR { device: most, credit_messages: most, credit_bytes: most, ack_timeout_ms: most, ..hello() };
    let session = Session::open(relay.at(), 1, greedy).await;
    assert_eq!(session.hello.credit_messages, 4096);
    assert_eq!((session.hello.version, session.hello.watermark, session.hello.status.messages), (1, 0, 0));
}
