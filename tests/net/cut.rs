//! Paths that let nothing through for a while, both ways or one way.

use std::time::{Duration, Instant};

use posthouse::transport::TransportLimits;

use super::link::{Quality, Way};
use super::network::Network;
use super::peer::{Peer, Talk};
use super::relay::Relay;

const MS: Duration = Duration::from_millis(1);

/// From message to message.
const PACE: Duration = Duration::from_millis(50);

/// How long a path is cut.
pub(crate) fn partition() -> Duration {
    let long = std::env::var("NET_LONG").is_ok_and(|long| long == "1");
    Duration::from_secs(if long { 60 } else { 8 })
}

/// Connections that are over long before a partition is.
fn hasty() -> TransportLimits {
    TransportLimits { idle_timeout: Duration::from_secs(4), keep_alive: Duration::from_secs(1), ..usual() }
}

fn usual() -> TransportLimits {
    TransportLimits::default()
}

/// A pair that talks, and what is cut of it.
struct Case {
    name: &'static str,
    limits: TransportLimits,
    /// Of the sender's link, and of the recipient's.
    cut: [&'static [Way]; 2],
}

const NONE: &[Way] = &[];
const UP: &[Way] = &[Way::Up];
const DOWN: &[Way] = &[Way::Down];
const BOTH: &[Way] = &[Way::Up, Way::Down];

/// A partition is shorter than an idle timeout of 45 s, unless `NET_LONG` is set, and longer than one of 4 s.
fn cases() -> Vec<Case> {
    let case = |name, limits, cut| Case { name, limits, cut };
    vec![
        case("both are cut off, idle timeout 45 s", usual(), [BOTH, BOTH]),
        case("both are cut off, idle timeout 4 s", hasty(), [BOTH, BOTH]),
        case("the recipient is cut off, idle timeout 45 s", usual(), [NONE, BOTH]),
        case("the recipient is cut off, idle timeout 4 s", hasty(), [NONE, BOTH]),
        case("the sender hears nothing, idle timeout 45 s", usual(), [DOWN, NONE]),
        case("the sender hears nothing, idle timeout 4 s", hasty(), [DOWN, NONE]),
        case("the recipient hears nothing, idle timeout 45 s", usual(), [NONE, DOWN]),
        case("the recipient hears nothing, idle timeout 4 s", hasty(), [NONE, DOWN]),
        case("the relay does not hear the sender, idle timeout 45 s", usual(), [UP, NONE]),
        case("the relay does not hear the recipient, idle timeout 45 s", usual(), [NONE, UP]),
        case("the relay does not hear the recipient, idle timeout 4 s", hasty(), [NONE, UP]),
    ]
}

// One test, not one for each case: they all last as long as the partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_a_path_is_cut_is_taken_once_whoever_hears_whom_and_for_how_long() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, directory.path());
    let whole = Quality { delay: 10 * MS, ..Quality::default() };
    let cut = Quality { cut: true, ..whole };
    let mut talks = Vec::new();
    for Case { name, limits, cut } in cases() {
        let from = Peer::start(&network, &relay, limits.clone()).await;
        let to = Peer::start(&network, &relay, limits).await;
        network.set(&from.host, whole);
        network.set(&to.host, whole);
        let talk = Talk::start(&from, &to, PACE);
        talks.push((name, cut, from, to, talk));
    }
    for (.., talk) in &talks {
        talk.goes_on(20).await;
    }
    let begin = Instant::now();
    let set = |quality| {
        for (_, ways, from, to, _) in &talks {
            for (host, ways) in [(&from.host, ways[0]), (&to.host, ways[1])] {
                ways.iter().for_each(|way| network.set_one_way(host, *way, quality));
            }
        }
    };
    set(cut);
    // This wait is no guess: it is the partition.
    tokio::time::sleep(partition()).await;
    set(whole);
    let end = Instant::now();
    for (.., talk) in &talks {
        talk.goes_on(1).await;
    }
    for (name, _, from, to, talk) in talks {
        let transcript = talk.finish().await;
        println!("cut for {:?}, {name}: {}", partition(), transcript.around(begin, end));
        println!("    sender: {}; recipient: {}", from.session_since(begin), to.session_since(begin));
    }
}
