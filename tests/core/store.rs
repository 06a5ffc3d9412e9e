//! The relay's durable half, in memory: mailboxes and lane rows, changed by operations in order.
//!
//! Admission and rows are the ones under test. What is written here on top of them are DESIGN's rules for
//! mailboxes: what may have been handed out, what is told when, and what an opening and a restore change.

use std::collections::BTreeMap;
use std::time::Duration;

use posthouse::delivery::Receipt;
use posthouse::delivery::admission::{Arrival, Decision, Room, decide};
use posthouse::delivery::lane::LaneRow;
use posthouse::id::{LaneKey, PeerId, StoreId};
use posthouse::protocol::{
    Answer, CloseA, CloseR, Durability, MsgA, Outcome, RejectReason, Taken, Verdict, WaitReason, WhereA, WhereR,
};
use posthouse::time::UnixMillis;

use super::chance::Chance;
use super::net::{Down, Letter};

/// How long a message that goes on to another relay waits for that one's word beyond its time.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

/// How long a row stays after its last message: the longest lifetime.
pub(crate) const LANE_REST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) letter: Letter,
    /// Its sender, or the sender's relay.
    pub(crate) submitter: PeerId,
    pub(crate) expires: UnixMillis,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox {
    pub(crate) entries: BTreeMap<u64, Stored>,
    /// A session may be handing out.
    pub(crate) open: bool,
    /// Up to here messages may have been handed out.
    pub(crate) marked: u64,
}

/// What is remembered of a relay that this one forwards to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    pub(crate) store: Option<StoreId>,
    pub(crate) foreign_below: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) store: StoreId,
    /// By submitter and lane.
    pub(crate) rows: BTreeMap<(PeerId, LaneKey), LaneRow>,
    /// By owner. What goes on to another relay lies in one as well.
    pub(crate) mailboxes: BTreeMap<PeerId, Mailbox>,
    pub(crate) relays: BTreeMap<PeerId, Known>,
    pub(crate) next_seq: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Open,
    /// A session of another relay, which has no mailbox.
    Join,
    End {
        handed: u64,
    },
    Append {
        request: u64,
        prev: u64,
        letter: Letter,
        expires: UnixMillis,
        refuse: Option<RejectReason>,
        outbox: Option<PeerId>,
    },
    Ready {
        request: u64,
        verdict: Verdict,
    },
    Where(WhereR),
    Close(CloseR),
    Settle {
        answers: Taken,
        handed: u64,
    },
    Expire {
        mailbox: PeerId,
        seq: u64,
    },
    /// What another relay said about a message in the outbox for it.
    Resolve {
        outbox: PeerId,
        seq: u64,
        verdict: Verdict,
        receipt: Receipt,
    },
    Remember {
        outbox: PeerId,
        known: Known,
    },
}

/// What an onlooker has to know to judge fairly, and what a link to another relay waits for.
#[derive(Debug)]
pub(crate) enum News {
    /// A message was refused on its arrival.
    Refused {
        uid: usize,
    },
    /// A lane's row went because its submitter closed it.
    Closed {
        lane: LaneKey,
    },
    /// Another relay stayed silent beyond a message's time.
    Silent,
    /// A message is in an outbox.
    Forwarded {
        outbox: PeerId,
        seq: u64,
    },
    Resolved {
        outbox: PeerId,
        receipt: Receipt,
    },
    Remembered {
        outbox: PeerId,
    },
}

/// What is to be done once an operation is durable.
#[derive(Debug)]
pub(crate) enum Done {
    Opened {
        watermark: u64,
    },
    Reply(Down),
    /// The session itself has to remember this refusal.
    Remember {
        lane: LaneKey,
        n: u64,
        verdict: Verdict,
    },
    /// Its submitter is to be told.
    Settled {
        submitter: PeerId,
        lane: LaneKey,
        n: u64,
        verdict: Verdict,
    },
    /// For the onlooker alone.
    News(News),
}

/// What the surroundings are like for one operation.
pub(crate) struct Around<'a> {
    pub(crate) date: UnixMillis,
    pub(crate) full: bool,
    pub(crate) known: &'a dyn Fn(PeerId) -> bool,
    pub(crate) chance: &'a mut Chance,
}

impl Disk {
    pub(crate) fn new(store: StoreId, date: UnixMillis) -> Self {
        let (rows, mailboxes, relays) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { store, rows, mailboxes, relays, next_seq: date.0 << 10 }
    }

    /// The store is opened: nobody knows what those that were open have handed out.
    pub(crate) fn opened(&mut self, date: UnixMillis) {
        let last = self.next_seq - 1;
        for mailbox in self.mailboxes.values_mut().filter(|mailbox| mailbox.open) {
            (mailbox.open, mailbox.marked) = (false, last);
        }
        self.next_seq = self.next_seq.max(date.0 << 10);
    }

    /// This copy is put back, under a new name.
    pub(crate) fn restored(mut self, store: StoreId, date: UnixMillis) -> Self {
        self.store = store;
        for mailbox in self.mailboxes.values_mut() {
            mailbox.marked = self.next_seq - 1;
        }
        self.opened(date);
        self
    }

    pub(crate) fn apply(&mut self, peer: PeerId, op: &Op, around: &mut Around<'_>) -> Vec<Done> {
        match op {
            Op::Open => {
                let watermark = self.next_seq - 1;
                let mailbox = self.mailboxes.entry(peer).or_default();
                if mailbox.open {
                    // The session before it is fenced off and can no longer say how far it came.
                    mailbox.marked = watermark;
                }
                mailbox.open = true;
                vec![Done::Opened { watermark }]
            }
            Op::End { handed } => {
                if let Some(mailbox) = self.mailboxes.get_mut(&peer) {
                    (mailbox.open, mailbox.marked) = (false, mailbox.marked.max(*handed));
                }
                vec![]
            }
            Op::Join => vec![Done::Opened { watermark: 0 }],
            Op::Append { request, prev, letter, expires, refuse, outbox } => {
                let stored = Stored { letter: *letter, submitter: peer, expires: *expires };
                self.append(*request, *prev, stored, *refuse, *outbox, around)
            }
            Op::Ready { request, verdict } => vec![answer(*request, Answer::Final(verdict.clone()))],
            Op::Where(ask) => {
                let mut lanes: Vec<_> = ask.lanes.iter().collect();
                // Now and then less fits a frame than was asked for.
                if lanes.len() > 1 && around.chance.one_in(8) {
                    lanes.truncate(1);
                }
                let many = lanes.iter().any(|ask| ask.from < ask.to);
                let max_runs = if many && around.chance.one_in(4) { 1 } else { 100 };
                let lanes = lanes.iter().map(|ask| match self.rows.get(&(peer, ask.lane.key(peer))) {
                    Some(row) => row.state(ask.from, ask.to, max_runs, usize::MAX),
                    None => LaneRow::absent(ask.to),
                });
                vec![Done::Reply(Down::Rows(WhereA { request: ask.request, lanes: lanes.collect() }))]
            }
            Op::Close(close) => {
                let mut done = vec![Done::Reply(Down::Closed(CloseA { request: close.request }))];
                for lane in close.lanes.iter().map(|lane| lane.key(peer)) {
                    if self.rows.get(&(peer, lane)).is_some_and(|row| row.pending() == 0) {
                        self.rows.remove(&(peer, lane));
                        done.push(Done::News(News::Closed { lane }));
                    }
                }
                done
            }
            Op::Settle { answers, handed } => {
                let mut done = vec![];
                for seq in answers.taken.numbers().filter(|seq| seq <= handed) {
                    done.extend(self.settle(peer, seq, Verdict::DELIVERED, around.date));
                }
                for refusal in answers.refused.iter().filter(|refusal| refusal.seq <= *handed) {
                    let (reason, text) = (RejectReason::Refused, refusal.text.clone());
                    let verdict = Verdict::here(Outcome::Rejected { reason, text, maybe_taken: false });
                    done.extend(self.settle(peer, refusal.seq, verdict, around.date));
                }
                done
            }
            Op::Expire { mailbox: peer, seq } => {
                let Some(mailbox) = self.mailboxes.get(peer) else { return vec![] };
                let maybe_taken = is_outbox(*peer) || mailbox.open || *seq <= mailbox.marked;
                let verdict = Verdict::here(Outcome::Expired { maybe_taken });
                let settled = self.settle(*peer, *seq, verdict, around.date);
                let silent = is_outbox(*peer).then_some(Done::News(News::Silent));
                settled.into_iter().chain(silent).collect()
            }
            Op::Resolve { outbox, seq, verdict, receipt } => {
                let settled = self.settle(*outbox, *seq, verdict.clone(), around.date);
                let news = Done::News(News::Resolved { outbox: *outbox, receipt: *receipt });
                settled.into_iter().chain([news]).collect()
            }
            Op::Remember { outbox, known } => {
                self.relays.insert(*outbox, *known);
                vec![Done::News(News::Remembered { outbox: *outbox })]
            }
        }
    }

    fn append(
        &mut self,
        request: u64,
        prev: u64,
        stored: Stored,
        refuse: Option<RejectReason>,
        outbox: Option<PeerId>,
        around: &mut Around<'_>,
    ) -> Vec<Done> {
        let Stored { letter, submitter, expires } = stored;
        let recipient = letter.lane.pair.recipient;
        let lane = (submitter, letter.lane);
        let arrival = Arrival { n: letter.n, prev, expired: expires <= around.date, refuse };
        let room = match ((around.known)(recipient), around.full) {
            (false, _) if outbox.is_none() => Room::Nobody,
            (_, true) => Room::Wait { reason: WaitReason::Quota, retry_after: Duration::from_secs(7) },
            (_, false) if outbox.is_some() || self.mailboxes.contains_key(&recipient) => Room::Free,
            (_, false) => Room::New,
        };
        let row = self.rows.get(&lane);
        let decision = decide(row, arrival, || Ok::<_, std::convert::Infallible>(room)).unwrap();
        let durability = Durability::Disk;
        let is_accept = decision == Decision::Accept;
        let told = match decision {
            Decision::Duplicate(verdict) => Answer::Accepted { durability, duplicate: true, ttl_ms: None, verdict },
            Decision::Gap { last } => Answer::Gap { last },
            Decision::Wait { reason, retry_after } => {
                Answer::Wait { reason, retry_after_ms: retry_after.as_millis() as u64 }
            }
            Decision::Recorded(verdict) => {
                let row = self.rows.entry(lane).or_insert_with(|| LaneRow::new(around.date));
                row.refuse(letter.n, verdict.clone(), around.date);
                return vec![answer(request, Answer::Final(verdict)), Done::News(News::Refused { uid: letter.uid })];
            }
            Decision::Unrecorded { verdict, remember } => {
                let mut done = vec![
                    answer(request, Answer::Final(verdict.clone())),
                    Done::News(News::Refused { uid: letter.uid }),
                ];
                if remember {
                    done.push(Done::Remember { lane: letter.lane, n: letter.n, verdict });
                }
                return done;
            }
            Decision::Accept => Answer::Accepted { durability, duplicate: false, ttl_ms: None, verdict: None },
        };
        let mut done = vec![answer(request, told)];
        if is_accept {
            let row = self.rows.entry(lane).or_insert_with(|| LaneRow::new(around.date));
            row.accept(letter.n, 1, around.date);
            let seq = self.next_seq;
            self.mailboxes.entry(outbox.unwrap_or(recipient)).or_default().entries.insert(seq, stored);
            self.next_seq += 1;
            done.extend(outbox.map(|outbox| Done::News(News::Forwarded { outbox, seq })));
        }
        done
    }

    /// Takes a message out of its mailbox and records its outcome: one step (LAW 3).
    fn settle(&mut self, peer: PeerId, seq: u64, verdict: Verdict, date: UnixMillis) -> Option<Done> {
        let Stored { letter, submitter, .. } = self.mailboxes.get_mut(&peer)?.entries.remove(&seq)?;
        let row = self.rows.get_mut(&(submitter, letter.lane)).expect("a row lives while something is pending");
        assert!(row.settle(letter.n, 1, verdict.clone(), date), "what is in a mailbox is pending in its row");
        Some(Done::Settled { submitter, lane: letter.lane, n: letter.n, verdict })
    }

    /// Rows that nobody needs any more go.
    pub(crate) fn sweep_rows(&mut self, date: UnixMillis) {
        self.rows.retain(|_, row| row.resting_since().is_none_or(|since| since + LANE_REST > date));
    }

    /// What is behind the cursor and has time left.
    pub(crate) fn after(
        &self,
        peer: PeerId,
        cursor: u64,
        date: UnixMillis,
    ) -> impl DoubleEndedIterator<Item = (u64, Stored)> {
        let entries =
            self.mailboxes.get(&peer).into_iter().flat_map(move |mailbox| mailbox.entries.range(cursor + 1..));
        entries.map(|(seq, stored)| (*seq, *stored)).filter(move |(_, stored)| stored.expires > date)
    }
}

/// The owner of the mailbox in which lies what goes on to this relay.
pub(crate) fn outbox_of(relay: usize) -> PeerId {
    name(5, relay, 0)
}

pub(crate) fn is_outbox(owner: PeerId) -> bool {
    owner.as_bytes()[0] == 5
}

/// Somebody's name: what they are, which of them, and at which relay they live.
pub(crate) fn name(kind: u8, number: usize, home: usize) -> PeerId {
    let mut bytes = [kind; 32];
    (bytes[1], bytes[2]) = (number as u8, home as u8);
    PeerId::from_bytes(bytes)
}

pub(crate) fn home_of(peer: PeerId) -> usize {
    usize::from(peer.as_bytes()[2])
}

fn answer(request: u64, answer: Answer) -> Done {
    Done::Reply(Down::Answer(MsgA { request, count: 1, answer }))
}
