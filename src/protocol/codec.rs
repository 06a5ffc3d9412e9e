//! Frames to bytes and back: u32 length, u16 type, then the content; both integers big-endian.
//!
//! The length counts the content alone. A decoder never takes memory for a frame before its bytes arrive.

use bytes::{Buf, BufMut, BytesMut};

use super::error::WireError;
use super::frame::{Frame, FrameType};
use super::limit::MAX_FRAME_BYTES;

/// Length and type in front of each frame.
pub const PREFIX_BYTES: usize = 6;

/// Appends a frame to `buffer`.
///
/// # Panics
/// Never for frames this crate builds: memory takes every write, and every map fits a u32.
#[expect(clippy::expect_used, reason = "writing to memory does not fail")]
pub fn encode(frame: &Frame, buffer: &mut BytesMut) {
    let start = buffer.len();
    buffer.put_u32(0);
    buffer.put_u16(frame.frame_type().number());
    let mut writer = buffer.writer();
    frame.write_content(&mut writer).expect("a frame is written to memory");
    let buffer = writer.into_inner();
    let length = u32::try_from(buffer.len() - start - PREFIX_BYTES).expect("a frame is below 4 GiB");
    if let Some(prefix) = buffer.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

/// Takes the first whole frame out of `buffer`; `None` if more bytes are needed. Frames to skip are skipped.
///
/// # Errors
/// [`WireError`]: the stream is of no further use.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    loop {
        let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(WireError::FrameTooLong { length, max: MAX_FRAME_BYTES });
        }
        let Some((number, content)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        // The type is judged before the content has come: nobody has to buffer what is not known.
        let known = FrameType::from_number(u16::from_be_bytes(*number))?;
        let Some(content) = content.get(..length) else { return Ok(None) };
        let frame = known.map(|frame| Frame::decode(frame, content)).transpose()?;
        buffer.advance(PREFIX_BYTES + length);
        if frame.is_some() {
            return Ok(frame);
        }
    }
}
