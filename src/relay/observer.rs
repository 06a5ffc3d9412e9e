//! A look at a running relay from outside, which keeps nothing of it alive.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::{Node, Operator};
use crate::federation::{Standing, Status};
use crate::id::RelayId;
use crate::store::{StoreError, TakePiece, outbox_key};
use crate::time::UnixMillis;

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Observer(pub(super) Weak<Node>);

/// How it stands with another relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// Which.
    pub relay: RelayId,
    /// Where it is looked for: the place that a message named last comes first.
    pub address: String,
    /// How the link stands.
    pub standing: Standing,
    /// Messages that have no outcome yet.
    pub waiting: u64,
    /// When the oldest of them came, by this relay's clock.
    pub oldest: Option<UnixMillis>,
    /// Why there was no connection last, if there was ever none.
    pub last_error: Option<String>,
}

impl Observer {
    /// What an operator may do.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator(self.0.clone())
    }

    /// The relays that this one forwards to: for which something waits, or did a minute ago.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say; `Closed` once the relay is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn links(&self) -> Result<Vec<LinkReport>, StoreError> {
        let node = self.0.upgrade().ok_or(StoreError::Closed)?;
        let running: BTreeMap<RelayId, Status> = node.federation.status().into_iter().collect();
        let mut reports = Vec::new();
        for link in node.store.links().await? {
            let status = running.get(&link.relay);
            let counted = node.store.status(outbox_key(&link.relay), None).await?;
            reports.push(LinkReport {
                relay: link.relay,
                address: link.address,
                standing: status.map_or(Standing::Idle, |status| status.standing.clone()),
                waiting: counted.messages,
                oldest: counted.oldest_ms.map(UnixMillis),
                last_error: status.and_then(|status| status.last_error.clone()),
            });
        }
        Ok(reports)
    }

    /// See [`RelayStore::backup`](crate::store::RelayStore::backup).
    ///
    /// # Errors
    /// The same; `Closed` once the relay is gone.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn backup(&self, take: Box<TakePiece>) -> Result<(), StoreError> {
        let node = self.0.upgrade().ok_or(StoreError::Closed)?;
        let backup = node.store.backup(take);
        // The relay may end meanwhile.
        drop(node);
        backup.await
    }
}
