//! The one way from host to host: a router in user space, which every datagram passes and which may treat it
//! badly, since kernels come without `netem`.
//!
//! Hosts have private addresses and are behind address translation. A host that is *published* has a public address
//! with a door: what others send there, the router passes on, from an outer socket of its own for each flow. So
//! the one host sees the other at a public address and port, and these can change in mid-flow as those of a real
//! translator do. All of it is bounded: flows, datagrams on their way, and what a kernel's socket buffers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::link::{Chance, Counts, Direction, Quality, Queue, Way};
use super::namespace::Namespace;

/// Flows at one time. More than this no test has.
const FLOWS: usize = 256;

/// No datagram is larger.
const DATAGRAM_BYTES: usize = 65_536;

/// What the kernel keeps while this process has no time, if it allows so much.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// A host's number: the third number of its private address.
pub(crate) type HostNumber = u8;

/// See the head of this file.
pub(crate) struct Router {
    shared: Arc<Shared>,
    doors: Mutex<JoinSet<()>>,
}

struct Shared {
    namespace: Namespace,
    state: Mutex<State>,
    /// Something is due earlier than before.
    earlier: Notify,
}

struct State {
    chance: Chance,
    directions: HashMap<(HostNumber, bool), Direction>,
    /// What lies between the links of two hosts, seen from the first; where nothing is named, nothing.
    between: HashMap<(HostNumber, HostNumber), Direction>,
    queue: Queue<Datagram>,
    counts: Counts,
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// Outer sockets that are no longer in use. They stay open and deaf: a translator does not say that it has
    /// forgotten.
    deaf: Vec<Arc<UdpSocket>>,
    readers: JoinSet<()>,
    /// How many outer addresses were given to each host.
    addresses: HashMap<HostNumber, u8>,
}

/// One host's way through one door of another.
struct Flow {
    outer: Arc<UdpSocket>,
    reader: tokio::task::AbortHandle,
    door: Arc<UdpSocket>,
    /// Where the door leads.
    inside: SocketAddr,
}

struct Datagram {
    bytes: Vec<u8>,
    by: Arc<UdpSocket>,
    to: SocketAddr,
}

/// Whose private address this is.
fn host(address: SocketAddr) -> HostNumber {
    match address.ip() {
        IpAddr::V4(address) => address.octets()[2],
        IpAddr::V6(_) => unreachable!("there is IPv4 alone"),
    }
}

impl Router {
    /// One that lives in this namespace. Its dice fall by `seed`.
    pub(crate) fn new(namespace: Namespace, seed: u64) -> Self {
        let state = State {
            chance: Chance::new(seed),
            directions: HashMap::new(),
            between: HashMap::new(),
            queue: Queue::default(),
            counts: Counts::default(),
            flows: HashMap::new(),
            deaf: Vec::new(),
            readers: JoinSet::new(),
            addresses: HashMap::new(),
        };
        let shared = Arc::new(Shared { namespace, state: Mutex::new(state), earlier: Notify::new() });
        let mut doors = JoinSet::new();
        doors.spawn(send_what_is_due(shared.clone()));
        Self { shared, doors: Mutex::new(doors) }
    }

    /// Its place in the kernel.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// Passes on to `inside`, a private address, what is sent to `door`, a public one.
    pub(crate) fn publish(&self, door: SocketAddr, inside: SocketAddr) {
        let socket = self.shared.socket(door).unwrap();
        self.doors.lock().unwrap().spawn(serve_door(self.shared.clone(), socket, door, inside));
    }

    /// From now on this is what the link of a host does, in this direction.
    pub(crate) fn set(&self, host: HostNumber, way: Way, quality: Quality) {
        let mut state = self.shared.state.lock().unwrap();
        state.directions.entry((host, way == Way::Up)).or_default().quality = quality;
    }

    /// From now on this is what happens on the way from one host to another, and only there.
    pub(crate) fn set_between(&self, from: HostNumber, to: HostNumber, quality: Quality) {
        self.shared.state.lock().unwrap().between.entry((from, to)).or_default().quality = quality;
    }

    /// From now on others see a host at other ports, or at another address. What is sent to the old ones is lost.
    pub(crate) fn translate_anew(&self, number: HostNumber, to_another_address: bool) {
        let mut state = self.shared.state.lock().unwrap();
        if to_another_address {
            *state.addresses.entry(number).or_default() += 1;
        }
        let flows: Vec<_> = state.flows.keys().filter(|(from, _)| host(*from) == number).copied().collect();
        for key in flows {
            let flow = state.flows.remove(&key).unwrap();
            flow.reader.abort();
            state.deaf.push(flow.outer);
            assert!(state.deaf.len() < FLOWS, "too many old flows");
            self.shared.open_flow(&mut state, key, (flow.door, flow.inside));
        }
    }

    /// What became of the datagrams so far.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.state.lock().unwrap().counts
    }
}

impl Shared {
    fn socket(&self, at: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        self.namespace.within(|| {
            let socket = std::net::UdpSocket::bind(at)?;
            socket2::SockRef::from(&socket).set_recv_buffer_size(KERNEL_BUFFER_BYTES)?;
            socket.set_nonblocking(true)?;
            Ok(Arc::new(UdpSocket::from_std(socket)?))
        })
    }

    /// The outer socket of this flow, if there is one or may be one more.
    fn outer(
        self: &Arc<Self>,
        key: (SocketAddr, SocketAddr),
        leads: (Arc<UdpSocket>, SocketAddr),
    ) -> Option<Arc<UdpSocket>> {
        let mut state = self.state.lock().unwrap();
        match state.flows.get(&key) {
            Some(flow) => Some(flow.outer.clone()),
            None if state.flows.len() < FLOWS => Some(self.open_flow(&mut state, key, leads)),
            None => None,
        }
    }

    fn open_flow(
        self: &Arc<Self>,
        state: &mut State,
        key: (SocketAddr, SocketAddr),
        (door, inside): (Arc<UdpSocket>, SocketAddr),
    ) -> Arc<UdpSocket> {
        let number = host(key.0);
        let address = Ipv4Addr::new(198, 18, number, 1 + state.addresses.get(&number).copied().unwrap_or(0));
        let outer = self.socket(SocketAddr::from((address, 0))).unwrap();
        let back = pass_back(self.clone(), outer.clone(), inside, (door.clone(), key.0));
        let reader = state.readers.spawn(back);
        state.flows.insert(key, Flow { outer: outer.clone(), reader, door, inside });
        outer
    }

    /// Takes a datagram that goes from one host to another, over the links of both.
    fn carry(&self, (from, to): (HostNumber, HostNumber), datagram: impl Fn() -> Datagram) {
        let mut state = self.state.lock().unwrap();
        let State { chance, directions, between, queue, counts, .. } = &mut *state;
        let earliest = queue.due();
        let mut copies = directions.entry((from, true)).or_default().pass(Instant::now(), chance);
        let mut go_over = |direction: &mut Direction| {
            copies = copies.drain(..).flat_map(|at| direction.pass(at, chance)).collect();
        };
        if let Some(between) = between.get_mut(&(from, to)) {
            go_over(between);
        }
        go_over(directions.entry((to, false)).or_default());
        match copies.len() as u64 {
            0 => counts.lost += 1,
            more => (counts.passed, counts.repeated) = (counts.passed + 1, counts.repeated + more - 1),
        }
        for due in copies {
            if !queue.push(due, datagram()) {
                counts.overflowed += 1;
            }
        }
        if queue.due() != earliest {
            self.earlier.notify_one();
        }
    }
}

async fn serve_door(shared: Arc<Shared>, socket: Arc<UdpSocket>, door: SocketAddr, inside: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(by) = shared.outer((from, door), (socket.clone(), inside)) else { continue };
        let datagram = || Datagram { bytes: buffer[..length].to_vec(), by: by.clone(), to: inside };
        shared.carry((host(from), host(inside)), datagram);
    }
}

async fn pass_back(shared: Arc<Shared>, outer: Arc<UdpSocket>, inside: SocketAddr, back: (Arc<UdpSocket>, SocketAddr)) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, from)) = outer.recv_from(&mut buffer).await else { continue };
        // As most translators do: nobody else gets in here.
        if from != inside {
            continue;
        }
        let datagram = || Datagram { bytes: buffer[..length].to_vec(), by: back.0.clone(), to: back.1 };
        shared.carry((host(inside), host(back.1)), datagram);
    }
}

async fn send_what_is_due(shared: Arc<Shared>) {
    loop {
        let next = {
            let mut state = shared.state.lock().unwrap();
            while let Some(datagram) = state.queue.pop(Instant::now()) {
                // A full buffer loses it, as a full buffer does.
                datagram.by.try_send_to(&datagram.bytes, datagram.to).ok();
            }
            state.queue.due()
        };
        match next {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = shared.earlier.notified() => {}
            },
            None => shared.earlier.notified().await,
        }
    }
}
