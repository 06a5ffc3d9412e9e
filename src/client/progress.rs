//! How far a sent message is, between the driver and the application's handle.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Closed;
use super::message::Accepted;
use crate::protocol::Outcome;

/// What is known of a message.
#[derive(Debug, Default)]
struct Known {
    accepted: Option<Accepted>,
    outcome: Option<Outcome>,
    /// Nothing more will be known: the driver is gone.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// Told that the relay has it, and at the end.
    accepted: Notify,
    /// Told at the end alone: most wait for nothing else.
    ended: Notify,
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
    /// The relay has it.
    pub(super) fn accepted(&self, accepted: Accepted) {
        self.0.lock().accepted = Some(accepted);
        self.0.accepted.notify_waiters();
    }

    /// It has an outcome.
    pub(super) fn ended(self, outcome: Outcome) {
        self.0.lock().outcome = Some(outcome);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.accepted.notify_waiters();
        self.0.ended.notify_waiters();
    }
}

impl Progress {
    /// Waits until the relay has it, or it has an outcome without that: `None`. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if that will not be known.
    pub(super) async fn accepted(&self) -> Result<Option<Accepted>, Closed> {
        let over = |known: &Known| known.outcome.is_some().then_some(None);
        self.wait_for(&self.0.accepted, |known| known.accepted.map(Some).or_else(|| over(known))).await
    }

    /// Waits for its outcome. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if it will not be known.
    pub(super) async fn outcome(&self) -> Result<Outcome, Closed> {
        self.wait_for(&self.0.ended, |known| known.outcome.clone()).await
    }

    async fn wait_for<T>(&self, told: &Notify, look: impl Fn(&Known) -> Option<T>) -> Result<T, Closed> {
        let look = || {
            let known = self.0.lock();
            look(&known).map(Ok).or(known.closed.then_some(Err(Closed)))
        };
        loop {
            // Mostly it is there already, or comes once.
            if let Some(found) = look() {
                return found;
            }
            let mut told = pin!(told.notified());
            told.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            told.await;
        }
    }
}
