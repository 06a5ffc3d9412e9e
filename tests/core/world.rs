//! The world of one seed: everybody in it, the time, and how it ends.
//!
//! Each step (`steps`) is chosen by chance among all that could happen next. When the faults stop, all has to end
//! well.

use std::fmt;
use std::time::Duration;

use posthouse::id::{LaneId, PeerId};
use posthouse::time::{Moment, UnixMillis};

use super::chance::Chance;
use super::hop::Hop;
use super::ledger::Ledger;
use super::net::Net;
use super::plan::Plan;
use super::recipient::Recipient;
use super::relay::{Reading, Relay};
use super::sender::Sender;
use super::store::{home_of, name};

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
        self.senders.iter_mut().for_each(|sender| sender.session.outbox.retire());
        self.hops.iter_mut().for_each(|hop| hop.session.outbox.retire());
        self.settle("lanes that are not closed", |world| {
            !world.relays.iter().any(Relay::has_queue)
                && world.senders.iter().all(|sender| sender.session.connected && !sender.session.outbox.is_closing())
                && world.hops.iter().all(|hop| hop.session.connected && !hop.session.outbox.is_closing())
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
                let held: Vec<_> = self.senders.iter().map(|sender| sender.session.outbox.len()).collect();
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
            Who::Sender(at) => self.senders[at].session.link,
            Who::Recipient(at) => self.recipients[at].link,
            Who::Hop(at) => self.hops[at].session.link,
        }
    }

    pub(crate) fn clients(&self) -> usize {
        self.senders.len() + self.recipients.len() + self.hops.len()
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
            Who::Sender(at) => self.senders[at].session.leave(&mut self.net),
            Who::Recipient(at) => self.recipients[at].leave(&mut self.net),
            Who::Hop(at) => self.hops[at].session.leave(&mut self.net),
        }
    }

    /// Lets time pass until the next timer, and runs what is due.
    pub(crate) fn tick(&mut self, most: Duration) {
        let senders = self.senders.iter().filter_map(|sender| sender.session.outbox.next_timeout());
        let recipients = self.recipients.iter().filter_map(Recipient::next_timeout);
        let hops = self.hops.iter().filter_map(|hop| hop.session.outbox.next_timeout());
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
            sender.session.outbox.on_timeout(self.time.now());
        }
        for recipient in &mut self.recipients {
            recipient.on_timeout(self.time);
        }
        for hop in &mut self.hops {
            hop.session.outbox.on_timeout(self.time.now());
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
