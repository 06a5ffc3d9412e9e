//! What must survive: the relay's mailboxes and lane rows, behind one trait.
//!
//! The relay reaches its store through [`RelayStore`] alone, because other engines than the embedded one are
//! meant to come beside it. Writes are batches of [`Op`]s; all sessions' batches meet in one writer, which
//! gathers them into groups, syncs each, and only then answers (LAW 1). Batches are carried out in the
//! order of their submission, so a question asked after a change sees that change. Reads have transactions of
//! their own, none of which outlives one page; they see all that was answered, and wait for no more than that.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::id::{LaneKey, PeerId, RelayId, StoreId};
use crate::measure::{Counter, Histogram};
use crate::protocol::{
    Answer, Durability, Envelope, Exception, LaneState, Order, Policy, PolicyChange, RejectReason, Status, Taken,
    Verdict,
};
use crate::ranges::Ranges;
use crate::time::UnixMillis;

/// Who takes a backup, piece by piece. An error gives it up.
pub type TakePiece = dyn FnMut(Bytes) -> Result<(), StoreError> + Send;

/// A future that a store returns. Dropping it gives up the answer, never the work.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// The durable half of a relay.
///
/// # Contract
/// - One batch is one unit: either all of its operations happened when the reply is `Ok`, or none ever will
///   when it is `Err`, except after [`StoreError::Fatal`] or a crash, when either may be true.
/// - A batch that was answered survives kill -9 and a power cut.
/// - `seq` grows by at least one with each message of a mailbox, in the order of commits, and is never given
///   twice: not after a restart, and not after a restore.
/// - A batch with a fence older than the newest session of its peer and device changes nothing and is
///   answered [`StoreError::Superseded`].
/// - Taking a message out of a mailbox and recording its outcome in the lane's row are one commit (LAW 3).
pub trait RelayStore: Send + Sync + std::fmt::Debug {
    /// Which life of which store this is.
    fn store_id(&self) -> StoreId;

    /// What an answered batch has survived.
    fn durability(&self) -> Durability;

    /// The addresses of the clients whose sessions were open when the store was last left without a word.
    fn interrupted(&self) -> Vec<SocketAddr>;

    /// Carries out a batch. It has its place in the order of batches when this call returns.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe: a dropped reply does not undo the batch.
    fn submit(&self, fence: Fence, batch: Vec<Op>) -> Reply<Vec<Done>>;

    /// Whether the store's queue has room, so that [`ready`](Self::ready) would not wait.
    fn has_room(&self) -> bool {
        true
    }

    /// Waits until the store's queue has room. A session that awaits this before it reads more from its peer
    /// makes the peer wait; one that does not may find its messages answered `Unavailable` under load.
    ///
    /// Cancel-safe.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// Takes up to `limit` messages whose time has run out from their mailboxes, records their outcomes, and
    /// says when to come again: never before a message's time, and at most a second after it. Lane rows that
    /// nothing needs any more go as well.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe: a dropped reply does not undo the work.
    fn expire(&self, limit: usize) -> Reply<Expired>;

    /// Reads a page of a mailbox.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn page(&self, query: Query) -> Reply<Page>;

    /// Counts what waits in a mailbox, from one sender alone if one is named. Of many senders those with the most
    /// messages are told; one of them may have up to a sixteenth less than one that is left out, where more than a
    /// hundred are that close together.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn status(&self, mailbox: PeerId, sender: Option<PeerId>) -> Reply<Status>;

    /// The relays that this one forwards to.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn links(&self) -> Reply<Vec<LinkState>>;

    /// What it has counted since it was opened.
    fn counted(&self) -> &Counted;

    /// How much it holds, from what it keeps count of.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn totals(&self) -> Reply<Totals>;

    /// Commits something of no consequence. Whether there is room for new messages as well.
    ///
    /// # Errors
    /// See [`StoreError`]: nothing can be written. Cancel-safe.
    fn probe(&self) -> Reply<bool>;

    /// Whose messages the owner of a mailbox takes.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn policy(&self, mailbox: PeerId) -> Reply<Policy>;

    /// Peers with a mailbox, and those that the operator decided about, behind `after`: at most `limit` of them, and
    /// perhaps fewer though more follow.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    fn peers(&self, after: Option<PeerId>, limit: usize) -> Reply<PeerPage>;

    /// Hands out a backup: all of the store as it is at one moment, while the writer goes on. How long it may take is
    /// bounded, for it costs room on the disk.
    ///
    /// # Errors
    /// See [`StoreError`]; what `take` says gives it up. Cancel-safe: a dropped reply does not end it.
    fn backup(&self, take: Box<TakePiece>) -> Reply<()>;

    /// Follows the messages that are committed to a mailbox from now on.
    fn watch(&self, mailbox: PeerId) -> Watch;
}

/// The session that a batch comes from. Of one peer and device only the newest epoch may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Whose session: also the submitter of what it sends, and the owner of the mailbox it empties.
    pub peer: PeerId,
    /// Which of the peer's devices.
    pub device: u64,
    /// Grows with each session of the process.
    pub epoch: u64,
}

/// One step of a batch.
#[derive(Debug, Clone)]
pub enum Op {
    /// A session begins: every older one of this peer and device is fenced off, the mailbox is made if there
    /// is none or made lasting if it was provisional, and marked as handing out. A session that is replaced
    /// before its end counts as having handed out everything: it can no longer say how far it came.
    /// Answer: [`Done::Opened`]; [`Done::Denied`] if the peer may have no mailbox: then nothing has changed.
    Open {
        /// Where the client is, to wake it after a crash.
        remote: SocketAddr,
        /// What it showed for a mailbox, if it did; see [`invitation_key`]. It is used up by as much as one peer only
        /// where it is needed, in the commit that makes the mailbox last.
        invitation: Option<[u8; 32]>,
    },
    /// A session of a relay begins, which only submits: every older one is fenced off, and there is no mailbox.
    /// Answer: [`Done::Done`].
    Join,
    /// A session ends: what it may have handed out is remembered. Answer: [`Done::Done`].
    End {
        /// The highest `seq` it handed out; 0 for none.
        handed_out: u64,
    },
    /// A message arrives. Answer: [`Done::Answered`].
    Append(Append),
    /// The recipient answered for messages. Answer: [`Done::Settled`].
    Settle {
        /// The store that gave the `seq`s; another one's are ignored.
        store: StoreId,
        /// What the application said. A `seq` is ignored if it is no longer there, or above `handed_out` and
        /// all that earlier sessions may have handed out.
        answers: Taken,
        /// The highest `seq` that this session handed out.
        handed_out: u64,
        /// Nobody waits for it to be durable: it may wait a moment for something to be made durable with.
        patient: bool,
    },
    /// Another relay said what became of messages in the outbox for it, or its silence did. Answer:
    /// [`Done::Settled`].
    Resolve {
        /// The outbox; see [`outbox_key`].
        outbox: PeerId,
        /// By `seq`. One that is not there any more is ignored.
        outcomes: BTreeMap<u64, Verdict>,
    },
    /// Another relay answers from this store now; what lies below this `seq` may have been offered to another.
    /// Answer: [`Done::Done`].
    Remember {
        /// The outbox.
        outbox: PeerId,
        /// The other relay's store.
        store: StoreId,
        /// See above.
        foreign_below: u64,
    },
    /// The outbox for another relay is needed no longer, nor what is known of that relay; it stays if something is in
    /// it. Answer: [`Done::Done`].
    Release {
        /// The outbox.
        outbox: PeerId,
    },
    /// The recipient takes other senders' messages from now on. Answer: [`Done::Changed`]; false if its list would be
    /// too long: then nothing has changed.
    Policy(PolicyChange),
    /// The operator decides about a peer, or leaves it to the configuration. Answer: [`Done::Done`].
    Decide {
        /// Whom.
        peer: PeerId,
        /// How.
        standing: Option<Standing>,
    },
    /// The operator invites. Answer: [`Done::Changed`]; false if there are too many invitations.
    Invite(Invitation),
    /// The operator removes up to `limit` messages of a peer's mailbox, each with its outcome; then, if none is left and
    /// no session is open, the mailbox with all that its owner had set, and the permission to have one. Answer:
    /// [`Done::Removed`].
    Remove {
        /// Whose.
        peer: PeerId,
        /// Messages in this step.
        limit: usize,
    },
    /// What became of these numbers? Answer: [`Done::Lanes`].
    Where(Vec<(LaneKey, u64, u64)>),
    /// The submitter needs these rows no longer; one with something pending stays. Answer: [`Done::Done`].
    Close(Vec<LaneKey>),
}

/// A message to decide about (docs/PROTOCOL.md, "Admission").
#[derive(Debug, Clone)]
pub struct Append {
    /// The message.
    pub envelope: Envelope,
    /// Its sender's signature, if it came with one.
    pub signature: Option<[u8; 64]>,
    /// The last number of the lane that the submitter believes to be stored here.
    pub prev: u64,
    /// What remains of its lifetime, clamped; zero if none.
    pub ttl: Duration,
    /// A reason to refuse it for good that the relay found before asking.
    pub refuse: Option<RejectReason>,
    /// It goes to another relay: then it is put into the outbox for that one, and not into a mailbox.
    pub forward: Option<Forward>,
}

/// Where a message goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The relay.
    pub relay: RelayId,
    /// Its address.
    pub address: String,
}

/// A relay that messages are forwarded to, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// The relay.
    pub relay: RelayId,
    /// Its address, as the last message said.
    pub address: String,
    /// The store that answered there last.
    pub store: Option<StoreId>,
    /// Messages below this `seq` may have been offered to another store.
    pub foreign_below: u64,
    /// Messages without an outcome.
    pub waiting: u64,
}

/// The name of the outbox for another relay, among mailboxes. It is nobody's key: whoever holds that relay's key
/// and connects with it has a mailbox of its own.
#[must_use]
pub fn outbox_key(relay: &RelayId) -> PeerId {
    PeerId::from_bytes(crate::identity::name_from("posthouse outbox 1", relay.as_bytes()))
}

/// The answer to one [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Nothing to say.
    Done,
    /// The session is open.
    Opened {
        /// The mailbox's highest `seq` so far.
        watermark: u64,
        /// What waits.
        status: Status,
    },
    /// The peer may have no mailbox here.
    Denied(Denied),
    /// Whether the change holds.
    Changed(bool),
    /// Messages were removed.
    Removed {
        /// Outcomes to tell their submitters.
        settled: Vec<Settled>,
        /// Messages that are left.
        left: u64,
        /// There is no mailbox any more.
        gone: bool,
    },
    /// The message was decided about.
    Answered {
        /// For MSG:A.
        answer: Answer,
        /// This final refusal left no row: the session has to give the same answer again by itself.
        remember: bool,
    },
    /// Outcomes to tell their submitters.
    Settled(Vec<Settled>),
    /// The rows asked about, in the order of the question; shorter or fewer than asked, but one that says
    /// something, where they would take more than [`TOLD_BYTES`](crate::protocol::limit::TOLD_BYTES).
    Lanes(Vec<LaneState>),
}

impl Done {
    /// The outcomes that are to be told, if it is such an answer.
    #[must_use]
    pub fn settled(&self) -> Option<&[Settled]> {
        match self {
            Self::Settled(settled) => Some(settled),
            _ => None,
        }
    }
}

/// Outcomes of one lane, for its submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Who has to be told: the sender or its relay.
    pub submitter: PeerId,
    /// Whose messages.
    pub lane: LaneKey,
    /// The numbers that were delivered.
    pub delivered: Ranges,
    /// The numbers that ended otherwise.
    pub exceptions: Vec<Exception>,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Outcomes to tell their submitters.
    pub settled: Vec<Settled>,
    /// When to come again: when the next message runs out, or a lane's row may go; `None` if there is neither.
    /// A date already past means that more is due now.
    pub next: Option<UnixMillis>,
}

/// Which messages of a mailbox to read.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Whose.
    pub mailbox: PeerId,
    /// From which end.
    pub order: Order,
    /// Behind which `seq`; `None` begins at that end.
    pub cursor: Option<u64>,
    /// Only from this sender.
    pub sender: Option<PeerId>,
    /// At most so many.
    pub max_messages: u64,
    /// At most so many bytes of envelopes, but one message at least.
    pub max_bytes: u64,
}

/// Some messages of a mailbox. Those whose time has run out are left out.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order asked for.
    pub messages: Vec<Arc<Stored>>,
    /// Where the next page goes on: the last `seq` looked at, or the query's own cursor.
    pub cursor: Option<u64>,
    /// Messages in the mailbox, of that sender if one was named.
    pub remaining: u64,
    /// Nothing lies beyond.
    pub complete: bool,
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub seq: u64,
    /// Who submitted it: its sender, or the sender's relay.
    pub submitter: PeerId,
    /// The message.
    pub envelope: Envelope,
    /// Its sender's signature, if it came with one.
    pub signature: Option<[u8; 64]>,
    /// When its time runs out, by this relay's clock.
    pub expires: UnixMillis,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Mailboxes of peers.
    pub mailboxes: u64,
    /// Those among them whose peers never connected.
    pub provisional: u64,
    /// Messages in mailboxes.
    pub messages: u64,
    /// Outboxes for other relays.
    pub outboxes: u64,
    /// Messages in them.
    pub forwarding: u64,
    /// Their bytes, envelopes included.
    pub forwarding_bytes: u64,
    /// Lane rows.
    pub lanes: u64,
    /// Bytes of the medium, used or not.
    pub file_bytes: u64,
}

/// What a store has counted since it was opened.
#[derive(Debug, Default)]
pub struct Counted {
    /// How long groups of batches took, from the first one until all were on the disk.
    pub commits: Histogram,
    /// How long it took to bring into the tables what was durable before.
    pub tables: Histogram,
    /// Messages that were accepted.
    pub accepted: Counter,
    /// How long messages took from their acceptance to the word that they were delivered.
    pub delivered: Histogram,
    /// Messages that expired.
    pub expired: Counter,
    /// Messages that were rejected after they had been accepted.
    pub rejected: Counter,
}

/// Why a store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A newer session of the same peer and device took over. The caller's session is finished.
    #[error("a newer session of this peer took over")]
    Superseded,
    /// Reading or writing failed; nothing of the batch was kept. It may work later: the store reopens itself.
    #[error("the store does not work at the moment: {0}")]
    Unavailable(Arc<str>),
    /// Syncing to the disk failed, or the store is damaged. What the disk holds is unknown, so nothing is tried
    /// again: the process has to end and start anew.
    #[error("the store cannot go on ({0}); the process has to be started again")]
    Fatal(Arc<str>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// What a mailbox may hold, and the like. The defaults are in docs/PROTOCOL.md, "Limits".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// Messages in one mailbox.
    pub mailbox_messages: u64,
    /// Bytes in one mailbox, envelopes included.
    pub mailbox_bytes: u64,
    /// What one pair may take of it, or of a provisional one, in percent.
    pub pair_percent: u64,
    /// Who may have a mailbox.
    pub access: Access,
    /// Whether a message for a peer never seen, that may have a mailbox, opens a provisional one; else it is
    /// `unknown_peer`.
    pub open: bool,
    /// Messages in a provisional mailbox.
    pub provisional_messages: u64,
    /// Bytes in a provisional mailbox.
    pub provisional_bytes: u64,
    /// Provisional mailboxes that one submitter may cause.
    pub provisional_per_submitter: u64,
    /// Provisional mailboxes of the whole relay.
    pub provisional_total: u64,
    /// Messages in the outbox for one relay.
    pub outbox_messages: u64,
    /// Bytes in it, envelopes included.
    pub outbox_bytes: u64,
    /// Messages in all outboxes.
    pub outboxes_messages: u64,
    /// Bytes in all outboxes.
    pub outboxes_bytes: u64,
    /// Lane rows of one submitter.
    pub lanes_per_submitter: u64,
    /// Lane rows of one submitter and pair.
    pub lanes_per_pair: u64,
    /// How long a lane's row stays after the last of its messages has its outcome: the longest lifetime.
    pub lane_rest: Duration,
    /// Bytes that must stay free on the disk for new messages to be accepted.
    pub min_free_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            mailbox_messages: 100_000,
            mailbox_bytes: 1 << 30,
            pair_percent: 50,
            access: Access::default(),
            open: true,
            provisional_messages: 1_000,
            provisional_bytes: 1 << 20,
            provisional_per_submitter: 1_000,
            provisional_total: 100_000,
            outbox_messages: 1_000_000,
            outbox_bytes: 4 << 30,
            outboxes_messages: 4_000_000,
            outboxes_bytes: 16 << 30,
            lanes_per_submitter: 1_000_000,
            lanes_per_pair: 10_000,
            lane_rest: crate::protocol::limit::MAX_TTL,
            min_free_bytes: 256 << 20,
        }
    }
}

mod access;
#[cfg(test)]
pub(crate) mod contract;
pub mod redb;
pub mod told;
mod watch;
pub use access::{
    Access, Denied, Entry, Invitation, MAX_INVITATIONS, MailboxState, Mailboxes, PeerPage, PeerState, Standing,
    invitation_key,
};
pub use watch::{News, Watch, Watchers};
