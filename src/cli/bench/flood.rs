//! Attacks of those who never get as far as a session: they are counted by address, and have one of their own, so that
//! it is not the pairs' that is counted.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net;
use tokio::task::JoinSet;

use crate::address::RelayAddress;
use crate::identity::Identity;
use crate::random::Entropy;
use crate::transport::{ClientEndpoint, Socket, TransportLimits};

/// Where these attacks come from: this machine, and no address of anybody else's on it.
const ATTACKER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2)), 0);

/// Where what is needed for them is gathered.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Different first packets that a flood is made of.
const INITIALS: usize = 4096;

/// Handshakes that are begun and not ended, and connections that say nothing, at any time.
const AT_ONCE: usize = 1000;

/// How long such a handshake goes on, and how long after a refusal the next attempt follows.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// The most that a datagram holds here.
const DATAGRAM_BYTES: usize = 2048;

/// Where the id stands that our client's first packet is sent to: behind type, version and length.
const FIRST_ID: Range<usize> = 6..22;

/// The types of QUIC's long headers (RFC 9000, section 17.2), with the bits that say that it is one.
const LONG_HEADER: u8 = 0xf0;
const INITIAL: u8 = 0xc0;
const RETRY: u8 = 0xf0;

fn endpoint(at: SocketAddr, entropy: &dyn Entropy) -> anyhow::Result<ClientEndpoint> {
    let who = Identity::generate(entropy);
    Ok(ClientEndpoint::bind(Socket::Bind(at), &who, &TransportLimits::default(), entropy, None)?)
}

/// Sends first packets, each from a socket of its own, as fast as one thread can.
pub(super) async fn initials(relay: RelayAddress, at: SocketAddr, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let packets = gather(&relay, entropy).await?;
    std::thread::spawn(move || {
        for packet in packets.iter().cycle() {
            // What the kernel does not take is not sent.
            UdpSocket::bind(ATTACKER).and_then(|socket| socket.send_to(packet, at)).ok();
        }
    });
    Ok(())
}

/// The first packets of so many connections to this relay.
async fn gather(relay: &RelayAddress, entropy: &dyn Entropy) -> anyhow::Result<Vec<Vec<u8>>> {
    let (sink, endpoint) = (net::UdpSocket::bind(HERE).await?, endpoint(HERE, entropy)?);
    let place = sink.local_addr()?;
    // One after the other: what the socket has no room for is lost.
    let (mut attempts, mut packets) = (FuturesUnordered::new(), BTreeMap::new());
    while packets.len() < INITIALS {
        attempts.push(endpoint.connect(place, relay.relay, PATIENCE));
        let mut packet = vec![0; DATAGRAM_BYTES];
        tokio::select! {
            biased;
            _ = attempts.next() => {}
            received = sink.recv(&mut packet) => packet.truncate(received?),
        }
        // By the id that it is sent to: one that nobody answers comes again.
        if let Some(id) = packet.get(FIRST_ID) {
            packets.insert(id.to_vec(), packet);
        }
    }
    Ok(packets.into_values().collect())
}

/// Begins handshakes, proves the address where that is wanted, and hears no more of what the relay says.
pub(super) async fn half_open(relay: RelayAddress, at: SocketAddr, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let (inside, outside) = (net::UdpSocket::bind(HERE).await?, net::UdpSocket::bind(ATTACKER).await?);
    connect_again_and_again(endpoint(HERE, entropy)?, relay, inside.local_addr()?);
    tokio::spawn(async move {
        let (mut sent, mut answered) = ([0; DATAGRAM_BYTES], [0; DATAGRAM_BYTES]);
        let mut client = HERE;
        loop {
            tokio::select! {
                Ok((bytes, from)) = inside.recv_from(&mut sent) => {
                    client = from;
                    pass_on(sent.get(..bytes), INITIAL, &outside, at).await;
                }
                Ok(bytes) = outside.recv(&mut answered) => pass_on(answered.get(..bytes), RETRY, &inside, client).await,
            }
        }
    });
    Ok(())
}

/// Sends a packet on if it is of this type; else nobody hears of it.
async fn pass_on(packet: Option<&[u8]>, of_type: u8, by: &net::UdpSocket, to: SocketAddr) {
    if let Some(packet) = packet.filter(|packet| packet.first().is_some_and(|first| first & LONG_HEADER == of_type)) {
        by.send_to(packet, to).await.ok();
    }
}

/// Opens connections that say nothing, and opens them anew when they are closed.
pub(super) fn silent(relay: RelayAddress, at: SocketAddr, entropy: &dyn Entropy) -> anyhow::Result<()> {
    connect_again_and_again(endpoint(ATTACKER, entropy)?, relay, at);
    Ok(())
}

fn connect_again_and_again(endpoint: ClientEndpoint, relay: RelayAddress, at: SocketAddr) {
    let mut attempts = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (endpoint, relay) = (endpoint.clone(), relay.relay);
        attempts.spawn(async move {
            loop {
                match endpoint.connect(at, relay, PATIENCE).await {
                    Ok(connection) => drop(connection.closed().await),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
    }
    attempts.detach_all();
}
