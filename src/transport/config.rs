//! How much memory and time a connection may cost, and the keys that let a restarted relay tell its old
//! clients at once.
//!
//! Everything is set on purpose: quinn's own defaults let one connection take 250 MB. Whatever needs chance
//! takes it from the [`Entropy`] given at binding.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::InvalidCid;
use ring::{hkdf, hmac};
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::identity::Identity;
use crate::random::{Entropy, SharedEntropy};
use crate::time::SharedClock;

/// Bytes of one stream that a relay takes before it has read them: three times what 12 MB/s need at 30 ms. A
/// frame may be larger; reading goes on while it comes.
const RELAY_STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for all streams of one connection together: what a client can make a relay keep.
const RELAY_CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Bytes that a relay keeps for one client until they are acknowledged. With the streams' own buffers this is
/// what a client that reads nothing costs.
const RELAY_SEND_WINDOW_BYTES: u64 = 2 << 20;

/// Frames above 64 KiB that a relay gathers of one connection at a time. One: only submit has a use for them, and they
/// come there one after the other.
pub(super) const RELAY_LARGE_FRAMES: usize = 1;

/// The same for a client: a page on each stream, and a message that is pushed.
pub(super) const CLIENT_LARGE_FRAMES: usize = 1 + RELAY_MAX_STREAMS as usize;

/// The same three windows for a client, which has one connection and whole pages to take.
const CLIENT_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`CLIENT_STREAM_WINDOW_BYTES`].
const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// See [`CLIENT_STREAM_WINDOW_BYTES`].
const CLIENT_SEND_WINDOW_BYTES: u64 = 8 << 20;

/// Streams a client may have open: submit and fifteen for pages. More would only wait for each other.
const RELAY_MAX_STREAMS: u32 = 16;

/// What a client may have on the way before anything is acknowledged: 32 datagrams, as other implementations of QUIC
/// have it, and not 10 (RFC 9002, section 7.2). If a relay dies before it has heard all of the handshake, its client
/// repeats that, and a window of ten is full of repeats within a second: nothing that a restarted relay would answer
/// with a reset could go out.
const CLIENT_FIRST_WINDOW_BYTES: u64 = 32 * 1200;

/// Streams a relay may have open at a client: notify.
const CLIENT_MAX_STREAMS: u32 = 1;

/// Packets that the other side, if it knows the extension, is asked to take before it acknowledges at once and not within
/// 25 ms (draft-ietf-quic-ack-frequency). By itself QUIC answers every other packet with a datagram that says nothing
/// else (RFC 9000, section 13.2.2); within 25 ms there is nearly always an answer that takes the acknowledgement along.
/// Fewer than a first window holds (RFC 9002, section 7.2), so that no beginning waits for those 25 ms.
const UNACKNOWLEDGED_PACKETS: u32 = 5;

/// Bytes kept of one connection attempt while it waits to be accepted: some retransmissions of a first flight.
const ATTEMPT_BYTES: u64 = 16 << 10;

/// The same for all attempts that wait.
const ALL_ATTEMPTS_BYTES: u64 = 8 << 20;

/// How long a client may take to come back with the token of a Retry.
const RETRY_LIFETIME: Duration = Duration::from_secs(15);

/// Bytes of a connection id: random ones and a mark; see [`KeyedConnectionIds`].
const CID_BYTES: usize = 8;

/// The random bytes of a connection id. 2^40 values: among 100,000 old and as many new connections of five ids
/// each, less than one collides.
const CID_RANDOM_BYTES: usize = 5;

/// Bytes of the id that a client's first packet is sent to; RFC 9000, section 7.2, wants 8 at least.
const FIRST_CID_BYTES: usize = 16;

/// The limits of connections that an operator or an application may turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportLimits {
    /// How long a handshake may take. 10 s: three lost flights on a bad path. Longer lets attackers hold more
    /// half-open connections.
    pub handshake_timeout: Duration,
    /// Connection attempts that wait for [`RelayEndpoint::accept`](super::RelayEndpoint::accept). At the limit
    /// further ones are dropped unanswered; clients try again. 4,096, a fraction of a second's work.
    pub max_waiting_attempts: usize,
    /// First packets of handshakes from one address in one second; more are left unread. 1,024: some 340 handshakes,
    /// for each takes three with the proof of its address. Each costs the relay the keys, the decryption and the answer
    /// that a packet takes, whoever sent it: more leave a flood more of a processor. Many clients behind one address
    /// come back sooner with more.
    pub first_packets_per_address: u32,
    /// How long a connection may be without R:HELLO. 5 s. Enforced by the relay's accept loop.
    pub hello_timeout: Duration,
    /// Connections without R:HELLO at one time, handshakes included; a quarter of them from one address. 1,000.
    /// Enforced by the relay's accept loop.
    pub max_without_hello: usize,
    /// How long nothing may be heard before a connection is over. 45 s: three keep-alives.
    pub idle_timeout: Duration,
    /// How often a client says that it is there. 15 s: below the 30 s after which many NATs forget a UDP flow.
    /// Shorter costs a phone's battery.
    pub keep_alive: Duration,
    /// The least time between two stateless resets. None: quinn looks at the clock once for all packets it reads
    /// in one go, so any other value answers one of many clients that speak at once after a restart, and the
    /// others only at their next retransmission (300 clients: all within 10 ms, against 1.7 s for the first 20
    /// with 100 us). A reset is smaller than the packet that causes it, so nothing can be amplified.
    pub min_reset_interval: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_waiting_attempts: 4096,
            first_packets_per_address: 1024,
            hello_timeout: Duration::from_secs(5),
            max_without_hello: 1000,
            idle_timeout: Duration::from_secs(45),
            keep_alive: Duration::from_secs(15),
            min_reset_interval: Duration::ZERO,
        }
    }
}

/// For a simulation: TLS takes its chance and its dates from here as well. Without it TLS uses the operating
/// system's, as it should.
#[derive(Clone)]
pub struct Determinism {
    /// The algorithms of TLS. The key exchange of ring draws on the operating system; replace `kx_groups` for
    /// runs that are the same byte for byte.
    pub provider: Arc<CryptoProvider>,
    /// The dates in tokens.
    pub clock: SharedClock,
}

impl fmt::Debug for Determinism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Determinism").finish_non_exhaustive()
    }
}

impl Determinism {
    /// TLS that draws on `entropy` for all but the key exchange. Leaks a few bytes: rustls wants a source that
    /// lives for ever.
    #[must_use]
    pub fn new(entropy: SharedEntropy, clock: SharedClock) -> Self {
        #[derive(Debug)]
        struct Source(SharedEntropy);
        impl SecureRandom for Source {
            fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
                self.0.fill(bytes);
                Ok(())
            }
        }
        let secure_random: &'static Source = Box::leak(Box::new(Source(entropy)));
        let provider = CryptoProvider { secure_random, ..rustls::crypto::ring::default_provider() };
        Self { provider: Arc::new(provider), clock }
    }

    pub(super) fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Dates(self.clock.clone()))
    }
}

/// The dates of a [`Clock`](crate::time::Clock), for TLS and for tokens.
#[derive(Debug)]
struct Dates(SharedClock);

impl TimeProvider for Dates {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.date().0)))
    }
}

impl quinn::TimeSource for Dates {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.date().0)
    }
}

fn idle(limit: Duration) -> IdleTimeout {
    let ms = u64::try_from(limit.as_millis()).ok().and_then(|ms| VarInt::from_u64(ms).ok());
    ms.unwrap_or(VarInt::MAX).into()
}

fn common(limits: &TransportLimits) -> TransportConfig {
    let mut acknowledging = AckFrequencyConfig::default();
    // A gap is told at once, as without the extension: a loss is found no later.
    acknowledging
        .ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_PACKETS))
        .reordering_threshold(VarInt::from_u32(1));
    let mut config = TransportConfig::default();
    config
        .ack_frequency_config(Some(acknowledging))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle(limits.idle_timeout)));
    config
}

/// What a relay grants each connection.
fn relay_transport(limits: &TransportLimits) -> TransportConfig {
    let mut config = common(limits);
    config
        .stream_receive_window(VarInt::from_u32(RELAY_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RELAY_CONNECTION_WINDOW_BYTES))
        .send_window(RELAY_SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(RELAY_MAX_STREAMS));
    config
}

/// What a client grants its relay.
fn client_transport(limits: &TransportLimits) -> TransportConfig {
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(CLIENT_FIRST_WINDOW_BYTES);
    let mut config = common(limits);
    config
        .stream_receive_window(VarInt::from_u32(CLIENT_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CLIENT_CONNECTION_WINDOW_BYTES))
        .send_window(CLIENT_SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(CLIENT_MAX_STREAMS))
        .keep_alive_interval(Some(limits.keep_alive))
        .congestion_controller_factory(Arc::new(congestion));
    config
}

/// A relay's endpoint. Reset, connection-id and token keys come from the identity, so a restarted relay
/// recognises packets to connections it has lost and answers with resets that their clients believe.
pub(super) fn relay_endpoint(identity: &Identity, limits: &TransportLimits, entropy: &dyn Entropy) -> EndpointConfig {
    let reset: [u8; 32] = identity.derive(b"stateless reset");
    let ids: [u8; 32] = identity.derive(b"connection id");
    endpoint(&reset, &ids, limits, entropy)
}

/// A client's endpoint. It listens at another port each time, so its keys need not outlive it.
pub(super) fn client_endpoint(limits: &TransportLimits, entropy: &dyn Entropy) -> EndpointConfig {
    endpoint(&entropy.bytes(), &entropy.bytes(), limits, entropy)
}

fn endpoint(reset: &[u8; 32], ids: &[u8; 32], limits: &TransportLimits, entropy: &dyn Entropy) -> EndpointConfig {
    let ids = KeyedConnectionIds::new(ids, Chance::new(entropy));
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset)));
    config
        .cid_generator(move || Box::new(ids.clone()))
        .min_reset_interval(limits.min_reset_interval)
        // Our packets keep the fixed bit, so that a datagram without it is none: see the wake datagram.
        .grease_quic_bit(false)
        .rng_seed(Some(entropy.bytes()));
    config
}

/// How a relay accepts.
pub(super) fn relay(
    identity: &Identity,
    limits: &TransportLimits,
    determinism: Option<&Determinism>,
    tls: quinn::crypto::rustls::QuicServerConfig,
) -> ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&identity.derive::<64>(b"address token"));
    let mut config = ServerConfig::new(Arc::new(tls), Arc::new(token_key));
    config
        .transport_config(Arc::new(relay_transport(limits)))
        .retry_token_lifetime(RETRY_LIFETIME)
        .migration(true)
        .max_incoming(limits.max_waiting_attempts)
        .incoming_buffer_size(ATTEMPT_BYTES)
        .incoming_buffer_size_total(ALL_ATTEMPTS_BYTES);
    if let Some(given) = determinism {
        config.time_source(Arc::new(Dates(given.clock.clone())));
    }
    config
}

/// How a client connects; `chance` makes the ids that first packets are sent to.
pub(super) fn client(
    limits: &TransportLimits,
    chance: &Chance,
    tls: quinn::crypto::rustls::QuicClientConfig,
) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(tls));
    let chance = chance.clone();
    config
        .transport_config(Arc::new(client_transport(limits)))
        .token_store(Arc::new(quinn::NoneTokenStore))
        .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&chance.bytes::<FIRST_CID_BYTES>())));
    config
}

/// Endless random bytes from one draw of an [`Entropy`]: HMAC-SHA256 of a counter. quinn keeps its generators
/// for longer than a borrowed source lives.
#[derive(Clone)]
pub(super) struct Chance {
    key: hmac::Key,
    drawn: Arc<AtomicU64>,
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chance").finish_non_exhaustive()
    }
}

impl Chance {
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &entropy.bytes::<32>()), drawn: Arc::default() }
    }

    /// The next bytes; at most 32.
    fn bytes<const N: usize>(&self) -> [u8; N] {
        first(&hmac::sign(&self.key, &self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes()))
    }
}

fn first<const N: usize>(tag: &hmac::Tag) -> [u8; N] {
    const { assert!(N <= 32, "a tag of SHA-256 has 32 bytes") };
    tag.as_ref().first_chunk().copied().unwrap_or([0; N])
}

/// Connection ids that carry a keyed mark, so that stray datagrams are told from packets of connections that
/// were lost in a restart: only the latter are answered with a reset.
///
/// quinn has such a generator too, with 24 random bits: after a restart with many clients one in a hundred old
/// ids would already name a new connection, whose old holder gets no reset and waits for its idle timeout.
#[derive(Clone)]
struct KeyedConnectionIds {
    key: hmac::Key,
    chance: Chance,
}

impl KeyedConnectionIds {
    fn new(key: &[u8; 32], chance: Chance) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), chance }
    }

    fn mark(&self, random: &[u8; CID_RANDOM_BYTES]) -> [u8; CID_BYTES - CID_RANDOM_BYTES] {
        first(&hmac::sign(&self.key, random))
    }
}

impl ConnectionIdGenerator for KeyedConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = self.chance.bytes();
        let mark = self.mark(&random);
        let mut id = [0; CID_BYTES];
        for (to, from) in id.iter_mut().zip(random.iter().chain(&mark)) {
            *to = *from;
        }
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_first_chunk() {
            Some((random, mark)) if *mark == self.mark(random) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Same(u8);
    impl Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn ids_of_an_identity_are_known_again_by_it_alone() {
        let ids = |key: u8, chance: u8| KeyedConnectionIds::new(&[key; 32], Chance::new(&Same(chance)));
        let (mut before, after, other) = (ids(1, 1), ids(1, 2), ids(2, 1));
        for _ in 0..1000 {
            let id = before.generate_cid();
            assert!(after.validate(&id).is_ok() && other.validate(&id).is_err());
            for bit in 0..8 * CID_BYTES {
                let mut changed = id.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(after.validate(&ConnectionId::new(&changed)).is_err());
            }
        }
        assert!(after.validate(&ConnectionId::new(&[0; 3])).is_err());
    }

    #[test]
    fn the_same_chance_gives_the_same_ids_and_never_one_twice() {
        let run = |chance| {
            let mut ids = KeyedConnectionIds::new(&[1; 32], Chance::new(&Same(chance)));
            (0..1000).map(|_| ids.generate_cid().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_eq!(run(1).into_iter().collect::<std::collections::BTreeSet<_>>().len(), 1000);
    }
}
