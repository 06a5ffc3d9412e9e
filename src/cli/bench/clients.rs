//! Senders and recipients as applications have them: the library's client.

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::Bench;
use crate::address::{PeerAddress, RelayAddress};
use crate::client::{Client, ClientBuilder, Reading, Stop};
use crate::identity::Identity;

/// A sender and its recipient, both on the same thread. Dropped, both are closed.
pub(super) struct Pair {
    pub(super) sender: Client,
    pub(super) to: PeerAddress,
    /// Where who uses the sender does so best.
    pub(super) thread: Handle,
}

impl Pair {
    /// Starts both; the recipient takes whatever comes.
    pub(super) fn start(bench: &Bench) -> anyhow::Result<Self> {
        let who = Identity::generate(&*bench.entropy);
        Self::with(bench, Client::builder(who.clone(), bench.relay.clone()), &who, &bench.relay)
    }

    /// Starts a sender that signs all it sends, and a recipient at this relay.
    pub(super) fn signed(bench: &Bench, to: &RelayAddress) -> anyhow::Result<Self> {
        let who = Identity::generate(&*bench.entropy);
        Self::with(bench, Client::builder(who.clone(), bench.relay.clone()).sign_all(), &who, to)
    }

    fn with(bench: &Bench, sender: ClientBuilder, its: &Identity, home: &RelayAddress) -> anyhow::Result<Self> {
        let thread = bench.threads.next();
        let here = thread.enter();
        let sender = keep(bench, sender.reading(Reading::Nothing), its)?.start()?;
        let who = Identity::generate(&*bench.entropy);
        let recipient = keep(bench, Client::builder(who.clone(), home.clone()), &who)?.start()?;
        let to = recipient.address();
        tokio::spawn(async move { while take(&recipient).await.is_ok() {} });
        drop(here);
        Ok(Self { sender, to, thread })
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
