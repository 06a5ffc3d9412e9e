//! What can go wrong between two ends of a connection, and why a connection ended.
//!
//! One enum for each boundary: binding, connecting, accepting, and a stream in use. quinn's and rustls' own
//! errors are turned into these here and nowhere else.

use std::io;
use std::net::SocketAddr;

use quinn::{ConnectionError, ReadError, StoppedError, TransportErrorCode, WriteError};

use crate::id::RelayId;
use crate::protocol::{CloseCode, WireError, clip_text};

/// The TLS alert of a signature that does not verify (RFC 8446, section 6).
const ALERT_DECRYPT_ERROR: u8 = 51;

/// The TLS alert of two sides without a common protocol (RFC 7301, section 3.2).
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The other side closed it and said why.
    #[error("closed by the other side: {}{}", name(*code, *number), words(reason))]
    Peer {
        /// The code, if this version has it.
        code: Option<CloseCode>,
        /// Its number on the wire.
        number: u64,
        /// Words for people.
        reason: String,
    },
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The other side does not know this connection any more: it was started anew.
    #[error("the other side was restarted")]
    Reset,
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the other side for too long")]
    TimedOut,
    /// One of the two QUIC or TLS implementations gave up.
    #[error("QUIC error {number:#x}{}", words(reason))]
    Transport {
        /// The transport error code (RFC 9000, section 20.1).
        number: u64,
        /// Words for people.
        reason: String,
        /// Whether the other side gave up.
        by_peer: bool,
    },
}

fn name(code: Option<CloseCode>, number: u64) -> String {
    code.map_or_else(|| format!("code {number:#x}"), |code| code.name().to_owned())
}

fn words(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

impl CloseReason {
    /// The code that the other side closed with, if this version has it.
    #[must_use]
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Peer { code, .. } => *code,
            _ => None,
        }
    }

    /// Whether the other side ended it on purpose.
    #[must_use]
    pub const fn by_peer(&self) -> bool {
        matches!(self, Self::Peer { .. } | Self::Transport { by_peer: true, .. })
    }

    /// Whether a client should connect again by itself: always, but for a code that says otherwise.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Peer { code: Some(code), .. } => code.is_transient(),
            Self::Local => false,
            _ => true,
        }
    }
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        // A stranger's words: in a terminal or a log they shall be words and nothing else.
        let text = |bytes: &[u8]| clip_text(&String::from_utf8_lossy(bytes)).replace(char::is_control, "\u{fffd}");
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let number = close.error_code.into_inner();
                Self::Peer { code: CloseCode::from_number(number), number, reason: text(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::Transport { number: close.error_code.into(), reason: text(&close.reason), by_peer: true }
            }
            ConnectionError::TransportError(error) => {
                Self::Transport { number: error.code.into(), reason: error.to_string(), by_peer: false }
            }
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::Local,
            error @ (ConnectionError::VersionMismatch | ConnectionError::CidsExhausted) => {
                Self::Transport { number: 0, reason: error.to_string(), by_peer: false }
            }
        }
    }
}

/// What ends the use of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer's fault: what came is not the protocol. Close the connection with
    /// [`Connection::close_for`](super::Connection::close_for).
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection is over.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The peer gave up sending on this stream before its end.
    #[error("the other side broke the stream off (code {0})")]
    StreamReset(u64),
    /// The peer reads no more of this stream.
    #[error("the other side stopped reading the stream (code {0})")]
    StreamStopped(u64),
    /// The caller's misuse: a stream was used after its end.
    #[error("the stream is finished")]
    Finished,
    /// The caller's misuse: a frame that the other side would have to refuse. Nothing of it was sent.
    #[error("a frame of {bytes} bytes is above the limit")]
    FrameTooLong {
        /// Its content's length.
        bytes: usize,
    },
}

impl From<ConnectionError> for TransportError {
    fn from(error: ConnectionError) -> Self {
        Self::Closed(error.into())
    }
}

impl From<ReadError> for TransportError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::StreamReset(code.into_inner()),
            ReadError::ConnectionLost(error) => error.into(),
            // The other two cannot be: no 0-RTT, no unordered reads.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Finished,
        }
    }
}

impl From<WriteError> for TransportError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::StreamStopped(code.into_inner()),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Finished,
        }
    }
}

impl From<StoppedError> for TransportError {
    fn from(error: StoppedError) -> Self {
        match error {
            StoppedError::ConnectionLost(error) => error.into(),
            StoppedError::ZeroRttRejected => Self::Finished,
        }
    }
}

/// Why an endpoint cannot be made. Always a local matter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UDP socket cannot be had.
    #[error("cannot listen on UDP {address}: choose another address or port, or end who has it")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A socket was made, but cannot be used.
    #[error("cannot use the UDP socket")]
    Io(#[from] io::Error),
    /// The identity or the TLS provider cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Why there is no connection to a relay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The place is right and the relay is not: whoever answers holds another key. `found` is what it showed;
    /// nothing proves that it holds that one.
    #[error("the relay there is {found}, not {expected}: the address is out of date, or somebody is in between")]
    WrongRelay {
        /// The key in the address.
        expected: RelayId,
        /// The key that was shown.
        found: RelayId,
    },
    /// Whoever answers shows the right key and cannot sign with it.
    #[error("the other side shows the relay's certificate but does not hold its key")]
    BadSignature,
    /// No handshake in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side speaks QUIC, but not this protocol.
    #[error("the other side does not speak posthouse/1")]
    Alpn,
    /// The relay takes no more connections now.
    #[error("the relay refuses connections now")]
    Refused,
    /// The connection ended before it began.
    #[error(transparent)]
    Closed(CloseReason),
    /// Any other failure of the TLS handshake.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// An address of IPv6, and a socket of IPv4: that of a machine without IPv6, or one that was bound to an address
    /// of IPv4.
    #[error("there is no IPv6 here: give this side an address of IPv6, or name an address of IPv4 of the other side")]
    NoIpv6,
    /// This side cannot reach such an address at all.
    #[error("cannot connect from here")]
    Io(#[from] io::Error),
}

/// Why a client's handshake came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The client cannot sign with the key it showed.
    #[error("the client shows a certificate but does not hold its key")]
    BadSignature,
    /// The client does not offer this protocol.
    #[error("the client does not speak posthouse/1")]
    Alpn,
    /// The connection ended before it began.
    #[error(transparent)]
    Closed(CloseReason),
    /// Any other failure of the TLS handshake.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
}

/// The TLS alert that ended a handshake, whoever raised it.
fn alert(error: &ConnectionError) -> Option<u8> {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return None,
    };
    u8::try_from(u64::from(code).checked_sub(0x100)?).ok()
}

impl From<ConnectionError> for ConnectError {
    fn from(error: ConnectionError) -> Self {
        match (&error, alert(&error)) {
            (_, Some(ALERT_NO_APPLICATION_PROTOCOL)) => Self::Alpn,
            (_, Some(_)) => Self::Tls(CloseReason::from(error).to_string()),
            (ConnectionError::TimedOut, _) => Self::Timeout,
            (ConnectionError::ConnectionClosed(close), _)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Refused
            }
            _ => Self::Closed(error.into()),
        }
    }
}

impl From<ConnectionError> for HandshakeError {
    fn from(error: ConnectionError) -> Self {
        match (&error, alert(&error)) {
            (ConnectionError::TransportError(_), Some(ALERT_DECRYPT_ERROR)) => Self::BadSignature,
            (_, Some(ALERT_NO_APPLICATION_PROTOCOL)) => Self::Alpn,
            (_, Some(_)) => Self::Tls(CloseReason::from(error).to_string()),
            (ConnectionError::TimedOut, _) => Self::Timeout,
            _ => Self::Closed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_as_the_reason_moves_no_cursor() {
        let reason = b"bye\x1b[2J\nposthouse: all is well\xff".to_vec().into();
        let close = quinn::ApplicationClose { error_code: CloseCode::NotAllowed.number().into(), reason };
        let words = CloseReason::from(ConnectionError::ApplicationClosed(close)).to_string();
        assert!(words.contains("bye") && !words.contains(char::is_control), "{words:?}");
    }
}
