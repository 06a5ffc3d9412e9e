//! What can be wrong with bytes from the other side, and the codes a connection is closed with.
//!
//! One map, [`WireError::close_code`], turns the first into the second. docs/PROTOCOL.md lists both.

use super::frame::FrameType;

/// The other side broke the protocol; it is always the peer's fault. The connection is closed, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The length in front of a frame is above the fixed limit.
    #[error("a frame of {length} bytes; the limit is {max}")]
    FrameTooLong {
        /// What the frame says.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The content of a frame is not the MessagePack map its type wants.
    #[error("{frame:?} is malformed: {detail}")]
    Malformed {
        /// Which frame.
        frame: FrameType,
        /// What the decoder found.
        detail: String,
    },
    /// A type number below 0x8000 that this version does not have.
    #[error("frame type {0:#06x} is not known")]
    UnknownFrame(u16),
    /// A frame that this stream, this side or this moment does not allow.
    #[error("{frame:?} is not expected {place}")]
    Unexpected {
        /// Which frame.
        frame: FrameType,
        /// Where it came.
        place: &'static str,
    },
    /// A value outside what the field allows.
    #[error("{frame:?} has a value that is not allowed: {what}")]
    BadValue {
        /// Which frame.
        frame: FrameType,
        /// The field and its rule.
        what: &'static str,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

impl WireError {
    /// The code that the connection is closed with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::FrameTooLong { .. } => CloseCode::FrameTooLong,
            Self::Malformed { .. } | Self::Truncated => CloseCode::Malformed,
            Self::UnknownFrame(_) => CloseCode::UnknownFrame,
            Self::Unexpected { .. } => CloseCode::UnexpectedFrame,
            Self::BadValue { .. } => CloseCode::BadValue,
        }
    }
}

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a connection was closed: the application error code of QUIC's CONNECTION_CLOSE (RFC 9000,
        /// section 19.19).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum CloseCode {
            $($(#[doc = $doc])+ $name = $number,)*
        }

        impl CloseCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The name that documents, logs and clients use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The code with this number, if this version has it.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// Whoever closed is done.
    Done = 0x00, "done";
    /// The relay stops or sheds load: come back later.
    GoingAway = 0x01, "going_away";
    /// A newer session of the same peer took over: do not come back.
    Superseded = 0x02, "superseded";
    /// MSG:N stayed unacknowledged through the last attempt: come back when messages can be taken.
    Stalled = 0x03, "stalled";
    /// More outcomes waited for this session than the limit allows: come back and ask with R:WHERE.
    Overflow = 0x04, "overflow";
    /// The store cannot be written now: come back later.
    Unavailable = 0x05, "unavailable";
    /// The client showed no certificate.
    NoIdentity = 0x10, "no_identity";
    /// No R:HELLO in time.
    HelloTimeout = 0x11, "hello_timeout";
    /// No common version.
    Version = 0x12, "version";
    /// This relay does not let this peer, or this relay, in.
    NotAllowed = 0x13, "not_allowed";
    /// The relay has as many connections as it takes, or too many came from one address.
    TooManyConnections = 0x14, "too_many_connections";
    /// The peer has no mailbox here, and this relay makes one for an invitation only: none was shown, or it is unknown,
    /// used up or expired.
    NotInvited = 0x15, "not_invited";
    /// A frame above the fixed limit.
    FrameTooLong = 0x20, "frame_too_long";
    /// Bytes that are not the frame they claim to be.
    Malformed = 0x21, "malformed";
    /// A frame type below 0x8000 that is not known.
    UnknownFrame = 0x22, "unknown_frame";
    /// A known frame at the wrong place.
    UnexpectedFrame = 0x23, "unexpected_frame";
    /// A field outside its rule.
    BadValue = 0x24, "bad_value";
}

impl CloseCode {
    /// Whether a client should connect again by itself.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Done
                | Self::GoingAway
                | Self::Stalled
                | Self::Overflow
                | Self::Unavailable
                | Self::HelloTimeout
                | Self::TooManyConnections
        )
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
