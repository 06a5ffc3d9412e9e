//! What the streams of one session share: who it is, how far it is, and why it may end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use super::Node;
use super::registry::Seat;
use crate::id::PeerId;
use crate::protocol::{CloseCode, Frame, FrameType, MsgN, Taken, WireError};
use crate::ranges::Ranges;
use crate::store::{Fence, StoreError, Stored};
use crate::time::{UnixMillis, millis};
use crate::transport::{CloseReason, Connection, FrameReceiver, TransportError};

/// Bytes that may wait to be written to one stream of a session. With the frame that goes beyond it, this is
/// what a client that does not read costs on each stream, besides its window.
pub(super) const SEND_BUFFER_BYTES: usize = 256 << 10;

/// What the streams of a session share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: Arc<Node>,
    pub(super) connection: Connection,
    pub(super) peer: PeerId,
    pub(super) fence: Fence,
    /// The client is a relay, which submits its own peers' messages.
    pub(super) is_relay: bool,
    /// Whose messages alone the client wants pushed.
    pub(super) only_from: Option<PeerId>,
    pub(super) seat: Arc<Seat>,
    pub(super) credit_messages: usize,
    pub(super) credit_bytes: usize,
    pub(super) ack_timeout: Duration,
    /// From behind which `seq` messages are pushed; `None` until the backlog is read.
    pub(super) live: watch::Sender<Option<u64>>,
    /// Places for pages.
    pub(super) pages: Semaphore,
    pub(super) handed_out: AtomicU64,
    /// What was answered on page requests: perhaps of what was pushed.
    pub(super) answered: Answered,
}

/// Answers on their way to the push window, whose credit they give back.
#[derive(Debug, Default)]
pub(super) struct Answered {
    seqs: Mutex<Ranges>,
    notify: Notify,
}

impl Answered {
    pub(super) fn add(&self, answers: &Taken) {
        let mut seqs = self.seqs.lock().unwrap_or_else(PoisonError::into_inner);
        seqs.extend(&answers.taken);
        for refusal in &answers.refused {
            seqs.insert(refusal.seq);
        }
        self.notify.notify_one();
    }

    /// Waits for some. Cancel-safe.
    pub(super) async fn next(&self) -> Ranges {
        loop {
            let notified = self.notify.notified();
            let seqs = std::mem::take(&mut *self.seqs.lock().unwrap_or_else(PoisonError::into_inner));
            if !seqs.is_empty() {
                return seqs;
            }
            notified.await;
        }
    }
}

impl Session {
    /// The next frame, once the store has room for what it may say. Cancel-safe.
    pub(super) async fn next(&self, receiver: &mut FrameReceiver) -> Result<Option<Frame>, TransportError> {
        self.room().await;
        receiver.next().await
    }

    /// Waits until the store has room for what may be read next. Cancel-safe.
    pub(super) async fn room(&self) {
        let store = &self.node.store;
        if !store.has_room() {
            store.ready().await;
        }
    }

    /// A message up to this `seq` may be in the client's hands from now on.
    pub(super) fn hand_out(&self, seq: u64) {
        self.handed_out.fetch_max(seq, Ordering::Relaxed);
    }

    /// The highest `seq` that this session handed out.
    pub(super) fn handed_out(&self) -> u64 {
        self.handed_out.load(Ordering::Relaxed)
    }
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The connection is over, or the client broke the protocol.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The relay ends it.
    #[error("{0}: {1}")]
    Close(CloseCode, &'static str),
    /// The store cannot do what the session needs.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl End {
    /// With which code the relay closes; none if the connection is over already.
    pub(super) fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Transport(TransportError::Wire(error)) => Some(error.close_code()),
            Self::Transport(_) => None,
            Self::Close(code, _) => Some(*code),
            Self::Store(StoreError::Superseded) => Some(CloseCode::Superseded),
            Self::Store(_) => Some(CloseCode::Unavailable),
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Transport(error.into())
    }
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Transport(reason.into())
    }
}

/// A frame at the wrong place.
pub(super) fn unexpected(frame: FrameType, place: &'static str) -> End {
    WireError::Unexpected { frame, place }.into()
}

/// A stored message as it travels.
pub(super) fn message(stored: &Stored, date: UnixMillis, attempt: u64) -> MsgN {
    MsgN {
        seq: stored.seq,
        ttl_ms: millis(date.until(stored.expires)),
        attempt,
        envelope: stored.envelope.bytes().clone(),
        signature: stored.signature,
    }
}
