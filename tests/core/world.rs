//! The world of one seed: everybody in it, and one step after the other.
//!
//! Each step is chosen by chance among all that could happen next: a frame arrives, a disk has written, an
//! application answers, a timer runs out, something breaks. When the faults stop, all has to end well.

use std::fmt;
use std::time::Duration;

use posthouse::id::{LaneId, PeerId};
use posthouse::protocol::RejectReason;
use posthouse::time::{Moment, UnixMillis};

use super::chance::Chance;
use super::ledger::Ledger;
use super::net::{Net, STREAMS};
use super::plan::{Fault, Plan};
use super::recipient::Recipient;
use super::relay::{Reading, Relay};
use super::sender::Sender;
use super::store::News;

/// The clock: the same for all, since no clocks are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(Duration);

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
    Store,
    Push(u64),
    /// The relay notices that a client is gone.
    End(u64),
}

/// How one run ended.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) steps: usize,
    pub(crate) messages: usize,
    pub(crate) requests: usize,
}

pub(crate) struct World {
    plan: Plan,
    chance: Chance,
    time: Time,
    net: Net,
    relay: Relay,
    senders: Vec<Sender>,
    recipients: Vec<Recipient>,
    ledger: Ledger,
    quiet: bool,
    unsent: usize,
    steps: usize,
    /// What happened, if somebody wants to read it.
    trace: Option<Vec<String>>,
    rows_may_stay: bool,
}

fn peer(kind: u8, number: usize) -> PeerId {
    let mut bytes = [kind; 32];
    bytes[1] = number as u8;
    PeerId::from_bytes(bytes)
}

fn is_known(peer: PeerId) -> bool {
    peer.as_bytes()[0] != 3
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance);
        let time = Time(Duration::from_secs(1000));
        let readers = plan.recipients.iter().enumerate();
        let mut ledger = Ledger::default();
        ledger.in_order = plan.recipients.iter().map(|(reading, _)| *reading == Reading::InOrder).collect();
        ledger.in_order.push(false);
        Self {
            time,
            net: Net::default(),
            relay: Relay::new(time),
            senders: (0..plan.senders).map(|at| Sender::new(at, peer(1, at), plan.window)).collect(),
            recipients: readers.map(|(at, (reading, credit))| Recipient::new(peer(2, at), *reading, *credit)).collect(),
            ledger,
            quiet: false,
            unsent: plan.messages,
            steps: 0,
            trace: traced.then(Vec::new),
            rows_may_stay: false,
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

    fn note(&mut self, what: impl FnOnce() -> String) {
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
        self.quiet = true;
        (self.relay.full, self.relay.refuses) = (false, None);
        self.note(|| "the faults stop".to_owned());
        self.settle("messages without an outcome", |world| {
            world.unsent == 0
                && world.senders.iter().all(Sender::is_idle)
                && world.recipients.iter().all(Recipient::is_idle)
                && world.relay.is_idle()
        })?;
        if let Some(uid) = self.ledger.open().next() {
            return Err(format!("the sender of m{uid} never learned its outcome"));
        }
        for sender in &mut self.senders {
            sender.outbox.retire();
        }
        self.settle("lanes that are not closed", |world| {
            !world.relay.has_queue()
                && world.senders.iter().all(|sender| sender.connected && !sender.outbox.is_closing())
        })?;
        let rows = self.relay.disk.rows.len();
        if rows > 0 && !self.rows_may_stay {
            return Err(format!("{rows} rows are left over: {:?}", self.relay.disk.rows));
        }
        let requests = self.senders.iter().map(|sender| sender.requests).sum();
        Ok(Ending { steps: self.steps, messages: self.ledger.messages.len(), requests })
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

    fn link(&self, client: usize) -> Option<u64> {
        match client.checked_sub(self.senders.len()) {
            None => self.senders[client].link,
            Some(at) => self.recipients[at].link,
        }
    }

    fn clients(&self) -> usize {
        self.senders.len() + self.recipients.len()
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
            for stream in 0..STREAMS {
                if link.up[stream].front().is_some_and(|frame| !self.relay.must_wait(*id, frame)) {
                    steps.push(Step::Take(*id, stream));
                }
            }
            if link.client_gone {
                steps.push(Step::End(*id));
            } else if self.relay.can_push(self.time, *id) {
                steps.push(Step::Push(*id));
            }
        }
        if self.relay.has_queue() {
            steps.push(Step::Store);
        }
        steps
    }

    fn is_connected(&self, client: usize) -> bool {
        match client.checked_sub(self.senders.len()) {
            None => self.senders[client].connected,
            Some(at) => self.recipients[at].connected,
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let steps = self.steps();
        let may_send = |step: &Step| matches!(step, Step::Send(_));
        if steps.iter().all(may_send) {
            // Nothing but sending is left, and if there is nothing to send, time passes.
            if !(0..self.senders.len()).any(|at| self.send(at)) {
                self.tick(Duration::MAX);
            }
        } else if !self.quiet && self.chance.one_in(25) {
            self.tick(SHORT_WAIT);
        } else {
            match self.chance.pick(&steps) {
                Step::Send(at) => drop(self.send(at)),
                step => self.perform(step),
            }
        }
        for at in 0..self.senders.len() {
            if self.senders[at].carry_out(&mut self.ledger) {
                self.note(|| format!("s{at} takes the relay for silent"));
                self.senders[at].leave(&mut self.net);
            }
        }
    }

    fn send(&mut self, at: usize) -> bool {
        let said = self.senders[at].send(&mut self.net, self.time);
        let sent = said.is_some();
        if let Some(said) = said {
            self.note(|| format!("s{at} sends {said}"));
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
            Step::Connect(client) => {
                let link = self.net.connect(client);
                match client.checked_sub(self.senders.len()) {
                    None => {
                        let sender = &mut self.senders[client];
                        sender.link = Some(link);
                        self.relay.hello(&mut self.net, link, sender.peer, Reading::Nothing, 0);
                    }
                    Some(at) => {
                        let recipient = &mut self.recipients[at];
                        recipient.link = Some(link);
                        let (reading, credit) = (recipient.reading, recipient.credit);
                        self.relay.hello(&mut self.net, link, recipient.peer, reading, credit);
                    }
                }
            }
            Step::Notice(client) => self.leave(client),
            Step::Send(_) => {}
            Step::Commit(client) => match client.checked_sub(self.senders.len()) {
                None => self.senders[client].commit(&mut self.ledger),
                Some(at) => self.recipients[at].commit(&mut self.ledger),
            },
            Step::Receive(client, stream) => {
                let link = self.link(client).and_then(|link| self.net.links.get_mut(&link));
                let Some(frame) = link.and_then(|link| link.down[stream].pop_front()) else { return };
                match client.checked_sub(self.senders.len()) {
                    None => self.senders[client].receive(self.time, &mut self.ledger, frame),
                    Some(at) => self.recipients[at].receive(frame),
                }
            }
            Step::Answer(at) => {
                let takes = !self.chance.percent(self.plan.refuse_percent);
                self.recipients[at].answer(self.time, takes);
            }
            Step::Page(at) => self.recipients[at].page(&mut self.net),
            Step::Acknowledge(at) => self.recipients[at].acknowledge(&mut self.net, self.time),
            Step::Take(link, stream) => {
                let frame = self.net.links.get_mut(&link).and_then(|link| link.up[stream].pop_front());
                if let Some(frame) = frame {
                    self.relay.take(&mut self.net, self.time, &mut self.chance, link, frame);
                }
            }
            Step::Store => {
                let count = 1 + self.chance.below(4);
                let news = self.relay.commit(&mut self.net, self.time, &mut self.chance, &is_known, count, true);
                self.see(news);
            }
            Step::Push(link) => self.relay.push(&mut self.net, self.time, link),
            Step::End(link) => self.relay.end(&mut self.net, link, false),
        }
    }

    fn see(&mut self, news: Vec<News>) {
        for news in news {
            match news {
                News::Refused { uid } => self.ledger.messages[uid].refused = true,
                News::Closed { lane } => drop(self.ledger.closed.insert(lane)),
            }
        }
    }

    fn submit(&mut self, at: usize) {
        self.unsent -= 1;
        let nobody = self.chance.percent(self.plan.nobody_percent);
        let to = if nobody { self.recipients.len() } else { self.chance.below(self.recipients.len()) };
        let recipient = self.recipients.get(to).map_or(peer(3, 0), |recipient| recipient.peer);
        let short = self.chance.percent(self.plan.short_percent);
        let life =
            if short { Duration::from_secs(1 + self.chance.below(20) as u64) } else { Duration::from_secs(80_000) };
        let uid = self.ledger.submit(at, to);
        let lane = LaneId(self.chance.word() % 1_000_000);
        self.ledger.messages[uid].lane = Some(self.senders[at].submit(self.time, recipient, life, uid, lane));
        self.note(|| format!("m{uid} from s{at} to r{to}, lives {life:?}"));
    }

    fn leave(&mut self, client: usize) {
        match client.checked_sub(self.senders.len()) {
            None => self.senders[client].leave(&mut self.net),
            Some(at) => self.recipients[at].leave(&mut self.net),
        }
    }

    /// Lets time pass until the next timer, and runs what is due.
    fn tick(&mut self, most: Duration) {
        let senders = self.senders.iter().filter_map(|sender| sender.outbox.next_timeout());
        let recipients = self.recipients.iter().filter_map(Recipient::next_timeout);
        let clients = senders.chain(recipients).min();
        let next = clients.into_iter().chain(self.relay.next_timeout(self.time)).min();
        let Some(next) = next.filter(|next| *next - self.time.now() <= most) else { return };
        self.time.0 = self.time.0.max(next.since(Moment::default()));
        self.time_passed();
    }

    fn time_passed(&mut self) {
        self.note(|| "timers".to_owned());
        for sender in &mut self.senders {
            sender.outbox.on_timeout(self.time.now());
        }
        for recipient in &mut self.recipients {
            recipient.on_timeout(self.time);
        }
        self.relay.on_timeout(&mut self.net, self.time);
    }

    fn fault(&mut self) {
        let fault = self.chance.pick(&self.plan.faults.clone());
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Hangup => {
                let client = self.chance.below(self.clients());
                let link = self.link(client);
                if self.chance.one_in(3)
                    && let Some(link) = link
                {
                    let arrives = self.chance.one_in(2);
                    self.relay.end(&mut self.net, link, arrives);
                } else {
                    self.leave(client);
                }
            }
            Fault::CrashClient => {
                let client = self.chance.below(self.clients());
                let kept = self.chance.below(4);
                match client.checked_sub(self.senders.len()) {
                    None => {
                        self.rows_may_stay = true;
                        self.senders[client].crash(&mut self.net, self.time, &mut self.ledger, kept);
                    }
                    Some(at) => self.recipients[at].crash(&mut self.net, &mut self.ledger, kept),
                }
            }
            Fault::CrashRelay => self.crash_relay(),
            Fault::RestoreRelay if self.relay.backup.is_none() => {
                self.relay.backup = Some(self.relay.disk.clone());
            }
            Fault::RestoreRelay | Fault::LoseRelay => {
                self.crash_relay();
                (self.ledger.disk_lost, self.rows_may_stay) = (true, true);
                self.relay.replace_disk(self.time, fault == Fault::LoseRelay);
            }
            Fault::RestoreSender => {
                let at = self.chance.below(self.senders.len());
                match self.senders[at].has_copy() {
                    false => self.senders[at].back_up(&self.ledger),
                    true => {
                        self.rows_may_stay = true;
                        self.senders[at].put_back(&mut self.net, self.time, &mut self.ledger);
                    }
                }
            }
            Fault::Full => self.relay.full = !self.relay.full,
            Fault::Refuse => {
                let reason = self.chance.pick(&[RejectReason::Blocked, RejectReason::NoRoute, RejectReason::TooLarge]);
                self.relay.refuses = match self.relay.refuses {
                    None => Some((reason, 1 + self.chance.below(3))),
                    Some(_) => None,
                };
            }
            Fault::LoseOperation => drop(self.relay.lose_operation(&mut self.chance)),
            Fault::Sleep => {
                for client in 0..self.clients() {
                    self.leave(client);
                }
                for link in self.net.links.keys().copied().collect::<Vec<_>>() {
                    self.relay.end(&mut self.net, link, false);
                }
                let hours = self.chance.pick(&[0, 0, 1, 2, 23, 30, 60]);
                self.time.0 += Duration::from_secs(hours * 3600 + self.chance.below(60) as u64);
                for recipient in &mut self.recipients {
                    recipient.forget(self.time);
                }
                if self.chance.one_in(2) {
                    self.time_passed();
                }
            }
        }
        for sender in &mut self.senders {
            sender.carry_out(&mut self.ledger);
        }
    }

    fn crash_relay(&mut self) {
        let arrives = self.chance.one_in(2);
        let news = self.relay.crash(&mut self.net, self.time, &mut self.chance, &is_known, arrives);
        self.see(news);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("senders", &self.senders)
            .field("recipients", &self.recipients)
            .field("relay", &self.relay)
            .finish()
    }
}
