//! NATS JetStream: the message in one stream, the recipient's receipt in another, both on disk and without TLS.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::push::Messages;
use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::server::Server;
use crate::work::{Figures, Load, Run, Start, histogram};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server syncs its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it acknowledges.
    Always,
    /// Every two minutes: what it does when nobody says anything.
    Default,
}

pub async fn run(program: &str, sync: Sync, load: Load, seconds: Duration) -> anyhow::Result<Figures> {
    let server = Server::start(program, "-c", |port, data| {
        let sync = if sync == Sync::Always { "sync_interval: always" } else { "" };
        format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?}\n{sync} }}\n", data)
    })?;
    let setup = connect(&server).await?;
    for (name, subjects) in [("messages", "to.*"), ("receipts", "back.*")] {
        let config = Config { name: name.to_owned(), subjects: vec![subjects.to_owned()], ..Config::default() };
        setup.create_stream(config).await?;
    }
    let mut run = Run::new(load);
    for pair in 0..load.pairs {
        let (to, back) = (format!("to.{pair}"), format!("back.{pair}"));
        let recipient = connect(&server).await?;
        let messages = consume(&recipient, "messages", &to).await?;
        let sender = connect(&server).await?;
        let receipts = consume(&sender, "receipts", &back).await?;
        run.add(
            |ready| answer(recipient, messages, back, ready),
            |window, start| send(sender, receipts, to, window, start),
        );
    }
    run.measure(server.id(), seconds).await
}

async fn connect(server: &Server) -> anyhow::Result<Context> {
    let client = async_nats::connect(server.address.to_string()).await?;
    // A server that syncs always is slow under load, but it does answer.
    Ok(jetstream::ContextBuilder::new().timeout(PATIENCE).ack_timeout(PATIENCE).max_ack_inflight(10_000).build(client))
}

/// A consumer that is pushed to, with nothing in its way.
async fn consume(context: &Context, stream: &str, subject: &str) -> anyhow::Result<Messages> {
    let config = push::Config {
        deliver_subject: context.client().new_inbox(),
        durable_name: Some(subject.replace('.', "-")),
        filter_subject: subject.to_owned(),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 10_000,
        ..push::Config::default()
    };
    Ok(context.get_stream(stream).await?.create_consumer(config).await?.messages().await?)
}

/// Acknowledges each message and sends a receipt, which the server confirms.
async fn answer(context: Context, mut messages: Messages, back: String, ready: Arc<Barrier>) -> anyhow::Result<()> {
    ready.wait().await;
    let mut confirmed = JoinSet::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let receipt = message.payload.slice(..8);
        message.ack().await.map_err(|error| anyhow::anyhow!(error))?;
        let confirm = context.publish(back.clone(), receipt).await?;
        confirmed.spawn(confirm.into_future());
        while let Some(done) = confirmed.try_join_next() {
            done??;
        }
    }
    Ok(())
}

/// Keeps a window of messages on their way until the time is over.
async fn send(
    context: Context,
    mut receipts: Messages,
    to: String,
    window: u32,
    start: Start,
) -> anyhow::Result<Histogram<u64>> {
    let span = start.wait().await?;
    let mut latency = histogram()?;
    let mut confirmed = JoinSet::new();
    let mut on_their_way = 0;
    loop {
        while on_their_way < window && !span.is_over() {
            let confirm = context.publish(to.clone(), span.body().into()).await?;
            confirmed.spawn(confirm.into_future());
            on_their_way += 1;
        }
        if on_their_way == 0 {
            return Ok(latency);
        }
        let receipt = receipts.next().await.context("the receipts ended")??;
        span.enter(&receipt.payload, &mut latency)?;
        receipt.ack().await.map_err(|error| anyhow::anyhow!(error))?;
        on_their_way -= 1;
        while let Some(done) = confirmed.try_join_next() {
            done??;
        }
    }
}
