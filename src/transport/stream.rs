//! Streams of frames.
//!
//! A [`FrameSender`] gathers: frames are written straight into one buffer, and a task of the stream hands all
//! that waits to QUIC in one write. A [`FrameReceiver`] cuts frames out of what comes. Both hold a bounded
//! number of bytes, whatever the other side does. All receivers of a connection together hold no more large frames
//! that are not whole yet than it has [`LargeFrames`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::error::TransportError;
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
    if buffer.is_empty() && buffer.capacity() > KEEP_BYTES {
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
        Self { stream, ends, buffer: BytesMut::new(), large_frames, large: None, ended: false }
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
        let mut pieces = [const { Bytes::new() }; PIECES];
        let count = ready!(pin!(self.stream.read_chunks(&mut pieces)).poll(cx))?;
        pieces.iter().take(count.unwrap_or(0)).for_each(|piece| self.buffer.extend_from_slice(piece));
        Poll::Ready(Ok(count.is_some()))
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
pub struct FrameSender(Arc<Handle>);

/// Tells the writing task that nobody can send any more.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.finish();
    }
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do for the writing task.
    work: Notify,
    /// Bytes have left, or the stream has ended.
    space: Notify,
    priority: AtomicI32,
    ends: Arc<Ends>,
}

struct State {
    /// Frames that wait.
    waiting: BytesMut,
    /// Bytes that the writing task has taken and QUIC has not.
    leaving: usize,
    limit: usize,
    finished: bool,
    /// What ended the stream.
    failed: Option<TransportError>,
}

impl State {
    fn pending(&self) -> usize {
        self.waiting.len() + self.leaving
    }
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").field("pending_bytes", &self.pending_bytes()).finish_non_exhaustive()
    }
}

impl FrameSender {
    /// Starts the writing task of a stream. It ends with the stream, and so with the connection at the latest.
    pub(super) fn new(stream: SendStream, ends: Arc<Ends>, send_buffer_bytes: usize) -> Self {
        let state =
            State { waiting: BytesMut::new(), leaving: 0, limit: send_buffer_bytes, finished: false, failed: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Notify::new(),
            space: Notify::new(),
            priority: AtomicI32::new(0),
            ends,
        });
        tokio::spawn(write(stream, shared.clone()));
        Self(Arc::new(Handle(shared)))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Adds a frame to what waits, or says that too much waits already: `false`. Then nothing of it was taken.
    ///
    /// # Errors
    /// [`TransportError`]: what ended the stream, or a frame above the limit.
    pub fn try_send(&self, frame: &Frame) -> Result<bool, TransportError> {
        self.add(frame, |state| state.limit)
    }

    /// Adds a frame, however much waits: for who has asked [`Self::is_writable`], or adds few for each that comes.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    pub fn push(&self, frame: &Frame) -> Result<(), TransportError> {
        self.add(frame, |_| usize::MAX).map(drop)
    }

    fn add(&self, frame: &Frame, most: fn(&State) -> usize) -> Result<bool, TransportError> {
        {
            let mut state = self.shared().lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.finished {
                return Err(TransportError::Finished);
            }
            if state.pending() > most(&state) {
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
            self.shared().ends.sent(frame);
        }
        self.shared().work.notify_one();
        Ok(true)
    }

    /// Adds a frame, once no more than the limit waits. That the other side has it is not said.
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
            if self.try_send(frame)? {
                return Ok(());
            }
            space.await;
        }
    }

    /// Adds bytes that may be no frame, for whoever tries out what the other side makes of that.
    ///
    /// # Errors
    /// What ended the stream.
    pub(crate) fn try_send_bytes(&self, bytes: &[u8]) -> Result<(), TransportError> {
        {
            let mut state = self.shared().lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.waiting.extend_from_slice(bytes);
        }
        self.shared().work.notify_one();
        Ok(())
    }

    /// Waits until the stream [is writable](Self::is_writable).
    ///
    /// # Errors
    /// What ended the stream.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn writable(&self) -> Result<(), TransportError> {
        self.pending_at_most(|state| state.limit).await
    }

    /// Waits until QUIC has taken all that waits. It may still be lost with the connection.
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
                let state = self.shared().lock();
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if state.pending() <= limit(&state) {
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
        state.pending() <= state.limit
    }

    /// Bytes that wait for QUIC to take them.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.shared().lock().pending()
    }

    /// How many bytes may wait before [`Self::send`] does.
    pub fn set_send_buffer_bytes(&self, bytes: usize) {
        self.shared().lock().limit = bytes;
        self.shared().space.notify_waiters();
    }

    /// Streams of a higher priority are sent first; 0 at the start.
    pub fn set_priority(&self, priority: i32) {
        self.shared().priority.store(priority, Ordering::Relaxed);
        self.shared().work.notify_one();
    }
}

/// What the writing task does next.
enum Step {
    Write,
    Finish,
    Wait,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        self.lock().finished = true;
        self.work.notify_one();
    }

    /// Exchanges the frames that wait for an empty buffer.
    fn take(&self, into: &mut BytesMut) -> Step {
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            std::mem::swap(&mut state.waiting, into);
            state.leaving = into.len();
            Step::Write
        } else if state.finished {
            Step::Finish
        } else {
            Step::Wait
        }
    }

    fn written(&self) {
        self.lock().leaving = 0;
        self.space.notify_waiters();
    }

    fn fail(&self, error: TransportError) {
        {
            let mut state = self.lock();
            (state.waiting, state.leaving) = (BytesMut::new(), 0);
            state.failed = Some(error);
        }
        self.space.notify_waiters();
    }
}

/// The writing task of one stream.
async fn write(mut stream: SendStream, shared: Arc<Shared>) {
    let mut ended = pin!(stream.stopped());
    let mut leaving = BytesMut::new();
    let mut priority = 0;
    loop {
        let wanted = shared.priority.load(Ordering::Relaxed);
        if wanted != priority {
            priority = wanted;
            // Of an ended stream the next step learns.
            stream.set_priority(priority).ok();
        }
        match shared.take(&mut leaving) {
            Step::Write => {
                if let Err(error) = stream.write_all(&leaving).await {
                    return shared.fail(error.into());
                }
                leaving.clear();
                shrink(&mut leaving);
                shared.written();
            }
            Step::Wait => tokio::select! {
                biased;
                () = shared.work.notified() => {}
                end = &mut ended => {
                    return shared.fail(match end {
                        Ok(Some(code)) => TransportError::StreamStopped(code.into_inner()),
                        Ok(None) => TransportError::Finished,
                        Err(error) => error.into(),
                    });
                }
            },
            Step::Finish => {
                // The stream is held until the other side has all of it: if it is the last holder of the
                // connection, letting go would close that at once.
                if stream.finish().is_ok() {
                    ended.await.ok();
                }
                return;
            }
        }
    }
}
