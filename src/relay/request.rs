//! What becomes of one request on the submit stream: an operation for the store, an answer at once, or the end of the
//! session.

use std::time::Duration;

use super::limits::Limits;
use super::remembered::Remembered;
use super::session::{End, Session, unexpected};
use crate::address::RelayAddress;
use crate::id::LaneKey;
use crate::protocol::limit::TOLD_BYTES;
use crate::protocol::{Answer, Envelope, Frame, FrameType, Header, LaneRef, MsgR, RejectReason, WaitReason, WireError};
use crate::store::{Append, Forward, Op};
use crate::time::millis;

/// How long a message for yet another relay waits when there are too many links.
const LINKS_RETRY: Duration = Duration::from_secs(60);

/// What a request is answered with once the store has replied.
#[derive(Debug)]
pub(super) enum Expected {
    /// The store's answer to a message; the lifetime it was clamped to, if it was.
    Message { request: u64, lane: LaneKey, n: u64, prev: u64, clamped_ms: Option<u64> },
    /// This, whatever the store says.
    Ready { request: u64, answer: Answer },
    /// The store's rows.
    Where { request: u64 },
    /// That it is done.
    Close { request: u64 },
}

/// Requests that are taken to the store together.
pub(super) struct Requests<'a> {
    session: &'a Session,
    limits: &'a Limits,
    remembered: &'a Remembered,
    /// The lowest number that the next one may have.
    next: u64,
    pub(super) operations: Vec<Op>,
    pub(super) expected: Vec<Expected>,
    /// Messages among them.
    pub(super) messages: u64,
    /// What they are about, bytes.
    pub(super) bytes: usize,
}

impl<'a> Requests<'a> {
    /// None yet. The first is to have at least the number `next`.
    pub(super) fn new(session: &'a Session, limits: &'a Limits, remembered: &'a Remembered, next: u64) -> Self {
        let (operations, expected) = (Vec::new(), Vec::new());
        Self { session, limits, remembered, next, operations, expected, messages: 0, bytes: 0 }
    }

    /// The number that the one after the last must at least have.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Each has a higher number than the one before.
    fn count(&mut self, frame: FrameType, request: u64) -> Result<(), WireError> {
        if request < self.next {
            return Err(WireError::BadValue { frame, what: "each request has a higher number than the one before" });
        }
        self.next = request + 1;
        Ok(())
    }

    /// Takes one more frame in.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::MsgR(message) => {
                self.count(FrameType::MsgR, message.request)?;
                self.messages += 1;
                self.bytes += message.envelope.len();
                self.message(message)
            }
            Frame::WhereR(ask) => {
                self.count(FrameType::WhereR, ask.request)?;
                let key = |lane: &LaneRef| own_lane(self.session, lane, FrameType::WhereR);
                let lanes = ask.lanes.iter().map(|ask| Ok((key(&ask.lane)?, ask.from, ask.to)));
                self.operations.push(Op::Where(lanes.collect::<Result<_, WireError>>()?));
                self.expected.push(Expected::Where { request: ask.request });
                // As large as its answer may be: that is what waits for the stream.
                self.bytes += TOLD_BYTES;
                Ok(())
            }
            Frame::CloseR(close) => {
                self.count(FrameType::CloseR, close.request)?;
                let lanes = close.lanes.iter().map(|lane| own_lane(self.session, lane, FrameType::CloseR));
                self.operations.push(Op::Close(lanes.collect::<Result<_, WireError>>()?));
                self.expected.push(Expected::Close { request: close.request });
                Ok(())
            }
            Frame::NopN(_) => Ok(()),
            other => Err(unexpected(other.frame_type(), "on the submit stream")),
        }
    }

    fn ready(&mut self, request: u64, answer: Answer) {
        self.expected.push(Expected::Ready { request, answer });
    }

    fn message(&mut self, message: MsgR) -> Result<(), End> {
        let (session, limits) = (self.session, self.limits);
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
        if let Some(verdict) = self.remembered.verdict(&lane, n) {
            self.ready(message.request, Answer::Final(verdict));
            return Ok(());
        }
        let prev = self.remembered.prev(&lane, message.prev);
        let limiter = if session.is_relay { &limits.relays } else { &limits.peers };
        // What has no time left ends, and waits for nothing.
        if message.ttl_ms > 0
            && let Err(wait) = limiter.admit(&session.peer)
        {
            self.ready(message.request, Answer::Wait { reason: WaitReason::Rate, retry_after_ms: millis(wait) });
            return Ok(());
        }
        let home = message.home.as_deref().map(str::parse::<RelayAddress>).transpose();
        let home = home.map_err(|_| bad("home is no relay's address"))?;
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
                    self.ready(message.request, Answer::Wait { reason, retry_after_ms });
                    return Ok(());
                }
            },
        };
        let (ttl, clamped_ms) = clamp(limits, &header, Duration::from_millis(message.ttl_ms));
        let append = Append { envelope, signature: message.signature, prev, ttl, refuse, forward };
        self.operations.push(Op::Append(append));
        self.expected.push(Expected::Message { request: message.request, lane, n, prev, clamped_ms });
        Ok(())
    }
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
