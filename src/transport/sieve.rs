//! A relay's socket, which leaves the first packets of handshakes unread that come from one address faster than
//! anybody there can have a use for. Each would cost keys, a decryption and an answer before `relay/gate.rs` may judge
//! it; here it costs a look at one byte, and what belongs to connections that there are gets its turn.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::Runtime;

use super::filter::Filter;
use super::socket::canonical;
use crate::measure::Counter;

/// What a QUIC packet of type Initial begins with (RFC 9000, section 17.2.2), and the bits that say so.
const LONG_HEADER: u8 = 0xf0;
const INITIAL: u8 = 0xc0;

/// Addresses counted within one second; of further ones nothing is left unread.
const MAX_ADDRESSES: usize = 100_000;

/// See the head of this file.
pub(super) struct Sieve {
    runtime: Arc<dyn Runtime>,
    /// Packets a second.
    limit: u32,
    counted: Mutex<Counted>,
    unread: Arc<Counter>,
}

/// First packets by address, since a moment less than a second ago.
struct Counted {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sieve").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Sieve {
    pub(super) fn new(runtime: Arc<dyn Runtime>, limit: u32) -> Self {
        let counted = Mutex::new(Counted { since: runtime.now(), by_address: HashMap::new() });
        Self { runtime, limit, counted, unread: Arc::default() }
    }

    /// How many packets were left unread.
    pub(super) fn unread(&self) -> Arc<Counter> {
        self.unread.clone()
    }

    /// Whether so many first packets from there may be read.
    fn admits(&self, from: SocketAddr, packets: u32) -> bool {
        let now = self.runtime.now();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(counted.since) >= Duration::from_secs(1) {
            *counted = Counted { since: now, by_address: HashMap::new() };
        }
        let network = network(from.ip());
        if counted.by_address.len() >= MAX_ADDRESSES && !counted.by_address.contains_key(&network) {
            return true;
        }
        let came = counted.by_address.entry(network).or_default();
        *came = came.saturating_add(packets);
        *came <= self.limit
    }
}

/// What one subscriber has: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Filter for Sieve {
    fn received(&self, from: SocketAddr, datagrams: &mut [u8], stride: usize) -> usize {
        // The kernel may hand over several packets of one sender as one. A handshake is not that fast.
        if datagrams.first().is_none_or(|first| first & LONG_HEADER != INITIAL) {
            return datagrams.len();
        }
        let packets = u32::try_from(datagrams.len().div_ceil(stride)).unwrap_or(u32::MAX);
        if self.admits(canonical(from), packets) {
            return datagrams.len();
        }
        self.unread.add(packets.into());
        0
    }
}

#[cfg(test)]
mod tests {
    use quinn::TokioRuntime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_fast_from_one_address_stays_unread_for_the_rest_of_the_second() {
        let sieve = Sieve::new(Arc::new(TokioRuntime), 10);
        let from = |address: &str| SocketAddr::new(address.parse().unwrap(), 1);
        assert!((0..10).all(|_| sieve.admits(from("10.0.0.1"), 1)));
        assert!(!sieve.admits(from("10.0.0.1"), 1));
        assert!(sieve.admits(from("10.0.0.2"), 10), "others are not concerned");
        assert!(!sieve.admits(from("10.0.0.2"), 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sieve.admits(from("10.0.0.1"), 1));
    }
}
