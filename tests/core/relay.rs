//! The relay's volatile half: sessions, the queue before the disk, pushing, and telling outcomes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use posthouse::delivery::PushWindow;
use posthouse::id::{LaneKey, PeerId, StoreId};
use posthouse::protocol::{AckA, AckN, Exception, RejectReason, Taken, Verdict};
use posthouse::ranges::Ranges;
use posthouse::time::{Moment, UnixMillis};

use super::chance::Chance;
use super::net::{Ask, Down, NOTIFY, Net, SUBMIT, SYNC, Up};
use super::store::{Around, Disk, Done, GRACE, News, Op, Stored, home_of, is_outbox, outbox_of};
use super::world::Time;

/// How a client reads: in order with the backlog first, or at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    InOrder,
    AtOnce,
    Nothing,
    /// Another relay, which has no mailbox here.
    Forwarding,
}

#[derive(Debug, Clone)]
struct Session {
    peer: PeerId,
    open: bool,
    reading: Reading,
    /// From behind where messages are pushed; `None` until the backlog is read.
    live: Option<u64>,
    handed: u64,
    window: PushWindow<Stored>,
    refused: BTreeMap<LaneKey, (Ranges, Verdict)>,
}

/// An operation on its way to the disk.
#[derive(Debug, Clone)]
struct Queued {
    link: Option<u64>,
    peer: PeerId,
    op: Op,
    /// A page to read once it is durable.
    page: Option<Ask>,
    /// Who was told of each delivery in advance.
    told: BTreeMap<(PeerId, LaneKey, u64), Option<u64>>,
    /// What it answers is lost.
    answer_lost: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Relay {
    index: usize,
    pub(crate) disk: Disk,
    pub(crate) backup: Option<Disk>,
    pub(crate) full: bool,
    /// How it refuses messages now, once in so many times.
    pub(crate) refuses: Option<(RejectReason, usize)>,
    queue: VecDeque<Queued>,
    sessions: BTreeMap<u64, Session>,
    /// The newest session of each peer, and the newest that wrote.
    seats: BTreeMap<PeerId, u64>,
    fences: BTreeMap<PeerId, u64>,
    stores: u8,
}

impl Relay {
    pub(crate) fn new(index: usize, time: Time) -> Self {
        Self {
            index,
            disk: Disk::new(store_id(index, 1), time.date()),
            backup: None,
            full: false,
            refuses: None,
            queue: VecDeque::new(),
            sessions: BTreeMap::new(),
            seats: BTreeMap::new(),
            fences: BTreeMap::new(),
            stores: 1,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.disk.mailboxes.values().all(|mailbox| mailbox.entries.is_empty())
    }

    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// R:HELLO: the seat is taken at once, the older session is over, and what it has queued is fenced off
    /// once the opening is durable.
    pub(crate) fn hello(&mut self, net: &mut Net, link: u64, peer: PeerId, reading: Reading, credit: usize) {
        if let Some(old) = self.seats.insert(peer, link) {
            self.sessions.remove(&old);
            net.drop_by_relay(old, false);
        }
        let window = PushWindow::new(credit, 1000, Duration::from_secs(10));
        let refused = BTreeMap::new();
        let session = Session { peer, open: false, reading, live: None, handed: 0, window, refused };
        self.sessions.insert(link, session);
        let opening = if reading == Reading::Forwarding { Op::Join } else { Op::Open };
        self.enqueue(Some(link), peer, opening);
    }

    pub(crate) fn enqueue(&mut self, link: Option<u64>, peer: PeerId, op: Op) {
        self.queue.push_back(Queued { link, peer, op, page: None, told: BTreeMap::new(), answer_lost: false });
    }

    /// Whether a frame has to wait: a repeated copy while the first one is on its way to the disk. Its answer may
    /// be one that only the session remembers.
    pub(crate) fn must_wait(&self, link: u64, frame: &Up) -> bool {
        let Up::Message { letter, .. } = frame else { return false };
        let same = |op: &Op| matches!(op, Op::Append { letter: other, .. } if other.lane == letter.lane && other.n >= letter.n);
        self.queue.iter().any(|queued| queued.link == Some(link) && same(&queued.op))
    }

    /// Takes one frame of a session.
    pub(crate) fn take(&mut self, net: &mut Net, time: Time, chance: &mut Chance, link: u64, frame: Up) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let peer = session.peer;
        match frame {
            Up::Message { request, prev, ttl, letter } => {
                assert!(prev < letter.n, "prev is below n");
                let remembered = session.refused.get(&letter.lane);
                if let Some((_, verdict)) = remembered.filter(|(numbers, _)| numbers.contains(letter.n)) {
                    let verdict = verdict.clone();
                    return self.enqueue(Some(link), peer, Op::Ready { request, verdict });
                }
                let prev = match remembered {
                    Some((numbers, _)) if numbers.last() == Some(prev) => 0,
                    _ => prev,
                };
                let refuse = self.refuses.filter(|(_, times)| chance.one_in(*times)).map(|(reason, _)| reason);
                let expires = time.date() + ttl;
                let home = home_of(letter.lane.pair.recipient);
                let outbox = (home != self.index).then(|| outbox_of(home));
                self.enqueue(Some(link), peer, Op::Append { request, prev, letter, expires, refuse, outbox });
            }
            Up::Where(ask) => self.enqueue(Some(link), peer, Op::Where(ask)),
            Up::Close(close) => self.enqueue(Some(link), peer, Op::Close(close)),
            Up::Answers(ack) => {
                if ack.store == self.disk.store {
                    self.settle(net, chance, link, ack.answers, None);
                }
                net.down(link, NOTIFY, Down::Confirmed(AckA { request: ack.request }));
            }
            Up::Page(ask) if ask.store == self.disk.store && !ask.answers.is_empty() => {
                let answers = ask.answers.clone();
                self.settle(net, chance, link, answers, Some(ask));
            }
            Up::Page(ask) => self.page(net, time, link, &ask),
        }
    }

    /// The recipient has answered. Senders of what was taken may be told before the disk has it.
    fn settle(&mut self, net: &mut Net, chance: &mut Chance, link: u64, answers: Taken, page: Option<Ask>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let (peer, handed) = (session.peer, session.handed);
        let mut told = BTreeMap::new();
        for seq in answers.taken.numbers().chain(answers.refused.iter().map(|refusal| refusal.seq)) {
            session.window.answered(seq);
        }
        let entries = self.disk.mailboxes.get(&peer).map(|mailbox| mailbox.entries.clone()).unwrap_or_default();
        for seq in answers.taken.numbers().filter(|seq| *seq <= handed) {
            // Not always: as if the disk had been faster.
            if let Some(stored) = entries.get(&seq).filter(|_| chance.percent(70)) {
                let Stored { submitter, letter, .. } = *stored;
                let to = self.tell(net, submitter, letter.lane, letter.n, &Verdict::DELIVERED);
                told.insert((submitter, letter.lane, letter.n), to);
            }
        }
        self.queue.push_back(Queued {
            link: Some(link),
            peer,
            op: Op::Settle { answers, handed },
            page,
            told,
            answer_lost: false,
        });
    }

    /// Tells an outcome to the submitter's newest session, and which one that is.
    fn tell(&self, net: &mut Net, submitter: PeerId, lane: LaneKey, n: u64, verdict: &Verdict) -> Option<u64> {
        let seat = self.seats.get(&submitter).copied()?;
        let sender = (lane.pair.sender != submitter).then_some(lane.pair.sender);
        let about =
            |frame: &AckN| (frame.sender, frame.recipient, frame.lane) == (sender, lane.pair.recipient, lane.lane);
        match net.last_down(seat, NOTIFY) {
            Some(Down::Outcomes(frame)) if about(frame) => note(frame, n, verdict),
            _ => {
                let (delivered, exceptions) = (Ranges::new(), vec![]);
                let (recipient, lane) = (lane.pair.recipient, lane.lane);
                let mut frame = AckN { sender, recipient, lane, delivered, exceptions };
                note(&mut frame, n, verdict);
                net.down(seat, NOTIFY, Down::Outcomes(frame));
            }
        }
        Some(seat)
    }

    /// Makes the next operations durable and does what waits for that; without `replies`, the relay crashes
    /// before it can.
    pub(crate) fn commit(
        &mut self,
        net: &mut Net,
        time: Time,
        chance: &mut Chance,
        known: &dyn Fn(PeerId) -> bool,
        count: usize,
        replies: bool,
    ) -> Vec<News> {
        let mut news = vec![];
        for _ in 0..count {
            let Some(queued) = self.queue.pop_front() else { break };
            if queued.link.is_some_and(|link| self.fences.get(&queued.peer).is_some_and(|fence| link < *fence)) {
                continue;
            }
            if let (Some(link), Op::Open | Op::Join) = (queued.link, &queued.op) {
                self.fences.insert(queued.peer, link);
            }
            let mut around = Around { date: time.date(), full: self.full, known, chance };
            let done = self.disk.apply(queued.peer, &queued.op, &mut around);
            for done in done {
                if let Done::News(seen) = done {
                    news.push(seen);
                } else if replies {
                    self.done(net, &queued, done);
                }
            }
            if let (Some(ask), Some(link), true) = (&queued.page, queued.link, replies) {
                self.page(net, time, link, ask);
            }
        }
        news
    }

    fn done(&mut self, net: &mut Net, queued: &Queued, done: Done) {
        let session = queued.link.and_then(|link| self.sessions.get_mut(&link).map(|session| (link, session)));
        match done {
            Done::Opened { watermark } => {
                let Some((link, session)) = session else { return };
                session.open = true;
                session.live = (session.reading == Reading::AtOnce).then_some(watermark);
                net.down(link, SUBMIT, Down::Hello { store: self.disk.store, watermark });
            }
            Done::Reply(frame) => {
                if let Some((link, _)) = session.filter(|_| !queued.answer_lost) {
                    reply(net, link, frame);
                }
            }
            Done::Remember { lane, n, verdict } => {
                if let Some((_, session)) = session {
                    let refused = session.refused.entry(lane).or_insert_with(|| (Ranges::new(), verdict));
                    refused.0.insert(n);
                }
            }
            Done::Settled { submitter, lane, n, verdict } => {
                let in_advance = queued.told.get(&(submitter, lane, n)).copied().flatten();
                if in_advance.is_none() || in_advance != self.seats.get(&submitter).copied() {
                    self.tell(net, submitter, lane, n, &verdict);
                }
            }
            Done::News(_) => {}
        }
    }

    fn page(&mut self, net: &mut Net, time: Time, link: u64, ask: &Ask) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let cursor = ask.cursor.filter(|_| ask.store == self.disk.store);
        let newest = session.reading == Reading::AtOnce;
        let mut items: Vec<_> = match newest {
            true => self.disk.after(session.peer, 0, time.date()).rev().collect(),
            false => self.disk.after(session.peer, cursor.unwrap_or(0), time.date()).collect(),
        };
        if newest {
            items.retain(|(seq, _)| cursor.is_none_or(|cursor| *seq < cursor));
        }
        let complete = items.len() <= 2;
        items.truncate(2);
        let cursor = items.last().map(|(seq, _)| *seq).or(cursor);
        session.handed = items.iter().map(|(seq, _)| *seq).fold(session.handed, u64::max);
        if complete && !newest && session.live.is_none() {
            session.live = Some(cursor.unwrap_or(0));
        }
        let items = items.into_iter().map(|(seq, stored)| (seq, stored.letter)).collect();
        net.down(link, SYNC, Down::Page { items, cursor, complete });
    }

    /// The next message to push to this session, if its credit allows.
    fn next_push(&self, time: Time, link: u64) -> Option<(u64, Stored)> {
        let session = self.sessions.get(&link).filter(|session| session.open)?;
        let next = self.disk.after(session.peer, session.live?, time.date()).next()?;
        session.window.admits(1).then_some(next)
    }

    pub(crate) fn can_push(&self, time: Time, link: u64) -> bool {
        self.next_push(time, link).is_some()
    }

    pub(crate) fn push(&mut self, net: &mut Net, time: Time, link: u64) {
        let Some((seq, stored)) = self.next_push(time, link) else { return };
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.live = Some(seq);
        session.handed = session.handed.max(seq);
        session.window.push(time.now(), seq, 1, stored);
        net.down(link, NOTIFY, Down::Push { seq, letter: stored.letter });
    }

    /// The session is over, at the relay's end at least.
    pub(crate) fn end(&mut self, net: &mut Net, link: u64, arrives: bool) {
        net.drop_by_relay(link, arrives);
        let Some(session) = self.sessions.remove(&link) else { return };
        if self.seats.get(&session.peer) == Some(&link) {
            self.seats.remove(&session.peer);
        }
        self.enqueue(Some(link), session.peer, Op::End { handed: session.handed });
    }

    /// Messages whose time has run out are taken out of their mailboxes.
    pub(crate) fn expire(&mut self, time: Time) {
        let all: Vec<_> = self.ends().filter(|(_, _, ends)| *ends <= time.date()).collect();
        for (mailbox, seq, _) in all {
            let queued =
                self.queue.iter().any(|queued| matches!(queued.op, Op::Expire { seq: other, .. } if other == seq));
            if !queued {
                self.enqueue(None, mailbox, Op::Expire { mailbox, seq });
            }
        }
        self.disk.sweep_rows(time.date());
    }

    /// When each message's time is over. One that goes on to another relay waits longer, for that one's word.
    fn ends(&self) -> impl Iterator<Item = (PeerId, u64, UnixMillis)> + '_ {
        self.disk.mailboxes.iter().flat_map(|(owner, mailbox)| {
            let grace = if is_outbox(*owner) { GRACE } else { Duration::ZERO };
            mailbox.entries.iter().map(move |(seq, stored)| (*owner, *seq, stored.expires + grace))
        })
    }

    pub(crate) fn next_timeout(&mut self, time: Time) -> Option<Moment> {
        let windows = self.sessions.values_mut().filter_map(|session| session.window.next_timeout());
        let windows: Vec<_> = windows.collect();
        let expiries = self.ends().map(|(.., ends)| time.moment(ends).max(time.now()));
        expiries.chain(windows).min()
    }

    pub(crate) fn on_timeout(&mut self, net: &mut Net, time: Time) {
        let mut stalled = vec![];
        for (link, session) in &mut self.sessions {
            match session.window.on_timeout(time.now()) {
                Ok(repeats) => {
                    for repeat in repeats {
                        if repeat.item.expires <= time.date() {
                            session.window.answered(repeat.seq);
                        } else {
                            net.down(*link, NOTIFY, Down::Push { seq: repeat.seq, letter: repeat.item.letter });
                        }
                    }
                }
                Err(_) => stalled.push(*link),
            }
        }
        for link in stalled {
            self.end(net, link, true);
        }
        self.expire(time);
    }

    /// Some operations are lost, as if the part of the relay that had them had failed.
    pub(crate) fn lose_operation(&mut self, chance: &mut Chance) -> bool {
        let at = chance.below(self.queue.len().max(1));
        if let Some(queued) = self.queue.get_mut(at).filter(|queued| matches!(queued.op, Op::Append { .. })) {
            // Or the answer alone is.
            if chance.one_in(2) {
                queued.answer_lost = true;
                return true;
            }
        }
        match self.queue.get(at).map(|queued| &queued.op) {
            Some(Op::Append { .. } | Op::Where(_)) => self.queue.remove(at).is_some(),
            _ => false,
        }
    }

    /// The process ends; what is volatile is gone, and of what was on its way to the disk some may be there.
    pub(crate) fn crash(
        &mut self,
        net: &mut Net,
        time: Time,
        chance: &mut Chance,
        known: &dyn Fn(PeerId) -> bool,
        arrives: bool,
    ) -> Vec<News> {
        let kept = chance.below(self.queue.len() + 1);
        let news = self.commit(net, time, chance, known, kept, false);
        self.queue.clear();
        for link in std::mem::take(&mut self.sessions).into_keys() {
            net.drop_by_relay(link, arrives);
        }
        self.seats.clear();
        self.fences.clear();
        self.disk.opened(time.date());
        news
    }

    /// After a crash: another disk, empty or an older copy, under a new name.
    pub(crate) fn replace_disk(&mut self, time: Time, lost: bool) {
        self.stores += 1;
        let store = store_id(self.index, self.stores);
        self.disk = match self.backup.clone().filter(|_| !lost) {
            Some(backup) => backup.restored(store, time.date()),
            None => Disk::new(store, time.date()),
        };
    }
}

fn store_id(relay: usize, life: u8) -> StoreId {
    let mut bytes = [life; 16];
    bytes[1] = relay as u8;
    StoreId(bytes)
}

fn note(frame: &mut AckN, n: u64, verdict: &Verdict) {
    if *verdict == Verdict::DELIVERED {
        frame.delivered.insert(n);
    } else {
        frame.exceptions.push(Exception { from: n, to: n, verdict: verdict.clone() });
    }
}

/// Answers that are the same and follow each other are one frame.
fn reply(net: &mut Net, link: u64, frame: Down) {
    if let (Down::Answer(next), Some(Down::Answer(last))) = (&frame, net.last_down(link, SUBMIT))
        && last.request + last.count == next.request
        && last.answer == next.answer
    {
        last.count += next.count;
        return;
    }
    net.down(link, SUBMIT, frame);
}
