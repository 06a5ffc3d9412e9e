//! Putting a client together: what it is told before it starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::commits::Commits;
use super::driver::Driver;
use super::event::EventQueue;
use super::reading::{Reading, ReadingOptions};
use super::receiving::Receiving;
use super::sending::{Sending, SendingOptions};
use super::{Client, Connection, Inner, StartError};
use crate::address::RelayAddress;
use crate::delivery::Inbox;
use crate::id::PeerId;
use crate::identity::Identity;
use crate::protocol::clip_text;
use crate::protocol::limit::{
    DEFAULT_ACK_TIMEOUT, DEFAULT_CREDIT_BYTES, DEFAULT_CREDIT_MESSAGES, DEFAULT_TTL, MAX_PAGE_MESSAGES,
};
use crate::random::{SharedEntropy, SystemEntropy};
use crate::store::redb::Backend;
use crate::store::redb::client::ClientStore;
use crate::store::redb::writer::WriterMode;
use crate::time::{SharedClock, SystemClock};
use crate::transport::{ClientEndpoint, Determinism, Socket, TransportLimits};

/// Commands that may wait for the client's task.
const COMMANDS: usize = 256;

/// Messages that may lie between the client and an application that has not asked for them yet.
const HANDED_OUT: usize = 512;

/// Messages that an outbox holds, unless told otherwise.
const OUTBOX_MESSAGES: usize = 1_000_000;

/// The name of the client's store in its directory.
const STORE_FILE: &str = "client.redb";

/// Makes a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    identity: Identity,
    relay: RelayAddress,
    backend: Backend,
    reading: ReadingOptions,
    ack_timeout: Duration,
    invitation: Option<String>,
    outbox_messages: usize,
    signs_all: bool,
    default_ttl: Duration,
    socket: Option<Socket>,
    limits: TransportLimits,
    clock: Option<SharedClock>,
    entropy: Option<SharedEntropy>,
    writer: WriterMode,
    determinism: Option<Determinism>,
}

impl ClientBuilder {
    pub(super) fn new(identity: Identity, relay: RelayAddress) -> Self {
        Self {
            identity,
            relay,
            backend: Backend::Memory,
            reading: ReadingOptions {
                reading: Reading::default(),
                only_from: None,
                page_messages: MAX_PAGE_MESSAGES,
                credit_messages: DEFAULT_CREDIT_MESSAGES,
                credit_bytes: DEFAULT_CREDIT_BYTES,
            },
            ack_timeout: DEFAULT_ACK_TIMEOUT,
            invitation: None,
            outbox_messages: OUTBOX_MESSAGES,
            signs_all: false,
            default_ttl: DEFAULT_TTL,
            socket: None,
            limits: TransportLimits::default(),
            clock: None,
            entropy: None,
            writer: WriterMode::Thread,
            determinism: None,
        }
    }

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

    /// Reads the messages of this sender alone; those of others stay where they are.
    #[must_use]
    pub const fn only_from(mut self, sender: PeerId) -> Self {
        self.reading.only_from = Some(sender);
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

    /// The token of an invitation, for a relay that makes mailboxes for those alone who show one. It is used up once;
    /// showing it again does no harm.
    #[must_use]
    pub fn invitation(mut self, token: impl Into<String>) -> Self {
        self.invitation = Some(clip_text(&token.into()));
        self
    }

    /// How many messages without an outcome the outbox takes. 1,000,000.
    #[must_use]
    pub const fn outbox_messages(mut self, messages: usize) -> Self {
        self.outbox_messages = messages;
        self
    }

    /// Signs every message. Otherwise only those are signed that leave the home relay: among its own peers it vouches
    /// for who sent what.
    #[must_use]
    pub const fn sign_all(mut self) -> Self {
        self.signs_all = true;
        self
    }

    /// How long a message may wait to be taken, if its draft does not say. Seven days; from 1 s to 30 days.
    #[must_use]
    pub const fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = ttl;
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
        let socket = self.socket.unwrap_or_else(Socket::anywhere);
        let determinism = self.determinism.as_ref();
        let endpoint = ClientEndpoint::bind(socket, &self.identity, &self.limits, &*entropy, determinism)?;
        let endpoint = Arc::new(endpoint);
        let (me, home) = (self.identity.peer_id(), self.relay.relay);
        let (commands, from_handles) = mpsc::channel(COMMANDS);
        let (to_application, incoming) = mpsc::channel(HANDED_OUT);
        let (answers, from_application) = mpsc::unbounded_channel();
        let (seen, from_events) = mpsc::unbounded_channel();
        let (page_wanted, pages_wanted) = mpsc::unbounded_channel();
        let stop = watch::Sender::new(None);
        let stopped = stop.subscribe();
        let connection = watch::Sender::new(Connection::Connecting);
        let connected = connection.subscribe();
        let inbox = Inbox::restore(std::mem::take(&mut recovered.inbox));
        let outcomes = std::mem::take(&mut recovered.outcomes);
        let sending = Sending::open(
            self.identity.clone(),
            home,
            &recovered,
            clock.clone(),
            entropy.clone(),
            SendingOptions { max_messages: self.outbox_messages, signs_all: self.signs_all },
            seen.clone(),
        );
        let receiving = Receiving::open((me, home), inbox, clock.clone(), self.reading, to_application, answers);
        let driver = Driver {
            clock,
            entropy,
            endpoint: endpoint.clone(),
            relay: self.relay.clone(),
            ack_timeout: self.ack_timeout,
            invitation: self.invitation,
            commands: from_handles,
            answers: from_application,
            seen: from_events,
            pages_wanted,
            stop,
            connection,
            commits: Commits::new(store),
            sending,
            receiving,
            events: EventQueue::new(home, outcomes),
        };
        tokio::spawn(driver.run());
        let inner = Inner {
            me,
            relay: self.relay,
            endpoint,
            default_ttl: self.default_ttl,
            commands,
            incoming: Mutex::new(incoming),
            seen,
            page_wanted,
            readers: AtomicU64::new(1),
            stopped,
            connection: connected,
        };
        Ok(Client(Arc::new(inner)))
    }
}
