//! Senders and recipients as applications have them: the library's client.

use futures_util::FutureExt;

use super::Bench;
use crate::address::PeerAddress;
use crate::client::{Client, Reading, Stop};
use crate::identity::Identity;

/// A sender and its recipient. Dropped, both are closed.
pub(super) struct Pair {
    pub(super) sender: Client,
    pub(super) to: PeerAddress,
}

impl Pair {
    /// Starts both; the recipient takes whatever comes.
    pub(super) fn start(bench: &Bench) -> anyhow::Result<Self> {
        let sender = start(bench, Identity::generate(&*bench.entropy), Reading::Nothing)?;
        let recipient = start(bench, Identity::generate(&*bench.entropy), Reading::InOrder)?;
        let to = recipient.address();
        tokio::spawn(async move { while take(&recipient).await.is_ok() {} });
        Ok(Self { sender, to })
    }
}

/// A client with its outbox and inbox where the user wants them.
pub(super) fn start(bench: &Bench, who: Identity, reading: Reading) -> anyhow::Result<Client> {
    let id = who.peer_id().to_string();
    let builder = Client::builder(who, bench.relay.clone()).reading(reading);
    let Some(clients) = &bench.clients else { return Ok(builder.start()?) };
    let directory = clients.join(id);
    std::fs::create_dir_all(&directory)?;
    Ok(builder.directory(directory).start()?)
}

/// Takes the next message, without waiting for that to be durable.
///
/// # Errors
/// [`Stop`] once no more can come.
pub(super) async fn take(client: &Client) -> Result<(), Stop> {
    let message = client.recv().await?;
    // One poll says it; the client acknowledges it once it is durable, whether anybody waits for that or not.
    message.taken().now_or_never().unwrap_or(Ok(()))
}
