//! After HELLO: bytes that are no frames, frames at the wrong place, and streams beyond the limit. Each is closed
//! by its name, and nobody else notices.

use posthouse::protocol::limit::MAX_FRAME_BYTES;
use posthouse::protocol::{
    AckA, AckR, CloseCode, Frame, FrameType, MsgN, NopN, OpenN, Order, PageR, StatusR, StreamKind, Taken,
};

use quinn::VarInt;

use crate::support::bystander::Bystanders;
use crate::support::pretender::welcome;
use crate::support::raw::{Session, Stream, hello, message};
use crate::support::relay::TestRelay;
use crate::support::within;

/// The streams of a session, to do wrong on.
#[derive(Debug, Clone, Copy)]
enum On {
    Submit,
    Notify,
    Sync,
}

/// What a session in which this is done on that stream is closed with, while others go on.
async fn closed_with(
    relay: &TestRelay,
    bystanders: &Bystanders,
    on: On,
    wrong: impl AsyncFn(&mut Stream),
) -> CloseCode {
    let mut session = Session::open(relay.at(), 1, hello()).await;
    match on {
        On::Submit => wrong(&mut session.submit).await,
        On::Notify => wrong(&mut session.notify).await,
        On::Sync => wrong(&mut session.speaker.open(StreamKind::Sync).await).await,
    }
    let (code, reason) = session.closed().await;
    assert!(!reason.is_empty(), "{code} says why");
    bystanders.assert_unharmed().await;
    code
}

async fn scene() -> (TestRelay, Bystanders) {
    let relay = TestRelay::in_memory().started();
    let bystanders = Bystanders::of(&relay).await;
    (relay, bystanders)
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_by_its_length_alone() {
    let (relay, bystanders) = scene().await;
    for on in [On::Submit, On::Notify, On::Sync] {
        for length in [MAX_FRAME_BYTES + 1, u32::MAX as usize] {
            let prefix = u32::try_from(length).unwrap().to_be_bytes();
            let code = closed_with(&relay, &bystanders, on, async |stream| stream.say_bytes(&prefix).await).await;
            assert_eq!(code, CloseCode::FrameTooLong, "{on:?} {length}");
        }
    }
}

#[tokio::test]
async fn what_is_no_frame_is_malformed() {
    let (relay, bystanders) = scene().await;
    let msg_r = FrameType::MsgR.number();
    let contents: [&[u8]; 7] = [
        // No map, a map cut off, one that promises four billion entries, bytes behind it, a wrong type, a field
        // that is missing, maps in maps without end.
        &[0x95, 0, 0, 0, 0, 0],
        &[0x85, 0xa1, b'q'],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x00],
        &[0x81, 0xa1, b'q', 0xa1, b'x'],
        &[0x81, 0xa1, b'q', 0x00],
        &[0x81; 60_000],
    ];
    for content in contents {
        let wrong = async |stream: &mut Stream| stream.say_raw(msg_r, content).await;
        let code = closed_with(&relay, &bystanders, On::Submit, wrong).await;
        assert_eq!(code, CloseCode::Malformed, "{:x?}", &content[..content.len().min(10)]);
    }
    // A range that is reversed.
    let reversed = [&[0x83, 0xa1, b'q', 0, 0xa1, b'i', 0xc4, 16][..], &[7; 16], &[0xa1, b'd', 0x91, 0x92, 9, 1]];
    let wrong = async |stream: &mut Stream| stream.say_raw(FrameType::AckR.number(), &reversed.concat()).await;
    assert_eq!(closed_with(&relay, &bystanders, On::Notify, wrong).await, CloseCode::Malformed);
    // A stream that ends inside a frame.
    for on in [On::Submit, On::Notify, On::Sync] {
        let wrong = async |stream: &mut Stream| {
            stream.say_bytes(&[0, 0, 0, 9, 1]).await;
            stream.send.finish().unwrap();
        };
        assert_eq!(closed_with(&relay, &bystanders, on, wrong).await, CloseCode::Malformed, "{on:?}");
    }
}

#[tokio::test]
async fn an_unknown_type_is_an_error_below_8000_and_skipped_above() {
    let (relay, bystanders) = scene().await;
    for on in [On::Submit, On::Notify, On::Sync] {
        for number in [0x0000, 0x0199, 0x7fff] {
            let code = closed_with(&relay, &bystanders, on, async |stream| stream.say_raw(number, &[0x80]).await).await;
            assert_eq!(code, CloseCode::UnknownFrame, "{on:?} {number:#x}");
        }
    }
    let mut session = Session::open(relay.at(), 1, hello()).await;
    for number in [0x8000, 0x8302, 0xffff] {
        session.submit.say_raw(number, b"whatever this may be").await;
        session.notify.say_raw(number, &[]).await;
    }
    session.submit.say(NopN {}).await;
    session.submit.say(message(0, 1, 1, 7, 1, b"after all that")).await;
    assert!(matches!(session.submit.hear().await, Some(Frame::MsgA(_))));
}

fn page() -> PageR {
    let (order, store) = (Order::Oldest, posthouse::id::StoreId([7; 16]));
    let (cursor, sender, answers) = (None, None, Taken::default());
    PageR { request: 0, order, cursor, sender, max_messages: 1, max_bytes: 1, store, answers }
}

#[tokio::test]
async fn a_known_frame_at_the_wrong_place_is_unexpected() {
    let (relay, bystanders) = scene().await;
    let msg_r: Frame = message(0, 1, 2, 7, 1, b"x").into();
    let Frame::MsgR(message) = &msg_r else { unreachable!() };
    let msg_n = MsgN { seq: 1, ttl_ms: 1, attempt: 1, envelope: message.envelope.clone(), signature: None };
    let ack_r = AckR { request: 0, store: posthouse::id::StoreId([7; 16]), answers: Taken::default() };
    let status: Frame = StatusR { request: 0, sender: None }.into();
    let open: Frame = OpenN { kind: StreamKind::Submit }.into();
    for (on, frame) in [
        (On::Submit, hello().into()),
        (On::Submit, welcome().into()),
        (On::Submit, msg_n.clone().into()),
        (On::Submit, page().into()),
        (On::Submit, status.clone()),
        (On::Submit, ack_r.clone().into()),
        (On::Submit, AckA { request: 0 }.into()),
        (On::Submit, open.clone()),
        (On::Notify, msg_r.clone()),
        (On::Notify, msg_n.into()),
        (On::Notify, page().into()),
        (On::Notify, AckA { request: 0 }.into()),
        (On::Sync, msg_r),
        (On::Sync, ack_r.into()),
        (On::Sync, hello().into()),
        (On::Sync, open),
    ] {
        let code = closed_with(&relay, &bystanders, on, async |stream| stream.say(frame.clone()).await).await;
        assert_eq!(code, CloseCode::UnexpectedFrame, "{on:?} {frame:?}");
    }
}

#[tokio::test]
async fn there_is_one_submit_stream_and_the_notify_stream_is_the_relays() {
    let (relay, bystanders) = scene().await;
    for kind in [StreamKind::Submit, StreamKind::Notify] {
        let session = Session::open(relay.at(), 1, hello()).await;
        let _second = session.speaker.open(kind).await;
        assert_eq!(session.closed().await.0, CloseCode::UnexpectedFrame, "{kind:?}");
        bystanders.assert_unharmed().await;
    }
    let mut session = Session::open(relay.at(), 1, hello()).await;
    session.submit.send.finish().unwrap();
    assert_eq!(session.closed().await.0, CloseCode::Done, "who ends the submit stream is done");
}

#[tokio::test]
async fn sixteen_streams_are_served_and_the_next_one_waits_until_some_have_ended() {
    let (relay, bystanders) = scene().await;
    let session = Session::open(relay.at(), 1, hello()).await;
    let mut streams = Vec::new();
    for _ in 0..15 {
        streams.push(session.speaker.open(StreamKind::Sync).await);
    }
    for (request, stream) in (0..).zip(&mut streams) {
        stream.say(StatusR { request, sender: None }).await;
        let Some(Frame::StatusA(answer)) = stream.hear().await else { panic!("no status") };
        assert_eq!((answer.request, answer.status.messages), (request, 0));
    }
    let mut further = Box::pin(session.speaker.open(StreamKind::Sync));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), &mut further).await;
    assert!(waited.is_err(), "a seventeenth stream was opened");
    // QUIC tells of streams that may be opened anew only when they are several.
    for mut ended in streams.drain(10..) {
        ended.send.finish().unwrap();
        assert_eq!(ended.hear().await, None);
    }
    let mut further = within("a stream", further).await;
    further.say(StatusR { request: 99, sender: None }).await;
    assert!(matches!(further.hear().await, Some(Frame::StatusA(_))));
    bystanders.assert_unharmed().await;
}

#[tokio::test]
async fn a_sync_stream_that_is_broken_off_is_its_own_affair() {
    let (relay, bystanders) = scene().await;
    let mut session = Session::open(relay.at(), 1, hello()).await;
    session.submit.say(message(0, 1, 1, 7, 1, &[7; 100_000])).await;
    assert!(matches!(session.submit.hear().await, Some(Frame::MsgA(_))));
    for how in 0..4 {
        let mut sync = session.speaker.open(StreamKind::Sync).await;
        sync.say(StatusR { request: 0, sender: None }).await;
        assert!(matches!(sync.hear().await, Some(Frame::StatusA(_))));
        let code = VarInt::from_u32(7);
        match how {
            0 => sync.send.finish().unwrap(),
            1 => sync.send.reset(code).unwrap(),
            // In the middle of a page.
            2 => {
                sync.say(PageR { max_bytes: 1 << 20, ..page() }).await;
                sync.receive.stop(code).unwrap();
            }
            _ => drop(sync),
        }
        let mut other = session.speaker.open(StreamKind::Sync).await;
        other.say(StatusR { request: 0, sender: None }).await;
        assert!(matches!(other.hear().await, Some(Frame::StatusA(_))), "way {how}");
    }
    session.submit.say(message(1, 1, 1, 7, 2, b"still open")).await;
    assert!(matches!(session.submit.hear().await, Some(Frame::MsgA(_))));
    bystanders.assert_unharmed().await;
}
