//! UDP sockets, and the one datagram of ours that is not QUIC.
//!
//! **The wake datagram.** A client that only waits learns of a relay's restart at its next keep-alive, when the
//! packet is answered with a stateless reset. So a restarted relay sends each client it remembers one small
//! datagram, and the client says something at once. Anybody can forge one; all it does is to make the client
//! send a packet, once a second at most.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::udp::Transmit;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::sync::Notify;

use super::error::BindError;
use super::filter::Filter;
use super::shutter::Shutter;
use super::udp::Udp;

/// Bytes of the kernel's buffers, where it allows so much: 10 ms at 400 MB/s. The usual 208 KiB lose packets
/// as soon as a few hundred clients speak at once.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// What a restarted relay sends. The fixed bit (0x40) of its first byte is clear, so it is no QUIC packet
/// (RFC 9000, section 17.3).
pub(super) const WAKE: [u8; 24] = *b"\0posthouse wake 1\0\0\0\0\0\0\0";

/// The least time between two wake-ups that a client heeds.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);

/// Where an endpoint's datagrams come from and go to.
#[derive(Debug, Clone)]
pub enum Socket {
    /// A UDP socket of the operating system at this address. `[::]` serves IPv4 as well, and where there is no
    /// IPv6 it becomes `0.0.0.0`.
    Bind(SocketAddr),
    /// One that is given, with the clock and the tasks that go with it: a simulation's.
    Custom {
        /// The socket.
        socket: Arc<dyn AsyncUdpSocket>,
        /// Its clock and its tasks.
        runtime: Arc<dyn Runtime>,
    },
}

/// A socket that is open, and whose clock and tasks it uses.
pub(super) type Opened = (Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>);

impl Socket {
    /// One of the operating system at an address of its choosing: for who only connects.
    #[must_use]
    pub const fn anywhere() -> Self {
        Self::Bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0))
    }

    pub(super) fn open(self) -> Result<Opened, BindError> {
        match self {
            Self::Custom { socket, runtime } => Ok((socket, runtime)),
            Self::Bind(address) => wrap(bind(address)?),
        }
    }

    /// A relay's, with what the kernel can keep away from it.
    pub(super) fn open_shuttered(self) -> Result<(Opened, Option<Shutter>), BindError> {
        match self {
            Self::Custom { .. } => Ok((self.open()?, None)),
            Self::Bind(address) => {
                let socket = bind(address)?;
                let shutter = Shutter::new(&socket);
                Ok((wrap(socket)?, shutter))
            }
        }
    }
}

fn wrap(socket: std::net::UdpSocket) -> Result<Opened, BindError> {
    Ok((Udp::new(socket)?, Arc::new(TokioRuntime)))
}

fn bind(address: SocketAddr) -> Result<std::net::UdpSocket, BindError> {
    bind_exactly(address)
        .or_else(|error| without_ipv6(address, &error).map_or(Err(error), bind_exactly))
        .map_err(|source| BindError::Socket { address, source })
}

fn bind_exactly(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Type};
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "this socket serves IPv6 only");
    }
    // The kernel clips what it does not allow; what it refuses is no reason not to start.
    for set in [socket2::Socket::set_recv_buffer_size, socket2::Socket::set_send_buffer_size] {
        if let Err(error) = set(&socket, KERNEL_BUFFER_BYTES) {
            tracing::debug!(%error, "the socket keeps its small buffers");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The address to take instead of `[::]` on a machine without IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let unspecified = address.is_ipv6() && address.ip().is_unspecified();
    (absent && unspecified).then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
}

/// An address as people write it: one of IPv4 that an IPv6 socket shows as `::ffff:a.b.c.d` is one of IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Sends the wake datagram, once, as soon as the kernel takes it.
pub(super) async fn send_wake(socket: &Arc<dyn AsyncUdpSocket>, to: SocketAddr) -> io::Result<()> {
    let destination = match (socket.local_addr()?, to) {
        (SocketAddr::V6(_), SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        _ => to,
    };
    let transmit = Transmit { destination, ecn: None, contents: &WAKE, segment_size: None, src_ip: None };
    let mut writable = socket.clone().create_io_poller();
    loop {
        match socket.try_send(&transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| writable.as_mut().poll_writable(context)).await?;
            }
            sent => return sent,
        }
    }
}

/// Remembers that a relay called, until somebody asks.
pub(super) struct Bell {
    runtime: Arc<dyn Runtime>,
    caller: Mutex<Option<SocketAddr>>,
    /// When the last call was heeded.
    heeded: Mutex<Option<Instant>>,
    ring: Notify,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Bell {
    pub(super) fn new(runtime: Arc<dyn Runtime>) -> Arc<Self> {
        Arc::new(Self { runtime, caller: Mutex::default(), heeded: Mutex::default(), ring: Notify::new() })
    }

    fn call(&self, from: SocketAddr) {
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canonical(from));
        self.ring.notify_one();
    }

    /// Waits for a call. Cancel-safe: the call is taken in the same step that returns it.
    pub(super) async fn called(&self) -> SocketAddr {
        loop {
            let heeded = *self.heeded.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = heeded {
                let passed = self.runtime.now().saturating_duration_since(last);
                tokio::time::sleep(WAKE_INTERVAL.saturating_sub(passed)).await;
            }
            self.ring.notified().await;
            // Several may wait: the call is given to one of them.
            if let Some(caller) = self.caller.lock().unwrap_or_else(PoisonError::into_inner).take() {
                *self.heeded.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.runtime.now());
                return caller;
            }
        }
    }
}

/// Takes wake datagrams out of what a client received.
impl Filter for Arc<Bell> {
    fn received(&self, from: SocketAddr, datagrams: &mut [u8], stride: usize) -> usize {
        let Some(rest) = take_wake(datagrams, stride) else { return datagrams.len() };
        self.call(from);
        rest
    }
}

/// If a wake datagram is among what was received, how many bytes remain for quinn, which passes over empty
/// reads. The kernel may hand over several datagrams of one sender as one, `stride` bytes each, the last one
/// shorter: a wake datagram at the end is cut off; one in between is left for quinn to drop.
fn take_wake(received: &[u8], stride: usize) -> Option<usize> {
    // Nearly everything received is longer, and stops here.
    if received.len() != WAKE.len() && stride != WAKE.len() && received.len() % stride.max(1) != WAKE.len() {
        return None;
    }
    let mut rest = received;
    if !rest.chunks(stride.max(1)).any(|datagram| datagram == WAKE) {
        return None;
    }
    while let Some(last) = rest.chunks(stride.max(1)).next_back() {
        if last != WAKE {
            break;
        }
        rest = rest.get(..rest.len() - last.len()).unwrap_or_default();
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_datagram_is_taken_out_wherever_the_kernel_puts_it() {
        let packet = [0x40; 30];
        let both = [&packet[..], &WAKE].concat();
        let three = [WAKE, WAKE, WAKE].concat();
        let inside = [&[0x40; 24][..], &WAKE, &[0x40; 24]].concat();
        for (received, stride, rest) in [
            (&WAKE[..], 24, Some(0)),
            (&both, 30, Some(30)),
            (&three, 24, Some(0)),
            // What quinn drops by itself, it may have.
            (&inside, 24, Some(72)),
            (&both, 54, None),
            (&packet, 30, None),
            (&WAKE[..23], 23, None),
            (&[], 0, None),
        ] {
            assert_eq!(take_wake(received, stride), rest, "{} bytes by {stride}", received.len());
        }
    }

    #[test]
    fn without_ipv6_only_the_unspecified_address_becomes_one_of_ipv4() {
        let absent = io::Error::from_raw_os_error(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let any: SocketAddr = "[::]:4433".parse().unwrap();
        assert_eq!(without_ipv6(any, &absent), Some("0.0.0.0:4433".parse().unwrap()));
        assert_eq!(without_ipv6("[::1]:4433".parse().unwrap(), &absent), None);
        assert_eq!(without_ipv6(any, &taken), None);
    }
}
