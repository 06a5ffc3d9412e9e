//! Tests of the wire as a whole. Here are the frames that they share: each type once with everything in it, once
//! with as little as it may have.

mod golden;
mod property;
mod strict;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::ranges::Ranges;

pub(super) fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

pub(super) fn written(frame: &Frame) -> BytesMut {
    let mut buffer = BytesMut::new();
    encode(frame, &mut buffer);
    buffer
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Reads what should be exactly one frame.
pub(super) fn read(bytes: &[u8]) -> Result<Frame, WireError> {
    let mut buffer = BytesMut::from(bytes);
    let frame = decode(&mut buffer)?.expect("the frame is whole");
    assert!(buffer.is_empty(), "nothing may remain");
    Ok(frame)
}

/// Reads this content, given in hex, as a frame of this type.
pub(super) fn content(frame: FrameType, text: &str) -> Result<Frame, WireError> {
    let bytes = data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).expect("the test's hex is right");
    Frame::decode(frame, &bytes)
}

pub(super) fn rejected() -> Verdict {
    let outcome = Outcome::Rejected { reason: RejectReason::Refused, text: Some("no".to_owned()), maybe_taken: false };
    Verdict { outcome, relay: Some(RelayId::from_bytes([9; 32])) }
}

pub(super) fn lane(sender: Option<PeerId>) -> LaneRef {
    LaneRef { sender, recipient: peer(3), lane: LaneId(0x0506_0708_090a_0b0c) }
}

pub(super) fn status() -> Status {
    let senders = vec![SenderCount { sender: peer(1), messages: 2, bytes: 300 }];
    Status { messages: 3, bytes: 400, oldest_ms: Some(1000), newest_ms: Some(2000), senders, more: true }
}

pub(super) fn message() -> MsgN {
    let envelope = Bytes::from_static(b"envelope");
    MsgN { seq: 1 << 40, ttl_ms: 60_000, attempt: 2, envelope, signature: Some([0xaa; 64]) }
}

pub(super) fn taken() -> Taken {
    let taken = [(1, 5), (9, 9)].into_iter().collect();
    Taken { taken, refused: vec![Refusal { seq: 7, text: Some("no".to_owned()) }, Refusal { seq: 8, text: None }] }
}

pub(super) fn exceptions() -> Vec<Exception> {
    let expired = Verdict::here(Outcome::Expired { maybe_taken: true });
    vec![Exception { from: 2, to: 2, verdict: rejected() }, Exception { from: 4, to: 6, verdict: expired }]
}

/// A frame of each type with every field set.
pub(super) fn full() -> Vec<Frame> {
    let store = StoreId([0x11; 16]);
    vec![
        MsgR {
            request: 1,
            prev: 2,
            ttl_ms: 3,
            envelope: Bytes::from_static(b"envelope"),
            signature: Some([0xaa; 64]),
            home: Some("posthouse://x".to_owned()),
        }
        .into(),
        AckR { request: 1, store, answers: taken() }.into(),
        HelloR {
            version: 1,
            role: Role::Relay,
            device: 2,
            push: PushMode::AfterBacklog,
            sender: Some(peer(2)),
            credit_messages: 256,
            credit_bytes: 4 << 20,
            ack_timeout_ms: 30_000,
            invitation: Some("token".to_owned()),
            agent: Some("test".to_owned()),
        }
        .into(),
        WhereR { request: 1, lanes: vec![LaneQuestion { lane: lane(Some(peer(1))), from: 1, to: 9 }] }.into(),
        CloseR { request: 1, lanes: vec![lane(None), lane(Some(peer(1)))] }.into(),
        StatusR { request: 1, sender: Some(peer(1)) }.into(),
        PageR {
            request: 1,
            order: Order::Newest,
            cursor: Some(77),
            sender: Some(peer(1)),
            max_messages: 500,
            max_bytes: 1 << 20,
            store,
            answers: taken(),
        }
        .into(),
        PolicyR {
            request: 1,
            change: PolicyChange {
                senders: Some(Senders::Contacts),
                forget: vec![peer(1)],
                allow: vec![peer(2)],
                block: vec![peer(3)],
            },
        }
        .into(),
        MsgA { request: 1, count: 2, answer: Answer::Final(rejected()) }.into(),
        AckA { request: 1 }.into(),
        HelloA {
            version: 1,
            store,
            durability: Durability::Disk,
            watermark: 1 << 50,
            status: status(),
            max_body_bytes: 1 << 20,
            credit_messages: 256,
            agent: Some("test".to_owned()),
        }
        .into(),
        WhereA {
            request: 1,
            lanes: vec![LaneState {
                last: 9,
                upto: 8,
                delivered: [(1, 1), (3, 3)].into_iter().collect(),
                exceptions: exceptions(),
            }],
        }
        .into(),
        CloseA { request: 1 }.into(),
        StatusA { request: 1, status: status() }.into(),
        PageA { request: 1, messages: vec![message()], cursor: Some(5), remaining: 6, complete: true }.into(),
        PolicyA {
            request: 1,
            policy: Some(Policy { senders: Senders::Anyone, allowed: vec![peer(2)], blocked: vec![peer(3)] }),
            full: true,
        }
        .into(),
        message().into(),
        AckN {
            sender: Some(peer(1)),
            recipient: peer(3),
            lane: LaneId(u64::MAX),
            delivered: Ranges::one(1),
            exceptions: exceptions(),
        }
        .into(),
        OpenN { kind: StreamKind::Submit }.into(),
        GoawayN { delay_ms: 250 }.into(),
        AgainN {}.into(),
        NopN {}.into(),
    ]
}

/// A frame of each type, and of each kind of answer, with nothing in it that may be left out.
pub(super) fn bare() -> Vec<Frame> {
    let store = StoreId([0x11; 16]);
    let envelope = Bytes::new();
    let answered = |answer| Frame::from(MsgA { request: 1, count: 1, answer });
    let accepted = Answer::Accepted { durability: Durability::Disk, duplicate: false, ttl_ms: None, verdict: None };
    let known = Answer::Accepted {
        durability: Durability::Memory,
        duplicate: true,
        ttl_ms: Some(5),
        verdict: Some(Verdict::DELIVERED),
    };
    vec![
        MsgR { request: 0, prev: 0, ttl_ms: 0, envelope: envelope.clone(), signature: None, home: None }.into(),
        AckR { request: 0, store, answers: Taken::default() }.into(),
        HelloR {
            version: 1,
            role: Role::Peer,
            device: 0,
            push: PushMode::AtOnce,
            sender: None,
            credit_messages: 0,
            credit_bytes: 0,
            ack_timeout_ms: 0,
            invitation: None,
            agent: None,
        }
        .into(),
        WhereR { request: 0, lanes: vec![] }.into(),
        CloseR { request: 0, lanes: vec![] }.into(),
        StatusR { request: 0, sender: None }.into(),
        PageR {
            request: 0,
            order: Order::Oldest,
            cursor: None,
            sender: None,
            max_messages: 0,
            max_bytes: 0,
            store,
            answers: Taken::default(),
        }
        .into(),
        PolicyR { request: 0, change: PolicyChange::default() }.into(),
        answered(accepted),
        answered(known),
        answered(Answer::Gap { last: 4 }),
        answered(Answer::Wait { reason: WaitReason::QuotaPair, retry_after_ms: 1000 }),
        WhereA {
            request: 0,
            lanes: vec![LaneState { last: 0, upto: 0, delivered: Ranges::new(), exceptions: vec![] }],
        }
        .into(),
        StatusA { request: 0, status: Status::default() }.into(),
        PageA { request: 0, messages: vec![], cursor: None, remaining: 0, complete: false }.into(),
        PolicyA { request: 0, policy: None, full: false }.into(),
        MsgN { seq: 0, ttl_ms: 0, attempt: 1, envelope, signature: None }.into(),
        AckN { sender: None, recipient: peer(3), lane: LaneId(0), delivered: Ranges::new(), exceptions: vec![] }.into(),
        OpenN { kind: StreamKind::Notify }.into(),
        OpenN { kind: StreamKind::Sync }.into(),
    ]
}
