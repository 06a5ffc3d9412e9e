//! The ways in which `peer recv` and `peer chat` read a mailbox.

use serde_json::Value;

use super::program::{Peer, Relay};

/// The relay, two senders whose messages wait, and the recipient.
struct Scene {
    _directory: tempfile::TempDir,
    _relay: Relay,
    alice: Peer,
    bob: Peer,
    to: String,
}

fn numbered(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

impl Scene {
    /// Thirty messages of Alice's wait, and ten of Carol's.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let relay = Relay::start(directory.path());
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Peer::new(directory.path().join(name), &relay));
        let to = bob.address();
        for (peer, numbers) in [(&alice, 0..30), (&carol, 100..110)] {
            let texts = numbered(numbers);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let output = peer.run(&[&["send", "--until", "accepted", "--to", &to], &texts[..]].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Self { _directory: directory, _relay: relay, alice, bob, to }
    }

    /// What the recipient is given.
    fn recv(&self, flags: &[&str]) -> Vec<String> {
        let output = self.bob.run(&[&["recv"], flags].concat());
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let messages = events.filter(|event| event["event"] == "message");
        messages.map(|event| event["body"].as_str().unwrap().to_owned()).collect()
    }

    fn waiting(&self) -> u64 {
        let output = self.bob.run(&["count"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["total"].as_u64().unwrap()
    }
}

#[test]
fn looking_from_either_end_takes_nothing_and_sees_what_comes_meanwhile() {
    let scene = Scene::new();
    let newest_first: Vec<String> = numbered((0..30).chain(100..110)).into_iter().rev().collect();
    assert_eq!(scene.recv(&["--no-ack", "--order", "newest", "--max", "5", "--page", "3"]), newest_first[..5]);
    for (order, expected) in [("newest", newest_first), ("oldest", numbered((0..30).chain(100..110)))] {
        let mut looking = scene.bob.start(&["recv", "--no-ack", "--page", "7", "--order", order]);
        let next = || looking.expect("message")["body"].as_str().unwrap().to_owned();
        assert_eq!((0..40).map(|_| next()).collect::<Vec<_>>(), expected);
        let output = scene.alice.run(&["send", "--until", "accepted", "--ttl", "5s", "--to", &scene.to, "meanwhile"]);
        assert_eq!(output.status.code(), Some(0), "a busy machine takes a second, and not five");
        assert_eq!(next(), "meanwhile", "{order}");
        looking.kill();
    }
    // What was sent meanwhile has run out, once nobody looks any more.
    while scene.waiting() > 40 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(scene.waiting(), 40);
}

#[test]
fn one_sender_is_taken_and_the_other_waits() {
    let scene = Scene::new();
    let alice = scene.alice.address();
    assert_eq!(scene.recv(&["--from", &alice, "--max", "10"]), numbered(0..10));
    assert_eq!(scene.recv(&["--from", &alice, "--order", "newest", "--page", "4", "--idle", "1s"]), {
        numbered(10..30).into_iter().rev().collect::<Vec<_>>()
    });
    assert_eq!(scene.waiting(), 10);
    assert_eq!(scene.recv(&["--idle", "1s"]), numbered(100..110));
    assert_eq!(scene.waiting(), 0);
}

#[test]
fn a_chat_shows_the_latest_and_older_ones_when_asked() {
    let scene = Scene::new();
    let alice = scene.alice.address();
    let shown = |input: &str| {
        let mut chat = scene.bob.start_with_input(&["chat", &alice], input.as_bytes().to_vec());
        let mut bodies = Vec::new();
        while let Some(event) = chat.next() {
            if event["event"] == "message" {
                bodies.push(event["body"].as_str().unwrap().to_owned());
            }
        }
        assert!(chat.wait().success(), "{}", chat.errors.lock().unwrap());
        bodies
    };
    assert_eq!(shown(""), numbered(10..30), "in the order in which they were written");
    assert_eq!(scene.waiting(), 20);
    let texts = numbered(200..230);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert!(
        scene.alice.run(&[&["send", "--until", "accepted", "--to", &scene.to], &texts[..]].concat()).status.success()
    );
    assert_eq!(shown("/page\n"), numbered((210..230).chain(0..10).chain(200..210)));
    assert_eq!(scene.waiting(), 10, "Carol's are not the chat's");
}
