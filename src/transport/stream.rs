//! Streams of frames.
//!
//! A [`FrameSender`] gathers: frames are written straight into one buffer, and whoever has added the last of them for now
//! hands all that waits to QUIC in one write. Only what QUIC has no room for is left to a task. A [`FrameReceiver`] cuts
//! frames out of what comes. Both hold a bounded number of bytes, whatever the other side does. All receivers of a
//! connection together hold no more large frames that are not whole yet than it has [`LargeFrames`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::error::TransportError;
use super::readiness::Readiness;
use super::watch::Ends;
use crate::protocol::limit::MAX_FRAME_BYTES;
use crate::protocol::{Frame, PREFIX_BYTES, WireError, decode, encode};

/// Bytes that may wait in a stream that the other side opened, until
/// [`FrameSender::set_send_buffer_bytes`] says otherwise: one page.
pub const DEFAULT_SEND_BUFFER_BYTES: usize = 1 << 20;

/// Pieces of a stream taken from QUIC at once; each is at most one datagram.
const PIECES: usize = 32;

/// A buffer that a large frame has stretched is given back once it is empty, so that idle connections are
/// cheap. Bytes.
const KEEP_BYTES: usize = 16 << 10;

fn shrink(buffer: &mut BytesMut) {
    // Its capacity does not tell: what was taken from its front counts no more.
    if buffer.is_empty() && buffer.try_reclaim(KEEP_BYTES + 1) {
        *buffer = BytesMut::new();
    }
}

/// Bytes up to which every stream may gather a frame for itself: more than any frame but one with a message or a page
/// in it has a reason to be.
const SMALL_FRAME_BYTES: usize = 64 << 10;

/// How many large frames a connection gathers at one time. Whoever begins one on each of its streams and ends none
/// would otherwise cost a frame for each stream.
pub(super) type LargeFrames = Arc<Semaphore>;

/// The receiving half of a stream.
pub struct FrameReceiver {
    stream: RecvStream,
    readiness: Readiness,
    ends: Arc<Ends>,
    /// Never more than one frame that is not whole yet and what one read added to it.
    buffer: BytesMut,
    large_frames: LargeFrames,
    /// While a large frame is gathered here.
    large: Option<OwnedSemaphorePermit>,
    ended: bool,
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl FrameReceiver {
    pub(super) fn new(stream: RecvStream, ends: Arc<Ends>, large_frames: LargeFrames) -> Self {
        let (readiness, buffer) = (Readiness::default(), BytesMut::new());
        Self { stream, readiness, ends, buffer, large_frames, large: None, ended: false }
    }

    /// The next frame; `None` once the other side has finished the stream.
    ///
    /// # Errors
    /// [`TransportError::Wire`] for what is no frame, also from then on; else what ended the stream.
    ///
    /// # Cancel safety
    /// Safe: what has come stays in the receiver.
    pub async fn next(&mut self) -> Result<Option<Frame>, TransportError> {
        loop {
            if let Some(frame) = self.try_buffered()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Truncated.into()) };
            }
            if self.large.is_none() && self.buffer.len() > SMALL_FRAME_BYTES {
                // It is never closed. What comes meanwhile is held back by flow control.
                self.large = self.large_frames.clone().acquire_owned().await.ok();
            }
            self.ended = !poll_fn(|cx| self.poll_pieces(cx)).await?;
        }
    }

    /// Takes what has come; false at the end. The pieces lie on the stack: an idle stream has no room for them.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TransportError>> {
        let Self { stream, readiness, buffer, .. } = self;
        readiness.poll(cx, |cx| {
            let mut pieces = [const { Bytes::new() }; PIECES];
            let count = ready!(pin!(stream.read_chunks(&mut pieces)).poll(cx))?;
            pieces.iter().take(count.unwrap_or(0)).for_each(|piece| buffer.extend_from_slice(piece));
            Poll::Ready(Ok(count.is_some()))
        })
    }

    /// A frame that has come already, without waiting for more.
    ///
    /// # Errors
    /// [`TransportError::Wire`] for what is no frame.
    pub fn try_buffered(&mut self) -> Result<Option<Frame>, TransportError> {
        let frame = decode(&mut self.buffer)?;
        if self.buffer.len() <= SMALL_FRAME_BYTES {
            self.large = None;
        }
        shrink(&mut self.buffer);
        frame.iter().for_each(|frame| self.ends.received(frame));
        Ok(frame)
    }
}

/// The sending half of a stream. Clones send into the same stream; when the last one is dropped, what waits is
/// sent and the stream finished.
#[derive(Clone)]
pub struct FrameSender(Arc<Last>);

/// Finishes the stream once nobody can send any more.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.finish();
    }
}

struct Shared {
    state: Mutex<State>,
    /// Bytes have left, or the stream has ended.
    space: Notify,
    /// Where the rest is written.
    runtime: Handle,
    ends: Arc<Ends>,
}

struct State {
    stream: SendStream,
    /// Frames that wait.
    waiting: BytesMut,
    limit: usize,
    /// A task writes what waits, and finishes the stream if it has to be.
    writing: bool,
    finished: bool,
    /// What ended the stream.
    failed: Option<TransportError>,
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").field("pending_bytes", &self.pending_bytes()).finish_non_exhaustive()
    }
}

impl FrameSender {
    pub(super) fn new(stream: SendStream, ends: Arc<Ends>, send_buffer_bytes: usize) -> Self {
        let state = State {
            stream,
            waiting: BytesMut::new(),
            limit: send_buffer_bytes,
            writing: false,
            finished: false,
            failed: None,
        };
        let shared = Shared { state: Mutex::new(state), space: Notify::new(), runtime: Handle::current(), ends };
        Self(Arc::new(Last(Arc::new(shared))))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Adds a frame to what waits, or says that too much waits already: `false`. Then nothing of it was taken.
    /// It leaves with the next [`Self::write`], or whatever else says that it writes.
    ///
    /// # Errors
    /// [`TransportError`]: what ended the stream, or a frame above the limit.
    pub fn try_send(&self, frame: &Frame) -> Result<bool, TransportError> {
        let mut state = self.shared().lock();
        let most = state.limit;
        self.shared().add(&mut state, frame, most)
    }

    /// Adds a frame, however much waits: for who has asked [`Self::is_writable`], or adds few for each that comes.
    /// It leaves as one that was added by [`Self::try_send`].
    ///
    /// # Errors
    /// As [`Self::try_send`].
    pub fn push(&self, frame: &Frame) -> Result<(), TransportError> {
        let mut state = self.shared().lock();
        self.shared().add(&mut state, frame, usize::MAX).map(drop)
    }

    /// Writes what waits, as far as QUIC takes it; a task writes the rest as soon as that can be. That the stream has ended
    /// is told by the next call that can fail.
    pub fn write(&self) {
        let shared = self.shared();
        shared.write(&mut shared.lock());
    }

    /// Adds a frame, once no more than the limit waits, and writes. That the other side has it is not said.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    ///
    /// # Cancel safety
    /// Safe: a call that is dropped has sent nothing.
    pub async fn send(&self, frame: &Frame) -> Result<(), TransportError> {
        loop {
            let mut space = pin!(self.shared().space.notified());
            space.as_mut().enable();
            {
                let shared = self.shared();
                let mut state = shared.lock();
                shared.write(&mut state);
                // If there is no room now, a task is at it, and tells.
                let most = state.limit;
                if shared.add(&mut state, frame, most)? {
                    shared.write(&mut state);
                    return Ok(());
                }
            }
            space.await;
        }
    }

    /// Writes bytes that may be no frame, for whoever tries out what the other side makes of that.
    ///
    /// # Errors
    /// What ended the stream.
    pub(crate) fn write_bytes(&self, bytes: &[u8]) -> Result<(), TransportError> {
        {
            let mut state = self.shared().lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.waiting.extend_from_slice(bytes);
        }
        self.write();
        Ok(())
    }

    /// Writes, and waits until the stream [is writable](Self::is_writable).
    ///
    /// # Errors
    /// What ended the stream.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn writable(&self) -> Result<(), TransportError> {
        self.pending_at_most(|state| state.limit).await
    }

    /// Writes, and waits until QUIC has taken all that waits. It may still be lost with the connection.
    ///
    /// # Errors
    /// What ended the stream.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn flush(&self) -> Result<(), TransportError> {
        self.pending_at_most(|_| 0).await
    }

    async fn pending_at_most(&self, limit: fn(&State) -> usize) -> Result<(), TransportError> {
        loop {
            let mut space = pin!(self.shared().space.notified());
            space.as_mut().enable();
            {
                let mut state = self.shared().lock();
                self.shared().write(&mut state);
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if state.waiting.len() <= limit(&state) {
                    return Ok(());
                }
            }
            space.await;
        }
    }

    /// Sends what waits and then ends the stream; the other side's receiver answers `None`. No frame can be
    /// added from now on.
    pub fn finish(&self) {
        self.shared().finish();
    }

    /// Whether no more than the limit waits, so that [`Self::send`] would not.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let state = self.shared().lock();
        state.waiting.len() <= state.limit
    }

    /// Bytes that wait for QUIC to take them.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.shared().lock().waiting.len()
    }

    /// How many bytes may wait before [`Self::send`] does.
    pub fn set_send_buffer_bytes(&self, bytes: usize) {
        self.shared().lock().limit = bytes;
        self.shared().space.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame, if no more than so many bytes wait.
    fn add(&self, state: &mut State, frame: &Frame, most: usize) -> Result<bool, TransportError> {
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.finished {
            return Err(TransportError::Finished);
        }
        if state.waiting.len() > most {
            return Ok(false);
        }
        let start = state.waiting.len();
        encode(frame, &mut state.waiting);
        let bytes = state.waiting.len() - start - PREFIX_BYTES;
        if bytes > MAX_FRAME_BYTES {
            state.waiting.truncate(start);
            return Err(TransportError::FrameTooLong { bytes });
        }
        // Told before it can leave, so that what follows from it is told later.
        self.ends.sent(frame);
        Ok(true)
    }

    /// Afterwards nothing waits, or a task writes it.
    fn write(self: &Arc<Self>, state: &mut State) {
        if !state.writing && state.poll_write(&mut Context::from_waker(Waker::noop())).is_pending() {
            state.writing = true;
            self.runtime.spawn(write_rest(self.clone()));
        }
    }

    fn finish(self: &Arc<Self>) {
        let mut state = self.lock();
        if mem::replace(&mut state.finished, true) || state.writing {
            return;
        }
        state.writing = true;
        self.runtime.spawn(write_rest(self.clone()));
    }
}

impl State {
    /// Writes what waits. What becomes of the stream is entered in the state.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting)) {
                Ok(written) => self.waiting.advance(written),
                Err(error) => {
                    self.waiting.clear();
                    self.failed = Some(error.into());
                }
            }
        }
        shrink(&mut self.waiting);
        Poll::Ready(())
    }
}

/// Writes what waits until nothing does, and finishes the stream if that was asked for.
async fn write_rest(shared: Arc<Shared>) {
    let end = poll_fn(|cx| {
        let mut state = shared.lock();
        let waited = state.waiting.len();
        let written = state.poll_write(cx);
        if state.waiting.len() < waited {
            shared.space.notify_waiters();
        }
        ready!(written);
        state.writing = false;
        Poll::Ready((state.finished && state.stream.finish().is_ok()).then(|| state.stream.stopped()))
    });
    if let Some(end) = end.await {
        // The stream is held until the other side has all of it: if it is the last holder of the connection, letting go
        // would close that at once.
        end.await.ok();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    #[test]
    fn a_buffer_that_a_large_frame_has_stretched_is_given_back_and_a_small_one_is_kept() {
        for (bytes, given_back) in [(1000, false), (KEEP_BYTES, false), (20_000, true), (1 << 20, true)] {
            let mut buffer = BytesMut::new();
            buffer.reserve(bytes);
            buffer.put_bytes(b'.', bytes);
            // As it is written, or cut into frames: from the front.
            buffer.advance(bytes / 2);
            shrink(&mut buffer);
            assert_eq!(buffer.len(), bytes - bytes / 2);
            buffer.advance(bytes - bytes / 2);
            shrink(&mut buffer);
            assert_eq!(buffer.try_reclaim(bytes), !given_back, "{bytes}");
        }
    }
}
