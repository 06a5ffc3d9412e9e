//! A relay's socket, which leaves the first packets of handshakes unread that come from one address faster than
//! anybody there can have a use for. Each would cost keys, a decryption and an answer before `relay/gate.rs` may judge
//! it; here it costs a look at one byte, and what belongs to connections that there are gets its turn. Whoever goes on for
//! all that is shut out by the kernel (`shutter`) until the second is over.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::Runtime;

use super::filter::Filter;
use super::shutter::Shutter;
use super::socket::canonical;
use crate::measure::Counter;

/// What a QUIC packet of type Initial begins with (RFC 9000, section 17.2.2), and the bits that say so.
pub(super) const LONG_HEADER: u8 = 0xf0;
pub(super) const INITIAL: u8 = 0xc0;

/// For so long first packets are counted, and what came too fast stays unread.
const PERIOD: Duration = Duration::from_secs(1);

/// Addresses counted within one period; of further ones nothing is left unread.
const MAX_ADDRESSES: usize = 100_000;

/// See the head of this file.
pub(super) struct Sieve {
    runtime: Arc<dyn Runtime>,
    /// Packets a second.
    limit: u32,
    counted: Arc<Mutex<Counted>>,
    unread: Arc<Counter>,
}

/// First packets by address, since a moment less than a period ago.
struct Counted {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
    shutter: Option<Shutter>,
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sieve").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Sieve {
    pub(super) fn new(runtime: Arc<dyn Runtime>, limit: u32, shutter: Option<Shutter>) -> Self {
        let counted = Counted { since: runtime.now(), by_address: HashMap::new(), shutter };
        Self { runtime, limit, counted: Arc::new(Mutex::new(counted)), unread: Arc::default() }
    }

    /// How many packets were left unread here. What the kernel drops nobody counts.
    pub(super) fn unread(&self) -> Arc<Counter> {
        self.unread.clone()
    }

    /// Whether so many first packets from there may be read.
    fn admits(&self, from: SocketAddr, packets: u32) -> bool {
        let now = self.runtime.now();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.turn(now);
        let end = counted.since + PERIOD;
        let network = network(from.ip());
        if counted.by_address.len() >= MAX_ADDRESSES && !counted.by_address.contains_key(&network) {
            return true;
        }
        let came = counted.by_address.entry(network).or_default();
        *came = came.saturating_add(packets);
        if *came <= self.limit {
            return true;
        }
        if let Some(shutter) = &mut counted.shutter {
            if shutter.is_open() {
                // The kernel tells nobody what it drops: without this it would go on for as long as nothing else comes.
                self.open_again_at(end);
            }
            shutter.shut(network);
        }
        false
    }

    /// Lets everybody's packets in again at this time.
    fn open_again_at(&self, time: Instant) {
        let mut timer = self.runtime.new_timer(time);
        let counted = Arc::downgrade(&self.counted);
        let runtime = self.runtime.clone();
        self.runtime.spawn(Box::pin(async move {
            poll_fn(|context| timer.as_mut().poll(context)).await;
            if let Some(counted) = counted.upgrade() {
                counted.lock().unwrap_or_else(PoisonError::into_inner).turn(runtime.now());
            }
        }));
    }
}

impl Counted {
    /// Begins a new period if this one is over.
    fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.by_address = HashMap::new();
            if let Some(shutter) = &mut self.shutter {
                shutter.open();
            }
        }
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
        // Any of them may be one, whatever comes before it.
        let count = datagrams.chunks(stride).filter(|datagram| is_first(datagram)).count();
        if count == 0 || self.admits(canonical(from), u32::try_from(count).unwrap_or(u32::MAX)) {
            return datagrams.len();
        }
        self.unread.add(count as u64);
        let mut left = 0;
        for at in (0..datagrams.len()).step_by(stride) {
            let end = datagrams.len().min(at + stride);
            if datagrams.get(at..end).is_some_and(|datagram| !is_first(datagram)) {
                datagrams.copy_within(at..end, left);
                left += end - at;
            }
        }
        left
    }
}

/// Whether it is a first packet of a handshake.
fn is_first(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & LONG_HEADER == INITIAL)
}

#[cfg(test)]
mod tests {
    use quinn::TokioRuntime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_fast_from_one_address_stays_unread_for_the_rest_of_the_second() {
        let sieve = Sieve::new(Arc::new(TokioRuntime), 10, None);
        let from = |address: &str| SocketAddr::new(address.parse().unwrap(), 1);
        assert!((0..10).all(|_| sieve.admits(from("10.0.0.1"), 1)));
        assert!(!sieve.admits(from("10.0.0.1"), 1));
        assert!(sieve.admits(from("10.0.0.2"), 10), "others are not concerned");
        assert!(!sieve.admits(from("10.0.0.2"), 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sieve.admits(from("10.0.0.1"), 1));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_is_shut_out_by_the_kernel_until_the_second_is_over_even_if_nobody_else_comes() {
        let relay = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        relay.set_nonblocking(true).unwrap();
        let flooder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let comes = || {
            flooder.send_to(&[INITIAL], relay.local_addr().unwrap()).unwrap();
            relay.recv(&mut [0]).is_ok()
        };
        let sieve = Sieve::new(Arc::new(TokioRuntime), 2, Shutter::new(&relay));
        let from = flooder.local_addr().unwrap();
        for _ in 0..2 {
            assert!(sieve.admits(from, 2));
            assert!(comes());
            assert!(!sieve.admits(from, 1));
            assert!(!comes());
            tokio::time::sleep(PERIOD / 2).await;
            assert!(!comes());
            tokio::time::sleep(PERIOD / 2 + Duration::from_millis(1)).await;
            assert!(comes());
        }
    }

    #[test]
    fn a_first_packet_is_found_wherever_the_kernel_puts_it_and_the_others_are_left() {
        let [first, other] = [[INITIAL; 30], [0x40; 30]];
        let from = "10.0.0.1:1".parse().unwrap();
        let all = [&other[..], &first, &other, &first, &other[..7]].concat();
        let sieve = Sieve::new(Arc::new(TokioRuntime), 3, None);
        let mut came = all.clone();
        assert_eq!((sieve.received(from, &mut came, 30), sieve.unread.count()), (127, 0));
        assert_eq!(came, all);
        let left = sieve.received(from, &mut came, 30);
        assert_eq!(
            (came.get(..left), sieve.unread.count()),
            (Some(&[&other[..], &other, &other[..7]].concat()[..]), 2)
        );
        assert_eq!(sieve.received(from, &mut [], 1), 0);
    }
}
