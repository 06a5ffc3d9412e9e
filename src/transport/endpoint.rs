//! Endpoints: a relay's, which accepts, and a client's, which connects.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncUdpSocket, VarInt};

use super::config::{self, CLIENT_LARGE_FRAMES, Chance, Determinism, RELAY_LARGE_FRAMES, TransportLimits};
use super::connection::Connection;
use super::error::{BindError, ConnectError, HandshakeError};
use super::filter::Filtered;
use super::sieve::Sieve;
use super::socket::{Bell, Socket, canonical, send_wake};
use super::tls::{self, ClientTls, SERVER_NAME};
use crate::id::{PeerId, RelayId};
use crate::identity::Identity;
use crate::measure::Counter;
use crate::protocol::{CloseCode, clip_text};
use crate::random::Entropy;

/// A relay's endpoint. Clones are the same one.
#[derive(Clone)]
pub struct RelayEndpoint {
    quinn: quinn::Endpoint,
    socket: Arc<dyn AsyncUdpSocket>,
    unread: Arc<Counter>,
    here: PeerId,
    handshake_timeout: Duration,
}

impl fmt::Debug for RelayEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayEndpoint").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl RelayEndpoint {
    /// Listens. Takes a few draws of `entropy` now and none later.
    ///
    /// # Errors
    /// [`BindError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(
        socket: Socket,
        identity: &Identity,
        limits: &TransportLimits,
        entropy: &dyn Entropy,
        determinism: Option<&Determinism>,
    ) -> Result<Self, BindError> {
        let tls = tls::relay(identity, determinism)?;
        Self::with_tls(socket, identity, limits, entropy, determinism, tls)
    }

    pub(super) fn with_tls(
        socket: Socket,
        identity: &Identity,
        limits: &TransportLimits,
        entropy: &dyn Entropy,
        determinism: Option<&Determinism>,
        tls: quinn::crypto::rustls::QuicServerConfig,
    ) -> Result<Self, BindError> {
        let server = config::relay(identity, limits, determinism, tls);
        let endpoint = config::relay_endpoint(identity, limits, entropy);
        let ((socket, runtime), shutter) = socket.open_shuttered()?;
        let sieve = Sieve::new(runtime.clone(), limits.first_packets_per_address, shutter);
        let unread = sieve.unread();
        let sieved = Filtered::new(socket.clone(), sieve);
        let quinn = quinn::Endpoint::new_with_abstract_socket(endpoint, Some(server), sieved, runtime)?;
        let here = identity.peer_id();
        Ok(Self { quinn, socket, unread, here, handshake_timeout: limits.handshake_timeout })
    }

    /// How many first packets of handshakes were left unread; it counts on.
    #[must_use]
    pub fn unread(&self) -> Arc<Counter> {
        self.unread.clone()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// The next connection attempt; `None` once the endpoint is closed. No handshake is done here, so this
    /// never waits for a client.
    ///
    /// # Cancel safety
    /// Safe: an attempt is either returned or still waits.
    pub async fn accept(&self) -> Option<Incoming> {
        let attempt = self.quinn.accept().await?;
        Some(Incoming { attempt, here: self.here, timeout: self.handshake_timeout })
    }

    /// Tells a client that the relay was started anew, so that it says something and learns that its connection
    /// is lost. Sent once; whether it arrives nobody knows.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// Dropped, nothing is sent.
    pub async fn wake(&self, client: SocketAddr) -> io::Result<()> {
        send_wake(&self.socket, client).await
    }

    /// Connections that are open, handshakes and those that are being closed included.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.quinn.open_connections()
    }

    /// Closes all connections and accepts no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.quinn.close(VarInt::from_u32(code.number()), clip_text(reason).as_bytes());
    }

    /// Waits until the other sides of all closed connections were told.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn wait_idle(&self) {
        self.quinn.wait_idle().await;
    }
}

/// A connection attempt that nothing was done about yet. Dropped, it is refused.
#[derive(Debug)]
pub struct Incoming {
    attempt: quinn::Incoming,
    here: PeerId,
    timeout: Duration,
}

impl Incoming {
    /// Where it seems to come from; see [`Self::is_validated`].
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        canonical(self.attempt.remote_address())
    }

    /// Whether the client has shown that it receives what is sent to [`Self::remote`].
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.attempt.remote_address_validated()
    }

    /// Makes the client show that it is where it says: it has to come again with a token. Costs next to
    /// nothing. A client that has shown it already is refused.
    pub fn retry(self) {
        // The error is the attempt, and dropping that refuses it.
        self.attempt.retry().ok();
    }

    /// Turns the client away.
    pub fn refuse(self) {
        self.attempt.refuse();
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// [`HandshakeError`]: the client's fault or the network's.
    ///
    /// # Cancel safety
    /// Dropped, the attempt is given up.
    pub async fn handshake(self) -> Result<Connection, HandshakeError> {
        let handshake = self.attempt.accept()?;
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(done) => Ok(Connection::new(done?, self.here, RELAY_LARGE_FRAMES)),
            Err(_) => Err(HandshakeError::Timeout),
        }
    }
}

/// A client's endpoint; also that of a relay towards other relays. Clones are the same one.
#[derive(Clone)]
pub struct ClientEndpoint {
    quinn: quinn::Endpoint,
    here: PeerId,
    tls: ClientTls,
    limits: TransportLimits,
    chance: Chance,
    bell: Arc<Bell>,
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEndpoint").field("bell", &self.bell).finish_non_exhaustive()
    }
}

impl ClientEndpoint {
    /// Takes a socket; connects to nothing yet. Takes a few draws of `entropy` now and none later.
    ///
    /// # Errors
    /// [`BindError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(
        socket: Socket,
        identity: &Identity,
        limits: &TransportLimits,
        entropy: &dyn Entropy,
        determinism: Option<&Determinism>,
    ) -> Result<Self, BindError> {
        Self::with_tls(socket, identity.peer_id(), limits, entropy, ClientTls::new(identity, determinism)?)
    }

    pub(super) fn with_tls(
        socket: Socket,
        here: PeerId,
        limits: &TransportLimits,
        entropy: &dyn Entropy,
        tls: ClientTls,
    ) -> Result<Self, BindError> {
        let (socket, runtime) = socket.open()?;
        let bell = Bell::new(runtime.clone());
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config::client_endpoint(limits, entropy),
            None,
            Filtered::new(socket, bell.clone()),
            runtime,
        )?;
        Ok(Self { quinn, here, tls, limits: limits.clone(), chance: Chance::new(entropy), bell })
    }

    /// Where it is.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Connects to the relay with this key at this place. That the relay takes this client is known only once it
    /// answers: a client's certificate is judged after the client's own part is done.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropped, the attempt is given up.
    pub async fn connect(
        &self,
        remote: SocketAddr,
        relay: RelayId,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let (tls, finding) = self.tls.towards(relay).map_err(|error| ConnectError::Tls(error.to_string()))?;
        let config = config::client(&self.limits, &self.chance, tls);
        if remote.is_ipv6() && self.local_addr()?.is_ipv4() {
            return Err(ConnectError::NoIpv6);
        }
        let attempt = self.quinn.connect_with(config, remote, SERVER_NAME).map_err(|error| {
            let kind = match error {
                quinn::ConnectError::InvalidRemoteAddress(_) => io::ErrorKind::InvalidInput,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })?;
        match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(connection)) => Ok(Connection::new(connection, self.here, CLIENT_LARGE_FRAMES)),
            Ok(Err(error)) => Err(finding.error(relay).unwrap_or_else(|| error.into())),
            Err(_) => Err(ConnectError::Timeout),
        }
    }

    /// Goes on from another socket, after a change of network. Connections move along.
    ///
    /// # Errors
    /// [`BindError`]; then the old socket stays.
    pub fn rebind(&self, socket: Socket) -> Result<(), BindError> {
        let (socket, _) = socket.open()?;
        Ok(self.quinn.rebind_abstract(Filtered::new(socket, self.bell.clone()))?)
    }

    /// Waits until a relay says that it was started anew, and returns where that came from. Nothing proves it:
    /// send something on the connection, and if it is lost its end follows. Returns once a second at most;
    /// calls in between are kept as one.
    ///
    /// # Cancel safety
    /// Safe: a call is either returned or still waits.
    pub async fn woken(&self) -> SocketAddr {
        self.bell.called().await
    }

    /// Closes all connections.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.quinn.close(VarInt::from_u32(code.number()), clip_text(reason).as_bytes());
    }

    /// Waits until the other sides of all closed connections were told.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn wait_idle(&self) {
        self.quinn.wait_idle().await;
    }
}
