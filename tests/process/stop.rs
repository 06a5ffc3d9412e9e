//! SIGTERM: a relay that is asked to stop sends its clients away, finishes what they have begun, and nothing is lost.

use std::time::Instant;

use rustix::process::Signal;

use super::program::{Peer, Relay, signal, wait_until};

const LINES: usize = 3000;

#[test]
fn a_relay_that_is_stopped_under_load_loses_nothing_and_its_clients_come_back_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::configured(directory.path(), "log = 'info'");
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let receiver = bob.start(&["recv"]);
    receiver.expect("status");
    let lines: String = (0..LINES).map(|line| format!("{line}\n")).collect();
    let mut sender = alice.start_with_input(&["send", "--to", &bob.address()], lines.into_bytes());
    let mut next = 0;
    let mut take = |until: usize| {
        while next < until {
            assert_eq!(receiver.expect("message")["body"], next.to_string(), "each once, in order");
            next += 1;
        }
    };
    for stop in 1..=3 {
        take(stop * LINES / 4);
        let begin = Instant::now();
        relay.terminate();
        let status = relay.wait();
        println!("stopped in {:?} under load", begin.elapsed());
        assert_eq!(status.code(), Some(0), "{}", relay.logged());
        assert!(!relay.logged().contains("cut off"), "{}", relay.logged());
        relay.start_again();
    }
    take(LINES);
    let mut delivered = 0;
    while let Some(event) = sender.next() {
        delivered += usize::from(event["event"] == "delivered");
    }
    assert!(sender.wait().success(), "{}", sender.errors.lock().unwrap());
    assert_eq!(delivered, LINES);
    let told = receiver.errors.lock().unwrap().clone();
    assert!(told.contains("asks to come back"), "{told}");
}

#[test]
fn a_second_signal_ends_a_relay_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::configured(directory.path(), "log = 'info'");
    let bob = Peer::new(directory.path().join("bob"), &relay);
    let receiver = bob.start(&["recv"]);
    receiver.expect("status");
    // A client that does not listen is waited for.
    receiver.freeze();
    relay.terminate();
    wait_until("draining", || relay.logged().contains("draining"));
    // Again and again: what comes at the same moment is the same request.
    wait_until("told twice", || {
        relay.terminate();
        relay.logged().contains("told twice")
    });
    let status = relay.wait();
    signal(receiver.id(), Signal::CONT);
    assert_eq!(status.code(), Some(1), "{}", relay.logged());
}

#[test]
fn one_request_that_comes_as_two_signals_ends_a_relay_politely() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let bob = Peer::new(directory.path().join("bob"), &relay);
    let receiver = bob.start(&["recv"]);
    receiver.expect("status");
    // It is waited for until it is cut off, so there is time for the second signal to be heard.
    receiver.freeze();
    relay.terminate();
    signal(relay.id(), Signal::INT);
    let status = relay.wait();
    signal(receiver.id(), Signal::CONT);
    assert_eq!(status.code(), Some(0), "{}", relay.logged());
}
