//! Senders on raw sessions: as many messages as a session may have unanswered, and their outcomes.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::Bench;
use super::latency::Latency;
use super::raw::Session;
use super::report;
use crate::id::{LaneId, MessageId, PeerId, RelayId};
use crate::identity::Identity;
use crate::protocol::limit::{DEFAULT_TTL, MIN_TTL, WINDOW_BYTES, WINDOW_MESSAGES};
use crate::protocol::{Answer, Envelope, Frame, HEADER_BYTES, Header, MsgR, Outcome};
use crate::random::SharedEntropy;
use crate::ranges::Ranges;
use crate::time::{Moment, SharedClock, millis};

/// Sessions that fill a mailbox.
const FILLERS: u32 = 10;

/// Fills the mailbox of somebody who is away.
pub(super) async fn keep_for_nobody(bench: &Bench, messages: u64) -> anyhow::Result<()> {
    let away = somebody_away(bench).await?;
    let who: Vec<Identity> = (0..FILLERS).map(|_| Identity::generate(&*bench.entropy)).collect();
    let mut senders = Senders::open(bench, &who, away).await?;
    let bar = report::progress("filling", messages);
    senders.send(messages, None, &bar).await?;
    bar.finish_and_clear();
    senders.close().await;
    Ok(())
}

/// Somebody who was here and is not: who never was has a smaller mailbox.
pub(super) async fn somebody_away(bench: &Bench) -> anyhow::Result<PeerId> {
    let away = Identity::generate(&*bench.entropy);
    Session::open(&bench.relay, &away, &*bench.entropy).await?.close().await;
    Ok(away.peer_id())
}

/// Many senders with one recipient.
pub(super) struct Senders {
    senders: Vec<Sender>,
}

struct Sender {
    session: Session,
    me: PeerId,
    home: RelayId,
    recipient: PeerId,
    lane: LaneId,
    /// The messages sent so far, which is also the next request's number: each message is sent once.
    sent: u64,
    /// When those without an answer were sent.
    unanswered: VecDeque<Moment>,
    expired: Ranges,
    body: Vec<u8>,
    clock: SharedClock,
    entropy: SharedEntropy,
}

impl Senders {
    /// Opens their sessions.
    pub(super) async fn open(bench: &Bench, who: &[Identity], recipient: PeerId) -> anyhow::Result<Self> {
        let mut senders = Vec::with_capacity(who.len());
        for identity in who {
            senders.push(Sender {
                session: Session::open(&bench.relay, identity, &*bench.entropy).await?,
                me: identity.peer_id(),
                home: bench.relay.relay,
                recipient,
                lane: LaneId(bench.entropy.word()),
                sent: 0,
                unanswered: VecDeque::new(),
                expired: Ranges::new(),
                body: bench.body.clone(),
                clock: bench.clock.clone(),
                entropy: bench.entropy.clone(),
            });
        }
        Ok(Self { senders })
    }

    /// Sends so many messages in all, and waits until each is accepted. They expire at `deadline` if there is one.
    /// How long each was on its way, from send to acceptance.
    pub(super) async fn send(
        &mut self,
        messages: u64,
        deadline: Option<Moment>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Latency> {
        let mut tasks = JoinSet::new();
        let shares = shares(messages, self.senders.len() as u64);
        for (mut sender, share) in self.senders.drain(..).zip(shares) {
            let bar = bar.clone();
            tasks.spawn(async move { sender.send(share, deadline, &bar).await.map(|latency| (sender, latency)) });
        }
        let mut all = Latency::new();
        while let Some(done) = tasks.join_next().await {
            let (sender, latency) = done??;
            all.merge(&latency);
            self.senders.push(sender);
        }
        Ok(all)
    }

    /// Waits until every message has its outcome, which has to be *expired*.
    pub(super) async fn all_expired(&mut self) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for mut sender in self.senders.drain(..) {
            tasks.spawn(async move { sender.all_expired().await.map(|()| sender) });
        }
        while let Some(done) = tasks.join_next().await {
            self.senders.push(done??);
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        let mut tasks: JoinSet<()> = self.senders.into_iter().map(|sender| sender.session.close()).collect();
        while tasks.join_next().await.is_some() {}
    }
}

/// A number in so many parts, as equal as possible.
fn shares(number: u64, parts: u64) -> impl Iterator<Item = u64> {
    (0..parts).map(move |part| number / parts + u64::from(part < number % parts))
}

impl Sender {
    async fn send(&mut self, messages: u64, deadline: Option<Moment>, bar: &ProgressBar) -> anyhow::Result<Latency> {
        let mut latency = Latency::new();
        let last = self.sent + messages;
        let window = (WINDOW_BYTES / (HEADER_BYTES + self.body.len())).clamp(1, WINDOW_MESSAGES);
        while self.sent < last || !self.unanswered.is_empty() {
            while self.sent < last && self.unanswered.len() < window {
                let lifetime = deadline.map_or(DEFAULT_TTL, |deadline| deadline - self.clock.now());
                let message = self.next(lifetime.max(MIN_TTL));
                self.session.submit.send(&message.into()).await?;
                self.unanswered.push_back(self.clock.now());
            }
            let accepted = self.accepted().await?;
            let now = self.clock.now();
            self.unanswered.drain(..accepted).for_each(|sent| latency.record(now - sent));
            bar.inc(accepted as u64);
        }
        Ok(latency)
    }

    fn next(&mut self, lifetime: Duration) -> MsgR {
        let created = self.clock.date();
        let header = Header {
            sender: self.me,
            relay: self.home,
            recipient: self.recipient,
            id: MessageId::new(created.0, &self.entropy.bytes()),
            lane: self.lane,
            n: self.sent + 1,
            created,
            ttl: lifetime,
        };
        let envelope = Envelope::new(header, &self.body).bytes().clone();
        let (request, prev) = (self.sent, self.sent);
        self.sent += 1;
        MsgR { request, prev, ttl_ms: millis(lifetime), envelope, signature: None, home: None }
    }

    /// Waits for an answer. How many messages it accepts.
    async fn accepted(&mut self) -> anyhow::Result<usize> {
        let answer = match self.session.from_submit.next().await? {
            Some(Frame::MsgA(answer)) => answer,
            Some(Frame::NopN(_)) => return Ok(0),
            _ => bail!("the relay answers something else than MSG:A"),
        };
        match answer.answer {
            Answer::Accepted { .. } => Ok(usize::try_from(answer.count)?.min(self.unanswered.len())),
            Answer::Wait { reason, .. } => {
                bail!("the relay takes no more messages now ({reason}): raise its limits, or name fewer --messages")
            }
            Answer::Final(verdict) => bail!("the relay refuses a message: {:?}", verdict.outcome),
            Answer::Gap { last } => bail!("the relay misses messages after number {last}"),
        }
    }

    async fn all_expired(&mut self) -> anyhow::Result<()> {
        while self.expired.count() < self.sent {
            match self.session.from_notify.next().await? {
                Some(Frame::AckN(told)) if told.lane == self.lane => {
                    let other =
                        told.exceptions.iter().find(|run| !matches!(run.verdict.outcome, Outcome::Expired { .. }));
                    if let Some(run) = other {
                        bail!("a message that should expire was {:?}", run.verdict.outcome);
                    }
                    if !told.delivered.is_empty() {
                        bail!("a message that should expire was delivered");
                    }
                    told.exceptions.iter().for_each(|run| self.expired.insert_range(run.from, run.to));
                }
                Some(_) => {}
                None => bail!("the relay ended the notify stream"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_equal_as_possible_and_make_the_whole() {
        assert_eq!(shares(10, 4).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(shares(2, 3).collect::<Vec<_>>(), [1, 1, 0]);
    }
}
