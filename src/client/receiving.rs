//! The receiving half of the driver: pages and pushed messages in, the application's answers out.
//!
//! A message is handed to the application once: it is remembered while it is in hand, and in the inbox once it
//! is answered. What was answered is told by `acks`; what is fetched is asked for by `sync`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::acks::Acks;
use super::commits::{After, Commits};
use super::forgery::Forgeries;
use super::message::{Answer, Answered, Incoming};
use super::reading::{Page, PageOptions, Reading, ReadingOptions};
use super::sync::{Question, Sync, Turned};
use crate::delivery::{Inbox, Judgement};
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::identity;
use crate::link::{self, Link, Stream, unexpected};
use crate::mutant::Mutant;
use crate::protocol::limit::MAX_TTL;
use crate::protocol::{Envelope, Frame, FrameType, HelloR, MsgN, Order, PushMode, Refusal, Role, WireError};
use crate::store::redb::client::Change;
use crate::time::{Moment, SharedClock, millis};
use crate::transport::{FrameSender, TransportError};

/// What the refusal of a forged message says.
const FORGED: &str = "bad_signature";

/// A message, wherever it lies: its sender, lane and number.
type Place = (PeerId, LaneId, u64);

/// On which way a message comes to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By `recv`, from the backlog or pushed.
    Queue { backlog: bool },
    /// On a page that the application turns itself.
    Page,
}

/// A message that the application has not answered yet, or whose answer is on its way to the disk.
#[derive(Debug)]
struct Hand {
    store: StoreId,
    seq: u64,
    way: Way,
    /// What the queue has to hand out, again if need be.
    envelope: Option<Envelope>,
    answer: Option<Option<Refusal>>,
}

/// See the head of this file.
pub(super) struct Receiving {
    me: PeerId,
    home: RelayId,
    clock: SharedClock,
    options: ReadingOptions,
    inbox: Inbox,
    hands: HashMap<Place, Hand>,
    ready: VecDeque<Place>,
    to_application: Option<mpsc::Sender<Incoming>>,
    answers: mpsc::UnboundedSender<Answered>,
    /// The store behind this session, which all that follows belongs to.
    store: Option<StoreId>,
    /// All at or below this `seq` lay there before the first session, or has come.
    seen: u64,
    /// The last `seq` when this session began, and the last that it pushed.
    watermark: u64,
    pushed: u64,
    /// Pushed messages that wait for the backlog before them.
    held: Vec<MsgN>,
    acks: Acks,
    sync: Sync,
    forgeries: Forgeries,
}

impl Receiving {
    pub(super) fn open(
        (me, home): (PeerId, RelayId),
        inbox: Inbox,
        clock: SharedClock,
        options: ReadingOptions,
        to_application: mpsc::Sender<Incoming>,
        answers: mpsc::UnboundedSender<Answered>,
    ) -> Self {
        Self {
            me,
            home,
            options,
            inbox,
            hands: HashMap::new(),
            ready: VecDeque::new(),
            to_application: Some(to_application),
            answers,
            store: None,
            seen: 0,
            watermark: 0,
            pushed: 0,
            held: Vec::new(),
            acks: Acks::new(clock.clone()),
            sync: Sync::new(clock.clone()),
            forgeries: Forgeries::default(),
            clock,
        }
    }

    /// What was answered.
    pub(super) const fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// R:HELLO of a peer that reads in this way.
    pub(super) fn hello(&self, ack_timeout: Duration) -> HelloR {
        let options = &self.options;
        let push = match options.reading {
            Reading::InOrder => PushMode::AfterBacklog,
            Reading::RecentFirst | Reading::Nothing => PushMode::AtOnce,
        };
        let reads = options.reading != Reading::Nothing;
        HelloR {
            push,
            sender: options.only_from,
            credit_messages: if reads { options.credit_messages } else { 0 },
            credit_bytes: options.credit_bytes,
            ack_timeout_ms: millis(ack_timeout),
            ..link::hello(Role::Peer)
        }
    }

    pub(super) fn connected(&mut self, link: &Link) {
        let (store, watermark) = (link.hello.store, link.hello.watermark);
        match self.store.replace(store) {
            None => self.seen = watermark,
            Some(last) if last == store => {}
            Some(_) => {
                // Any message in another store may be one that never came.
                self.seen = 0;
                self.sync.forget_cursors();
            }
        }
        self.acks.connected(store);
        self.sync.connected();
        (self.watermark, self.pushed) = (watermark, watermark);
        let backlog = match self.options.reading {
            Reading::InOrder => Some(None),
            // What came between two sessions is neither pushed in this one, nor was it in the last.
            Reading::RecentFirst if self.seen < watermark => Some(Some(self.seen)),
            Reading::RecentFirst | Reading::Nothing => None,
        };
        self.sync.read_backlog(backlog.map(|after| PageOptions {
            order: Order::Oldest,
            sender: self.options.only_from,
            after,
            messages: self.options.page_messages,
        }));
    }

    pub(super) fn disconnected(&mut self) {
        self.held.clear();
        self.seen = match self.sync.backlog() {
            Some(cursor) => self.seen.max(cursor.unwrap_or(0)),
            None => self.seen.max(self.pushed),
        };
        self.sync.disconnected(&mut self.acks);
        self.sync.read_backlog(None);
        self.acks.disconnected();
    }

    /// No message will come any more.
    pub(super) fn stop(&mut self) {
        self.to_application = None;
        self.sync.stop();
    }

    /// The application asks the relay.
    pub(super) fn ask(&mut self, question: Question) {
        // Without a session to come it would never be answered.
        if self.to_application.is_some() {
            self.sync.ask(question);
        }
    }

    /// Wants to read pages, as this reader.
    pub(super) fn open_pages(&mut self, reader: u64, options: PageOptions, to: mpsc::Sender<Page>) {
        // Without a session to come it learns by the dropped channel.
        if self.to_application.is_some() {
            self.sync.open(reader, options, to);
        }
    }

    /// A reader wants its next page, or nothing any more.
    pub(super) fn turn_page(&mut self, reader: u64) -> Result<(), TransportError> {
        match self.sync.turn(reader, &mut self.acks) {
            Some(turned) => self.turned(turned),
            None => Ok(()),
        }
    }

    /// Takes a frame of the notify stream or a sync stream.
    pub(super) fn receive(&mut self, stream: Stream, frame: Frame) -> Result<(), TransportError> {
        match (stream, frame) {
            (Stream::Notify, Frame::MsgN(message)) => {
                self.pushed = self.pushed.max(message.seq);
                let hold = self.options.reading == Reading::InOrder && self.sync.backlog().is_some();
                if hold {
                    self.held.push(message);
                } else {
                    self.arrive(message, Way::Queue { backlog: false })?;
                }
            }
            (Stream::Notify, Frame::AckA(confirmed)) => self.acks.confirmed(confirmed.request),
            (Stream::Sync, Frame::PageA(page)) => {
                if let Some(turned) = self.sync.page(page, &mut self.acks)? {
                    self.turned(turned)?;
                }
            }
            (Stream::Sync, Frame::StatusA(answer)) => self.sync.status(answer)?,
            (Stream::Sync, Frame::PolicyA(answer)) => self.sync.policy(answer)?,
            (_, Frame::NopN(_)) => {}
            (_, other) => return Err(unexpected(other.frame_type(), "on this stream").into()),
        }
        Ok(())
    }

    fn turned(&mut self, Turned { page, to }: Turned) -> Result<(), TransportError> {
        match to {
            None => {
                for message in page.messages {
                    self.arrive(message, Way::Queue { backlog: true })?;
                }
                // Beyond the watermark a reader of the recent first is pushed to.
                let caught_up = self.options.reading == Reading::RecentFirst && page.cursor >= Some(self.watermark);
                if page.complete || caught_up {
                    self.sync.read_backlog(None);
                    for message in std::mem::take(&mut self.held) {
                        self.arrive(message, Way::Queue { backlog: false })?;
                    }
                }
            }
            Some(to) => {
                let arrived = page.messages.into_iter().map(|message| self.arrive(message, Way::Page));
                let messages = arrived.filter_map(Result::transpose).collect::<Result<_, _>>()?;
                let page = Page { messages, remaining: page.remaining, complete: page.complete };
                // Its reader asked for one page and has room for it, or is gone: then it is dropped.
                drop(to.try_send(page));
            }
        }
        Ok(())
    }

    /// Looks a message up and remembers it; gives it back if it goes on a page of the application's.
    fn arrive(&mut self, message: MsgN, way: Way) -> Result<Option<Incoming>, TransportError> {
        let bad = |what| TransportError::from(WireError::BadValue { frame: FrameType::MsgN, what });
        let envelope = Envelope::parse(message.envelope).map_err(|_| bad("the envelope does not parse"))?;
        let header = envelope.header();
        if header.recipient != self.me {
            return Err(bad("a message for somebody else"));
        }
        let Some(store) = self.store else { return Ok(None) };
        let genuine = match message.signature {
            Some(_) if Mutant::SignatureUnchecked.is_planted() => true,
            Some(signature) => identity::verify(&header.sender, &envelope.signed_bytes(), &signature),
            // The home relay vouches for its own peers: their key opened the session.
            None => header.relay == self.home,
        };
        // Before anything else is looked at: a forgery may name the place of a message that is in hand.
        if !genuine {
            self.forgeries.add(&header);
            let refusal = Refusal { seq: message.seq, text: Some(FORGED.to_owned()) };
            self.acks.owe(store, message.seq, Some(refusal));
            return Ok(None);
        }
        let place = (header.sender, header.lane, header.n);
        if let Some(hand) = self.hands.get_mut(&place) {
            // In hand already: its answer will name the newest place.
            (hand.store, hand.seq) = (store, message.seq);
            if hand.way == Way::Page && way != Way::Page && hand.answer.is_none() {
                // If it is not answered there, the queue hands it out.
                (hand.way, hand.envelope) = (way, Some(envelope));
            }
            return Ok(None);
        }
        let seq = message.seq;
        match self.inbox.judge(header.sender, header.lane, header.n) {
            Judgement::New => {
                let hand = Hand { store, seq, way, envelope: None, answer: None };
                let hand = self.hands.entry(place).insert_entry(hand).into_mut();
                if way == Way::Page {
                    return Ok(Some(incoming(&envelope, hand, &self.answers)));
                }
                hand.envelope = Some(envelope);
                self.ready.push_back(place);
            }
            answered => self.acks.owe(store, seq, answered.refusal(seq)),
        }
        Ok(None)
    }

    /// Whether a message can be handed to the application: then waits until it takes one. Cancel-safe.
    pub(super) async fn hand_out(&mut self) {
        let (Some(sender), false) = (&self.to_application, self.ready.is_empty()) else {
            return std::future::pending().await;
        };
        let Ok(permit) = sender.reserve().await else {
            self.to_application = None;
            return;
        };
        permit.send(match next_incoming(&mut self.ready, &self.hands, &self.answers) {
            Some(incoming) => incoming,
            None => return,
        });
        // As many more as there is room for, without waiting.
        while let Ok(permit) = sender.try_reserve() {
            match next_incoming(&mut self.ready, &self.hands, &self.answers) {
                Some(incoming) => permit.send(incoming),
                None => return,
            }
        }
    }

    /// The application answered.
    pub(super) fn answered(&mut self, answered: Answered, commits: &mut Commits) {
        let Answered { place, answer, durable } = answered;
        let Some(hand) = self.hands.get_mut(&place) else { return };
        let (sender, lane, n) = place;
        let date = self.clock.date();
        match answer {
            Answer::Taken => {
                hand.answer = Some(None);
                self.inbox.take(sender, lane, n, date);
                commits.row(sender, lane);
                commits.after(After::Answered { place, durable });
            }
            Answer::Refused(text) => {
                hand.answer = Some(Some(Refusal { seq: hand.seq, text: text.clone() }));
                self.inbox.refuse(sender, lane, n, text, date);
                commits.row(sender, lane);
                commits.after(After::Answered { place, durable });
            }
            Answer::Left | Answer::Dropped if hand.way == Way::Page => drop(self.hands.remove(&place)),
            Answer::Left => hand.envelope = None,
            Answer::Dropped => self.ready.push_back(place),
        }
    }

    /// An answer is durable: it may be told.
    pub(super) fn durable(&mut self, place: Place, durable: Option<oneshot::Sender<()>>) {
        if let Some(hand) = self.hands.remove(&place)
            && let Some(refusal) = hand.answer
        {
            let refusal = refusal.map(|refusal| Refusal { seq: hand.seq, ..refusal });
            self.acks.owe(hand.store, hand.seq, refusal);
        }
        if let Some(durable) = durable {
            // Who no longer waits does not need to know.
            durable.send(()).ok();
        }
    }

    /// Whether the relay has been told of every answer.
    pub(super) fn is_settled(&self) -> bool {
        self.acks.is_settled() && self.sync.is_settled()
    }

    /// Messages that were refused because their senders did not write them.
    pub(super) const fn forgeries(&mut self) -> &mut Forgeries {
        &mut self.forgeries
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.acks.next_timeout().into_iter().chain(self.sync.next_timeout()).min()
    }

    pub(super) fn on_timeout(&mut self, now: Moment) {
        self.acks.on_timeout(now);
        self.sync.on_timeout(now);
    }

    /// Sends what may go out: page requests with what is owed, or ACK:R. The stream to wait for, if one has no
    /// room.
    pub(super) fn transmit(&mut self, link: &Link, closing: bool) -> Result<Option<FrameSender>, TransportError> {
        let Some(store) = self.store else { return Ok(None) };
        let page = usize::try_from(self.options.page_messages).unwrap_or(usize::MAX);
        if closing {
            return self.acks.transmit(link, false);
        }
        self.sync.want_backlog(self.ready.len() < page);
        let blocked = self.sync.transmit(link, store, &mut self.acks)?;
        Ok(self.acks.transmit(link, self.sync.is_reading())?.or(blocked))
    }

    /// Forgets lanes that can bring nothing any more.
    pub(super) fn forget_silent(&mut self, commits: &mut Commits) {
        let oldest = self.clock.date().0.saturating_sub(crate::time::millis(MAX_TTL));
        for (sender, lane) in self.inbox.forget(crate::time::UnixMillis(oldest)) {
            commits.change(Change::Silent(sender, lane));
        }
    }
}

fn next_incoming(
    ready: &mut VecDeque<Place>,
    hands: &HashMap<Place, Hand>,
    answers: &mpsc::UnboundedSender<Answered>,
) -> Option<Incoming> {
    loop {
        let place = ready.pop_front()?;
        // It may have been left meanwhile.
        let hand = hands.get(&place).and_then(|hand| Some((hand, hand.envelope.as_ref()?)));
        if let Some((hand, envelope)) = hand {
            return Some(incoming(envelope, hand, answers));
        }
    }
}

fn incoming(envelope: &Envelope, hand: &Hand, answers: &mpsc::UnboundedSender<Answered>) -> Incoming {
    let header = envelope.header();
    Incoming {
        id: header.id,
        from: header.sender,
        relay: header.relay,
        lane: header.lane,
        n: header.n,
        seq: hand.seq,
        backlog: hand.way != Way::Queue { backlog: false },
        sent_at: header.created,
        body: envelope.body(),
        answers: answers.clone(),
        answered: false,
    }
}
