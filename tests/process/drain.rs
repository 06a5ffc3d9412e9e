//! A long backlog is drained while recipient and relay are killed at random moments.
//!
//! `DRAIN_MESSAGES` and `DRAIN_KILLS` set how much and how often, `DRAIN_SEED` when.

use std::time::Instant;

use serde_json::Value;

use super::program::{PATIENCE, Peer, Program, Relay};

/// What a recipient prints before it waits for the disk: as many may be printed again after a kill.
const IN_HAND: usize = 256;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// What the recipient's lives print: of each sender, how far its lines have come.
struct Printed {
    lines: u64,
    /// Of each sender the next line, over all lives; and where this life stands, once it has printed any.
    next: [u64; 2],
    here: [Option<u64>; 2],
    repeated: usize,
    repeated_here: usize,
}

impl Printed {
    fn begin_life(&mut self) {
        (self.here, self.repeated_here) = ([None; 2], 0);
    }

    fn note(&mut self, event: &Value) {
        if event["event"] != "message" {
            return;
        }
        let (sender, number) = event["body"].as_str().unwrap().split_once(' ').unwrap();
        let sender: usize = sender.parse().unwrap();
        let number: u64 = number.parse().unwrap();
        let (next, here) = (&mut self.next[sender], &mut self.here[sender]);
        match here.replace(number + 1) {
            Some(expected) => assert_eq!(number, expected, "one life sees each line once, in order"),
            None => assert!(number <= *next, "{number} came, and {next} is missing"),
        }
        if number < *next {
            self.repeated_here += 1;
            self.repeated += 1;
            assert!(self.repeated_here <= IN_HAND, "more is repeated than was in hand");
        }
        *next = (*next).max(number + 1);
    }

    fn drain(&mut self, program: &Program) {
        while let Some(event) = program.try_next() {
            self.note(&event);
        }
    }

    fn count(&self) -> u64 {
        self.next.iter().sum()
    }

    fn is_complete(&self) -> bool {
        self.next == [self.lines; 2]
    }
}

#[test]
fn a_backlog_arrives_whole_whoever_is_killed_while_it_is_drained() {
    let (messages, kills) = (setting("DRAIN_MESSAGES", 4000), setting("DRAIN_KILLS", 6));
    let mut random = setting("DRAIN_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut chance = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) % below
    };
    let directory = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(directory.path());
    let bob = Peer::new(directory.path().join("bob"), &relay);
    let to = bob.address();
    // From now on bob has a mailbox of the whole size, of which each sender may fill half.
    assert!(bob.run(&["count"]).status.success());
    let lines = messages / 2;
    let senders: Vec<Peer> = (0..2).map(|n| Peer::new(directory.path().join(format!("sender{n}")), &relay)).collect();
    for (number, sender) in senders.iter().enumerate() {
        let text: String = (0..lines).map(|line| format!("{number} {line}\n")).collect();
        let mut program = sender.start_with_input(&["send", "--until", "accepted", "--to", &to], text.into_bytes());
        while program.next().is_some() {}
        assert!(program.wait().success(), "{}", program.errors.lock().unwrap());
    }

    let mut printed = Printed { lines, next: [0; 2], here: [None; 2], repeated: 0, repeated_here: 0 };
    let mut receiver = bob.start(&["recv"]);
    let (mut killed, mut begin) = ([0, 0], Instant::now());
    let mut kill_at = chance(2 * messages / (kills + 1)) + 1;
    while !printed.is_complete() {
        assert!(begin.elapsed() < PATIENCE, "{} of {messages} came", printed.count());
        if printed.count() < kill_at {
            // Only what has come already: a kill is not to wait for the next line.
            match receiver.try_next() {
                Some(event) => {
                    printed.note(&event);
                    begin = Instant::now();
                }
                None => std::thread::sleep(std::time::Duration::from_micros(200)),
            }
            continue;
        }
        if chance(2) == 0 {
            killed[0] += 1;
            relay.kill();
            relay.start_again();
        } else {
            killed[1] += 1;
            receiver.kill();
            printed.drain(&receiver);
            printed.begin_life();
            receiver = bob.start(&["recv"]);
        }
        let again = killed[0] + killed[1] < kills;
        kill_at = if again { printed.count() + chance(2 * messages / (kills + 1)) + 1 } else { u64::MAX };
    }
    drop(receiver);

    // Nothing is left, and nothing comes again but what the last recipient had printed and not yet taken.
    let mut last = bob.start(&["recv", "--idle", "1s"]);
    printed.begin_life();
    while let Some(event) = last.next() {
        printed.note(&event);
    }
    assert!(last.wait().success(), "{}", last.errors.lock().unwrap());
    let count: Value = serde_json::from_slice(&bob.run(&["count"]).stdout).unwrap();
    assert_eq!(count["total"], 0);
    for sender in &senders {
        let mut program = sender.start_with_input(&["send", "--to", &to], Vec::new());
        let mut delivered = 0;
        while let Some(event) = program.next() {
            match event["event"].as_str().unwrap() {
                "delivered" => delivered += 1,
                other => assert_eq!(other, "accepted", "an earlier run may not have said so"),
            }
        }
        assert!(program.wait().success(), "{}", program.errors.lock().unwrap());
        assert_eq!(delivered, lines, "every outcome reaches its sender");
    }
    let [relays, receivers] = killed;
    println!(
        "{messages} messages, {relays} kills of the relay, {receivers} of the recipient, {} repeated",
        printed.repeated
    );
}
