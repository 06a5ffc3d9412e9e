//! One connection to a relay, as its client has it: connecting, HELLO, and the three kinds of streams. To another
//! relay a relay is an ordinary client.

mod reach;

use std::time::Duration;

use crate::address::{HostPort, RelayAddress};
use crate::protocol::{
    AgainN, CloseCode, Frame, FrameType, GoawayN, HelloA, HelloR, NopN, PushMode, Role, StreamKind, WireError,
    clip_text, limit,
};
use crate::transport::{
    ClientEndpoint, CloseReason, ConnectError, Connection, FrameReceiver, FrameSender, TransportError,
};

/// How long the relay has to answer HELLO and to open its stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client says nothing while its session is opened.
const GREETING_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that may wait to be written to one stream.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// The longest that a relay may send its clients away for: they are needed by others as well.
const MAX_AWAY: Duration = Duration::from_secs(60);

/// How this program introduces itself.
const AGENT: &str = concat!("posthouse/", env!("CARGO_PKG_VERSION"));

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// None of the hosts has an address.
    #[error("{host} cannot be found: {detail}")]
    Resolve { host: HostPort, detail: String },
    /// No connection.
    #[error("{host}: {error}")]
    Connect { host: HostPort, error: ConnectError },
    /// The connection or its protocol broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The relay answers nothing any more.
    #[error("the relay does not answer")]
    Silent,
    /// The relay says that it was started anew, and nothing more comes on the connection.
    #[error("the relay was restarted")]
    Restarted,
    /// The relay is about to stop, and said when to come back.
    #[error("the relay stops, and asks to come back in {0:?}")]
    GoingAway(Duration),
    /// The relay did not answer HELLO.
    #[error("the relay does not answer HELLO")]
    Hello,
}

impl From<GoawayN> for LinkError {
    fn from(goaway: GoawayN) -> Self {
        Self::GoingAway(Duration::from_millis(goaway.delay_ms).min(MAX_AWAY))
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Transport(error.into())
    }
}

impl LinkError {
    /// Whether trying again could help.
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::Transport(TransportError::Closed(reason)) => reason.is_transient(),
            Self::Connect { error: ConnectError::Closed(reason), .. } => reason.is_transient(),
            _ => true,
        }
    }
}

/// A session that the relay has opened.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) hello: HelloA,
    pub(crate) submit: FrameSender,
    pub(crate) notify: FrameSender,
    pub(crate) sync: FrameSender,
    from_submit: FrameReceiver,
    from_notify: FrameReceiver,
    from_sync: FrameReceiver,
}

/// Where a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Submit,
    Notify,
    Sync,
}

impl Link {
    /// Connects to the relay at one of its hosts, and opens a session.
    pub(crate) async fn open(
        endpoint: &ClientEndpoint,
        relay: &RelayAddress,
        hello: HelloR,
    ) -> Result<Self, LinkError> {
        let connection = reach::connect(endpoint, relay).await?;
        let greeting = Self::greet(connection.clone(), hello);
        let greeted = tokio::select! {
            biased;
            greeted = tokio::time::timeout(HELLO_TIMEOUT, greeting) => greeted.unwrap_or(Err(LinkError::Hello)),
            reason = connection.closed() => Err(TransportError::from(reason).into()),
        };
        match &greeted {
            Err(LinkError::Transport(error)) => connection.close_for(error),
            Err(_) => connection.close(CloseCode::Done, "no session"),
            Ok(_) => {}
        }
        // A refusal closes the connection, and a stream that breaks off with it is not the news.
        match (greeted, connection.close_reason()) {
            (Err(_), Some(reason @ CloseReason::Peer { .. })) => Err(TransportError::from(reason).into()),
            (greeted, _) => greeted,
        }
    }

    async fn greet(connection: Connection, hello: HelloR) -> Result<Self, LinkError> {
        let (submit, mut from_submit) = connection.open(StreamKind::Submit, SEND_BUFFER_BYTES).await?;
        let meanwhile = submit.clone();
        let greeting = async {
            let hello = loop {
                submit.send(&hello.clone().into()).await?;
                match from_submit.next().await? {
                    Some(Frame::HelloA(hello)) => break hello,
                    // The relay wants to know whether who said it is still there.
                    Some(Frame::AgainN(AgainN {})) => {}
                    Some(other) => return Err(unexpected(other.frame_type(), "instead of A:HELLO").into()),
                    None => return Err(WireError::Truncated.into()),
                }
            };
            let (kind, notify, from_notify) = connection.accept().await?;
            if kind != StreamKind::Notify {
                return Err(unexpected(FrameType::OpenN, "from a relay, but for its notify stream").into());
            }
            let (sync, from_sync) = connection.open(StreamKind::Sync, SEND_BUFFER_BYTES).await?;
            Ok(Self { connection, hello, submit, notify, sync, from_submit, from_notify, from_sync })
        };
        tokio::select! {
            biased;
            greeted = greeting => greeted,
            error = say_something(&meanwhile) => Err(error.into()),
        }
    }

    /// The next frame, from whichever stream.
    ///
    /// Cancel-safe: a frame is either returned or still waits.
    pub(crate) async fn next(&mut self) -> Result<(Stream, Frame), TransportError> {
        let (stream, frame) = tokio::select! {
            biased;
            frame = self.from_submit.next() => (Stream::Submit, frame),
            frame = self.from_notify.next() => (Stream::Notify, frame),
            frame = self.from_sync.next() => (Stream::Sync, frame),
            reason = self.connection.closed() => return Err(reason.into()),
        };
        match frame? {
            Some(frame) => Ok((stream, frame)),
            // The relay ends its streams with the connection alone: wait for its reason.
            None => Err(self.connection.closed().await.into()),
        }
    }

    /// Writes what was added to its streams.
    pub(crate) fn write(&self) {
        for sender in [&self.submit, &self.notify, &self.sync] {
            sender.write();
        }
    }

    /// Hands over a frame, and those that have come on its stream behind it, at most so many in all.
    pub(crate) fn hand_over(
        &mut self,
        (stream, first): (Stream, Frame),
        most: usize,
        mut receive: impl FnMut(Stream, Frame) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        receive(stream, first)?;
        for _ in 1..most {
            match self.try_next(stream)? {
                Some(frame) => receive(stream, frame)?,
                None => break,
            }
        }
        Ok(())
    }

    /// A frame of this stream that has come already.
    fn try_next(&mut self, stream: Stream) -> Result<Option<Frame>, TransportError> {
        match stream {
            Stream::Submit => self.from_submit.try_buffered(),
            Stream::Notify => self.from_notify.try_buffered(),
            Stream::Sync => self.from_sync.try_buffered(),
        }
    }
}

/// Says something each second until that fails. A relay that was started anew learns of the connection by what is said
/// on it, and resets it.
async fn say_something(submit: &FrameSender) -> TransportError {
    loop {
        tokio::time::sleep(GREETING_PAUSE).await;
        if let Err(error) = submit.try_send(&NopN {}.into()) {
            return error;
        }
        submit.write();
    }
}

/// R:HELLO of somebody who only sends.
pub(crate) fn hello(role: Role) -> HelloR {
    HelloR {
        version: limit::VERSION,
        role,
        device: 0,
        push: PushMode::AtOnce,
        sender: None,
        credit_messages: 0,
        credit_bytes: limit::DEFAULT_CREDIT_BYTES,
        ack_timeout_ms: crate::time::millis(limit::DEFAULT_ACK_TIMEOUT),
        invitation: None,
        agent: Some(clip_text(AGENT)),
    }
}

/// A frame at the wrong place.
pub(crate) const fn unexpected(frame: FrameType, place: &'static str) -> WireError {
    WireError::Unexpected { frame, place }
}
