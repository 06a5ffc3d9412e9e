//! Senders and recipients as applications have them: the library's client.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use futures_util::future::{join_all, try_join, try_join_all};
use tokio::runtime::Handle;

use super::{Bench, report};
use crate::address::{PeerAddress, RelayAddress};
use crate::client::{Client, ClientBuilder, Connection, Reading, Stop};
use crate::identity::Identity;

/// Clients or pairs of them that are started at one time. All together would be a flood, most of which a relay leaves unread.
const AT_ONCE: usize = 128;

/// How long a client may take to have its session.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(300);

/// A sender and its recipient, both on the same thread.
pub(super) struct Pair {
    pub(super) sender: Client,
    recipient: Client,
    pub(super) to: PeerAddress,
    /// Where who uses the sender does so best.
    pub(super) thread: Handle,
}

impl Pair {
    /// So many, whose recipients take whatever comes. All have their sessions.
    pub(super) async fn open(bench: &Bench, count: u32) -> anyhow::Result<Vec<Self>> {
        open_all(count, || Self::start(bench, |sender| sender, &bench.relay), Self::opened).await
    }

    /// The same, with senders that sign all they send, and recipients at this relay.
    pub(super) async fn open_signed(bench: &Bench, count: u32, to: &RelayAddress) -> anyhow::Result<Vec<Self>> {
        open_all(count, || Self::start(bench, ClientBuilder::sign_all, to), Self::opened).await
    }

    async fn opened(&self) -> anyhow::Result<()> {
        try_join(opened(&self.sender), opened(&self.recipient)).await.map(drop)
    }

    /// Ends the sessions of all: a relay that lives on need not wait for them.
    pub(super) async fn close(pairs: Vec<Self>) {
        join_all(pairs.into_iter().flat_map(|pair| [pair.sender.close(), pair.recipient.close()])).await;
    }

    fn start(
        bench: &Bench,
        options: impl FnOnce(ClientBuilder) -> ClientBuilder,
        home: &RelayAddress,
    ) -> anyhow::Result<Self> {
        let thread = bench.threads.next();
        let here = thread.enter();
        let client = |relay: &RelayAddress| {
            let who = Identity::generate(&*bench.entropy);
            keep(bench, Client::builder(who.clone(), relay.clone()), &who)
        };
        let sender = options(client(&bench.relay)?).reading(Reading::Nothing).start()?;
        let recipient = client(home)?.start()?;
        let (to, takes) = (recipient.address(), recipient.clone());
        tokio::spawn(async move { while take(&takes).await.is_ok() {} });
        drop(here);
        Ok(Self { sender, recipient, to, thread })
    }
}

/// Starts so many of something, and waits until they have their sessions.
pub(super) async fn open_all<T>(
    count: u32,
    mut start: impl FnMut() -> anyhow::Result<T>,
    opened: impl AsyncFn(&T) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<T>> {
    let bar = report::progress("opening", u64::from(count));
    let (count, mut all) = (count as usize, Vec::new());
    while all.len() < count {
        let started = (0..AT_ONCE.min(count - all.len())).map(|_| start()).collect::<anyhow::Result<Vec<_>>>()?;
        try_join_all(started.iter().map(|one| opened(one))).await?;
        all.extend(started);
        bar.set_position(all.len() as u64);
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Waits until a client has its session.
pub(super) async fn opened(client: &Client) -> anyhow::Result<()> {
    let mut connection = client.connection();
    let there = connection.wait_for(|now| matches!(now, Connection::Open { .. } | Connection::Stopped(_)));
    match &*tokio::time::timeout(OPEN_TIMEOUT, there).await.context("a client got no session")?? {
        Connection::Stopped(reason) => bail!("a client got no session: {reason}"),
        _ => Ok(()),
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
