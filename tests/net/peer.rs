//! Peers: clients of this crate on hosts of their own, which talk so that everything can be checked and timed.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::client::{Client, Draft, Event, Outgoing};
use posthouse::id::PeerId;
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::transport::{Socket, TransportLimits};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::{Host, Network};
use super::relay::Relay;
use super::{PATIENCE, until};

/// Messages of one talk.
const MOST_MESSAGES: usize = 10_000;

/// What happened to a session.
#[derive(Debug, Clone)]
enum News {
    Connected,
    Lost(String),
}

/// See the head of this file.
pub(crate) struct Peer {
    pub(crate) host: Host,
    pub(crate) client: Client,
    home: RelayAddress,
    news: Arc<Mutex<Vec<(Instant, News)>>>,
    log: JoinHandle<()>,
}

impl Peer {
    /// Starts one and waits until it is connected, so that it has a mailbox.
    pub(crate) async fn start(network: &Network, relay: &Relay, limits: TransportLimits) -> Self {
        Self::start_as(Identity::generate(&SystemEntropy), network, relay, limits).await
    }

    /// The same for somebody who may have been here before.
    pub(crate) async fn start_as(who: Identity, network: &Network, relay: &Relay, limits: TransportLimits) -> Self {
        let (host, home) = (network.host(), relay.address.clone());
        let builder = Client::builder(who, home.clone());
        let builder = builder.transport_limits(limits).socket(Socket::Bind((host.address(), 0).into()));
        let client = host.namespace.within(|| builder.start()).unwrap();
        let mut events = client.events().await.unwrap();
        let news = Arc::new(Mutex::new(Vec::new()));
        let kept = news.clone();
        let log = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let event = match event {
                    Event::Connected { .. } => News::Connected,
                    Event::Disconnected { reason, .. } | Event::Stopped { reason } => News::Lost(reason),
                    _ => continue,
                };
                kept.lock().unwrap().push((Instant::now(), event));
            }
        });
        client.status(None).await.unwrap();
        Self { host, client, home, news, log }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.client.id()
    }

    /// It goes on from another socket, as an application tells it to whose network has changed. A socket at an address
    /// of the host, as the first one is, is of no use any more when the host has another one.
    pub(crate) fn rebind(&self, to: Ipv4Addr) {
        self.host.namespace.within(|| self.client.rebind(Socket::Bind((to, 0).into()))).unwrap();
    }

    /// What has become of its session since, in words.
    pub(crate) fn session_since(&self, since: Instant) -> String {
        let news = self.news.lock().unwrap();
        let told: Vec<_> = news
            .iter()
            .filter(|(at, _)| *at >= since)
            .map(|(at, event)| match event {
                News::Connected => format!("a new session after {:.1?}", *at - since),
                News::Lost(reason) => format!("{reason} after {:.1?}", *at - since),
            })
            .collect();
        if told.is_empty() { "the same session".to_owned() } else { told.join(", ") }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.log.abort();
    }
}

/// One peer sends numbered messages to another at a steady pace, until told to stop.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    recipient: Client,
    writer: JoinHandle<Vec<Instant>>,
    told: JoinHandle<Vec<Instant>>,
    taken: Arc<Mutex<Vec<(Instant, u64)>>>,
    taker: JoinHandle<()>,
}

impl Talk {
    pub(crate) fn start(from: &Peer, to: &Peer, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (queue, sent) = mpsc::channel(MOST_MESSAGES);
        let recipient = to.home.peer(to.id());
        let writer = tokio::spawn(write(from.client.clone(), recipient, pace, stop.clone(), queue));
        let told = tokio::spawn(note_outcomes(sent));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let taker = tokio::spawn(take(to.client.clone(), taken.clone()));
        Self { stop, recipient: to.client.clone(), writer, told, taken, taker }
    }

    /// How many messages were taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// Waits until so many more were taken.
    pub(crate) async fn goes_on(&self, more: usize) {
        let goal = self.taken() + more;
        until("more messages", || self.taken() >= goal).await;
    }

    /// Stops it, and checks that each message was taken once, in order, and was delivered, as its sender knows.
    pub(crate) async fn finish(self) -> Transcript {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.writer.await.unwrap();
        let told = tokio::time::timeout(PATIENCE, self.told).await.expect("all outcomes in time").unwrap();
        assert_eq!(told.len(), sent.len());
        let empty = async { while self.recipient.status(None).await.unwrap().messages > 0 {} };
        tokio::time::timeout(PATIENCE, empty).await.expect("an empty mailbox in time");
        self.taker.abort();
        let taken = self.taken.lock().unwrap();
        let wrong = taken.iter().zip(0..).find(|((_, number), place)| number != place);
        assert_eq!((taken.len(), wrong), (sent.len(), None), "each message is taken once, and in order");
        Transcript { sent, taken: taken.iter().map(|(at, _)| *at).collect(), told }
    }
}

async fn write(
    client: Client,
    to: PeerAddress,
    pace: Duration,
    stop: Arc<AtomicBool>,
    queue: mpsc::Sender<Outgoing>,
) -> Vec<Instant> {
    let mut sent = Vec::new();
    let mut pace = tokio::time::interval(pace);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        assert!(sent.len() < MOST_MESSAGES, "a talk of this length is not meant");
        let mut body = vec![b'.'; 256];
        body[..8].copy_from_slice(&(sent.len() as u64).to_be_bytes());
        sent.push(Instant::now());
        queue.send(client.send(Draft::new(to.clone(), body)).await.unwrap()).await.unwrap();
    }
    sent
}

/// When each message had its outcome, which has to be that it was delivered.
async fn note_outcomes(mut sent: mpsc::Receiver<Outgoing>) -> Vec<Instant> {
    let mut told = Vec::new();
    while let Some(mut message) = sent.recv().await {
        assert_eq!(message.outcome().await.unwrap(), Outcome::Delivered);
        told.push(Instant::now());
    }
    told
}

async fn take(client: Client, taken: Arc<Mutex<Vec<(Instant, u64)>>>) {
    while let Ok(message) = client.recv().await {
        let number = u64::from_be_bytes(message.body[..8].try_into().unwrap());
        // Noted before it is durable: what comes again shows.
        taken.lock().unwrap().push((Instant::now(), number));
        message.taken().await.unwrap();
    }
}

/// When each message of a talk was sent, taken, and known to be delivered.
pub(crate) struct Transcript {
    sent: Vec<Instant>,
    taken: Vec<Instant>,
    told: Vec<Instant>,
}

impl Transcript {
    /// How it went over something that lasted from `begin` to `end`, in words.
    pub(crate) fn around(&self, begin: Instant, end: Instant) -> String {
        let (before, at) = (|at: &&Instant| **at < begin, |at: &&Instant| **at >= begin && **at < end);
        let first = |moments: &[Instant]| {
            let first = moments.iter().find(|at| **at >= end);
            first.map_or("never".to_owned(), |first| format!("{:.2?}", *first - end))
        };
        // The last one that was sent before the end.
        let last = self.sent.iter().filter(|at| **at < end).count().max(1) - 1;
        let lag = |moments: &[Instant]| format!("{:.2?}", moments[last].saturating_duration_since(end));
        format!(
            "{} sent ({} before, {} meanwhile, of which {} were taken meanwhile); after its end: first taken {}, \
             first outcome {}, all taken {}, all outcomes {}",
            self.sent.len(),
            self.sent.iter().filter(before).count(),
            self.sent.iter().filter(at).count(),
            self.taken.iter().filter(at).count(),
            first(&self.taken),
            first(&self.told),
            lag(&self.taken),
            lag(&self.told),
        )
    }

    /// From sending to taking, and to the outcome: the median and the longest.
    pub(crate) fn latency(&self) -> String {
        let spread = |moments: &[Instant]| {
            let mut waits: Vec<_> = self.sent.iter().zip(moments).map(|(sent, at)| *at - *sent).collect();
            waits.sort();
            format!("median {:.0?}, longest {:.0?}", waits[waits.len() / 2], waits[waits.len() - 1])
        };
        format!("{} messages; taken: {}; outcome: {}", self.sent.len(), spread(&self.taken), spread(&self.told))
    }
}
