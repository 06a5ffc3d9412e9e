//! Frames: whatever bytes come are frames or an error, and what was read is written in a way that is read again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use posthouse::protocol::{Frame, FrameType, decode, encode};

/// The first byte says which type the rest is the content of, or that it is a stream of frames.
fn read(data: &[u8]) -> Option<()> {
    let (kind, rest) = data.split_first()?;
    if let Some(kind) = FrameType::ALL.get(usize::from(*kind)) {
        assert_same(&Frame::decode(*kind, rest).ok()?);
        return None;
    }
    let mut buffer = BytesMut::from(rest);
    while let Ok(Some(frame)) = decode(&mut buffer) {
        assert_same(&frame);
    }
    None
}

fn assert_same(frame: &Frame) {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    assert_eq!(decode(&mut bytes).as_ref(), Ok(&Some(frame.clone())));
    assert!(bytes.is_empty());
}

fuzz_target!(|data: &[u8]| {
    read(data);
});
