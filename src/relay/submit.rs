//! The submit stream after HELLO: messages in, answers out, in the order of the requests.
//!
//! While the store syncs one batch, the next is read. What is begun is bounded, so a client that sends faster than the
//! disk writes is slowed by its stream's flow control; and one that does not read its answers by theirs.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use std::vec;

use super::remembered::Remembered;
use super::request::{Expected, Requests};
use super::session::{End, SEND_BUFFER_BYTES, Session};
use crate::protocol::{Answer, CloseA, CloseCode, Frame, MsgA, WaitReason, WhereA};
use crate::store::{Done, Reply, StoreError};
use crate::time::millis;
use crate::transport::{FrameReceiver, FrameSender, TransportError};

/// Frames taken together to the store.
const BATCH_FRAMES: usize = 512;

/// Bytes of messages taken together to the store; one more message may go beyond.
const BATCH_BYTES: usize = 1 << 20;

/// Batches of one session that the store may be busy with.
const BATCHES: usize = 4;

/// How long a lane waits when the store does not work.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// Serves the submit stream, until all that was read is answered once the relay drains.
pub(super) async fn run(session: &Session, sender: &FrameSender, receiver: &mut FrameReceiver) -> Result<(), End> {
    sender.set_send_buffer_bytes(SEND_BUFFER_BYTES);
    let mut submit = Submit {
        session,
        sender,
        receiver,
        next_request: 0,
        remembered: Remembered::default(),
        batches: VecDeque::new(),
        answering: None,
    };
    let (mut drains, mut draining) = (pin!(session.node.drains()), false);
    loop {
        submit.answer()?;
        submit.sender.write();
        if draining && submit.batches.is_empty() && submit.answering.is_none() {
            return Ok(submit.sender.flush().await?);
        }
        let idle = submit.answering.is_none();
        tokio::select! {
            biased;
            () = &mut drains, if !draining => draining = true,
            answering = replied(&mut submit.batches), if idle => submit.answering = Some(answering?),
            frame = session.next(submit.receiver), if submit.batches.len() < BATCHES && !draining => match frame? {
                Some(frame) => submit.read(frame)?,
                None => return Err(End::Close(CloseCode::Done, "the client finished")),
            },
            space = submit.sender.writable(), if !idle => space?,
        }
    }
}

struct Submit<'a> {
    session: &'a Session,
    sender: &'a FrameSender,
    receiver: &'a mut FrameReceiver,
    next_request: u64,
    remembered: Remembered,
    /// What the store is busy with, or has done.
    batches: VecDeque<Batch>,
    /// The stream has no room for the rest of it.
    answering: Option<Answering>,
}

struct Batch {
    expected: Vec<Expected>,
    reply: Option<Reply<Vec<Done>>>,
}

/// A batch that the store has done.
struct Answering {
    expected: vec::IntoIter<Expected>,
    /// None if the store did not work.
    done: Option<vec::IntoIter<Done>>,
}

/// Waits for the store to have done the oldest batch; for ever if there is none. Cancel-safe.
async fn replied(batches: &mut VecDeque<Batch>) -> Result<Answering, StoreError> {
    let Some(oldest) = batches.front_mut() else { return std::future::pending().await };
    let done = match &mut oldest.reply {
        None => Ok(Vec::new()),
        Some(reply) => reply.await,
    };
    let expected = batches.pop_front().map_or_else(Vec::new, |batch| batch.expected).into_iter();
    match done {
        Ok(done) => Ok(Answering { expected, done: Some(done.into_iter()) }),
        Err(StoreError::Unavailable(reason)) => {
            tracing::warn!(%reason, "the store took no messages; their lanes wait");
            Ok(Answering { expected, done: None })
        }
        Err(error) => Err(error),
    }
}

impl Submit<'_> {
    /// Takes this frame and those that came with it to the store.
    fn read(&mut self, first: Frame) -> Result<(), End> {
        let limits = self.session.node.in_force.limits();
        let mut requests = Requests::new(self.session, &limits, &self.remembered, self.next_request);
        let mut frame = Some(first);
        while let Some(taken) = frame.take() {
            requests.receive(taken)?;
            if requests.expected.len() < BATCH_FRAMES && requests.bytes < BATCH_BYTES {
                frame = self.receiver.try_buffered()?;
            }
        }
        self.next_request = requests.next();
        let Requests { operations, expected, messages, .. } = requests;
        if !expected.is_empty() {
            self.session.node.meter.msg_r.add(messages);
            let store = &self.session.node.store;
            let reply = (!operations.is_empty()).then(|| store.submit(self.session.fence, operations));
            self.batches.push_back(Batch { expected, reply });
        }
        Ok(())
    }

    /// Sends the answers that are known, as far as the stream has room. Equal ones to consecutive requests go out as one.
    fn answer(&mut self) -> Result<(), End> {
        let Some(answering) = &mut self.answering else { return Ok(()) };
        let mut run: Option<MsgA> = None;
        while self.sender.is_writable() {
            let Some(expected) = answering.expected.next() else {
                self.answering = None;
                break;
            };
            let frame = answering.answer(expected, &mut self.remembered)?;
            if let Frame::MsgA(answered) = &frame {
                self.session.node.meter.answered(&answered.answer);
            }
            match (&mut run, frame) {
                (Some(run), Frame::MsgA(next))
                    if next.answer == run.answer && next.request == run.request + run.count =>
                {
                    run.count += 1;
                }
                (run, Frame::MsgA(next)) => {
                    let finished = run.replace(next);
                    send_run(self.session, self.sender, finished)?;
                }
                (run, other) => {
                    send_run(self.session, self.sender, run.take())?;
                    self.sender.push(&other)?;
                }
            }
        }
        Ok(send_run(self.session, self.sender, run)?)
    }
}

fn send_run(session: &Session, sender: &FrameSender, run: Option<MsgA>) -> Result<(), TransportError> {
    let Some(run) = run else { return Ok(()) };
    session.node.meter.msg_a.add(1);
    sender.push(&run.into())
}

impl Answering {
    /// What the client is told next.
    fn answer(&mut self, expected: Expected, remembered: &mut Remembered) -> Result<Frame, End> {
        let mut done = || self.done.as_mut().map(Iterator::next);
        match expected {
            Expected::Ready { request, answer } => Ok(MsgA { request, count: 1, answer }.into()),
            Expected::Message { request, lane, n, prev, clamped_ms } => {
                let answer = match done() {
                    None => {
                        let (reason, retry_after_ms) = (WaitReason::Unavailable, millis(UNAVAILABLE_RETRY));
                        Answer::Wait { reason, retry_after_ms }
                    }
                    Some(Some(Done::Answered { mut answer, mut remember })) => {
                        if let Some(verdict) = remembered.follows(&lane, prev, &answer) {
                            (answer, remember) = (Answer::Final(verdict), true);
                        }
                        if let (true, Answer::Final(verdict)) = (remember, &answer)
                            && !remembered.add(lane, n, verdict.clone())
                        {
                            return Err(End::Close(CloseCode::Overflow, "too many refused messages in one session"));
                        }
                        if let Answer::Accepted { ttl_ms, .. } = &mut answer {
                            *ttl_ms = clamped_ms;
                        }
                        answer
                    }
                    Some(_) => return Err(StoreError::Closed.into()),
                };
                Ok(MsgA { request, count: 1, answer }.into())
            }
            Expected::Where { request } => match done() {
                Some(Some(Done::Lanes(lanes))) => Ok(WhereA { request, lanes }.into()),
                _ => Err(End::Close(CloseCode::Unavailable, "the store does not answer")),
            },
            Expected::Close { request } => match done() {
                Some(Some(Done::Done)) => Ok(CloseA { request }.into()),
                _ => Err(End::Close(CloseCode::Unavailable, "the store does not answer")),
            },
        }
    }
}
