//! Senders and recipients as applications have them: the library's client.

use futures_util::FutureExt;

use super::Bench;
use crate::address::{PeerAddress, RelayAddress};
use crate::client::{Client, ClientBuilder, Reading, Stop};
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
        Self::with(bench, sender, &bench.relay)
    }

    /// Starts a sender that signs all it sends, and a recipient at this relay.
    pub(super) fn signed(bench: &Bench, to: &RelayAddress) -> anyhow::Result<Self> {
        let who = Identity::generate(&*bench.entropy);
        let sender = keep(bench, Client::builder(who.clone(), bench.relay.clone()).sign_all(), &who)?;
        Self::with(bench, sender.reading(Reading::Nothing).start()?, to)
    }

    fn with(bench: &Bench, sender: Client, home: &RelayAddress) -> anyhow::Result<Self> {
        let who = Identity::generate(&*bench.entropy);
        let recipient = keep(bench, Client::builder(who.clone(), home.clone()), &who)?.start()?;
        let to = recipient.address();
        tokio::spawn(async move { while take(&recipient).await.is_ok() {} });
        Ok(Self { sender, to })
    }
}

/// A client with its outbox and inbox where the user wants them.
pub(super) fn start(bench: &Bench, who: Identity, reading: Reading) -> anyhow::Result<Client> {
    let builder = Client::builder(who.clone(), bench.relay.clone()).reading(reading);
    Ok(keep(bench, builder, &who)?.start()?)
}

fn keep(bench: &Bench, client: ClientBuilder, who: &Identity) -> anyhow::Result<ClientBuilder> {
    let Some(clients) = &bench.clients else { return Ok(client) };
    let directory = clients.join(who.peer_id().to_string());
    std::fs::create_dir_all(&directory)?;
    Ok(client.directory(directory))
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
