//! Pairs that send at a steady rate, well below what the relay can do: what something else costs them shows in how long
//! their messages take.

use std::time::Duration;

use anyhow::bail;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::Bench;
use super::clients::Pair;
use super::compare::Compared;
use super::latency::Latency;
use crate::client::{Client, Draft};
use crate::protocol::Outcome;
use crate::time::{Moment, SharedClock, sleep_until};

/// What goes before each round, so that nothing of the one before is in it.
const CALM: Duration = Duration::from_secs(1);

/// How many send, and how many messages of theirs are delivered in a second, by all pairs together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) pairs: u32,
    pub(super) rate: u32,
}

/// A message under way: when it was to be sent, and how long it takes from there to its outcome.
type Underway = (Moment, JoinHandle<anyhow::Result<Duration>>);

/// Pairs that send at a steady rate, whether the earlier messages are delivered or not.
pub(super) struct Load {
    pairs: Vec<mpsc::UnboundedReceiver<Underway>>,
    sending: JoinSet<()>,
    /// When the last of the messages was delivered whose latencies were told.
    pub(super) last: Moment,
}

impl Load {
    pub(super) async fn start(bench: &Bench, Plan { pairs, rate }: Plan) -> anyhow::Result<Self> {
        let period = Duration::from_secs(1) * pairs / rate;
        let (mut underway, mut sending) = (Vec::new(), JoinSet::new());
        for (number, pair) in (0..pairs).zip(Pair::open(bench, pairs).await?) {
            let (to, sent) = mpsc::unbounded_channel();
            // Not all at the same moment.
            let first = bench.clock.now() + period * number / pairs;
            let thread = pair.thread.clone();
            let steadily = send_steadily(pair, bench.body.clone(), (first, period), bench.clock.clone(), to);
            sending.spawn_on(steadily, &thread);
            underway.push(sent);
        }
        Ok(Self { pairs: underway, sending, last: bench.clock.now() })
    }

    /// Ends the sessions of all pairs.
    pub(super) async fn end(self) {
        drop(self.pairs);
        self.sending.join_all().await;
    }

    /// A round: delivery alone for as long as `quiet`, and then for as long as something else takes. What came of that,
    /// and how long it took.
    pub(super) async fn beside<T>(
        &mut self,
        bench: &Bench,
        quiet: Duration,
        something: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Duration, Compared)> {
        let calm = bench.clock.now() + CALM;
        let begin = calm + quiet;
        sleep_until(&*bench.clock, Some(begin)).await;
        let done = something.await?;
        let end = bench.clock.now();
        Ok((done, end - begin, self.between(calm, begin, end).await?))
    }

    /// How long those messages took that were to be sent between the first two moments, and between the second and
    /// the third. Those before are forgotten.
    pub(super) async fn between(&mut self, calm: Moment, begin: Moment, end: Moment) -> anyhow::Result<Compared> {
        let (mut quiet, mut busy) = (Latency::new(), Latency::new());
        for pair in &mut self.pairs {
            while let Some((sent, underway)) = pair.recv().await {
                if sent >= end {
                    break;
                }
                let took = underway.await??;
                self.last = self.last.max(sent + took);
                if sent >= begin {
                    busy.record(took);
                } else if sent >= calm {
                    quiet.record(took);
                }
            }
        }
        Ok(Compared { quiet, busy })
    }
}

async fn send_steadily(
    pair: Pair,
    body: Vec<u8>,
    (first, period): (Moment, Duration),
    clock: SharedClock,
    to: mpsc::UnboundedSender<Underway>,
) {
    let draft = Draft::new(pair.to.clone(), body);
    let mut at = first;
    loop {
        sleep_until(&*clock, Some(at)).await;
        let sending = deliver(pair.sender.clone(), draft.clone(), at, clock.clone());
        if to.send((at, tokio::spawn(sending))).is_err() {
            return Pair::close(vec![pair]).await;
        }
        at = at + period;
    }
}

async fn deliver(sender: Client, draft: Draft, at: Moment, clock: SharedClock) -> anyhow::Result<Duration> {
    match sender.send(draft).await?.outcome().await? {
        Outcome::Delivered => Ok(clock.now() - at),
        other => bail!("a message was not delivered: {other:?}"),
    }
}
