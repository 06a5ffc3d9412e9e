//! What a person's client asks when it comes back: how much waits, and the newest of it. Each is asked many times
//! in turn, over QUIC, and nothing is acknowledged.

use std::time::Duration;

use anyhow::bail;

use super::Bench;
use super::latency::Latency;
use super::raw::Session;
use super::report::{self, count, duration, fields, ratio};
use crate::id::{PeerId, StoreId};
use crate::identity::Identity;
use crate::protocol::limit::MAX_PAGE_BYTES;
use crate::protocol::{Frame, Order, PageR, StatusR};
use crate::time::SharedClock;
use crate::transport::{FrameReceiver, FrameSender};

/// How often each is asked.
const TIMES: u64 = 1000;

/// Messages of a page.
pub(super) const PAGE_MESSAGES: u64 = 50;

/// What is asked, and what it is called in reports.
const NAMES: [&str; 4] = ["status", "newest_page", "newest_page_of_sender", "round_trip"];

/// How long each took, in the order of [`NAMES`].
pub(super) struct Views([Latency; 4]);

/// One who asks.
struct Viewer {
    session: Session,
    sync: FrameSender,
    from_sync: FrameReceiver,
    store: StoreId,
    clock: SharedClock,
    request: u64,
}

impl Views {
    /// Asks about the mailbox of `owner`, to which `sender` has sent something.
    pub(super) async fn take(bench: &Bench, owner: &Identity, sender: PeerId) -> anyhow::Result<Self> {
        let mut viewer = Viewer::open(bench, owner).await?;
        // Somebody to whom nobody has sent: what is left is the way there and back.
        let mut other = Viewer::open(bench, &Identity::generate(&*bench.entropy)).await?;
        let mut views = Self(NAMES.map(|_| Latency::new()));
        let bar = report::progress("looking", TIMES);
        for _ in 0..TIMES {
            let took = [
                viewer.status().await?,
                viewer.page(None).await?,
                viewer.page(Some(sender)).await?,
                other.status().await?,
            ];
            views.0.iter_mut().zip(took).for_each(|(latency, took)| latency.record(took));
            bar.inc(1);
        }
        bar.finish_and_clear();
        viewer.session.close().await;
        other.session.close().await;
        Ok(views)
    }

    fn round_trip_us(&self) -> u64 {
        let [.., round_trip] = &self.0;
        round_trip.p50_us()
    }

    /// Prints what was measured with so many messages in the mailbox.
    pub(super) fn tell(&self, bench: &Bench, messages: u64) -> anyhow::Result<()> {
        let round_trip = self.round_trip_us();
        bench.report.words(&format!("with {} messages in the mailbox, of {TIMES} each:", count(messages)))?;
        for (name, latency) in NAMES.iter().zip(&self.0) {
            let above = match latency.p50_us().saturating_sub(round_trip) {
                0 => String::new(),
                above => format!("; {} above a round trip", duration(above)),
            };
            let words = format!("  {name:22} {}{above}", latency.words());
            let named = fields([("messages", messages.into()), ("view", (*name).into())]);
            let own = fields([("round_trip_us", round_trip.into())]);
            bench.report.tell("view", named.chain(latency.fields()).chain(own), &words)?;
        }
        bench.report.words("")
    }

    /// By how much the medians have grown since `earlier`: as the client sees it, and without the round trip.
    pub(super) fn growth(&self, earlier: &Self) -> impl Iterator<Item = (&'static str, f64, f64)> {
        let above = |latency: &Latency, views: &Self| latency.p50_us().saturating_sub(views.round_trip_us());
        // The last is the round trip itself.
        NAMES.iter().take(3).zip(self.0.iter().zip(&earlier.0)).map(move |(name, (now, then))| {
            (*name, ratio(now.p50_us(), then.p50_us()), ratio(above(now, self), above(then, earlier)))
        })
    }
}

impl Viewer {
    async fn open(bench: &Bench, who: &Identity) -> anyhow::Result<Self> {
        let session = Session::open(&bench.relay, who, &*bench.entropy).await?;
        let (sync, from_sync) = session.sync().await?;
        let store = session.hello.store;
        Ok(Self { session, sync, from_sync, store, clock: bench.clock.clone(), request: 0 })
    }

    async fn status(&mut self) -> anyhow::Result<Duration> {
        let request = StatusR { request: self.request, sender: None };
        match self.ask(request.into()).await? {
            (Frame::StatusA(_), took) => Ok(took),
            _ => bail!("the relay answers R:STATUS with something else"),
        }
    }

    async fn page(&mut self, sender: Option<PeerId>) -> anyhow::Result<Duration> {
        let request = PageR {
            request: self.request,
            order: Order::Newest,
            cursor: None,
            sender,
            max_messages: PAGE_MESSAGES,
            max_bytes: MAX_PAGE_BYTES,
            store: self.store,
            answers: crate::protocol::Taken::default(),
        };
        match self.ask(request.into()).await? {
            (Frame::PageA(page), took) if !page.messages.is_empty() => Ok(took),
            (Frame::PageA(_), _) => bail!("the relay answers R:PAGE with an empty page"),
            _ => bail!("the relay answers R:PAGE with something else"),
        }
    }

    async fn ask(&mut self, request: Frame) -> anyhow::Result<(Frame, Duration)> {
        let asked = self.clock.now();
        self.sync.send(&request).await?;
        self.request += 1;
        match self.from_sync.next().await? {
            Some(frame) => Ok((frame, self.clock.now() - asked)),
            None => bail!("the relay ended the sync stream"),
        }
    }
}
