//! Changes on their way to the disk, and what may happen only once they are there (LAW 1).
//!
//! What one turn of the driver changes goes to the store as one batch. Batches complete in order. When the
//! store does not work, new messages are handed back to whoever sent them, and everything else, which the
//! relay or the application has already caused, is tried again until it works.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Outgoing, SendError};
use crate::delivery::{Entry, Inbox, Receipt};
use crate::id::{LaneId, PeerId};
use crate::store::redb::client::{Change, ClientStore, KeptOutcome, Letter};
use crate::store::{Reply, StoreError};
use crate::time::Moment;

/// Batches that the store may be busy with; more would only make each smaller.
const BATCHES: usize = 2;

/// How long to wait before a store that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What waits for a batch to be durable.
#[derive(Debug)]
pub(super) enum After {
    /// Messages entered the outbox.
    Sent {
        entries: Vec<(Entry, Arc<Letter>)>,
        outgoing: Vec<Outgoing>,
        reply: oneshot::Sender<Result<Vec<Outgoing>, SendError>>,
    },
    /// Messages did not: the store failed, and whoever sent them is told.
    NotSent { entries: Vec<(Entry, Arc<Letter>)> },
    /// A message left the outbox.
    Resolved { key: u64, receipt: Receipt, outcome: Arc<KeptOutcome> },
    /// The relay's store is noted.
    Remembered,
    /// The application's answer to a message is in the inbox.
    Answered { place: (PeerId, LaneId, u64), durable: Option<oneshot::Sender<()>> },
}

#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    /// Rows of the inbox that changed: what they hold is looked up when the batch goes.
    rows: BTreeSet<(PeerId, LaneId)>,
    after: Vec<After>,
}

/// A batch that the store is busy with.
struct Flying {
    reply: Reply<()>,
    /// What it was told, rows of the inbox included.
    changes: Arc<Vec<Change>>,
    rows: BTreeSet<(PeerId, LaneId)>,
    after: Vec<After>,
}

/// See the head of this file.
pub(super) struct Commits {
    store: ClientStore,
    open: Batch,
    flying: VecDeque<Flying>,
    paused: Option<Moment>,
}

impl Commits {
    pub(super) const fn new(store: ClientStore) -> Self {
        let open = Batch { changes: Vec::new(), rows: BTreeSet::new(), after: Vec::new() };
        Self { store, open, flying: VecDeque::new(), paused: None }
    }

    pub(super) const fn store(&self) -> &ClientStore {
        &self.store
    }

    /// A change, without anything waiting for it.
    pub(super) fn change(&mut self, change: Change) {
        self.open.changes.push(change);
    }

    /// A row of the inbox has changed. Its state at the time when the batch goes is written, once.
    pub(super) fn row(&mut self, sender: PeerId, lane: LaneId) {
        self.open.rows.insert((sender, lane));
    }

    /// Something to do once all changes so far are durable.
    pub(super) fn after(&mut self, after: After) {
        self.open.after.push(after);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.flying.is_empty() && self.open.after.is_empty() && self.open.changes.is_empty()
    }

    /// When to try again after a failure.
    pub(super) const fn next_timeout(&self) -> Option<Moment> {
        self.paused
    }

    /// Hands what has gathered to the store, if it is not busy with enough.
    pub(super) fn submit(&mut self, now: Moment, inbox: &Inbox) {
        if self.paused.is_some_and(|until| now < until) || self.flying.len() >= BATCHES || self.is_open_empty() {
            return;
        }
        self.paused = None;
        let Batch { mut changes, rows, after } = std::mem::take(&mut self.open);
        let row = |(sender, lane): &(PeerId, LaneId)| {
            inbox.row(*sender, *lane).map(|row| Change::Answered(*sender, *lane, row.clone()))
        };
        changes.extend(rows.iter().filter_map(row));
        let changes = Arc::new(changes);
        let reply = self.store.commit(changes.clone());
        self.flying.push_back(Flying { reply, changes, rows, after });
    }

    fn is_open_empty(&self) -> bool {
        self.open.after.is_empty() && self.open.changes.is_empty() && self.open.rows.is_empty()
    }

    /// Waits for the oldest batch; for ever if there is none. Cancel-safe.
    ///
    /// # Errors
    /// If the store cannot be used any more.
    pub(super) async fn done(&mut self, now: impl Fn() -> Moment) -> Result<Vec<After>, StoreError> {
        let Some(oldest) = self.flying.front_mut() else { return std::future::pending().await };
        let result = (&mut oldest.reply).await;
        let Some(batch) = self.flying.pop_front() else { return Ok(Vec::new()) };
        match result {
            Ok(()) => Ok(batch.after),
            Err(error @ (StoreError::Fatal(_) | StoreError::Closed)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the client's store does not work; trying again");
                self.paused = Some(now() + RETRY);
                self.again(batch, &error);
                Ok(Vec::new())
            }
        }
    }

    /// Puts a failed batch in front of what has gathered since, but for new messages.
    fn again(&mut self, failed: Flying, error: &StoreError) {
        let later = std::mem::take(&mut self.open);
        let again = |change: &&Change| !matches!(change, Change::Keep(..) | Change::Answered(..));
        self.open.changes = failed.changes.iter().filter(again).cloned().collect();
        self.open.changes.extend(later.changes);
        self.open.rows = failed.rows;
        self.open.rows.extend(later.rows);
        for after in failed.after {
            match after {
                After::Sent { entries, reply, .. } => {
                    // Who no longer waits does not need to know.
                    reply.send(Err(SendError::Store(error.clone()))).ok();
                    self.open.after.push(After::NotSent { entries });
                }
                other => self.open.after.push(other),
            }
        }
        self.open.after.extend(later.after);
    }
}
