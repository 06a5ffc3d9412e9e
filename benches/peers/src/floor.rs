//! The least that one message at a time can take: one commit of its rows, and two round trips over QUIC.
//!
//! The way is sender to relay, the commit, relay to recipient, and back over the relay: four passages. ACK:N does not
//! wait for the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use posthouse::id::{LaneId, MessageId, PeerId, RelayId};
use posthouse::protocol::{Answer, Envelope, Header, Taken};
use posthouse::random::SystemEntropy;
use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::redb::writer::WriterMode;
use posthouse::store::{Append, Done, Fence, Op, RelayStore};
use posthouse::time::{SystemClock, UnixMillis};
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::runtime::{Builder, Handle};

use crate::work::{BODY_BYTES, histogram};

const TTL: Duration = Duration::from_secs(3600);

/// Bytes of a message in its frame.
pub const FRAME_BYTES: usize = BODY_BYTES + 170;

/// Medians, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub commit_us: f64,
    pub round_trip_us: f64,
}

impl Floor {
    pub fn of_a_message(&self) -> f64 {
        self.commit_us + 2.0 * self.round_trip_us
    }
}

pub async fn run(length: Duration) -> anyhow::Result<Floor> {
    let commit_us = median(&commits(length).await?);
    Ok(Floor { commit_us, round_trip_us: median(&round_trips(length).await?) })
}

fn median(times: &Histogram<u64>) -> f64 {
    times.value_at_quantile(0.5) as f64 / 1000.0
}

/// How long the relay's store takes to make one message durable. It is taken again between two measurements, so that
/// the file stays as it is.
async fn commits(length: Duration) -> anyhow::Result<Histogram<u64>> {
    let directory = tempfile::tempdir()?;
    let backend = Backend::File(directory.path().join("relay.redb"));
    let mut options = OpenOptions::new(backend, SystemClock::shared(), SystemEntropy::shared());
    options.writer = WriterMode::Inline;
    let store = RedbRelayStore::open(options)?;
    let [sender, recipient] = [1, 2].map(|name| PeerId::from_bytes([name; 32]));
    let fence = |peer| Fence { peer, device: 0, epoch: 1 };
    for peer in [sender, recipient] {
        let remote = ([192, 0, 2, 1], 1).into();
        store.submit(fence(peer), vec![Op::Open { remote, invitation: None }]).await?;
    }
    let watch = store.watch(recipient);
    let (mut times, start) = (nanoseconds()?, Instant::now());
    for n in 1.. {
        if start.elapsed() > length {
            break;
        }
        let header = Header {
            sender,
            relay: RelayId::from_bytes([7; 32]),
            recipient,
            id: MessageId::new(n, &[7; 10]),
            lane: LaneId(1),
            n,
            created: UnixMillis(0),
            ttl: TTL,
        };
        let envelope = Envelope::new(header, &[b'.'; BODY_BYTES]);
        let append = Append { envelope, signature: None, prev: n - 1, ttl: TTL, refuse: None, forward: None };
        let begin = Instant::now();
        let done = store.submit(fence(sender), vec![Op::Append(append)]).await?;
        times.saturating_record(u64::try_from(begin.elapsed().as_nanos())?);
        if !matches!(done[..], [Done::Answered { answer: Answer::Accepted { duplicate: false, .. }, .. }]) {
            bail!("the store answered {done:?}");
        }
        let taken = watch.take(usize::MAX).messages.iter().map(|message| (message.seq, message.seq)).collect();
        let answers = Taken { taken, refused: Vec::new() };
        let settle = Op::Settle { store: store.store_id(), answers, handed_out: u64::MAX, patient: false };
        store.submit(fence(recipient), vec![settle]).await?;
    }
    Ok(times)
}

/// How long a frame and its echo take on a stream of a plain quinn connection over loopback.
async fn round_trips(length: Duration) -> anyhow::Result<Histogram<u64>> {
    let plain = Plain::start().await?;
    let server = plain.server.clone();
    let echo = plain.thread.spawn(async move {
        let (mut send, mut receive) = server.accept_bi().await?;
        let mut frame = [0; FRAME_BYTES];
        while receive.read_exact(&mut frame).await.is_ok() {
            send.write_all(&frame).await?;
        }
        anyhow::Ok(())
    });
    let (mut send, mut receive) = plain.client.open_bi().await?;
    let (mut times, start) = (nanoseconds()?, Instant::now());
    let mut frame = [b'.'; FRAME_BYTES];
    while start.elapsed() < length {
        let begin = Instant::now();
        send.write_all(&frame).await?;
        receive.read_exact(&mut frame).await?;
        times.saturating_record(u64::try_from(begin.elapsed().as_nanos())?);
    }
    drop((send, receive));
    plain.client.close(0_u8.into(), b"done");
    echo.await?.ok();
    Ok(times)
}

/// A plain quinn connection over loopback, with what quinn sets when nobody says anything. Its ends are on two threads,
/// as a relay and its clients are: on one, neither would have to be woken.
pub struct Plain {
    pub client: quinn::Connection,
    pub server: quinn::Connection,
    /// Where the server is.
    pub thread: Handle,
    _endpoints: [quinn::Endpoint; 2],
}

impl Plain {
    pub async fn start() -> anyhow::Result<Self> {
        PlainServer::start()?.connect().await
    }
}

/// A server of such connections.
pub struct PlainServer {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    /// Where it is.
    pub thread: Handle,
}

impl PlainServer {
    pub fn start() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate = CertificateDer::from(made.cert);
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
        let thread = another_thread()?;
        let endpoint = {
            let _there = thread.enter();
            quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into())?
        };
        let mut roots = quinn::rustls::RootCertStore::empty();
        roots.add(certificate)?;
        Ok(Self { endpoint, client: quinn::ClientConfig::with_root_certificates(Arc::new(roots))?, thread })
    }

    /// One more connection, from a socket of its own.
    pub async fn connect(&self) -> anyhow::Result<Plain> {
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        endpoint.set_default_client_config(self.client.clone());
        let accepting = self.endpoint.clone();
        let accept = async move { anyhow::Ok(accepting.accept().await.context("no connection")?.await?) };
        let accepted = self.thread.spawn(accept);
        let client = endpoint.connect(self.endpoint.local_addr()?, "localhost")?.await?;
        let server = accepted.await??;
        Ok(Plain { client, server, thread: self.thread.clone(), _endpoints: [self.endpoint.clone(), endpoint] })
    }
}

/// A thread with a runtime of its own, until the process ends.
fn another_thread() -> anyhow::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(handle)
}

fn nanoseconds() -> anyhow::Result<Histogram<u64>> {
    let mut times = histogram()?;
    times.auto(true);
    Ok(times)
}
