//! What scripts rely on: exit codes, and errors that say what to do.

use serde_json::Value;

use super::program::{Peer, Relay};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn events(output: &std::process::Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_wrong_address_says_what_is_wrong_and_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let peer = Peer::new(directory.path().join("peer"), &relay);
    for (to, words) in [
        ("http://x", "posthouse://"),
        ("posthouse://abc@host:1/x", "the relay's id is wrong"),
        (relay.address.as_str(), "/<peer id>"),
    ] {
        let output = peer.run(&["send", "--to", to, "hello"]);
        assert_eq!(output.status.code(), Some(2), "{to}");
        assert!(stderr(&output).contains(words), "{to}: {}", stderr(&output));
    }
}

#[test]
fn a_directory_in_use_names_the_process_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let peer = Peer::new(directory.path().join("peer"), &relay);
    let receiver = peer.start(&["recv"]);
    receiver.expect("status");
    let output = peer.run(&["count"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("process"), "{}", stderr(&output));
}

#[test]
fn an_expired_message_ends_the_sender_with_3_and_is_certain() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let bob = Peer::new(directory.path().join("bob"), &relay);
    let output = alice.run(&["send", "--ttl", "1s", "--to", &bob.address(), "too late"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let events = events(&output);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["queued", "accepted", "expired"]);
    assert_eq!(events[2]["maybe_taken"], false, "nobody ever connected to take it");
}

#[test]
fn a_wrong_setting_of_the_relay_exits_with_2_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("posthouse.toml");
    std::fs::write(&config, "lisen = '127.0.0.1:1'").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["run", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("lisen"), "{}", stderr(&output));
}

#[test]
fn what_is_wrong_in_an_environment_variable_is_named_with_it() {
    let run = |arguments: &[&str], variable: &str, value: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_posthouse"));
        let output = command.args(arguments).env(variable, value).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    for (variable, value, right) in [
        ("POSTHOUSE_LISTEN", "localhost:4433", "no IP address with a port"),
        ("POSTHOUSE_ADVERTISE", "[::]:4433", "leads nowhere"),
        ("POSTHOUSE_DATA", "", "a value is required"),
        ("POSTHOUSE_LOG", "verbose", "no level"),
        ("POSTHOUSE_LOG_FORMAT", "xml", "text, json"),
    ] {
        let (code, said) = run(&["run"], variable, value);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(right) && said.contains(&format!("environment variable {variable}")), "{said}");
    }
    let (code, said) = run(&["run", "--listen=localhost:1"], "POSTHOUSE_LISTEN", "127.0.0.1:1");
    assert!(code == Some(2) && !said.contains("POSTHOUSE_LISTEN"), "the flag is wrong, not the variable: {said}");
    let (code, said) = run(&["status", "--data", "/nowhere"], "POSTHOUSE_LISTEN", "localhost:1");
    assert_eq!(code, Some(1), "a status has nothing to do with where the relay listens: {said}");
}
