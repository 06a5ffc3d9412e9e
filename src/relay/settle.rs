//! A recipient's answers on their way into the store, and from there to the senders.
//!
//! A *delivered* is told at once: it need not wait for the disk (LAW 3). All outcomes are told once they are
//! durable, if they were not, or were told to a session that was replaced since; and that happens even if the
//! recipient's session ends meanwhile, for its sender may be there and waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Node;
use super::session::{End, Session};
use crate::id::{LaneKey, PeerId};
use crate::protocol::Taken;
use crate::ranges::Ranges;
use crate::store::{Done, Op, Settled, StoreError, Stored};

/// Answers that the store is busy with. Dropped, they are carried out all the same.
pub(super) struct Settling(JoinHandle<Result<(), StoreError>>);

/// For each submitter and lane the session that was told in advance, and the numbers.
type Told = BTreeMap<(PeerId, LaneKey), (Option<u64>, Ranges)>;

/// Gives answers to the store. `taken` are those messages among them that are at hand: their senders are told
/// at once.
pub(super) fn settle(session: &Session, answers: Taken, taken: &[Arc<Stored>]) -> Settling {
    let node = session.node.clone();
    let settle = Op::Settle { store: node.store.store_id(), answers, handed_out: session.handed_out() };
    // In the store's order of things before anybody is told, so that a question that comes after the telling
    // is answered after the settling.
    let reply = node.store.submit(session.fence, vec![settle]);
    let mut told = Told::new();
    for stored in taken {
        let header = stored.envelope.header();
        told.entry((stored.submitter, header.lane_key())).or_default().1.insert(header.n);
    }
    for ((submitter, lane), (epoch, delivered)) in &mut told {
        let exceptions = Vec::new();
        *epoch = node.registry.tell(&Settled {
            submitter: *submitter,
            lane: *lane,
            delivered: delivered.clone(),
            exceptions,
        });
    }
    Settling(tokio::spawn(async move {
        let done = reply.await?;
        tell_the_rest(&node, done, &told);
        Ok(())
    }))
}

fn tell_the_rest(node: &Node, done: Vec<Done>, told: &Told) {
    for done in done {
        let Done::Settled(all) = done else { continue };
        for settled in all {
            let told = told.get(&(settled.submitter, settled.lane)).is_some_and(|(epoch, numbers)| {
                let covered = |(from, to)| numbers.range_of(from).is_some_and(|range| range.1 >= to);
                *epoch == node.registry.epoch(settled.submitter)
                    && settled.exceptions.is_empty()
                    && settled.delivered.iter().all(covered)
            });
            if !told {
                node.registry.tell(&settled);
            }
        }
    }
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
