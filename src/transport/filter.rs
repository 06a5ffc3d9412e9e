//! A UDP socket with somebody who looks at what was received before quinn does, and takes out what quinn is not to see.
//! Everything else goes through it as it is.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Who looks.
pub(super) trait Filter: fmt::Debug + Send + Sync + 'static {
    /// The kernel may hand over several datagrams of one sender as one: `stride` bytes each, the last one shorter. How
    /// many bytes from their beginning quinn may read; it passes over none.
    fn received(&self, from: SocketAddr, datagrams: &mut [u8], stride: usize) -> usize;
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Filtered<F> {
    inner: Arc<dyn AsyncUdpSocket>,
    filter: F,
}

impl<F: Filter> Filtered<F> {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, filter: F) -> Arc<Self> {
        Arc::new(Self { inner, filter })
    }
}

impl<F: Filter> AsyncUdpSocket for Filtered<F> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(context, buffers, metas))?;
        for (meta, buffer) in metas.iter_mut().zip(buffers.iter_mut()).take(received) {
            let datagrams = buffer.get_mut(..meta.len).unwrap_or_default();
            meta.len = self.filter.received(meta.addr, datagrams, meta.stride.max(1));
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
