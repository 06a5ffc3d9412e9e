//! A link between two relays: a client of one, which forwards what lies in the outbox for it at the other.
//!
//! It keeps nothing itself. What is new in the outbox comes to it after the commit; outcomes go into the store
//! of its relay, and from there to the senders.

use std::collections::VecDeque;

use posthouse::delivery::{Effect, Entry, Outbox, OutboxOptions, Receipt, Restored};
use posthouse::id::{MessageId, PeerId};

use super::net::Net;
use super::relay::Relay;
use super::session::Session;
use super::store::{GRACE, Known, Op, Stored, name, outbox_of};
use super::world::Time;

#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Its relay's name, as the other one knows it.
    pub(crate) me: PeerId,
    /// The owner of the mailbox that it empties.
    pub(crate) owner: PeerId,
    pub(crate) session: Session,
    window: usize,
    /// What was committed and has not come here yet, and how far it has.
    feed: VecDeque<(u64, Stored)>,
    cursor: u64,
}

impl Hop {
    pub(crate) fn new(from: usize, to: usize, window: usize) -> Self {
        let (me, owner) = (name(8, from, from), outbox_of(to));
        let session = Session::new(Outbox::open(options(me, window), None, []));
        Self { from, to, me, owner, session, window, feed: VecDeque::new(), cursor: 0 }
    }

    /// Whether nothing is left to be forwarded. What its relay's own sweep has ended it may know of for longer.
    pub(crate) fn is_idle(&self, relay: &Relay) -> bool {
        self.feed.is_empty() && relay.disk.mailboxes.get(&self.owner).is_none_or(|outbox| outbox.entries.is_empty())
    }

    pub(crate) fn has_feed(&self) -> bool {
        !self.feed.is_empty()
    }

    /// A message is in the outbox.
    pub(crate) fn tell(&mut self, seq: u64, stored: Stored) {
        self.feed.push_back((seq, stored));
    }

    /// The next new message comes.
    pub(crate) fn take(&mut self, time: Time) {
        if let Some((seq, stored)) = self.feed.pop_front() {
            self.cursor = self.cursor.max(seq);
            self.session.outbox.add(entry(time, seq, stored));
        }
    }

    /// Carries out what the outbox wants done. True if the other relay counts as silent.
    pub(crate) fn carry_out(&mut self, relay: &mut Relay) -> bool {
        let mut silent = false;
        while let Some(effect) = self.session.outbox.poll_effect() {
            match effect {
                Effect::Remember(store) => {
                    let known = Known { store: Some(store), foreign_below: self.cursor + 1 };
                    relay.enqueue(None, self.owner, Op::Remember { outbox: self.owner, known });
                }
                Effect::Resolved { key: seq, verdict, receipt, .. } => {
                    relay.enqueue(None, self.owner, Op::Resolve { outbox: self.owner, seq, verdict, receipt });
                }
                Effect::Accepted { .. } | Effect::Held { .. } => {}
                Effect::Silent => silent = true,
            }
        }
        silent
    }

    /// An outcome is in its relay's store.
    pub(crate) fn resolved(&mut self, receipt: Receipt) {
        self.session.outbox.persisted(receipt);
    }

    /// Sends one request, if there is one.
    pub(crate) fn send(&mut self, net: &mut Net, relay: &Relay, time: Time) -> Option<String> {
        let outbox = relay.disk.mailboxes.get(&self.owner);
        self.session.send(net, time, |key| outbox?.entries.get(&key).map(|stored| stored.letter))
    }

    /// The relay has begun anew, or the link has.
    pub(crate) fn reopen(&mut self, net: &mut Net, relay: &Relay, time: Time) {
        self.session.leave(net);
        self.feed.clear();
        let known = relay.disk.relays.get(&self.owner).copied().unwrap_or_default();
        let held = relay.disk.mailboxes.get(&self.owner).map(|outbox| outbox.entries.clone()).unwrap_or_default();
        self.cursor = held.keys().next_back().copied().unwrap_or(0);
        let restored = held
            .into_iter()
            .map(|(seq, stored)| Restored { entry: entry(time, seq, stored), foreign: seq < known.foreign_below });
        self.session.outbox = Outbox::open(options(self.me, self.window), known.store, restored);
    }
}

fn entry(time: Time, seq: u64, stored: Stored) -> Entry {
    Entry {
        key: seq,
        id: MessageId::new(0, &[0; 10]),
        lane: stored.letter.lane,
        n: stored.letter.n,
        bytes: 100,
        deadline: time.now() + time.date().until(stored.expires),
    }
}

fn options(me: PeerId, window: usize) -> OutboxOptions {
    OutboxOptions {
        window_messages: window,
        window_bytes: 600,
        silence_grace: GRACE,
        keeps_lanes: true,
        ..OutboxOptions::new(me)
    }
}
