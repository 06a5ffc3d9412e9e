//! Telling sessions about commits: each watched mailbox has a short queue of what was just committed to it.
//!
//! A live session is fed from here and reads the disk only when it fell behind. The queue is bounded: what
//! does not fit is dropped and the watcher told to read from the store instead, so a slow session costs its
//! queue and nothing more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::Stored;
use crate::id::PeerId;
use crate::protocol::limit::{MAX_CREDIT_BYTES, MAX_CREDIT_MESSAGES};

/// Messages and bytes one queue holds: the largest credit, so that a session within its credit never lags.
const MAX_QUEUED: usize = MAX_CREDIT_MESSAGES as usize;
const MAX_QUEUED_BYTES: usize = MAX_CREDIT_BYTES as usize;

type Mailboxes = Mutex<HashMap<PeerId, Vec<Weak<Shared>>>>;

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Arc<Stored>>,
    bytes: usize,
    lagged: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    notify: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics halfway through a change, so a poisoned lock still guards a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was committed since the last look.
#[derive(Debug, Default)]
pub struct News {
    /// The messages, in the order of their `seq`.
    pub messages: Vec<Arc<Stored>>,
    /// Some did not fit: read from the store what follows the last known `seq`.
    pub lagged: bool,
}

/// One session's view of the commits to one mailbox. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    mailbox: PeerId,
    /// Where it is known.
    mailboxes: Weak<Mailboxes>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(mailboxes) = self.mailboxes.upgrade() else { return };
        let mut mailboxes = lock(&mailboxes);
        let Some(watches) = mailboxes.get_mut(&self.mailbox) else { return };
        watches.retain(|watch| !std::ptr::eq(watch.as_ptr(), Arc::as_ptr(&self.shared)));
        if watches.is_empty() {
            mailboxes.remove(&self.mailbox);
        }
    }
}

impl Watch {
    /// Waits until there is news.
    ///
    /// # Cancel safety
    /// Safe: news stays until it is taken.
    pub async fn changed(&self) {
        loop {
            let notified = self.shared.notify.notified();
            {
                let queue = lock(&self.shared.queue);
                if queue.lagged || !queue.entries.is_empty() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Takes the news there is, at most `max_messages` of it.
    #[must_use]
    pub fn take(&self, max_messages: usize) -> News {
        let mut queue = lock(&self.shared.queue);
        if queue.lagged {
            *queue = Queue::default();
            return News { messages: Vec::new(), lagged: true };
        }
        let count = queue.entries.len().min(max_messages);
        let messages: Vec<_> = queue.entries.drain(..count).collect();
        queue.bytes -= messages.iter().map(|message| message.envelope.bytes().len()).sum::<usize>();
        News { messages, lagged: false }
    }
}

/// All watches of a store. The store's writer tells it of every commit.
#[derive(Debug, Default)]
pub struct Watchers {
    mailboxes: Arc<Mailboxes>,
}

impl Watchers {
    /// Starts to watch a mailbox.
    #[must_use]
    pub fn watch(&self, mailbox: PeerId) -> Watch {
        let shared = Arc::new(Shared::default());
        lock(&self.mailboxes).entry(mailbox).or_default().push(Arc::downgrade(&shared));
        Watch { shared, mailbox, mailboxes: Arc::downgrade(&self.mailboxes) }
    }

    /// Tells the watches of the mailbox that this message is committed. Call in the order of commits.
    pub fn publish(&self, mailbox: PeerId, message: &Arc<Stored>) {
        let mut mailboxes = lock(&self.mailboxes);
        let Some(watches) = mailboxes.get_mut(&mailbox) else { return };
        watches.retain(|watch| {
            let Some(shared) = watch.upgrade() else { return false };
            let mut queue = lock(&shared.queue);
            let bytes = queue.bytes + message.envelope.bytes().len();
            if queue.lagged {
                // It will read the store anyway.
            } else if queue.entries.len() >= MAX_QUEUED || (bytes > MAX_QUEUED_BYTES && !queue.entries.is_empty()) {
                *queue = Queue { lagged: true, ..Queue::default() };
            } else {
                queue.bytes = bytes;
                queue.entries.push_back(message.clone());
            }
            drop(queue);
            shared.notify.notify_one();
            true
        });
        if watches.is_empty() {
            mailboxes.remove(&mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_dropped_leaves_nothing_behind() {
        let watchers = Watchers::default();
        let one = PeerId::from_bytes([1; 32]);
        let (first, second) = (watchers.watch(one), watchers.watch(one));
        drop(watchers.watch(PeerId::from_bytes([2; 32])));
        assert_eq!(lock(&watchers.mailboxes).keys().collect::<Vec<_>>(), [&one]);
        drop(first);
        assert_eq!(lock(&watchers.mailboxes).get(&one).map(Vec::len), Some(1));
        drop(second);
        assert!(lock(&watchers.mailboxes).is_empty());
        // It may outlive what it watched.
        let last = watchers.watch(one);
        drop(watchers);
        drop(last);
    }
}
