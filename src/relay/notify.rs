//! The notify stream: pushes messages within the client's credit, takes its answers, tells outcomes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::confirm::Confirmation;
use super::session::{End, Session, message, unexpected};
use super::settle::{Settling, settle};
use crate::delivery::{PushWindow, Repeat};
use crate::id::PeerId;
use crate::mutant::Mutant;
use crate::protocol::limit::MAX_PAGE_BYTES;
use crate::protocol::{AckA, CloseCode, Frame, GoawayN, Order, Taken};
use crate::ranges::Ranges;
use crate::store::told::Told;
use crate::store::{Page, Query, Reply, Stored, Watch};
use crate::time::{Alarm, millis};
use crate::transport::{FrameReceiver, FrameSender, TransportError};

/// Batches of answers that the store may be busy with; the next are read when one is done.
const SETTLING: usize = 8;

/// ACK:R taken together to the store.
const BATCH_FRAMES: usize = 256;

/// Ranges and refusals in them after which no further frame is taken along.
const BATCH_ANSWERS: usize = 4096;

/// Serves the notify stream. Once the relay drains nothing more is taken or pushed, and the last word is N:GOAWAY.
pub(super) async fn run(session: &Session, sender: &FrameSender, receiver: &mut FrameReceiver) -> Result<(), End> {
    let mut notify = Notify {
        session,
        stream: Outgoing { sender, full: false, carries: false },
        receiver,
        window: PushWindow::new(session.credit_messages, session.credit_bytes, session.ack_timeout),
        push: Push::Waiting,
        settling: VecDeque::new(),
        repeats: BTreeMap::new(),
        confirmation: Confirmation::default(),
    };
    let mut live = session.live.subscribe();
    let (mut drains, mut draining) = (std::pin::pin!(session.node.drains()), false);
    let mut alarm = Alarm::default();
    loop {
        if draining && notify.settling.is_empty() {
            return Box::pin(notify.say_goodbye()).await;
        }
        (notify.stream.full, notify.stream.carries) = (false, false);
        notify.tell_outcomes()?;
        if !draining {
            notify.send_repeats()?;
            notify.push_messages()?;
        }
        notify.answer()?;
        sender.write();
        // As those found it: there may be room by now for what they left.
        let writable = !notify.stream.full;
        let clock = &*session.node.clock;
        let answer_by = notify.confirmation.due().filter(|_| writable);
        let timeout = notify.window.next_timeout().into_iter().chain(answer_by).min();
        let hungry = writable && notify.window.room() > 0;
        tokio::select! {
            biased;
            () = &mut drains, if !draining => draining = true,
            // Before what comes in: some may wait to be told.
            done = settled(&mut notify.settling) => done?,
            frame = session.next(notify.receiver), if notify.settling.len() < SETTLING && !draining => match frame? {
                Some(frame) => notify.receive(frame)?,
                None => return Err(End::Close(CloseCode::Done, "the client finished")),
            },
            page = notify.push.news(), if hungry => notify.push.learn(page?, session.only_from),
            () = session.seat.outcomes.changed(), if writable => {}
            seqs = session.answered.next() => drop(notify.answered(&seqs)),
            cursor = beginning(&mut live), if matches!(notify.push, Push::Waiting) && session.credit_messages > 0 => {
                // Watched first, then read: nothing committed in between is missed.
                notify.push = Push::Live(Live {
                    watch: session.node.store.watch(session.peer),
                    cursor,
                    queue: VecDeque::new(),
                    behind: true,
                    reading: None,
                });
            }
            () = alarm.ring(clock, timeout), if timeout.is_some() => notify.repeat()?,
            space = notify.stream.sender.writable(), if !writable => space?,
        }
    }
}

struct Notify<'a> {
    session: &'a Session,
    stream: Outgoing<'a>,
    receiver: &'a mut FrameReceiver,
    window: PushWindow<Arc<Stored>>,
    push: Push,
    settling: VecDeque<Settling>,
    /// What is to be sent again, by `seq`, as soon as the stream has room.
    repeats: BTreeMap<u64, Repeat<Arc<Stored>>>,
    confirmation: Confirmation,
}

/// What goes to the client.
struct Outgoing<'a> {
    sender: &'a FrameSender,
    /// There was no room for something.
    full: bool,
    /// Something goes, with which more can go at no cost.
    carries: bool,
}

impl Outgoing<'_> {
    fn has_room(&mut self) -> bool {
        self.full |= !self.sender.is_writable();
        !self.full
    }

    fn push(&mut self, frame: &Frame) -> Result<(), TransportError> {
        self.carries = true;
        self.sender.push(frame)
    }
}

enum Push {
    /// The client reads its backlog first.
    Waiting,
    Live(Live),
}

struct Live {
    watch: Watch,
    /// The last `seq` that was pushed or passed over.
    cursor: u64,
    queue: VecDeque<Arc<Stored>>,
    /// The store may hold more behind `cursor` than the watch tells.
    behind: bool,
    reading: Option<Reply<Page>>,
}

impl Push {
    /// Waits for more to push: from the store after falling behind, else from the watch.
    async fn news(&mut self) -> Result<Option<Page>, End> {
        match self {
            Self::Live(Live { reading: Some(reading), .. }) => {
                let page = reading.await;
                if let Self::Live(live) = self {
                    live.reading = None;
                }
                Ok(Some(page?))
            }
            Self::Live(live) if live.queue.is_empty() && !live.behind => {
                live.watch.changed().await;
                Ok(None)
            }
            // Something is there already, or nothing may be pushed yet.
            Self::Live(_) | Self::Waiting => std::future::pending().await,
        }
    }

    fn learn(&mut self, page: Option<Page>, only_from: Option<PeerId>) {
        let Self::Live(live) = self else { return };
        let wanted = |message: &Arc<Stored>| {
            message.seq > live.cursor && only_from.is_none_or(|from| message.envelope.header().sender == from)
        };
        match page {
            Some(page) => {
                live.behind = !page.complete;
                live.queue.extend(page.messages.into_iter().filter(wanted));
                if live.queue.is_empty() {
                    // There was nothing to push as far as it looked.
                    live.cursor = live.cursor.max(page.cursor.unwrap_or(0));
                }
            }
            None => {
                let news = live.watch.take(usize::MAX);
                live.behind |= news.lagged;
                live.queue.extend(news.messages.into_iter().filter(wanted));
            }
        }
    }
}

impl Notify<'_> {
    /// Tells the outcomes that are known, and when to come back.
    async fn say_goodbye(mut self) -> Result<(), End> {
        self.stream.sender.writable().await?;
        self.tell_outcomes()?;
        self.stream.carries = true;
        self.answer()?;
        self.stream.push(&GoawayN { delay_ms: millis(self.session.node.away()) }.into())?;
        Ok(self.stream.sender.flush().await?)
    }

    /// Sends ACK:A if something carries it, or if it has waited for that long enough.
    fn answer(&mut self) -> Result<(), End> {
        let now = || self.session.node.clock.now();
        let request = if self.stream.carries {
            self.confirmation.with_company(now)
        } else if self.confirmation.due().is_some() && self.stream.has_room() {
            self.confirmation.by_itself(now)
        } else {
            None
        };
        let Some(request) = request else { return Ok(()) };
        self.session.node.meter.ack_a.add(1);
        Ok(self.stream.push(&AckA { request }.into())?)
    }

    fn tell_outcomes(&mut self) -> Result<(), End> {
        // What does not fit now stays where it is counted.
        while self.stream.has_room()
            && let Some(frame) = self.session.seat.outcomes.take(self.session.peer)
        {
            self.session.node.meter.ack_n.add(1);
            self.stream.push(&frame.into())?;
        }
        Ok(())
    }

    /// Pushes what the credit allows, and begins to read more if the store holds it.
    fn push_messages(&mut self) -> Result<(), End> {
        let Push::Live(live) = &mut self.push else { return Ok(()) };
        let node = &self.session.node;
        let (now, date) = (node.clock.now(), node.clock.date());
        while let Some(next) = live.queue.front() {
            let bytes = next.envelope.bytes().len();
            if !self.window.admits(bytes) || !self.stream.has_room() {
                return Ok(());
            }
            let Some(next) = live.queue.pop_front() else { break };
            live.cursor = live.cursor.max(next.seq);
            if next.expires <= date {
                continue;
            }
            self.session.hand_out(next.seq);
            node.meter.msg_n.add(1);
            self.stream.push(&message(&next, date, 1).into())?;
            if Mutant::OutcomeBeforeTaken.is_planted() {
                let header = next.envelope.header();
                let mut told = Told::default();
                told.add(next.submitter, header.lane_key(), header.n);
                told.tell_all(&*node.registry);
            }
            self.window.push(now, next.seq, bytes, next);
        }
        if live.behind && live.reading.is_none() && self.window.room() > 0 {
            live.reading = Some(node.store.page(Query {
                mailbox: self.session.peer,
                order: Order::Oldest,
                cursor: Some(live.cursor),
                sender: self.session.only_from,
                max_messages: self.window.room() as u64,
                max_bytes: MAX_PAGE_BYTES.min(self.session.credit_bytes as u64),
            }));
        }
        Ok(())
    }

    /// Notes what is unanswered for too long. It is counted against a client that does not even read, once for each time.
    fn repeat(&mut self) -> Result<(), End> {
        let node = &self.session.node;
        let (now, date) = (node.clock.now(), node.clock.date());
        let stalled = |_| End::Close(CloseCode::Stalled, "a message stayed unacknowledged through the last attempt");
        for repeat in self.window.on_timeout(now).map_err(stalled)? {
            if repeat.item.expires <= date {
                // Its outcome is the sweep's to tell. Nothing is handed out after its time.
                self.forget(repeat.seq);
            } else {
                self.repeats.insert(repeat.seq, repeat);
            }
        }
        Ok(())
    }

    fn send_repeats(&mut self) -> Result<(), End> {
        let node = &self.session.node;
        while self.stream.has_room()
            && let Some((seq, repeat)) = self.repeats.pop_first()
        {
            let date = node.clock.date();
            if repeat.item.expires <= date {
                self.forget(seq);
                continue;
            }
            node.meter.msg_n.add(1);
            self.stream.push(&message(&repeat.item, date, repeat.attempt).into())?;
        }
        Ok(())
    }

    /// Gives back the credit of one that was pushed, and the message.
    fn forget(&mut self, seq: u64) -> Option<Arc<Stored>> {
        self.repeats.remove(&seq);
        self.window.answered(seq)
    }

    /// Takes this frame and those that came with it.
    fn receive(&mut self, first: Frame) -> Result<(), End> {
        let (mut ranges, mut refused) = (Vec::new(), Vec::new());
        let mut newest = None;
        let mut frame = Some(first);
        let (mut frames, mut acks) = (0, 0);
        while let Some(taken) = frame.take() {
            match taken {
                Frame::AckR(ack) => {
                    newest = Some(ack.request);
                    acks += 1;
                    if ack.store == self.session.node.store.store_id() {
                        ranges.extend(ack.answers.taken.iter());
                        refused.extend(ack.answers.refused);
                    }
                }
                Frame::NopN(_) => {}
                other => return Err(unexpected(other.frame_type(), "on the notify stream")),
            }
            frames += 1;
            if frames < BATCH_FRAMES && ranges.len() + refused.len() < BATCH_ANSWERS {
                frame = self.receiver.try_buffered()?;
            }
        }
        let Some(request) = newest else { return Ok(()) };
        self.confirmation.ask(request, self.session.node.clock.now());
        self.session.node.meter.ack_r.add(acks);
        let answers = Taken { taken: ranges.into_iter().collect(), refused };
        if !answers.is_empty() {
            self.settle(answers);
        }
        Ok(())
    }

    /// Gives back the credit of those that were pushed, and the messages.
    fn answered(&mut self, seqs: &Ranges) -> Vec<Arc<Stored>> {
        let mut pushed = Vec::new();
        for (from, to) in seqs.iter() {
            pushed.extend(self.window.within(from, to).into_iter().filter_map(|seq| self.forget(seq)));
        }
        pushed
    }

    fn settle(&mut self, answers: Taken) {
        let taken = self.answered(&answers.taken);
        for refusal in &answers.refused {
            self.forget(refusal.seq);
        }
        self.settling.push_back(settle(self.session, answers, &taken));
    }
}

/// Waits until pushing begins, and from behind which `seq`. Cancel-safe.
async fn beginning(live: &mut watch::Receiver<Option<u64>>) -> u64 {
    // The session holds the sender, so the wait ends with a value alone.
    live.wait_for(Option::is_some).await.ok().and_then(|begins| *begins).unwrap_or(0)
}

/// Waits for the oldest answers to be in the store; for ever if there are none. Cancel-safe.
async fn settled(settling: &mut VecDeque<Settling>) -> Result<(), End> {
    let Some(oldest) = settling.front_mut() else { return std::future::pending().await };
    let done = oldest.done().await;
    settling.pop_front();
    done
}
