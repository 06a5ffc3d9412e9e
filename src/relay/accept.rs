//! Takes connections, within limits, and starts a session for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::complaints::Complaints;
use super::gate::{Gate, Passage};
use super::meter::TurnedAway;
use super::strangers::{Stranger, Strangers};
use super::{Node, serve};
use crate::protocol::CloseCode;
use crate::transport::Incoming;

/// How long sessions may take to finish once the relay ends.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Accepts until the relay ends, then waits for the sessions to finish.
pub(super) async fn run(node: Arc<Node>) {
    let gate = Gate::default();
    let strangers = Strangers::default();
    let refused = Complaints::new(node.clock.clone());
    let mut sessions = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            () = node.ended() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            incoming = node.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let limits = node.in_force.limits();
        let (address, places) = (incoming.remote().ip(), limits.transport.max_without_hello);
        let state = (incoming.is_validated(), strangers.crowd(places));
        let admitted = if node.is_draining() {
            Err(TurnedAway::Draining)
        } else {
            match gate.judge(limits.connections_per_address, node.clock.now(), address, state) {
                Passage::Prove => {
                    node.meter.retries.add(1);
                    incoming.retry();
                    continue;
                }
                Passage::Refuse => Err(TurnedAway::TooOften),
                Passage::Welcome if sessions.len() >= limits.connections => Err(TurnedAway::Full),
                Passage::Welcome => strangers.admit(address, places),
            }
        };
        match admitted {
            // Each connection is a task here until it is over.
            Ok(stranger) => drop(sessions.spawn(attend(node.clone(), incoming, stranger))),
            Err(why) => {
                node.meter.turned_away.add(why.name());
                if why != TurnedAway::Draining
                    && let Some(count) = refused.count()
                {
                    tracing::warn!(%address, reason = why.name(), count, "connections are refused");
                }
                incoming.refuse();
            }
        }
    }
    node.registry.close_all(CloseCode::GoingAway, "the relay stops");
    let finished = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(END_PATIENCE, finished).await.is_err() {
        tracing::warn!("some sessions did not finish in time; they are cut off");
    }
}

/// A connection from its first packet to its end.
fn attend(node: Arc<Node>, incoming: Incoming, stranger: Stranger) -> impl Future<Output = ()> {
    let remote = incoming.remote();
    // In a box: it is long gone when the session still takes its room.
    let handshake = Box::pin(incoming.handshake());
    async move {
        match handshake.await {
            Ok(connection) => serve::run(&node, connection, stranger).await,
            Err(error) => tracing::debug!(%remote, %error, "handshake failed"),
        }
    }
}
