//! The wire held to its bytes: one golden frame of each type, round trips of all, and no input that panics.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::limit::{MAX_FRAME_BYTES, MAX_INTEGER, MAX_LANES_ASKED, MAX_LIST, MAX_TEXT_BYTES};
use super::*;
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::ranges::Ranges;

fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn written(frame: &Frame) -> BytesMut {
    let mut buffer = BytesMut::new();
    encode(frame, &mut buffer);
    buffer
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Reads what should be exactly one frame.
fn read(bytes: &[u8]) -> Result<Frame, WireError> {
    let mut buffer = BytesMut::from(bytes);
    let frame = decode(&mut buffer)?.expect("the frame is whole");
    assert!(buffer.is_empty(), "nothing may remain");
    Ok(frame)
}

/// Reads this content, given in hex, as a frame of this type.
fn content(frame: FrameType, text: &str) -> Result<Frame, WireError> {
    let bytes = data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).expect("the test's hex is right");
    Frame::decode(frame, &bytes)
}

fn rejected() -> Verdict {
    let outcome = Outcome::Rejected { reason: RejectReason::Refused, text: Some("no".to_owned()), maybe_taken: false };
    Verdict { outcome, relay: Some(RelayId::from_bytes([9; 32])) }
}

fn lane(sender: Option<PeerId>) -> LaneRef {
    LaneRef { sender, recipient: peer(3), lane: LaneId(0x0506_0708_090a_0b0c) }
}

fn status() -> Status {
    let senders = vec![SenderCount { sender: peer(1), messages: 2, bytes: 300 }];
    Status { messages: 3, bytes: 400, oldest_ms: Some(1000), newest_ms: Some(2000), senders, more: true }
}

fn message() -> MsgN {
    let envelope = Bytes::from_static(b"envelope");
    MsgN { seq: 1 << 40, ttl_ms: 60_000, attempt: 2, envelope, signature: Some([0xaa; 64]) }
}

fn taken() -> Taken {
    let taken = [(1, 5), (9, 9)].into_iter().collect();
    Taken { taken, refused: vec![Refusal { seq: 7, text: Some("no".to_owned()) }, Refusal { seq: 8, text: None }] }
}

fn exceptions() -> Vec<Exception> {
    let expired = Verdict::here(Outcome::Expired { maybe_taken: true });
    vec![Exception { from: 2, to: 2, verdict: rejected() }, Exception { from: 4, to: 6, verdict: expired }]
}

/// A frame of each type with every field set.
fn full() -> Vec<Frame> {
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
            credit_messages: 256,
            credit_bytes: 4 << 20,
            ack_timeout_ms: 30_000,
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
        NopN {}.into(),
    ]
}

/// A frame of each type, and of each kind of answer, with nothing in it that may be left out.
fn bare() -> Vec<Frame> {
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
            credit_messages: 0,
            credit_bytes: 0,
            ack_timeout_ms: 0,
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
        MsgN { seq: 0, ttl_ms: 0, attempt: 1, envelope, signature: None }.into(),
        AckN { sender: None, recipient: peer(3), lane: LaneId(0), delivered: Ranges::new(), exceptions: vec![] }.into(),
        OpenN { kind: StreamKind::Notify }.into(),
        OpenN { kind: StreamKind::Sync }.into(),
    ]
}

#[test]
fn every_type_of_frame_is_among_the_golden_ones() {
    let types: Vec<_> = full().iter().map(Frame::frame_type).collect();
    assert_eq!(types, FrameType::ALL);
}

/// The bytes of [`full`]. Changing one breaks every client there is.
const GOLDEN_FULL: [&str; 19] = [
    // MsgR
    "0000006a010186a17101a17002a17403a165c408656e76656c6f7065a173c440aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa168ad70\
         6f7374686f7573653a2f2f78",
    // AckR
    "00000031010284a17101a169c41011111111111111111111111111111111a16492920105920909a1789282a17307a178a26e\
         6f81a17308",
    // HelloR
    "00000037010388a17601a172a572656c6179a16402a16dad61667465725f6261636b6c6f67a163cd0100a162ce00400000a1\
         74cd7530a167a474657374",
    // WhereR
    "00000062010482a17101a16c9185a166c4200101010101010101010101010101010101010101010101010101010101010101\
         a174c4200303030303030303030303030303030303030303030303030303030303030303a16cc40805060708090a0b0ca161\
         01a16209",
    // CloseR
    "0000008d010582a17101a16c9282a174c4200303030303030303030303030303030303030303030303030303030303030303\
         a16cc40805060708090a0b0c83a166c4200101010101010101010101010101010101010101010101010101010101010101a1\
         74c4200303030303030303030303030303030303030303030303030303030303030303a16cc40805060708090a0b0c",
    // StatusR
    "00000028010682a17101a166c4200101010101010101010101010101010101010101010101010101010101010101",
    // PageR
    "00000070010788a17101a16fa66e6577657374a1634da166c420010101010101010101010101010101010101010101010101\
         0101010101010101a16ecd01f4a162ce00100000a169c41011111111111111111111111111111111a16b82a1649292010592\
         0909a1789282a17307a178a26e6f81a17308",
    // MsgA
    "00000043020184a17101a16302a16b01a17684a16f03a172a772656675736564a178a26e6fa168c420090909090909090909\
         0909090909090909090909090909090909090909090909",
    // AckA
    "00000004020281a17101",
    // HelloA
    "00000085020388a17601a169c41011111111111111111111111111111111a164a46469736ba177cf0004000000000000a173\
         86a16e03a162cd0190a16fcd03e8a177cd07d0a1669183a166c4200101010101010101010101010101010101010101010101\
         010101010101010101a16e02a162cd012ca16dc3a162ce00100000a163cd0100a167a474657374",
    // WhereA
    "0000006a020482a17101a1729184a16e09a17508a16492920101920303a1789283a16102a16202a17684a16f03a172a77265\
         6675736564a178a26e6fa168c420090909090909090909090909090909090909090909090909090909090909090983a16104\
         a16206a17682a16f02a16dc3",
    // CloseA
    "00000004020581a17101",
    // StatusA
    "0000004c020682a17101a17386a16e03a162cd0190a16fcd03e8a177cd07d0a1669183a166c4200101010101010101010101\
         010101010101010101010101010101010101010101a16e02a162cd012ca16dc3",
    // PageA
    "00000074020785a17101a16d9185a173cf0000010000000000a174cdea60a16102a165c408656e76656c6f7065a167c440aa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaa16305a17206a165c3",
    // MsgN
    "00000064030185a173cf0000010000000000a174cdea60a16102a165c408656e76656c6f7065a167c440aaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaa",
    // AckN
    "000000ae030285a166c4200101010101010101010101010101010101010101010101010101010101010101a174c420030303\
         0303030303030303030303030303030303030303030303030303030303a16cc408ffffffffffffffffa16491920101a17892\
         83a16102a16202a17684a16f03a172a772656675736564a178a26e6fa168c420090909090909090909090909090909090909\
         090909090909090909090909090983a16104a16206a17682a16f02a16dc3",
    // OpenN
    "0000000a030381a16ba67375626d6974",
    // GoawayN
    "00000005030481a161ccfa",
    // NopN
    "00000001830180",
];

/// The bytes of [`bare`].
const GOLDEN_BARE: [&str; 18] = [
    // MsgR
    "0000000e010184a17100a17000a17400a165c400",
    // AckR
    "00000018010282a17100a169c41011111111111111111111111111111111",
    // HelloR
    "00000021010387a17601a172a470656572a16400a16da761745f6f6e6365a16300a16200a17400",
    // WhereR
    "00000007010482a17100a16c90",
    // CloseR
    "00000007010582a17100a16c90",
    // StatusR
    "00000004010681a17100",
    // PageR
    "00000027010785a17100a16fa66f6c64657374a16e00a16200a169c41011111111111111111111111111111111",
    // MsgA
    "0000000e020183a17101a16b00a164a46469736b",
    // MsgA
    "0000001c020186a17101a16b00a164a66d656d6f7279a175c3a17405a17681a16f01",
    // MsgA
    "0000000a020183a17101a16b02a16c04",
    // MsgA
    "00000019020184a17101a16b03a172aa71756f74615f70616972a161cd03e8",
    // WhereA
    "0000000e020482a17100a1729182a16e00a17500",
    // StatusA
    "0000000d020682a17100a17382a16e00a16200",
    // PageA
    "0000000d020784a17100a16d90a17200a165c2",
    // MsgN
    "0000000b030183a17300a17400a165c400",
    // AckN
    "00000031030282a174c4200303030303030303030303030303030303030303030303030303030303030303a16cc408000000\
         0000000000",
    // OpenN
    "0000000a030381a16ba66e6f74696679",
    // OpenN
    "00000008030381a16ba473796e63",
];

#[test]
fn frames_have_their_golden_bytes() {
    let golden = GOLDEN_FULL.iter().chain(&GOLDEN_BARE);
    let frames = [full(), bare()].concat();
    assert_eq!(golden.clone().count(), frames.len());
    for (frame, golden) in frames.iter().zip(golden) {
        assert_eq!(hex(&written(frame)), *golden, "{:?}", frame.frame_type());
        let bytes = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
        assert_eq!(read(&bytes).as_ref(), Ok(frame));
    }
}

#[test]
fn a_frame_is_read_however_it_is_cut_and_whatever_follows() {
    let frames = [full(), bare()].concat();
    let mut stream = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut stream));
    for step in [1, 2, 5, 6, 7, 100, 10_000] {
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        assert!(got == frames && buffer.is_empty(), "in steps of {step}");
    }
}

#[test]
fn types_that_are_not_known_are_skipped_from_0x8000_on_and_an_error_below() {
    let mut buffer = BytesMut::from(&[0, 0, 0, 2, 0x80, 0, 0xc1, 0xc1, 0, 0, 0, 0, 0xff, 0xff][..]);
    encode(&NopN {}.into(), &mut buffer);
    assert_eq!(decode(&mut buffer), Ok(Some(NopN {}.into())));
    for number in [0, 0x0100, 0x0108, 0x0301 | 0x4000, 0x7fff] {
        // Before its content has come.
        let mut buffer = BytesMut::from(&[&[0, 0, 0, 2][..], &u16::to_be_bytes(number)].concat()[..]);
        assert_eq!(decode(&mut buffer), Err(WireError::UnknownFrame(number)));
    }
    for number in 0..=u16::MAX {
        match FrameType::from_number(number) {
            Ok(Some(frame)) => assert_eq!(frame.number(), number),
            Ok(None) => assert!(number >= FIRST_SKIPPABLE),
            Err(error) => assert!(number < FIRST_SKIPPABLE && error == WireError::UnknownFrame(number)),
        }
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_else_comes() {
    let max = MAX_FRAME_BYTES;
    for length in [max + 1, u32::MAX as usize] {
        let mut buffer = BytesMut::from(&(length as u32).to_be_bytes()[..]);
        assert_eq!(decode(&mut buffer), Err(WireError::FrameTooLong { length, max }));
    }
    let mut buffer = BytesMut::from(&[&(max as u32).to_be_bytes()[..], &[2, 2]].concat()[..]);
    assert_eq!(decode(&mut buffer), Ok(None));
    assert!(buffer.capacity() < 100, "memory is taken only for what has come");
}

#[test]
fn close_codes_have_their_numbers_and_every_wire_error_has_one() {
    let numbers: Vec<_> = CloseCode::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x21, 0x22, 0x23, 0x24]);
    for code in CloseCode::ALL {
        assert_eq!(CloseCode::from_number(code.number().into()), Some(*code));
    }
    assert_eq!(CloseCode::from_number(0x99), None);
    assert_eq!(CloseCode::from_number(1 << 40), None);
}

// What the documents of other writers may and may not contain. The tests take frames apart and put them
// together wrongly, at every place there is.

/// A MessagePack value, as far as frames have them.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Map(Vec<(Value, Value)>),
    List(Vec<Value>),
    Number(u64),
    Negative(i64),
    Text(String),
    Bin(Vec<u8>),
    Flag(bool),
    Nil,
}

impl Value {
    fn parse(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let value = Self::take(&mut rest);
        assert!(rest.is_empty());
        value
    }

    fn take(rest: &mut &[u8]) -> Self {
        fn number(rest: &mut &[u8], length: usize) -> u64 {
            let (digits, tail) = rest.split_at(length);
            *rest = tail;
            digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit))
        }
        fn bytes(rest: &mut &[u8], length: u64) -> Vec<u8> {
            let (bytes, tail) = rest.split_at(length as usize);
            *rest = tail;
            bytes.to_vec()
        }
        let list = |rest: &mut &[u8], length| Self::List((0..length).map(|_| Self::take(rest)).collect());
        match number(rest, 1) {
            short @ 0..=0x7f => Self::Number(short),
            map @ 0x80..=0x8f => Self::Map((0..map - 0x80).map(|_| (Self::take(rest), Self::take(rest))).collect()),
            short @ 0x90..=0x9f => list(rest, short - 0x90),
            0xdc => {
                let length = number(rest, 2);
                list(rest, length)
            }
            text @ 0xa0..=0xbf => Self::Text(String::from_utf8(bytes(rest, text - 0xa0)).unwrap()),
            0xc2 => Self::Flag(false),
            0xc3 => Self::Flag(true),
            width @ 0xc4..=0xc5 => {
                let length = number(rest, (width - 0xc3) as usize);
                Self::Bin(bytes(rest, length))
            }
            width @ 0xcc..=0xcf => Self::Number(number(rest, 1 << (width - 0xcc))),
            other => panic!("frames have no {other:#x}"),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Map(items) => {
                to.push(0x80 | items.len() as u8);
                items.iter().for_each(|(key, value)| {
                    key.write(to);
                    value.write(to);
                });
            }
            Self::List(items) => {
                to.push(0xdc);
                to.extend((items.len() as u16).to_be_bytes());
                items.iter().for_each(|item| item.write(to));
            }
            Self::Number(number) => {
                to.push(0xcf);
                to.extend(number.to_be_bytes());
            }
            Self::Negative(number) => {
                to.push(0xd3);
                to.extend(number.to_be_bytes());
            }
            Self::Text(text) => {
                to.push(0xda);
                to.extend((text.len() as u16).to_be_bytes());
                to.extend(text.as_bytes());
            }
            Self::Bin(bytes) => {
                to.push(0xc5);
                to.extend((bytes.len() as u16).to_be_bytes());
                to.extend(bytes);
            }
            Self::Flag(flag) => to.push(0xc2 + u8::from(*flag)),
            Self::Nil => to.push(0xc0),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// Every document that comes of changing one value somewhere in this one.
    fn variants(&self, change: &dyn Fn(&Self) -> Option<Self>) -> Vec<Self> {
        let mut all: Vec<_> = change(self).into_iter().collect();
        match self {
            Self::Map(items) => {
                for (at, (_, value)) in items.iter().enumerate() {
                    all.extend(value.variants(change).into_iter().map(|changed| {
                        let mut items = items.clone();
                        items[at].1 = changed;
                        Self::Map(items)
                    }));
                }
            }
            Self::List(items) => {
                for (at, value) in items.iter().enumerate() {
                    all.extend(value.variants(change).into_iter().map(|changed| {
                        let mut items = items.clone();
                        items[at] = changed;
                        Self::List(items)
                    }));
                }
            }
            _ => {}
        }
        all
    }
}

/// Every frame of the golden ones, with its content taken apart.
fn taken_apart() -> impl Iterator<Item = (Frame, Value)> {
    [full(), bare()].concat().into_iter().map(|frame| {
        let value = Value::parse(&written(&frame)[PREFIX_BYTES..]);
        (frame, value)
    })
}

#[test]
fn another_writers_longer_forms_are_read_the_same() {
    for (frame, value) in taken_apart() {
        assert_eq!(Frame::decode(frame.frame_type(), &value.bytes()), Ok(frame));
    }
}

#[test]
fn keys_that_are_not_known_are_ignored_at_every_depth_and_in_any_order() {
    let inner = Value::Map(vec![(Value::Text("a".to_owned()), Value::List(vec![Value::Nil, Value::Negative(-1)]))]);
    let extra = (Value::Text("zz".to_owned()), inner);
    let add = |value: &Value| match value {
        Value::Map(items) => {
            let mut items = items.clone();
            items.push(extra.clone());
            items.reverse();
            Some(Value::Map(items))
        }
        _ => None,
    };
    for (frame, value) in taken_apart() {
        for changed in value.variants(&add) {
            assert_eq!(Frame::decode(frame.frame_type(), &changed.bytes()), Ok(frame.clone()), "{changed:?}");
        }
    }
}

#[test]
fn integers_from_2_to_the_53rd_on_and_below_zero_are_refused_at_every_place() {
    for wrong in [Value::Number(MAX_INTEGER + 1), Value::Number(u64::MAX), Value::Negative(-1)] {
        let put = |value: &Value| matches!(value, Value::Number(_)).then(|| wrong.clone());
        for (frame, value) in taken_apart() {
            for changed in value.variants(&put) {
                let read = Frame::decode(frame.frame_type(), &changed.bytes());
                assert!(matches!(read, Err(WireError::Malformed { .. })), "{changed:?} is read as {read:?}");
            }
        }
    }
}

#[test]
fn values_of_another_kind_are_refused_at_every_place() {
    // Nil is left out: for a key that may be absent it means that.
    let kinds =
        [Value::Flag(true), Value::Text("x".to_owned()), Value::Number(1), Value::List(vec![]), Value::Map(vec![])];
    for (frame, value) in taken_apart() {
        for wrong in &kinds {
            let put = |value: &Value| match (value, wrong) {
                // Bytes of any writer's kind are bytes.
                (Value::Bin(_), Value::Text(_) | Value::List(_)) => None,
                // A name may be given by its place in its list, and a map inside a frame by its values in order.
                (Value::Text(_), Value::Number(_)) | (Value::Map(_), Value::List(_)) => None,
                _ => (std::mem::discriminant(value) != std::mem::discriminant(wrong)).then(|| wrong.clone()),
            };
            for changed in value.variants(&put) {
                let read = Frame::decode(frame.frame_type(), &changed.bytes());
                assert!(matches!(read, Err(WireError::Malformed { .. })), "{changed:?} is read as {read:?}");
            }
        }
    }
}

#[test]
fn ids_and_signatures_of_another_length_are_refused() {
    for (frame, value) in taken_apart() {
        for length in [0, 1, 7, 31, 33, 63, 65] {
            let put = |value: &Value| match value {
                // Envelopes are of any length.
                Value::Bin(bytes) if bytes.is_empty() || bytes == b"envelope" => None,
                Value::Bin(_) => Some(Value::Bin(vec![0xaa; length])),
                _ => None,
            };
            for changed in value.variants(&put) {
                assert!(Frame::decode(frame.frame_type(), &changed.bytes()).is_err(), "{changed:?}");
            }
        }
    }
}

#[test]
fn a_key_that_is_missing_is_an_error_or_means_the_default() {
    for frame in full() {
        let Value::Map(items) = Value::parse(&written(&frame)[PREFIX_BYTES..]) else { panic!("a map") };
        for at in 0..items.len() {
            let mut fewer = items.clone();
            let (key, _) = fewer.remove(at);
            if let Ok(read) = Frame::decode(frame.frame_type(), &Value::Map(fewer).bytes()) {
                assert_ne!(read, frame, "{key:?} says nothing");
            }
        }
    }
}

#[test]
fn reversed_ranges_are_an_error() {
    let reverse = |value: &Value| match value {
        // A range of a set of numbers.
        Value::List(pair) if matches!(pair[..], [Value::Number(1), Value::Number(_)]) => {
            Some(Value::List(vec![Value::Number(9), Value::Number(2)]))
        }
        // A run with one outcome, or of a question.
        Value::Map(items) if items.iter().any(|item| item.0 == Value::Text("a".to_owned())) => {
            let mut items = items.clone();
            let to = items.iter_mut().find(|item| item.0 == Value::Text("b".to_owned()))?;
            to.1 = Value::Number(0);
            Some(Value::Map(items))
        }
        _ => None,
    };
    let mut seen = 0;
    for (frame, value) in taken_apart() {
        for changed in value.variants(&reverse) {
            let read = Frame::decode(frame.frame_type(), &changed.bytes());
            assert!(read.is_err(), "{changed:?} is read as {read:?}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} ranges were reversed");
}

#[test]
fn bytes_behind_the_map_and_contents_that_are_no_map_are_refused() {
    for (frame, value) in taken_apart() {
        let behind = [value.bytes(), vec![0xc0]].concat();
        let read = Frame::decode(frame.frame_type(), &behind);
        assert!(matches!(read, Err(WireError::Malformed { .. })), "{read:?}");
        // The same fields as a list, which serde would take.
        let Value::Map(items) = value else { panic!("a map") };
        let list = Value::List(items.into_iter().map(|item| item.1).collect());
        assert!(Frame::decode(frame.frame_type(), &list.bytes()).is_err());
    }
    for text in ["", "c0", "90", "01", "a0", "c1", "de", "df00", "dfffffffff"] {
        assert!(content(FrameType::NopN, text).is_err(), "{text:?}");
    }
    assert_eq!(content(FrameType::NopN, "de0000"), Ok(NopN {}.into()));
}

#[test]
fn lists_and_texts_above_their_bounds_are_refused() {
    let many = |count: usize| (0..count as u64).map(|n| (n * 2, n * 2)).collect::<Ranges>();
    let acknowledge = |count| {
        let answers = Taken { taken: many(count), refused: vec![] };
        read(&written(&AckR { request: 0, store: StoreId([0; 16]), answers }.into()))
    };
    assert!(acknowledge(MAX_LIST).is_ok());
    assert!(acknowledge(MAX_LIST + 1).is_err());
    let ask = |count| {
        let lanes = vec![LaneQuestion { lane: lane(None), from: 1, to: 1 }; count];
        read(&written(&WhereR { request: 0, lanes }.into()))
    };
    assert!(ask(MAX_LANES_ASKED).is_ok());
    assert!(matches!(ask(MAX_LANES_ASKED + 1), Err(WireError::BadValue { .. })));
    let close = |count| read(&written(&CloseR { request: 0, lanes: vec![lane(None); count] }.into()));
    assert!(close(MAX_LANES_ASKED).is_ok());
    assert!(matches!(close(MAX_LANES_ASKED + 1), Err(WireError::BadValue { .. })));
    let refuse = |bytes| {
        let refused = vec![Refusal { seq: 1, text: Some("x".repeat(bytes)) }];
        let answers = Taken { taken: Ranges::new(), refused };
        read(&written(&AckR { request: 0, store: StoreId([0; 16]), answers }.into()))
    };
    assert!(refuse(MAX_TEXT_BYTES).is_ok());
    assert!(refuse(MAX_TEXT_BYTES + 1).is_err());
    assert_eq!(clip_text(&"é".repeat(200)).len(), MAX_TEXT_BYTES);
    assert_eq!(clip_text(&format!("x{}", "é".repeat(200))).len(), MAX_TEXT_BYTES - 1);
}

#[test]
fn nesting_without_end_is_refused() {
    for opening in [0x91u8, 0x81] {
        // A map with one key that nobody knows, and behind it depth upon depth.
        let mut content = vec![0x81, 0xa1, b'z'];
        content.resize(100_000, opening);
        assert!(Frame::decode(FrameType::NopN, &content).is_err());
    }
}

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
    let hello = (integer(), any::<[bool; 2]>(), integer(), integer(), integer(), integer(), words());
    let page = (integer(), any::<bool>(), prop::option::of(integer()), prop::option::of(key()), integer(), integer());
    let lane_state = (integer(), integer(), ranges(), runs())
        .prop_map(|(last, upto, delivered, exceptions)| LaneState { last, upto, delivered, exceptions });
    let question = (lane_ref(), 1..1000u64, 0..1000u64).prop_map(|(lane, from, more)| LaneQuestion {
        lane,
        from,
        to: from + more,
    });
    let kinds = vec![StreamKind::Submit, StreamKind::Notify, StreamKind::Sync];
    prop_oneof![
        (integer(), integer(), integer(), envelope(), signature(), words()).prop_map(
            |(request, prev, ttl_ms, envelope, signature, home)| {
                MsgR { request, prev, ttl_ms, envelope, signature, home }.into()
            }
        ),
        (integer(), store_id(), any_taken())
            .prop_map(|(request, store, answers)| AckR { request, store, answers }.into()),
        hello.prop_map(|(version, [relay, late], device, credit_messages, credit_bytes, ack_timeout_ms, agent)| {
            let role = if relay { Role::Relay } else { Role::Peer };
            let push = if late { PushMode::AfterBacklog } else { PushMode::AtOnce };
            HelloR { version, role, device, push, credit_messages, credit_bytes, ack_timeout_ms, agent }.into()
        }),
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
