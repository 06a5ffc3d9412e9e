//! QUIC and TLS: connections that know by key who is at the other end, and streams of frames on them.
//!
//! ```text
//!  endpoint    RelayEndpoint accepts, ClientEndpoint connects; one UDP socket each
//!     |
//!  connection  open and accept streams, close with a reason, learn why it ended
//!     |
//!  stream      FrameSender gathers frames into few writes, FrameReceiver cuts them out again
//! ```
//!
//! `tls` decides who may be at the other end, `config` how much memory and time a connection may cost, `socket` where
//! the datagrams go, and `udp` how, `filter` looks at them before quinn does, `sieve` says which of them a relay leaves unread,
//! `shutter` has the kernel drop those, `readiness` spares looks at streams that brought nothing, `watch` shows frames to
//! people. Only this module names quinn and rustls. It knows nothing about sessions, messages or stores.

mod config;
mod connection;
mod endpoint;
mod error;
mod filter;
mod readiness;
mod shutter;
mod sieve;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod udp;
mod watch;

pub use config::{Determinism, TransportLimits};
pub use connection::Connection;
pub use endpoint::{ClientEndpoint, Incoming, RelayEndpoint};
pub use error::{BindError, CloseReason, ConnectError, HandshakeError, TransportError};
pub(crate) use sieve::network;
pub use socket::Socket;
pub use stream::{DEFAULT_SEND_BUFFER_BYTES, FrameReceiver, FrameSender};
pub use watch::PACKETS;
