//! The client's side of its sync stream: pages, of the backlog and for whoever turns them, and counts. Asked
//! again where no answer comes: the first answer is as good as the second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Stop;
use super::acks::Acks;
use super::reading::{Page, PageOptions};
use crate::delivery::RoundTrip;
use crate::id::{PeerId, StoreId};
use crate::link::Link;
use crate::protocol::limit::MAX_PAGE_BYTES;
use crate::protocol::{FrameType, PageA, PageR, Status, StatusA, StatusR, Taken, WireError};
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
    /// Somebody waits for that page.
    wanted: bool,
    asked: Option<Asked>,
    to: Goal,
}

/// Where pages go.
#[derive(Debug, Clone)]
pub(super) enum Goal {
    /// The queue behind `recv`.
    Queue,
    /// An application that turns them itself.
    Application(mpsc::Sender<Page>),
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
#[derive(Debug)]
pub(super) struct Sync {
    clock: SharedClock,
    next_request: u64,
    readers: BTreeMap<u64, Reader>,
    last_reader: u64,
    statuses: VecDeque<StatusWanted>,
    statuses_asked: VecDeque<StatusAsked>,
    round_trip: RoundTrip,
}

impl Sync {
    pub(super) const fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            next_request: 0,
            readers: BTreeMap::new(),
            last_reader: QUEUE,
            statuses: VecDeque::new(),
            statuses_asked: VecDeque::new(),
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
        }
    }

    /// The session is over: everything is asked for again in the next.
    pub(super) fn disconnected(&mut self, acks: &mut Acks) {
        self.round_trip.reset();
        for reader in self.readers.values_mut() {
            if let Some(asked) = reader.asked.take() {
                reader.wanted = true;
                acks.give_back(asked.answers);
            }
        }
        self.statuses.extend(self.statuses_asked.drain(..).map(|asked| asked.wanted));
    }

    /// No answer will come any more.
    pub(super) fn stop(&mut self) {
        self.readers.clear();
        self.statuses.clear();
        self.statuses_asked.clear();
    }

    /// Reads the backlog into the queue from here on; `None` if there is none to read.
    pub(super) fn read_backlog(&mut self, options: Option<PageOptions>) {
        match options {
            Some(options) => {
                let cursor = options.after;
                self.readers.insert(QUEUE, Reader { options, cursor, wanted: false, asked: None, to: Goal::Queue });
            }
            None => drop(self.readers.remove(&QUEUE)),
        }
    }

    /// Whether there is room in the queue for more of the backlog.
    pub(super) fn want_backlog(&mut self, wanted: bool) {
        if let Some(reader) = self.readers.get_mut(&QUEUE) {
            reader.wanted = wanted;
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

    /// A reader of its own, whose first page is wanted at once.
    pub(super) fn open(&mut self, options: PageOptions, to: mpsc::Sender<Page>) -> u64 {
        self.last_reader += 1;
        let (cursor, to) = (options.after, Goal::Application(to));
        self.readers.insert(self.last_reader, Reader { options, cursor, wanted: true, asked: None, to });
        self.last_reader
    }

    /// The reader wants its next page; or it wants nothing any more, and its channel is closed.
    pub(super) fn want(&mut self, reader: u64) {
        if let Some(found) = self.readers.get_mut(&reader) {
            found.wanted = true;
        }
        self.readers.retain(|_, reader| !matches!(&reader.to, Goal::Application(to) if to.is_closed()));
    }

    /// Wants to know what waits.
    pub(super) fn ask_status(&mut self, sender: Option<PeerId>, reply: oneshot::Sender<Result<Status, Stop>>) {
        self.statuses.push_back(StatusWanted { sender, reply });
    }

    /// Where this page goes; nowhere, if it came before.
    pub(super) fn page(&mut self, page: &PageA, acks: &mut Acks) -> Result<Option<Goal>, WireError> {
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
            return Ok(Some(reader.to.clone()));
        }
        Ok(None)
    }

    pub(super) fn status(&mut self, answer: StatusA) -> Result<(), WireError> {
        let place = self.statuses_asked.iter().position(|asked| asked.request == answer.request);
        match place.and_then(|place| self.statuses_asked.remove(place)) {
            Some(asked) => {
                self.round_trip.sample(self.clock.now() - asked.sent);
                asked.wanted.reply.send(Ok(answer.status)).ok();
                Ok(())
            }
            // It was asked again meanwhile.
            None if answer.request < self.next_request => Ok(()),
            None => Err(never_asked(FrameType::StatusA)),
        }
    }

    /// Whether no acknowledgement is on its way with a page request.
    pub(super) fn is_settled(&self) -> bool {
        self.readers.values().filter_map(|reader| reader.asked.as_ref()).all(|asked| asked.answers.is_empty())
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let pages = self.readers.values().filter_map(|reader| reader.asked.as_ref()?.sent);
        let statuses = self.statuses_asked.front().map(|asked| asked.sent);
        pages.chain(statuses).min().map(|sent| sent + self.round_trip.timeout())
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
        for asked in self.statuses_asked.drain(..).rev() {
            self.statuses.push_front(asked.wanted);
        }
    }

    /// Sends what is to be asked. The stream to wait for, if it has no room.
    pub(super) fn transmit(
        &mut self,
        link: &Link,
        store: StoreId,
        acks: &mut Acks,
    ) -> Result<Option<FrameSender>, TransportError> {
        let now = self.clock.now();
        while let Some(wanted) = self.statuses.pop_front() {
            if !link.sync.try_send(&StatusR { request: self.next_request, sender: wanted.sender }.into())? {
                self.statuses.push_front(wanted);
                return Ok(Some(link.sync.clone()));
            }
            self.statuses_asked.push_back(StatusAsked { request: self.next_request, sent: now, wanted });
            self.next_request += 1;
        }
        for reader in self.readers.values_mut() {
            let late = reader.asked.as_ref().is_some_and(|asked| asked.sent.is_none());
            if !late && (reader.asked.is_some() || !reader.wanted) {
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

impl Reader {
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
        self.wanted = false;
        self.asked = Some(Asked { requests: (first, request), answers, sent: Some(now) });
        Ok(true)
    }
}

const fn never_asked(frame: FrameType) -> WireError {
    WireError::BadValue { frame, what: "it answers a request that was never made" }
}
