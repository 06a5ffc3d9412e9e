//! A session that is frames and nothing else: no outbox, no inbox, no retries. What it costs is the relay's.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::address::RelayAddress;
use crate::identity::Identity;
use crate::protocol::limit::{DEFAULT_ACK_TIMEOUT, VERSION};
use crate::protocol::{AgainN, CloseCode, Frame, HelloA, HelloR, PushMode, Role, StreamKind};
use crate::random::Entropy;
use crate::time::millis;
use crate::transport::{ClientEndpoint, Connection, FrameReceiver, FrameSender, Socket, TransportLimits};

/// Bytes that may wait to be written to one stream.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// How long the relay has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it is waited for the relay to hear that a session is over.
const FAREWELL: Duration = Duration::from_millis(500);

/// See the head of this file.
pub(super) struct Session {
    endpoint: ClientEndpoint,
    pub(super) connection: Connection,
    pub(super) hello: HelloA,
    pub(super) submit: FrameSender,
    pub(super) from_submit: FrameReceiver,
    pub(super) notify: FrameSender,
    pub(super) from_notify: FrameReceiver,
}

impl Session {
    /// Opens a session to which nothing is pushed.
    pub(super) async fn open(relay: &RelayAddress, who: &Identity, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let host = relay.hosts().first().context("the relay's address names no host")?;
        let mut places = tokio::net::lookup_host((host.host.as_str(), host.port)).await.context(host.to_string())?;
        let place = places.next().with_context(|| format!("{host} has no address"))?;
        let anywhere = Socket::Bind((std::net::Ipv6Addr::UNSPECIFIED, 0).into());
        let endpoint = ClientEndpoint::bind(anywhere, who, &TransportLimits::default(), entropy, None)?;
        let connected = endpoint.connect(place, relay.relay, CONNECT_TIMEOUT).await;
        let connection = connected.with_context(|| format!("no connection to the relay at {host}"))?;
        let (submit, mut from_submit) = connection.open(StreamKind::Submit, SEND_BUFFER_BYTES).await?;
        let hello = HelloR {
            version: VERSION,
            role: Role::Peer,
            device: 0,
            push: PushMode::AtOnce,
            sender: None,
            credit_messages: 0,
            credit_bytes: 1,
            ack_timeout_ms: millis(DEFAULT_ACK_TIMEOUT),
            invitation: None,
            agent: None,
        };
        let hello = loop {
            submit.send(&hello.clone().into()).await?;
            match from_submit.next().await? {
                Some(Frame::HelloA(hello)) => break hello,
                Some(Frame::AgainN(AgainN {})) => {}
                _ => bail!("the relay answers no A:HELLO"),
            }
        };
        let (kind, notify, from_notify) = connection.accept().await?;
        if kind != StreamKind::Notify {
            bail!("the relay opened another stream than notify");
        }
        Ok(Self { endpoint, connection, hello, submit, from_submit, notify, from_notify })
    }

    /// Another stream of it, for counts and pages.
    pub(super) async fn sync(&self) -> anyhow::Result<(FrameSender, FrameReceiver)> {
        Ok(self.connection.open(StreamKind::Sync, SEND_BUFFER_BYTES).await?)
    }

    pub(super) async fn close(self) {
        self.connection.close(CloseCode::Done, "measured");
        // Who does not hear it notices all the same.
        tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await.ok();
    }
}
