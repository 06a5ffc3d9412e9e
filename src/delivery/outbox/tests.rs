//! The outbox, rule by rule: a rig that plays relay and shell in a few letters, and the rules by subject.
//!
//! A message is written as its lane's letter and its number, `a1`; lanes are lettered as they are opened. What
//! is sent reads `a2<1`: number 2 of lane a, naming 1 as the last one at the relay.

mod answer;
mod forward;
mod place;
mod session;
mod time;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Effect, Entry, Outbox, OutboxOptions, Receipt, Request, Restored};
use crate::id::{LaneId, LaneKey, MessageId, Pair, PeerId, StoreId};
use crate::protocol::{
    AckN, Answer, CloseA, Durability, Exception, LaneState, MsgA, Outcome, RejectReason, Verdict, WaitReason, WhereA,
    WireError,
};
use crate::ranges::Ranges;
use crate::time::Moment;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

const EXPIRED: Verdict = Verdict::here(Outcome::Expired { maybe_taken: false });
const REFUSED: Verdict = rejected(RejectReason::Blocked);

const fn rejected(reason: RejectReason) -> Verdict {
    Verdict::here(Outcome::Rejected { reason, text: None, maybe_taken: false })
}

const fn store(byte: u8) -> StoreId {
    StoreId([byte; 16])
}

fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

/// The pair of the one sender and this recipient.
fn pair(recipient: u8) -> Pair {
    Pair { sender: peer(0), recipient: peer(recipient) }
}

fn options() -> OutboxOptions {
    OutboxOptions { silence_grace: 100 * SECOND, ..OutboxOptions::new(peer(0)) }
}

/// A message's name, such as `a1`.
fn name(lane: LaneKey, n: u64) -> String {
    format!("{}{n}", (b'a' + lane.lane.0 as u8) as char)
}

struct Rig {
    outbox: Outbox,
    now: Moment,
    next_lane: u64,
    keys: Vec<String>,
    bytes: usize,
    /// Every request under which a message was offered.
    requests: BTreeMap<String, Vec<u64>>,
    asked: VecDeque<u64>,
    closed: VecDeque<u64>,
    receipts: BTreeMap<String, Receipt>,
}

impl Rig {
    /// A fresh outbox that has never seen a relay.
    fn new() -> Self {
        Self::open(None, [])
    }

    /// An outbox opened with these messages, to recipient 1, all but the last of lanes a, b, ... in turn.
    fn open(known: Option<StoreId>, messages: impl IntoIterator<Item = Restored>) -> Self {
        let mut keys = Vec::new();
        let messages = messages.into_iter().inspect(|message| keys.push(name(message.entry.lane, message.entry.n)));
        let outbox = Outbox::open(options(), known, messages);
        Self::around(outbox, keys)
    }

    fn around(outbox: Outbox, keys: Vec<String>) -> Self {
        Self {
            outbox,
            now: Moment::from_origin(1000 * SECOND),
            next_lane: keys.iter().map(|name| u64::from(name.as_bytes()[0] - b'a') + 1).max().unwrap_or(0),
            keys,
            bytes: 100,
            requests: BTreeMap::new(),
            asked: VecDeque::new(),
            closed: VecDeque::new(),
            receipts: BTreeMap::new(),
        }
    }

    /// A rig with so many messages to recipient 1 and a session, nothing sent yet.
    fn connected(messages: u64) -> Self {
        let mut rig = Self::new();
        rig.connect(1);
        for _ in 0..messages {
            rig.add(1, DAY);
        }
        rig
    }

    /// The same, with all of them sent.
    fn sending(messages: u64) -> Self {
        let mut rig = Self::connected(messages);
        assert_eq!(rig.out().len() as u64, messages);
        rig
    }

    fn assign(&mut self, recipient: u8, life: Duration) -> Entry {
        let (lane, n) = self.outbox.assign(pair(recipient), LaneId(self.next_lane));
        self.next_lane = self.next_lane.max(lane.lane.0 + 1);
        let key = self.keys.len() as u64;
        self.keys.push(name(lane, n));
        Entry { key, id: MessageId::new(key, &[0; 10]), lane, n, bytes: self.bytes, deadline: self.now + life }
    }

    fn add(&mut self, recipient: u8, life: Duration) {
        let entry = self.assign(recipient, life);
        self.outbox.add(entry);
    }

    /// Begins a session with this store behind it; what is to be remembered is.
    fn connect(&mut self, store_byte: u8) {
        self.outbox.connect(store(store_byte), Durability::Disk);
        let told = self.told();
        if told.iter().any(|effect| effect.starts_with("remember")) {
            self.outbox.remembered();
        }
        self.requests.clear();
        self.asked.clear();
        self.closed.clear();
    }

    /// Everything that goes out now.
    fn out(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.out_one()).collect()
    }

    fn out_one(&mut self) -> Option<String> {
        Some(match self.outbox.poll_request(self.now)? {
            Request::Offer(offer) => {
                let name = self.keys[offer.key as usize].clone();
                let n: u64 = name[1..].parse().unwrap();
                assert!(offer.prev < n, "{name} names {} as the one before it", offer.prev);
                self.requests.entry(name.clone()).or_default().push(offer.request);
                format!("{name}<{}", offer.prev)
            }
            Request::Ask(ask) => {
                assert!(!ask.lanes.is_empty(), "a question about nothing");
                self.asked.push_back(ask.request);
                let lanes = ask.lanes.iter();
                let lanes = lanes.map(|ask| format!("{}-{}", name(ask.lane.key(peer(0)), ask.from), ask.to));
                format!("where {}", lanes.collect::<Vec<_>>().join(" "))
            }
            Request::Close(close) => {
                assert!(!close.lanes.is_empty(), "a close of nothing");
                self.closed.push_back(close.request);
                let lanes = close.lanes.iter().map(|lane| name(lane.key(peer(0)), 0)[..1].to_owned());
                format!("close {}", lanes.collect::<Vec<_>>().join(" "))
            }
        })
    }

    /// Everything there is to do now.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(effect) = self.outbox.poll_effect() {
            told.push(match effect {
                Effect::Remember(store) => format!("remember {}", store.0[0]),
                Effect::Accepted { key, duplicate: false, .. } => format!("accepted {}", self.keys[key as usize]),
                Effect::Accepted { key, .. } => format!("duplicate {}", self.keys[key as usize]),
                Effect::Held { lane, .. } => format!("held {}", &name(lane, 0)[..1]),
                Effect::Silent => "silent".to_owned(),
                Effect::Resolved { lane, n, verdict, receipt, key, .. } => {
                    let name = name(lane, n);
                    assert_eq!(self.keys[key as usize], name);
                    self.receipts.insert(name.clone(), receipt);
                    let (what, maybe) = match verdict.outcome {
                        Outcome::Delivered => ("delivered", false),
                        Outcome::Expired { maybe_taken } => ("expired", maybe_taken),
                        Outcome::Rejected { maybe_taken, .. } => ("rejected", maybe_taken),
                    };
                    format!("{what}{} {name}", if maybe { "?" } else { "" })
                }
            });
        }
        told
    }

    /// The outcome of this message is on disk.
    fn persist(&mut self, name: &str) {
        self.told();
        let receipt = self.receipts.remove(name).unwrap();
        self.outbox.persisted(receipt);
    }

    fn request(&self, name: &str) -> u64 {
        *self.requests[name].last().unwrap()
    }

    fn answer(&mut self, request: u64, answer: Answer) -> Result<(), WireError> {
        self.outbox.on_msg_a(self.now, MsgA { request, count: 1, answer })
    }

    /// The relay's answer to the newest copy of this message.
    fn answers(&mut self, name: &str, answer: Answer) {
        self.answer(self.request(name), answer).unwrap();
    }

    fn accept(&mut self, name: &str) {
        self.answers(name, accepted(false, None));
    }

    fn gap(&mut self, name: &str, last: u64) {
        self.answers(name, Answer::Gap { last });
    }

    fn wait(&mut self, name: &str, time: Duration) {
        self.answers(name, waits(time));
    }

    /// The relay's rows, in answer to the oldest question.
    fn rows(&mut self, lanes: Vec<LaneState>) {
        let request = self.asked.pop_front().unwrap();
        self.outbox.on_where_a(self.now, WhereA { request, lanes }).unwrap();
    }

    fn closes(&mut self) {
        let request = self.closed.pop_front().unwrap();
        self.outbox.on_close_a(&CloseA { request }).unwrap();
    }

    /// ACK:N about one number of lane a.
    fn outcome(&mut self, n: u64, verdict: Verdict) {
        let (mut delivered, mut exceptions) = (Ranges::new(), vec![]);
        match verdict {
            Verdict::DELIVERED => drop(delivered.insert(n)),
            verdict => exceptions.push(Exception { from: n, to: n, verdict }),
        }
        self.outbox.on_ack_n(&AckN { sender: None, recipient: peer(1), lane: LaneId(0), delivered, exceptions });
    }

    /// Lets time pass, each timer at its own time.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.outbox.next_timeout().filter(|next| *next <= until) {
            assert!(next >= self.now || self.outbox.next_timeout().is_some());
            self.now = self.now.max(next);
            self.outbox.on_timeout(self.now);
            assert!(self.outbox.next_timeout() != Some(next), "a timer that never stops");
        }
        self.now = until;
    }
}

fn accepted(duplicate: bool, verdict: Option<Verdict>) -> Answer {
    Answer::Accepted { durability: Durability::Disk, duplicate, ttl_ms: None, verdict }
}

fn waits(time: Duration) -> Answer {
    Answer::Wait { reason: WaitReason::Quota, retry_after_ms: time.as_millis() as u64 }
}

/// A row of which only the last number matters.
fn row(last: u64) -> LaneState {
    LaneState { last, upto: 1000, delivered: Ranges::new(), exceptions: vec![] }
}

/// A message of lane `lane` to recipient 1 as an earlier run left it.
fn left(key: u64, lane: u64, n: u64) -> Restored {
    let lane = LaneKey { pair: pair(1), lane: LaneId(lane) };
    let deadline = Moment::from_origin(1000 * SECOND) + DAY;
    let entry = Entry { key, id: MessageId::new(key, &[0; 10]), lane, n, bytes: 100, deadline };
    Restored { entry, foreign: false }
}

fn set(items: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    items.into_iter().collect()
}
