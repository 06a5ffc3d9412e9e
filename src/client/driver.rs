//! The client's one task: everything that happens passes through here, one thing at a time.
//!
//! Each turn takes what there is (commands, answers of the application, finished commits, frames, timeouts), lets
//! the two halves change, hands their changes to the store, and sends what may go out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot, watch};

use super::commits::{After, Commits};
use super::event::{Connection, Event, EventQueue, Seen};
use super::message::Answered;
use super::receiving::Receiving;
use super::sending::Sending;
use super::state::{Doubt, News, STALE_ATTEMPT, State};
use super::{Command, Stop};
use crate::address::RelayAddress;
use crate::delivery::Backoff;
use crate::link::{Link, LinkError, Stream};
use crate::protocol::{CloseCode, Frame, HelloR, NopN};
use crate::random::SharedEntropy;
use crate::store::StoreError;
use crate::store::redb::client::Change;
use crate::time::{Alarm, Moment, SharedClock};
use crate::transport::{ClientEndpoint, CloseReason, FrameSender, TransportError};

/// The first and the longest wait between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A session that lasted so long was a good one: the next attempt begins with the shortest wait.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// How long a client that is closed tries to tell the relay what it still owes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long it then waits for the relay to hear that the connection is closed.
const FAREWELL: Duration = Duration::from_millis(500);

/// How often lanes that went silent are looked for.
const FORGET_PAUSE: Duration = Duration::from_secs(3600);

/// How long a store that cannot be read is left alone.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Commands of the application taken in one turn.
const TURN_COMMANDS: usize = 256;

/// Frames taken in one turn.
const TURN_FRAMES: usize = 1024;

/// Inputs taken in one turn.
const TURN_INPUTS: usize = 32;

/// Something for the driver to take up.
enum Input {
    /// They lie in [`Course::commands`]; none once there can be no more.
    Commands,
    Answered(Answered),
    Seen(Seen),
    PageWanted(u64),
    Durable(Result<Vec<After>, StoreError>),
    Letters(Result<(), StoreError>),
    HandedOut,
    News(News),
    Woken(SocketAddr),
    Writable,
    Timeout,
}

/// What the driver is in the middle of.
struct Course {
    state: State,
    backoff: Backoff,
    closing: Option<Closing>,
    commands: Vec<Command>,
    /// A stream that has no room, and something waits for it.
    blocked: Option<FrameSender>,
    timeout: Option<Moment>,
    alarm: Alarm,
    forget_at: Moment,
}

/// The application closed the client.
struct Closing {
    until: Moment,
    /// Told once the client is closed.
    done: Option<oneshot::Sender<()>>,
}

/// Why a turn cannot go on.
enum Failure {
    Link(LinkError),
    Store(StoreError),
}

impl<E: Into<LinkError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Link(error.into())
    }
}

pub(super) struct Driver {
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
    pub(super) endpoint: Arc<ClientEndpoint>,
    pub(super) relay: RelayAddress,
    pub(super) ack_timeout: Duration,
    pub(super) invitation: Option<String>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) answers: mpsc::UnboundedReceiver<Answered>,
    pub(super) seen: mpsc::UnboundedReceiver<Seen>,
    pub(super) pages_wanted: mpsc::UnboundedReceiver<u64>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) connection: watch::Sender<Connection>,
    pub(super) commits: Commits,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) events: EventQueue,
}

impl Driver {
    /// Runs until the client is closed or its store fails.
    pub(super) async fn run(mut self) {
        let mut course = Course {
            state: self.connect(),
            backoff: Backoff::new(RECONNECT.0, RECONNECT.1),
            closing: None,
            commands: Vec::new(),
            blocked: None,
            timeout: None,
            alarm: Alarm::default(),
            forget_at: self.clock.now(),
        };
        let failed = loop {
            match self.turn(&mut course) {
                Ok(false) => {}
                Ok(true) => break None,
                Err(Failure::Store(error)) => break Some(error),
                Err(Failure::Link(error)) => {
                    self.lost(&mut course, &error);
                    continue;
                }
            }
            if let Err(error) = self.listen(&mut course).await {
                break Some(error);
            }
        };
        self.end(course, failed).await;
    }

    /// Does all that can be done now. True if a client that is being closed is done.
    fn turn(&mut self, course: &mut Course) -> Result<bool, Failure> {
        let now = self.clock.now();
        if course.forget_at <= now {
            self.receiving.forget_silent(&mut self.commits);
            course.forget_at = now + FORGET_PAUSE;
        }
        loop {
            if self.sending.carry_out(&mut self.commits, &mut self.events) {
                return Err(LinkError::Silent.into());
            }
            self.commits.submit(now, self.receiving.inbox());
            // A store in memory is done at once, and what follows from that belongs to this turn.
            match self.commits.done(|| now).now_or_never() {
                Some(after) => self.durable(after.map_err(Failure::Store)?),
                None => break,
            }
        }
        if self.events.has_room_for_noise()
            && let Some(event) = self.receiving.forgeries().take(now)
        {
            tracing::warn!(?event, "forged messages were refused");
            self.events.tell(event);
        }
        course.blocked = None;
        if let State::Up { link, .. } = &course.state {
            course.blocked = self.receiving.transmit(link, course.closing.is_some())?;
            if !self.sending.transmit(link, &self.commits)? {
                course.blocked = Some(link.submit.clone());
            }
            link.write();
        }
        if let Some(closing) = &course.closing
            && (closing.until <= now || self.is_finished(&course.state))
        {
            return Ok(true);
        }
        if course.state.is_lost(now) {
            return Err(LinkError::Restarted.into());
        }
        course.timeout = self.next_timeout(course);
        Ok(false)
    }

    /// Waits for something to happen, and takes up all that has happened then.
    async fn listen(&mut self, course: &mut Course) -> Result<(), StoreError> {
        let first = self.input(course).await;
        // Whoever else can run now may have more for this turn, and a turn costs about the same for one as for many.
        others_first().await;
        self.take(first, course).await?;
        for _ in 1..TURN_INPUTS {
            let Some(next) = self.input(course).now_or_never() else { break };
            self.take(next, course).await?;
        }
        Ok(())
    }

    async fn take(&mut self, input: Input, course: &mut Course) -> Result<(), StoreError> {
        match input {
            Input::Commands => {
                let none = course.commands.is_empty();
                let close = course.commands.drain(..).find_map(|command| self.command(command));
                if close.is_some() || none {
                    course.closing = Some(self.begin_closing(close));
                }
            }
            Input::Answered(answered) => self.answered(answered),
            Input::Seen(seen) => self.seen(seen),
            Input::PageWanted(reader) => {
                if let Err(error) = self.receiving.turn_page(reader) {
                    self.lost(course, &error.into());
                }
            }
            Input::Durable(after) => self.durable(after?),
            // They are asked for again at once: not as fast as a failing disk can say no.
            Input::Letters(Err(StoreError::Unavailable(_))) => tokio::time::sleep(READ_PAUSE).await,
            Input::Letters(letters) => letters?,
            Input::HandedOut => {}
            Input::News(news) => {
                if let Err(error) = self.news(course, news) {
                    self.lost(course, &error);
                }
            }
            Input::Woken(caller) => {
                tracing::debug!(%caller, "the relay says that it was started anew");
                self.woken(course);
            }
            Input::Writable => course.blocked = None,
            Input::Timeout => {
                course.timeout = None;
                self.on_timeout();
            }
        }
        // At once, or a question that comes next would miss what is neither waiting nor told.
        if self.sending.carry_out(&mut self.commits, &mut self.events) {
            self.lost(course, &LinkError::Silent);
        }
        Ok(())
    }

    /// Waits for the next of all that may happen.
    ///
    /// Cancel-safe.
    async fn input(&mut self, course: &mut Course) -> Input {
        let clock = self.clock.clone();
        let room = self.events.has_room();
        let Course { state, closing, commands, blocked, timeout, alarm, .. } = course;
        tokio::select! {
            biased;
            _ = self.commands.recv_many(commands, TURN_COMMANDS), if closing.is_none() => Input::Commands,
            Some(answered) = self.answers.recv() => Input::Answered(answered),
            Some(seen) = self.seen.recv() => Input::Seen(seen),
            Some(reader) = self.pages_wanted.recv() => Input::PageWanted(reader),
            done = self.commits.done(|| clock.now()) => Input::Durable(done),
            letters = self.sending.letters() => Input::Letters(letters),
            () = self.receiving.hand_out() => Input::HandedOut,
            news = state.next(&*clock), if room => Input::News(news),
            caller = self.endpoint.woken() => Input::Woken(caller),
            () = writable(blocked.as_ref()), if blocked.is_some() => Input::Writable,
            () = alarm.ring(&*clock, *timeout) => Input::Timeout,
        }
    }

    fn connect(&self) -> State {
        let invitation = self.invitation.clone();
        let hello = HelloR { invitation, ..self.receiving.hello(self.ack_timeout) };
        let (endpoint, relay) = (self.endpoint.clone(), self.relay.clone());
        let attempt = Box::pin(async move { Link::open(&endpoint, &relay, hello).await.map(Box::new) });
        State::Connecting { attempt, since: self.clock.now() }
    }

    fn next_timeout(&mut self, course: &Course) -> Option<Moment> {
        let closing = course.closing.as_ref().map(|closing| closing.until);
        let own = [self.sending.next_timeout(), self.receiving.next_timeout(), self.commits.next_timeout()];
        let forgeries = self.receiving.forgeries().next_timeout().filter(|_| self.events.has_room_for_noise());
        let others = [closing, course.state.doubted_until(), forgeries, Some(course.forget_at)];
        own.into_iter().chain(others).flatten().min()
    }

    fn on_timeout(&mut self) {
        let now = self.clock.now();
        self.sending.on_timeout(now);
        self.receiving.on_timeout(now);
    }

    /// Does what the application wants. Whom to tell once the client is closed, if it has to be.
    fn command(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Send(drafts, reply) => self.sending.send(drafts, &mut self.commits, reply),
            Command::Ask(question) => self.receiving.ask(question),
            Command::Pages(reader, options, to) => self.receiving.open_pages(reader, options, to),
            Command::Events(reply) => drop(reply.send(self.events.subscribe())),
            Command::Waiting(reply) => drop(reply.send(self.sending.waiting())),
            Command::Unaccepted(reply) => drop(reply.send(self.sending.unaccepted())),
            Command::Close(done) => return Some(done),
        }
        None
    }

    fn answered(&mut self, first: Answered) {
        self.receiving.answered(first, &mut self.commits);
        while let Ok(next) = self.answers.try_recv() {
            self.receiving.answered(next, &mut self.commits);
        }
    }

    fn seen(&mut self, first: Seen) {
        let mut next = Some(first);
        while let Some(seen) = next {
            match seen.outcome {
                Some(key) if self.events.confirm(key) => self.commits.change(Change::Forget(key)),
                Some(_) => {}
                None => self.events.taken(),
            }
            next = self.seen.try_recv().ok();
        }
    }

    fn durable(&mut self, after: Vec<After>) {
        for after in after {
            match after {
                After::Sent { entries, outgoing, reply } => {
                    self.sending.sent(entries);
                    // Who no longer waits has sent it all the same.
                    reply.send(Ok(outgoing)).ok();
                }
                After::NotSent { entries } => self.sending.not_sent(&entries),
                After::Resolved { key, receipt, outcome } => {
                    self.sending.resolved((key, receipt), outcome, &mut self.events, &mut self.commits);
                }
                After::Remembered => self.sending.remembered(),
                After::Answered { place, durable } => self.receiving.durable(place, durable),
            }
        }
    }

    fn news(&mut self, course: &mut Course, news: News) -> Result<(), LinkError> {
        match news {
            News::Due => course.state = self.connect(),
            News::Connected(link) => {
                let link = link?;
                self.sending.connected(&link);
                self.receiving.connected(&link);
                let status = link.hello.status.clone();
                self.connection.send_replace(Connection::Open { status: status.clone() });
                self.events.tell(Event::Connected { status });
                course.state = State::Up { link, since: self.clock.now(), doubt: None };
            }
            News::Lost(error) => return Err(error.into()),
            News::Frame(stream, frame) => {
                let State::Up { link, .. } = &mut course.state else { return Ok(()) };
                link.hand_over((stream, frame), TURN_FRAMES, |stream, frame| self.receive(stream, frame))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, stream: Stream, frame: Frame) -> Result<(), LinkError> {
        match (stream, frame) {
            (Stream::Notify, Frame::GoawayN(goaway)) => return Err(goaway.into()),
            (_, frame) if Sending::concerns(stream, &frame) => self.sending.receive(frame)?,
            (_, frame) => self.receiving.receive(stream, frame)?,
        }
        Ok(())
    }

    /// The session is over, or did not begin.
    fn lost(&mut self, course: &mut Course, error: &LinkError) {
        let now = self.clock.now();
        let Course { state, backoff, .. } = course;
        if let State::Up { link, since, .. } = state {
            if now - *since >= GOOD_SESSION {
                backoff.reset();
            }
            match error {
                LinkError::Transport(error) => link.connection.close_for(error),
                LinkError::GoingAway(_) => link.connection.close(CloseCode::Done, "as told"),
                _ => link.connection.close(CloseCode::Done, "the relay is silent"),
            }
            self.sending.disconnected();
            self.receiving.disconnected();
        }
        let reason = error.to_string();
        if !error.is_transient() {
            tracing::warn!(%reason, "the client stops");
            let superseded = matches!(error, LinkError::Transport(TransportError::Closed(reason))
                if reason.code() == Some(CloseCode::Superseded));
            let stop = if superseded { Stop::Superseded } else { Stop::Refused(reason.clone()) };
            // Before anybody who waits is let go, and asks why.
            self.stop.send_replace(Some(stop.clone()));
            self.connection.send_replace(Connection::Stopped(stop));
            self.receiving.stop();
            self.events.tell(Event::Stopped { reason });
            *state = State::Stopped;
            return;
        }
        if matches!(error, LinkError::Restarted | LinkError::Transport(TransportError::Closed(CloseReason::Reset))) {
            // It was restarted, so it is there.
            backoff.reset();
        }
        let wait = backoff.next_wait(self.entropy.word());
        let retry_in = match error {
            // Not sooner, but perhaps later: a relay may not make its clients come as fast as they can.
            LinkError::GoingAway(delay) => wait.max(*delay),
            _ => wait,
        };
        tracing::debug!(%reason, ?retry_in, "not connected");
        self.connection.send_replace(Connection::Lost { reason: reason.clone(), retry_in });
        self.events.tell(Event::Disconnected { reason, retry_in });
        *state = State::Waiting(now + retry_in);
    }

    /// The relay says that it was started anew. Anybody could say so, so it only makes us look.
    fn woken(&self, course: &mut Course) {
        let now = self.clock.now();
        let Course { state, backoff, .. } = course;
        match state {
            State::Up { link, doubt, .. } => {
                // On a lost connection the answer is a reset, and that ends it. A full stream is busy enough.
                drop(link.submit.try_send(&NopN {}.into()));
                link.submit.write();
                doubt.get_or_insert(Doubt::about(link, now));
            }
            State::Waiting(until) => {
                backoff.reset();
                *until = (*until).min(now + backoff.next_wait(self.entropy.word()));
            }
            State::Connecting { since, .. } => {
                backoff.reset();
                if now - *since >= STALE_ATTEMPT {
                    *state = self.connect();
                }
            }
            State::Stopped => {}
        }
    }

    fn begin_closing(&mut self, done: Option<oneshot::Sender<()>>) -> Closing {
        // What the application said before it closed the client counts, whatever the order it is read in.
        if let Ok(seen) = self.seen.try_recv() {
            self.seen(seen);
        }
        while let Ok(answered) = self.answers.try_recv() {
            self.receiving.answered(answered, &mut self.commits);
        }
        self.sending.retire();
        Closing { until: self.clock.now() + CLOSE_PATIENCE, done }
    }

    /// Whether a client that is being closed owes nobody anything that could be told now.
    fn is_finished(&self, state: &State) -> bool {
        let told = match state {
            State::Up { .. } => self.receiving.is_settled() && !self.sending.is_closing(),
            _ => true,
        };
        told && self.commits.is_idle()
    }

    async fn end(mut self, course: Course, failed: Option<StoreError>) {
        let stop = failed.map_or(Stop::Closed, |error| {
            tracing::error!(%error, "the client's store cannot be used any more");
            Stop::Store(error)
        });
        self.stop.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(stop.clone());
            }
            first
        });
        self.connection.send_if_modified(|now| {
            let first = !matches!(now, Connection::Stopped(_));
            if first {
                *now = Connection::Stopped(stop.clone());
            }
            first
        });
        self.receiving.stop();
        if let Stop::Store(error) = &stop {
            self.events.tell(Event::Stopped { reason: error.to_string() });
        }
        if let State::Up { link, .. } = &course.state {
            // What is written has to leave first: a close overtakes it.
            for sender in [&link.submit, &link.notify, &link.sync] {
                drop(tokio::time::timeout(FAREWELL, sender.flush()).await);
            }
            // QUIC sends what it has taken when its own task runs.
            tokio::task::yield_now().await;
            link.connection.close(CloseCode::Done, "the client is closed");
        }
        self.endpoint.close(CloseCode::Done, "the client is closed");
        drop(tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await);
        drop(self.commits.store().close().await);
        if let Some(done) = course.closing.and_then(|closing| closing.done) {
            // Who no longer waits does not need to know.
            done.send(()).ok();
        }
    }
}

/// Lets others run that can. On a runtime of one thread tokio's `yield_now` would also look for what the network has, which
/// costs a message on its way two system calls and more at each of its steps.
async fn others_first() {
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        return tokio::task::yield_now().await;
    }
    let mut gone = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn writable(blocked: Option<&FrameSender>) {
    if let Some(sender) = blocked {
        // A broken stream shows when it is read.
        drop(sender.writable().await);
    }
}
