//! A sender: the shell around its outbox, with a disk of its own.
//!
//! As in the client, each change goes to the disk first and what depends on it follows. Every effect is a
//! batch by itself, so that a crash can fall between any two.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use posthouse::delivery::{Effect, Entry, Outbox, OutboxOptions, Receipt, Restored};
use posthouse::id::{LaneId, LaneKey, MessageId, Pair, PeerId, StoreId};
use posthouse::protocol::{Outcome, Verdict};
use posthouse::time::UnixMillis;

use super::ledger::Ledger;
use super::net::{Letter, Net};
use super::session::Session;
use super::world::Time;

#[derive(Debug, Clone, Default)]
struct Disk {
    letters: BTreeMap<u64, (Letter, UnixMillis)>,
    outcomes: BTreeMap<u64, (usize, Verdict)>,
    store: Option<StoreId>,
    foreign_below: u64,
}

#[derive(Debug, Clone)]
enum Batch {
    Keep(Entry, Letter, UnixMillis),
    Remember { store: StoreId, foreign_below: u64 },
    Resolve { key: u64, uid: usize, verdict: Verdict, receipt: Receipt },
    Forget(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Sender {
    index: usize,
    pub(crate) peer: PeerId,
    pub(crate) session: Session,
    disk: Disk,
    copy: Option<(Disk, Vec<usize>)>,
    batches: VecDeque<Batch>,
    keys: BTreeMap<u64, usize>,
    accepted: Vec<usize>,
    next_key: u64,
    first_key: u64,
    knows_store: bool,
    window: usize,
}

impl Sender {
    pub(crate) fn new(index: usize, peer: PeerId, window: usize) -> Self {
        Self {
            index,
            peer,
            session: Session::new(Outbox::open(options(peer, window), None, [])),
            disk: Disk::default(),
            copy: None,
            batches: VecDeque::new(),
            keys: BTreeMap::new(),
            accepted: vec![],
            next_key: 0,
            first_key: 0,
            knows_store: false,
            window,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.session.outbox.is_empty()
    }

    pub(crate) fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    pub(crate) fn submit(
        &mut self,
        time: Time,
        recipient: PeerId,
        life: Duration,
        uid: usize,
        lane: LaneId,
    ) -> LaneKey {
        let (lane, n) = self.session.outbox.assign(Pair { sender: self.peer, recipient }, lane);
        let letter = Letter { uid, lane, n };
        let key = self.next_key;
        self.next_key += 1;
        let id = MessageId::new(time.date().0, &[0; 10]);
        let entry = Entry { key, id, lane, n, bytes: 100 + 150 * (uid % 3), deadline: time.now() + life };
        self.batches.push_back(Batch::Keep(entry, letter, time.date() + life));
        lane
    }

    /// Carries out what the outbox wants done. True if the relay counts as silent.
    pub(crate) fn carry_out(&mut self, ledger: &mut Ledger) -> bool {
        let mut silent = false;
        while let Some(effect) = self.session.outbox.poll_effect() {
            match effect {
                Effect::Remember(store) => {
                    let foreign_below = if self.knows_store { self.next_key } else { self.first_key };
                    self.knows_store = true;
                    self.batches.push_back(Batch::Remember { store, foreign_below });
                }
                Effect::Resolved { key, verdict, receipt, .. } => {
                    let uid = self.keys[&key];
                    if verdict.outcome == Outcome::Delivered && !self.accepted.contains(&uid) {
                        ledger.breaks(format!("m{uid} is delivered, but was never accepted"));
                    }
                    self.batches.push_back(Batch::Resolve { key, uid, verdict, receipt });
                }
                Effect::Accepted { key, .. } => self.accepted.push(self.keys[&key]),
                Effect::Held { .. } => {}
                Effect::Silent => silent = true,
            }
        }
        silent
    }

    /// Sends one request, if there is one.
    pub(crate) fn send(&mut self, net: &mut Net, time: Time) -> Option<String> {
        self.session.send(net, time, |key| self.disk.letters.get(&key).map(|(letter, _)| *letter))
    }

    fn apply(&mut self, batch: &Batch) {
        match batch {
            Batch::Keep(entry, letter, deadline) => {
                self.disk.letters.insert(entry.key, (*letter, *deadline));
            }
            Batch::Remember { store, foreign_below } => {
                (self.disk.store, self.disk.foreign_below) = (Some(*store), *foreign_below);
            }
            Batch::Resolve { key, uid, verdict, .. } => {
                self.disk.letters.remove(key);
                self.disk.outcomes.insert(*key, (*uid, verdict.clone()));
            }
            Batch::Forget(key) => drop(self.disk.outcomes.remove(key)),
        }
    }

    /// The oldest batch is durable, and what waited for it happens.
    pub(crate) fn commit(&mut self, time: Time, ledger: &mut Ledger) {
        let Some(batch) = self.batches.pop_front() else { return };
        self.apply(&batch);
        match batch {
            Batch::Keep(entry, letter, _) => {
                self.keys.insert(entry.key, letter.uid);
                self.session.outbox.add(entry);
            }
            Batch::Remember { .. } => self.session.outbox.remembered(),
            Batch::Resolve { key, uid, verdict, receipt } => {
                self.session.outbox.persisted(receipt);
                ledger.tell(uid, &verdict, time.date());
                self.batches.push_back(Batch::Forget(key));
            }
            Batch::Forget(_) => {}
        }
    }

    /// The process ends when so many more batches are on the disk, and another begins.
    pub(crate) fn crash(&mut self, net: &mut Net, time: Time, ledger: &mut Ledger, kept: usize) {
        for _ in 0..kept {
            if let Some(batch) = self.batches.pop_front() {
                self.apply(&batch);
            }
        }
        for batch in std::mem::take(&mut self.batches) {
            if let Batch::Keep(_, letter, _) = batch {
                let message = &mut ledger.messages[letter.uid];
                (message.forgotten, message.unsent) = (true, true);
            }
        }
        self.reopen(net, time, ledger);
    }

    /// Keeps a copy of the disk.
    pub(crate) fn back_up(&mut self, ledger: &Ledger) {
        let told = ledger.messages.iter().enumerate().filter(|(_, message)| message.told.is_some());
        self.copy = Some((self.disk.clone(), told.map(|(uid, _)| uid).collect()));
    }

    pub(crate) const fn has_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// The copy is put back.
    pub(crate) fn put_back(&mut self, net: &mut Net, time: Time, ledger: &mut Ledger) {
        let Some((disk, mut knows)) = self.copy.take() else { return };
        self.batches.clear();
        let holds: Vec<_> = disk.letters.values().map(|(letter, _)| letter.uid).collect();
        knows.extend(disk.outcomes.values().map(|(uid, _)| *uid));
        ledger.put_back(self.index, &holds, &knows);
        self.disk = disk;
        self.reopen(net, time, ledger);
    }

    fn reopen(&mut self, net: &mut Net, time: Time, ledger: &mut Ledger) {
        self.session.leave(net);
        self.keys = self.disk.letters.iter().map(|(key, (letter, _))| (*key, letter.uid)).collect();
        let restored = self.disk.letters.iter().map(|(key, (letter, deadline))| Restored {
            entry: Entry {
                key: *key,
                id: MessageId::new(0, &[0; 10]),
                lane: letter.lane,
                n: letter.n,
                bytes: 100,
                deadline: time.now() + time.date().until(*deadline),
            },
            foreign: *key < self.disk.foreign_below,
        });
        let restored: Vec<_> = restored.collect();
        self.session.outbox = Outbox::open(options(self.peer, self.window), self.disk.store, restored);
        let last = self.disk.letters.keys().chain(self.disk.outcomes.keys()).max();
        self.next_key = last.map_or(0, |key| key + 1).max(self.disk.foreign_below);
        (self.first_key, self.knows_store) = (self.next_key, self.disk.store.is_some());
        self.accepted.clear();
        for (key, (uid, verdict)) in self.disk.outcomes.clone() {
            ledger.tell(uid, &verdict, time.date());
            self.batches.push_back(Batch::Forget(key));
        }
    }
}

fn options(peer: PeerId, window: usize) -> OutboxOptions {
    OutboxOptions {
        window_messages: window,
        window_bytes: 600,
        silence_grace: Duration::from_secs(3600),
        ..OutboxOptions::new(peer)
    }
}
