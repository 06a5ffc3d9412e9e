//! The world of one seed: everybody in it, and one step after the other.
//!
//! Each step is chosen by chance among all that could happen next: a frame arrives, a disk has written, an
//! application answers, a timer runs out, something breaks. When the faults stop, all has to end well.

use std::fmt;
use std::time::Duration;

use posthouse::id::{LaneId, PeerId};
use posthouse::time::{Moment, UnixMillis};

use super::chance::Chance;
use super::hop::Hop;
use super::ledger::Ledger;
use super::net::{Net, STREAMS};
use super::plan::Plan;
use super::recipient::Recipient;
use super::relay::{Reading, Relay};
use super::sender::Sender;
use super::store::{News, home_of, name};

/// The clock: the same for all, since no clocks are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

/// Time that passes while something else could happen, at most.
const SHORT_WAIT: Duration = Duration::from_secs(60);

const START: u64 = 1_700_000_000_000;

impl Time {
    pub(crate) fn now(self) -> Moment {
        Moment::from_origin(self.0)
    }

    pub(crate) fn date(self) -> UnixMillis {
        UnixMillis(START) + self.0
    }

    /// When this date will be, or was.
    pub(crate) fn moment(self, date: UnixMillis) -> Moment {
        Moment::from_origin(Duration::from_millis(date.0.saturating_sub(START)))
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Submit(usize),
    /// A message that a relay has for another one comes to the link.
    Feed(usize),
    /// A link with nothing to do lets its lanes go.
    Rest(usize),
    Connect(usize),
    /// The client notices that its connection is gone.
    Notice(usize),
    Send(usize),
    Commit(usize),
    Receive(usize, usize),
    Answer(usize),
    Page(usize),
    Acknowledge(usize),
    /// The relay takes a frame from this stream of this link.
    Take(u64, usize),
    Store(usize),
    Push(u64),
    /// The relay notices that a client is gone.
    End(u64),
}

/// A client of a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    Sender(usize),
    Recipient(usize),
    /// A link to another relay.
    Hop(usize),
}

/// How one run ended.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) steps: usize,
    pub(crate) messages: usize,
    pub(crate) requests: usize,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) chance: Chance,
    pub(crate) time: Time,
    pub(crate) net: Net,
    pub(crate) relays: Vec<Relay>,
    pub(crate) senders: Vec<Sender>,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) hops: Vec<Hop>,
    pub(crate) ledger: Ledger,
    pub(crate) quiet: bool,
    pub(crate) unsent: usize,
    pub(crate) steps: usize,
    /// What happened, if somebody wants to read it.
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) rows_may_stay: bool,
    /// What clients and links have sent: a storm would show here.
    pub(crate) requests: usize,
}

pub(crate) fn is_known(peer: PeerId) -> bool {
    peer.as_bytes()[0] != 3
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance);
        Self::of(plan, chance, traced)
    }

    pub(crate) fn of(plan: Plan, chance: Chance, traced: bool) -> Self {
        let time = Time(Duration::from_secs(1000));
        let (senders, readers) = (plan.senders.iter().enumerate(), plan.recipients.iter().enumerate());
        let mut ledger = Ledger::default();
        ledger.in_order = plan.recipients.iter().map(|(_, reading, _)| *reading == Reading::InOrder).collect();
        ledger.in_order.push(false);
        let ways = (0..plan.relays).flat_map(|from| (0..plan.relays).map(move |to| (from, to)));
        Self {
            time,
            net: Net::default(),
            relays: (0..plan.relays).map(|at| Relay::new(at, time)).collect(),
            senders: senders.map(|(at, home)| Sender::new(at, name(1, at, *home), plan.window)).collect(),
            recipients: readers
                .map(|(at, (home, reading, credit))| Recipient::new(name(2, at, *home), *reading, *credit))
                .collect(),
            hops: ways.filter(|(from, to)| from != to).map(|(from, to)| Hop::new(from, to, plan.window)).collect(),
            ledger,
            quiet: false,
            unsent: plan.messages,
            steps: 0,
            trace: traced.then(Vec::new),
            rows_may_stay: false,
            requests: 0,
            plan,
            chance,
        }
    }

    pub(crate) const fn steps_taken(&self) -> usize {
        self.steps
    }

    pub(crate) fn trace(&mut self) -> Vec<String> {
        let mut trace = vec![format!("{:?}", self.plan)];
        trace.extend(self.trace.take().unwrap_or_default());
        trace
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.3}s {}", self.time.0.as_secs_f64(), what()));
        }
    }

    /// Runs to the end. An error is the promise that was broken.
    pub(crate) fn run(&mut self) -> Result<Ending, String> {
        for _ in 0..self.plan.steps {
            if self.chance.percent(self.plan.fault_percent) {
                self.fault();
            } else {
                self.step();
            }
            if let Some(broken) = self.ledger.broken.take() {
                return Err(broken);
            }
        }
        self.stop_faults();
        self.settle("messages without an outcome", Self::is_idle)?;
        if let Some(uid) = self.ledger.open().next() {
            return Err(format!("the sender of m{uid} never learned its outcome"));
        }
        self.senders.iter_mut().for_each(|sender| sender.outbox.retire());
        self.hops.iter_mut().for_each(|hop| hop.outbox.retire());
        self.settle("lanes that are not closed", |world| {
            !world.relays.iter().any(Relay::has_queue)
                && world.senders.iter().all(|sender| sender.connected && !sender.outbox.is_closing())
                && world.hops.iter().all(|hop| hop.connected && !hop.outbox.is_closing())
        })?;
        let rows: Vec<_> = self.relays.iter().flat_map(|relay| &relay.disk.rows).collect();
        if !rows.is_empty() && !self.rows_may_stay {
            return Err(format!("{} rows are left over: {rows:?}", rows.len()));
        }
        Ok(Ending { steps: self.steps, messages: self.ledger.messages.len(), requests: self.requests })
    }

    /// One thing more, whatever it is. An error is the promise that was broken.
    pub(crate) fn turn(&mut self) -> Result<(), String> {
        let mut faults = self.plan.faults.clone();
        faults.dedup();
        match self.chance.below(1 + faults.len()).checked_sub(1) {
            Some(at) => {
                let fault = faults[at];
                let gone = self.plan.faults.iter().position(|other| *other == fault);
                gone.map(|at| self.plan.faults.remove(at));
                self.happens(fault);
            }
            None => {
                if self.plan.faults.is_empty() && !self.quiet {
                    self.stop_faults();
                }
                self.step();
            }
        }
        self.ledger.broken.take().map_or(Ok(()), Err)
    }

    /// Whether nothing is left to break or to do, and every message has its outcome.
    pub(crate) fn is_over(&self) -> bool {
        self.plan.faults.is_empty() && self.is_idle() && self.ledger.open().next().is_none()
    }

    pub(crate) fn stop_faults(&mut self) {
        self.quiet = true;
        for relay in &mut self.relays {
            (relay.full, relay.refuses) = (false, None);
        }
        self.note(|| "the faults stop".to_owned());
    }

    /// Whether nobody has anything left to do for a message.
    pub(crate) fn is_idle(&self) -> bool {
        self.unsent == 0
            && self.senders.iter().all(Sender::is_idle)
            && self.recipients.iter().all(Recipient::is_idle)
            && self.hops.iter().all(|hop| hop.is_idle(&self.relays[hop.from]))
            && self.relays.iter().all(Relay::is_idle)
    }

    /// Goes on without faults until all is well; a lifetime or a grace is not allowed to help.
    fn settle(&mut self, lacking: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let until = self.time.0 + Duration::from_secs(1200);
        let most = self.steps + 20_000;
        while !done(self) {
            self.step();
            if let Some(broken) = self.ledger.broken.take() {
                return Err(broken);
            }
            if self.time.0 > until || self.steps > most {
                let open: Vec<_> = self.ledger.open().collect();
                let held: Vec<_> = self.senders.iter().map(|sender| sender.outbox.len()).collect();
                return Err(format!("{lacking}: open {open:?}, in outboxes {held:?}, after {} steps", self.steps));
            }
        }
        Ok(())
    }

    pub(crate) fn who(&self, client: usize) -> Who {
        match client.checked_sub(self.senders.len()) {
            None => Who::Sender(client),
            Some(at) => match at.checked_sub(self.recipients.len()) {
                None => Who::Recipient(at),
                Some(at) => Who::Hop(at),
            },
        }
    }

    pub(crate) fn link(&self, client: usize) -> Option<u64> {
        match self.who(client) {
            Who::Sender(at) => self.senders[at].link,
            Who::Recipient(at) => self.recipients[at].link,
            Who::Hop(at) => self.hops[at].link,
        }
    }

    pub(crate) fn clients(&self) -> usize {
        self.senders.len() + self.recipients.len() + self.hops.len()
    }

    /// All that could happen next.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = vec![];
        let submits = self.unsent > 0 && (self.quiet || self.chance.one_in(self.plan.spread));
        for (at, sender) in self.senders.iter().enumerate() {
            if submits {
                steps.push(Step::Submit(at));
            }
            if sender.has_batches() {
                steps.push(Step::Commit(at));
            }
            if sender.connected {
                steps.push(Step::Send(at));
            }
        }
        for (at, hop) in self.hops.iter().enumerate() {
            if hop.has_feed() {
                steps.push(Step::Feed(at));
            }
            if hop.connected {
                steps.push(Step::Send(self.senders.len() + self.recipients.len() + at));
            }
            if !self.quiet && hop.outbox.is_empty() && hop.outbox.lanes() > 0 && self.chance.one_in(8) {
                steps.push(Step::Rest(at));
            }
        }
        for (at, recipient) in self.recipients.iter().enumerate() {
            let client = self.senders.len() + at;
            for (possible, step) in [
                (recipient.has_batches(), Step::Commit(client)),
                (recipient.is_asked(), Step::Answer(at)),
                (recipient.wants_page(), Step::Page(at)),
                (recipient.owes(), Step::Acknowledge(at)),
            ] {
                if possible {
                    steps.push(step);
                }
            }
        }
        for client in 0..self.clients() {
            let Some(id) = self.link(client) else {
                steps.push(Step::Connect(client));
                continue;
            };
            match self.net.links.get(&id) {
                Some(link) => {
                    for stream in 0..STREAMS {
                        // What the relay says of itself comes first.
                        let greeted = stream == 0 || self.is_connected(client);
                        if greeted && !link.down[stream].is_empty() {
                            steps.push(Step::Receive(client, stream));
                        }
                    }
                    if link.relay_gone {
                        steps.push(Step::Notice(client));
                    }
                }
                None => steps.push(Step::Notice(client)),
            }
        }
        for (id, link) in &self.net.links {
            let relay = &self.relays[link.relay];
            for stream in 0..STREAMS {
                if link.up[stream].front().is_some_and(|frame| !relay.must_wait(*id, frame)) {
                    steps.push(Step::Take(*id, stream));
                }
            }
            if link.client_gone {
                steps.push(Step::End(*id));
            } else if relay.can_push(self.time, *id) {
                steps.push(Step::Push(*id));
            }
        }
        for (at, relay) in self.relays.iter().enumerate() {
            if relay.has_queue() {
                steps.push(Step::Store(at));
            }
        }
        steps
    }

    fn is_connected(&self, client: usize) -> bool {
        match self.who(client) {
            Who::Sender(at) => self.senders[at].connected,
            Who::Recipient(at) => self.recipients[at].connected,
            Who::Hop(at) => self.hops[at].connected,
        }
    }

    pub(crate) fn step(&mut self) {
        self.steps += 1;
        let steps = self.steps();
        let may_send = |step: &Step| matches!(step, Step::Send(_));
        if steps.iter().all(may_send) {
            // Nothing but sending is left, and if there is nothing to send, time passes.
            if !(0..self.clients()).any(|client| self.send(client)) {
                self.tick(Duration::MAX);
            }
        } else if !self.quiet && self.plan.early_timers > 0 && self.chance.one_in(self.plan.early_timers) {
            self.wait();
        } else {
            match self.chance.pick(&steps) {
                Step::Send(client) => drop(self.send(client)),
                step => self.perform(step),
            }
        }
        self.carry_out();
    }

    /// What the outboxes want done.
    pub(crate) fn carry_out(&mut self) {
        for at in 0..self.senders.len() {
            if self.senders[at].carry_out(&mut self.ledger) {
                self.note(|| format!("s{at} takes the relay for silent"));
                self.senders[at].leave(&mut self.net);
            }
        }
        for at in 0..self.hops.len() {
            let hop = &mut self.hops[at];
            if hop.carry_out(&mut self.relays[hop.from]) {
                hop.leave(&mut self.net);
                self.note(|| format!("h{at} takes the other relay for silent"));
            }
        }
    }

    fn send(&mut self, client: usize) -> bool {
        let who = self.who(client);
        let said = match who {
            Who::Sender(at) => self.senders[at].send(&mut self.net, self.time),
            Who::Recipient(_) => None,
            Who::Hop(at) => {
                let relay = self.hops[at].from;
                self.hops[at].send(&mut self.net, &self.relays[relay], self.time)
            }
        };
        let sent = said.is_some();
        self.requests += usize::from(sent);
        if let Some(said) = said {
            self.note(|| format!("{who:?} sends {said}"));
        }
        sent
    }

    fn perform(&mut self, step: Step) {
        let said = match step {
            Step::Take(link, stream) => {
                self.net.links.get(&link).and_then(|link| link.up[stream].front()).map(|frame| format!("{frame:?}"))
            }
            Step::Receive(client, stream) => {
                let link = self.link(client).and_then(|link| self.net.links.get(&link));
                link.and_then(|link| link.down[stream].front()).map(|frame| format!("{frame:?}"))
            }
            _ => None,
        }
        .filter(|_| self.trace.is_some());
        self.note(|| format!("{step:?} {}", said.unwrap_or_default()));
        match step {
            Step::Submit(at) => self.submit(at),
            Step::Feed(at) => self.hops[at].take(self.time),
            Step::Rest(at) => {
                self.hops[at].outbox.retire_idle();
                // Without a session it tells the other relay in its next one, if its own lives for so long.
                self.rows_may_stay = true;
            }
            Step::Connect(client) => self.connect(client),
            Step::Notice(client) => self.leave(client),
            Step::Send(_) => {}
            Step::Commit(client) => match self.who(client) {
                Who::Sender(at) => self.senders[at].commit(self.time, &mut self.ledger),
                Who::Recipient(at) => self.recipients[at].commit(&mut self.ledger),
                Who::Hop(_) => {}
            },
            Step::Receive(client, stream) => {
                let link = self.link(client).and_then(|link| self.net.links.get_mut(&link));
                let Some(frame) = link.and_then(|link| link.down[stream].pop_front()) else { return };
                match self.who(client) {
                    Who::Sender(at) => self.senders[at].receive(self.time, &mut self.ledger, frame),
                    Who::Recipient(at) => self.recipients[at].receive(frame),
                    Who::Hop(at) => self.hops[at].receive(self.time, &mut self.ledger, frame),
                }
            }
            Step::Answer(at) => {
                let takes = !self.chance.percent(self.plan.refuse_percent);
                self.recipients[at].answer(self.time, takes);
            }
            Step::Page(at) => self.recipients[at].page(&mut self.net),
            Step::Acknowledge(at) => self.recipients[at].acknowledge(&mut self.net, self.time),
            Step::Take(link, stream) => {
                let Some(way) = self.net.links.get_mut(&link) else { return };
                let relay = &mut self.relays[way.relay];
                if let Some(frame) = way.up[stream].pop_front() {
                    relay.take(&mut self.net, self.time, &mut self.chance, link, frame);
                }
            }
            Step::Store(at) => {
                let count = 1 + self.chance.below(self.plan.most_committed);
                let relay = &mut self.relays[at];
                let news = relay.commit(&mut self.net, self.time, &mut self.chance, &is_known, count, true);
                self.see(at, news);
            }
            Step::Push(link) => {
                if let Some(at) = self.relay_of(link) {
                    self.relays[at].push(&mut self.net, self.time, link);
                }
            }
            Step::End(link) => self.end(link, false),
        }
    }

    fn relay_of(&self, link: u64) -> Option<usize> {
        self.net.links.get(&link).map(|link| link.relay)
    }

    /// A relay gives a connection up.
    pub(crate) fn end(&mut self, link: u64, arrives: bool) {
        if let Some(at) = self.relay_of(link) {
            self.relays[at].end(&mut self.net, link, arrives);
        }
    }

    fn connect(&mut self, client: usize) {
        let (relay, peer, reading, credit) = match self.who(client) {
            Who::Sender(at) => (home_of(self.senders[at].peer), self.senders[at].peer, Reading::Nothing, 0),
            Who::Recipient(at) => {
                let Recipient { peer, reading, credit, .. } = &self.recipients[at];
                (home_of(*peer), *peer, *reading, *credit)
            }
            Who::Hop(at) => (self.hops[at].to, self.hops[at].me, Reading::Forwarding, 0),
        };
        let link = self.net.connect(relay);
        match self.who(client) {
            Who::Sender(at) => self.senders[at].link = Some(link),
            Who::Recipient(at) => self.recipients[at].link = Some(link),
            Who::Hop(at) => self.hops[at].link = Some(link),
        }
        self.relays[relay].hello(&mut self.net, link, peer, reading, credit);
    }

    /// What came of a relay's commits.
    pub(crate) fn see(&mut self, relay: usize, news: Vec<News>) {
        for news in news {
            let hop = |outbox: PeerId| move |hop: &&mut Hop| hop.from == relay && hop.owner == outbox;
            match news {
                News::Refused { uid } => self.ledger.messages[uid].refused = true,
                News::Closed { lane } => drop(self.ledger.closed.insert(lane)),
                // Its link still knows of it, and the lane stays open for that.
                News::Silent => self.rows_may_stay = true,
                News::Forwarded { outbox, seq } => {
                    let stored = self.relays[relay].disk.mailboxes[&outbox].entries.get(&seq).copied();
                    if let (Some(hop), Some(stored)) = (self.hops.iter_mut().find(hop(outbox)), stored) {
                        hop.tell(seq, stored);
                    }
                }
                News::Resolved { outbox, receipt } => {
                    if let Some(hop) = self.hops.iter_mut().find(hop(outbox)) {
                        hop.resolved(receipt);
                    }
                }
                News::Remembered { outbox } => {
                    if let Some(hop) = self.hops.iter_mut().find(hop(outbox)) {
                        hop.outbox.remembered();
                    }
                }
            }
        }
    }

    pub(crate) fn submit(&mut self, at: usize) {
        self.unsent -= 1;
        let nobody = self.chance.percent(self.plan.nobody_percent);
        let to = if nobody { self.recipients.len() } else { self.chance.below(self.recipients.len()) };
        let recipient = self
            .recipients
            .get(to)
            .map_or(name(3, 0, self.chance.below(self.relays.len())), |recipient| recipient.peer);
        let short = self.chance.percent(self.plan.short_percent);
        let life =
            if short { Duration::from_secs(1 + self.chance.below(20) as u64) } else { Duration::from_secs(80_000) };
        let uid = self.ledger.submit(at, to, self.time.date() + life);
        let lane = LaneId(self.chance.word() % 1_000_000);
        self.ledger.messages[uid].forwarded = home_of(recipient) != home_of(self.senders[at].peer);
        self.ledger.messages[uid].lane = Some(self.senders[at].submit(self.time, recipient, life, uid, lane));
        self.note(|| format!("m{uid} from s{at} to r{to}, lives {life:?}"));
    }

    pub(crate) fn leave(&mut self, client: usize) {
        match self.who(client) {
            Who::Sender(at) => self.senders[at].leave(&mut self.net),
            Who::Recipient(at) => self.recipients[at].leave(&mut self.net),
            Who::Hop(at) => self.hops[at].leave(&mut self.net),
        }
    }

    /// Lets time pass until the next timer, and runs what is due.
    fn tick(&mut self, most: Duration) {
        let senders = self.senders.iter().filter_map(|sender| sender.outbox.next_timeout());
        let recipients = self.recipients.iter().filter_map(Recipient::next_timeout);
        let hops = self.hops.iter().filter_map(|hop| hop.outbox.next_timeout());
        let clients = senders.chain(recipients).chain(hops).min();
        let relays = self.relays.iter_mut().filter_map(|relay| relay.next_timeout(self.time));
        let next = clients.into_iter().chain(relays).min();
        let Some(next) = next.filter(|next| *next - self.time.now() <= most) else { return };
        self.time.0 = self.time.0.max(next.since(Moment::default()));
        self.time_passed();
    }

    /// A timer runs out, if one does so soon.
    pub(crate) fn wait(&mut self) {
        self.tick(SHORT_WAIT);
    }

    pub(crate) fn time_passed(&mut self) {
        self.note(|| "timers".to_owned());
        for sender in &mut self.senders {
            sender.outbox.on_timeout(self.time.now());
        }
        for recipient in &mut self.recipients {
            recipient.on_timeout(self.time);
        }
        for hop in &mut self.hops {
            hop.outbox.on_timeout(self.time.now());
        }
        for relay in &mut self.relays {
            relay.on_timeout(&mut self.net, self.time);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("time", &self.time)
            .field("net", &self.net)
            .field("faults", &self.plan.faults)
            .field("unsent", &self.unsent)
            .field("ledger", &self.ledger)
            .field("senders", &self.senders)
            .field("recipients", &self.recipients)
            .field("hops", &self.hops)
            .field("relays", &self.relays)
            .finish()
    }
}
