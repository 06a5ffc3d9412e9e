//! What an operator does with a running relay: looks at its peers, lets them in or keeps them out, removes mailboxes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Node;
use crate::id::PeerId;
use crate::protocol::CloseCode;
use crate::store::told::Tell as _;
use crate::store::{Done, Fence, Invitation, Op, PeerPage, Standing, StoreError, invitation_key};
use crate::time::UnixMillis;

/// Messages removed in one step. Between two others have their turn.
const REMOVED_AT_ONCE: usize = 250;

/// How long the last session of a mailbox that is removed has to end, and how often that is looked at.
const END_PATIENCE: Duration = Duration::from_secs(5);
const END_PAUSE: Duration = Duration::from_millis(20);

/// A device that no client has: an operator's changes come from nobody's session.
const NO_DEVICE: u64 = u64::MAX;

/// See the head of this file. Keeps nothing of the relay alive.
#[derive(Debug, Clone)]
pub struct Operator(pub(super) Weak<Node>);

/// What became of a mailbox that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Messages that ended as *rejected*, `removed`.
    pub messages: u64,
    /// The mailbox is gone. Otherwise its owner keeps coming back, or some messages are damaged.
    pub gone: bool,
}

impl Operator {
    /// Peers, at most `limit` of them, behind `after`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say; `Closed` once the relay is gone. So for all that follows.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn peers(&self, after: Option<PeerId>, limit: usize) -> Result<PeerPage, StoreError> {
        self.node()?.store.peers(after, limit).await
    }

    /// Decides about a peer, or leaves it to the configuration. One that is blocked is thrown out.
    ///
    /// # Errors
    /// See [`peers`](Self::peers).
    ///
    /// # Cancel safety
    /// Dropped, it may or may not hold.
    pub async fn decide(&self, peer: PeerId, standing: Option<Standing>) -> Result<(), StoreError> {
        let node = self.node()?;
        carry_out(&node, Op::Decide { peer, standing }).await?;
        if standing == Some(Standing::Blocked) {
            node.registry.close_peers(|other| *other == peer, CloseCode::NotAllowed, "the operator blocked this peer");
        }
        Ok(())
    }

    /// Makes an invitation for so many new peers, and gives its token. `None` if there are too many.
    ///
    /// # Errors
    /// See [`peers`](Self::peers).
    ///
    /// # Cancel safety
    /// Dropped, there may be one that nobody knows.
    pub async fn invite(&self, uses: u64, lifetime: Duration) -> Result<Option<(String, UnixMillis)>, StoreError> {
        let node = self.node()?;
        let secret: [u8; 16] = node.entropy.bytes();
        let token = data_encoding::BASE32_NOPAD.encode(&secret).to_lowercase();
        let expires = node.clock.date() + lifetime;
        let kept = carry_out(&node, Op::Invite(Invitation { key: invitation_key(&token), uses, expires })).await?;
        Ok((kept == Done::Changed(true)).then_some((token, expires)))
    }

    /// Removes a peer's mailbox with all that is in it; senders are told. Its session ends, and its client does not come
    /// back by itself.
    ///
    /// # Errors
    /// See [`peers`](Self::peers). What was removed is.
    ///
    /// # Cancel safety
    /// Dropped, part of it may be removed.
    pub async fn remove(&self, peer: PeerId) -> Result<Removal, StoreError> {
        let node = self.node()?;
        let patience = node.clock.now() + END_PATIENCE;
        let mut messages = 0;
        loop {
            let begun = node.clock.now();
            let reason = "the operator removed this mailbox";
            node.registry.close_peers(|other| *other == peer, CloseCode::NotAllowed, reason);
            let done = carry_out(&node, Op::Remove { peer, limit: REMOVED_AT_ONCE }).await?;
            let Done::Removed { settled, gone, .. } = done else { return Err(StoreError::Closed) };
            for settled in &settled {
                node.registry.tell(settled);
                messages += settled.exceptions.iter().map(|run| run.to - run.from + 1).sum::<u64>();
            }
            if gone || (settled.is_empty() && node.clock.now() >= patience) {
                tracing::info!(peer = %peer.short(), messages, gone, "the operator removed a mailbox");
                return Ok(Removal { messages, gone });
            }
            // As long as the step took: delivery has at least half of the writer's time.
            let pause = if settled.is_empty() { END_PAUSE } else { node.clock.now().since(begun) };
            tokio::time::sleep(pause).await;
        }
    }

    fn node(&self) -> Result<Arc<Node>, StoreError> {
        self.0.upgrade().ok_or(StoreError::Closed)
    }
}

async fn carry_out(node: &Node, op: Op) -> Result<Done, StoreError> {
    let fence = Fence { peer: PeerId::from_bytes(*node.id.as_bytes()), device: NO_DEVICE, epoch: node.next_epoch() };
    let done = node.store.submit(fence, vec![op]).await?;
    done.into_iter().next().ok_or(StoreError::Closed)
}
