//! The client's one task: everything that happens passes through here, one thing at a time.
//!
//! Each turn takes one event (a command, an answer of the application, a finished commit, frames, a timeout),
//! lets the two halves change, hands their changes to the store, and sends what may go out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::commits::{After, Commits};
use super::event::{Connection, Event, EventQueue, Seen};
use super::message::Answered;
use super::receiving::Receiving;
use super::sending::Sending;
use super::{Command, Stop};
use crate::address::RelayAddress;
use crate::delivery::Backoff;
use crate::link::{Link, LinkError, Stream};
use crate::protocol::{CloseCode, Frame, HelloR, NopN};
use crate::random::SharedEntropy;
use crate::store::StoreError;
use crate::store::redb::client::Change;
use crate::time::{Alarm, Moment, SharedClock, sleep_until};
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

/// How long a relay that is said to be started anew may say nothing before its connection counts as lost, at
/// least; three round trips if those are longer. A lost connection that is full of unacknowledged data sends
/// nothing that a restarted relay could answer until its next probe, and that may be many seconds off.
const DOUBT: Duration = Duration::from_millis(500);

/// An attempt to connect that lasts so long has to begin anew once the relay says that it is back: its next
/// packet may be two seconds off.
const STALE_ATTEMPT: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = Result<Box<Link>, LinkError>> + Send>>;

enum State {
    /// Until then.
    Waiting(Moment),
    Connecting {
        attempt: Connecting,
        since: Moment,
    },
    Up {
        link: Box<Link>,
        since: Moment,
        doubt: Option<Doubt>,
    },
    /// For good.
    Stopped,
}

/// The relay is said to be started anew; the connection is lost if nothing more comes on it.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    until: Moment,
    /// Datagrams that had come.
    received: u64,
}

/// What happened to the connection.
enum News {
    Due,
    Connected(Result<Box<Link>, LinkError>),
    Frame(Stream, Frame),
    Lost(TransportError),
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
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut state = self.connect();
        let mut closing: Option<(Moment, Vec<oneshot::Sender<()>>)> = None;
        let mut forget_at = self.clock.now();
        let mut alarm = Alarm::default();
        let mut commands = Vec::new();
        let ended = loop {
            let now = self.clock.now();
            if forget_at <= now {
                self.receiving.forget_silent(&mut self.commits);
                forget_at = now + FORGET_PAUSE;
            }
            let blocked = match self.turn(&mut state, closing.is_some()) {
                Ok(blocked) => blocked,
                Err(error) => {
                    state = self.lost(&state, &error, &mut backoff);
                    continue;
                }
            };
            if let Some((until, _)) = &closing
                && (*until <= now || self.is_finished(&state))
            {
                break None;
            }
            if state.is_lost(now) {
                state = self.lost(&state, &LinkError::Restarted, &mut backoff);
                continue;
            }
            let until = closing.as_ref().map(|(until, _)| *until).into_iter().chain(state.doubted_until()).min();
            let timeout = self.next_timeout(until, forget_at);
            let clock = self.clock.clone();
            let room = self.events.has_room();
            tokio::select! {
                biased;
                count = self.commands.recv_many(&mut commands, TURN_COMMANDS), if closing.is_none() => {
                    let close = commands.drain(..).find_map(|command| self.command(command));
                    if close.is_some() || count == 0 {
                        closing = Some((self.begin_closing(), close.into_iter().collect()));
                    }
                }
                Some(answered) = self.answers.recv() => self.answered(answered),
                Some(seen) = self.seen.recv() => self.seen(seen),
                Some(reader) = self.pages_wanted.recv() => if let Err(error) = self.receiving.turn_page(reader) {
                    state = self.lost(&state, &error.into(), &mut backoff);
                },
                done = self.commits.done(|| clock.now()) => match done {
                    Ok(after) => self.durable(after),
                    Err(error) => break Some(error),
                },
                letters = self.sending.letters() => match letters {
                    Ok(()) => {}
                    // They are asked for again at once: not as fast as a failing disk can say no.
                    Err(StoreError::Unavailable(_)) => tokio::time::sleep(READ_PAUSE).await,
                    Err(error) => break Some(error),
                },
                () = self.receiving.hand_out() => {}
                news = state.next(&*clock), if room => match self.news(&mut state, news) {
                    Ok(()) => {}
                    Err(error) => state = self.lost(&state, &error, &mut backoff),
                },
                caller = self.endpoint.woken() => {
                    tracing::debug!(%caller, "the relay says that it was started anew");
                    self.woken(&mut state, &mut backoff);
                }
                () = writable(blocked.as_ref()), if blocked.is_some() => {}
                () = alarm.ring(&*clock, timeout) => self.on_timeout(),
            }
        };
        self.end(state, ended).await;
        for done in closing.into_iter().flat_map(|(_, waiting)| waiting) {
            done.send(()).ok();
        }
    }

    fn connect(&self) -> State {
        let invitation = self.invitation.clone();
        let hello = HelloR { invitation, ..self.receiving.hello(self.ack_timeout) };
        let (endpoint, relay) = (self.endpoint.clone(), self.relay.clone());
        let attempt = Box::pin(async move { Link::open(&endpoint, &relay, hello).await.map(Box::new) });
        State::Connecting { attempt, since: self.clock.now() }
    }

    /// Does all that can be done now. The stream to wait for, if one has no room.
    fn turn(&mut self, state: &mut State, closing: bool) -> Result<Option<FrameSender>, LinkError> {
        if self.sending.carry_out(&mut self.commits, &mut self.events) {
            return Err(LinkError::Silent);
        }
        if self.events.has_room_for_noise()
            && let Some(event) = self.receiving.forgeries().take(self.clock.now())
        {
            tracing::warn!(?event, "forged messages were refused");
            self.events.tell(event);
        }
        let mut blocked = None;
        if let State::Up { link, .. } = state {
            blocked = self.receiving.transmit(link, closing)?;
            if !self.sending.transmit(link, &self.commits)? {
                blocked = Some(link.submit.clone());
            }
        }
        self.commits.submit(self.clock.now(), self.receiving.inbox());
        Ok(blocked)
    }

    fn next_timeout(&mut self, closing: Option<Moment>, forget_at: Moment) -> Option<Moment> {
        let timeouts =
            [self.sending.next_timeout(), self.receiving.next_timeout(), self.commits.next_timeout(), closing];
        let forgeries = self.receiving.forgeries().next_timeout().filter(|_| self.events.has_room_for_noise());
        timeouts.into_iter().flatten().chain(forgeries).chain([forget_at]).min()
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

    fn news(&mut self, state: &mut State, news: News) -> Result<(), LinkError> {
        match news {
            News::Due => *state = self.connect(),
            News::Connected(link) => {
                let link = link?;
                self.sending.connected(&link);
                self.receiving.connected(&link);
                let status = link.hello.status.clone();
                self.connection.send_replace(Connection::Open { status: status.clone() });
                self.events.tell(Event::Connected { status });
                *state = State::Up { link, since: self.clock.now(), doubt: None };
            }
            News::Lost(error) => return Err(error.into()),
            News::Frame(stream, frame) => {
                let State::Up { link, .. } = state else { return Ok(()) };
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
    fn lost(&mut self, state: &State, error: &LinkError, backoff: &mut Backoff) -> State {
        let now = self.clock.now();
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
            return State::Stopped;
        }
        if matches!(error, LinkError::Restarted | LinkError::Transport(TransportError::Closed(CloseReason::Reset))) {
            // It was restarted, so it is there.
            backoff.reset();
        }
        let retry_in = match error {
            LinkError::GoingAway(delay) => {
                backoff.reset();
                *delay
            }
            _ => backoff.next_wait(self.entropy.word()),
        };
        tracing::debug!(%reason, ?retry_in, "not connected");
        self.connection.send_replace(Connection::Lost { reason: reason.clone(), retry_in });
        self.events.tell(Event::Disconnected { reason, retry_in });
        State::Waiting(now + retry_in)
    }

    /// The relay says that it was started anew. Anybody could say so, so it only makes us look.
    fn woken(&self, state: &mut State, backoff: &mut Backoff) {
        let now = self.clock.now();
        match state {
            State::Up { link, doubt, .. } => {
                // On a lost connection the answer is a reset, and that ends it. A full stream is busy enough.
                drop(link.submit.try_send(&NopN {}.into()));
                doubt.get_or_insert(Doubt {
                    until: now + DOUBT.max(3 * link.connection.rtt()),
                    received: link.connection.datagrams_received(),
                });
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

    fn begin_closing(&mut self) -> Moment {
        // What the application said before it closed the client counts, whatever the order it is read in.
        if let Ok(seen) = self.seen.try_recv() {
            self.seen(seen);
        }
        while let Ok(answered) = self.answers.try_recv() {
            self.receiving.answered(answered, &mut self.commits);
        }
        self.sending.retire();
        self.clock.now() + CLOSE_PATIENCE
    }

    /// Whether a client that is being closed owes nobody anything that could be told now.
    fn is_finished(&self, state: &State) -> bool {
        let told = match state {
            State::Up { .. } => self.receiving.is_settled() && !self.sending.is_closing(),
            _ => true,
        };
        told && self.commits.is_idle()
    }

    async fn end(mut self, state: State, failed: Option<StoreError>) {
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
        if let State::Up { link, .. } = &state {
            // What is written has to leave first: a close overtakes it.
            for sender in [&link.submit, &link.notify, &link.sync] {
                drop(tokio::time::timeout(FAREWELL, sender.flush()).await);
            }
            link.connection.close(CloseCode::Done, "the client is closed");
        }
        self.endpoint.close(CloseCode::Done, "the client is closed");
        drop(tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await);
        drop(self.commits.store().close().await);
    }
}

impl State {
    /// When a connection in doubt counts as lost.
    fn doubted_until(&self) -> Option<Moment> {
        match self {
            Self::Up { doubt: Some(doubt), .. } => Some(doubt.until),
            _ => None,
        }
    }

    /// Whether nothing came on a connection in doubt for too long.
    fn is_lost(&mut self, now: Moment) -> bool {
        let Self::Up { link, doubt, .. } = self else { return false };
        match doubt.take_if(|doubt| doubt.until <= now) {
            Some(over) => link.connection.datagrams_received() == over.received,
            None => false,
        }
    }

    /// Cancel-safe: news is either returned or still waits.
    async fn next(&mut self, clock: &dyn crate::time::Clock) -> News {
        match self {
            Self::Waiting(until) => {
                sleep_until(clock, Some(*until)).await;
                News::Due
            }
            Self::Connecting { attempt, .. } => News::Connected(attempt.await),
            Self::Up { link, .. } => match link.next().await {
                Ok((stream, frame)) => News::Frame(stream, frame),
                Err(error) => News::Lost(error),
            },
            Self::Stopped => std::future::pending().await,
        }
    }
}

async fn writable(blocked: Option<&FrameSender>) {
    if let Some(sender) = blocked {
        // A broken stream shows when it is read.
        drop(sender.writable().await);
    }
}
