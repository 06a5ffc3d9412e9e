//! Two relays with a bad network between them, and a peer of each nearby: slow and lossy paths, partitions, relays
//! whose address changes.

use std::path::Path;
use std::time::{Duration, Instant};

use posthouse::client::Draft;
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::transport::TransportLimits;

use super::PATIENCE;
use super::cut::partition;
use super::link::Quality;
use super::network::{Host, Network};
use super::peer::{Peer, Talk};
use super::relay::Relay;

const MS: Duration = Duration::from_millis(1);

/// From message to message.
const PACE: Duration = Duration::from_millis(20);

/// The same where every tenth datagram is lost: what congestion control lets through there is some 20 kB/s.
const SLOW_PACE: Duration = Duration::from_millis(50);

/// Two relays, and a peer of each, which nothing bad happens to.
struct Two {
    relays: [Relay; 2],
    peers: [Peer; 2],
}

impl Two {
    async fn start(network: &Network, directory: &Path) -> Self {
        let relays = ["here", "there"].map(|name| Relay::start(network, &directory.join(name)));
        let [here, there] = &relays;
        let limits = TransportLimits::default;
        let peers = [Peer::start(network, here, limits()).await, Peer::start(network, there, limits()).await];
        Self { relays, peers }
    }

    /// What happens between the relays from now on: on the way there, and on the way back.
    fn set(&self, network: &Network, [to, back]: [Quality; 2]) {
        let [here, there] = &self.relays;
        network.set_between(&here.host, &there.host, to);
        network.set_between(&there.host, &here.host, back);
    }

    /// The first peer talks to the second, or the second to the first.
    fn talk(&self, back: bool, pace: Duration) -> Talk {
        let [first, second] = &self.peers;
        if back { Talk::start(second, first, pace) } else { Talk::start(first, second, pace) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_talk_over_a_slow_path_that_loses_every_tenth_datagram() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let two = Two::start(&network, directory.path()).await;
    two.set(&network, [Quality { delay: 100 * MS, loss: 0.1, ..Quality::default() }; 2]);
    let talks = [two.talk(false, SLOW_PACE), two.talk(true, SLOW_PACE)];
    for talk in &talks {
        talk.goes_on(400).await;
    }
    for (name, talk) in ["one way", "the other way"].into_iter().zip(talks) {
        println!("relays with 100 ms and 10% loss each way between them, {name}: {}", talk.finish().await.latency());
    }
    println!("    {:?}", network.counts());
}

/// What is cut between two relays: the way there, and the way back; and whether both peers talk.
struct Case {
    name: &'static str,
    cut: [bool; 2],
    both_talk: bool,
}

// One test, not one for each case: they all last as long as the partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_relays_are_cut_off_from_each_other_is_taken_once_afterwards() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let whole = Quality { delay: 10 * MS, ..Quality::default() };
    let cut = |is: bool| Quality { cut: is, ..whole };
    let case = |name, cut, both_talk| Case { name, cut, both_talk };
    let mut cases = Vec::new();
    for (number, case) in [
        case("relays that both have something to forward", [true, true], true),
        case("relays of which one forwards", [true, true], false),
        case("a relay that does not hear the one that forwards", [true, false], false),
        case("a relay that hears no answer to what it forwards", [false, true], false),
    ]
    .into_iter()
    .enumerate()
    {
        let two = Two::start(&network, &directory.path().join(number.to_string())).await;
        two.set(&network, [whole; 2]);
        let talks: Vec<_> = [false, true].into_iter().take(1 + usize::from(case.both_talk)).collect();
        let talks: Vec<Talk> = talks.into_iter().map(|back| two.talk(back, PACE)).collect();
        cases.push((case, two, talks));
    }
    for talk in cases.iter().flat_map(|(.., talks)| talks) {
        talk.goes_on(20).await;
    }
    let begin = Instant::now();
    for (case, two, _) in &cases {
        two.set(&network, case.cut.map(cut));
    }
    // This wait is no guess: it is the partition.
    tokio::time::sleep(partition()).await;
    for (_, two, _) in &cases {
        two.set(&network, [whole; 2]);
    }
    let end = Instant::now();
    for talk in cases.iter().flat_map(|(.., talks)| talks) {
        talk.goes_on(1).await;
    }
    for (case, two, talks) in cases {
        for talk in talks {
            println!("cut for {:?}, {}: {}", partition(), case.name, talk.finish().await.around(begin, end));
        }
        for peer in &two.peers {
            assert_eq!(peer.session_since(begin), "the same session", "peers do not notice");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_talk_goes_on_when_a_translator_changes_the_address_of_a_relay_in_mid_flow() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let two = Two::start(&network, directory.path()).await;
    two.set(&network, [Quality { delay: 20 * MS, ..Quality::default() }; 2]);
    let [here, there] = two.relays.each_ref().map(|relay| &relay.host);
    // Each forwards to the other, so each has a connection of its own that has to move.
    for (name, hosts, change) in [
        ("the port of one relay changes", &[here][..], Network::change_port as fn(&Network, &Host)),
        ("the address of one relay changes", &[here], Network::change_address),
        ("the addresses of both relays change", &[here, there], Network::change_address),
    ] {
        let talks = [two.talk(false, PACE), two.talk(true, PACE)];
        for talk in &talks {
            talk.goes_on(20).await;
        }
        let at = Instant::now();
        hosts.iter().for_each(|host| change(&network, host));
        for talk in &talks {
            talk.goes_on(20).await;
        }
        for (way, talk) in ["what it forwards", "what comes to it"].into_iter().zip(talks) {
            println!("{name}, {way}: {}", talk.finish().await.around(at, at));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_relay_that_moved_goes_to_where_a_newer_address_says_it_is() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    let here = Relay::start(&network, &here);
    let alice = Peer::start(&network, &here, TransportLimits::default()).await;
    let bob = Identity::generate(&SystemEntropy);
    let start_bob =
        async |relay: &Relay| Peer::start_as(bob.clone(), &network, relay, TransportLimits::default()).await;
    let old = Relay::start(&network, &there);
    let early = start_bob(&old).await;
    let talk = Talk::start(&alice, &early, PACE);
    talk.goes_on(20).await;
    talk.finish().await;
    early.client.clone().close().await;
    // It dies, and what is sent to its old address from then on stays with the sender's relay.
    let address = old.address.clone();
    drop(old);
    let mut sent = Vec::new();
    for number in 0..50 {
        let draft = Draft::new(address.peer(bob.peer_id()), number.to_string());
        sent.push(alice.client.send(draft).await.unwrap());
    }
    for message in &mut sent {
        message.accepted().await.unwrap();
    }
    let new = Relay::start(&network, &there);
    assert_ne!(new.address, address);
    assert_eq!(new.address.relay, address.relay);
    let late = start_bob(&new).await;
    let at = Instant::now();
    let draft = Draft::new(new.address.peer(bob.peer_id()), "50");
    sent.push(alice.client.send(draft).await.unwrap());
    let mut taken = Vec::new();
    while taken.len() < sent.len() {
        let message = tokio::time::timeout(PATIENCE, late.client.recv()).await.expect("a message in time").unwrap();
        taken.push(String::from_utf8(message.body.to_vec()).unwrap());
        message.taken().await.unwrap();
    }
    assert_eq!(taken, (0..=50).map(|number| number.to_string()).collect::<Vec<_>>(), "all, once, in order");
    println!(
        "a relay moved to another host: all that waited for it was taken {:.2?} after a newer address came",
        at.elapsed()
    );
    for message in &mut sent {
        assert_eq!(message.outcome().await.unwrap(), Outcome::Delivered);
    }
}
