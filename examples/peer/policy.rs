//! `peer block`, `peer allow` and `peer policy`: whose messages the relay takes for this peer.

use std::time::Duration;

use anyhow::anyhow;
use posthouse::client::{Client, PolicyError};
use posthouse::protocol::{self, PolicyChange};
use posthouse::time::SystemClock;

use crate::args::Senders;
use crate::fault::{Done, Fault};
use crate::output::{Output, Report};
use crate::session::{self, Troubles, interrupted};
use crate::words;

/// Makes a change, if there is one, and shows what holds then.
pub(crate) async fn run(
    client: Client,
    change: PolicyChange,
    timeout: Duration,
    out: &mut Output,
) -> Result<Done, Fault> {
    let clock = SystemClock::shared();
    let until = clock.now() + timeout;
    let mut troubles = Troubles::default();
    let changed = async {
        session::first(&client, (&clock, Some(until)), &mut troubles, out).await?;
        match client.change_policy(change).await {
            Ok(()) => Ok(client.policy().await?),
            Err(PolicyError::Stopped(stop)) => Err(Fault::from(stop)),
            Err(error) => Err(anyhow!(error).into()),
        }
    };
    let policy = tokio::select! {
        policy = changed => policy?,
        () = interrupted() => return Err(anyhow!("stopped before the relay answered").into()),
        () = tokio::time::sleep(timeout) => return Err(session::unreachable_relay(&client, "no answer")),
    };
    out.tell(&Report::policy(&policy), Some(words::policy(&policy)))?;
    Ok(Done::Well)
}

/// The senders that a word means.
pub(crate) const fn senders(word: Senders) -> protocol::Senders {
    match word {
        Senders::Anyone => protocol::Senders::Anyone,
        Senders::Contacts => protocol::Senders::Contacts,
    }
}
