//! What the applications of a run saw, as one file that they all write to; and the oracle that reads it.
//!
//! Each entry is one write to a file that is only appended to, so what is written survives a kill -9, and the order of
//! the file is the order in which things happened, whichever process they happened to.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Something that an application saw. A pair is a sender and its recipient; a number says which message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A recipient begins to read.
    Reading { pair: usize },
    /// A sender begins to send, from this number on.
    Sending { pair: usize, first: u64 },
    /// `send` returned.
    Queued { pair: usize, number: u64, id: String },
    /// A message was handed to its recipient, which has not answered yet.
    Got { pair: usize, number: u64, id: String },
    /// The answer's call returned.
    Answered { pair: usize, id: String },
    /// The sender was told what became of a message.
    Told { pair: usize, id: String, outcome: String },
    /// Another session took over: that of the same peer's life before, whose greeting was still on its way.
    Superseded,
}

/// Outcomes.
pub(super) const DELIVERED: &str = "delivered";
pub(super) const REFUSED: &str = "refused";
/// Refused, and taken perhaps at another store that it may have been offered to.
pub(super) const PERHAPS: &str = "refused, perhaps taken";

/// What a recipient does with a message of this number, which its sender has to be told.
pub(super) const fn fate(number: u64) -> &'static str {
    if number % 16 == 15 { REFUSED } else { DELIVERED }
}

/// Where a process writes what it sees.
pub(super) struct Pen(File);

impl Pen {
    pub(super) fn new(record: &Path) -> Self {
        Self(File::options().create(true).append(true).open(record).unwrap())
    }

    pub(super) fn write(&self, entries: &[Entry]) {
        // A kill may cut a write off. The next one begins a line of its own.
        let mut lines = String::from("\n");
        for entry in entries {
            lines += &serde_json::to_string(entry).unwrap();
            lines.push('\n');
        }
        (&self.0).write_all(lines.as_bytes()).unwrap();
    }
}

/// Reads the record while it grows, and holds it to the promises.
pub(super) struct Oracle {
    record: File,
    rest: Vec<u8>,
    pub(super) pairs: Vec<Pair>,
    pub(super) superseded: usize,
}

impl Oracle {
    pub(super) fn new(record: &Path, pairs: usize) -> Self {
        drop(Pen::new(record));
        let pairs = (0..pairs).map(|_| Pair::default()).collect();
        Self { record: File::open(record).unwrap(), rest: Vec::new(), pairs, superseded: 0 }
    }

    /// Reads on as far as has been written.
    pub(super) fn read(&mut self) {
        self.record.read_to_end(&mut self.rest).unwrap();
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        // What was cut off was not said.
        for entry in lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
            self.note(entry);
        }
    }

    fn note(&mut self, entry: Entry) {
        match entry {
            Entry::Reading { pair } => self.pairs[pair].here = None,
            Entry::Sending { pair, first } => self.pairs[pair].life_from = first,
            Entry::Queued { pair, number, id } => self.pairs[pair].queued(number, id),
            Entry::Got { pair, number, id } => self.pairs[pair].got(number, id),
            Entry::Answered { pair, id } => drop(self.pairs[pair].answered.insert(id)),
            Entry::Told { pair, id, outcome } => self.pairs[pair].told(id, outcome),
            Entry::Superseded => self.superseded += 1,
        }
    }
}

/// What is known of one sender's messages to one recipient.
#[derive(Default)]
pub(super) struct Pair {
    /// What was sent for certain and has no outcome yet.
    open: BTreeSet<String>,
    /// What was sent for certain.
    pub(super) sent: usize,
    /// What the recipient was handed, over all of its lives.
    handed: HashMap<String, u64>,
    /// The highest number among it, and the last one of this life.
    highest: Option<u64>,
    here: Option<u64>,
    /// What the recipient's application was told to be answered, or the sender's to be over.
    answered: HashSet<String>,
    told: HashMap<String, String>,
    /// The first number of the sender's life, and of the life that was first told anything.
    life_from: u64,
    sure_from: Option<u64>,
    /// Messages that were handed out once more, since their recipient died before their answer was durable.
    pub(super) again: usize,
}

impl Pair {
    fn queued(&mut self, number: u64, id: String) {
        assert!(self.open.insert(id), "{number} is sent twice");
        self.sent += 1;
    }

    fn got(&mut self, number: u64, id: String) {
        assert!(!self.answered.contains(&id), "{number} comes again, and was answered or over");
        assert!(self.here.is_none_or(|last| last < number), "{number} comes after {:?}", self.here);
        self.here = Some(number);
        match self.handed.insert(id, number) {
            Some(before) => {
                assert_eq!(before, number, "an id names two messages");
                self.again += 1;
            }
            None => {
                let highest = self.highest.replace(number);
                assert!(highest.is_none_or(|highest| highest < number), "{number} comes, and {highest:?} came before");
            }
        }
    }

    fn told(&mut self, id: String, outcome: String) {
        let number =
            self.handed.get(&id).unwrap_or_else(|| panic!("{outcome} is told of what its recipient never had"));
        let sure_from = *self.sure_from.get_or_insert(self.life_from);
        // A sender that dies before it has noted its relay's store cannot know that it offered nothing to another one.
        let may_be = outcome == PERHAPS && *number < sure_from && fate(*number) == REFUSED;
        assert!(may_be || outcome == fate(*number), "{outcome} is told of {number}, which was {}", fate(*number));
        self.open.remove(&id);
        self.answered.insert(id.clone());
        let before = self.told.insert(id, outcome.clone());
        assert!(before.is_none_or(|before| before == outcome), "another outcome of {number}");
    }

    /// How many messages have been handed out.
    pub(super) fn came(&self) -> usize {
        self.handed.len()
    }

    /// How many are sent for certain, and have no outcome yet.
    pub(super) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// All is over: everything that was sent, or came, has its outcome.
    pub(super) fn end(&self) {
        assert!(self.open.is_empty(), "{} messages have no outcome", self.open.len());
        let untold = self.handed.keys().filter(|id| !self.told.contains_key(*id)).count();
        assert_eq!(untold, 0, "messages came of whose outcome nobody was told");
    }
}
