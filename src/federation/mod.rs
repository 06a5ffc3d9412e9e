//! Links to other relays: who they are, and that there is one for each relay that something waits for.
//!
//! What peers here send to peers of another relay lies in the outbox for that relay, in the store. A link takes it
//! from there, and to the other relay it is an ordinary client. Its own trouble is its own: every link has its
//! task, its connection and its backoff.

mod feed;
mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;

use crate::address::RelayAddress;
use crate::id::RelayId;
use crate::random::SharedEntropy;
use crate::store::told::Tell;
use crate::store::{LinkState, RelayStore, StoreError};
use crate::time::{SharedClock, UnixMillis};
use crate::transport::ClientEndpoint;
use link::Link;

/// Links at one time. Beyond, messages for yet another relay are refused until one is done.
pub const MAX_LINKS: usize = 10_000;

/// What a link needs of the relay that it belongs to.
pub struct Context {
    /// Who this relay is.
    pub me: RelayId,
    /// Its outgoing connections, proven by its own key.
    pub endpoint: ClientEndpoint,
    /// Where relays are, whatever messages say.
    pub places: RwLock<BTreeMap<RelayId, RelayAddress>>,
    /// Where the outboxes are.
    pub store: Arc<dyn RelayStore>,
    /// Its clock.
    pub clock: SharedClock,
    /// Its chance.
    pub entropy: SharedEntropy,
    /// Tells senders what became of their messages.
    pub tell: Arc<dyn Tell>,
    /// The store failed for good.
    pub failed: Box<dyn Fn(&StoreError) + Send + Sync>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("me", &self.me).finish_non_exhaustive()
    }
}

/// How it stands with a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing waits for an outcome.
    Idle,
    /// A connection is being made.
    Connecting,
    /// A session is open.
    Open,
    /// There is none; it is tried again at this time.
    Waiting {
        /// When.
        retry_at: UnixMillis,
    },
}

impl Standing {
    /// Its name in every output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Waiting { .. } => "waiting",
        }
    }
}

/// A link as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How it stands.
    pub standing: Standing,
    /// Why there was no connection last.
    pub last_error: Option<String>,
}

/// What a link is told.
#[derive(Debug, Clone)]
struct Order {
    /// All places where it may be; what was named last comes first.
    address: RelayAddress,
    /// Counts the times that it was wanted, or that its relay was heard from.
    times: u64,
    /// Counts the reasons to try at once: its relay was heard from, or a place that is new.
    hopes: u64,
}

#[derive(Debug)]
struct Handle {
    orders: watch::Sender<Order>,
    status: watch::Receiver<Status>,
}

/// All links of a relay. Dropping it ends them.
#[derive(Debug)]
pub struct Federation {
    context: Arc<Context>,
    links: Arc<Mutex<BTreeMap<RelayId, Handle>>>,
}

impl Federation {
    /// Without any link yet.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context), links: Arc::default() }
    }

    /// Starts links to all relays for which something waits. Before anything else is put into an outbox.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say for which. Not cancel-safe: some links may be there then.
    pub async fn resume(&self) -> Result<(), StoreError> {
        for state in self.context.store.links().await? {
            if state.waiting == 0 {
                // The last run ended before it could.
                link::release(&self.context, &state.relay);
                continue;
            }
            match state.address.parse::<RelayAddress>() {
                Ok(address) => drop(self.open(address, Some(state))),
                Err(error) => tracing::error!(relay = %state.relay, %error, "messages wait for a relay at no address"),
            }
        }
        Ok(())
    }

    /// Sees to it that there is a link to the relay at this address, before something is put into its outbox. Gives
    /// all places where it will be looked for; `None` if there are too many links.
    ///
    /// A sender may be wrong, or lie: what was named before is tried as well, and first of all the place where the
    /// relay was met last.
    #[must_use]
    pub fn open_link(&self, address: RelayAddress) -> Option<RelayAddress> {
        self.open(address, None)
    }

    /// From now on relays are at these places, whatever messages say. A link that is there learns of a new one with the
    /// next message for it.
    pub fn set_places(&self, places: BTreeMap<RelayId, RelayAddress>) {
        *self.context.places.write().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// That relay has connected, so it is there: what waits for it need not wait for its next try.
    pub fn heard_from(&self, relay: &RelayId) {
        if let Some(handle) = lock(&self.links).get(relay) {
            handle.orders.send_modify(|order| {
                order.times += 1;
                order.hopes += 1;
            });
        }
    }

    /// How every link stands.
    #[must_use]
    pub fn status(&self) -> Vec<(RelayId, Status)> {
        lock(&self.links).iter().map(|(relay, handle)| (*relay, handle.status.borrow().clone())).collect()
    }

    fn open(&self, address: RelayAddress, state: Option<LinkState>) -> Option<RelayAddress> {
        let known = self.context.places.read().unwrap_or_else(PoisonError::into_inner).get(&address.relay).cloned();
        let address = known.unwrap_or(address);
        let mut links = lock(&self.links);
        if let Some(handle) = links.get(&address.relay) {
            handle.orders.send_modify(|order| {
                order.times += 1;
                order.hopes += u64::from(order.address.add(address.hosts()));
            });
            return Some(handle.orders.borrow().address.clone());
        }
        if links.len() >= MAX_LINKS {
            return None;
        }
        let (orders, from_outside) = watch::channel(Order { address: address.clone(), times: 0, hopes: 0 });
        let idle = Status { standing: Standing::Idle, last_error: None };
        let (tell_status, status) = watch::channel(idle);
        links.insert(address.relay, Handle { orders, status });
        let (context, all) = (self.context.clone(), self.links.clone());
        tokio::spawn(async move {
            let relay = from_outside.borrow().address.relay;
            let mut link = Link::new(context, from_outside, tell_status, state);
            loop {
                let times = link.run().await;
                let mut links = lock(&all);
                // Wanted again meanwhile, it goes on; with the relay it ends.
                let over = links.get(&relay).is_none_or(|handle| handle.orders.borrow().times == times);
                if over || link.is_orphaned() {
                    links.remove(&relay);
                    if !link.is_orphaned() {
                        // Before anybody can want a link again, and put something into its outbox.
                        link.release();
                    }
                    return;
                }
            }
        });
        Some(address)
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        // Every link ends when nobody can tell it anything any more.
        lock(&self.links).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
