//! The receiving half of the driver: pages and pushed messages in, the application's answers out.
//!
//! A message is handed to the application once: it is remembered while it is in hand, and in the inbox once it
//! is answered. What was answered is acknowledged with the next page request or, after a short wait, by ACK:R;
//! what the relay has not confirmed is acknowledged again, in the next session if need be.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::commits::{After, Commits};
use super::link::{Link, Stream, unexpected};
use super::message::{Answer, Answered, Incoming};
use super::{Reading, ReadingOptions, Stop};
use crate::delivery::{Inbox, Judgement, RoundTrip};
use crate::id::{LaneId, PeerId, RelayId, StoreId};
use crate::identity;
use crate::protocol::limit::{MAX_PAGE_BYTES, MAX_TTL};
use crate::protocol::{
    AckR, Envelope, Frame, FrameType, MsgN, Order, PageA, PageR, PushMode, Refusal, Status, StatusR, Taken, WireError,
};
use crate::store::redb::client::Change;
use crate::time::{Moment, SharedClock};
use crate::transport::{FrameSender, TransportError};

/// How long an acknowledgement may wait for a page request to ride on.
const RIDE_PATIENCE: Duration = Duration::from_millis(50);

/// How long ACK:R may stay unconfirmed before it is sent again.
const ACK_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a page or a count may stay unanswered before it is asked for again. Patient, since a page may be
/// large and the way slow; and an answer to the first question is as good as one to the second.
const SYNC_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What the refusal of a forged message says.
const FORGED: &str = "bad_signature";

/// A message, wherever it lies: its sender, lane and number.
type Place = (PeerId, LaneId, u64);

/// A message that the application has not answered yet, or whose answer is on its way to the disk.
#[derive(Debug)]
struct Hand {
    store: StoreId,
    seq: u64,
    backlog: bool,
    /// What to hand out again; nothing for a message that was left.
    envelope: Option<Envelope>,
    answer: Option<Option<Refusal>>,
}

#[derive(Debug)]
enum Backlog {
    /// Pages are wanted from behind this cursor on.
    Wanted(Option<u64>),
    /// All of it is read, or none is wanted.
    Done,
}

/// A page that was asked for, and the acknowledgements that went along.
#[derive(Debug)]
struct Asked {
    /// The first and the last request for it.
    requests: (u64, u64),
    answers: Taken,
    /// When it was asked for last; `None` once that is too long ago.
    sent: Option<Moment>,
}

/// Somebody who wants to know what waits, from one sender alone if one is named.
#[derive(Debug)]
struct StatusWanted {
    sender: Option<PeerId>,
    reply: oneshot::Sender<Result<Status, Stop>>,
}

/// The request for it, and when it was sent.
#[derive(Debug)]
struct StatusAsked {
    request: u64,
    sent: Moment,
    wanted: StatusWanted,
}

/// See the head of this file.
pub(super) struct Receiving {
    me: PeerId,
    home: RelayId,
    clock: SharedClock,
    options: ReadingOptions,
    inbox: Inbox,
    hands: HashMap<Place, Hand>,
    /// What to hand out: what is new comes before the backlog, where that is not read in order.
    ready: VecDeque<Place>,
    fresh: VecDeque<Place>,
    to_application: Option<mpsc::Sender<Incoming>>,
    answers: mpsc::UnboundedSender<Answered>,
    /// The store behind this session, which all that follows belongs to.
    store: Option<StoreId>,
    backlog: Backlog,
    /// Pushed messages that wait for the backlog before them.
    held: Vec<MsgN>,
    owed: Taken,
    owed_since: Option<Moment>,
    unconfirmed: VecDeque<(u64, Taken, Moment)>,
    next_ack: u64,
    next_sync: u64,
    asked: Option<Asked>,
    statuses: VecDeque<StatusWanted>,
    statuses_asked: VecDeque<StatusAsked>,
    round_trip: RoundTrip,
    sync_trip: RoundTrip,
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
            clock,
            options,
            inbox,
            hands: HashMap::new(),
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            to_application: Some(to_application),
            answers,
            store: None,
            backlog: Backlog::Done,
            held: Vec::new(),
            owed: Taken::default(),
            owed_since: None,
            unconfirmed: VecDeque::new(),
            next_ack: 0,
            next_sync: 0,
            asked: None,
            statuses: VecDeque::new(),
            statuses_asked: VecDeque::new(),
            round_trip: RoundTrip::new(ACK_TIMEOUTS.0, ACK_TIMEOUTS.1),
            sync_trip: RoundTrip::new(SYNC_TIMEOUTS.0, SYNC_TIMEOUTS.1),
        }
    }

    /// What was answered.
    pub(super) const fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// What HELLO says about reading: when to push, and the credit.
    pub(super) const fn hello(&self) -> (PushMode, (u64, u64)) {
        let credit = (self.options.credit_messages, self.options.credit_bytes);
        match self.options.reading {
            Reading::InOrder => (PushMode::AfterBacklog, credit),
            Reading::RecentFirst => (PushMode::AtOnce, credit),
            Reading::Nothing => (PushMode::AtOnce, (0, 0)),
        }
    }

    pub(super) fn connected(&mut self, link: &Link) {
        if self.store != Some(link.hello.store) {
            // Another store's places mean nothing to this one; its copies are judged when they come.
            self.store = Some(link.hello.store);
            self.owed = Taken::default();
        }
        (self.next_ack, self.next_sync) = (0, 0);
        self.backlog = match self.options.reading {
            Reading::InOrder => Backlog::Wanted(None),
            // What is above the watermark is pushed.
            Reading::RecentFirst => Backlog::Wanted(Some(link.hello.watermark + 1)),
            Reading::Nothing => Backlog::Done,
        };
    }

    pub(super) fn disconnected(&mut self) {
        self.held.clear();
        self.backlog = Backlog::Done;
        self.round_trip.reset();
        self.sync_trip.reset();
        let lost = self.asked.take().map(|asked| asked.answers);
        for answers in self.unconfirmed.drain(..).map(|(_, answers, _)| answers).chain(lost) {
            self.owed.taken.extend(&answers.taken);
            self.owed.refused.extend(answers.refused);
        }
        // Asked again in the next session.
        self.statuses.extend(self.statuses_asked.drain(..).map(|asked| asked.wanted));
    }

    /// No message will come any more.
    pub(super) fn stop(&mut self) {
        self.to_application = None;
        self.statuses.clear();
    }

    /// Wants to know what waits.
    pub(super) fn ask_status(&mut self, sender: Option<PeerId>, reply: oneshot::Sender<Result<Status, Stop>>) {
        // Without a session to come it would never be answered.
        if self.to_application.is_some() {
            self.statuses.push_back(StatusWanted { sender, reply });
        }
    }

    /// Takes a frame of the notify stream or a sync stream.
    pub(super) fn receive(&mut self, stream: Stream, frame: Frame) -> Result<(), TransportError> {
        match (stream, frame) {
            (Stream::Notify, Frame::MsgN(message)) => {
                let hold = matches!(self.options.reading, Reading::InOrder) && !matches!(self.backlog, Backlog::Done);
                if hold { self.held.push(message) } else { self.arrive(message, false)? }
            }
            (Stream::Notify, Frame::AckA(confirmed)) => self.confirmed(confirmed.request),
            (Stream::Sync, Frame::PageA(page)) => self.page(page)?,
            (Stream::Sync, Frame::StatusA(answer)) => {
                let place = self.statuses_asked.iter().position(|asked| asked.request == answer.request);
                match place.and_then(|place| self.statuses_asked.remove(place)) {
                    Some(asked) => {
                        self.sync_trip.sample(self.clock.now() - asked.sent);
                        asked.wanted.reply.send(Ok(answer.status)).ok();
                    }
                    // It was asked again meanwhile.
                    None if answer.request < self.next_sync => {}
                    None => return Err(never_asked(FrameType::StatusA).into()),
                }
            }
            // What the relay says of itself; its closing says the same.
            (Stream::Notify, Frame::GoawayN(_)) | (_, Frame::NopN(_)) => {}
            (_, other) => return Err(unexpected(other.frame_type(), "on this stream").into()),
        }
        Ok(())
    }

    fn page(&mut self, page: PageA) -> Result<(), TransportError> {
        if page.request >= self.next_sync {
            return Err(never_asked(FrameType::PageA).into());
        }
        // Asked for again, a page may come twice.
        let asked = |asked: &mut Asked| (asked.requests.0..=asked.requests.1).contains(&page.request);
        let Some(asked) = self.asked.take_if(asked) else { return Ok(()) };
        if let (Some(sent), true) = (asked.sent, asked.requests.0 == asked.requests.1) {
            self.sync_trip.sample(self.clock.now() - sent);
        }
        for message in page.messages {
            self.arrive(message, true)?;
        }
        if page.complete {
            self.backlog = Backlog::Done;
            for message in std::mem::take(&mut self.held) {
                self.arrive(message, false)?;
            }
        } else {
            self.backlog = Backlog::Wanted(page.cursor);
        }
        Ok(())
    }

    fn arrive(&mut self, message: MsgN, backlog: bool) -> Result<(), TransportError> {
        let bad = |what| TransportError::from(WireError::BadValue { frame: FrameType::MsgN, what });
        let envelope = Envelope::parse(message.envelope).map_err(|_| bad("the envelope does not parse"))?;
        let header = *envelope.header();
        if header.recipient != self.me {
            return Err(bad("a message for somebody else"));
        }
        let Some(store) = self.store else { return Ok(()) };
        let place = (header.sender, header.lane, header.n);
        if let Some(hand) = self.hands.get_mut(&place) {
            // In hand already: its answer will name the newest place.
            (hand.store, hand.seq) = (store, message.seq);
            return Ok(());
        }
        let genuine = match message.signature {
            Some(signature) => identity::verify(&header.sender, &envelope.signed_bytes(), &signature),
            // The home relay vouches for its own peers: their key opened the session.
            None => header.relay == self.home,
        };
        if !genuine {
            tracing::warn!(relay = %header.relay.short(), "a message whose signature does not fit was refused");
            self.owe(store, message.seq, Some(Refusal { seq: message.seq, text: Some(FORGED.to_owned()) }));
            return Ok(());
        }
        match self.inbox.judge(header.sender, header.lane, header.n) {
            Judgement::New => {
                let seq = message.seq;
                self.hands.insert(place, Hand { store, seq, backlog, envelope: Some(envelope), answer: None });
                match (self.options.reading, backlog) {
                    (Reading::RecentFirst, false) => self.fresh.push_back(place),
                    _ => self.ready.push_back(place),
                }
            }
            answered => self.owe(store, message.seq, answered.refusal(message.seq)),
        }
        Ok(())
    }

    /// Whether a message can be handed to the application: then waits until it takes one. Cancel-safe.
    pub(super) async fn hand_out(&mut self) {
        let nothing = self.ready.is_empty() && self.fresh.is_empty();
        let (Some(sender), false) = (&self.to_application, nothing) else {
            return std::future::pending().await;
        };
        let Ok(permit) = sender.reserve().await else {
            self.to_application = None;
            return;
        };
        permit.send(match next_incoming((&mut self.fresh, &mut self.ready), &self.hands, &self.answers) {
            Some(incoming) => incoming,
            None => return,
        });
        // As many more as there is room for, without waiting.
        while let Ok(permit) = sender.try_reserve() {
            match next_incoming((&mut self.fresh, &mut self.ready), &self.hands, &self.answers) {
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
            self.owe(hand.store, hand.seq, refusal);
        }
        if let Some(durable) = durable {
            // Who no longer waits does not need to know.
            durable.send(()).ok();
        }
    }

    fn owe(&mut self, store: StoreId, seq: u64, refusal: Option<Refusal>) {
        if self.store != Some(store) {
            return;
        }
        match refusal {
            Some(refusal) => self.owed.refused.push(refusal),
            None => drop(self.owed.taken.insert(seq)),
        }
        self.owed_since.get_or_insert(self.clock.now());
    }

    /// The relay has all ACK:R up to this one.
    fn confirmed(&mut self, request: u64) {
        let now = self.clock.now();
        while let Some((number, _, sent)) = self.unconfirmed.pop_front_if(|(number, ..)| *number <= request) {
            if number == request {
                self.round_trip.sample(now - sent);
            }
        }
    }

    /// Whether the relay has been told of every answer.
    pub(super) fn is_settled(&self) -> bool {
        let page = self.asked.as_ref().is_some_and(|asked| !asked.answers.is_empty());
        self.owed.is_empty() && self.unconfirmed.is_empty() && !page
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let ride = self.owed_since.filter(|_| !self.owed.is_empty()).map(|since| since + RIDE_PATIENCE);
        let confirmation = self.unconfirmed.front().map(|(_, _, sent)| *sent + self.round_trip.timeout());
        let sync = self.oldest_sync().map(|sent| sent + self.sync_trip.timeout());
        [ride, confirmation, sync].into_iter().flatten().min()
    }

    /// Since when a page or a count is unanswered.
    fn oldest_sync(&self) -> Option<Moment> {
        let page = self.asked.as_ref().and_then(|asked| asked.sent);
        let status = self.statuses_asked.front().map(|asked| asked.sent);
        page.into_iter().chain(status).min()
    }

    /// Time has passed: what is unconfirmed for too long is owed again, what is unanswered is asked again.
    pub(super) fn on_timeout(&mut self, now: Moment) {
        let late = self.unconfirmed.front().is_some_and(|(_, _, sent)| *sent + self.round_trip.timeout() <= now);
        if late {
            self.round_trip.back_off();
            for (_, answers, _) in self.unconfirmed.drain(..) {
                self.owed.taken.extend(&answers.taken);
                self.owed.refused.extend(answers.refused);
            }
            self.owed_since = Some(now);
        }
        if self.oldest_sync().is_some_and(|sent| sent + self.sync_trip.timeout() <= now) {
            self.sync_trip.back_off();
            if let Some(asked) = &mut self.asked {
                asked.sent = None;
            }
            for asked in self.statuses_asked.drain(..).rev() {
                self.statuses.push_front(asked.wanted);
            }
        }
    }

    /// Sends what may go out: page requests with what is owed, or ACK:R. The stream to wait for, if one has no
    /// room.
    pub(super) fn transmit(&mut self, link: &Link, closing: bool) -> Result<Option<FrameSender>, TransportError> {
        let now = self.clock.now();
        let Some(store) = self.store else { return Ok(None) };
        while let Some(wanted) = self.statuses.pop_front() {
            if !link.sync.try_send(&StatusR { request: self.next_sync, sender: wanted.sender }.into())? {
                self.statuses.push_front(wanted);
                return Ok(Some(link.sync.clone()));
            }
            self.statuses_asked.push_back(StatusAsked { request: self.next_sync, sent: now, wanted });
            self.next_sync += 1;
        }
        let page = usize::try_from(self.options.page_messages).unwrap_or(usize::MAX);
        if let Backlog::Wanted(cursor) = self.backlog
            && self.asked.as_ref().is_none_or(|asked| asked.sent.is_none())
            && self.ready.len() < page
            && !closing
        {
            return self.ask_page(link, store, cursor);
        }
        let rides = matches!(self.backlog, Backlog::Wanted(_)) && !closing;
        let waited = self.owed_since.is_none_or(|since| since + RIDE_PATIENCE <= now);
        if self.owed.is_empty() || (rides && !waited) {
            return Ok(None);
        }
        let answers = std::mem::take(&mut self.owed);
        let ack = AckR { request: self.next_ack, store, answers: answers.clone() };
        if !link.notify.try_send(&ack.into())? {
            self.owed = answers;
            return Ok(Some(link.notify.clone()));
        }
        self.owed_since = None;
        self.unconfirmed.push_back((self.next_ack, answers, now));
        self.next_ack += 1;
        Ok(None)
    }

    fn ask_page(
        &mut self,
        link: &Link,
        store: StoreId,
        cursor: Option<u64>,
    ) -> Result<Option<FrameSender>, TransportError> {
        let again = self.asked.take();
        if let Some(again) = &again {
            self.owed.taken.extend(&again.answers.taken);
            self.owed.refused.extend(again.answers.refused.iter().cloned());
        }
        let answers = std::mem::take(&mut self.owed);
        let request = self.next_sync;
        let order = match self.options.reading {
            Reading::RecentFirst => Order::Newest,
            Reading::InOrder | Reading::Nothing => Order::Oldest,
        };
        let ask = PageR {
            request,
            order,
            cursor,
            sender: None,
            max_messages: self.options.page_messages,
            max_bytes: MAX_PAGE_BYTES,
            store,
            answers: answers.clone(),
        };
        if !link.sync.try_send(&ask.into())? {
            match again {
                // What went along with it goes again; a copy of that does no harm.
                Some(again) => (self.asked, self.owed) = (Some(again), answers),
                None => self.owed = answers,
            }
            return Ok(Some(link.sync.clone()));
        }
        (self.next_sync, self.owed_since) = (request + 1, None);
        let requests = (again.map_or(request, |again| again.requests.0), request);
        self.asked = Some(Asked { requests, answers, sent: Some(self.clock.now()) });
        Ok(None)
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
    (fresh, ready): (&mut VecDeque<Place>, &mut VecDeque<Place>),
    hands: &HashMap<Place, Hand>,
    answers: &mpsc::UnboundedSender<Answered>,
) -> Option<Incoming> {
    loop {
        let place = fresh.pop_front().or_else(|| ready.pop_front())?;
        let Some((hand, envelope)) = hands.get(&place).and_then(|hand| Some((hand, hand.envelope.as_ref()?))) else {
            continue;
        };
        let header = envelope.header();
        return Some(Incoming {
            id: header.id,
            from: header.sender,
            relay: header.relay,
            lane: header.lane,
            n: header.n,
            seq: hand.seq,
            backlog: hand.backlog,
            sent_at: header.created,
            body: envelope.body(),
            answers: answers.clone(),
            answered: false,
        });
    }
}

const fn never_asked(frame: FrameType) -> WireError {
    WireError::BadValue { frame, what: "it answers a request that was never made" }
}
