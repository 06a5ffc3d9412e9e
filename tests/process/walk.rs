//! The long walk: a file goes from one peer to another while everything on the way is killed.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program::{PATIENCE, Peer, Program, Relay};

/// How often the relay is killed on the way.
const RELAY_KILLS: usize = 4;

fn line_count() -> usize {
    std::env::var("PROCESS_LINES").map_or(2000, |lines| lines.parse().unwrap())
}

/// Collects what a receiver prints, over its lives.
struct Received {
    lives: Vec<Vec<String>>,
}

impl Received {
    fn note(&mut self, event: &Value) {
        if event["event"] == "message" {
            self.lives.last_mut().unwrap().push(event["body"].as_str().unwrap().to_owned());
        }
    }

    fn drain(&mut self, program: &Program) {
        while let Some(event) = program.try_next() {
            self.note(&event);
        }
    }

    fn distinct(&self) -> usize {
        self.lives.iter().flatten().collect::<BTreeSet<_>>().len()
    }
}

/// Notes which messages are queued, and which have their outcome.
#[derive(Default)]
struct Told {
    queued: Vec<String>,
    accepted: BTreeSet<String>,
    /// A new life of the sender, of which nothing but outcomes came yet: those that an earlier one did not print.
    /// What it had to print before them it may have been killed over as well.
    begins: bool,
    delivered: BTreeSet<String>,
}

impl Told {
    fn note(&mut self, event: &Value) {
        let id = || event["id"].as_str().unwrap().to_owned();
        match event["event"].as_str().unwrap() {
            "queued" => self.queued.push(id()),
            "accepted" => {
                self.begins = false;
                self.accepted.insert(id());
            }
            "delivered" => {
                assert!(self.begins || self.accepted.contains(&id()), "accepted is told before delivered");
                self.delivered.insert(id());
            }
            other => panic!("{other} is no event of this walk: {event}"),
        }
    }

    fn drain(&mut self, program: &Program) {
        while let Some(event) = program.try_next() {
            self.note(&event);
        }
    }
}

#[test]
fn every_line_arrives_in_order_once_though_everything_is_killed_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let bob = Peer::new(directory.path().join("bob"), &relay);
    let to = bob.address();
    let lines: Vec<String> = (0..line_count()).map(|i| format!("line {i} of the file")).collect();
    let mut received = Received { lives: vec![Vec::new()] };
    let mut told = Told::default();

    let mut receiver = bob.start(&["recv"]);
    let mut sender = alice.start_with_input(&["send", "--to", &to], (lines.join("\n") + "\n").into_bytes());

    // The sender is killed as soon as all is queued, and run again for what is left.
    while told.queued.len() < lines.len() {
        told.note(&sender.next().unwrap());
        received.drain(&receiver);
    }
    sender.kill();
    // All that it said before it died.
    while let Some(event) = sender.next() {
        told.note(&event);
    }
    told.begins = true;
    let mut sender = alice.start_with_input(&["send", "--to", &to], Vec::new());

    // The relay is killed at every fifth of the way, the receiver at half of it.
    let begin = Instant::now();
    let mut relay_kills = 0;
    let mut receiver_kills = 0;
    while received.distinct() < lines.len() || relay_kills < RELAY_KILLS {
        assert!(begin.elapsed() < 2 * PATIENCE, "{} of {} lines arrived", received.distinct(), lines.len());
        received.drain(&receiver);
        told.drain(&sender);
        let way = received.distinct() * 5 / lines.len();
        if relay_kills < RELAY_KILLS && way > relay_kills {
            relay.kill();
            relay.start_again();
            relay_kills += 1;
        }
        if receiver_kills == 0 && received.distinct() * 2 > lines.len() {
            receiver.kill();
            received.drain(&receiver);
            received.lives.push(Vec::new());
            receiver = bob.start(&["recv"]);
            receiver_kills += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }

    while let Some(event) = sender.next() {
        told.note(&event);
    }
    assert!(sender.wait().success(), "{}", sender.errors.lock().unwrap());
    let queued: BTreeSet<String> = told.queued.iter().cloned().collect();
    assert_eq!(queued.len(), lines.len());
    assert_eq!(told.delivered, queued, "every outcome reaches the sender");

    // Each life of the receiver saw a run of the lines, in order and none twice; the later one repeats at most
    // what the earlier had printed and not yet acknowledged.
    let [first, second] = &received.lives[..] else { panic!("the receiver had two lives") };
    assert_eq!(first[..], lines[..first.len()], "the first life is the beginning of the file");
    let repeated = (first.len() + second.len()).checked_sub(lines.len()).expect("no line is missing");
    assert_eq!(second[..], lines[first.len() - repeated..], "the second life is its end");
    println!("{} lines, {relay_kills} kills of the relay, {repeated} lines repeated", lines.len());
}

#[test]
fn a_relay_on_an_empty_store_and_on_an_older_copy_is_offered_again_what_senders_hold() {
    for older_copy in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut relay = Relay::start(directory.path());
        let alice = Peer::new(directory.path().join("alice"), &relay);
        let bob = Peer::new(directory.path().join("bob"), &relay);
        let to = bob.address();
        let send = |texts: &[&str]| {
            let output = alice.run(&[&["send", "--until", "accepted", "--to", &to], texts].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        send(&["one", "two"]);
        relay.kill();
        let store = relay.data().join("relay.redb");
        let copy = fs::read(&store).unwrap();
        relay.start_again();
        send(&["three"]);
        relay.kill();
        if older_copy {
            fs::write(&store, copy).unwrap();
        } else {
            fs::remove_file(&store).unwrap();
        }
        relay.start_again();

        let receiver = bob.start(&["recv", "--max", "3"]);
        let mut sender = alice.start_with_input(&["send", "--to", &to], Vec::new());
        let mut bodies = Vec::new();
        while let Some(event) = receiver.next() {
            if event["event"] == "message" {
                bodies.push(event["body"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(bodies, ["one", "two", "three"], "older copy: {older_copy}");
        let mut told = Told::default();
        while let Some(event) = sender.next() {
            told.note(&event);
        }
        assert!(sender.wait().success(), "older copy: {older_copy}: {}", sender.errors.lock().unwrap());
        assert_eq!(told.delivered.len(), 3);
        let left = bob.run(&["recv", "--idle", "500ms"]);
        assert!(!String::from_utf8_lossy(&left.stdout).contains("\"message\""), "nothing comes twice");
    }
}
