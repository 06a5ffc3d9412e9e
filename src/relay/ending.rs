//! Why a relay ends, once it does, and who waits for that.
//!
//! Everybody is woken in the order of waiting. tokio's `watch` draws lots, and no run of a simulation would be like
//! another.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::store::StoreError;

/// Why a relay ends.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    Asked,
    Broken(StoreError),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct End {
    why: Mutex<Option<Ending>>,
    news: Notify,
}

impl End {
    /// It ends. A broken store is worse news than a wish, and the first of each kind counts.
    pub(super) fn set(&self, ending: Ending) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!((&*why, &ending), (None, _) | (Some(Ending::Asked), Ending::Broken(_))) {
            *why = Some(ending);
            self.news.notify_waiters();
        }
    }

    /// Waits until it ends for a reason that is looked for.
    ///
    /// Cancel-safe.
    pub(super) async fn wait_for<T>(&self, look: impl Fn(&Ending) -> Option<T>) -> T {
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            if let Some(found) = self.why.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(&look) {
                return found;
            }
            news.await;
        }
    }
}
