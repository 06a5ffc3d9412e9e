//! What the documents of other writers may and may not contain. The tests take frames apart and put them
//! together wrongly, at every place there is.

use super::super::limit::{MAX_INTEGER, MAX_LANES_ASKED, MAX_LIST, MAX_TEXT_BYTES};
use super::super::*;
use super::{bare, content, full, lane, read, written};
use crate::id::StoreId;
use crate::ranges::Ranges;

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
        // Whatever they are, also the beginning of something that has no end.
        for (first, rest) in (0..=u8::MAX).flat_map(|first| [&[][..], &[0x91], &[0, 0, 0, 1]].map(|rest| (first, rest)))
        {
            let behind = [&value.bytes()[..], &[first], rest].concat();
            let read = Frame::decode(frame.frame_type(), &behind);
            assert!(matches!(read, Err(WireError::Malformed { .. })), "{first:#x} {rest:?}: {read:?}");
        }
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
