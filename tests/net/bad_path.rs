//! Paths that are slow, lose datagrams, and deliver them in disorder.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::link::Quality;
use super::network::{Host, Network};
use super::peer::{Peer, Talk};
use super::program::{PEER, Program};
use super::relay::Relay;
use posthouse::transport::TransportLimits;

const MS: Duration = Duration::from_millis(1);

/// Runs the example peer on a host.
fn run(host: &Host, relay: &Relay, directory: &Path, arguments: &[&str], input: Option<Vec<u8>>) -> Program {
    let mut command = Command::new(&*PEER);
    command.arg("--json").arg("--data").arg(directory).args(["--relay", &relay.address.to_string()]).args(arguments);
    host.namespace.within(|| Program::start(command, input))
}

fn text(event: &Value, field: &str) -> String {
    event[field].as_str().unwrap().to_owned()
}

#[test]
fn two_thousand_lines_arrive_in_order_over_a_slow_path_that_loses_every_tenth_datagram() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _context = runtime.enter();
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, &directory.path().join("relay"));
    let [alice, bob] = [network.host(), network.host()];
    let homes = [directory.path().join("alice"), directory.path().join("bob")];
    let bad = Quality { delay: 50 * MS, loss: 0.1, ..Quality::default() };
    network.set(&alice, bad);
    network.set(&bob, bad);

    let to = text(&run(&bob, &relay, &homes[1], &["id"], None).expect("id"), "address");
    let mut receiver = run(&bob, &relay, &homes[1], &["recv"], None);
    // From then on bob has a mailbox of the whole size.
    receiver.expect("status");
    let lines: Vec<String> = (0..2000).map(|number| format!("{number:.<256}")).collect();
    let begin = Instant::now();
    let input = (lines.join("\n") + "\n").into_bytes();
    let mut sender = run(&alice, &relay, &homes[0], &["send", "--to", &to], Some(input));

    let (mut queued, mut delivered) = (BTreeSet::new(), Vec::new());
    let mut accepted = None;
    while let Some(event) = sender.next() {
        match event["event"].as_str().unwrap() {
            "queued" => drop(queued.insert(text(&event, "id"))),
            "accepted" => accepted = Some(begin.elapsed()),
            "delivered" => delivered.push(text(&event, "id")),
            other => unreachable!("{other}: {event}"),
        }
    }
    let told = begin.elapsed();
    assert!(sender.wait().success(), "{}", sender.errors.lock().unwrap());
    assert_eq!((delivered.len(), queued.len()), (lines.len(), lines.len()));
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), queued, "every outcome reaches the sender, once");
    let taken: Vec<String> = (0..lines.len()).map(|_| text(&receiver.expect("message"), "body")).collect();
    assert_eq!(taken, lines);
    receiver.kill();
    assert_eq!(run(&bob, &relay, &homes[1], &["count"], None).expect("status")["total"], 0);
    assert!(receiver.next().is_none(), "nothing comes twice");
    println!(
        "2,000 lines of 256 bytes, 50 ms and 10% loss each way on both links: all accepted after {:.1?}, all \
         outcomes after {told:.1?}; {:?}",
        accepted.unwrap(),
        network.counts()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_twice_and_in_disorder_is_taken_once_and_in_order() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&network, directory.path());
    let [alice, bob] = [
        Peer::start(&network, &relay, TransportLimits::default()).await,
        Peer::start(&network, &relay, TransportLimits::default()).await,
    ];
    let bad = Quality {
        delay: 10 * MS,
        jitter: 30 * MS,
        loss: 0.02,
        reordering: 0.2,
        duplication: 0.1,
        ..Quality::default()
    };
    network.set(&alice.host, bad);
    network.set(&bob.host, bad);
    let talk = Talk::start(&alice, &bob, 5 * MS);
    talk.goes_on(1000).await;
    println!("disorder: {}; {:?}", talk.finish().await.latency(), network.counts());
}
