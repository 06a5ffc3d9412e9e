//! The sender's half of the promise: every message it holds is offered until its outcome is known.
//!
//! The machine of a client and of a relay that forwards alike. It holds no bodies, only what it has to decide
//! by; the shell keeps the messages and fetches one when it is [offered](Offer).
//!
//! How the shell drives it, in this order: `open` once; [`add`](Outbox::add) what has become durable;
//! [`connect`](Outbox::connect) and [`disconnect`](Outbox::disconnect) with each session; `on_*` for what the
//! relay says and when [`next_timeout`](Outbox::next_timeout) has come; after each of these, carry out all of
//! [`poll_effect`](Outbox::poll_effect), then send what [`poll_request`](Outbox::poll_request) gives for as
//! long as there is room on the stream.
//!
//! Rules that look like details and are not (docs/PROTOCOL.md, "Sending" and "Outcomes"):
//! - a lane is never kept over an opening, except to finish what it holds;
//! - nothing goes out on a lane before the relay's answer to R:WHERE, if the lane held anything;
//! - a lane waits for every older one of its pair that holds something unanswered or unaccepted;
//! - a number given up is durable before a later one goes out past it;
//! - a message that was also offered to another store may have been taken there.

mod answer;
mod effect;
mod lane;
mod send;
mod session;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use effect::{Effect, Entry, Offer, Receipt, Request, Restored};
use lane::{Item, Known, Lane, Pace};
use session::{Flight, Session};

use super::retry::RoundTrip;
use crate::id::{LaneId, LaneKey, Pair, PeerId, RelayId, StoreId};
use crate::mutant::Mutant;
use crate::protocol::limit::{SILENCE_GRACE, WINDOW_BYTES, WINDOW_MESSAGES};
use crate::protocol::{AckN, CloseA, Durability, FrameType, LaneRef, MsgA, Verdict, WhereA, WireError};
use crate::time::Moment;

/// Timeouts in a row after which the session is given up: a relay that answers nothing is as good as gone.
const SILENT_AFTER: u32 = 4;

/// Requests that may be unanswered for every one of the window: those that were given up and sent anew.
const REPEATS_KEPT: usize = 8;

/// What a shell may turn.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    /// Who submits: the peer itself, or the relay that forwards.
    pub submitter: PeerId,
    /// MSG:R that may wait for MSG:A.
    pub window_messages: usize,
    /// Their bytes; one message may always go.
    pub window_bytes: usize,
    /// The shortest and the longest time to wait for MSG:A before it is sent again.
    pub answer_timeout: (Duration, Duration),
    /// How long after its time a message that was offered still waits for a silent relay's word.
    pub silence_grace: Duration,
    /// The relay that outcomes are from, where that is not the one that tells them here.
    pub names: Option<RelayId>,
    /// Lanes are others': they are kept, with nothing in them, until the outbox retires.
    pub keeps_lanes: bool,
}

impl OutboxOptions {
    /// The defaults of docs/PROTOCOL.md, "Limits" and "Timers".
    #[must_use]
    pub const fn new(submitter: PeerId) -> Self {
        Self {
            submitter,
            window_messages: WINDOW_MESSAGES,
            window_bytes: WINDOW_BYTES,
            answer_timeout: (Duration::from_secs(1), Duration::from_secs(30)),
            silence_grace: SILENCE_GRACE,
            names: None,
            keeps_lanes: false,
        }
    }
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Outbox {
    options: OutboxOptions,
    lanes: BTreeMap<u64, Lane>,
    by_key: BTreeMap<LaneKey, u64>,
    /// The lanes of each pair, the oldest first.
    pairs: BTreeMap<Pair, Vec<u64>>,
    next_lane: u64,
    store: Option<StoreId>,
    /// Stores on their way to the disk: those of all sessions, since one may be replaced meanwhile.
    remembering: usize,
    session: Option<Session>,
    round_trip: RoundTrip,
    ready: VecDeque<u64>,
    holds: BTreeSet<(Moment, u64)>,
    deadlines: BTreeSet<(Moment, u64, u64)>,
    effects: VecDeque<Effect>,
    messages: usize,
}

impl Outbox {
    /// Opens an outbox that holds `messages`, in the order in which they once entered, and that last spoke to
    /// `store`. All of them count as offered, to that store or else to an unknown one.
    #[must_use]
    pub fn open(options: OutboxOptions, store: Option<StoreId>, messages: impl IntoIterator<Item = Restored>) -> Self {
        let round_trip = RoundTrip::new(options.answer_timeout.0, options.answer_timeout.1);
        let mut outbox = Self {
            options,
            lanes: BTreeMap::new(),
            by_key: BTreeMap::new(),
            pairs: BTreeMap::new(),
            next_lane: 0,
            store,
            remembering: 0,
            session: None,
            round_trip,
            ready: VecDeque::new(),
            holds: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            effects: VecDeque::new(),
            messages: 0,
        };
        for message in messages {
            outbox.restore(message);
        }
        outbox
    }

    /// How many messages have no outcome yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.messages
    }

    /// How many messages the relay is not known to hold.
    #[must_use]
    pub fn unaccepted(&self) -> usize {
        self.lanes.values().map(|lane| lane.unaccepted).sum()
    }

    /// Whether every message has its outcome.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Gives a new message its place. `fresh` becomes the lane's id if this opening has none for the pair yet.
    pub fn assign(&mut self, pair: Pair, fresh: LaneId) -> (LaneKey, u64) {
        let current = self.pairs.get(&pair).and_then(|lanes| lanes.last().copied());
        let number = match current {
            Some(number) if self.lanes.get(&number).is_some_and(|lane| lane.next.is_some()) => number,
            _ => self.open_lane(LaneKey { pair, lane: fresh }, Some(1)),
        };
        let Some(lane) = self.lanes.get_mut(&number) else { return (LaneKey { pair, lane: fresh }, 1) };
        let n = lane.next.unwrap_or(1);
        lane.next = Some(n + 1);
        (lane.key, n)
    }

    /// A message has become durable and may be offered.
    pub fn add(&mut self, entry: Entry) {
        let number = self.insert(entry, false, false);
        self.wake(number);
    }

    /// A message that was there when the outbox was opened, as [`open`](Self::open) takes them. Only before the
    /// first session.
    pub fn restore(&mut self, message: Restored) {
        let number = self.insert(message.entry, true, message.foreign || self.store.is_none());
        if Mutant::LaneKeptOverReopening.is_planted()
            && let Some(lane) = self.lanes.get_mut(&number)
        {
            lane.next = Some(message.entry.n + 1);
        }
    }

    /// Lanes that are kept.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// No lane of this opening will be used again: what is resolved is closed, now and later.
    pub fn retire(&mut self) {
        let all = self.lanes.keys().copied().collect();
        self.give_up_lanes(all);
    }

    /// The lanes that hold nothing are closed. Another message of theirs opens them anew.
    pub fn retire_idle(&mut self) {
        let idle = self.lanes.iter().filter(|(_, lane)| lane.items.is_empty()).map(|(number, _)| *number);
        let idle = idle.collect();
        self.give_up_lanes(idle);
    }

    fn give_up_lanes(&mut self, numbers: Vec<u64>) {
        for number in numbers {
            if let Some(lane) = self.lanes.get_mut(&number) {
                lane.next = None;
            }
            self.close_if_over(number);
        }
    }

    /// Whether the relay has still to be told that lanes are over.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        let Some(session) = &self.session else { return false };
        !session.closes.is_empty() || session.flights.iter().any(|flight| matches!(flight, Some(Flight::Close { .. })))
    }

    /// A session began, with this store behind it.
    pub fn connect(&mut self, store: StoreId, durability: Durability) {
        self.disconnect();
        if self.store != Some(store) {
            for item in self.lanes.values_mut().flat_map(|lane| &mut lane.items) {
                item.foreign |= item.offered;
            }
            self.store = Some(store);
            self.remembering += 1;
            self.effects.push_back(Effect::Remember(store));
        }
        let mut session = Session {
            durability,
            next_request: 0,
            flights: VecDeque::new(),
            window_messages: 0,
            window_bytes: 0,
            asks: VecDeque::new(),
            closes: VecDeque::new(),
        };
        for (number, lane) in &mut self.lanes {
            lane.set_back(lane.base);
            (lane.late, lane.pace) = (0, Pace::Free);
            for item in &mut lane.items {
                (item.late, item.sent) = (false, false);
            }
            match (lane.items.front(), lane.items.back()) {
                (Some(first), Some(last)) if !Mutant::WhereSkipped.is_planted() => {
                    lane.known = Known::ToAsk;
                    session.asks.push_back((*number, first.n, last.n));
                }
                _ => lane.known = Known::Answered,
            }
            if lane.is_over() {
                session.closes.push_back(*number);
            }
        }
        self.session = Some(session);
    }

    /// One [`Effect::Remember`] is durable: to be called once for each, in their order.
    pub const fn remembered(&mut self) {
        self.remembering = self.remembering.saturating_sub(1);
    }

    /// The session is over; all that waits goes out again in the next one.
    pub fn disconnect(&mut self) {
        self.session = None;
        self.round_trip.reset();
        self.ready.clear();
        self.holds.clear();
        for lane in self.lanes.values_mut() {
            (lane.ready, lane.held) = (false, None);
        }
    }

    /// A resolution is durable.
    pub fn persisted(&mut self, receipt: Receipt) {
        if let Some(lane) = self.lanes.get_mut(&receipt.lane) {
            lane.unpersisted = lane.unpersisted.saturating_sub(1);
            lane.given_up = lane.given_up.saturating_sub(usize::from(receipt.gave_up));
        }
        self.close_if_over(receipt.lane);
        self.wake(receipt.lane);
    }

    /// What to do next, besides requests.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What to send next.
    pub fn poll_request(&mut self, now: Moment) -> Option<Request> {
        self.session.as_ref().filter(|_| self.remembering == 0)?;
        self.ask(now).or_else(|| self.close()).or_else(|| self.offer(now))
    }

    /// A polled request was not sent after all, because the shell has its message no longer: nothing is to be
    /// waited for. If it was not resolved here, somebody else has done so, durably: it is never offered again.
    pub fn withdraw(&mut self, request: u64) {
        // Its number is one that was made, so this cannot fail.
        let Ok(Some(Flight::Offer { lane: number, n, round, .. })) = self.answered(request, FrameType::MsgA) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&number).filter(|lane| lane.round == round) {
            lane.free_pace();
        }
        self.forget(number, n);
        self.wake(number);
    }

    /// MSG:A came.
    ///
    /// # Errors
    /// [`WireError::BadValue`] for an answer to what was never asked.
    pub fn on_msg_a(&mut self, now: Moment, message: MsgA) -> Result<(), WireError> {
        let first = message.request;
        for request in first..first.saturating_add(message.count) {
            match self.answered(request, FrameType::MsgA)? {
                Some(Flight::Offer { lane, n, round, at, counts, first, .. }) => {
                    if counts && first {
                        self.round_trip.sample(now - at);
                    }
                    self.on_answer(now, lane, n, round, message.answer.clone());
                }
                Some(_) => return Err(never_asked(FrameType::MsgA)),
                None => {}
            }
        }
        Ok(())
    }

    /// A:WHERE came.
    ///
    /// # Errors
    /// [`WireError::BadValue`] for an answer to what was never asked, or one that says nothing.
    pub fn on_where_a(&mut self, now: Moment, message: WhereA) -> Result<(), WireError> {
        let asked = match self.answered(message.request, FrameType::WhereA)? {
            Some(Flight::Ask { lanes, at }) => {
                self.round_trip.sample(now - at);
                lanes
            }
            Some(_) => return Err(never_asked(FrameType::WhereA)),
            None => return Ok(()),
        };
        let bad = |what| Err(WireError::BadValue { frame: FrameType::WhereA, what });
        if message.lanes.is_empty() || message.lanes.len() > asked.len() {
            return bad("as many rows as lanes were asked about, or fewer, but one");
        }
        let mut rows = message.lanes.into_iter();
        for (number, from, to) in asked {
            let rest = match rows.next() {
                Some(row) if row.upto < from => return bad("a row speaks of one number at least"),
                Some(row) if row.upto < to => {
                    self.judge(number, from, &row);
                    Some(row.upto + 1)
                }
                Some(row) => {
                    self.judge(number, from, &row);
                    self.located(number, row.last);
                    None
                }
                None => Some(from),
            };
            if let (Some(from), Some(session)) = (rest, &mut self.session) {
                session.asks.push_back((number, from, to));
            }
        }
        Ok(())
    }

    /// ACK:N came.
    pub fn on_ack_n(&mut self, message: &AckN) {
        let lane = LaneRef { sender: message.sender, recipient: message.recipient, lane: message.lane };
        let Some(number) = self.by_key.get(&lane.key(self.options.submitter)).copied() else { return };
        for (from, to) in message.delivered.iter() {
            let to = if Mutant::AckRangeOffByOne.is_planted() { to + 1 } else { to };
            self.resolve_range(number, from, to, &Verdict::DELIVERED);
        }
        for exception in &message.exceptions {
            self.resolve_range(number, exception.from, exception.to, &exception.verdict);
        }
    }

    /// A:CLOSE came.
    ///
    /// # Errors
    /// [`WireError::BadValue`] for an answer to what was never asked.
    pub fn on_close_a(&mut self, message: &CloseA) -> Result<(), WireError> {
        match self.answered(message.request, FrameType::CloseA)? {
            Some(Flight::Close { lanes }) => {
                for number in lanes {
                    self.drop_lane(number);
                }
                Ok(())
            }
            Some(_) => Err(never_asked(FrameType::CloseA)),
            None => Ok(()),
        }
    }

    /// When [`on_timeout`](Self::on_timeout) has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        let hold = self.holds.first().map(|(at, _)| *at);
        let deadline = self.deadlines.first().map(|(at, _, _)| *at);
        let answer = self.oldest_unanswered().map(|at| at + self.round_trip.timeout());
        [hold, deadline, answer].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: Moment) {
        while let Some((at, number)) = self.holds.first().copied().filter(|(at, _)| *at <= now) {
            self.holds.remove(&(at, number));
            if let Some(lane) = self.lanes.get_mut(&number) {
                lane.held = None;
            }
            self.wake(number);
        }
        while let Some((at, number, n)) = self.deadlines.first().copied().filter(|(at, ..)| *at <= now) {
            self.deadlines.remove(&(at, number, n));
            self.on_deadline(now, number, n);
        }
        if self.oldest_unanswered().is_some_and(|at| at + self.round_trip.timeout() <= now) {
            self.repeat_unanswered();
        }
    }
}

impl Outbox {
    fn open_lane(&mut self, key: LaneKey, next: Option<u64>) -> u64 {
        let number = self.next_lane;
        self.next_lane += 1;
        let lane = Lane {
            key,
            items: VecDeque::new(),
            next,
            base: 0,
            cursor: 0,
            known: Known::Answered,
            held: None,
            pace: Pace::Free,
            unaccepted: 0,
            late: 0,
            unpersisted: 0,
            given_up: 0,
            round: 0,
            ready: false,
        };
        self.lanes.insert(number, lane);
        self.by_key.insert(key, number);
        self.pairs.entry(key.pair).or_default().push(number);
        number
    }

    fn insert(&mut self, entry: Entry, offered: bool, foreign: bool) -> u64 {
        let known = self.by_key.get(&entry.lane).copied();
        let number = known.unwrap_or_else(|| self.open_lane(entry.lane, self.options.keeps_lanes.then_some(0)));
        let connected = self.session.is_some();
        let Some(lane) = self.lanes.get_mut(&number) else { return number };
        let unjudged = lane.known == Known::Asked || (lane.known == Known::Answered && lane.cursor >= entry.n);
        let item = Item {
            key: entry.key,
            id: entry.id,
            n: entry.n,
            bytes: entry.bytes,
            due: entry.deadline,
            deadline: entry.deadline,
            accepted: false,
            offered,
            foreign,
            late: connected && unjudged,
            sent: false,
        };
        lane.unaccepted += 1;
        lane.late += usize::from(item.late);
        let at = lane.items.partition_point(|other| other.n < entry.n);
        lane.items.insert(at, item);
        self.deadlines.insert((entry.deadline, number, entry.n));
        self.messages += 1;
        number
    }

    fn close_if_over(&mut self, number: u64) {
        if !self.lanes.get(&number).is_some_and(Lane::is_over) {
            return;
        }
        // Without a session it waits for the next one.
        if let Some(session) = &mut self.session
            && !session.closes.contains(&number)
        {
            session.closes.push_back(number);
        }
    }

    fn drop_lane(&mut self, number: u64) {
        if !self.lanes.get(&number).is_some_and(Lane::is_over) {
            return;
        }
        let Some(lane) = self.lanes.remove(&number) else { return };
        self.by_key.remove(&lane.key);
        if let Some(lanes) = self.pairs.get_mut(&lane.key.pair) {
            lanes.retain(|other| *other != number);
            if lanes.is_empty() {
                self.pairs.remove(&lane.key.pair);
            }
        }
    }
}

const fn never_asked(frame: FrameType) -> WireError {
    WireError::BadValue { frame, what: "it answers a request that was never made" }
}

fn lane_ref(key: &LaneKey, submitter: PeerId) -> LaneRef {
    let sender = (key.pair.sender != submitter).then_some(key.pair.sender);
    LaneRef { sender, recipient: key.pair.recipient, lane: key.lane }
}
