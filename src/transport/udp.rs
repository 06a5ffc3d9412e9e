//! A UDP socket of the operating system for quinn, which costs fewer system calls than quinn's own.
//!
//! A read that took fewer datagrams than it had room for has found the socket empty: it is not read once more to learn
//! that. And before it was full for the first time, the kernel does not tell with each datagram that leaves it that there
//! is room for another. With few messages at a time that is half of all reads, and a look at the network for each answer.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether one read takes all that is there, if it has room for it; elsewhere it may take one datagram at a time.
const READS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Udp {
    state: UdpSocketState,
    readable: AsyncFd<UdpSocket>,
    /// The same socket, once it was full.
    writable: OnceLock<AsyncFd<UdpSocket>>,
}

#[expect(deprecated, reason = "it is for descriptors that change or close meanwhile: that of an std socket does not")]
fn registered(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

impl Udp {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        let readable = registered(socket, Interest::READABLE)?;
        Ok(Arc::new(Self { state, readable, writable: OnceLock::new() }))
    }

    fn send(&self, socket: &UdpSocket, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send(socket.into(), transmit)
    }

    /// From now on the kernel tells when there is room.
    fn was_full(&self) -> io::Result<()> {
        if self.writable.get().is_none() {
            let socket = self.readable.get_ref().try_clone()?;
            // Another thread may have been faster.
            self.writable.set(registered(socket, Interest::WRITABLE)?).ok();
        }
        Ok(())
    }
}

impl AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, room: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Some(writable) = self.writable.get() {
            return writable.try_io(Interest::WRITABLE, |socket| self.send(socket, transmit));
        }
        match self.send(self.readable.get_ref(), transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.was_full() {
                Ok(()) => Err(error),
                // Nobody would say when there is room. The datagram is lost, as on any full network.
                Err(_) => Ok(()),
            },
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.readable.poll_read_ready(context))?;
            match self.state.recv(self.readable.get_ref().into(), buffers, metas) {
                Ok(received) => {
                    // What has come since then makes it readable again: the kernel has told of that anew.
                    if READS_ALL && received < buffers.len() {
                        readable.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                Err(error) => {
                    // To quinn it would be the end of all connections. It is that of one read.
                    tracing::debug!(%error, "datagrams could not be read");
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.readable.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type Room = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for one task until the socket can be written to.
struct Poller {
    socket: Arc<Udp>,
    room: Option<Room>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("waits", &self.room.is_some()).finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.writable.get().is_none() {
            return Poll::Ready(Ok(()));
        }
        let socket = self.socket.clone();
        let wait = || -> Room {
            Box::pin(async move {
                match socket.writable.get() {
                    Some(writable) => writable.writable().await.map(drop),
                    None => Ok(()),
                }
            })
        };
        let waited = ready!(self.room.get_or_insert_with(wait).as_mut().poll(context));
        self.room = None;
        Poll::Ready(waited)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use quinn::udp::BATCH_SIZE;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn loopback() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// Waits for datagrams; how many came.
    async fn receive(udp: &Udp) -> usize {
        let mut space = [[0; 64]; BATCH_SIZE];
        let mut buffers = space.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let received = poll_fn(|context| udp.poll_recv(context, &mut buffers, &mut metas));
        tokio::time::timeout(10 * SECOND, received).await.expect("what was sent is received").unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_just_after_a_read_is_received_though_nothing_follows_it() {
        let (udp, sender) = (Udp::new(loopback()).unwrap(), loopback());
        let to = udp.local_addr().unwrap();
        for round in 0..20_000_u32 {
            let sender = sender.try_clone().unwrap();
            let sending = tokio::spawn(async move {
                sender.send_to(b"one", to).unwrap();
                for _ in 0..round % 499 {
                    std::hint::spin_loop();
                }
                sender.send_to(b"two", to).unwrap();
            });
            let mut received = 0;
            while received < 2 {
                received += receive(&udp).await;
            }
            sending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_waits_is_received_however_much_it_is() {
        let (udp, sender) = (Udp::new(loopback()).unwrap(), loopback());
        for count in [1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 3 * BATCH_SIZE] {
            for _ in 0..count {
                sender.send_to(b"one", udp.local_addr().unwrap()).unwrap();
            }
            let mut received = 0;
            while received < count {
                received += receive(&udp).await;
            }
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_full_is_written_to_as_soon_as_the_kernel_says_that_there_is_room() {
        let (udp, receiver) = (Udp::new(loopback()).unwrap(), loopback());
        receiver.set_nonblocking(false).unwrap();
        receiver.set_read_timeout(Some(10 * SECOND)).unwrap();
        let transmit = Transmit {
            destination: receiver.local_addr().unwrap(),
            ecn: None,
            contents: b"at last",
            segment_size: None,
            src_ip: None,
        };
        let mut pollers = [(); 2].map(|()| udp.clone().create_io_poller());
        // Nothing on loopback waits in the socket that it was sent from, so this one is never full by itself.
        udp.was_full().unwrap();
        let error = udp.try_send(&transmit).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it has not been told of room yet");
        for _ in 0..2 {
            for poller in &mut pollers {
                let room = poll_fn(|context| poller.as_mut().poll_writable(context));
                tokio::time::timeout(10 * SECOND, room).await.expect("there is room").unwrap();
                udp.try_send(&transmit).unwrap();
                assert_eq!(receiver.recv(&mut [0; 64]).unwrap(), 7);
            }
        }
    }
}
