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
//! # use posthouse::relay::{Relay, RelayOptions};
//! # use posthouse::store::redb::{Backend, relay::{OpenOptions, RedbRelayStore}};
//! # use posthouse::time::SystemClock;
//! # use posthouse::transport::Socket;
//! use posthouse::client::{Client, Draft};
//! use posthouse::protocol::Outcome;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
//! # let store = RedbRelayStore::open(OpenOptions::new(Backend::Memory, clock, entropy.clone()))?;
//! # let options = RelayOptions::new(Identity::generate(&*entropy), Arc::new(store));
//! # let relay = Relay::start(RelayOptions { socket: Socket::Bind("127.0.0.1:0".parse()?), ..options })?;
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

mod acks;
mod builder;
mod commits;
mod driver;
mod event;
mod forgery;
mod message;
mod progress;
mod reading;
mod receiving;
mod sending;
mod state;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::address::{PeerAddress, RelayAddress};
use crate::id::PeerId;
use crate::identity::Identity;
use crate::protocol::limit::{MAX_BODY_BYTES, MAX_CONTACTS, MAX_PAGE_MESSAGES, MAX_PEERS_CHANGED};
use crate::protocol::{Policy, PolicyChange, Senders, Status};
use crate::store::StoreError;
use crate::store::redb::file::OpenError;
use crate::transport::{BindError, ClientEndpoint, Socket};
pub use builder::ClientBuilder;
pub use event::{Connection, Event, Events};
pub use message::{Accepted, Draft, Incoming, Outgoing};
pub use reading::{Page, PageOptions, Pages, Reading};
use sync::Question;

/// A peer's connection to its home relay, and its outbox and inbox. Clones share them; the last one dropped
/// closes the client.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: PeerId,
    relay: RelayAddress,
    endpoint: Arc<ClientEndpoint>,
    default_ttl: Duration,
    commands: mpsc::Sender<Command>,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    seen: mpsc::UnboundedSender<event::Seen>,
    page_wanted: mpsc::UnboundedSender<u64>,
    /// The number of the next reader of pages, from 1.
    readers: AtomicU64,
    stopped: watch::Receiver<Option<Stop>>,
    connection: watch::Receiver<Connection>,
}

type EventStream = mpsc::UnboundedReceiver<(Event, Option<u64>)>;

#[derive(Debug)]
pub(crate) enum Command {
    Send(Vec<Draft>, oneshot::Sender<Result<Vec<Outgoing>, SendError>>),
    Ask(Question),
    Pages(u64, PageOptions, mpsc::Sender<Page>),
    Events(oneshot::Sender<EventStream>),
    Waiting(oneshot::Sender<usize>),
    Unaccepted(oneshot::Sender<usize>),
    Close(oneshot::Sender<()>),
}

impl Client {
    /// A client of the relay at this address, for the holder of this identity.
    #[must_use]
    pub fn builder(identity: Identity, relay: RelayAddress) -> ClientBuilder {
        ClientBuilder::new(identity, relay)
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
    pub async fn send_all(&self, mut drafts: Vec<Draft>) -> Result<Vec<Outgoing>, SendError> {
        for draft in &mut drafts {
            draft.ttl.get_or_insert(self.0.default_ttl);
        }
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
        self.ask(|reply| Command::Ask(Question::Status(sender, reply))).await
    }

    /// Whose messages the relay takes for this peer. Waits for a connection.
    ///
    /// # Errors
    /// [`Stop`] if there will be none.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn policy(&self) -> Result<Policy, Stop> {
        self.ask(|reply| Command::Ask(Question::Policy(reply))).await
    }

    /// From now on the relay takes the messages of anyone, or of those alone that were [allowed](Self::allow); never
    /// those of peers that were [blocked](Self::block). What waits already stays. Returns once the relay has it on disk.
    ///
    /// # Errors
    /// See [`PolicyError`].
    ///
    /// # Cancel safety
    /// Dropped, it may or may not hold.
    pub async fn set_policy(&self, senders: Senders) -> Result<(), PolicyError> {
        self.change_policy(PolicyChange { senders: Some(senders), ..PolicyChange::default() }).await
    }

    /// Messages of this peer are taken from now on.
    ///
    /// # Errors
    /// See [`PolicyError`].
    ///
    /// # Cancel safety
    /// Dropped, it may or may not hold.
    pub async fn allow(&self, peer: PeerId) -> Result<(), PolicyError> {
        self.change_policy(PolicyChange { allow: vec![peer], ..PolicyChange::default() }).await
    }

    /// No more messages of this peer are taken: it is told *rejected*, `blocked`.
    ///
    /// # Errors
    /// See [`PolicyError`].
    ///
    /// # Cancel safety
    /// Dropped, it may or may not hold.
    pub async fn block(&self, peer: PeerId) -> Result<(), PolicyError> {
        self.change_policy(PolicyChange { block: vec![peer], ..PolicyChange::default() }).await
    }

    /// Several changes, all or none. They name at most [`MAX_PEERS_CHANGED`] peers.
    ///
    /// # Errors
    /// See [`PolicyError`].
    ///
    /// # Cancel safety
    /// Dropped, they may or may not hold.
    pub async fn change_policy(&self, change: PolicyChange) -> Result<(), PolicyError> {
        if change.is_empty() {
            return Ok(());
        }
        if change.peers() > MAX_PEERS_CHANGED {
            return Err(PolicyError::TooManyAtOnce);
        }
        match self.ask(|reply| Command::Ask(Question::Change(change, reply))).await? {
            true => Ok(()),
            false => Err(PolicyError::Full),
        }
    }

    /// Reads the mailbox page by page, beside what [`recv`](Self::recv) gives or instead of it. Looking takes
    /// nothing: only answers do.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pages(&self, options: PageOptions) -> Result<Pages, Stop> {
        let options = PageOptions { messages: options.messages.clamp(1, MAX_PAGE_MESSAGES), ..options };
        // Room for the one page that is asked for at a time.
        let (to, pages) = mpsc::channel(1);
        let reader = self.0.readers.fetch_add(1, Ordering::Relaxed);
        let (wanted, stopped) = (self.0.page_wanted.clone(), self.0.stopped.clone());
        // Dropped from here on, it says that it is gone.
        let pages = Pages { reader, pages, wanted, stopped, asked: false };
        self.0.commands.send(Command::Pages(reader, options, to)).await.map_err(|_| self.why_stopped())?;
        Ok(pages)
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
        why_stopped(&self.0.stopped)
    }
}

fn why_stopped(stopped: &watch::Receiver<Option<Stop>>) -> Stop {
    stopped.borrow().clone().unwrap_or(Stop::Closed)
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

/// Why the relay takes the same messages as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The list would be too long.
    #[error("the relay keeps {MAX_CONTACTS} peers that are allowed or blocked at most: forget some first")]
    Full,
    /// The change names too many peers.
    #[error("one change names at most {MAX_PEERS_CHANGED} peers")]
    TooManyAtOnce,
    /// The client does nothing more.
    #[error(transparent)]
    Stopped(#[from] Stop),
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
