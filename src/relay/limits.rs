//! What a relay lets its clients do, and how that is exchanged while it runs.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::policy::Policy;
use super::rate::{Limiter, Rate};
use crate::protocol::limit;
use crate::time::SharedClock;
use crate::transport::TransportLimits;

/// What a relay lets its clients do. The store has its own limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// The largest body, bytes. At most [`MAX_BODY_BYTES`](limit::MAX_BODY_BYTES), which is the default.
    pub body_bytes: usize,
    /// The lifetimes that messages may have: what a sender names is clamped.
    pub min_ttl: Duration,
    /// See `min_ttl`.
    pub max_ttl: Duration,
    /// Connections at one time. 100,000.
    pub connections: usize,
    /// New connections from one address in one second, before it has to prove itself by a Retry; at sixteen
    /// times as many they are refused. 64.
    pub connections_per_address: u32,
    /// ACK:N ranges that may wait for one session; beyond, it is closed and asks with R:WHERE. 10,000.
    pub outcome_ranges: usize,
    /// Limits of connections.
    pub transport: TransportLimits,
    /// Which other relays it takes messages from, and forwards to.
    pub federation: Policy,
    /// How fast one peer may send. As fast as it can.
    pub peer_rate: Rate,
    /// How fast one other relay may. As fast as it can.
    pub relay_rate: Rate,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            body_bytes: limit::MAX_BODY_BYTES,
            min_ttl: limit::MIN_TTL,
            max_ttl: limit::MAX_TTL,
            connections: 100_000,
            connections_per_address: 64,
            outcome_ranges: 10_000,
            transport: TransportLimits::default(),
            federation: Policy::default(),
            peer_rate: Rate::default(),
            relay_rate: Rate::default(),
        }
    }
}

/// The limits that hold now, with what they count.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Arc<Limits>>);

/// See [`InForce`].
#[derive(Debug)]
pub(super) struct Limits {
    limits: RelayLimits,
    pub(super) peers: Arc<Limiter>,
    pub(super) relays: Arc<Limiter>,
}

impl Deref for Limits {
    type Target = RelayLimits;

    fn deref(&self) -> &RelayLimits {
        &self.limits
    }
}

impl InForce {
    pub(super) fn new(limits: RelayLimits, clock: &SharedClock) -> Self {
        let [peers, relays] = [limits.peer_rate, limits.relay_rate].map(|rate| Arc::new(Limiter::new(rate, clock)));
        Self(RwLock::new(Arc::new(Limits { limits, peers, relays })))
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        // Nothing panics while it is held, so a poisoned lock still guards a whole value.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted so far counts on where the rate is the same.
    pub(super) fn set(&self, limits: RelayLimits, clock: &SharedClock) {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let counted = |limiter: &Arc<Limiter>, before: Rate, after: Rate| match before == after {
            true => limiter.clone(),
            false => Arc::new(Limiter::new(after, clock)),
        };
        let peers = counted(&now.peers, now.peer_rate, limits.peer_rate);
        let relays = counted(&now.relays, now.relay_rate, limits.relay_rate);
        *now = Arc::new(Limits { limits, peers, relays });
    }
}
