//! Three relays with a peer on each, every message to the next relay's peer, and each relay killed in turn.
//!
//! `FEDERATION_MESSAGES` sets how many go along each of the three ways.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::program::{PATIENCE, Peer, Program, Relay, example};

/// One of the three: its relay, who sends there, who receives, and what has come.
struct Corner {
    relay: Relay,
    address: String,
    sender: Option<Program>,
    receiver: Program,
    received: Vec<String>,
}

impl Corner {
    fn note(&mut self) {
        while let Some(event) = self.receiver.try_next() {
            match event["event"].as_str().unwrap() {
                "message" => self.received.push(event["body"].as_str().unwrap().to_owned()),
                "status" => {}
                other => panic!("{other} is no event of this test: {event}"),
            }
        }
    }
}

#[test]
fn three_relays_bring_each_others_messages_once_and_in_order_though_each_is_killed() {
    let messages: usize = std::env::var("FEDERATION_MESSAGES").map_or(300, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str, corner: usize| directory.path().join(format!("{name}{corner}"));
    let mut corners: Vec<Corner> = (0..3)
        .map(|corner| {
            let home = place("relay", corner);
            std::fs::create_dir(&home).unwrap();
            let relay = Relay::start(&home);
            let peer = Peer::new(place("peer", corner), &relay);
            let address = peer.address();
            let receiver = peer.start(&["recv"]);
            receiver.expect("status");
            Corner { relay, address, sender: None, receiver, received: Vec::new() }
        })
        .collect();
    let receivers: Vec<String> = corners.iter().map(|corner| corner.address.clone()).collect();
    for (number, corner) in corners.iter_mut().enumerate() {
        let peer = Peer::new(place("sender", number), &corner.relay);
        let lines: String = (0..messages).map(|line| format!("{number} {line}\n")).collect();
        let to = &receivers[(number + 1) % 3];
        corner.sender = Some(peer.start_with_input(&["send", "--timeout", "60s", "--to", to], lines.into_bytes()));
    }
    let begin = Instant::now();
    let mut kills = 0;
    loop {
        assert!(
            begin.elapsed() < 2 * PATIENCE,
            "{:?}",
            corners.iter().map(|corner| corner.received.len()).collect::<Vec<_>>()
        );
        corners.iter_mut().for_each(Corner::note);
        let arrived: usize = corners.iter().map(|corner| corner.received.len()).sum();
        if kills < 6 && arrived > messages * 3 * (kills + 1) / 8 {
            let corner = &mut corners[kills % 3];
            corner.relay.kill();
            corner.relay.start_again();
            kills += 1;
        }
        if arrived >= 3 * messages && kills == 6 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for (number, corner) in corners.iter_mut().enumerate() {
        let mut sender = corner.sender.take().unwrap();
        let mut delivered = BTreeSet::new();
        while let Some(event) = sender.next() {
            match event["event"].as_str().unwrap() {
                "queued" | "accepted" => {}
                "delivered" => drop(delivered.insert(event["id"].as_str().unwrap().to_owned())),
                other => panic!("{other} is no outcome of corner {number}: {event}"),
            }
        }
        assert!(sender.wait().success(), "{}", sender.errors.lock().unwrap());
        assert_eq!(delivered.len(), messages, "every outcome reaches its sender");
    }
    for (number, corner) in corners.iter_mut().enumerate() {
        corner.note();
        let from = (number + 2) % 3;
        let expected: Vec<String> = (0..messages).map(|line| format!("{from} {line}")).collect();
        assert_eq!(corner.received, expected, "all of them, once, in order");
    }
    println!("{messages} messages along each of three ways, each relay killed twice: {:?}", begin.elapsed());
}

#[test]
fn the_links_of_a_running_relay_are_shown_to_who_may_read_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    for home in [&here, &there] {
        std::fs::create_dir(home).unwrap();
    }
    let relay = Relay::start(&here);
    let mut other = Relay::start(&there);
    let bob = Peer::new(directory.path().join("bob"), &other);
    let to = bob.address();
    other.kill();
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let sent = alice.run(&["send", "--until", "accepted", "--to", &to, "one", "two"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let relays = |data: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command.args(["relays", "--json", "--data"]).arg(data).output().unwrap()
    };
    let output = relays(&relay.data());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let link = &shown["relays"][0];
    assert_eq!((link["waiting"].as_u64(), shown["relays"].as_array().unwrap().len()), (Some(2), 1), "{shown}");
    assert!(other.address.contains(link["relay"].as_str().unwrap()), "{shown}");
    // Whoever stopped says so, with what to do.
    for (data, words) in [(other.data(), "no relay runs"), (there.join("nothing"), "--data")] {
        let output = relays(&data);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(words), "{error}");
    }
    other.start_again();
    let rest = alice.start_with_input(&["send", "--until", "accepted", "--to", &to], Vec::new());
    while rest.next().is_some() {}
    let taken = bob.run(&["recv", "--max", "2"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

#[test]
fn the_example_shows_every_packet_between_two_relays_in_the_order_of_cause_and_effect() {
    let output = std::process::Command::new(example("federation")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let scene = shown.split_once("alice, at relay A, writes to bob").unwrap().1;
    let scene = scene.split_once("Relay C is down").unwrap().0;
    let at = |from: &str, to: &str, frame: &str| {
        let is_it = |line: &str| line.trim_start().starts_with(&format!("{from} -> {to:<7}  {frame}"));
        scene.lines().position(is_it).unwrap_or_else(|| panic!("no {frame} from {from} to {to}:{scene}"))
    };
    let message = at("alice", "relay A", "MSG:R");
    let forwarded = at("relay A", "relay B", "MSG:R");
    let pushed = at("relay B", "bob", "MSG:N");
    let taken = at("bob", "relay B", "ACK:R");
    let told = at("relay B", "relay A", "ACK:N");
    let chains = [
        vec![message, at("relay A", "alice", "MSG:A")],
        vec![message, forwarded, at("relay B", "relay A", "MSG:A")],
        vec![forwarded, pushed, taken, at("relay B", "bob", "ACK:A")],
        vec![taken, told, at("relay A", "alice", "ACK:N")],
    ];
    assert!(chains.iter().all(|chain| chain.is_sorted()), "{chains:?}{scene}");
    assert_eq!(shown.matches("knows: delivered").count(), 3, "{shown}");
}

#[test]
fn what_waits_for_a_relay_that_moved_goes_out_once_somebody_names_its_new_place() {
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    for home in [&here, &there] {
        std::fs::create_dir(home).unwrap();
    }
    let (mut relay, mut other) = (Relay::start(&here), Relay::start(&there));
    let bob = |other: &Relay| Peer::new(directory.path().join("bob"), other);
    let old = bob(&other).address();
    other.kill();
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let send = |to: &str, word: &str| {
        let sent = alice.run(&["send", "--until", "accepted", "--to", to, word]);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    };
    send(&old, "one");
    other.move_away();
    other.start_again();
    let new = bob(&other).address();
    assert_ne!(new, old);
    send(&new, "two");
    // What was said is on disk.
    relay.kill();
    relay.start_again();
    let receiver = bob(&other).start(&["recv", "--max", "2"]);
    let bodies = [(); 2].map(|()| receiver.expect("message")["body"].as_str().unwrap().to_owned());
    assert_eq!(bodies, ["one", "two"]);
}
