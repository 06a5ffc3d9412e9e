//! Places that a relay of a test finds free again after its death. The system hands none of them out: a port that it
//! chose may be another test's while its relay is down.

use std::net::{SocketAddr, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what systems give to sockets that name no port (from 32,768 on with Linux, from 49,152 on as RFC 6335 has it).
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// A place on this machine that nobody has, and that no other call in this process names before all have been named.
pub(crate) fn lasting_place() -> SocketAddr {
    static NAMED: AtomicU32 = AtomicU32::new(0);
    // Another process of tests begins elsewhere.
    let first = process::id().wrapping_mul(389);
    loop {
        let next = first.wrapping_add(NAMED.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + next).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        if UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
}
