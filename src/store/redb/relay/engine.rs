//! What the operations of a batch do to the tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{ReadableTable, WriteTransaction};

use super::super::engine::{Beside, Changes, Engine, Weight};
use super::super::fault::Fault;
use super::super::file::StoreFile;
use super::super::queue::GROUP_OPS;
use super::access::{admit, decide, invite, remove_peer};
use super::append::FAILED_RETRY;
use super::expire::expire;
use super::fences::Fences;
use super::policy;
use super::read::mailbox_status;
use super::schema::{DateRow, LaneAt, LaneEntry, MailboxRow};
use super::settle::{Counting, Damage, resolve, settle};
use super::space::SpaceWatch;
use super::work::Work;
use crate::delivery::lane::LaneRow;
use crate::id::{LaneKey, PeerId};
use crate::measure::{Histogram, Lengths};
use crate::mutant::Mutant;
use crate::protocol::limit::{TOLD_BYTES, TOLD_RUNS};
use crate::protocol::{Durability, LaneState};
use crate::store::{Counted, Done, Expired, Fence, Op, StoreError, StoreLimits, Stored, Watchers};
use crate::time::{Moment, SharedClock, UnixMillis};

/// Bytes that one operation takes in the queue beside its message.
const OP_BYTES: usize = 256;

/// What is asked of the writer.
#[derive(Debug)]
pub(super) enum Request {
    /// A batch of a session.
    Batch(Fence, Vec<Op>),
    /// A sweep over so many messages.
    Expire(usize),
    /// A commit of nothing.
    Probe,
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Reported {
    Batch(Vec<Done>),
    Expired(Expired),
    Probed { has_room: bool },
}

/// The relay's side of the writer.
#[derive(Debug)]
pub(super) struct RelayEngine {
    pub(super) clock: SharedClock,
    pub(super) limits: Arc<RwLock<Arc<StoreLimits>>>,
    pub(super) watchers: Arc<Watchers>,
    pub(super) durability: Durability,
    pub(super) store: crate::id::StoreId,
    /// Below it no `seq` is given in this opening: what an earlier life gave is never given again.
    pub(super) first_seq: u64,
    pub(super) space: SpaceWatch,
    /// How long the journal becomes.
    pub(super) journal_bytes: u64,
    /// Until then no message is accepted: writing failed a moment ago.
    pub(super) failed_until: Option<Moment>,
    pub(super) fences: Fences,
    pub(super) damage: Damage,
    // What the group at work will have changed in memory; an undone one's is overwritten by the next.
    pub(super) began: BTreeMap<(PeerId, u64), u64>,
    pub(super) ended: Vec<((PeerId, u64), u64)>,
    pub(super) news: Vec<(PeerId, Arc<Stored>)>,
    /// When the group at work began, if it changes anything, and what it will have counted.
    pub(super) begun: Option<Moment>,
    /// When what is durable began to enter the tables, while it does.
    pub(super) entering: Option<Moment>,
    pub(super) counting: Counting,
    pub(super) counted: Arc<Counted>,
    /// Rows that a deliberate defect withholds from the commit they belong to.
    pub(super) withheld: Vec<(LaneAt, LaneEntry)>,
}

impl Engine for RelayEngine {
    type Request = Request;
    type Answer = Reported;
    type Work<'t> = Work<'t>;

    fn begin<'t>(&mut self, transaction: &'t WriteTransaction) -> Result<Work<'t>, Fault> {
        Work::open(transaction, Arc::default(), UnixMillis(0))
    }

    fn start(&mut self, work: &mut Work<'_>) {
        work.limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        work.now = self.clock.date();
        work.probed = false;
        self.space.measure(work.limits.min_free_bytes);
        self.begun = Some(self.clock.now());
        for (at, entry) in self.withheld.drain(..) {
            work.lanes.put(at, entry);
        }
    }

    fn apply(&mut self, work: &mut Work<'_>, request: &Request) -> Result<Reported, Fault> {
        match request {
            Request::Batch(fence, batch) => {
                let newest = work.fences.get(&(fence.peer, fence.device));
                if self.fences.is_superseded(fence) || newest.is_some_and(|newest| fence.epoch < *newest) {
                    return Err(Fault::Refused(StoreError::Superseded));
                }
                batch.iter().map(|op| self.op(work, fence, op)).collect::<Result<_, _>>().map(Reported::Batch)
            }
            Request::Expire(limit) => expire(work, &mut self.damage, *limit).map(Reported::Expired),
            Request::Probe => {
                work.probed = true;
                Ok(Reported::Probed { has_room: self.has_room() })
            }
        }
    }

    fn finish(&mut self, work: &mut Work<'_>) -> Result<Changes, Fault> {
        if Mutant::RowInAnotherCommit.is_planted() {
            self.withheld = work.lanes.withhold();
        }
        work.flush()?;
        let changes = match work.changes() {
            None => Changes::None,
            // Once the disk is full the tables could not be synced, and nobody could make room in them.
            Some(_) if self.space.is_short(self.journal_bytes) => Changes::Some,
            Some(log) => Changes::Logged(log.clone()),
        };
        self.began = std::mem::take(&mut work.fences);
        self.ended = std::mem::take(&mut work.ended);
        self.news = std::mem::take(&mut work.news);
        self.counting = std::mem::take(&mut work.counting);
        self.begun = self.begun.filter(|_| !matches!(changes, Changes::None));
        Ok(changes)
    }

    fn write(&mut self, work: &mut Work<'_>) -> Result<(), Fault> {
        self.entering = Some(self.clock.now());
        work.write()
    }

    fn settled(&mut self) {
        self.count(self.entering, |counted| &counted.tables);
        self.entering = None;
    }

    fn committed(&mut self) {
        self.count(self.begun, |counted| &counted.commits);
        (self.begun, self.entering) = (None, None);
        self.counted.accepted.add(self.news.len() as u64);
        std::mem::take(&mut self.counting).publish(&self.counted);
        for (who, epoch) in std::mem::take(&mut self.began) {
            self.fences.begin(who, epoch);
        }
        for (who, epoch) in self.ended.drain(..) {
            self.fences.end(who, epoch);
        }
        for (mailbox, message) in self.news.drain(..) {
            self.watchers.publish(mailbox, &message);
        }
    }

    fn failed(&mut self) {
        self.failed_until = Some(self.clock.now() + FAILED_RETRY);
        self.space.forget();
    }

    fn beside(&mut self) -> Option<Box<Beside>> {
        self.space.look()
    }

    fn weight(request: &Request) -> Weight {
        match request {
            Request::Batch(_, batch) => {
                let message = |op: &Op| match op {
                    Op::Append(append) => append.envelope.bytes().len() + OP_BYTES,
                    _ => 0,
                };
                let ops = batch.iter().map(steps).sum::<usize>().max(1);
                let patient = batch.iter().all(|op| matches!(op, Op::Settle { patient: true, .. }));
                Weight { ops, bytes: batch.iter().map(message).sum(), patient }
            }
            Request::Expire(limit) => Weight { ops: (*limit).clamp(1, GROUP_OPS), bytes: 0, patient: false },
            Request::Probe => Weight { ops: 1, bytes: 0, patient: false },
        }
    }
}

/// What an operation costs, in messages: each range, question or lane is a search of its own.
fn steps(op: &Op) -> usize {
    let steps = match op {
        Op::Open { .. } | Op::Join | Op::End { .. } | Op::Append(_) | Op::Remember { .. } | Op::Release { .. } => 1,
        Op::Policy(change) => change.peers(),
        Op::Decide { .. } | Op::Invite(_) => 1,
        Op::Remove { limit, .. } => (*limit).min(GROUP_OPS),
        Op::Resolve { outcomes, .. } => outcomes.len(),
        Op::Settle { answers, .. } => answers.taken.len() + answers.refused.len(),
        Op::Where(questions) => questions.len(),
        Op::Close(lanes) => lanes.len(),
    };
    steps.max(1)
}

impl RelayEngine {
    /// Counts the time since then.
    fn count(&self, since: Option<Moment>, kind: impl Fn(&Counted) -> &Histogram) {
        let Some(since) = since else { return };
        let mut length = Lengths::default();
        length.add(self.clock.now().since(since));
        kind(&self.counted).add(&length);
    }

    fn op(&mut self, work: &mut Work<'_>, fence: &Fence, op: &Op) -> Result<Done, Fault> {
        match op {
            Op::Open { remote, invitation } => match admit(work, fence.peer, *invitation)? {
                Some(denied) => Ok(Done::Denied(denied)),
                None => open(work, fence, remote),
            },
            Op::Join => {
                work.fences.insert((fence.peer, fence.device), fence.epoch);
                Ok(Done::Done)
            }
            Op::End { handed_out } => end(work, fence, *handed_out),
            Op::Append(append) => self.append(work, fence.peer, append),
            Op::Settle { store, answers, handed_out, .. } if *store == self.store => {
                settle(work, &mut self.damage, fence.peer, answers, *handed_out).map(Done::Settled)
            }
            Op::Settle { .. } => Ok(Done::Settled(Vec::new())),
            Op::Resolve { outbox, outcomes } => resolve(work, &mut self.damage, *outbox, outcomes).map(Done::Settled),
            Op::Remember { outbox, store, foreign_below } => {
                if let Some(number) = work.number(*outbox)?
                    && let Some(row) = work.links.change(number)?
                {
                    (row.store, row.foreign_below) = (Some(*store), *foreign_below);
                }
                Ok(Done::Done)
            }
            Op::Release { outbox } => work.drop_empty_outbox(*outbox).map(|()| Done::Done),
            Op::Policy(change) => policy::change(work, fence.peer, change).map(Done::Changed),
            Op::Decide { peer, standing } => {
                decide(work, *peer, *standing);
                Ok(Done::Done)
            }
            Op::Invite(invitation) => invite(work, invitation).map(Done::Changed),
            Op::Remove { peer, limit } => remove_peer(work, &mut self.damage, *peer, *limit),
            Op::Where(questions) => where_are(work, fence.peer, questions).map(Done::Lanes),
            Op::Close(lanes) => {
                for key in lanes {
                    if let Some(at) = work.lane_at(fence.peer, key)? {
                        work.drop_lane(at)?;
                    }
                }
                Ok(Done::Done)
            }
        }
    }
}

fn open(work: &mut Work<'_>, fence: &Fence, remote: &SocketAddr) -> Result<Done, Fault> {
    let mailbox = work.number_or_new(fence.peer)?;
    if work.mailboxes.get(mailbox)?.is_none() {
        work.make_mailbox(mailbox, None)?;
    }
    work.keep_mailbox(mailbox)?;
    work.seen.put(mailbox, DateRow { ms: work.now.0 });
    let address = remote.to_string();
    let replaces = work.sessions.contains((mailbox, fence.device))?;
    work.sessions.insert((mailbox, fence.device), address.as_str());
    let row = work.mailboxes.change_or(mailbox, MailboxRow::default)?;
    if replaces {
        // The session before it is fenced off and can no longer say how far it came.
        row.mark = row.mark.max(row.last_seq);
    } else {
        row.open = row.open.saturating_add(1);
    }
    let watermark = row.last_seq;
    let whole = *row;
    work.fences.insert((fence.peer, fence.device), fence.epoch);
    work.flush()?;
    let counts = work.counts.written()?;
    let status = mailbox_status(mailbox, &whole, work.messages.written()?, counts, work.peers.written()?)?;
    Ok(Done::Opened { watermark, status })
}

fn end(work: &mut Work<'_>, fence: &Fence, handed_out: u64) -> Result<Done, Fault> {
    work.ended.push(((fence.peer, fence.device), fence.epoch));
    let Some(mailbox) = work.number(fence.peer)? else { return Ok(Done::Done) };
    let was_open = work.sessions.contains((mailbox, fence.device))?;
    work.sessions.remove((mailbox, fence.device));
    if let Some(row) = work.mailboxes.change(mailbox)? {
        row.mark = row.mark.max(handed_out.min(row.last_seq));
        if was_open {
            row.open = row.open.saturating_sub(1);
        }
        work.seen.put(mailbox, DateRow { ms: work.now.0 });
    }
    Ok(Done::Done)
}

/// The rows asked about, as far as they fit an answer.
fn where_are(
    work: &mut Work<'_>,
    submitter: PeerId,
    questions: &[(LaneKey, u64, u64)],
) -> Result<Vec<LaneState>, Fault> {
    let (mut states, mut bytes) = (Vec::with_capacity(questions.len()), 0);
    for (key, from, to) in questions {
        let left = TOLD_BYTES.saturating_sub(bytes);
        let entry = match work.lane_at(submitter, key)? {
            Some(at) => work.lanes.get(at)?,
            None => None,
        };
        let absent = || LaneRow::absent(*to);
        let state = entry.map_or_else(absent, |entry| entry.row.state(*from, *to, TOLD_RUNS, left));
        bytes += state.max_wire_bytes();
        // A row says something always, so that who asks again gets on; but that must be the first one then.
        if bytes > TOLD_BYTES && !states.is_empty() {
            break;
        }
        states.push(state);
    }
    Ok(states)
}

/// Marks the mailboxes whose sessions were open when the store was left without a word, and says where those
/// clients were.
pub(super) fn take_interrupted(
    file: &StoreFile,
    limits: &Arc<StoreLimits>,
    clock: &SharedClock,
) -> Result<Vec<SocketAddr>, StoreError> {
    let writing = file.write()?;
    let tables = || writing.transaction().list_tables().map(Iterator::count).map_err(Fault::from);
    let opened = tables().and_then(|before| {
        let work = Work::open(writing.transaction(), limits.clone(), clock.date())?;
        let found = end_all(work)?;
        Ok((found, tables()? == before))
    });
    let (found, has_all_tables) = opened.map_err(|fault| writing.report(fault))?;
    // A file from before some table was thought of gets it here.
    if found.is_empty() && has_all_tables {
        writing.undo();
    } else {
        writing.commit()?;
    }
    Ok(found.into_iter().flatten().collect())
}

fn end_all(mut work: Work<'_>) -> Result<Vec<Option<SocketAddr>>, Fault> {
    let mut open = Vec::new();
    for entry in work.sessions.written()?.iter()? {
        let (key, address) = entry?;
        open.push((key.value(), address.value().parse().ok()));
    }
    for ((mailbox, device), _) in &open {
        work.sessions.remove((*mailbox, *device));
        if let Some(row) = work.mailboxes.change(*mailbox)? {
            row.mark = row.mark.max(row.last_seq);
            row.open = 0;
        }
    }
    work.flush()?;
    work.write()?;
    Ok(open.into_iter().map(|(_, address)| address).collect())
}
