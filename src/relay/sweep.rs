//! Ends messages whose time has run out, a bounded number at a time, and tells their senders.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::store::told::Tell;

/// Messages that one step ends: well below a millisecond of the writer's time, so that nobody waits long behind it.
/// Fewer make more commits, each of which tells the senders.
const SWEEP_MESSAGES: usize = 250;

/// How often to look, at least: a message may arrive that runs out before all others.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Sweeps until the relay ends.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        let begun = node.clock.now();
        let pause = match node.store.expire(SWEEP_MESSAGES).await {
            Ok(expired) => {
                for settled in &expired.settled {
                    node.registry.tell(settled);
                }
                let due = expired.next.map_or(SWEEP_PAUSE, |next| node.clock.date().until(next));
                // While more is due it rests as long as the step took: delivery has at least half of the writer's time,
                // however slow the disk.
                due.max(node.clock.now().since(begun)).min(SWEEP_PAUSE)
            }
            Err(error) => {
                node.store_failed(&error);
                tracing::warn!(%error, "expired messages could not be ended; trying again");
                SWEEP_PAUSE
            }
        };
        tokio::select! {
            biased;
            () = node.ended() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
