//! A recipient's answers on their way into the store, and from there to the senders.
//!
//! A *delivered* is told at once: it need not wait for the disk (LAW 3). All outcomes are told once they are
//! durable, if they were not, or were told to a session that was replaced since; and that happens even if the
//! recipient's session ends meanwhile, for its sender may be there and waiting.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::session::{End, Session};
use crate::protocol::Taken;
use crate::store::told::Told;
use crate::store::{Op, StoreError, Stored};

/// Answers that the store is busy with. Dropped, they are carried out all the same.
pub(super) struct Settling(JoinHandle<Result<(), StoreError>>);

/// Gives answers to the store. `taken` are those messages among them that are at hand: their senders are told
/// at once.
pub(super) fn settle(session: &Session, answers: Taken, taken: &[Arc<Stored>]) -> Settling {
    let node = session.node.clone();
    let patient = answers.refused.is_empty() && !taken.is_empty();
    let (store, handed_out) = (node.store.store_id(), session.handed_out());
    let settle = Op::Settle { store, answers, handed_out, patient };
    // In the store's order of things before anybody is told, so that a question that comes after the telling
    // is answered after the settling.
    let reply = node.store.submit(session.fence, vec![settle]);
    let mut told = Told::default();
    for stored in taken {
        let header = stored.envelope.header();
        told.add(stored.submitter, header.lane_key(), header.n);
    }
    told.tell_all(&*node.registry);
    Settling(tokio::spawn(async move {
        let done = reply.await?;
        told.tell_rest(&*node.registry, &done);
        Ok(())
    }))
}

impl Settling {
    /// Waits until the answers are durable. On an error the session has to end: its client comes back, and
    /// what it took is acknowledged again.
    ///
    /// Cancel-safe.
    pub(super) async fn done(&mut self) -> Result<(), End> {
        match (&mut self.0).await {
            Ok(settled) => Ok(settled?),
            // The task neither panics nor is it aborted, but for the end of the runtime.
            Err(_) => Err(StoreError::Closed.into()),
        }
    }
}
