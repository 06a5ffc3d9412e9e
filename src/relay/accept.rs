//! Takes connections, within limits, and starts a session for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::gate::{Gate, Passage};
use super::{Node, serve};
use crate::protocol::CloseCode;
use crate::transport::Incoming;

/// How long sessions may take to finish once the relay ends.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// With this share (one in so many) of the places for connections without R:HELLO taken, the relay is crowded.
const CROWDED_SHARE: usize = 10;

/// Accepts until the relay ends, then waits for the sessions to finish.
pub(super) async fn run(node: Arc<Node>) {
    let gate = Gate::new(node.limits.connections_per_address);
    let connections = Arc::new(Semaphore::new(node.limits.connections));
    let strangers = Arc::new(Semaphore::new(node.limits.transport.max_without_hello));
    let max_strangers = node.limits.transport.max_without_hello;
    let uncrowded = max_strangers - max_strangers / CROWDED_SHARE;
    let mut sessions = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            () = node.ended() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            incoming = node.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        if node.is_draining() {
            node.meter.turned_away.add(1);
            incoming.refuse();
            continue;
        }
        let crowded = strangers.available_permits() < uncrowded;
        let address = incoming.remote().ip();
        match gate.judge(node.clock.now(), address, incoming.is_validated(), crowded) {
            Passage::Welcome => {}
            Passage::Prove => {
                incoming.retry();
                continue;
            }
            Passage::Refuse => {
                tracing::debug!("too many connections from one address: refused");
                node.meter.turned_away.add(1);
                incoming.refuse();
                continue;
            }
        }
        let permits = connections.clone().try_acquire_owned().ok().zip(strangers.clone().try_acquire_owned().ok());
        match permits {
            Some((connection, stranger)) => {
                sessions.spawn(shake_hands(node.clone(), incoming, connection, stranger));
            }
            None => {
                tracing::warn!("as many connections as the limits allow: one more is refused");
                node.meter.turned_away.add(1);
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

async fn shake_hands(
    node: Arc<Node>,
    incoming: Incoming,
    _connection: OwnedSemaphorePermit,
    stranger: OwnedSemaphorePermit,
) {
    let remote = incoming.remote();
    match incoming.handshake().await {
        Ok(connection) => serve::run(&node, connection, stranger).await,
        Err(error) => tracing::debug!(%remote, %error, "handshake failed"),
    }
}
