//! The client's side of its sync stream: pages, of the backlog and for whoever turns them, and counts. Asked
//! again where no answer comes: the first answer is as good as the second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::acks::Acks;
use super::reading::{Page, PageOptions};
use crate::delivery::RoundTrip;
use crate::id::{PeerId, StoreId};
use crate::link::Link;
use crate::protocol::limit::MAX_PAGE_BYTES;
use crate::protocol::{
    Frame, FrameType, PageA, PageR, Policy, PolicyA, PolicyChange, PolicyR, Status, StatusA, StatusR, Taken, WireError,
};
use crate::time::{Moment, SharedClock};
use crate::transport::{FrameSender, TransportError};

/// How long an answer may take before the question is asked again. Patient, since a page may be large and the way
/// slow.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The reader that fills the queue behind `recv`; the others are numbered from 1.
const QUEUE: u64 = 0;

/// One way through the mailbox, page by page.
#[derive(Debug)]
struct Reader {
    options: PageOptions,
    /// Behind which `seq` the next page begins.
    cursor: Option<u64>,
    asked: Option<Asked>,
    to: Goal,
}

/// Where pages go.
#[derive(Debug)]
enum Goal {
    /// The queue behind `recv`, if it has room.
    Queue { has_room: bool },
    /// An application that turns them itself.
    Application(Turning),
}

/// What an application reads, a page at a time.
#[derive(Debug)]
pub(super) struct Turning {
    pub(super) to: mpsc::Sender<Page>,
    /// It waits for a page.
    waits: bool,
    /// The next page, until it is wanted: only then are its messages in the application's hands.
    fetched: Option<PageA>,
    /// Nothing lay beyond the last page: one more is fetched only if it is wanted.
    at_end: bool,
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

/// What the application wants to know, or to have changed. Asked in the order of its calls.
#[derive(Debug)]
pub(crate) enum Question {
    /// What waits, from one sender alone if one is named.
    Status(Option<PeerId>, oneshot::Sender<Status>),
    /// Whose messages are taken.
    Policy(oneshot::Sender<Policy>),
    /// From now on these; the answer is whether that holds.
    Change(PolicyChange, oneshot::Sender<bool>),
}

/// The request for it, and when it was sent.
#[derive(Debug)]
struct QuestionAsked {
    request: u64,
    sent: Moment,
    question: Question,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Sync {
    clock: SharedClock,
    next_request: u64,
    readers: BTreeMap<u64, Reader>,
    questions: VecDeque<Question>,
    questions_asked: VecDeque<QuestionAsked>,
    round_trip: RoundTrip,
}

impl Sync {
    pub(super) const fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            next_request: 0,
            readers: BTreeMap::new(),
            questions: VecDeque::new(),
            questions_asked: VecDeque::new(),
            round_trip: RoundTrip::new(TIMEOUTS.0, TIMEOUTS.1),
        }
    }

    /// A session begins.
    pub(super) const fn connected(&mut self) {
        self.next_request = 0;
    }

    /// The cursors so far are another store's, and mean nothing to this one.
    pub(super) fn forget_cursors(&mut self) {
        for reader in self.readers.values_mut() {
            reader.cursor = None;
            if let Goal::Application(turning) = &mut reader.to {
                (turning.fetched, turning.at_end) = (None, false);
            }
        }
    }

    /// The session is over: everything is asked for again in the next.
    pub(super) fn disconnected(&mut self, acks: &mut Acks) {
        self.round_trip.reset();
        for reader in self.readers.values_mut() {
            if let Some(asked) = reader.asked.take() {
                acks.give_back(asked.answers);
            }
        }
        self.ask_again();
    }

    /// No answer will come any more.
    pub(super) fn stop(&mut self) {
        self.readers.clear();
        self.questions.clear();
        self.questions_asked.clear();
    }

    /// Reads the backlog into the queue from here on; `None` if there is none to read.
    pub(super) fn read_backlog(&mut self, options: Option<PageOptions>) {
        match options {
            Some(options) => {
                let (cursor, to) = (options.after, Goal::Queue { has_room: false });
                self.readers.insert(QUEUE, Reader { options, cursor, asked: None, to });
            }
            None => drop(self.readers.remove(&QUEUE)),
        }
    }

    /// Whether there is room in the queue for more of the backlog.
    pub(super) fn want_backlog(&mut self, has_room: bool) {
        if let Some(reader) = self.readers.get_mut(&QUEUE) {
            reader.to = Goal::Queue { has_room };
        }
    }

    /// Whether somebody reads, so that another page may be asked for soon.
    pub(super) fn is_reading(&self) -> bool {
        !self.readers.is_empty()
    }

    /// How far the backlog is read, if it is not all read.
    pub(super) fn backlog(&self) -> Option<Option<u64>> {
        self.readers.get(&QUEUE).map(|reader| reader.cursor)
    }

    /// A reader of its own, whose first page is fetched at once.
    pub(super) fn open(&mut self, reader: u64, options: PageOptions, to: mpsc::Sender<Page>) {
        let to = Goal::Application(Turning { to, waits: false, fetched: None, at_end: false });
        self.readers.insert(reader, Reader { options, cursor: options.after, asked: None, to });
    }

    /// The reader waits for its next page, which may be here already; or it is gone, and its channel is closed.
    pub(super) fn turn(&mut self, number: u64, acks: &mut Acks) -> Option<Turned> {
        let reader = self.readers.get_mut(&number)?;
        let Goal::Application(turning) = &mut reader.to else { return None };
        if turning.to.is_closed() {
            // What rode on its last request may not have arrived.
            let asked = self.readers.remove(&number).and_then(|reader| reader.asked);
            asked.into_iter().for_each(|asked| acks.give_back(asked.answers));
            return None;
        }
        turning.waits = true;
        turning.turn()
    }

    /// The application asks.
    pub(super) fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
    }

    /// Questions without an answer go before those that were not asked yet: a change may not overtake another.
    fn ask_again(&mut self) {
        for asked in self.questions_asked.drain(..).rev() {
            self.questions.push_front(asked.question);
        }
    }

    /// A page has come: for the queue, or for an application that waits for it.
    pub(super) fn page(&mut self, page: PageA, acks: &mut Acks) -> Result<Option<Turned>, WireError> {
        if page.request >= self.next_request {
            return Err(never_asked(FrameType::PageA));
        }
        let asked = |asked: &mut Asked| (asked.requests.0..=asked.requests.1).contains(&page.request);
        for reader in self.readers.values_mut() {
            let Some(asked) = reader.asked.take_if(asked) else { continue };
            if let (Some(sent), true) = (asked.sent, asked.requests.0 == asked.requests.1) {
                self.round_trip.sample(self.clock.now() - sent);
            }
            reader.cursor = page.cursor;
            acks.arrived(asked.answers);
            return Ok(match &mut reader.to {
                Goal::Queue { .. } => Some(Turned { page, to: None }),
                Goal::Application(turning) => {
                    turning.fetched = Some(page);
                    turning.turn()
                }
            });
        }
        // It came before.
        Ok(None)
    }

    pub(super) fn status(&mut self, answer: StatusA) -> Result<(), WireError> {
        match self.answered(answer.request, FrameType::StatusA)? {
            // Who no longer waits does not need to know.
            Some(Question::Status(_, reply)) => drop(reply.send(answer.status)),
            Some(_) => return Err(never_asked(FrameType::StatusA)),
            None => {}
        }
        Ok(())
    }

    pub(super) fn policy(&mut self, answer: PolicyA) -> Result<(), WireError> {
        // Who no longer waits does not need to know.
        match (self.answered(answer.request, FrameType::PolicyA)?, answer.policy) {
            (Some(Question::Policy(reply)), Some(policy)) => drop(reply.send(policy)),
            (Some(Question::Change(_, reply)), _) => drop(reply.send(!answer.full)),
            (Some(_), _) => return Err(never_asked(FrameType::PolicyA)),
            (None, _) => {}
        }
        Ok(())
    }

    /// The question of this request, if it still waits for its answer.
    fn answered(&mut self, request: u64, frame: FrameType) -> Result<Option<Question>, WireError> {
        let place = self.questions_asked.iter().position(|asked| asked.request == request);
        match place.and_then(|place| self.questions_asked.remove(place)) {
            Some(asked) => {
                self.round_trip.sample(self.clock.now() - asked.sent);
                Ok(Some(asked.question))
            }
            // It was asked again meanwhile.
            None if request < self.next_request => Ok(None),
            None => Err(never_asked(frame)),
        }
    }

    /// Whether no acknowledgement is on its way with a page request.
    pub(super) fn is_settled(&self) -> bool {
        self.readers.values().filter_map(|reader| reader.asked.as_ref()).all(|asked| asked.answers.is_empty())
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let pages = self.readers.values().filter_map(|reader| reader.asked.as_ref()?.sent);
        let questions = self.questions_asked.front().map(|asked| asked.sent);
        pages.chain(questions).min().map(|sent| sent + self.round_trip.timeout())
    }

    /// Time has passed: what is unanswered for too long is asked again.
    pub(super) fn on_timeout(&mut self, now: Moment) {
        if self.next_timeout().is_none_or(|late| now < late) {
            return;
        }
        self.round_trip.back_off();
        for asked in self.readers.values_mut().filter_map(|reader| reader.asked.as_mut()) {
            asked.sent = None;
        }
        self.ask_again();
    }

    /// Sends what is to be asked. The stream to wait for, if it has no room.
    pub(super) fn transmit(
        &mut self,
        link: &Link,
        store: StoreId,
        acks: &mut Acks,
    ) -> Result<Option<FrameSender>, TransportError> {
        let now = self.clock.now();
        while let Some(question) = self.questions.pop_front() {
            if !link.sync.try_send(&question.frame(self.next_request))? {
                self.questions.push_front(question);
                return Ok(Some(link.sync.clone()));
            }
            self.questions_asked.push_back(QuestionAsked { request: self.next_request, sent: now, question });
            self.next_request += 1;
        }
        for reader in self.readers.values_mut() {
            let late = reader.asked.as_ref().is_some_and(|asked| asked.sent.is_none());
            if !late && (reader.asked.is_some() || !reader.wants()) {
                continue;
            }
            if !reader.ask(self.next_request, now, link, store, acks)? {
                return Ok(Some(link.sync.clone()));
            }
            self.next_request += 1;
        }
        Ok(None)
    }
}

impl Question {
    fn frame(&self, request: u64) -> Frame {
        match self {
            Self::Status(sender, _) => StatusR { request, sender: *sender }.into(),
            Self::Policy(_) => PolicyR { request, change: PolicyChange::default() }.into(),
            Self::Change(change, _) => PolicyR { request, change: change.clone() }.into(),
        }
    }
}

/// A page on its way to whoever reads it; to the queue, if nobody is named.
pub(super) struct Turned {
    pub(super) page: PageA,
    pub(super) to: Option<mpsc::Sender<Page>>,
}

impl Turning {
    /// Gives the page that was fetched, if it is waited for.
    fn turn(&mut self) -> Option<Turned> {
        let page = if self.waits { self.fetched.take()? } else { return None };
        (self.waits, self.at_end) = (false, page.complete);
        Some(Turned { page, to: Some(self.to.clone()) })
    }
}

impl Reader {
    /// Whether there is a place for another page.
    const fn wants(&self) -> bool {
        match &self.to {
            Goal::Queue { has_room } => *has_room,
            Goal::Application(turning) => turning.fetched.is_none() && (turning.waits || !turning.at_end),
        }
    }

    /// Asks for the next page, or again for it. False if the stream has no room.
    fn ask(
        &mut self,
        request: u64,
        now: Moment,
        link: &Link,
        store: StoreId,
        acks: &mut Acks,
    ) -> Result<bool, TransportError> {
        let first = self.asked.as_ref().map_or(request, |again| again.requests.0);
        let answers = match &self.asked {
            // The same once more: a copy of it does no harm.
            Some(again) => again.answers.clone(),
            None => acks.take(),
        };
        let ask = PageR {
            request,
            order: self.options.order,
            cursor: self.cursor,
            sender: self.options.sender,
            max_messages: self.options.messages,
            max_bytes: MAX_PAGE_BYTES,
            store,
            answers: answers.clone(),
        };
        if !link.sync.try_send(&ask.into())? {
            if self.asked.is_none() {
                acks.give_back(answers);
            }
            return Ok(false);
        }
        self.asked = Some(Asked { requests: (first, request), answers, sent: Some(now) });
        Ok(true)
    }
}

const fn never_asked(frame: FrameType) -> WireError {
    WireError::BadValue { frame, what: "it answers a request that was never made" }
}
