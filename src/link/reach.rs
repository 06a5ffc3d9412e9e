//! Finding a relay among the places that its address names.
//!
//! Names are resolved anew each time. Places are tried in their order; where one keeps silent, the next is tried
//! beside it (as RFC 8305 has it), so that a dead one, or a network without IPv6, costs a moment and no more.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::LinkError;
use crate::address::{HostPort, RelayAddress};
use crate::id::RelayId;
use crate::transport::{ClientEndpoint, ConnectError, Connection};

/// How long one place has to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a place may keep silent before the next is tried as well: longer than most round trips, so that two
/// handshakes are the exception.
const STAGGER: Duration = Duration::from_millis(300);

/// How long a handshake may hang before it is begun anew beside. A relay that was killed in the middle of one and
/// started anew cannot answer it any more, and its clients are to be back within two seconds of that.
const AGAIN: Duration = Duration::from_millis(1500);

/// Places that one name is tried at.
const MAX_PLACES: usize = 8;

/// Connects to the relay, wherever it is.
pub(super) async fn connect(endpoint: &ClientEndpoint, relay: &RelayAddress) -> Result<Connection, LinkError> {
    let resolve = |host: HostPort| async move {
        let found = tokio::net::lookup_host((host.host, host.port)).await;
        found.map(|addresses| addresses.take(MAX_PLACES).collect())
    };
    connect_by(endpoint, relay, &resolve).await
}

async fn connect_by<R>(
    endpoint: &ClientEndpoint,
    relay: &RelayAddress,
    resolve: &impl Fn(HostPort) -> R,
) -> Result<Connection, LinkError>
where
    R: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    first(relay.hosts().iter().map(|host| connect_host(endpoint, relay.relay, host, resolve))).await
}

async fn connect_host<R>(
    endpoint: &ClientEndpoint,
    relay: RelayId,
    host: &HostPort,
    resolve: &impl Fn(HostPort) -> R,
) -> Result<Connection, LinkError>
where
    R: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let unresolved = |detail: &str| LinkError::Resolve { host: host.clone(), detail: detail.to_owned() };
    let addresses = match host.host.parse() {
        Ok(address) => vec![SocketAddr::new(address, host.port)],
        Err(_) => match tokio::time::timeout(RESOLVE_TIMEOUT, resolve(host.clone())).await {
            Ok(found) => found.map_err(|error| unresolved(&error.to_string()))?,
            Err(_) => return Err(unresolved("the resolver does not answer")),
        },
    };
    if addresses.is_empty() {
        return Err(unresolved("it has no address"));
    }
    let attempt = |address| async move {
        let connected = connect_place(endpoint, address, relay).await;
        connected.map_err(|error| LinkError::Connect { host: host.clone(), error })
    };
    first(addresses.into_iter().map(attempt)).await
}

async fn connect_place(
    endpoint: &ClientEndpoint,
    address: SocketAddr,
    relay: RelayId,
) -> Result<Connection, ConnectError> {
    let again = async {
        tokio::time::sleep(AGAIN).await;
        endpoint.connect(address, relay, CONNECT_TIMEOUT).await
    };
    tokio::select! {
        biased;
        connected = endpoint.connect(address, relay, CONNECT_TIMEOUT) => connected,
        Ok(connection) = again => Ok(connection),
    }
}

/// What the first attempt that succeeds gives, or how the first failed. Each begins once one before it has failed, or
/// all of them keep silent.
async fn first<T, F>(mut attempts: impl ExactSizeIterator<Item = F>) -> Result<T, LinkError>
where
    F: Future<Output = Result<T, LinkError>>,
{
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        running.extend(attempts.next());
        let silence = if attempts.len() > 0 { STAGGER } else { Duration::MAX };
        match tokio::time::timeout(silence, running.next()).await {
            Ok(Some(Ok(found))) => return Ok(found),
            Ok(Some(Err(error))) => drop(failed.get_or_insert(error)),
            Ok(None) => return Err(failed.unwrap_or(LinkError::Silent)),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::identity::Identity;
    use crate::random::SystemEntropy;
    use crate::transport::{RelayEndpoint, Socket, TransportLimits};

    fn who(number: u8) -> Identity {
        Identity::from_seed([number; 32])
    }

    /// A relay at loopback that shakes hands with everybody.
    fn relay() -> SocketAddr {
        let socket = Socket::Bind("127.0.0.1:0".parse().unwrap());
        let endpoint = RelayEndpoint::bind(socket, &who(1), &TransportLimits::default(), &SystemEntropy, None).unwrap();
        let at = endpoint.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some(attempt) = endpoint.accept().await {
                held.extend(attempt.handshake().await);
            }
        });
        at
    }

    fn client() -> ClientEndpoint {
        let socket = Socket::Bind("127.0.0.1:0".parse().unwrap());
        ClientEndpoint::bind(socket, &who(2), &TransportLimits::default(), &SystemEntropy, None).unwrap()
    }

    /// Where nobody answers.
    fn nowhere() -> (std::net::UdpSocket, SocketAddr) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    fn named(hosts: &[&str]) -> RelayAddress {
        format!("posthouse://{}@{}", who(1).relay_id(), hosts.join(",")).parse().unwrap()
    }

    #[tokio::test]
    async fn a_name_is_resolved_anew_at_each_attempt() {
        let (endpoint, at) = (client(), relay());
        let (_silent, old) = nowhere();
        let places = Mutex::new(vec![vec![at], vec![], vec![old]]);
        let resolve = |_| {
            let found = places.lock().unwrap().pop().unwrap();
            async move { Ok(found) }
        };
        let address = named(&["relay.example:1"]);
        let error = connect_by(&endpoint, &address, &resolve).await.unwrap_err();
        assert!(matches!(error, LinkError::Connect { .. }), "{error}");
        let error = connect_by(&endpoint, &address, &resolve).await.unwrap_err();
        assert_eq!(error.to_string(), "relay.example:1 cannot be found: it has no address");
        assert_eq!(connect_by(&endpoint, &address, &resolve).await.unwrap().remote(), at);
    }

    #[tokio::test]
    async fn a_place_that_keeps_silent_does_not_keep_the_next_from_being_tried() {
        let (endpoint, at) = (client(), relay());
        let (_silent, dead) = nowhere();
        let never = |_| std::future::pending();
        let address = named(&["name.example:1", &dead.to_string(), &at.to_string()]);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect_by(&endpoint, &address, &never)).await;
        assert_eq!(connected.expect("before the first gives up").unwrap().remote(), at);
        let (both, address) = (|_| async move { Ok(vec![dead, at]) }, named(&["both.example:1"]));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect_by(&endpoint, &address, &both)).await;
        assert_eq!(connected.expect("before the first gives up").unwrap().remote(), at);
    }

    #[tokio::test]
    async fn a_handshake_that_nobody_goes_on_with_is_begun_anew_before_it_is_given_up() {
        let socket = Socket::Bind("127.0.0.1:0".parse().unwrap());
        let relay = RelayEndpoint::bind(socket, &who(1), &TransportLimits::default(), &SystemEntropy, None).unwrap();
        let at = relay.local_addr().unwrap();
        tokio::spawn(async move {
            let _hangs = relay.accept().await;
            let _held = relay.accept().await.unwrap().handshake().await;
            std::future::pending::<()>().await;
        });
        let client = client();
        assert_eq!(connect(&client, &named(&[&at.to_string()])).await.unwrap().remote(), at);
    }

    #[tokio::test]
    async fn an_address_that_this_socket_cannot_reach_is_an_error_that_says_so() {
        let error = connect(&client(), &named(&["[::1]:1"])).await.unwrap_err().to_string();
        assert!(error.starts_with("[::1]:1: ") && error.contains("IPv6"), "{error}");
    }
}
