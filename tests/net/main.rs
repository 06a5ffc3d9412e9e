//! Hosts of their own, with a bad network between them: a real relay process, and peers as processes and as clients
//! of this crate.
//!
//! Each host is a network namespace, and every datagram passes a router of this test's own, which delays, loses,
//! reorders, repeats and cuts off as it is told, and changes addresses as a NAT does. Needs root, `ip` and `unshare`;
//! elsewhere each test says on standard error that it is skipped, and passes. Nothing is left behind.
//!
//! Whatever the network does, each message is taken once and in order, and each outcome reaches its sender: that is
//! what is asserted. How long it took is printed (`--nocapture`) and not asserted.
//!
//! | module | promise |
//! | --- | --- |
//! | `bad_path` | slow and lossy paths, and ones that reorder and repeat |
//! | `cut` | partitions, both ways and one way |
//! | `moved` | addresses that change in mid-flow |
//! | `federation` | all that between two relays |
//!
//! | on which it stands | |
//! | --- | --- |
//! | `namespace`, `network` | hosts and their cables |
//! | `router`, `link` | where datagrams go, and what becomes of them |
//! | `relay`, `peer` | who lives on the hosts; programs are started by `tests/process/program.rs` |
//!
//! `NET_LONG=1` makes partitions a minute long instead of 8 s; `NET_SEED` makes other dice fall (1 if not set).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and measures real time"
)]

mod bad_path;
mod cut;
mod federation;
#[path = "../node/support/lasting.rs"]
mod lasting;
mod link;
mod moved;
mod namespace;
mod network;
mod peer;
#[path = "../process/program.rs"]
#[expect(dead_code, clippy::panic, reason = "its hosts are those of the tests beside it")]
mod program;
mod relay;
mod router;

use std::time::Duration;

/// How long anything may take before a test fails. After a partition of a minute a client waits for up to 30 s
/// before it tries again, and for up to 5 s for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a condition holds, looking often.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "{what} did not come in {PATIENCE:?}");
}
