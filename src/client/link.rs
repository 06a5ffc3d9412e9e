//! One connection to the home relay: resolving, connecting, HELLO, and the three kinds of streams.

use std::net::SocketAddr;
use std::time::Duration;

use super::reading::{Reading, ReadingOptions};
use crate::address::{HostPort, RelayAddress};
use crate::id::RelayId;
use crate::protocol::{
    CloseCode, Frame, FrameType, HelloA, HelloR, PushMode, Role, StreamKind, WireError, clip_text, limit,
};
use crate::transport::{
    ClientEndpoint, CloseReason, ConnectError, Connection, FrameReceiver, FrameSender, TransportError,
};

/// How long one place has to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the relay has to answer HELLO and to open its stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that may wait to be written to one stream.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// How this client introduces itself.
const AGENT: &str = concat!("posthouse-client/", env!("CARGO_PKG_VERSION"));

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
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
    /// The relay did not answer HELLO.
    #[error("the relay does not answer HELLO")]
    Hello,
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Transport(error.into())
    }
}

impl LinkError {
    /// Whether trying again could help.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::Transport(TransportError::Closed(reason)) => reason.is_transient(),
            Self::Connect { error: ConnectError::Closed(reason), .. } => reason.is_transient(),
            _ => true,
        }
    }
}

/// A session that the relay has opened.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) hello: HelloA,
    pub(super) submit: FrameSender,
    pub(super) notify: FrameSender,
    pub(super) sync: FrameSender,
    from_submit: FrameReceiver,
    from_notify: FrameReceiver,
    from_sync: FrameReceiver,
}

/// Where a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Submit,
    Notify,
    Sync,
}

impl Link {
    /// Connects to the first of the relay's hosts that answers, and opens a session.
    pub(super) async fn open(
        endpoint: &ClientEndpoint,
        relay: &RelayAddress,
        hello: HelloR,
    ) -> Result<Self, LinkError> {
        let connection = connect(endpoint, relay).await?;
        let greeting = Self::greet(connection.clone(), hello);
        let greeted = tokio::select! {
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
        submit.send(&hello.into()).await?;
        let hello = match from_submit.next().await? {
            Some(Frame::HelloA(hello)) => hello,
            Some(other) => return Err(unexpected(other.frame_type(), "instead of A:HELLO").into()),
            None => return Err(WireError::Truncated.into()),
        };
        let (kind, notify, from_notify) = connection.accept().await?;
        if kind != StreamKind::Notify {
            return Err(unexpected(FrameType::OpenN, "from a relay, but for its notify stream").into());
        }
        let (sync, from_sync) = connection.open(StreamKind::Sync, SEND_BUFFER_BYTES).await?;
        Ok(Self { connection, hello, submit, notify, sync, from_submit, from_notify, from_sync })
    }

    /// The next frame, from whichever stream.
    ///
    /// Cancel-safe: a frame is either returned or still waits.
    pub(super) async fn next(&mut self) -> Result<(Stream, Frame), TransportError> {
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

    /// A frame of this stream that has come already.
    pub(super) fn try_next(&mut self, stream: Stream) -> Result<Option<Frame>, TransportError> {
        match stream {
            Stream::Submit => self.from_submit.try_buffered(),
            Stream::Notify => self.from_notify.try_buffered(),
            Stream::Sync => self.from_sync.try_buffered(),
        }
    }
}

/// R:HELLO of a peer that reads in this way.
pub(super) fn hello(options: &ReadingOptions, ack_timeout: Duration) -> HelloR {
    let push = match options.reading {
        Reading::InOrder => PushMode::AfterBacklog,
        Reading::RecentFirst | Reading::Nothing => PushMode::AtOnce,
    };
    let reads = options.reading != Reading::Nothing;
    HelloR {
        version: limit::VERSION,
        role: Role::Peer,
        device: 0,
        push,
        sender: options.only_from,
        credit_messages: if reads { options.credit_messages } else { 0 },
        credit_bytes: options.credit_bytes,
        ack_timeout_ms: crate::time::millis(ack_timeout),
        agent: Some(clip_text(AGENT)),
    }
}

async fn connect(endpoint: &ClientEndpoint, relay: &RelayAddress) -> Result<Connection, LinkError> {
    let mut failed = None;
    for host in relay.hosts() {
        match connect_host(endpoint, relay.relay, host).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or(LinkError::Hello))
}

/// Tries every address of one host; names are resolved anew each time.
async fn connect_host(endpoint: &ClientEndpoint, relay: RelayId, host: &HostPort) -> Result<Connection, LinkError> {
    let unresolved = |detail: String| LinkError::Resolve { host: host.clone(), detail };
    let addresses: Vec<SocketAddr> = match host.host.parse() {
        Ok(address) => vec![SocketAddr::new(address, host.port)],
        Err(_) => {
            let found = tokio::net::lookup_host((host.host.as_str(), host.port)).await;
            found.map_err(|error| unresolved(error.to_string()))?.collect()
        }
    };
    let mut failed = unresolved("it has no address".to_owned());
    for address in addresses {
        match endpoint.connect(address, relay, CONNECT_TIMEOUT).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = LinkError::Connect { host: host.clone(), error },
        }
    }
    Err(failed)
}

/// A frame at the wrong place.
pub(super) const fn unexpected(frame: FrameType, place: &'static str) -> WireError {
    WireError::Unexpected { frame, place }
}
