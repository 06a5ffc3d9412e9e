//! Clients, what they took, and what they were told.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthouse::address::RelayAddress;
use posthouse::client::{Client, ClientBuilder, Draft, Event, Outgoing};
use posthouse::id::{MessageId, PeerId};
use posthouse::protocol::Outcome;
use posthouse::transport::Socket;

use super::{lively, until, who, within};

/// A client of the cast, to be adjusted and started.
pub(crate) fn builder(number: u8, home: &RelayAddress) -> ClientBuilder {
    Client::builder(who(number), home.clone())
        .socket(Socket::Bind("127.0.0.1:0".parse().unwrap()))
        .transport_limits(lively())
}

/// A client that keeps its outbox and inbox in memory.
pub(crate) fn client(number: u8, home: &RelayAddress) -> Client {
    builder(number, home).start().unwrap()
}

/// A client that keeps them in this directory.
pub(crate) fn client_in(directory: &Path, number: u8, home: &RelayAddress) -> Client {
    builder(number, home).directory(directory).start().unwrap()
}

/// A message to a member of the cast.
pub(crate) fn draft(home: &RelayAddress, to: u8, body: impl Into<Bytes>) -> Draft {
    Draft::new(home.peer(who(to).peer_id()), body)
}

/// The same with a lifetime.
pub(crate) fn short_lived(home: &RelayAddress, to: u8, body: &str, ttl: Duration) -> Draft {
    Draft { ttl: Some(ttl), ..draft(home, to, body.to_owned()) }
}

/// Sends `words` one after the other.
pub(crate) async fn send(from: &Client, home: &RelayAddress, to: u8, words: &[&str]) -> Vec<Outgoing> {
    let drafts = words.iter().map(|word| draft(home, to, (*word).to_owned())).collect();
    within("room in the outbox", from.send_all(drafts)).await.unwrap()
}

/// The outcomes of all of these.
#[track_caller]
pub(crate) fn outcomes(sent: &mut [Outgoing]) -> impl Future<Output = Vec<Outcome>> {
    within("an outcome for each message", async {
        let mut outcomes = Vec::new();
        for message in sent {
            outcomes.push(message.outcome().await.unwrap());
        }
        outcomes
    })
}

/// Waits until the relay has all of these.
#[track_caller]
pub(crate) fn accepted(sent: &mut [Outgoing]) -> impl Future<Output = ()> {
    within("acceptance of each message", async {
        for message in sent {
            message.accepted().await.unwrap();
        }
    })
}

/// A message that an application took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) id: MessageId,
    pub(crate) from: PeerId,
    pub(crate) body: String,
    pub(crate) backlog: bool,
}

/// An application that takes whatever comes.
pub(crate) struct Taker {
    taken: Arc<Mutex<Vec<Taken>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Taker {
    pub(crate) fn of(client: &Client) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (client, shelf) = (client.clone(), taken.clone());
        let task = tokio::spawn(async move {
            while let Ok(message) = client.recv().await {
                let body = String::from_utf8_lossy(&message.body).into_owned();
                let entry = Taken { id: message.id, from: message.from, body, backlog: message.backlog };
                // Entered before it is durable: what comes again after a failure shows.
                shelf.lock().unwrap().push(entry);
                if message.taken().await.is_err() {
                    return;
                }
            }
        });
        Self { taken, task }
    }

    pub(crate) fn all(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.all().into_iter().map(|taken| taken.body).collect()
    }

    /// What came from one sender, in order.
    pub(crate) fn bodies_from(&self, number: u8) -> Vec<String> {
        let sender = who(number).peer_id();
        self.all().into_iter().filter(|taken| taken.from == sender).map(|taken| taken.body).collect()
    }

    /// Waits for so many messages.
    #[track_caller]
    pub(crate) fn count(&self, count: usize) -> impl Future<Output = ()> {
        until("so many messages", move || self.len() >= count)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a client tells, with the time it was told.
pub(crate) struct Log {
    events: Arc<Mutex<Vec<(Instant, Event)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Log {
    pub(crate) async fn of(client: &Client) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (mut stream, log) = (client.events().await.unwrap(), events.clone());
        let task = tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                log.lock().unwrap().push((Instant::now(), event));
            }
        });
        Self { events, task }
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.events.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// How many events there were of which this holds.
    pub(crate) fn count(&self, holds: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|(_, event)| holds(event)).count()
    }

    /// When the last such event was.
    pub(crate) fn last(&self, holds: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.lock().unwrap().iter().rev().find(|(_, event)| holds(event)).map(|(at, _)| *at)
    }

    /// How often the client has connected.
    pub(crate) fn connections(&self) -> usize {
        self.count(|event| matches!(event, Event::Connected { .. }))
    }

    /// Waits until the client has connected so often.
    #[track_caller]
    pub(crate) fn connected(&self, times: usize) -> impl Future<Output = ()> {
        until("a connection", move || self.connections() >= times)
    }

    /// Why the client was disconnected, each time.
    pub(crate) fn farewells(&self) -> Vec<String> {
        let reason = |event| match event {
            Event::Disconnected { reason, .. } | Event::Stopped { reason } => Some(reason),
            _ => None,
        };
        self.all().into_iter().filter_map(reason).collect()
    }

    /// The outcomes that were told, each as often as it was.
    pub(crate) fn outcomes(&self) -> Vec<(MessageId, Outcome)> {
        let outcome = |event| match event {
            Event::Outcome { id, outcome, .. } => Some((id, outcome)),
            _ => None,
        };
        self.all().into_iter().filter_map(outcome).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.task.abort();
    }
}
