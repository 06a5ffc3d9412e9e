//! What can happen next, and one of it happening.

use std::time::Duration;

use posthouse::id::PeerId;

use super::hop::Hop;
use super::net::STREAMS;
use super::recipient::Recipient;
use super::relay::Reading;
use super::store::{News, home_of};
use super::world::{Who, World, is_known};

#[derive(Debug, Clone, Copy)]
enum Step {
    Submit(usize),
    /// A message that a relay has for another one comes to the link.
    Feed(usize),
    /// A link with nothing to do lets its lanes go, and then ends.
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

impl World {
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
            if sender.session.connected {
                steps.push(Step::Send(at));
            }
        }
        for (at, hop) in self.hops.iter().enumerate() {
            if hop.has_feed() {
                steps.push(Step::Feed(at));
            }
            if hop.session.connected {
                steps.push(Step::Send(self.senders.len() + self.recipients.len() + at));
            }
            if !self.quiet
                && hop.session.outbox.is_empty()
                && !hop.has_feed()
                && hop.session.connected
                && self.chance.one_in(8)
            {
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
            Who::Sender(at) => self.senders[at].session.connected,
            Who::Recipient(at) => self.recipients[at].connected,
            Who::Hop(at) => self.hops[at].session.connected,
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
                self.senders[at].session.leave(&mut self.net);
            }
        }
        for at in 0..self.hops.len() {
            let hop = &mut self.hops[at];
            if hop.carry_out(&mut self.relays[hop.from]) {
                hop.session.leave(&mut self.net);
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
                let hop = &mut self.hops[at];
                // It may end before the other relay knows.
                self.rows_may_stay = true;
                match hop.session.outbox.lanes() {
                    0 => hop.reopen(&mut self.net, &self.relays[hop.from], self.time),
                    _ => hop.session.outbox.retire_idle(),
                }
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
                    Who::Sender(at) => self.senders[at].session.receive(self.time, &mut self.ledger, frame),
                    Who::Recipient(at) => self.recipients[at].receive(frame),
                    Who::Hop(at) => self.hops[at].session.receive(self.time, &mut self.ledger, frame),
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
            Who::Sender(at) => self.senders[at].session.link = Some(link),
            Who::Recipient(at) => self.recipients[at].link = Some(link),
            Who::Hop(at) => self.hops[at].session.link = Some(link),
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
                        hop.session.outbox.remembered();
                    }
                }
            }
        }
    }
}
