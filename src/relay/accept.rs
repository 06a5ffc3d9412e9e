//! Takes connections, within limits, and starts a session for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::gate::{Gate, Passage};
use super::{Node, serve};
use crate::protocol::CloseCode;
use crate::transport::Incoming;

/// How long sessions may take to finish once the relay ends.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// With this share (one in so many) of the places for connections without R:HELLO taken, the relay is crowded.
const CROWDED_SHARE: usize = 10;

/// A connection that has not said R:HELLO yet, for as long as this lives. Their number is that of all of these.
pub(super) type Stranger = Arc<()>;

/// Accepts until the relay ends, then waits for the sessions to finish.
pub(super) async fn run(node: Arc<Node>) {
    let gate = Gate::default();
    let stranger = Stranger::default();
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
        let limits = node.in_force.limits();
        let (strangers, max_strangers) = (Arc::strong_count(&stranger) - 1, limits.transport.max_without_hello);
        let crowded = strangers > max_strangers / CROWDED_SHARE;
        let address = incoming.remote().ip();
        match gate.judge(limits.connections_per_address, node.clock.now(), address, (incoming.is_validated(), crowded))
        {
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
        // Each connection is a task here until it is over.
        if sessions.len() < limits.connections && strangers < max_strangers {
            sessions.spawn(shake_hands(node.clone(), incoming, stranger.clone()));
        } else {
            tracing::warn!("as many connections as the limits allow: one more is refused");
            node.meter.turned_away.add(1);
            incoming.refuse();
        }
    }
    node.registry.close_all(CloseCode::GoingAway, "the relay stops");
    let finished = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(END_PATIENCE, finished).await.is_err() {
        tracing::warn!("some sessions did not finish in time; they are cut off");
    }
}

async fn shake_hands(node: Arc<Node>, incoming: Incoming, stranger: Stranger) {
    let remote = incoming.remote();
    match incoming.handshake().await {
        Ok(connection) => serve::run(&node, connection, stranger).await,
        Err(error) => tracing::debug!(%remote, %error, "handshake failed"),
    }
}
