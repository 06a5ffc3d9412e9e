//! How far a sent message is, between the driver and the application's handle.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Closed;
use super::message::Accepted;
use crate::protocol::Outcome;

/// What is known of a message.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) accepted: Option<Accepted>,
    pub(super) outcome: Option<Outcome>,
    /// Nothing more will be known: the driver is gone.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end. Dropped, it says that nothing more will be known.
#[derive(Debug)]
pub(super) struct Teller(Arc<Shared>);

/// The application's end.
#[derive(Debug)]
pub(super) struct Progress(Arc<Shared>);

/// Both ends.
pub(super) fn progress() -> (Teller, Progress) {
    let shared = Arc::<Shared>::default();
    (Teller(shared.clone()), Progress(shared))
}

impl Teller {
    pub(super) fn tell(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock());
        self.0.changed.notify_waiters();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell(|known| known.closed = true);
    }
}

impl Progress {
    /// Waits until `look` finds what it looks for. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if it cannot be found any more.
    pub(super) async fn wait_for<T>(&self, mut look: impl FnMut(&Known) -> Option<T>) -> Result<T, Closed> {
        let mut look = || {
            let known = self.0.lock();
            let found = look(&known);
            found.map(Ok).or(known.closed.then_some(Err(Closed)))
        };
        loop {
            // Mostly it is there already, or comes once.
            if let Some(found) = look() {
                return found;
            }
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}
