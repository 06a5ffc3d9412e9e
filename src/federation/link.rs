//! One link: a client of another relay that forwards what lies in the outbox for it, and learns the outcomes.
//!
//! It connects when something waits for an outcome, and stays until nothing does. The rules are the outbox
//! machine's; here its effects meet the store and its requests the connection.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::feed::{Feed, News};
use super::{Context, Order, Standing, Status};
use crate::address::HostPort;
use crate::delivery::{Backoff, Effect, Entry, Offer, Outbox, OutboxOptions, Receipt, Request, Restored};
use crate::id::{LaneKey, PeerId, RelayId};
use crate::link::{self, Link as Connected, LinkError, Stream, unexpected};
use crate::protocol::{CloseCode, Frame, MsgR, Outcome, Role, Verdict};
use crate::store::told::Told;
use crate::store::{Done, Fence, LinkState, Op, Reply, StoreError, Stored, outbox_key};
use crate::time::{Alarm, Moment, millis, sleep_until};
use crate::transport::{FrameSender, TransportError};

/// The first and the longest wait between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A session that lasted so long begins the waits anew.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// How long a link stays connected with nothing to wait for.
const IDLE: Duration = Duration::from_secs(60);

/// How long a link waits before it asks its own store again after that failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Frames taken in one turn, and messages that are wanted from the store at a time.
const TURN_FRAMES: usize = 256;
const READ_MESSAGES: usize = 64;

/// Lanes that are kept open with nothing in them.
const MAX_LANES: usize = 10_000;

/// Outcomes that go into the store together, and such batches at a time.
const BATCH_OUTCOMES: usize = 4096;
const BATCHES: usize = 4;

type Attempt = Pin<Box<dyn Future<Output = Result<Box<Connected>, LinkError>> + Send>>;

enum State {
    Idle,
    Waiting(Moment),
    Connecting(Attempt),
    Up { link: Box<Connected>, since: Moment },
}

/// What the store is busy with.
enum Commit {
    Remember,
    Outcomes { told: Told, receipts: Vec<Receipt> },
}

/// A message of which the other relay said what became of it.
struct Resolved {
    lane: LaneKey,
    n: u64,
    verdict: Verdict,
}

/// See the head of this file.
pub(super) struct Link {
    context: Arc<Context>,
    relay: RelayId,
    key: PeerId,
    orders: watch::Receiver<Order>,
    status: watch::Sender<Status>,
    orphaned: bool,
    /// Where it was connected last, as a place to try.
    met_at: Option<HostPort>,
    outbox: Outbox,
    foreign_below: u64,
    /// What lay in the outbox when the relay was started is still being read.
    restoring: bool,
    feed: Feed,
    requests: VecDeque<Request>,
    resolved: BTreeMap<u64, Resolved>,
    receipts: Vec<Receipt>,
    commits: VecDeque<(Reply<Vec<Done>>, Op, Commit)>,
    /// The store did not work: until when to leave it alone, and whether the oldest commit failed.
    paused: Option<Moment>,
    failed: bool,
    idle_since: Option<Moment>,
}

impl Link {
    pub(super) fn new(
        context: Arc<Context>,
        orders: watch::Receiver<Order>,
        status: watch::Sender<Status>,
        state: Option<LinkState>,
    ) -> Self {
        let relay = orders.borrow().address.relay;
        let key = outbox_key(&relay);
        let me = PeerId::from_bytes(*context.me.as_bytes());
        let options = OutboxOptions { names: Some(relay), keeps_lanes: true, ..OutboxOptions::new(me) };
        let restoring = state.is_some();
        let (store, foreign_below) = state.map_or((None, 0), |state| (state.store, state.foreign_below));
        Self {
            relay,
            key,
            orders,
            status,
            orphaned: false,
            met_at: None,
            outbox: Outbox::open(options, store, Vec::<Restored>::new()),
            foreign_below,
            restoring,
            feed: Feed::new(&context, key, !restoring),
            requests: VecDeque::new(),
            resolved: BTreeMap::new(),
            receipts: Vec::new(),
            commits: VecDeque::new(),
            paused: None,
            failed: false,
            idle_since: None,
            context,
        }
    }

    /// Whether the relay that it belongs to is gone.
    pub(super) const fn is_orphaned(&self) -> bool {
        self.orphaned
    }

    /// Nothing waits: what is known of the relay is needed no longer.
    pub(super) fn release(&self) {
        release(&self.context, &self.relay);
    }

    /// Runs until nothing has waited for long, or its relay ends; how often it had been wanted by then.
    pub(super) async fn run(&mut self) -> u64 {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut state = State::Idle;
        let mut alarm = Alarm::default();
        let Order { mut times, mut hopes, .. } = *self.orders.borrow_and_update();
        loop {
            let now = self.context.clock.now();
            let blocked = match self.turn(&mut state) {
                Ok(blocked) => blocked,
                Err(error) => {
                    state = self.lost(&state, &error, &mut backoff);
                    continue;
                }
            };
            if self.is_done(now, &mut state).await {
                return times;
            }
            self.tell_status(&state);
            let timeout = self.next_timeout();
            let context = self.context.clone();
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        self.orphaned = true;
                        close(&state, CloseCode::GoingAway, "the relay stops");
                        return times;
                    }
                    let order = self.orders.borrow_and_update();
                    times = order.times;
                    // One more message is no reason to believe that the relay is there again.
                    if std::mem::replace(&mut hopes, order.hopes) != order.hopes {
                        backoff.reset();
                        if matches!(state, State::Waiting(_)) {
                            drop(order);
                            state = self.connect();
                        }
                    }
                }
                done = done(&mut self.commits), if self.paused.is_none() => self.committed(done),
                news = self.feed.next(&context), if self.paused.is_none() => match news {
                    Ok(News::New(messages)) => self.add(&messages),
                    Ok(News::Read(gone)) => self.withdraw(&gone),
                    Err(error) => self.store_failed(&error),
                },
                event = next(&mut state, &context) => match self.event(&mut state, event) {
                    Ok(()) => {}
                    Err(error) => state = self.lost(&state, &error, &mut backoff),
                },
                () = writable(blocked.as_ref()), if blocked.is_some() => {}
                () = alarm.ring(&*context.clock, timeout), if timeout.is_some() => {
                    self.outbox.on_timeout(context.clock.now());
                }
            }
        }
    }

    fn connect(&self) -> State {
        let (context, mut address) = (self.context.clone(), self.orders.borrow().address.clone());
        address.prefer(self.met_at.as_slice());
        State::Connecting(Box::pin(async move {
            Connected::open(&context.endpoint, &address, link::hello(Role::Relay)).await.map(Box::new)
        }))
    }

    /// Does all that can be done now. The stream to wait for, if it has no room.
    fn turn(&mut self, state: &mut State) -> Result<Option<FrameSender>, LinkError> {
        if self.carry_out() {
            return Err(LinkError::Silent);
        }
        self.commit();
        // Everything that may have been offered is asked about before anything is offered.
        if matches!(state, State::Idle) && !self.outbox.is_empty() && !self.restoring {
            *state = self.connect();
        }
        let State::Up { link, .. } = state else { return Ok(None) };
        let has_room = self.transmit(link)?;
        link.write();
        Ok((!has_room).then(|| link.submit.clone()))
    }

    /// Whether there is nothing to do any more, and has not been for long.
    async fn is_done(&mut self, now: Moment, state: &mut State) -> bool {
        let busy = !self.outbox.is_empty() || !self.commits.is_empty() || !self.feed.is_caught_up();
        if busy {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        if since + IDLE > now {
            return false;
        }
        // What the other relay remembers of these lanes is of no use any more.
        self.outbox.retire();
        if matches!(state, State::Up { .. }) && self.outbox.is_closing() && since + 2 * IDLE > now {
            return false;
        }
        if let State::Up { link, .. } = state {
            drop(tokio::time::timeout(RECONNECT.0, link.submit.flush()).await);
            // QUIC sends what it has taken when its own task runs.
            tokio::task::yield_now().await;
        }
        close(state, CloseCode::Done, "nothing waits");
        true
    }

    fn next_timeout(&self) -> Option<Moment> {
        let idle = self.idle_since.map(|since| since + if self.outbox.is_closing() { 2 * IDLE } else { IDLE });
        self.outbox.next_timeout().into_iter().chain(idle).chain(self.paused).min()
    }

    /// New messages in the outbox. What lay there before this link began may have been offered.
    fn add(&mut self, messages: &[Arc<Stored>]) {
        let (now, date) = (self.context.clock.now(), self.context.clock.date());
        for stored in messages {
            let header = stored.envelope.header();
            let entry = Entry {
                key: stored.seq,
                id: header.id,
                lane: header.lane_key(),
                n: header.n,
                bytes: stored.envelope.bytes().len(),
                deadline: now + date.until(stored.expires),
            };
            if self.restoring {
                self.outbox.restore(Restored { entry, foreign: stored.seq < self.foreign_below });
            } else {
                self.outbox.add(entry);
            }
        }
        self.restoring &= !self.feed.is_caught_up();
    }

    /// Messages that are not in the store any more need not go out.
    fn withdraw(&mut self, gone: &[u64]) {
        let outbox = &mut self.outbox;
        self.requests.retain(|request| match request {
            Request::Offer(offer) if gone.contains(&offer.key) => {
                outbox.withdraw(offer.request);
                false
            }
            _ => true,
        });
    }

    /// Carries out what the outbox wants done. True if the other relay has been silent for too long.
    fn carry_out(&mut self) -> bool {
        let mut silent = false;
        while let Some(effect) = self.outbox.poll_effect() {
            match effect {
                Effect::Remember(store) => {
                    self.foreign_below = self.feed.cursor() + 1;
                    let remember = Op::Remember { outbox: self.key, store, foreign_below: self.foreign_below };
                    let (reply, op) = self.hand_in(remember);
                    self.commits.push_back((reply, op, Commit::Remember));
                }
                Effect::Accepted { key, .. } => self.feed.forget(key),
                Effect::Held { reason, until, .. } => {
                    let wait = until - self.context.clock.now();
                    tracing::debug!(relay = %self.relay.short(), %reason, ?wait, "a relay takes no more of a lane now");
                }
                Effect::Resolved { key, lane, n, verdict, receipt, .. } => {
                    self.feed.forget(key);
                    self.resolved.insert(key, Resolved { lane, n, verdict });
                    self.receipts.push(receipt);
                }
                Effect::Silent => silent = true,
            }
        }
        silent
    }

    /// Hands outcomes to the store, if it is not busy with enough.
    fn commit(&mut self) {
        let now = self.context.clock.now();
        if self.paused.is_some_and(|until| now < until) {
            return;
        }
        if self.paused.take().is_some()
            && std::mem::take(&mut self.failed)
            && let Some((reply, op, _)) = self.commits.front_mut()
        {
            *reply = self.context.store.submit(fence(self.key), vec![op.clone()]);
        }
        while !self.resolved.is_empty() && self.commits.len() < BATCHES {
            let rest = self.resolved.keys().nth(BATCH_OUTCOMES).copied();
            let rest = rest.map(|first| self.resolved.split_off(&first)).unwrap_or_default();
            let resolved = std::mem::replace(&mut self.resolved, rest);
            let mut told = Told::default();
            for Resolved { lane, n, verdict } in resolved.values() {
                if verdict.outcome == Outcome::Delivered {
                    // What is forwarded is our own peers' alone.
                    told.add(lane.pair.sender, *lane, *n);
                }
            }
            let outcomes: BTreeMap<_, _> =
                resolved.into_iter().map(|(key, resolved)| (key, resolved.verdict)).collect();
            let receipts = if self.resolved.is_empty() { std::mem::take(&mut self.receipts) } else { Vec::new() };
            tracing::trace!(relay = %self.relay.short(), outcomes = outcomes.len(), "outcomes go to the disk");
            // In the store's order of things before anybody is told.
            let (reply, op) = self.hand_in(Op::Resolve { outbox: self.key, outcomes });
            told.tell_all(&*self.context.tell);
            self.commits.push_back((reply, op, Commit::Outcomes { told, receipts }));
        }
    }

    fn hand_in(&self, op: Op) -> (Reply<Vec<Done>>, Op) {
        (self.context.store.submit(fence(self.key), vec![op.clone()]), op)
    }

    fn committed(&mut self, done: Result<Vec<Done>, StoreError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                self.failed = true;
                return self.store_failed(&error);
            }
        };
        let Some((_, _, commit)) = self.commits.pop_front() else { return };
        match commit {
            Commit::Remember => self.outbox.remembered(),
            Commit::Outcomes { told, receipts } => {
                told.tell_rest(&*self.context.tell, &done);
                for receipt in receipts {
                    self.outbox.persisted(receipt);
                }
                if self.outbox.lanes() > MAX_LANES {
                    self.outbox.retire_idle();
                }
            }
        }
    }

    fn store_failed(&mut self, error: &StoreError) {
        (self.context.failed)(error);
        tracing::warn!(relay = %self.relay.short(), %error, "a link waits for the store");
        self.paused = Some(self.context.clock.now() + STORE_PAUSE);
    }

    fn event(&mut self, state: &mut State, event: Event) -> Result<(), LinkError> {
        match event {
            Event::Due => *state = self.connect(),
            Event::Connected(connected) => {
                let link = connected?;
                self.met_at = Some(link.connection.remote().into());
                self.requests.clear();
                self.outbox.connect(link.hello.store, link.hello.durability);
                self.feed.connected();
                *state = State::Up { link, since: self.context.clock.now() };
            }
            Event::Lost(error) => return Err(error.into()),
            Event::Frame(stream, frame) => {
                let State::Up { link, .. } = state else { return Ok(()) };
                link.hand_over((stream, frame), TURN_FRAMES, |stream, frame| self.receive(stream, frame))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, stream: Stream, frame: Frame) -> Result<(), LinkError> {
        let now = self.context.clock.now();
        match (stream, frame) {
            (Stream::Submit, Frame::MsgA(answer)) => self.outbox.on_msg_a(now, answer)?,
            (Stream::Submit, Frame::WhereA(answer)) => self.outbox.on_where_a(now, answer)?,
            (Stream::Submit, Frame::CloseA(answer)) => self.outbox.on_close_a(&answer)?,
            (Stream::Notify, Frame::AckN(outcomes)) => self.outbox.on_ack_n(&outcomes),
            (Stream::Notify, Frame::GoawayN(goaway)) => return Err(goaway.into()),
            (_, Frame::NopN(_)) => {}
            (_, other) => return Err(unexpected(other.frame_type(), "from a relay to a relay").into()),
        }
        Ok(())
    }

    /// Sends what may go out. False if the stream has no room.
    fn transmit(&mut self, link: &Connected) -> Result<bool, TransportError> {
        loop {
            let held = self.requests.pop_front();
            let Some(request) = held.or_else(|| self.outbox.poll_request(self.context.clock.now())) else {
                return Ok(true);
            };
            let frame = match &request {
                Request::Ask(ask) => ask.clone().into(),
                Request::Close(close) => close.clone().into(),
                Request::Offer(offer) => match self.feed.get(offer.key) {
                    Some(stored) => self.message(offer, stored),
                    None => {
                        self.requests.push_front(request);
                        self.read();
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

    fn message(&self, offer: &Offer, stored: &Stored) -> Frame {
        let message = MsgR {
            request: offer.request,
            prev: offer.prev,
            ttl_ms: millis(offer.deadline - self.context.clock.now()),
            envelope: stored.envelope.bytes().clone(),
            signature: stored.signature,
            home: None,
        };
        message.into()
    }

    /// Begins to read the messages that are to go out next.
    fn read(&mut self) {
        while self.requests.len() < READ_MESSAGES
            && let Some(request) = self.outbox.poll_request(self.context.clock.now())
        {
            self.requests.push_back(request);
        }
        let missing = self.requests.iter().filter_map(|request| match request {
            Request::Offer(offer) => self.feed.get(offer.key).is_none().then_some(offer.key),
            Request::Ask(_) | Request::Close(_) => None,
        });
        let missing = missing.collect();
        self.feed.want(&self.context, missing);
    }

    fn lost(&mut self, state: &State, error: &LinkError, backoff: &mut Backoff) -> State {
        let now = self.context.clock.now();
        if let State::Up { link, since } = state {
            if now - *since >= GOOD_SESSION {
                backoff.reset();
            }
            match error {
                LinkError::Transport(error) => link.connection.close_for(error),
                LinkError::GoingAway(_) => link.connection.close(CloseCode::Done, "as told"),
                _ => link.connection.close(CloseCode::Done, "the relay is silent"),
            }
        }
        self.requests.clear();
        self.outbox.disconnect();
        self.feed.disconnected();
        let wait = backoff.next_wait(self.context.entropy.word());
        let wait = match error {
            // Not sooner, but perhaps later: another relay may not make this one come as fast as it can.
            LinkError::GoingAway(delay) => wait.max(*delay),
            _ => wait,
        };
        let reason = error.to_string();
        tracing::debug!(relay = %self.relay.short(), %reason, ?wait, "no link");
        let retry_at = self.context.clock.date() + wait;
        self.status.send_replace(Status { standing: Standing::Waiting { retry_at }, last_error: Some(reason) });
        State::Waiting(now + wait)
    }

    fn tell_status(&self, state: &State) {
        let standing = match state {
            State::Idle => Standing::Idle,
            State::Connecting(_) => Standing::Connecting,
            State::Up { .. } => Standing::Open,
            // Told when it began.
            State::Waiting(_) => return,
        };
        self.status.send_if_modified(|status| {
            let news = status.standing != standing;
            status.standing = standing;
            news
        });
    }
}

/// What happens to the connection.
enum Event {
    Due,
    Connected(Result<Box<Connected>, LinkError>),
    Frame(Stream, Frame),
    Lost(TransportError),
}

/// Cancel-safe: an event is either returned or still to come.
async fn next(state: &mut State, context: &Context) -> Event {
    match state {
        State::Idle => std::future::pending().await,
        State::Waiting(until) => {
            sleep_until(&*context.clock, Some(*until)).await;
            Event::Due
        }
        State::Connecting(attempt) => Event::Connected(attempt.await),
        State::Up { link, .. } => match link.next().await {
            Ok((stream, frame)) => Event::Frame(stream, frame),
            Err(error) => Event::Lost(error),
        },
    }
}

/// Waits for the oldest commit; for ever if there is none. Cancel-safe.
async fn done(commits: &mut VecDeque<(Reply<Vec<Done>>, Op, Commit)>) -> Result<Vec<Done>, StoreError> {
    match commits.front_mut() {
        Some((reply, ..)) => reply.await,
        None => std::future::pending().await,
    }
}

async fn writable(blocked: Option<&FrameSender>) {
    if let Some(sender) = blocked {
        // A broken stream shows when it is read.
        drop(sender.writable().await);
    }
}

fn close(state: &State, code: CloseCode, reason: &str) {
    if let State::Up { link, .. } = state {
        link.connection.close(code, reason);
    }
}

/// Lets go of a relay's outbox, if it is empty.
pub(super) fn release(context: &Context, relay: &RelayId) {
    let outbox = outbox_key(relay);
    // Whether it happens shows at the next start.
    drop(context.store.submit(fence(outbox), vec![Op::Release { outbox }]));
}

/// The store sees to it that nothing else writes for a session of a peer; a link has no rival.
const fn fence(outbox: PeerId) -> Fence {
    Fence { peer: outbox, device: 0, epoch: 1 }
}
