//! The network: one switch between all hosts, with weather, cuts, and addresses that change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use posthouse::transport::Socket;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, TokioRuntime, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chance::Chance;
use super::life::Life;
use super::trace::{Fate, Trace};

/// Datagrams that one socket holds unread, as a kernel would.
const UNREAD: usize = 512;

/// What the network does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Percent that are lost.
    pub(crate) loss: u64,
    /// Percent that come twice.
    pub(crate) twice: u64,
    /// Percent in which bits change.
    pub(crate) corrupt: u64,
    /// Percent that are late, and so come out of order.
    pub(crate) late: u64,
    /// How late, ms.
    pub(crate) late_ms: u64,
    /// How long the others take, ms: from, to.
    pub(crate) delay_ms: (u64, u64),
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FAIR: Self = Self { loss: 0, twice: 0, corrupt: 0, late: 0, late_ms: 0, delay_ms: (1, 5) };
}

/// A host by its number.
pub(crate) type HostNumber = u8;

/// Where a host's datagrams come from at first.
pub(crate) fn address(host: HostNumber, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, host, 1), port).into()
}

type Due = Reverse<(Instant, u64)>;

struct State {
    chance: Chance,
    weather: Weather,
    /// From which host to which nothing goes.
    cut: BTreeSet<(HostNumber, HostNumber)>,
    ports: BTreeMap<SocketAddr, Arc<Port>>,
    next_port: u16,
    /// When the datagrams that are on their way arrive.
    due: BinaryHeap<Due>,
    on_the_way: BTreeMap<u64, (HostNumber, SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
}

/// Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net {
    trace: Trace,
    state: Arc<Mutex<State>>,
    more: Arc<Notify>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

impl Net {
    pub(crate) fn new(chance: Chance, trace: Trace) -> Self {
        let state = State {
            chance,
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            ports: BTreeMap::new(),
            next_port: 10_000,
            due: BinaryHeap::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
        };
        Self { trace, state: Arc::new(Mutex::new(state)), more: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// From now on nothing goes from one to the other, or it does again.
    pub(crate) fn cut(&self, from: HostNumber, to: HostNumber, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cut.insert((from, to))
        } else {
            state.cut.remove(&(from, to))
        };
    }

    /// Nothing is cut any more.
    pub(crate) fn mend(&self) {
        self.state().cut.clear();
    }

    /// A socket of a process on this host, at this port or any.
    pub(crate) fn socket(&self, host: HostNumber, port: Option<u16>, life: &Life) -> Socket {
        let mut state = self.state();
        let at = address(host, port.unwrap_or(state.next_port));
        state.next_port += 1;
        let port = Arc::new(Port {
            net: self.clone(),
            life: life.clone(),
            host,
            inside: at,
            outside: Mutex::new(at),
            unread: Mutex::default(),
        });
        state.ports.insert(at, port.clone());
        Socket::Custom { socket: port, runtime: Arc::new(TokioRuntime) }
    }

    /// Whatever stands between this host and the others gives all its sockets but that of this port other addresses.
    pub(crate) fn move_host(&self, host: HostNumber, but: Option<u16>) {
        let mut state = self.state();
        let theirs = |port: &&Arc<Port>| port.host == host && but != Some(port.inside.port());
        let moved: Vec<_> = state.ports.values().filter(theirs).cloned().collect();
        for port in moved {
            state.next_port += 1;
            let now = (Ipv4Addr::new(10, 1, host, 1), state.next_port).into();
            let before = std::mem::replace(&mut *port.outside.lock().unwrap(), now);
            state.ports.remove(&before);
            state.ports.insert(now, port);
        }
    }

    fn send(&self, from: &Port, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        let outside = *from.outside.lock().unwrap();
        let weather = state.weather;
        if state.chance.percent(weather.loss) {
            return self.trace.datagram(Fate::Lost, outside, to, bytes);
        }
        self.trace.datagram(Fate::Sent, outside, to, bytes);
        let copies = if state.chance.percent(weather.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if state.chance.percent(weather.corrupt) && !bytes.is_empty() {
                let at = state.chance.index(bytes.len());
                bytes[at] ^= 1 << state.chance.below(8);
            }
            let (least, most) = weather.delay_ms;
            let mut delay = state.chance.time(least, most);
            if state.chance.percent(weather.late) {
                delay += state.chance.time(0, weather.late_ms);
            }
            state.sent += 1;
            let number = state.sent;
            state.due.push(Reverse((Instant::now() + delay, number)));
            state.on_the_way.insert(number, (from.host, outside, to, bytes));
        }
        drop(state);
        self.more.notify_one();
    }

    /// Brings datagrams to where they are to go, for ever.
    pub(crate) async fn run(self) {
        loop {
            let next = self.state().due.peek().map(|Reverse((at, _))| *at);
            match next {
                None => self.more.notified().await,
                Some(at) if at <= Instant::now() => self.arrive(),
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = self.more.notified() => {}
                },
            }
        }
    }

    fn arrive(&self) {
        let mut state = self.state();
        let Some(Reverse((_, number))) = state.due.pop() else { return };
        let (host, from, to, bytes) = state.on_the_way.remove(&number).unwrap();
        let port = state.ports.get(&to).cloned();
        let cut = port.as_ref().is_some_and(|port| state.cut.contains(&(host, port.host)));
        drop(state);
        let fate = match &port {
            _ if cut => Fate::Cut,
            Some(port) if !port.life.is_over() => Fate::Arrived,
            _ => Fate::Nowhere,
        };
        self.trace.datagram(fate, from, to, &bytes);
        if let (Fate::Arrived, Some(port)) = (fate, port) {
            port.receive(from, bytes);
        }
    }

    /// Forgets the sockets of the dead.
    pub(crate) fn bury(&self) {
        self.state().ports.retain(|_, port| !port.life.is_over());
    }
}

#[derive(Default)]
struct Unread {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

/// One socket.
struct Port {
    net: Net,
    life: Life,
    host: HostNumber,
    /// Where it thinks it is.
    inside: SocketAddr,
    /// Where the others see it.
    outside: Mutex<SocketAddr>,
    unread: Mutex<Unread>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl Port {
    fn receive(&self, from: SocketAddr, bytes: Vec<u8>) {
        let mut unread = self.unread.lock().unwrap();
        if unread.datagrams.len() < UNREAD {
            unread.datagrams.push_back((from, bytes));
        }
        if let Some(reader) = unread.reader.take() {
            reader.wake();
        }
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Port {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    // Never an error: that would end the whole endpoint, where UDP says nothing.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.life.is_over() {
            self.net.send(self, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut unread = self.unread.lock().unwrap();
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((addr, bytes)) = unread.datagrams.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            received += 1;
        }
        if received == 0 {
            unread.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inside)
    }
}
