//! The submit stream after HELLO: messages in, answers out, in the order of the requests.
//!
//! Reading and answering run side by side: while the store syncs one batch, the next is read. What is begun is
//! bounded, so a client that sends faster than the disk writes is slowed by its stream's flow control.

use std::time::Duration;

use tokio::sync::mpsc;

use super::limits::Limits;
use super::remembered::Remembered;
use super::session::{End, Session, unexpected};
use crate::address::RelayAddress;
use crate::id::LaneKey;
use crate::protocol::limit::TOLD_BYTES;
use crate::protocol::{
    Answer, CloseA, CloseCode, Envelope, Frame, FrameType, Header, LaneRef, MsgA, MsgR, RejectReason, WaitReason,
    WhereA, WireError,
};
use crate::store::{Append, Done, Forward, Op, Reply, StoreError};
use crate::time::millis;
use crate::transport::{FrameReceiver, FrameSender};

/// Frames taken together to the store.
const BATCH_FRAMES: usize = 512;

/// Bytes of messages taken together to the store; one more message may go beyond.
const BATCH_BYTES: usize = 1 << 20;

/// Batches of one session that the store may be busy with.
const BATCHES: usize = 4;

/// How long a lane waits when the store does not work.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// How long a message for yet another relay waits when there are too many links.
const LINKS_RETRY: Duration = Duration::from_secs(60);

/// What a request is answered with once the store has replied.
#[derive(Debug)]
enum Expected {
    /// The store's answer to a message; the lifetime it was clamped to, if it was.
    Message { request: u64, lane: LaneKey, n: u64, prev: u64, clamped_ms: Option<u64> },
    /// This, whatever the store says.
    Ready { request: u64, answer: Answer },
    /// The store's rows.
    Where { request: u64 },
    /// That it is done.
    Close { request: u64 },
}

impl Expected {
    const fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Ready { .. })
    }
}

struct Batch {
    expected: Vec<Expected>,
    reply: Option<Reply<Vec<Done>>>,
}

/// Serves the submit stream, until all that was read is answered once the relay drains.
pub(super) async fn run(session: &Session, sender: &FrameSender, receiver: &mut FrameReceiver) -> Result<(), End> {
    let (batches, waiting) = mpsc::channel(BATCHES);
    let remembered = std::sync::Mutex::new(Remembered::default());
    tokio::try_join!(
        biased;
        answer(session, sender, waiting, &remembered),
        read(session, receiver, batches, &remembered),
    )
    .map(drop)
}

async fn read(
    session: &Session,
    receiver: &mut FrameReceiver,
    batches: mpsc::Sender<Batch>,
    remembered: &std::sync::Mutex<Remembered>,
) -> Result<(), End> {
    let mut next_request = 0;
    let mut drains = std::pin::pin!(session.node.drains());
    loop {
        // A place first: what is not taken up here is held back by flow control.
        let Ok(place) = batches.reserve().await else { return Ok(()) };
        session.room().await;
        let first = tokio::select! {
            biased;
            () = &mut drains => return Ok(()),
            first = receiver.next() => first?,
        };
        let Some(first) = first else {
            return Err(End::Close(CloseCode::Done, "the client finished"));
        };
        let limits = session.node.in_force.limits();
        let mut operations = Vec::new();
        let mut expected = Vec::new();
        let mut bytes = 0;
        let mut frame = Some(first);
        while let Some(taken) = frame.take() {
            bytes += receive((session, &limits), taken, &mut next_request, remembered, &mut operations, &mut expected)?;
            if expected.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
                frame = receiver.try_buffered()?;
            }
        }
        if expected.is_empty() {
            continue;
        }
        let messages = expected.iter().filter(|expected| expected.is_message()).count();
        session.node.meter.msg_r.add(messages as u64);
        let reply = (!operations.is_empty()).then(|| session.node.store.submit(session.fence, operations));
        place.send(Batch { expected, reply });
    }
}

/// Turns one frame into its operation and what to answer; gives the bytes it is about.
fn receive(
    (session, limits): (&Session, &Limits),
    frame: Frame,
    next_request: &mut u64,
    remembered: &std::sync::Mutex<Remembered>,
    operations: &mut Vec<Op>,
    expected: &mut Vec<Expected>,
) -> Result<usize, End> {
    let mut count = |frame, request| {
        let what = "each request has a higher number than the one before";
        let ascends = request >= *next_request;
        *next_request = request + 1;
        if ascends { Ok(()) } else { Err(WireError::BadValue { frame, what }) }
    };
    match frame {
        Frame::MsgR(message) => {
            count(FrameType::MsgR, message.request)?;
            let bytes = message.envelope.len();
            receive_message((session, limits), message, remembered, operations, expected)?;
            Ok(bytes)
        }
        Frame::WhereR(ask) => {
            count(FrameType::WhereR, ask.request)?;
            let key = |lane: &LaneRef| own_lane(session, lane, FrameType::WhereR);
            let lanes = ask.lanes.iter().map(|ask| Ok((key(&ask.lane)?, ask.from, ask.to)));
            operations.push(Op::Where(lanes.collect::<Result<_, WireError>>()?));
            expected.push(Expected::Where { request: ask.request });
            // As large as its answer may be: that is what waits for the stream.
            Ok(TOLD_BYTES)
        }
        Frame::CloseR(close) => {
            count(FrameType::CloseR, close.request)?;
            let lanes = close.lanes.iter().map(|lane| own_lane(session, lane, FrameType::CloseR));
            operations.push(Op::Close(lanes.collect::<Result<_, WireError>>()?));
            expected.push(Expected::Close { request: close.request });
            Ok(0)
        }
        Frame::NopN(_) => Ok(0),
        other => Err(unexpected(other.frame_type(), "on the submit stream")),
    }
}

fn receive_message(
    (session, limits): (&Session, &Limits),
    message: MsgR,
    remembered: &std::sync::Mutex<Remembered>,
    operations: &mut Vec<Op>,
    expected: &mut Vec<Expected>,
) -> Result<(), End> {
    let bad = |what| WireError::BadValue { frame: FrameType::MsgR, what };
    let envelope = Envelope::parse(message.envelope).map_err(|_| bad("the envelope does not parse"))?;
    let header = envelope.header();
    let (lane, n) = (header.lane_key(), header.n);
    // A peer may send on nobody's lanes but its own; its rows are under its own name in any case.
    if header.sender != session.peer && !session.is_relay {
        return Err(bad("the envelope's sender is another peer").into());
    }
    if message.prev >= n {
        return Err(bad("prev is below n").into());
    }
    let known = lock(remembered);
    if let Some(verdict) = known.verdict(&lane, n) {
        expected.push(Expected::Ready { request: message.request, answer: Answer::Final(verdict) });
        return Ok(());
    }
    let prev = known.prev(&lane, message.prev);
    drop(known);
    let limiter = if session.is_relay { &limits.relays } else { &limits.peers };
    // What has no time left ends, and waits for nothing.
    if message.ttl_ms > 0
        && let Err(wait) = limiter.admit(&session.peer)
    {
        let answer = Answer::Wait { reason: WaitReason::Rate, retry_after_ms: millis(wait) };
        expected.push(Expected::Ready { request: message.request, answer });
        return Ok(());
    }
    let what = "home is no relay's address";
    let bad = |_| WireError::BadValue { frame: FrameType::MsgR, what };
    let home = message.home.as_deref().map(str::parse::<RelayAddress>).transpose().map_err(bad)?;
    let home = home.filter(|home| home.relay != session.node.id);
    let mut refuse = refusal((session, limits), &header, &message.signature, home.as_ref());
    if envelope.body_bytes() > limits.body_bytes {
        refuse = refuse.or(Some(RejectReason::TooLarge));
    }
    let forward = match home.filter(|_| refuse.is_none()) {
        None => None,
        Some(home) => match session.node.federation.open_link(home) {
            Some(home) => Some(Forward { relay: home.relay, address: home.to_string() }),
            None => {
                let (reason, retry_after_ms) = (WaitReason::OutboxFull, millis(LINKS_RETRY));
                let answer = Answer::Wait { reason, retry_after_ms };
                expected.push(Expected::Ready { request: message.request, answer });
                return Ok(());
            }
        },
    };
    let (ttl, clamped_ms) = clamp(limits, &header, Duration::from_millis(message.ttl_ms));
    let append = Append { envelope, signature: message.signature, prev, ttl, refuse, forward };
    operations.push(Op::Append(append));
    expected.push(Expected::Message { request: message.request, lane, n, prev, clamped_ms });
    Ok(())
}

/// Why a message is refused for good, as far as that shows without the store. `home` is another relay than this.
fn refusal(
    (session, limits): (&Session, &Limits),
    header: &Header,
    signature: &Option<[u8; 64]>,
    home: Option<&RelayAddress>,
) -> Option<RejectReason> {
    let node = &session.node;
    if session.is_relay {
        let wrong = header.relay.as_bytes() != session.peer.as_bytes();
        let reason = match (wrong, signature, home) {
            (true, ..) => RejectReason::WrongSender,
            (_, None, _) => RejectReason::BadSignature,
            // What comes from a relay goes no further.
            (.., Some(_)) => RejectReason::NoRoute,
            (_, Some(_), None) => return None,
        };
        if let Some(count) = node.misrouted.count() {
            tracing::warn!(relay = %session.peer.short(), %reason, count, "a relay sent what it should not have");
        }
        return Some(reason);
    }
    if header.relay != node.id {
        return Some(RejectReason::WrongSender);
    }
    match home {
        Some(home) if !limits.federation.admits(&home.relay) => Some(RejectReason::NoRoute),
        // Without it no recipient elsewhere would believe who wrote it.
        Some(_) if signature.is_none() => Some(RejectReason::BadSignature),
        _ => None,
    }
}

/// What remains of a lifetime once the whole of it is brought within the limits, and the whole if it was not.
fn clamp(limits: &Limits, header: &Header, remaining: Duration) -> (Duration, Option<u64>) {
    let clamped = header.ttl.clamp(limits.min_ttl, limits.max_ttl);
    if remaining.is_zero() || clamped == header.ttl {
        return (remaining.min(limits.max_ttl), None);
    }
    let remaining = (remaining + clamped.saturating_sub(header.ttl)).min(clamped);
    (remaining, Some(millis(clamped)))
}

fn own_lane(session: &Session, lane: &LaneRef, frame: FrameType) -> Result<LaneKey, WireError> {
    let what = match (lane.sender, session.is_relay) {
        (None, false) | (Some(_), true) => return Ok(lane.key(session.peer)),
        (Some(_), false) => "only a relay names another sender",
        (None, true) => "a relay names the sender",
    };
    Err(WireError::BadValue { frame, what })
}

async fn answer(
    session: &Session,
    sender: &FrameSender,
    mut waiting: mpsc::Receiver<Batch>,
    remembered: &std::sync::Mutex<Remembered>,
) -> Result<(), End> {
    let meter = &session.node.meter;
    while let Some(batch) = waiting.recv().await {
        let done = match batch.reply {
            None => Ok(Vec::new()),
            Some(reply) => reply.await,
        };
        let mut done = match done {
            Ok(done) => Some(done.into_iter()),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(%reason, "the store took no messages; their lanes wait");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let mut run: Option<MsgA> = None;
        for expected in batch.expected {
            let frame = match expected {
                Expected::Ready { request, answer } => MsgA { request, count: 1, answer }.into(),
                Expected::Message { request, lane, n, prev, clamped_ms } => {
                    let answer = match done.as_mut().map(Iterator::next) {
                        None => {
                            Answer::Wait { reason: WaitReason::Unavailable, retry_after_ms: millis(UNAVAILABLE_RETRY) }
                        }
                        Some(Some(Done::Answered { mut answer, mut remember })) => {
                            if let Some(verdict) = lock(remembered).follows(&lane, prev, &answer) {
                                (answer, remember) = (Answer::Final(verdict), true);
                            }
                            if let (true, Answer::Final(verdict)) = (remember, &answer)
                                && !lock(remembered).add(lane, n, verdict.clone())
                            {
                                let reason = "too many refused messages in one session";
                                return Err(End::Close(CloseCode::Overflow, reason));
                            }
                            if let Answer::Accepted { ttl_ms, .. } = &mut answer {
                                *ttl_ms = clamped_ms;
                            }
                            answer
                        }
                        Some(_) => return Err(StoreError::Closed.into()),
                    };
                    MsgA { request, count: 1, answer }.into()
                }
                Expected::Where { request } => match done.as_mut().map(Iterator::next) {
                    Some(Some(Done::Lanes(lanes))) => WhereA { request, lanes }.into(),
                    _ => return Err(End::Close(CloseCode::Unavailable, "the store does not answer")),
                },
                Expected::Close { request } => match done.as_mut().map(Iterator::next) {
                    Some(Some(Done::Done)) => CloseA { request }.into(),
                    _ => return Err(End::Close(CloseCode::Unavailable, "the store does not answer")),
                },
            };
            if let Frame::MsgA(answered) = &frame {
                meter.answered(&answered.answer);
            }
            // Equal answers to consecutive requests go out as one.
            match (&mut run, frame) {
                (Some(run), Frame::MsgA(next))
                    if next.answer == run.answer && next.request == run.request + run.count =>
                {
                    run.count += 1;
                }
                (run, Frame::MsgA(next)) => {
                    if let Some(finished) = run.replace(next) {
                        meter.msg_a.add(1);
                        sender.send(&finished.into()).await?;
                    }
                }
                (run, other) => {
                    if let Some(finished) = run.take() {
                        meter.msg_a.add(1);
                        sender.send(&finished.into()).await?;
                    }
                    sender.send(&other).await?;
                }
            }
        }
        if let Some(finished) = run {
            meter.msg_a.add(1);
            sender.send(&finished.into()).await?;
        }
    }
    Ok(sender.flush().await?)
}

fn lock(remembered: &std::sync::Mutex<Remembered>) -> std::sync::MutexGuard<'_, Remembered> {
    remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
