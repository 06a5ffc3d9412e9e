//! What a seed makes of the world: who is there, how much is sent, and which faults may happen.

use super::chance::Chance;
use super::relay::Reading;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A connection is lost.
    Hangup,
    /// A client's process ends and begins again.
    CrashClient,
    CrashRelay,
    /// The relay is put back from an older copy.
    RestoreRelay,
    /// The relay's disk is empty after a crash.
    LoseRelay,
    /// A sender is put back from an older copy.
    RestoreSender,
    /// The relay has no room for a while.
    Full,
    /// The relay refuses messages for good for a while.
    Refuse,
    /// The relay loses a request between receipt and commit.
    LoseOperation,
    /// A long time passes, and no connection survives it.
    Sleep,
    /// A timer runs out while something else could happen. In a plan of its own; otherwise it is no fault.
    Wait,
}

const ALL: [Fault; 10] = [
    Fault::Hangup,
    Fault::CrashClient,
    Fault::CrashRelay,
    Fault::RestoreRelay,
    Fault::LoseRelay,
    Fault::RestoreSender,
    Fault::Full,
    Fault::Refuse,
    Fault::LoseOperation,
    Fault::Sleep,
];

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) relays: usize,
    /// The relay of each.
    pub(crate) senders: Vec<usize>,
    /// The relay of each, how it reads, and its credit.
    pub(crate) recipients: Vec<(usize, Reading, usize)>,
    pub(crate) messages: usize,
    pub(crate) window: usize,
    /// One step in so many at which something could be sent, it is.
    pub(crate) spread: usize,
    /// What a relay makes durable at once.
    pub(crate) most_committed: usize,
    /// Before the faults stop.
    pub(crate) steps: usize,
    pub(crate) faults: Vec<Fault>,
    /// One step in so many times a timer runs out while something else could happen; 0 for never.
    pub(crate) early_timers: usize,
    /// How many of a hundred steps are faults.
    pub(crate) fault_percent: usize,
    /// Messages, of a hundred, that live for seconds only.
    pub(crate) short_percent: usize,
    /// Messages, of a hundred, that go to nobody.
    pub(crate) nobody_percent: usize,
    /// Answers of the application, of a hundred, that are refusals.
    pub(crate) refuse_percent: usize,
}

impl Plan {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let count = 1 + chance.below(4);
        let faults = (0..count).map(|_| chance.pick(&ALL)).collect();
        let recipients = 1 + chance.below(2);
        let relays = 1 + chance.below(2);
        let reading = |chance: &mut Chance| {
            let reading = if chance.one_in(4) { Reading::AtOnce } else { Reading::InOrder };
            (chance.below(relays), reading, 1 + chance.below(4))
        };
        Self {
            relays,
            senders: (0..1 + chance.below(2)).map(|_| chance.below(relays)).collect(),
            recipients: (0..recipients).map(|_| reading(chance)).collect(),
            messages: 1 + chance.below(10),
            window: chance.pick(&[1, 2, 3, 8]),
            spread: chance.pick(&[1, 5, 20]),
            most_committed: 4,
            steps: 30 + chance.below(chance.clone().pick(&[60, 150, 400])),
            faults,
            early_timers: 25,
            fault_percent: 1 + chance.below(15),
            short_percent: chance.pick(&[0, 0, 20, 60]),
            nobody_percent: chance.pick(&[0, 0, 0, 30]),
            refuse_percent: chance.pick(&[0, 0, 20]),
        }
    }
}

/// Small cases, of which every interleaving is visited.
pub(crate) fn cases() -> Vec<(&'static str, Plan)> {
    let case = |messages, relays: usize, faults: &[Fault]| Plan {
        relays,
        senders: vec![0],
        recipients: vec![(relays - 1, Reading::InOrder, 2)],
        messages,
        window: 2,
        spread: 1,
        most_committed: 1,
        steps: 0,
        faults: faults.to_vec(),
        early_timers: 0,
        fault_percent: 0,
        short_percent: 0,
        nobody_percent: 0,
        refuse_percent: 0,
    };
    vec![
        ("one message", case(1, 1, &[])),
        ("two messages", case(2, 1, &[])),
        ("one message, a lost connection", case(1, 1, &[Fault::Hangup])),
        ("one message, a client crashes", case(1, 1, &[Fault::CrashClient])),
        ("one message, the relay crashes", case(1, 1, &[Fault::CrashRelay])),
        ("one message, the relay loses its disk", case(1, 1, &[Fault::LoseRelay])),
        ("one message, the relay is put back", case(1, 1, &[Fault::RestoreRelay, Fault::RestoreRelay])),
        ("one message, the sender is put back", case(1, 1, &[Fault::RestoreSender, Fault::RestoreSender])),
        ("one message, a timer runs out early", case(1, 1, &[Fault::Wait])),
        ("one message through two relays", case(1, 2, &[])),
    ]
}
