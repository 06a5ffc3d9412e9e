//! The sending half of the driver: the shell around the [`Outbox`].
//!
//! Bodies of messages lie on the disk. Those just sent are kept at hand as well, within a bound; the others are
//! read when their turn comes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::commits::{After, Commits};
use super::event::{Event, EventQueue, Seen};
use super::message::Accepted;
use super::progress::{Teller, progress};
use super::{Draft, Outgoing, SendError};
use crate::delivery::{Effect, Entry, Offer, Outbox, OutboxOptions, Request, Restored};
use crate::id::{LaneId, MessageId, Pair, PeerId, RelayId};
use crate::identity::Identity;
use crate::link::{Link, Stream, unexpected};
use crate::mutant::Mutant;
use crate::protocol::limit::{DEFAULT_TTL, MAX_BODY_BYTES, MAX_TTL, MIN_TTL};
use crate::protocol::{Envelope, Frame, Header, MsgR, Outcome};
use crate::random::{Pool, SharedEntropy};
use crate::store::redb::client::{Change, KeptOutcome, Letter, Recovered};
use crate::store::{Reply, StoreError};
use crate::time::{Moment, SharedClock, millis};
use crate::transport::TransportError;

/// Bytes of messages kept at hand between sending and acceptance.
const AT_HAND_BYTES: usize = 8 << 20;

/// Messages read from the disk in one go.
const READ_MESSAGES: usize = 256;

/// Messages that are being read from the disk.
struct BodiesWanted {
    keys: Vec<u64>,
    reply: Reply<Vec<(u64, Arc<Letter>)>>,
}

/// What may be sent, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendingOptions {
    /// Messages without an outcome that the outbox takes.
    pub(super) max_messages: usize,
    /// Whether messages are signed that do not leave the home relay.
    pub(super) signs_all: bool,
}

/// See the head of this file.
pub(super) struct Sending {
    identity: Identity,
    me: PeerId,
    home: RelayId,
    clock: SharedClock,
    chance: Pool,
    outbox: Outbox,
    options: SendingOptions,
    next_key: u64,
    /// The first key of this opening, until the relay's store is known.
    first_key: u64,
    knows_store: bool,
    at_hand: HashMap<u64, Arc<Letter>>,
    at_hand_bytes: usize,
    requests: VecDeque<Request>,
    reading: Option<BodiesWanted>,
    handles: HashMap<u64, Teller>,
    /// Outcomes on their way to the disk: not told yet.
    resolving: usize,
    /// Messages on their way to the disk.
    on_the_way: usize,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Sending {
    pub(super) fn open(
        identity: Identity,
        home: RelayId,
        recovered: &Recovered,
        clock: SharedClock,
        entropy: SharedEntropy,
        options: SendingOptions,
        seen: mpsc::UnboundedSender<Seen>,
    ) -> Self {
        let me = identity.peer_id();
        let (now, date) = (clock.now(), clock.date());
        let restored = recovered.outbox.iter().map(|letter| Restored {
            entry: Entry {
                key: letter.key,
                id: letter.id,
                lane: letter.lane,
                n: letter.n,
                bytes: letter.bytes,
                deadline: now + date.until(letter.deadline),
            },
            foreign: letter.key < recovered.foreign_below,
        });
        let outbox = Outbox::open(OutboxOptions::new(me), recovered.store, restored);
        Self {
            identity,
            me,
            home,
            clock,
            chance: Pool::new(entropy),
            outbox,
            options,
            next_key: recovered.next_key,
            first_key: recovered.next_key,
            knows_store: recovered.store.is_some(),
            at_hand: HashMap::new(),
            at_hand_bytes: 0,
            requests: VecDeque::new(),
            reading: None,
            handles: HashMap::new(),
            resolving: 0,
            on_the_way: 0,
            seen,
        }
    }

    /// Messages without an outcome that the application could know.
    pub(super) const fn waiting(&self) -> usize {
        self.outbox.len() + self.resolving
    }

    /// Messages that the relay is not known to have, likewise.
    pub(super) fn unaccepted(&self) -> usize {
        self.outbox.unaccepted() + self.resolving
    }

    /// Gives messages their places and sets them on their way to the disk.
    pub(super) fn send(
        &mut self,
        drafts: Vec<Draft>,
        commits: &mut Commits,
        reply: oneshot::Sender<Result<Vec<Outgoing>, SendError>>,
    ) {
        let refused = match drafts.iter().position(|draft| draft.body.len() > MAX_BODY_BYTES) {
            Some(index) => Some(SendError::TooLarge { index }),
            None if self.outbox.len() + self.on_the_way + drafts.len() > self.options.max_messages => {
                Some(SendError::OutboxFull { messages: self.options.max_messages })
            }
            None => None,
        };
        if let Some(error) = refused {
            // Who no longer waits does not need to know.
            reply.send(Err(error)).ok();
            return;
        }
        let mut entries = Vec::with_capacity(drafts.len());
        let mut outgoing = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let (entry, letter) = self.place(draft);
            commits.change(Change::Keep(entry.key, letter.clone()));
            let (handle, progress) = progress();
            self.handles.insert(entry.key, handle);
            outgoing.push(Outgoing { id: entry.id, n: entry.n, key: entry.key, progress, seen: self.seen.clone() });
            entries.push((entry, letter));
        }
        self.on_the_way += entries.len();
        commits.after(After::Sent { entries, outgoing, reply });
    }

    fn place(&mut self, draft: Draft) -> (Entry, Arc<Letter>) {
        let (now, date) = (self.clock.now(), self.clock.date());
        let pair = Pair { sender: self.me, recipient: draft.to.peer };
        let (lane, n) = self.outbox.assign(pair, LaneId(u64::from_le_bytes(self.chance.bytes())));
        let id = MessageId::new(date.0, &self.chance.bytes());
        let ttl = draft.ttl.unwrap_or(DEFAULT_TTL).clamp(MIN_TTL, MAX_TTL);
        let header = Header {
            sender: self.me,
            relay: self.home,
            recipient: draft.to.peer,
            id,
            lane: lane.lane,
            n,
            created: date,
            ttl,
        };
        let envelope = Envelope::new(header, &draft.body);
        let key = self.next_key;
        self.next_key += 1;
        let home = (draft.to.relay.relay != self.home).then(|| draft.to.relay.to_string());
        let bytes = envelope.bytes().len();
        let entry = Entry { key, id, lane, n, bytes, deadline: now + ttl };
        (entry, Arc::new(Letter { envelope, home, deadline: date + ttl }))
    }

    /// Messages are durable: they may be offered.
    pub(super) fn sent(&mut self, entries: Vec<(Entry, Arc<Letter>)>) {
        self.on_the_way -= entries.len();
        for (entry, letter) in entries {
            if self.at_hand_bytes < AT_HAND_BYTES {
                self.at_hand_bytes += letter.envelope.bytes().len();
                self.at_hand.insert(entry.key, letter);
            }
            self.outbox.add(entry);
        }
    }

    /// Messages did not get to the disk: whoever sent them is told, and it is as if they had never been.
    pub(super) fn not_sent(&mut self, entries: &[(Entry, Arc<Letter>)]) {
        self.on_the_way -= entries.len();
        for (entry, _) in entries {
            self.handles.remove(&entry.key);
        }
    }

    pub(super) fn connected(&mut self, link: &Link) {
        self.requests.clear();
        self.outbox.connect(link.hello.store, link.hello.durability);
    }

    pub(super) fn disconnected(&mut self) {
        self.requests.clear();
        self.outbox.disconnect();
    }

    /// The relay's store is durably known.
    pub(super) const fn remembered(&mut self) {
        self.outbox.remembered();
    }

    /// A resolution is durable: the application may know.
    pub(super) fn resolved(
        &mut self,
        (key, receipt): (u64, crate::delivery::Receipt),
        outcome: Arc<KeptOutcome>,
        events: &mut EventQueue,
        commits: &mut Commits,
    ) {
        self.resolving -= 1;
        self.outbox.persisted(receipt);
        if let Some(handle) = self.handles.remove(&key) {
            handle.ended(outcome.verdict.outcome.clone());
        }
        for dropped in events.keep(key, outcome) {
            commits.change(Change::Forget(dropped));
        }
    }

    /// No message will be sent any more: lanes that are done with may be closed.
    pub(super) fn retire(&mut self) {
        self.outbox.retire();
    }

    /// Whether the relay has still to be told of closed lanes.
    pub(super) fn is_closing(&self) -> bool {
        self.outbox.is_closing() || self.requests.iter().any(|request| matches!(request, Request::Close(_)))
    }

    /// Takes a frame of the submit stream, or the outcomes among those of the notify stream.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<(), TransportError> {
        let now = self.clock.now();
        match frame {
            Frame::MsgA(answer) => self.outbox.on_msg_a(now, answer)?,
            Frame::WhereA(answer) => self.outbox.on_where_a(now, answer)?,
            Frame::CloseA(answer) => self.outbox.on_close_a(&answer)?,
            Frame::AckN(outcomes) => self.outbox.on_ack_n(&outcomes),
            Frame::NopN(_) => {}
            other => return Err(unexpected(other.frame_type(), "on the submit stream").into()),
        }
        Ok(())
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.outbox.next_timeout()
    }

    pub(super) fn on_timeout(&mut self, now: Moment) {
        self.outbox.on_timeout(now);
    }

    /// Carries out what the outbox wants done. True if the relay has been silent for too long.
    pub(super) fn carry_out(&mut self, commits: &mut Commits, events: &mut EventQueue) -> bool {
        let mut silent = false;
        while let Some(effect) = self.outbox.poll_effect() {
            match effect {
                Effect::Remember(store) => {
                    let foreign_below = if self.knows_store { self.next_key } else { self.first_key };
                    self.knows_store = true;
                    commits.change(Change::Remember { store, foreign_below });
                    commits.after(After::Remembered);
                }
                Effect::Accepted { key, id, durability, duplicate } => {
                    self.forget(key);
                    if let Some(handle) = self.handles.get(&key) {
                        let accepted = Accepted { durability, duplicate };
                        handle.accepted(accepted);
                    }
                    events.tell(Event::Accepted { id, durability, duplicate });
                }
                Effect::Held { lane, reason, until } => {
                    events.tell(Event::Waiting { lane, reason, retry_in: until - self.clock.now() });
                }
                Effect::Resolved { key, id, lane, n, verdict, receipt } => {
                    self.forget(key);
                    self.resolving += 1;
                    let outcome = Arc::new(KeptOutcome { id, lane, n, verdict });
                    if !(Mutant::GivingUpNotDurable.is_planted()
                        && matches!(outcome.verdict.outcome, Outcome::Expired { .. }))
                    {
                        commits.change(Change::Resolve(key, outcome.clone()));
                    }
                    commits.after(After::Resolved { key, receipt, outcome });
                }
                Effect::Silent => silent = true,
            }
        }
        silent
    }

    /// Sends what may go out. False if the stream has no room: come again when it has.
    pub(super) fn transmit(&mut self, link: &Link, commits: &Commits) -> Result<bool, TransportError> {
        loop {
            let held = self.requests.pop_front();
            let Some(request) = held.or_else(|| self.outbox.poll_request(self.clock.now())) else {
                return Ok(true);
            };
            let frame = match &request {
                Request::Ask(ask) => ask.clone().into(),
                Request::Close(close) => close.clone().into(),
                Request::Offer(offer) => match self.at_hand.get(&offer.key) {
                    Some(letter) => self.message(offer, letter),
                    None => {
                        self.requests.push_front(request);
                        self.read(commits);
                        return Ok(true);
                    }
                },
            };
            if !link.submit.try_send(&frame)? {
                self.requests.push_front(request);
                return Ok(false);
            }
        }
    }

    fn message(&self, offer: &Offer, letter: &Letter) -> Frame {
        let remaining = offer.deadline - self.clock.now();
        // What leaves its home relay is believed for its sender's signature alone.
        let signed = self.options.signs_all || letter.home.is_some();
        let signature = signed.then(|| self.identity.sign(&letter.envelope.signed_bytes()));
        let message = MsgR {
            request: offer.request,
            prev: offer.prev,
            ttl_ms: millis(remaining),
            envelope: letter.envelope.bytes().clone(),
            signature,
            home: letter.home.clone(),
        };
        message.into()
    }

    /// Begins to read the messages that are to go out next.
    fn read(&mut self, commits: &Commits) {
        if self.reading.is_some() {
            return;
        }
        while self.requests.len() < READ_MESSAGES
            && let Some(request) = self.outbox.poll_request(self.clock.now())
        {
            self.requests.push_back(request);
        }
        let missing = self.requests.iter().filter_map(|request| match request {
            Request::Offer(offer) => (!self.at_hand.contains_key(&offer.key)).then_some(offer.key),
            Request::Ask(_) | Request::Close(_) => None,
        });
        let keys: Vec<u64> = missing.take(READ_MESSAGES).collect();
        self.reading = Some(BodiesWanted { reply: commits.store().letters(keys.clone()), keys });
    }

    /// Waits for messages to be read; for ever if none are. Cancel-safe.
    pub(super) async fn letters(&mut self) -> Result<(), StoreError> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let letters = (&mut reading.reply).await;
        let asked = self.reading.take().map(|reading| reading.keys).unwrap_or_default();
        for (key, letter) in letters? {
            self.at_hand_bytes += letter.envelope.bytes().len();
            self.at_hand.insert(key, letter);
        }
        // A message that was resolved meanwhile is gone, and need not go out.
        let (at_hand, outbox) = (&self.at_hand, &mut self.outbox);
        self.requests.retain(|request| match request {
            Request::Offer(offer) if asked.contains(&offer.key) && !at_hand.contains_key(&offer.key) => {
                outbox.withdraw(offer.request);
                false
            }
            _ => true,
        });
        Ok(())
    }

    fn forget(&mut self, key: u64) {
        if let Some(letter) = self.at_hand.remove(&key) {
            self.at_hand_bytes -= letter.envelope.bytes().len();
        }
    }

    /// Which half a frame is for.
    pub(super) const fn concerns(stream: Stream, frame: &Frame) -> bool {
        matches!((stream, frame), (Stream::Submit, _) | (Stream::Notify, Frame::AckN(_)))
    }
}
