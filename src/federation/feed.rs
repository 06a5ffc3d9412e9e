//! What a link has of its outbox: new messages as they are committed, and those that have to be read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Context;
use crate::id::PeerId;
use crate::protocol::Order;
use crate::protocol::limit::{MAX_PAGE_BYTES, MAX_PAGE_MESSAGES};
use crate::store::{Page, Query, Reply, StoreError, Stored, Watch};

/// Bytes of messages that a link keeps at hand; more are read when they are to go out.
const AT_HAND_BYTES: usize = 4 << 20;

/// What is being read.
enum Reading {
    /// What is behind the cursor.
    New(Reply<Page>),
    /// These, which are to go out.
    Wanted(Reply<Page>, BTreeSet<u64>),
}

/// See the head of this file.
pub(super) struct Feed {
    outbox: PeerId,
    watch: Watch,
    /// All up to this `seq` has been given out.
    cursor: u64,
    /// The store may hold more behind it than the watch tells.
    behind: bool,
    /// Empty while there is no use for it: very many links may be down at once, with very much to forward.
    at_hand: BTreeMap<u64, Arc<Stored>>,
    at_hand_bytes: usize,
    keeps_at_hand: bool,
    reading: Option<Reading>,
}

/// What came of waiting.
pub(super) enum News {
    /// Messages that are new in the outbox.
    New(Vec<Arc<Stored>>),
    /// These are at hand now, or are not there any more: then they are named.
    Read(Vec<u64>),
}

impl Feed {
    /// What is new at first is kept at hand if there may soon be use for it.
    pub(super) fn new(context: &Context, outbox: PeerId, keeps_at_hand: bool) -> Self {
        // Watched first, then read: nothing committed in between is missed.
        let watch = context.store.watch(outbox);
        let at_hand = BTreeMap::new();
        Self { outbox, watch, cursor: 0, behind: true, at_hand, at_hand_bytes: 0, keeps_at_hand, reading: None }
    }

    /// Messages can go out now: what is new is kept at hand for that.
    pub(super) const fn connected(&mut self) {
        self.keeps_at_hand = true;
    }

    /// Nothing can go out any more: nothing is kept at hand.
    pub(super) fn disconnected(&mut self) {
        self.keeps_at_hand = false;
        self.at_hand = BTreeMap::new();
        self.at_hand_bytes = 0;
        if matches!(self.reading, Some(Reading::Wanted(..))) {
            self.reading = None;
        }
    }

    /// How far messages have been given out.
    pub(super) const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether all that was in the outbox has been given out.
    pub(super) const fn is_caught_up(&self) -> bool {
        !self.behind
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Arc<Stored>> {
        self.at_hand.get(&seq)
    }

    /// The message will not go out again soon.
    pub(super) fn forget(&mut self, seq: u64) {
        if let Some(message) = self.at_hand.remove(&seq) {
            self.at_hand_bytes -= message.envelope.bytes().len();
        }
    }

    /// Wants these to be at hand, if nothing is being read.
    pub(super) fn want(&mut self, context: &Context, seqs: BTreeSet<u64>) {
        if let (None, Some(first)) = (&self.reading, seqs.first().copied()) {
            // They are neighbours, more or less: what is not on one page is wanted again.
            let page = context.store.page(self.query(first.saturating_sub(1)));
            self.reading = Some(Reading::Wanted(page, seqs));
        }
    }

    /// Waits for something new, or for what is wanted. Cancel-safe.
    pub(super) async fn next(&mut self, context: &Context) -> Result<News, StoreError> {
        if self.reading.is_none() && self.behind {
            self.reading = Some(Reading::New(context.store.page(self.query(self.cursor))));
        }
        match &mut self.reading {
            None => {
                self.watch.changed().await;
                let news = self.watch.take(usize::MAX);
                self.behind |= news.lagged;
                Ok(News::New(self.take(news.messages)))
            }
            Some(Reading::New(reply)) => {
                let page = reply.await;
                self.reading = None;
                let page = page?;
                self.behind = !page.complete;
                Ok(News::New(self.take(page.messages)))
            }
            Some(Reading::Wanted(reply, seqs)) => {
                let page = reply.await;
                let seqs = std::mem::take(seqs);
                self.reading = None;
                let page = page?;
                let read_to = if page.complete { u64::MAX } else { page.cursor.unwrap_or(0) };
                for message in page.messages.into_iter().filter(|message| seqs.contains(&message.seq)) {
                    self.keep(message, usize::MAX);
                }
                let gone = seqs.into_iter().filter(|seq| *seq <= read_to && !self.at_hand.contains_key(seq));
                Ok(News::Read(gone.collect()))
            }
        }
    }

    fn query(&self, cursor: u64) -> Query {
        Query {
            mailbox: self.outbox,
            order: Order::Oldest,
            cursor: Some(cursor),
            sender: None,
            max_messages: MAX_PAGE_MESSAGES,
            max_bytes: MAX_PAGE_BYTES,
        }
    }

    fn take(&mut self, messages: Vec<Arc<Stored>>) -> Vec<Arc<Stored>> {
        let mut new = Vec::with_capacity(messages.len());
        let cursor = self.cursor;
        for message in messages.into_iter().filter(|message| message.seq > cursor) {
            new.push(message.clone());
            if self.keeps_at_hand {
                self.keep(message, AT_HAND_BYTES);
            }
        }
        self.cursor = new.last().map_or(self.cursor, |message| message.seq);
        new
    }

    fn keep(&mut self, message: Arc<Stored>, most: usize) {
        if self.at_hand_bytes < most {
            self.at_hand_bytes += message.envelope.bytes().len();
            if let Some(twice) = self.at_hand.insert(message.seq, message) {
                self.at_hand_bytes -= twice.envelope.bytes().len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RelayId;
    use crate::identity::Identity;
    use crate::random::SystemEntropy;
    use crate::store::contract::{TestClock, fence, lane, message};
    use crate::store::redb::Backend;
    use crate::store::redb::relay::{OpenOptions, RedbRelayStore};
    use crate::store::{Append, Forward, Op, outbox_key};
    use crate::transport::{ClientEndpoint, Socket, TransportLimits};

    fn relay() -> RelayId {
        RelayId::from_bytes([9; 32])
    }

    fn context() -> Context {
        let (clock, entropy) = (TestClock::shared(), SystemEntropy::shared());
        let who = Identity::generate(&*entropy);
        let socket = Socket::Bind("127.0.0.1:0".parse().unwrap());
        let store = OpenOptions::new(Backend::Memory, clock.clone(), entropy.clone());
        Context {
            me: who.relay_id(),
            endpoint: ClientEndpoint::bind(socket, &who, &TransportLimits::default(), &*entropy, None).unwrap(),
            store: Arc::new(RedbRelayStore::open(store).unwrap()),
            clock,
            entropy,
            places: std::sync::RwLock::default(),
            tell: Arc::new(()),
            failed: Box::new(|_| {}),
        }
    }

    /// Puts these into the outbox, and waits until the feed has given them out.
    async fn give_out(feed: &mut Feed, context: &Context, numbers: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        let count = numbers.clone().count();
        let forward = || Some(Forward { relay: relay(), address: String::new() });
        let batch = numbers.map(|n| Op::Append(Append { forward: forward(), ..message(lane(1, 2, 1), n) }));
        context.store.submit(fence(1, 1), batch.collect()).await.unwrap();
        let mut seqs = Vec::new();
        while seqs.len() < count {
            let News::New(messages) = feed.next(context).await.unwrap() else { panic!("nothing was wanted") };
            seqs.extend(messages.iter().map(|message| message.seq));
        }
        seqs
    }

    #[tokio::test]
    async fn a_link_that_is_down_keeps_no_messages_in_memory_and_reads_them_when_it_is_up() {
        let context = context();
        let mut feed = Feed::new(&context, outbox_key(&relay()), true);
        let early = give_out(&mut feed, &context, 1..=3).await;
        assert!(early.iter().all(|seq| feed.get(*seq).is_some()), "what is new is at hand");
        feed.disconnected();
        let late = give_out(&mut feed, &context, 4..=6).await;
        assert_eq!((feed.at_hand.len(), feed.at_hand_bytes), (0, 0));
        feed.connected();
        let all: BTreeSet<u64> = early.into_iter().chain(late).collect();
        feed.want(&context, all.clone());
        let News::Read(gone) = feed.next(&context).await.unwrap() else { panic!("these were wanted") };
        assert_eq!(gone, [] as [u64; 0]);
        assert!(all.iter().all(|seq| feed.get(*seq).is_some()));
    }
}
