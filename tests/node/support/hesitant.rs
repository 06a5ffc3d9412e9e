//! A relay's store that takes its time about one thing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use posthouse::id::{PeerId, StoreId};
use posthouse::protocol::{Durability, Policy, Status};
use posthouse::store::redb::relay::RedbRelayStore;
use posthouse::store::{
    Counted, Done, Expired, Fence, LinkState, Op, Page, PeerPage, Query, RelayStore, Reply, TakePiece, Totals, Watch,
};
use tokio::sync::Notify;

/// How long it hesitates to say what waits for others, if no message comes before: far longer than a client needs to
/// connect and send one.
const HESITATION: Duration = Duration::from_secs(1);

/// What it takes its time about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hesitation {
    /// To say which other relays messages wait for: until a message comes.
    Links,
    /// To open a session: for ever.
    Sessions,
    /// To say that what a recipient answered is durable: until its session is over.
    Answers,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Hesitant {
    store: Arc<RedbRelayStore>,
    about: Hesitation,
    message: Arc<Notify>,
    end: Arc<Notify>,
}

impl Hesitant {
    pub(crate) fn new(store: Arc<RedbRelayStore>, about: Hesitation) -> Self {
        Self { store, about, message: Arc::default(), end: Arc::default() }
    }
}

impl RelayStore for Hesitant {
    fn store_id(&self) -> StoreId {
        self.store.store_id()
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn interrupted(&self) -> Vec<SocketAddr> {
        self.store.interrupted()
    }

    fn submit(&self, fence: Fence, batch: Vec<Op>) -> Reply<Vec<Done>> {
        if batch.iter().any(|op| matches!(op, Op::Append(_))) {
            self.message.notify_one();
        }
        if self.about == Hesitation::Sessions && batch.iter().any(|op| matches!(op, Op::Open { .. })) {
            return Box::pin(std::future::pending());
        }
        if batch.iter().any(|op| matches!(op, Op::End { .. })) {
            self.end.notify_one();
        }
        let hesitates = self.about == Hesitation::Answers && batch.iter().any(|op| matches!(op, Op::Settle { .. }));
        let (end, reply) = (self.end.clone(), self.store.submit(fence, batch));
        if !hesitates {
            return reply;
        }
        Box::pin(async move {
            end.notified().await;
            reply.await
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.store.ready()
    }

    fn expire(&self, limit: usize) -> Reply<Expired> {
        self.store.expire(limit)
    }

    fn page(&self, query: Query) -> Reply<Page> {
        self.store.page(query)
    }

    fn status(&self, mailbox: PeerId, sender: Option<PeerId>) -> Reply<Status> {
        self.store.status(mailbox, sender)
    }

    fn links(&self) -> Reply<Vec<LinkState>> {
        let (message, links) = (self.message.clone(), self.store.links());
        let hesitates = self.about == Hesitation::Links;
        Box::pin(async move {
            if hesitates {
                tokio::time::timeout(HESITATION, message.notified()).await.ok();
            }
            links.await
        })
    }

    fn counted(&self) -> &Counted {
        self.store.counted()
    }

    fn totals(&self) -> Reply<Totals> {
        self.store.totals()
    }

    fn probe(&self) -> Reply<bool> {
        self.store.probe()
    }

    fn backup(&self, take: Box<TakePiece>) -> Reply<()> {
        self.store.backup(take)
    }

    fn policy(&self, mailbox: PeerId) -> Reply<Policy> {
        self.store.policy(mailbox)
    }

    fn peers(&self, after: Option<PeerId>, limit: usize) -> Reply<PeerPage> {
        self.store.peers(after, limit)
    }

    fn watch(&self, mailbox: PeerId) -> Watch {
        self.store.watch(mailbox)
    }
}
