//! A man in the middle that reads and judges every frame.
//!
//! To clients it is the relay, whose key it holds; to the relay it is each client, whose keys it holds as well.
//! Streams are opened and closed on one side as they are on the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use posthouse::address::RelayAddress;
use posthouse::id::PeerId;
use posthouse::identity::Identity;
use posthouse::protocol::{CloseCode, Frame, StreamKind};
use posthouse::random::SystemEntropy;
use posthouse::transport::{
    ClientEndpoint, CloseReason, Connection, FrameReceiver, FrameSender, RelayEndpoint, Socket, TransportLimits,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::relay::{RELAY, TestRelay};
use super::{PATIENCE, lively, who};

/// Bytes that wait in one stream of the proxy.
const BUFFER_BYTES: usize = 1 << 20;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToRelay,
    ToClient,
}

/// What becomes of a frame.
#[derive(Debug)]
pub(crate) enum Fate {
    Pass,
    /// It goes on once this is notified, and what follows on its stream after it.
    PassAfter(Arc<Notify>),
    /// It is lost, and nobody is told.
    Lose,
    /// These go on in its place.
    Instead(Vec<Frame>),
    /// It is lost, and the connection with it.
    Cut,
}

/// Judges frames, one after the other.
pub(crate) type Judge = Box<dyn FnMut(Way, StreamKind, &Frame) -> Fate + Send>;

/// See the head of this file.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    at: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Shared {
    /// Made anew for each start of the relay, which stays at its place.
    relay: SocketAddr,
    clients: HashMap<PeerId, Identity>,
    judge: Mutex<Judge>,
    seen: Mutex<Vec<(Way, Frame)>>,
}

fn any() -> Socket {
    Socket::Bind("127.0.0.1:0".parse().unwrap())
}

impl Proxy {
    /// Stands before a relay, for these members of the cast.
    pub(crate) fn before(relay: &TestRelay, clients: &[u8]) -> Self {
        let limits = TransportLimits::default();
        let endpoint = RelayEndpoint::bind(any(), &who(RELAY), &limits, &SystemEntropy, None).unwrap();
        let at = endpoint.local_addr().unwrap();
        let clients = clients.iter().map(|number| (who(*number).peer_id(), who(*number))).collect();
        let shared = Arc::new(Shared {
            relay: relay.at(),
            clients,
            judge: Mutex::new(Box::new(|_, _, _| Fate::Pass)),
            seen: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint, shared.clone()));
        Self { shared, at, _tasks: tasks }
    }

    /// The relay's address, as clients of this proxy have to know it.
    pub(crate) fn home(&self) -> RelayAddress {
        RelayAddress::new(who(RELAY).relay_id(), self.at.into())
    }

    /// Judges frames from now on.
    pub(crate) fn judge(&self, judge: impl FnMut(Way, StreamKind, &Frame) -> Fate + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    /// Loses the first frame of which this holds, and counts.
    pub(crate) fn lose_first(&self, holds: impl Fn(&Frame) -> bool + Send + 'static) -> Arc<Mutex<Vec<Frame>>> {
        let lost = Arc::new(Mutex::new(Vec::new()));
        let losses = lost.clone();
        self.judge(move |_, _, frame| {
            let mut losses = losses.lock().unwrap();
            if losses.is_empty() && holds(frame) {
                losses.push(frame.clone());
                return Fate::Lose;
            }
            Fate::Pass
        });
        lost
    }

    /// The frames that came by, lost ones included.
    pub(crate) fn seen(&self) -> Vec<Frame> {
        self.shared.seen.lock().unwrap().iter().map(|(_, frame)| frame.clone()).collect()
    }

    /// How many of them were such.
    pub(crate) fn count(&self, holds: impl Fn(&Frame) -> bool) -> usize {
        self.shared.seen.lock().unwrap().iter().filter(|(_, frame)| holds(frame)).count()
    }
}

async fn accept(endpoint: RelayEndpoint, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let Ok(client) = incoming.handshake().await else { return };
            relay_connection(client, &shared).await;
        });
    }
}

/// Serves one client until its connection or that to the relay is over; then the other one ends likewise.
async fn relay_connection(client: Connection, shared: &Arc<Shared>) {
    let identity = &shared.clients[&client.peer_id().unwrap()];
    let endpoint = ClientEndpoint::bind(any(), identity, &lively(), &SystemEntropy, None).unwrap();
    let Ok(relay) = endpoint.connect(shared.relay, who(RELAY).relay_id(), PATIENCE).await else {
        return client.close(CloseCode::GoingAway, "the relay cannot be reached");
    };
    let mut pumps = JoinSet::new();
    let reason = loop {
        tokio::select! {
            Ok((kind, to_client, from_client)) = client.accept() => {
                let Ok((to_relay, from_relay)) = relay.open(kind, BUFFER_BYTES).await else { continue };
                pumps.spawn(pump(Way::ToRelay, kind, from_client, to_relay, shared.clone()));
                pumps.spawn(pump(Way::ToClient, kind, from_relay, to_client, shared.clone()));
            }
            Ok((kind, to_relay, from_relay)) = relay.accept() => {
                let Ok((to_client, from_client)) = client.open(kind, BUFFER_BYTES).await else { continue };
                pumps.spawn(pump(Way::ToRelay, kind, from_client, to_relay, shared.clone()));
                pumps.spawn(pump(Way::ToClient, kind, from_relay, to_client, shared.clone()));
            }
            Some(Ok(Cut(true))) = pumps.join_next() => break None,
            reason = client.closed() => break Some((Way::ToRelay, reason)),
            reason = relay.closed() => break Some((Way::ToClient, reason)),
        }
    };
    let (code, words) = match &reason {
        Some((_, CloseReason::Peer { code: Some(code), reason, .. })) => (*code, reason.as_str()),
        _ => (CloseCode::Done, "cut"),
    };
    client.close(code, words);
    relay.close(code, words);
    endpoint.wait_idle().await;
}

/// Whether a judge cut the connection.
struct Cut(bool);

/// Carries frames one way until the stream is over.
async fn pump(way: Way, kind: StreamKind, mut from: FrameReceiver, to: FrameSender, shared: Arc<Shared>) -> Cut {
    while let Ok(Some(frame)) = from.next().await {
        let fate = (shared.judge.lock().unwrap())(way, kind, &frame);
        shared.seen.lock().unwrap().push((way, frame.clone()));
        let frames = match fate {
            Fate::Pass => vec![frame],
            Fate::PassAfter(permission) => {
                permission.notified().await;
                vec![frame]
            }
            Fate::Lose => Vec::new(),
            Fate::Instead(frames) => frames,
            Fate::Cut => return Cut(true),
        };
        for frame in frames {
            if to.send(&frame).await.is_err() {
                return Cut(false);
            }
        }
    }
    // A stream ends only where the connection does: its end is passed on by the close.
    to.finish();
    Cut(false)
}
