//! The relay node: takes connections, keeps what arrives, hands it on, and tells the senders.
//!
//! ```text
//!  accept ──> serve ────┬── submit   HELLO; MSG:R -> store -> MSG:A; WHERE, CLOSE
//!               │       ├── notify   store -> MSG:N; ACK:R -> store; ACK:N out
//!            registry   └── sync     STATUS, PAGE
//!               │
//!             sweep     what runs out of time
//! ```
//!
//! One task per session runs its streams side by side; nothing of a session outlives it but what it has given
//! to the store. All state that has to last is there; what is here can be lost at any time (LAW 2).

mod accept;
mod complaints;
mod confirm;
mod ending;
mod gate;
mod limits;
mod meter;
mod notify;
mod observer;
mod operator;
mod policy;
mod rate;
mod registry;
mod remembered;
mod request;
mod serve;
mod session;
mod settle;
mod strangers;
mod submit;
mod sweep;
mod sync;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::address::{HostPort, RelayAddress};
use crate::federation::{Context, Federation};
use crate::id::{PeerId, RelayId};
use crate::identity::Identity;
use crate::protocol::CloseCode;
use crate::random::{SharedEntropy, SystemEntropy};
use crate::store::{RelayStore, StoreError};
use crate::time::{Moment, SharedClock, SystemClock};
use crate::transport::{BindError, ClientEndpoint, Determinism, RelayEndpoint, Socket};
use complaints::Complaints;
use ending::{End, Ending};
use limits::InForce;
pub use limits::RelayLimits;
pub use meter::Meter;
pub use observer::{LinkReport, Observer, Report};
pub use operator::{Operator, Removal};
pub use policy::{Admission, Policy};
pub use rate::Rate;
use registry::Registry;

/// Clients woken in one go after a crash, and the pause between: 2,000 a second, so that they do not all
/// come back at once.
const WAKES_AT_ONCE: usize = 20;
const WAKE_PAUSE: Duration = Duration::from_millis(10);

/// How long a store that cannot say what waits for other relays is left alone.
const RESUME_PAUSE: Duration = Duration::from_secs(1);

/// When a relay that drains wants to see its clients again: at the earliest after this, which a restart takes, and then
/// so many in a second, within this time at most. Their connections cost it something, so they should not come at once.
const AWAY: Duration = Duration::from_millis(500);
const RETURNING_PER_SECOND: f64 = 1000.0;
const AWAY_SPREAD: (f64, f64) = (1.0, 30.0);

/// The UDP port that relays listen at.
pub const DEFAULT_PORT: u16 = 4433;

/// All that a relay is made of. Everything it would otherwise take from its surroundings is in here.
#[derive(Debug)]
pub struct RelayOptions {
    /// Its key.
    pub identity: Identity,
    /// Where it listens.
    pub socket: Socket,
    /// Where its own connections, to other relays, come from; [`Socket::anywhere`] unless there is a reason.
    pub outgoing: Socket,
    /// Where it keeps things.
    pub store: Arc<dyn RelayStore>,
    /// Its clock.
    pub clock: SharedClock,
    /// Its chance.
    pub entropy: SharedEntropy,
    /// What it lets clients do.
    pub limits: RelayLimits,
    /// Makes TLS predictable; for simulation alone.
    pub determinism: Option<Determinism>,
}

impl RelayOptions {
    /// A relay with this key and this store, at the usual port of all addresses and within the usual limits.
    #[must_use]
    pub fn new(identity: Identity, store: Arc<dyn RelayStore>) -> Self {
        Self {
            identity,
            socket: Socket::Bind((std::net::Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()),
            outgoing: Socket::anywhere(),
            store,
            clock: SystemClock::shared(),
            entropy: SystemEntropy::shared(),
            limits: RelayLimits::default(),
            determinism: None,
        }
    }
}

/// A running relay. Dropping it stops it like a crash would; [`shutdown`](Relay::shutdown) is the polite way.
#[derive(Debug)]
pub struct Relay {
    node: Arc<Node>,
    local: SocketAddr,
    tasks: JoinSet<()>,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Node {
    id: RelayId,
    endpoint: RelayEndpoint,
    store: Arc<dyn RelayStore>,
    clock: SharedClock,
    entropy: SharedEntropy,
    in_force: InForce,
    registry: Arc<Registry>,
    federation: Federation,
    /// Messages that other relays should not have sent.
    misrouted: Complaints,
    /// Of sessions that the store failed.
    store_trouble: Complaints,
    epochs: AtomicU64,
    started: Moment,
    meter: Meter,
    /// No new sessions, and those that there are end as soon as what they have begun is done.
    draining: watch::Sender<bool>,
    end: End,
}

impl Relay {
    /// Starts a relay on the current tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] if it cannot listen: a local matter.
    pub fn start(options: RelayOptions) -> Result<Self, BindError> {
        let RelayOptions { identity, socket, outgoing, store, clock, entropy, limits, determinism } = options;
        let endpoint = RelayEndpoint::bind(socket, &identity, &limits.transport, &*entropy, determinism.as_ref())?;
        let local = endpoint.local_addr()?;
        let outgoing = ClientEndpoint::bind(outgoing, &identity, &limits.transport, &*entropy, determinism.as_ref())?;
        let id = identity.relay_id();
        let registry = Arc::new(Registry::default());
        let node = Arc::new_cyclic(|node: &Weak<Node>| {
            let to_end = node.clone();
            let federation = Federation::new(Context {
                me: id,
                endpoint: outgoing,
                places: RwLock::new(limits.federation.places.clone()),
                store: store.clone(),
                clock: clock.clone(),
                entropy: entropy.clone(),
                tell: registry.clone(),
                failed: Box::new(move |error| {
                    if let Some(node) = to_end.upgrade() {
                        node.store_failed(error);
                    }
                }),
            });
            Node {
                id,
                meter: Meter { unread: endpoint.unread(), ..Meter::default() },
                endpoint,
                store,
                registry,
                federation,
                misrouted: Complaints::new(clock.clone()),
                store_trouble: Complaints::new(clock.clone()),
                started: clock.now(),
                draining: watch::Sender::new(false),
                in_force: InForce::new(limits, &clock),
                clock,
                entropy,
                epochs: AtomicU64::new(1),
                end: End::default(),
            }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let node = node.clone();
            async move {
                resume_links(&node).await;
                accept::run(node).await;
            }
        });
        tasks.spawn(sweep::run(node.clone()));
        tasks.spawn(wake_interrupted(node.clone()));
        tracing::info!(relay = %node.id, %local, store = %node.store.store_id(), "relay started");
        Ok(Self { node, local, tasks })
    }

    /// Where it listens: the real port, if 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address to give to clients, if they reach it at `host`.
    #[must_use]
    pub fn address(&self, host: HostPort) -> RelayAddress {
        RelayAddress::new(self.node.id, host)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.node.registry.len()
    }

    /// A look at it from outside.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.node))
    }

    /// Takes other limits from now on; those of the transport, but for R:HELLO, hold until the next start. Sessions
    /// of relays that are not admitted any more are closed.
    pub fn set_limits(&self, limits: RelayLimits) {
        let federation = limits.federation.clone();
        // First: a relay that is closed and comes back at once is judged by the new ones.
        self.node.in_force.set(limits, &self.node.clock);
        self.node.registry.close_relays(|relay| !federation.admits(relay));
        self.node.federation.set_places(federation.places);
    }

    /// Lets peers prove anew that they may be here: their clients come back by themselves, if they may.
    pub fn judge_anew(&self, suspect: impl Fn(&PeerId) -> bool) {
        self.node.registry.close_peers(suspect, CloseCode::GoingAway, "who may be here has changed");
    }

    /// Waits until the relay cannot go on.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when the store's disk fails to sync. The process has to end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn failed(&self) -> StoreError {
        let broken = |ending: &Ending| match ending {
            Ending::Broken(error) => Some(error.clone()),
            Ending::Asked => None,
        };
        self.node.end.wait_for(broken).await
    }

    /// Makes ready to stop: refuses new sessions, and asks the clients to leave and to come back after a while. Returns
    /// when all have left, each once all that it had begun is done. [`shutdown`](Self::shutdown) comes next.
    ///
    /// # Cancel safety
    /// Safe: it goes on by itself.
    pub async fn drain(&self) {
        tracing::info!(sessions = self.sessions(), "draining");
        self.node.draining.send_replace(true);
        self.node.registry.emptied().await;
    }

    /// Stops politely: refuses new connections, tells every client, finishes what is begun.
    ///
    /// # Cancel safety
    /// Dropped halfway, the rest is stopped as by a crash: nothing that was promised is lost.
    pub async fn shutdown(mut self) {
        self.node.end.set(Ending::Asked);
        while self.tasks.join_next().await.is_some() {}
        self.node.endpoint.close(CloseCode::GoingAway, "the relay stops");
        self.node.endpoint.wait_idle().await;
        tracing::info!("relay stopped");
    }
}

impl Node {
    /// Whether new sessions are refused.
    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until sessions are to end. Cancel-safe.
    async fn drains(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives in self, so the wait ends with news alone.
        let _news = draining.wait_for(|draining| *draining).await.is_ok();
    }

    /// When to come back, for one of those that are sent away.
    fn away(&self) -> Duration {
        let (least, most) = AWAY_SPREAD;
        let spread = (self.registry.len() as f64 / RETURNING_PER_SECOND).clamp(least, most);
        let share = (self.entropy.word() >> 11) as f64 / (1u64 << 53) as f64;
        AWAY + Duration::from_secs_f64(spread * share)
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed)
    }

    /// The store failed at something: if it is for good, the relay ends.
    fn store_failed(&self, error: &StoreError) {
        if matches!(error, StoreError::Fatal(_) | StoreError::Closed) {
            tracing::error!(%error, "the store cannot be used any more");
            self.end.set(Ending::Broken(error.clone()));
        }
    }

    /// Waits until the relay ends.
    async fn ended(&self) {
        self.end.wait_for(|_| Some(())).await;
    }
}

/// Goes on with what the last run left to be forwarded. Before the first client: a link that begins with a new message
/// would take the older ones, which may have been taken long ago, for as new.
async fn resume_links(node: &Node) {
    while let Err(error) = node.federation.resume().await {
        tracing::error!(%error, "nobody is let in before it is known what waits for other relays");
        node.store_failed(&error);
        tokio::select! {
            biased;
            () = node.ended() => return,
            () = tokio::time::sleep(RESUME_PAUSE) => {}
        }
    }
}

/// Tells the clients of sessions that a crash cut off that the relay is back: an idle one would notice at its
/// next keep-alive only.
async fn wake_interrupted(node: Arc<Node>) {
    let interrupted = node.store.interrupted();
    for some in interrupted.chunks(WAKES_AT_ONCE) {
        for client in some {
            if let Err(error) = node.endpoint.wake(*client).await {
                tracing::debug!(%client, %error, "a client was not woken");
            }
        }
        tokio::select! {
            biased;
            () = node.ended() => return,
            () = tokio::time::sleep(WAKE_PAUSE) => {}
        }
    }
    if !interrupted.is_empty() {
        tracing::info!(clients = interrupted.len(), "told the clients of the last run that the relay is back");
    }
}
