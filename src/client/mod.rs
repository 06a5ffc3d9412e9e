//! The client: send, and know what became of it; receive each message once, in order.
//!
//! A [`Client`] has a durable directory. [`Client::send`] returns once the message is on disk; from then on it
//! is offered until its outcome is known, over reconnects and restarts. Messages come from [`Client::recv`]
//! and stay at the relay until the application has [answered](Incoming::taken).
//!
//! ```
//! # use std::sync::Arc;
//! # use posthouse::identity::Identity;
//! # use posthouse::random::SystemEntropy;
//! # use posthouse::relay::{Relay, RelayLimits, RelayOptions};
//! # use posthouse::store::redb::{Backend, relay::{OpenOptions, RedbRelayStore}};
//! # use posthouse::time::SystemClock;
//! # use posthouse::transport::Socket;
//! use posthouse::client::{Client, Draft};
//! use posthouse::protocol::Outcome;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
//! # let store = RedbRelayStore::open(OpenOptions::new(Backend::Memory, clock.clone(), entropy.clone()))?;
//! # let relay = Relay::start(RelayOptions {
//! #     identity: Identity::generate(&*entropy),
//! #     socket: Socket::Bind("127.0.0.1:0".parse()?),
//! #     store: Arc::new(store),
//! #     clock,
//! #     entropy: entropy.clone(),
//! #     limits: RelayLimits::default(),
//! #     determinism: None,
//! # })?;
//! # let home = relay.address(relay.local_addr().into());
//! // `home` is the relay's address. In memory here; `.directory("data")` for real.
//! let alice = Client::builder(Identity::generate(&*entropy), home.clone()).start()?;
//! let bob = Client::builder(Identity::generate(&*entropy), home.clone()).start()?;
//!
//! let mut sent = alice.send(Draft::new(home.peer(bob.id()), "hello")).await?;
//!
//! let message = bob.recv().await?;
//! assert_eq!(message.body, "hello");
//! message.taken().await?;
//!
//! assert_eq!(sent.outcome().await?, Outcome::Delivered);
//! # alice.close().await;
//! # bob.close().await;
//! # Ok(())
//! # }
//! ```

mod commits;
mod driver;
mod event;
mod link;
mod message;
mod receiving;
mod sending;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::address::{PeerAddress, RelayAddress};
use crate::delivery::Inbox;
use crate::id::PeerId;
use crate::identity::Identity;
use crate::protocol::Status;
use crate::protocol::limit::{
    DEFAULT_ACK_TIMEOUT, DEFAULT_CREDIT_BYTES, DEFAULT_CREDIT_MESSAGES, MAX_BODY_BYTES, MAX_PAGE_MESSAGES,
};
use crate::random::{SharedEntropy, SystemEntropy};
use crate::store::StoreError;
use crate::store::redb::Backend;
use crate::store::redb::client::ClientStore;
use crate::store::redb::file::OpenError;
use crate::store::redb::writer::WriterMode;
use crate::time::{SharedClock, SystemClock};
use crate::transport::{BindError, ClientEndpoint, Determinism, Socket, TransportLimits};
use driver::Driver;
use event::EventQueue;
pub use event::{Connection, Event, Events};
pub use message::{Accepted, Draft, Incoming, Outgoing};

/// Commands that may wait for the client's task.
const COMMANDS: usize = 256;

/// Messages that may lie between the client and an application that has not asked for them yet.
const HANDED_OUT: usize = 64;

/// Messages that an outbox holds, unless told otherwise.
const OUTBOX_MESSAGES: usize = 1_000_000;

/// The name of the client's store in its directory.
const STORE_FILE: &str = "client.redb";

/// How a client reads its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// All in the order of arrival, the backlog before what is new: for bots and devices.
    #[default]
    InOrder,
    /// What is new at once, and the backlog from the newest to the oldest besides: for people.
    RecentFirst,
    /// Nothing: for a client that only sends.
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) struct ReadingOptions {
    reading: Reading,
    page_messages: u64,
    credit_messages: u64,
    credit_bytes: u64,
}

/// Makes a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    identity: Identity,
    relay: RelayAddress,
    backend: Backend,
    reading: ReadingOptions,
    ack_timeout: Duration,
    outbox_messages: usize,
    socket: Option<Socket>,
    limits: TransportLimits,
    clock: Option<SharedClock>,
    entropy: Option<SharedEntropy>,
    writer: WriterMode,
    determinism: Option<Determinism>,
}

impl ClientBuilder {
    /// Keeps outbox and inbox in this directory, which has to exist. Without it they are in memory, and gone
    /// with the process: for tests.
    #[must_use]
    pub fn directory(self, directory: impl Into<PathBuf>) -> Self {
        self.backend(Backend::File(directory.into().join(STORE_FILE)))
    }

    /// Keeps outbox and inbox on this medium.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// How to read the mailbox; in order of arrival by default.
    #[must_use]
    pub const fn reading(mut self, reading: Reading) -> Self {
        self.reading.reading = reading;
        self
    }

    /// How many messages a page of the backlog has, 1 to 500.
    #[must_use]
    pub fn page_messages(mut self, messages: u64) -> Self {
        self.reading.page_messages = messages.clamp(1, MAX_PAGE_MESSAGES);
        self
    }

    /// How many pushed messages, and bytes of them, may be unanswered. 256 and 4 MiB.
    #[must_use]
    pub const fn credit(mut self, messages: u64, bytes: u64) -> Self {
        (self.reading.credit_messages, self.reading.credit_bytes) = (messages, bytes);
        self
    }

    /// How long the relay waits for an answer to a pushed message before it repeats it, each time twice as
    /// long; after five times it ends the session. 30 s.
    #[must_use]
    pub const fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// How many messages without an outcome the outbox takes. 1,000,000.
    #[must_use]
    pub const fn outbox_messages(mut self, messages: usize) -> Self {
        self.outbox_messages = messages;
        self
    }

    /// The UDP socket to use, instead of one of the system's choosing.
    #[must_use]
    pub fn socket(mut self, socket: Socket) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Timeouts and keep-alives of the connection.
    #[must_use]
    pub const fn transport_limits(mut self, limits: TransportLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The clock to go by.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The chance to draw on.
    #[must_use]
    pub fn entropy(mut self, entropy: SharedEntropy) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Whether the store has a thread of its own; it has.
    #[must_use]
    pub const fn writer(mut self, writer: WriterMode) -> Self {
        self.writer = writer;
        self
    }

    /// Makes TLS predictable; for simulation alone.
    #[must_use]
    pub fn determinism(mut self, determinism: Determinism) -> Self {
        self.determinism = Some(determinism);
        self
    }

    /// Opens the store and starts to connect. Needs a tokio runtime; returns without waiting for the relay.
    ///
    /// # Errors
    /// [`StartError`]: always a local matter.
    pub fn start(self) -> Result<Client, StartError> {
        let clock = self.clock.unwrap_or_else(SystemClock::shared);
        let entropy = self.entropy.unwrap_or_else(SystemEntropy::shared);
        let (store, mut recovered) = ClientStore::open(self.backend, self.writer, &*entropy)?;
        let socket = self.socket.unwrap_or_else(|| Socket::Bind((std::net::Ipv6Addr::UNSPECIFIED, 0).into()));
        let determinism = self.determinism.as_ref();
        let endpoint = ClientEndpoint::bind(socket, &self.identity, &self.limits, &*entropy, determinism)?;
        let endpoint = Arc::new(endpoint);
        let (me, home) = (self.identity.peer_id(), self.relay.relay);
        let (commands, from_handles) = mpsc::channel(COMMANDS);
        let (to_application, incoming) = mpsc::channel(HANDED_OUT);
        let (answers, from_application) = mpsc::unbounded_channel();
        let (seen, from_events) = mpsc::unbounded_channel();
        let stop = watch::Sender::new(None);
        let stopped = stop.subscribe();
        let connection = watch::Sender::new(Connection::Connecting);
        let connected = connection.subscribe();
        let inbox = Inbox::restore(std::mem::take(&mut recovered.inbox));
        let outcomes = std::mem::take(&mut recovered.outcomes);
        let sending = sending::Sending::open(
            (me, home),
            &recovered,
            clock.clone(),
            entropy.clone(),
            self.outbox_messages,
            seen.clone(),
        );
        let receiving =
            receiving::Receiving::open((me, home), inbox, clock.clone(), self.reading, to_application, answers);
        let driver = Driver {
            clock,
            entropy,
            endpoint: endpoint.clone(),
            relay: self.relay.clone(),
            ack_timeout: self.ack_timeout,
            commands: from_handles,
            answers: from_application,
            seen: from_events,
            stop,
            connection,
            commits: commits::Commits::new(store),
            sending,
            receiving,
            events: EventQueue::new(home, outcomes),
        };
        tokio::spawn(driver.run());
        let inner = Inner {
            me,
            relay: self.relay,
            endpoint,
            commands,
            incoming: Mutex::new(incoming),
            seen,
            stopped,
            connection: connected,
        };
        Ok(Client(Arc::new(inner)))
    }
}

/// A peer's connection to its home relay, and its outbox and inbox. Clones share them; the last one dropped
/// closes the client.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: PeerId,
    relay: RelayAddress,
    endpoint: Arc<ClientEndpoint>,
    commands: mpsc::Sender<Command>,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    seen: mpsc::UnboundedSender<event::Seen>,
    stopped: watch::Receiver<Option<Stop>>,
    connection: watch::Receiver<Connection>,
}

type EventStream = mpsc::UnboundedReceiver<(Event, Option<u64>)>;

#[derive(Debug)]
pub(crate) enum Command {
    Send(Vec<Draft>, oneshot::Sender<Result<Vec<Outgoing>, SendError>>),
    Status(Option<PeerId>, oneshot::Sender<Result<Status, Stop>>),
    Events(oneshot::Sender<EventStream>),
    Waiting(oneshot::Sender<usize>),
    Unaccepted(oneshot::Sender<usize>),
    Close(oneshot::Sender<()>),
}

impl Client {
    /// A client of the relay at this address, for the holder of this identity.
    #[must_use]
    pub fn builder(identity: Identity, relay: RelayAddress) -> ClientBuilder {
        ClientBuilder {
            identity,
            relay,
            backend: Backend::Memory,
            reading: ReadingOptions {
                reading: Reading::default(),
                page_messages: MAX_PAGE_MESSAGES,
                credit_messages: DEFAULT_CREDIT_MESSAGES,
                credit_bytes: DEFAULT_CREDIT_BYTES,
            },
            ack_timeout: DEFAULT_ACK_TIMEOUT,
            outbox_messages: OUTBOX_MESSAGES,
            socket: None,
            limits: TransportLimits::default(),
            clock: None,
            entropy: None,
            writer: WriterMode::Thread,
            determinism: None,
        }
    }

    /// This peer.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.me
    }

    /// Where others reach this peer.
    #[must_use]
    pub fn address(&self) -> PeerAddress {
        self.0.relay.peer(self.0.me)
    }

    /// Sends a message: returns once it is durably in the outbox. Messages to one recipient arrive in the order
    /// of these calls.
    ///
    /// # Errors
    /// [`SendError`]; then the message is not in the outbox.
    ///
    /// # Cancel safety
    /// Dropped, the message may or may not be sent.
    pub async fn send(&self, draft: Draft) -> Result<Outgoing, SendError> {
        self.send_all(vec![draft]).await?.pop().ok_or(SendError::Stopped(Stop::Closed))
    }

    /// Sends several messages, all or none, with one wait for the disk.
    ///
    /// # Errors
    /// [`SendError`]; then none of them is in the outbox.
    ///
    /// # Cancel safety
    /// Dropped, the messages may or may not be sent.
    pub async fn send_all(&self, drafts: Vec<Draft>) -> Result<Vec<Outgoing>, SendError> {
        self.ask(|reply| Command::Send(drafts, reply)).await.unwrap_or_else(|stop| Err(SendError::Stopped(stop)))
    }

    /// The next message. It stays at the relay until it is answered.
    ///
    /// # Errors
    /// [`Stop`] once no more can come.
    ///
    /// # Cancel safety
    /// Safe: a message is either returned or still waits.
    pub async fn recv(&self) -> Result<Incoming, Stop> {
        let next = self.0.incoming.lock().await.recv().await;
        next.ok_or_else(|| self.why_stopped())
    }

    /// What waits in the mailbox now, from one sender alone if one is named. Waits for a connection.
    ///
    /// # Errors
    /// [`Stop`] if there will be none.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn status(&self, sender: Option<PeerId>) -> Result<Status, Stop> {
        self.ask(|reply| Command::Status(sender, reply)).await?
    }

    /// What happens from now on, and the outcomes of earlier runs that nobody has seen. One reader at a time: a
    /// second one ends the first.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn events(&self) -> Result<Events, Stop> {
        let events = self.ask(Command::Events).await?;
        Ok(Events { events, seen: self.0.seen.clone(), last: None })
    }

    /// How it stands with the relay: what it is now, and each change from here on. Unlike [`events`](Self::events)
    /// it may have many readers, none of which has to keep up.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.0.connection.clone()
    }

    /// How many messages have no outcome yet, those of earlier runs included. A message counts until
    /// its outcome has been told.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn waiting(&self) -> Result<usize, Stop> {
        self.ask(Command::Waiting).await
    }

    /// How many messages the relay does not have yet, as far as is known, and have no outcome either. Those of
    /// earlier runs are among them until the relay has been asked.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn unaccepted(&self) -> Result<usize, Stop> {
        self.ask(Command::Unaccepted).await
    }

    /// Goes on from a new socket: call it when the network has changed.
    ///
    /// # Errors
    /// [`BindError`]: then the old socket stays in use.
    pub fn rebind(&self, socket: Socket) -> Result<(), BindError> {
        self.0.endpoint.rebind(socket)
    }

    /// Closes the client: tells the relay what it owes, within two seconds, and closes the store. What has no
    /// outcome stays in the outbox.
    ///
    /// # Cancel safety
    /// Dropped, the client is closed all the same.
    pub async fn close(self) {
        drop(self.ask(Command::Close).await);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stop> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).await.map_err(|_| self.why_stopped())?;
        answer.await.map_err(|_| self.why_stopped())
    }

    fn why_stopped(&self) -> Stop {
        self.0.stopped.borrow().clone().unwrap_or(Stop::Closed)
    }
}

/// The client was closed before what was waited for happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is closed")]
pub struct Closed;

/// Why a client does nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// The application closed it.
    #[error("the client is closed")]
    Closed,
    /// Another session of the same peer took over.
    #[error("another session of this peer took over")]
    Superseded,
    /// The relay does not let it in, or is not the one in the address.
    #[error("{0}")]
    Refused(String),
    /// Its store failed for good.
    #[error(transparent)]
    Store(StoreError),
}

/// Why a message did not enter the outbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Its body is larger than any relay takes.
    #[error("message {index} of the batch is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge {
        /// Its place among those given, from 0.
        index: usize,
    },
    /// The outbox holds as much as it may.
    #[error("the outbox holds {messages} messages without an outcome, which is its limit")]
    OutboxFull {
        /// The limit.
        messages: usize,
    },
    /// The client's store does not work now; try again.
    #[error(transparent)]
    Store(StoreError),
    /// The client does nothing more.
    #[error(transparent)]
    Stopped(Stop),
}

/// Why a client could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It has no socket.
    #[error(transparent)]
    Bind(#[from] BindError),
}
