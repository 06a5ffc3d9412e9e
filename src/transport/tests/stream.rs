//! Streams of frames: order, bounds, and what breaks off.

use bytes::BytesMut;

use super::super::*;
use super::*;
use crate::protocol::limit::MAX_FRAME_BYTES;
use crate::protocol::{CloseCode, Frame, NopN, StreamKind, WireError, encode};

#[tokio::test]
async fn a_stream_begins_with_its_kind_and_frames_arrive_in_order() {
    const FRAMES: u64 = 100_000;
    let pair = pair().await;
    let (sender, mut answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let reading = tokio::spawn(async move {
        let (kind, back, mut receiver) = pair.relay.accept().await.unwrap();
        assert_eq!(kind, StreamKind::Submit);
        let mut next = 0;
        while let Some(frame) = receiver.next().await.unwrap() {
            assert_eq!(frame, ack(next));
            next += 1;
        }
        back.send(&ack(next)).await.unwrap();
        back.finish();
        assert_eq!(back.send(&ack(0)).await, Err(TransportError::Finished));
        pair.relay.closed().await;
    });
    for request in 0..FRAMES {
        sender.send(&ack(request)).await.unwrap();
    }
    drop(sender);
    assert_eq!(within(20 * SECOND, answers.next()).await, Ok(Some(ack(FRAMES))));
    assert_eq!(answers.next().await, Ok(None));
    pair.client.close(CloseCode::Done, "");
    reading.await.unwrap();
}

#[tokio::test]
async fn frames_that_wait_go_in_one_write() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let before = pair.client.quinn().stats().frame_tx.stream;
    for request in 0..1000 {
        assert_eq!(sender.try_send(&ack(request)), Ok(true));
    }
    let waiting = sender.pending_bytes() as u64;
    sender.flush().await.unwrap();
    assert_eq!(sender.pending_bytes(), 0);
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    for request in 0..1000 {
        assert_eq!(receiver.next().await, Ok(Some(ack(request))));
        // What one read brought can be had without waiting.
    }
    let sent = pair.client.quinn().stats().frame_tx.stream - before;
    assert!(sent <= waiting / 1000 + 2, "{sent} stream frames for {waiting} bytes");
}

#[tokio::test]
async fn both_sides_ask_for_acknowledgements_that_ride_on_answers() {
    let pair = pair().await;
    let (sender, mut answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    let (_, back, mut receiver) = pair.relay.accept().await.unwrap();
    for request in 0..3 {
        sender.send(&ack(request)).await.unwrap();
        receiver.next().await.unwrap();
        back.send(&ack(request)).await.unwrap();
        answers.next().await.unwrap();
    }
    for side in [&pair.client, &pair.relay] {
        assert_eq!(side.quinn().stats().frame_tx.ack_frequency, 1);
    }
}

#[tokio::test]
async fn what_has_come_can_be_had_without_waiting() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1 << 20).await.unwrap();
    for request in 0..10 {
        sender.try_send(&ack(request)).unwrap();
    }
    sender.write();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    // All of it fits one packet.
    for request in 0..10 {
        assert_eq!(receiver.try_buffered(), Ok(Some(ack(request))));
    }
    assert_eq!(receiver.try_buffered(), Ok(None));
}

#[tokio::test]
async fn a_sender_waits_while_nobody_reads_and_holds_no_more_than_its_bound() {
    const LIMIT: usize = 64 << 10;
    const BODY: usize = 10_000;
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, LIMIT).await.unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    let mut sent = 0;
    while tokio::time::timeout(SECOND / 2, sender.send(&message(sent, BODY))).await.is_ok() {
        sent += 1;
        assert!(sender.pending_bytes() <= LIMIT + BODY + 100, "{}", sender.pending_bytes());
        assert!(sent < 10_000, "it never waits");
    }
    assert_eq!(sender.try_send(&message(sent, BODY)), Ok(false));
    // The send that was dropped has sent nothing; what was sent before comes whole.
    let reading = tokio::spawn(async move {
        for request in 0..=sent {
            assert_eq!(receiver.next().await, Ok(Some(message(request, BODY))));
        }
    });
    within(20 * SECOND, sender.send(&message(sent, BODY))).await.unwrap();
    within(20 * SECOND, reading).await.unwrap();
    // A raised limit lets a waiting sender go on.
    assert_eq!(sender.pending_bytes(), 0);
}

#[tokio::test]
async fn a_frame_above_the_limit_is_not_sent() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 8 << 20).await.unwrap();
    let error = sender.try_send(&message(0, MAX_FRAME_BYTES)).unwrap_err();
    assert!(matches!(error, TransportError::FrameTooLong { .. }), "{error:?}");
    sender.try_send(&message(1, MAX_FRAME_BYTES - 100)).unwrap();
    sender.write();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(within(5 * SECOND, receiver.next()).await, Ok(Some(message(1, MAX_FRAME_BYTES - 100))));
}

#[tokio::test]
async fn a_receiver_that_is_dropped_stops_the_sender() {
    let pair = pair().await;
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 0).await.unwrap();
    drop(pair.relay.accept().await.unwrap());
    let stopped = within(5 * SECOND, async {
        loop {
            if let Err(error) = sender.send(&ack(0)).await {
                break error;
            }
            tokio::time::sleep(SECOND / 100).await;
        }
    });
    assert_eq!(stopped.await, TransportError::StreamStopped(0));
    assert_eq!(sender.flush().await, Err(TransportError::StreamStopped(0)));
}

#[tokio::test]
async fn a_stream_has_a_task_only_while_it_waits_for_room_and_both_end_with_the_connection() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let pair = pair().await;
    let idle = tasks();
    let (sender, _answers) = pair.client.open(StreamKind::Submit, 1000).await.unwrap();
    let (quiet, _answers) = pair.client.open(StreamKind::Sync, 1000).await.unwrap();
    let (_, back, _receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(tasks(), idle);
    let waiting = async {
        loop {
            if let Err(error) = sender.send(&message(0, 100_000)).await {
                break error;
            }
        }
    };
    let close = async {
        tokio::time::sleep(SECOND / 5).await;
        assert_eq!(tasks(), idle + 1);
        pair.relay.close(CloseCode::GoingAway, "");
    };
    let (error, ()) = within(5 * SECOND, async { tokio::join!(waiting, close) }).await;
    let TransportError::Closed(reason) = error else { panic!("{error:?}") };
    assert_eq!(reason.code(), Some(CloseCode::GoingAway));
    within(5 * SECOND, async {
        while tasks() > idle {
            tokio::time::sleep(SECOND / 100).await;
        }
    })
    .await;
    for other in [&quiet, &back] {
        other.try_send(&ack(0)).unwrap();
        other.write();
        assert!(matches!(other.try_send(&ack(0)), Err(TransportError::Closed(_))), "what was written has told it");
    }
    assert_eq!(sender.pending_bytes(), 0);
}

#[tokio::test]
async fn no_more_streams_than_the_relay_needs() {
    let pair = pair().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(within(SECOND, pair.client.open(StreamKind::Sync, 0)).await.unwrap());
    }
    assert!(tokio::time::timeout(SECOND / 5, pair.client.open(StreamKind::Sync, 0)).await.is_err());
    assert!(tokio::time::timeout(SECOND / 5, pair.client.quinn().open_uni()).await.is_err());
    let _notify = within(SECOND, pair.relay.open(StreamKind::Notify, 0)).await.unwrap();
    assert!(tokio::time::timeout(SECOND / 5, pair.relay.open(StreamKind::Notify, 0)).await.is_err());
    assert_eq!(pair.client.quinn().max_datagram_size(), None);
}

// What a hostile peer sends.

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut buffer));
    buffer.to_vec()
}

fn opening() -> Vec<u8> {
    bytes(&[crate::protocol::OpenN { kind: StreamKind::Submit }.into()])
}

#[tokio::test]
async fn what_is_no_protocol_is_named_and_closes_the_connection() {
    let long = [&opening()[..], &(MAX_FRAME_BYTES as u32 + 1).to_be_bytes(), &[1, 1]].concat();
    let longest_prefix = [&opening()[..], &u32::MAX.to_be_bytes()].concat();
    let cut_map = [&opening()[..], &[0, 0, 0, 2, 0x02, 0x02, 0x81, 0xa1]].concat();
    let unknown = [&opening()[..], &[0, 0, 0, 1, 0x7f, 0xff, 0x80]].concat();
    let cut = [&opening()[..], &bytes(&[ack(1)])[..7]].concat();
    type Case = (&'static str, Vec<u8>, fn(&WireError) -> bool, CloseCode);
    let cases: [Case; 8] = [
        ("too long", long, |e| matches!(e, WireError::FrameTooLong { .. }), CloseCode::FrameTooLong),
        ("by far", longest_prefix, |e| matches!(e, WireError::FrameTooLong { .. }), CloseCode::FrameTooLong),
        ("a cut map", cut_map, |e| matches!(e, WireError::Malformed { .. }), CloseCode::Malformed),
        ("unknown type", unknown, |e| *e == WireError::UnknownFrame(0x7fff), CloseCode::UnknownFrame),
        ("a cut frame", cut, |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("nothing", vec![], |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("a cut opening", opening()[..3].to_vec(), |e| *e == WireError::Truncated, CloseCode::Malformed),
        ("no opening", bytes(&[ack(1)]), |e| matches!(e, WireError::Unexpected { .. }), CloseCode::UnexpectedFrame),
    ];
    for (name, sent, expected, code) in cases {
        let pair = pair().await;
        let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
        raw.write_all(&sent).await.unwrap();
        raw.finish().unwrap();
        let error = within(5 * SECOND, async {
            let (_, _, mut receiver) = pair.relay.accept().await?;
            let error = receiver.next().await.expect_err("no frame is in it");
            assert_eq!(receiver.next().await, Err(error.clone()), "{name}: an error stays one");
            Err::<(), _>(error)
        })
        .await
        .unwrap_err();
        let TransportError::Wire(wire) = &error else { panic!("{name}: {error:?}") };
        assert!(expected(wire), "{name}: {wire:?}");
        pair.relay.close_for(&error);
        let reason = within(5 * SECOND, pair.client.closed()).await;
        assert_eq!(reason.code(), Some(code), "{name}: {reason}");
    }
}

#[tokio::test]
async fn a_client_cannot_make_a_relay_keep_more_than_its_windows() {
    let pair = pair().await;
    let mut streams = Vec::new();
    let mut kept = 0;
    for _ in 0..16 {
        let (mut raw, back) = pair.client.quinn().open_bi().await.unwrap();
        let mut of_stream = 0;
        while let Ok(written) = tokio::time::timeout(SECOND / 5, raw.write(&[0; 64 << 10])).await {
            of_stream += written.unwrap();
        }
        assert!(of_stream <= 1 << 20, "{of_stream}");
        kept += of_stream;
        streams.push((raw, back));
    }
    assert!(kept <= 2 << 20, "{kept}");
}

#[tokio::test]
async fn a_client_that_begins_a_large_frame_on_every_stream_makes_a_relay_keep_one_of_them() {
    let pair = pair().await;
    let whole = bytes(&[message(0, MAX_FRAME_BYTES - 100)]);
    let begun = &whole[..whole.len() - 1];
    let (mut streams, mut readers, mut kept) = (Vec::new(), tokio::task::JoinSet::new(), 0);
    for _ in 0..16 {
        let opened = tokio::time::timeout(SECOND, async {
            let (mut raw, back) = pair.client.quinn().open_bi().await.unwrap();
            raw.write_all(&opening()).await.unwrap();
            let (_, _, receiver) = pair.relay.accept().await.unwrap();
            (raw, back, receiver)
        });
        // What is not read fills the windows of the connection, and then nothing more can be begun.
        let Ok((mut raw, back, mut receiver)) = opened.await else { break };
        readers.spawn(async move { receiver.next().await });
        let mut left = begun;
        while let Ok(written) = tokio::time::timeout(SECOND / 5, raw.write(left)).await {
            left = &left[written.unwrap()..];
            if left.is_empty() {
                break;
            }
        }
        kept += begun.len() - left.len();
        streams.push((raw, back));
    }
    // One that is whole but for its end, the small beginnings of the others, and the windows.
    assert!(kept <= MAX_FRAME_BYTES + 15 * (128 << 10) + (2 << 20), "{kept}");
}

#[tokio::test]
async fn large_frames_of_several_streams_come_one_after_the_other_and_small_ones_at_any_time() {
    let pair = pair().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (mut raw, back) = pair.client.quinn().open_bi().await.unwrap();
        raw.write_all(&opening()).await.unwrap();
        let (_, _, receiver) = pair.relay.accept().await.unwrap();
        streams.push((raw, back, receiver));
    }
    let [(one, _, from_one), (other, _, from_other), (small, _, from_small)] = &mut streams[..] else { unreachable!() };
    let large = bytes(&[message(0, 300_000)]);
    one.write_all(&large[..200_000]).await.unwrap();
    assert!(tokio::time::timeout(SECOND / 5, from_one.next()).await.is_err(), "it is not whole");
    other.write_all(&large).await.unwrap();
    assert!(tokio::time::timeout(SECOND / 5, from_other.next()).await.is_err(), "another one is gathered");
    small.write_all(&bytes(&[message(2, 30_000)])).await.unwrap();
    assert_eq!(within(5 * SECOND, from_small.next()).await, Ok(Some(message(2, 30_000))));
    one.write_all(&large[200_000..]).await.unwrap();
    assert_eq!(within(5 * SECOND, from_one.next()).await, Ok(Some(message(0, 300_000))));
    assert_eq!(within(5 * SECOND, from_other.next()).await, Ok(Some(message(0, 300_000))));
}

#[tokio::test]
async fn unknown_frames_that_may_be_skipped_are_skipped() {
    let pair = pair().await;
    let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
    let sent = [&opening()[..], &[0, 0, 0, 3, 0xff, 0xff, 1, 2, 3], &bytes(&[NopN {}.into(), ack(5)])].concat();
    raw.write_all(&sent).await.unwrap();
    let (_, _, mut receiver) = pair.relay.accept().await.unwrap();
    assert_eq!(receiver.next().await, Ok(Some(NopN {}.into())));
    assert_eq!(receiver.next().await, Ok(Some(ack(5))));
    raw.reset(7u32.into()).unwrap();
    assert_eq!(receiver.next().await, Err(TransportError::StreamReset(7)));
}

#[tokio::test]
async fn waiting_for_a_stream_or_a_frame_can_be_given_up_and_taken_up_again() {
    let pair = pair().await;
    let (mut raw, _back) = pair.client.quinn().open_bi().await.unwrap();
    let sent = [opening(), bytes(&[ack(1)])].concat();
    let mut stream = None;
    let mut frame = None;
    // Byte by byte, and each wait is dropped once before the next byte comes.
    for byte in &sent {
        raw.write_all(std::slice::from_ref(byte)).await.unwrap();
        match &mut stream {
            None => stream = tokio::time::timeout(SECOND / 50, pair.relay.accept()).await.ok().map(Result::unwrap),
            Some((_, _, receiver)) => frame = tokio::time::timeout(SECOND / 50, receiver.next()).await.ok(),
        }
    }
    assert_eq!(frame, Some(Ok(Some(ack(1)))));
}

// A relay that is killed and comes back.
