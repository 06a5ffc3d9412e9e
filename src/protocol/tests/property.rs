//! Frames of every kind at random: read back as written, and never a panic.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::limit::MAX_INTEGER;
use super::super::*;
use super::{read, written};
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::ranges::Ranges;

fn key() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId::from_bytes)
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..=MAX_INTEGER, Just(MAX_INTEGER)]
}

fn words() -> impl Strategy<Value = Option<String>> {
    prop::option::of("\\PC{0,60}")
}

fn ranges() -> impl Strategy<Value = Ranges> {
    prop::collection::vec((integer(), 0..100u64), 0..5)
        .prop_map(|list| list.into_iter().map(|(from, more)| (from, (from + more).min(MAX_INTEGER))).collect())
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let outcome = prop_oneof![
        Just(Outcome::Delivered),
        any::<bool>().prop_map(|maybe_taken| Outcome::Expired { maybe_taken }),
        (prop::sample::select(RejectReason::ALL), words(), any::<bool>())
            .prop_map(|(reason, text, maybe_taken)| Outcome::Rejected { reason, text, maybe_taken }),
    ];
    (outcome, prop::option::of(key())).prop_map(|(outcome, relay)| Verdict { outcome, relay: relay.map(RelayId::from) })
}

fn runs() -> impl Strategy<Value = Vec<Exception>> {
    let run = (1..1000u64, 0..1000u64, verdict()).prop_map(|(from, more, verdict)| Exception {
        from,
        to: from + more,
        verdict,
    });
    prop::collection::vec(run, 0..4)
}

fn store_id() -> impl Strategy<Value = StoreId> {
    any::<[u8; 16]>().prop_map(StoreId)
}

fn envelope() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from)
}

fn signature() -> impl Strategy<Value = Option<[u8; 64]>> {
    prop::option::of(any::<[u8; 32]>().prop_map(|half| std::array::from_fn(|at| half[at % 32])))
}

fn lane_ref() -> impl Strategy<Value = LaneRef> {
    (prop::option::of(key()), key(), any::<u64>()).prop_map(|(sender, recipient, lane)| LaneRef {
        sender,
        recipient,
        lane: LaneId(lane),
    })
}

fn any_taken() -> impl Strategy<Value = Taken> {
    let refusal = (integer(), words()).prop_map(|(seq, text)| Refusal { seq, text });
    (ranges(), prop::collection::vec(refusal, 0..4)).prop_map(|(taken, refused)| Taken { taken, refused })
}

fn durability() -> impl Strategy<Value = Durability> {
    prop::sample::select(vec![Durability::Disk, Durability::Replicated, Durability::Memory])
}

fn any_status() -> impl Strategy<Value = Status> {
    let sender =
        (key(), integer(), integer()).prop_map(|(sender, messages, bytes)| SenderCount { sender, messages, bytes });
    let optional = || prop::option::of(integer());
    (integer(), integer(), optional(), optional(), prop::collection::vec(sender, 0..4), any::<bool>()).prop_map(
        |(messages, bytes, oldest_ms, newest_ms, senders, more)| Status {
            messages,
            bytes,
            oldest_ms,
            newest_ms,
            senders,
            more,
        },
    )
}

fn msg_n() -> impl Strategy<Value = MsgN> {
    (integer(), integer(), integer(), envelope(), signature())
        .prop_map(|(seq, ttl_ms, attempt, envelope, signature)| MsgN { seq, ttl_ms, attempt, envelope, signature })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (durability(), any::<bool>(), prop::option::of(integer()), prop::option::of(verdict())).prop_map(
            |(durability, duplicate, ttl_ms, verdict)| Answer::Accepted { durability, duplicate, ttl_ms, verdict }
        ),
        verdict().prop_map(Answer::Final),
        integer().prop_map(|last| Answer::Gap { last }),
        (prop::sample::select(WaitReason::ALL), integer())
            .prop_map(|(reason, retry_after_ms)| Answer::Wait { reason, retry_after_ms }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let hello = (
        integer(),
        any::<[bool; 2]>(),
        integer(),
        prop::option::of(key()),
        integer(),
        integer(),
        integer(),
        [words(), words()],
    );
    let page = (integer(), any::<bool>(), prop::option::of(integer()), prop::option::of(key()), integer(), integer());
    let lane_state = (integer(), integer(), ranges(), runs())
        .prop_map(|(last, upto, delivered, exceptions)| LaneState { last, upto, delivered, exceptions });
    let question = (lane_ref(), 1..1000u64, 0..1000u64).prop_map(|(lane, from, more)| LaneQuestion {
        lane,
        from,
        to: from + more,
    });
    let peers = || prop::collection::vec(key(), 0..4);
    let senders = || prop::sample::select(vec![Senders::Anyone, Senders::Contacts]);
    let kinds = vec![StreamKind::Submit, StreamKind::Notify, StreamKind::Sync];
    prop_oneof![
        (integer(), integer(), integer(), envelope(), signature(), words()).prop_map(
            |(request, prev, ttl_ms, envelope, signature, home)| {
                MsgR { request, prev, ttl_ms, envelope, signature, home }.into()
            }
        ),
        (integer(), store_id(), any_taken())
            .prop_map(|(request, store, answers)| AckR { request, store, answers }.into()),
        hello.prop_map(
            |(
                version,
                [relay, late],
                device,
                sender,
                credit_messages,
                credit_bytes,
                ack_timeout_ms,
                [invitation, agent],
            )| {
                let role = if relay { Role::Relay } else { Role::Peer };
                let push = if late { PushMode::AfterBacklog } else { PushMode::AtOnce };
                HelloR {
                    version,
                    role,
                    device,
                    push,
                    sender,
                    credit_messages,
                    credit_bytes,
                    ack_timeout_ms,
                    invitation,
                    agent,
                }
                .into()
            }
        ),
        (integer(), prop::collection::vec(question, 0..4))
            .prop_map(|(request, lanes)| WhereR { request, lanes }.into()),
        (integer(), prop::collection::vec(lane_ref(), 0..4))
            .prop_map(|(request, lanes)| CloseR { request, lanes }.into()),
        (integer(), prop::option::of(key())).prop_map(|(request, sender)| StatusR { request, sender }.into()),
        (page, store_id(), any_taken()).prop_map(
            |((request, oldest, cursor, sender, max_messages, max_bytes), store, answers)| {
                let order = if oldest { Order::Oldest } else { Order::Newest };
                PageR { request, order, cursor, sender, max_messages, max_bytes, store, answers }.into()
            }
        ),
        (integer(), 1..=MAX_INTEGER, answer())
            .prop_map(|(request, count, answer)| MsgA { request, count, answer }.into()),
        integer().prop_map(|request| AckA { request }.into()),
        (any_status(), store_id(), durability(), [integer(), integer(), integer(), integer()], words()).prop_map(
            |(status, store, durability, [version, watermark, max_body_bytes, credit_messages], agent)| {
                HelloA { version, store, durability, watermark, status, max_body_bytes, credit_messages, agent }.into()
            }
        ),
        (integer(), prop::collection::vec(lane_state, 0..4))
            .prop_map(|(request, lanes)| WhereA { request, lanes }.into()),
        (integer(), prop::option::of(senders()), [peers(), peers(), peers()]).prop_map(
            |(request, senders, [forget, allow, block])| {
                PolicyR { request, change: PolicyChange { senders, forget, allow, block } }.into()
            }
        ),
        (integer(), prop::option::of((senders(), [peers(), peers()])), any::<bool>()).prop_map(
            |(request, policy, full)| {
                let policy = policy.map(|(senders, [allowed, blocked])| Policy { senders, allowed, blocked });
                PolicyA { request, policy, full }.into()
            }
        ),
        integer().prop_map(|request| CloseA { request }.into()),
        (integer(), any_status()).prop_map(|(request, status)| StatusA { request, status }.into()),
        (integer(), prop::collection::vec(msg_n(), 0..4), prop::option::of(integer()), integer(), any::<bool>())
            .prop_map(|(request, messages, cursor, remaining, complete)| {
                PageA { request, messages, cursor, remaining, complete }.into()
            }),
        msg_n().prop_map(Frame::from),
        (lane_ref(), ranges(), runs()).prop_map(|(LaneRef { sender, recipient, lane }, delivered, exceptions)| {
            AckN { sender, recipient, lane, delivered, exceptions }.into()
        }),
        prop::sample::select(kinds).prop_map(|kind| OpenN { kind }.into()),
        integer().prop_map(|delay_ms| GoawayN { delay_ms }.into()),
        Just(AgainN {}.into()),
        Just(NopN {}.into()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_frame_is_read_back_as_it_was_written(frame in frame()) {
        prop_assert_eq!(read(&written(&frame)), Ok(frame));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for frame in FrameType::ALL {
            Frame::decode(*frame, &bytes).ok();
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode(&mut buffer) {}
    }

    #[test]
    fn no_spoilt_frame_makes_the_decoder_panic_or_read_what_it_would_not_write(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut content = written(&frame).split_off(PREFIX_BYTES);
        for (at, byte) in changes {
            *at.get_mut(&mut content[..]) = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        if let Ok(read_back) = Frame::decode(frame.frame_type(), &content) {
            prop_assert_eq!(read(&written(&read_back)), Ok(read_back));
        }
    }
}
