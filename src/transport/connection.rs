//! One connection: who is at the other end, the streams on it, and why it ended.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore};

use super::error::{CloseReason, TransportError};
use super::socket::canonical;
use super::stream::{DEFAULT_SEND_BUFFER_BYTES, FrameReceiver, FrameSender, LargeFrames};
use super::watch::Ends;
use crate::id::PeerId;
use crate::identity::key_of_certificate;
use crate::protocol::{CloseCode, Frame, OpenN, StreamKind, WireError, clip_text};

/// A connection. Clones are the same one; when the last of them and of its streams is dropped, it is closed.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    quinn: quinn::Connection,
    ends: Arc<Ends>,
    large_frames: LargeFrames,
    /// A stream that was accepted and whose first frame has not come yet.
    half_open: Mutex<Option<(SendStream, FrameReceiver)>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, {:?})", self.remote(), self.0.ends.there)
    }
}

impl Connection {
    /// It gathers no more large frames at a time than that.
    pub(super) fn new(quinn: quinn::Connection, here: PeerId, large_frames: usize) -> Self {
        let there = quinn
            .peer_identity()
            .and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| key_of_certificate(chain.first()?))
            .map(PeerId::from_bytes);
        let (ends, large_frames) = (Arc::new(Ends { here, there }), Arc::new(Semaphore::new(large_frames)));
        Self(Arc::new(Inner { quinn, ends, large_frames, half_open: Mutex::default() }))
    }

    /// Where the other side is now; it may move.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        canonical(self.0.quinn.remote_address())
    }

    /// Whose key the other side has proved to hold; `None` for a client without a certificate.
    #[must_use]
    pub fn peer_id(&self) -> Option<PeerId> {
        self.0.ends.there
    }

    /// The present estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.0.quinn.rtt()
    }

    /// How many datagrams have come from the other side: a number that grows as long as it is there.
    #[must_use]
    pub fn datagrams_received(&self) -> u64 {
        self.0.quinn.stats().udp_rx.datagrams
    }

    /// Opens a stream. Its first frame, N:OPEN, is written already. Waits while the other side allows no more
    /// streams.
    ///
    /// # Errors
    /// [`TransportError::Closed`].
    ///
    /// # Cancel safety
    /// Safe: either there is a stream or there is none.
    pub async fn open(
        &self,
        kind: StreamKind,
        send_buffer_bytes: usize,
    ) -> Result<(FrameSender, FrameReceiver), TransportError> {
        let (send, receive) = self.0.quinn.open_bi().await?;
        let sender = FrameSender::new(send, self.0.ends.clone(), send_buffer_bytes);
        sender.push(&OpenN { kind }.into())?;
        sender.write();
        Ok((sender, self.receiver(receive)))
    }

    /// Waits for a stream that the other side opens, and for its first frame. Whether that kind of stream is
    /// allowed is for the caller to judge. The sender holds [`DEFAULT_SEND_BUFFER_BYTES`] until told otherwise.
    ///
    /// # Errors
    /// [`TransportError::Wire`] if the stream does not begin with N:OPEN; else what ended stream or connection.
    ///
    /// # Cancel safety
    /// Safe: a stream that has come half way is given to the next call.
    pub async fn accept(&self) -> Result<(StreamKind, FrameSender, FrameReceiver), TransportError> {
        let mut half_open = self.0.half_open.lock().await;
        let stream = match half_open.take() {
            Some(stream) => stream,
            None => {
                let (send, receive) = self.0.quinn.accept_bi().await?;
                (send, self.receiver(receive))
            }
        };
        let first = half_open.insert(stream).1.next().await;
        let Some((send, receiver)) = half_open.take() else { return Err(TransportError::Finished) };
        drop(half_open);
        match first? {
            Some(Frame::OpenN(OpenN { kind })) => {
                Ok((kind, FrameSender::new(send, self.0.ends.clone(), DEFAULT_SEND_BUFFER_BYTES), receiver))
            }
            Some(other) => {
                let place = "at the start of a stream";
                Err(WireError::Unexpected { frame: other.frame_type(), place }.into())
            }
            None => Err(WireError::Truncated.into()),
        }
    }

    fn receiver(&self, stream: RecvStream) -> FrameReceiver {
        FrameReceiver::new(stream, self.0.ends.clone(), self.0.large_frames.clone())
    }

    /// Closes the connection at once. What was sent and is not acknowledged is lost, so whatever the other side
    /// has to know stands in the code. `reason` is for people, and is cut to what may travel.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.quinn.close(VarInt::from_u32(code.number()), clip_text(reason).as_bytes());
    }

    /// Closes the connection for an error on one of its streams, with the code that belongs to it.
    pub fn close_for(&self, error: &TransportError) {
        match error {
            TransportError::Wire(wire) => self.close(wire.close_code(), &wire.to_string()),
            // It is over already.
            TransportError::Closed(_) => {}
            // Nobody broke the protocol: the other side may come back.
            TransportError::StreamReset(_)
            | TransportError::StreamStopped(_)
            | TransportError::Finished
            | TransportError::FrameTooLong { .. } => self.close(CloseCode::Done, &error.to_string()),
        }
    }

    /// Waits for the end of the connection.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn closed(&self) -> CloseReason {
        self.0.quinn.closed().await.into()
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.quinn.close_reason().map(CloseReason::from)
    }

    /// What lies beneath, for tests that break the rules.
    #[cfg(test)]
    pub(super) fn quinn(&self) -> &quinn::Connection {
        &self.0.quinn
    }
}
