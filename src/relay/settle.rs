//! A recipient's answers on their way into the store, and from there to the senders.
//!
//! A *delivered* is told at once: it need not wait for the disk (LAW 3). All outcomes are told once they are
//! durable, if they were not, or were told to a session that was replaced since; and that happens even if the
//! recipient's session ends meanwhile, for its sender may be there and waiting.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::session::{End, Session};
use crate::protocol::Taken;
use crate::store::told::Told;
use crate::store::{Op, StoreError, Stored};

/// Answers that the store is busy with, and what remains to be told once they are durable. Dropped, they are carried out
/// all the same.
pub(super) struct Settling(Option<BoxFuture<'static, Result<(), StoreError>>>);

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
    Settling(Some(Box::pin(async move {
        let done = reply.await?;
        told.tell_rest(&*node.registry, &done);
        Ok(())
    })))
}

impl Settling {
    /// Waits until the answers are durable. On an error the session has to end: its client comes back, and
    /// what it took is acknowledged again.
    ///
    /// Cancel-safe.
    pub(super) async fn done(&mut self) -> Result<(), End> {
        if let Some(rest) = &mut self.0 {
            let settled = rest.await;
            self.0 = None;
            settled?;
        }
        Ok(())
    }

    /// For who does not wait all the time: nobody who is to be told waits for that.
    pub(super) fn by_itself(mut self) -> Self {
        let task = self.0.take().map(tokio::spawn);
        Self(task.map(|task| -> BoxFuture<'_, _> {
            // It does not panic, and is aborted with the runtime alone.
            Box::pin(async move { task.await.unwrap_or(Err(StoreError::Closed)) })
        }))
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn(rest));
        }
    }
}
