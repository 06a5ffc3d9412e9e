//! Addresses that change in mid-flow: by a translator on the way, which tells nobody, and by the host itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use posthouse::transport::TransportLimits;

use super::link::Quality;
use super::network::Network;
use super::peer::{Peer, Talk};
use super::relay::Relay;

/// From message to message.
const PACE: Duration = Duration::from_millis(20);

/// Two peers of one relay, which is 20 ms away from both.
async fn pair(network: &Network, relay: &Relay) -> [Peer; 2] {
    network.set(&relay.host, Quality { delay: Duration::from_millis(20), ..Quality::default() });
    let limits = TransportLimits::default;
    [Peer::start(network, relay, limits()).await, Peer::start(network, relay, limits()).await]
}

/// Lets a pair talk, changes something, and lets it talk on.
async fn talk_over(name: &str, [from, to]: &[Peer; 2], change: impl FnOnce()) {
    let talk = Talk::start(from, to, PACE);
    talk.goes_on(20).await;
    let at = Instant::now();
    change();
    talk.goes_on(20).await;
    let transcript = talk.finish().await;
    println!("{name}: {}", transcript.around(at, at));
    println!("    sender: {}; recipient: {}", from.session_since(at), to.session_since(at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_talk_goes_on_when_a_translator_changes_the_address_of_a_peer_in_mid_flow() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, directory.path());
    let peers = pair(&network, &relay).await;
    let [alice, bob] = [&peers[0].host, &peers[1].host];
    talk_over("the sender's port changes", &peers, || network.change_port(alice)).await;
    talk_over("the sender's address changes", &peers, || network.change_address(alice)).await;
    talk_over("the recipient's port changes", &peers, || network.change_port(bob)).await;
    talk_over("the recipient's address changes", &peers, || network.change_address(bob)).await;
    let both = || [alice, bob].into_iter().for_each(|host| network.change_address(host));
    talk_over("both addresses change", &peers, both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_that_was_silent_is_found_again_after_its_address_was_changed() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, directory.path());
    // The usual 15 s make this longer and show nothing else: until it says that it is there nobody can find it.
    let limits = TransportLimits { keep_alive: Duration::from_secs(5), ..TransportLimits::default() };
    let peers = [Peer::start(&network, &relay, limits.clone()).await, Peer::start(&network, &relay, limits).await];
    network.silence(Duration::from_secs(1)).await;
    network.change_address(&peers[1].host);
    let at = Instant::now();
    let talk = Talk::start(&peers[0], &peers[1], PACE);
    talk.goes_on(1).await;
    let transcript = talk.finish().await;
    println!("a silent recipient's address changes, keep-alive 5 s: {}", transcript.around(at, at));
    println!("    sender: {}; recipient: {}", peers[0].session_since(at), peers[1].session_since(at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_talk_goes_on_when_a_host_moves_and_its_client_rebinds_if_it_is_bound_to_an_address() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, directory.path());
    let peers = pair(&network, &relay).await;
    for (name, peer) in ["the sender", "the recipient"].into_iter().zip(&peers) {
        talk_over(&format!("{name} rebinds"), &peers, || peer.rebind(peer.host.address())).await;
        let move_and_rebind = || {
            peer.host.move_on();
            peer.rebind(peer.host.address());
        };
        talk_over(&format!("{name} moves and rebinds"), &peers, move_and_rebind).await;
        peer.rebind(Ipv4Addr::UNSPECIFIED);
        talk_over(&format!("{name} moves, at any address"), &peers, || peer.host.move_on()).await;
    }
}
