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
    pub(crate) senders: usize,
    pub(crate) recipients: Vec<(Reading, usize)>,
    pub(crate) messages: usize,
    pub(crate) window: usize,
    /// One step in so many at which something could be sent, it is.
    pub(crate) spread: usize,
    /// Before the faults stop.
    pub(crate) steps: usize,
    pub(crate) faults: Vec<Fault>,
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
        let reading = |chance: &mut Chance| match chance.below(4) {
            0 => (Reading::AtOnce, 1 + chance.below(4)),
            _ => (Reading::InOrder, 1 + chance.below(4)),
        };
        Self {
            senders: 1 + chance.below(2),
            recipients: (0..recipients).map(|_| reading(chance)).collect(),
            messages: 1 + chance.below(10),
            window: chance.pick(&[1, 2, 3, 8]),
            spread: chance.pick(&[1, 5, 20]),
            steps: 30 + chance.below(chance.clone().pick(&[60, 150, 400])),
            faults,
            fault_percent: 1 + chance.below(15),
            short_percent: chance.pick(&[0, 0, 20, 60]),
            nobody_percent: chance.pick(&[0, 0, 0, 30]),
            refuse_percent: chance.pick(&[0, 0, 20]),
        }
    }
}
