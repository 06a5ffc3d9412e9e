//! Backups of a relay that runs, put back after its store was lost; and what the commands say when something is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;

use super::program::{Peer, Program, Relay};

const WAITING: usize = 500;
const LATER: usize = 20;

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", words(output));
}

fn fails(output: &Output, with: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", words(output));
    assert!(words(output).contains(with), "{}", words(output));
}

fn send(sender: &Peer, to: &str, lines: std::ops::Range<usize>) {
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let mut program = sender.start_with_input(&["send", "--until", "accepted", "--to", to], text.into_bytes());
    while program.next().is_some() {}
    assert!(program.wait().success(), "{}", program.errors.lock().unwrap());
}

fn taken(receiver: &Program, count: usize) -> BTreeSet<usize> {
    let mut taken = BTreeSet::new();
    while taken.len() < count {
        let event = receiver.expect("message");
        assert!(taken.insert(event["body"].as_str().unwrap().parse().unwrap()), "{event} came twice");
    }
    taken
}

#[test]
fn what_waits_survives_the_loss_of_the_store_and_what_came_after_the_backup_is_offered_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let to = bob.address();
    succeeds(&bob.run(&["count"]));
    let (file, store) = (directory.path().join("relay.backup"), relay.data().join("relay.redb"));
    let file = file.to_str().unwrap();
    send(&alice, &to, 0..WAITING);
    succeeds(&relay.command(&["backup", file]));
    send(&alice, &to, WAITING..WAITING + LATER);

    fails(&relay.command(&["restore", file]), "stop it first");
    fails(&relay.command(&["check"]), "in use");
    relay.kill();
    fs::remove_file(&store).unwrap();
    succeeds(&relay.command(&["restore", file]));
    let checked = relay.command(&["check"]);
    succeeds(&checked);
    assert!(words(&checked).contains(&format!("{WAITING} messages")), "{}", words(&checked));
    relay.start_again();

    let receiver = bob.start(&["recv"]);
    assert_eq!(taken(&receiver, WAITING), (0..WAITING).collect());
    // Its sender still holds the rest, and asks once it is back.
    let mut sender = alice.start_with_input(&["send", "--to", &to], Vec::new());
    assert_eq!(taken(&receiver, LATER), (WAITING..WAITING + LATER).collect());
    let mut delivered = 0;
    while let Some(event) = sender.next() {
        delivered += usize::from(event["event"] == "delivered");
    }
    assert!(sender.wait().success(), "{}", sender.errors.lock().unwrap());
    assert_eq!(delivered, WAITING + LATER);
}

#[test]
fn a_store_is_never_overwritten_nor_made_of_a_damaged_backup() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let [alice, bob] = ["alice", "bob"].map(|name| Peer::new(directory.path().join(name), &relay));
    let to = bob.address();
    succeeds(&bob.run(&["count"]));
    let [file, bad] = ["relay.backup", "bad"].map(|name| directory.path().join(name));
    let [good, torn] = [&file, &bad].map(|path| path.to_str().unwrap());
    let store = relay.data().join("relay.redb");
    succeeds(&relay.command(&["backup", good]));
    // Without its file for commands the relay is found by the lock on its store.
    let (access, aside) = (relay.data().join("admin.json"), relay.data().join("aside"));
    fs::rename(&access, &aside).unwrap();
    fails(&relay.command(&["restore", good, "--force"]), "in use");
    fails(&relay.command(&["backup", torn]), "in use");
    assert!(!bad.exists());
    fs::rename(&aside, &access).unwrap();
    relay.kill();
    let holds_all = |relay: &Relay| {
        let checked = relay.command(&["check"]);
        succeeds(&checked);
        assert!(words(&checked).contains(&format!("{LATER} messages")), "{}", words(&checked));
    };

    succeeds(&relay.command(&["backup", good]));
    fails(&relay.command(&["restore", good]), "--force");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bad, bytes).unwrap();
    relay.start_again();
    send(&alice, &to, 0..LATER);
    relay.kill();
    let before = fs::read(&store).unwrap();
    fails(&relay.command(&["restore", torn, "--force"]), "damaged");
    assert!(fs::read(&store).unwrap() == before, "what cannot be restored moves nothing");
    succeeds(&relay.command(&["restore", good, "--force"]));
    // What was moved is whole: what a crash had left in the journal has gone along.
    let moved = |name: &str| relay.data().join(name);
    assert!(fs::read(moved("relay.redb.old")).unwrap() == before);
    for name in ["relay.redb", "relay.redb.journal"] {
        let [now, old] = [moved(name), moved(&name.replace("redb", "redb.old"))];
        fs::rename(&now, moved("aside")).unwrap();
        fs::rename(&old, &now).unwrap();
        fs::rename(moved("aside"), &old).unwrap();
    }
    holds_all(&relay);

    let mut bytes = fs::read(&store).unwrap();
    let (from, to) = (bytes.len() / 4, bytes.len() / 2);
    bytes[from..to].fill(0xa5);
    fs::write(&store, bytes).unwrap();
    fails(&relay.command(&["check"]), "damaged");
    fs::remove_file(&store).unwrap();
    fails(&relay.command(&["check"]), "name the relay's directory with --data");
    fails(&relay.command(&["backup", good]), "name the relay's directory with --data");
}

#[test]
fn a_backup_that_cannot_be_written_says_so_whether_the_relay_runs_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let nowhere = directory.path().join("nowhere/relay.backup");
    let full = directory.path().join("full");
    // What is written there meets a full disk.
    let fill = || std::os::unix::fs::symlink("/dev/full", directory.path().join("full.part")).unwrap();
    fill();
    for file in [&nowhere, &full] {
        let running = relay.command(&["backup", file.to_str().unwrap()]);
        fails(&running, file.to_str().unwrap());
        assert!(!words(&running).contains("log says why"), "{}", words(&running));
    }
    relay.kill();
    fill();
    for (file, why) in [(&nowhere, "No such file"), (&full, "No space left")] {
        let stopped = relay.command(&["backup", file.to_str().unwrap()]);
        fails(&stopped, why);
        assert!(words(&stopped).contains(file.to_str().unwrap()), "{}", words(&stopped));
    }
    let stopped = relay.command(&["backup", directory.path().to_str().unwrap()]);
    fails(&stopped, "is a directory");
}
