//! What a client tells its application about the connection and about sent messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Stop;
use crate::id::{LaneKey, MessageId, PeerId, RelayId};
use crate::protocol::{Durability, Outcome, Status, WaitReason};
use crate::store::redb::client::KeptOutcome;

/// Events that may wait for an application that does not come for them. At the limit the client reads no more
/// from its relay until it does: an event is never dropped.
pub(super) const EVENTS_WAITING: usize = 4096;

/// Outcomes kept for an application that neither waits for them nor asks for [`events`](super::Client::events).
/// The oldest are dropped beyond.
pub(super) const OUTCOMES_KEPT: usize = 10_000;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session with the home relay is open.
    Connected {
        /// What waits in the mailbox.
        status: Status,
    },
    /// The session is over, or could not be opened. The client tries again by itself.
    Disconnected {
        /// Why, in words for a person.
        reason: String,
        /// When it tries again.
        retry_in: Duration,
    },
    /// The client will not connect again: another session of this peer took over, or the relay does not let it
    /// in. What it holds stays on disk.
    Stopped {
        /// Why, in words for a person.
        reason: String,
    },
    /// The relay has a message and will deliver it.
    Accepted {
        /// Which.
        id: MessageId,
        /// How safely it is kept.
        durability: Durability,
        /// The relay had it already.
        duplicate: bool,
    },
    /// A message came that its sender did not write: its signature does not fit, or it has none and is said to come
    /// from another relay. It was refused, which the sender that it names is told as *rejected*, and the application
    /// never sees it. The first is told at once, then as many as come in ten seconds in one event.
    Forged {
        /// The first of them.
        id: MessageId,
        /// Who is said to have written it.
        sender: PeerId,
        /// The relay that it is said to come from.
        relay: RelayId,
        /// How many there were since the last such event; copies of one count as well.
        count: u64,
    },
    /// The relay cannot take more messages of one lane now; they are offered again by themselves.
    Waiting {
        /// Which lane.
        lane: LaneKey,
        /// Why.
        reason: WaitReason,
        /// How long.
        retry_in: Duration,
    },
    /// What became of a message, perhaps one of an earlier run. It counts as seen once the next event is asked
    /// for; after a crash before that it is told again.
    Outcome {
        /// Which.
        id: MessageId,
        /// Its lane: sender, recipient, lane.
        lane: LaneKey,
        /// Its number there.
        n: u64,
        /// What became of it.
        outcome: Outcome,
        /// The relay where it happened, or one's own if the message never left the outbox.
        relay: RelayId,
    },
}

/// How it stands between a client and its relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// The first attempt is under way.
    Connecting,
    /// A session is open.
    Open {
        /// What waited in the mailbox when it began.
        status: Status,
    },
    /// There is no session; the client tries again by itself.
    Lost {
        /// Why, in words for a person.
        reason: String,
        /// When it tries again, from the moment this was said.
        retry_in: Duration,
    },
    /// There will be none any more.
    Stopped(Stop),
}

/// The stream of [`Event`]s. While there is one, it has to be read; dropping it ends it.
#[derive(Debug)]
pub struct Events {
    pub(super) events: mpsc::UnboundedReceiver<(Event, Option<u64>)>,
    pub(super) seen: mpsc::UnboundedSender<Seen>,
    pub(super) last: Option<u64>,
}

/// The application came for an event; with a key, it has dealt with the outcome before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) outcome: Option<u64>,
}

impl Events {
    /// The next event; `None` once the client is closed.
    ///
    /// # Cancel safety
    /// Safe: an event is either returned or still waits.
    pub async fn next(&mut self) -> Option<Event> {
        self.confirm();
        let (event, key) = self.events.recv().await?;
        self.last = key;
        // The driver counts what waits; it is gone only with the client.
        self.seen.send(Seen { outcome: None }).ok();
        Some(event)
    }

    fn confirm(&mut self) {
        if let Some(key) = self.last.take() {
            self.seen.send(Seen { outcome: Some(key) }).ok();
        }
    }
}

/// The driver's end: events on their way, and outcomes that nobody has seen.
#[derive(Debug)]
pub(super) struct EventQueue {
    home: RelayId,
    sink: Option<mpsc::UnboundedSender<(Event, Option<u64>)>>,
    waiting: usize,
    unseen: BTreeMap<u64, Arc<KeptOutcome>>,
}

impl EventQueue {
    pub(super) fn new(home: RelayId, unseen: Vec<(u64, Arc<KeptOutcome>)>) -> Self {
        Self { home, sink: None, waiting: 0, unseen: unseen.into_iter().collect() }
    }

    /// The application wants events from now on, and the outcomes that it has not seen first.
    pub(super) fn subscribe(&mut self) -> mpsc::UnboundedReceiver<(Event, Option<u64>)> {
        let (sink, events) = mpsc::unbounded_channel();
        self.sink = Some(sink);
        self.waiting = 0;
        let unseen: VecDeque<_> = self.unseen.iter().map(|(key, outcome)| (*key, outcome.clone())).collect();
        for (key, outcome) in unseen {
            self.send(self.outcome_event(&outcome), Some(key));
        }
        events
    }

    /// Whether somebody reads events.
    pub(super) fn has_reader(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| !sink.is_closed())
    }

    /// Whether the reader keeps up.
    pub(super) fn has_room(&self) -> bool {
        !self.has_reader() || self.waiting < EVENTS_WAITING
    }

    /// Whether there is room for what others can cause as often as they like: half of it stays for everything else.
    pub(super) fn has_room_for_noise(&self) -> bool {
        !self.has_reader() || self.waiting < EVENTS_WAITING / 2
    }

    pub(super) fn taken(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Tells it if somebody reads.
    pub(super) fn tell(&mut self, event: Event) {
        self.send(event, None);
    }

    /// An outcome is durable under this key. Names those that have to be dropped to stay within the limit.
    pub(super) fn keep(&mut self, key: u64, outcome: Arc<KeptOutcome>) -> Vec<u64> {
        if self.has_reader() {
            self.send(self.outcome_event(&outcome), Some(key));
        }
        self.unseen.insert(key, outcome);
        let mut dropped = Vec::new();
        while self.unseen.len() > OUTCOMES_KEPT && !self.has_reader() {
            dropped.extend(self.unseen.pop_first().map(|(key, _)| key));
        }
        dropped
    }

    /// The application has dealt with an outcome.
    pub(super) fn confirm(&mut self, key: u64) -> bool {
        self.unseen.remove(&key).is_some()
    }

    fn outcome_event(&self, kept: &KeptOutcome) -> Event {
        let relay = kept.verdict.relay.unwrap_or(self.home);
        Event::Outcome { id: kept.id, lane: kept.lane, n: kept.n, outcome: kept.verdict.outcome.clone(), relay }
    }

    fn send(&mut self, event: Event, key: Option<u64>) {
        if let Some(sink) = &self.sink
            && sink.send((event, key)).is_ok()
        {
            self.waiting += 1;
        }
    }
}
