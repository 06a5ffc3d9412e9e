//! Messages as an application handles them: [`Draft`] and [`Outgoing`] on the way out, [`Incoming`] on the way
//! in.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::event::Seen;
use super::progress::Progress;
use super::{Closed, Stop};
use crate::address::PeerAddress;
use crate::id::{LaneId, MessageId, PeerId, RelayId};
use crate::protocol::{Durability, Outcome, clip_text};
use crate::time::UnixMillis;

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// To whom.
    pub to: PeerAddress,
    /// What. The client never looks into it.
    pub body: Bytes,
    /// How long it may wait to be taken; the relay brings it within its limits. `None` is what the client was
    /// [told](super::ClientBuilder::default_ttl).
    pub ttl: Option<Duration>,
}

impl Draft {
    /// A message with the usual lifetime.
    pub fn new(to: PeerAddress, body: impl Into<Bytes>) -> Self {
        Self { to, body: body.into(), ttl: None }
    }
}

/// That the relay has a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How safely it is kept.
    pub durability: Durability,
    /// The relay had it already.
    pub duplicate: bool,
}

/// A message in the outbox. Dropping this handle changes nothing about it.
#[derive(Debug)]
pub struct Outgoing {
    /// Its id.
    pub id: MessageId,
    /// Its number in its lane, from 1.
    pub n: u64,
    pub(super) key: u64,
    pub(super) progress: Progress,
    pub(super) seen: mpsc::UnboundedSender<Seen>,
}

impl Outgoing {
    /// Waits until the relay has it. A message that ends before that gives its outcome instead: `Ok(None)`.
    ///
    /// # Errors
    /// [`Closed`] if the client is closed first; the message stays in the outbox.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn accepted(&mut self) -> Result<Option<Accepted>, Closed> {
        self.progress.accepted().await
    }

    /// Waits for its outcome. Once this has returned, the outcome counts as seen; until then a later run is told of
    /// it among its [`Event`](super::Event)s.
    ///
    /// # Errors
    /// [`Closed`] if the client is closed first; the message stays in the outbox.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn outcome(&mut self) -> Result<Outcome, Closed> {
        let outcome = self.progress.outcome().await?;
        // Without a driver nobody keeps count any more.
        self.seen.send(Seen { outcome: Some(self.key) }).ok();
        Ok(outcome)
    }
}

/// A message for this peer. Answer it with [`taken`](Incoming::taken) or [`refuse`](Incoming::refuse); dropped
/// without an answer it comes again, after those already given.
#[derive(Debug)]
pub struct Incoming {
    /// The message's id.
    pub id: MessageId,
    /// Who sent it.
    pub from: PeerId,
    /// The sender's home relay.
    pub relay: RelayId,
    /// Its lane at the sender.
    pub lane: LaneId,
    /// Its number there.
    pub n: u64,
    /// Its place in the mailbox.
    pub seq: u64,
    /// It was read from the mailbox, and not pushed.
    pub backlog: bool,
    /// When it was made, by the sender's clock.
    pub sent_at: UnixMillis,
    /// What was sent.
    pub body: Bytes,
    pub(super) answers: mpsc::UnboundedSender<Answered>,
    pub(super) answered: bool,
}

/// What an application said to a message.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) place: (PeerId, LaneId, u64),
    pub(super) answer: Answer,
    /// Told once the answer is durable.
    pub(super) durable: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Taken,
    Refused(Option<String>),
    Left,
    Dropped,
}

impl Incoming {
    /// The application has it for good: it does not come again, and its sender is told *delivered*. Returns
    /// once that is durable here.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed first: the message then comes again.
    ///
    /// # Cancel safety
    /// Dropped, the answer holds all the same.
    pub async fn taken(self) -> Result<(), Stop> {
        self.answer(Answer::Taken).await
    }

    /// The application does not want it: its sender is told *rejected*, with these words (cut at 256 bytes).
    /// Returns once that is durable here.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed first: the message then comes again.
    ///
    /// # Cancel safety
    /// Dropped, the answer holds all the same.
    pub async fn refuse(self, reason: &str) -> Result<(), Stop> {
        let words = (!reason.is_empty()).then(|| clip_text(reason));
        self.answer(Answer::Refused(words)).await
    }

    /// Leaves it where it is: it does not come again in this run, and does in the next. For looking only.
    pub fn leave(mut self) {
        self.send(Answer::Left, None);
    }

    async fn answer(mut self, answer: Answer) -> Result<(), Stop> {
        let (durable, done) = oneshot::channel();
        self.send(answer, Some(durable));
        done.await.map_err(|_| Stop::Closed)
    }

    pub(super) fn send(&mut self, answer: Answer, durable: Option<oneshot::Sender<()>>) {
        self.answered = true;
        // Without a driver there is nobody left to tell; the waiting side learns it by the dropped channel.
        drop(self.answers.send(Answered { place: (self.from, self.lane, self.n), answer, durable }));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Answer::Dropped, None);
        }
    }
}
