//! A look at a running relay from outside, which keeps nothing of it alive.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use super::{Meter, Node, Operator};
use crate::federation::{Standing, Status};
use crate::id::RelayId;
use crate::store::{Counted, StoreError, TakePiece, Totals, outbox_key};
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

/// How a relay is as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub relay: RelayId,
    /// For how long it has run.
    pub uptime: Duration,
    /// Whether it is about to stop.
    pub draining: bool,
    /// Sessions that are open.
    pub sessions: usize,
    /// Links to other relays, by how they stand.
    pub links: BTreeMap<&'static str, u64>,
    /// What its store holds.
    pub stored: Totals,
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

    /// How it is as a whole.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say; `Closed` once the relay is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn report(&self) -> Result<Report, StoreError> {
        let node = self.0.upgrade().ok_or(StoreError::Closed)?;
        let stored = node.store.totals().await?;
        let mut links = BTreeMap::from(["connecting", "idle", "open", "waiting"].map(|state| (state, 0)));
        for (_, status) in node.federation.status() {
            *links.entry(status.standing.name()).or_default() += 1;
        }
        let (uptime, draining) = (node.clock.now().since(node.started), node.is_draining());
        Ok(Report { relay: node.id, uptime, draining, sessions: node.registry.len(), links, stored })
    }

    /// Whether it is about to stop, or gone.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.upgrade().is_none_or(|node| node.is_draining())
    }

    /// Whether it takes sessions and messages; if not, why. It writes to the store to find out.
    ///
    /// # Errors
    /// Words for people.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) -> Result<(), String> {
        let node = self.0.upgrade().ok_or("the relay is gone")?;
        if node.is_draining() {
            return Err("the relay is draining: it is about to stop".to_owned());
        }
        match node.store.probe().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the store takes no new messages: its disk is nearly full, or failed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks at what it and its store have counted; nothing once the relay is gone.
    pub fn counted<T>(&self, look: impl FnOnce(&Meter, &Counted) -> T) -> Option<T> {
        self.0.upgrade().map(|node| look(&node.meter, node.store.counted()))
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
