//! The examples that people copy do what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use super::program::{Peer, Relay, example};

/// A running example, ended with the test.
struct Example(Child);

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    /// The first line that it prints, and the rest to be read.
    fn first_line(&mut self) -> (String, BufReader<std::process::ChildStdout>) {
        let mut output = BufReader::new(self.0.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        (line.trim_end().to_owned(), output)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn an_embedded_relay_keeps_a_message_for_somebody_who_comes_later() {
    let output = Command::new(example("embedded_relay")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines =
        ["alice wrote", "bob comes; 1 message waits", "bob reads \"hello, bob\"", "alice knows that bob has it"];
    let mut rest = &*shown;
    for line in lines {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("no {line:?}, in this order: {shown}")).1;
    }
}

#[test]
fn an_echo_bot_answers_everybody_and_refuses_what_is_empty_also_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let home = directory.path().join("bot");
    let start = || Example::start("echo_bot", &[&relay.address, home.to_str().unwrap()]);
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let mut bot = start();
    let (address, _) = bot.first_line();
    let sent = alice.run(&["send", "--to", &address, "hello", ""]);
    assert_eq!(sent.status.code(), Some(3), "one of them is rejected");
    let told = String::from_utf8(sent.stdout).unwrap();
    assert!(told.contains("there is nothing to echo") || told.contains("\"rejected\""), "{told}");
    drop(bot);
    let sent = alice.run(&["send", "--until", "accepted", "--to", &address, "again"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let _bot = start();
    let recv = alice.start(&["recv", "--max", "2"]);
    let bodies: Vec<_> = (0..2).map(|_| recv.expect("message")["body"].as_str().unwrap().to_owned()).collect();
    assert!(bodies[0].ends_with(": hello") && bodies[1].ends_with(": again"), "{bodies:?}");
}

#[test]
fn an_offline_reader_shows_the_most_recent_first_and_leaves_what_was_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let home = directory.path().join("reader");
    let start = || Example::start("offline_reader", &[&relay.address, home.to_str().unwrap()]);
    let (address, _) = start().first_line();
    let lines: Vec<String> = (0..25).map(|number| format!("message {number}")).collect();
    let alice = Peer::new(directory.path().join("alice"), &relay);
    let input = (lines.join("\n") + "\n").into_bytes();
    let sender = alice.start_with_input(&["send", "--until", "accepted", "--to", &address], input);
    while sender.next().is_some() {}

    // Two screens, and away again.
    let read = |returns: &str| {
        let mut reader = start();
        reader.0.stdin.take().unwrap().write_all(returns.as_bytes()).unwrap();
        let (_, mut output) = reader.first_line();
        let mut shown = String::new();
        output.read_to_string(&mut shown).unwrap();
        assert!(reader.0.wait().unwrap().success());
        shown
    };
    let shown = read("\n");
    assert!(shown.starts_with("25 messages wait, of 1 senders"), "{shown}");
    let bodies = |shown: &str| -> Vec<String> {
        let bodies = shown.lines().filter_map(|line| line.split_once("  message "));
        bodies.map(|(_, number)| format!("message {number}")).collect()
    };
    let newest_first: Vec<String> = lines.iter().rev().cloned().collect();
    assert_eq!(bodies(&shown), newest_first[..20], "{shown}");
    assert!(shown.contains("5 older ones"), "{shown}");
    assert_eq!(bodies(&read("")), newest_first[20..]);
}
