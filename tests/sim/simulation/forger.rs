//! A relay that sends messages in the names of peers that are not its own.

use std::time::Duration;

use posthouse::id::{LaneId, MessageId};
use posthouse::protocol::{Envelope, Header, HelloR, MsgR, PushMode, Role, StreamKind};
use posthouse::time::UnixMillis;
use posthouse::transport::{ClientEndpoint, TransportLimits};

use super::chance::{Chance, entropy};
use super::crypto::determinism;
use super::date::WallClock;
use super::life::Life;
use super::net::HostNumber;
use super::plan::{FIRST_PEER, FORGER};
use super::stage::{Stage, who};

const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes that wait in its stream.
const BUFFER_BYTES: usize = 64 << 10;

/// Forges until everything heals.
pub(crate) async fn run(stage: Stage, heals: Duration) {
    let mut chance = stage.fork();
    let clock = WallClock::new(0).process();
    let (life, entropy) = (Life::default(), entropy(chance.fork()));
    let socket = stage.net().socket(FORGER, None, &life);
    let determinism = determinism(clock);
    let limits = TransportLimits::default();
    let endpoint = ClientEndpoint::bind(socket, &who(FORGER), &limits, &*entropy, Some(&determinism)).unwrap();
    while tokio::time::Instant::now() < stage.when(heals) {
        drop(tokio::time::timeout(PATIENCE, forge(&stage, &endpoint, &mut chance)).await);
        tokio::time::sleep(chance.time(1_000, 5_000)).await;
    }
}

/// One session with one relay, and a few messages to one of its peers.
async fn forge(stage: &Stage, endpoint: &ClientEndpoint, chance: &mut Chance) -> Option<()> {
    let peers = &stage.plan().peers;
    let victim = chance.index(peers.len());
    let pretended = FIRST_PEER + chance.index(peers.len()) as HostNumber;
    let home = peers[victim].home;
    let place = super::net::address(home, super::stage::RELAY_PORT);
    let connection = endpoint.connect(place, who(home).relay_id(), PATIENCE).await.ok()?;
    let (submit, mut answers) = connection.open(StreamKind::Submit, BUFFER_BYTES).await.ok()?;
    let hello = HelloR {
        version: 1,
        role: Role::Relay,
        device: 0,
        push: PushMode::AtOnce,
        sender: None,
        credit_messages: 0,
        credit_bytes: 1,
        ack_timeout_ms: 30_000,
        invitation: None,
        agent: None,
    };
    submit.send(&hello.into()).await.ok()?;
    let lane = LaneId(chance.word());
    for n in 1..=3 {
        let header = Header {
            sender: who(pretended).peer_id(),
            relay: who(FORGER).relay_id(),
            recipient: who(FIRST_PEER + victim as HostNumber).peer_id(),
            id: MessageId::new(n, &[n as u8; 10]),
            lane,
            n,
            created: UnixMillis(0),
            ttl: Duration::from_secs(60),
        };
        let envelope = Envelope::new(header, b"forged!!!");
        // Signed well, by somebody else.
        let signature = who(FORGER).sign(&envelope.signed_bytes());
        let message = MsgR {
            request: n,
            prev: n - 1,
            ttl_ms: 60_000,
            envelope: envelope.bytes().clone(),
            signature: Some(signature),
            home: None,
        };
        submit.send(&message.into()).await.ok()?;
    }
    while answers.next().await.is_ok_and(|frame| frame.is_some()) {}
    Some(())
}
