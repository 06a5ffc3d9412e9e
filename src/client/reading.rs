//! How an application reads its mailbox: as it comes, or page by page.

use tokio::sync::{mpsc, oneshot, watch};

use super::message::{Answer, Incoming};
use super::{Stop, why_stopped};
use crate::id::PeerId;
use crate::protocol::Order;
use crate::protocol::limit::MAX_PAGE_MESSAGES;

/// What [`recv`](super::Client::recv) gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// All in the order of arrival, the backlog before what is new: for bots and devices.
    #[default]
    InOrder,
    /// What arrives from the first session on, as soon as it does. What waited before that is read with
    /// [`pages`](super::Client::pages), most recent first: for people.
    RecentFirst,
    /// Nothing: for a client that only sends, or only looks.
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) struct ReadingOptions {
    pub(super) reading: Reading,
    pub(super) only_from: Option<PeerId>,
    pub(super) page_messages: u64,
    pub(super) credit_messages: u64,
    pub(super) credit_bytes: u64,
}

/// Which messages of the mailbox to read, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageOptions {
    /// From which end; the newest first by default.
    pub order: Order,
    /// Only this sender's.
    pub sender: Option<PeerId>,
    /// Only those behind this `seq`, in that order.
    pub after: Option<u64>,
    /// How many a page has at most: 1 to 500, which is the default.
    pub messages: u64,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self { order: Order::Newest, sender: None, after: None, messages: MAX_PAGE_MESSAGES }
    }
}

/// Some messages of the mailbox.
#[derive(Debug)]
pub struct Page {
    /// The messages, in the order asked for. Those that the application has in hand already are left out.
    ///
    /// A message of a page that is left, or dropped without an answer, stays at the relay and is on its page
    /// again when that is read anew.
    pub messages: Vec<Incoming>,
    /// Messages that wait in the mailbox, of that sender if one was named, those of this page included.
    pub remaining: u64,
    /// Nothing lies beyond this page now.
    pub complete: bool,
}

impl Page {
    /// The application has all of it for good, as with [`Incoming::taken`]. Returns once that is durable here.
    ///
    /// # Errors
    /// [`Stop`] if the client is closed first: some may then come again.
    ///
    /// # Cancel safety
    /// Once polled it holds, dropped or not.
    pub async fn taken(self) -> Result<(), Stop> {
        let answer = |mut message: Incoming| {
            let (durable, done) = oneshot::channel();
            message.send(Answer::Taken, Some(durable));
            done
        };
        let answered: Vec<_> = self.messages.into_iter().map(answer).collect();
        for done in answered {
            done.await.map_err(|_| Stop::Closed)?;
        }
        Ok(())
    }
}

/// A way through the mailbox, page by page; see [`Client::pages`](super::Client::pages).
///
/// While the application reads one page, the client fetches the next. What was answered is acknowledged by the
/// request for a later page, so each page costs one round trip. A lost connection only takes time: the pages go
/// on where they were.
#[derive(Debug)]
pub struct Pages {
    pub(super) reader: u64,
    pub(super) pages: mpsc::Receiver<Page>,
    pub(super) wanted: mpsc::UnboundedSender<u64>,
    pub(super) stopped: watch::Receiver<Option<Stop>>,
    /// A page was asked for and has not been returned yet.
    pub(super) asked: bool,
}

impl Pages {
    /// The next page. Behind the last one it looks anew: oldest first it finds what has arrived since, else an
    /// empty page.
    ///
    /// # Errors
    /// [`Stop`] once no more can come.
    ///
    /// # Cancel safety
    /// Safe: a page is either returned or still waits.
    pub async fn next(&mut self) -> Result<Page, Stop> {
        if !std::mem::replace(&mut self.asked, true) {
            self.want();
        }
        let page = self.pages.recv().await.ok_or_else(|| why_stopped(&self.stopped))?;
        self.asked = false;
        Ok(page)
    }

    fn want(&self) {
        // Without a driver there will be no page, and `next` says why.
        self.wanted.send(self.reader).ok();
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.pages.close();
        self.want();
    }
}
