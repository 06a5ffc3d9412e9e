//! One life of a process: from its start until it is dead, whoever kills it.
//!
//! A task cannot be stopped from outside in the middle of what it does. So the dead are cut off instead: from that
//! moment their sockets and their disk do nothing any more, and what is left of them ends by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::disk::Loss;

/// Clones are the same life.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    dead: AtomicBool,
    asked: AtomicBool,
    notify: Notify,
    asking: Notify,
}

impl Life {
    pub(crate) fn is_over(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// Ends it, at once.
    pub(crate) fn end(&self) {
        self.0.dead.store(true, Ordering::SeqCst);
        self.0.notify.notify_one();
    }

    /// Asks it to end by itself.
    pub(crate) fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.asking.notify_one();
    }

    /// Waits until it is asked to end. For one that waits.
    pub(crate) async fn asked(&self) {
        while !self.0.asked.load(Ordering::SeqCst) {
            self.0.asking.notified().await;
        }
    }

    /// Waits for its end. For one that waits.
    pub(crate) async fn ended(&self) {
        while !self.is_over() {
            self.0.notify.notified().await;
        }
    }
}

/// How a process ends, and what happens before its next life.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    /// It may say goodbye first.
    pub(crate) polite: bool,
    /// What its disk loses.
    pub(crate) loss: Loss,
    /// How long it is away.
    pub(crate) down: Duration,
    /// What becomes of its disk meanwhile.
    pub(crate) swap: Swap,
}

/// What becomes of a disk while its process is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// It stays.
    No,
    /// An older backup is restored, as an operator would.
    Restore,
    /// An older copy is put back as it is.
    PutBack,
    /// It is a new one.
    Empty,
}

/// The switchboard between the world and one host.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    life: Mutex<Option<Life>>,
    strike: Mutex<Option<Strike>>,
}

impl Fuse {
    /// A life begins.
    pub(crate) fn begin(&self) -> Life {
        let life = Life::default();
        *self.life.lock().unwrap() = Some(life.clone());
        life
    }

    /// Ends the life there is; if there is none, this is how the next one is prepared.
    pub(crate) fn strike(&self, strike: Strike) {
        let polite = strike.polite;
        *self.strike.lock().unwrap() = Some(strike);
        if let Some(life) = &*self.life.lock().unwrap() {
            if polite { life.ask() } else { life.end() }
        }
    }

    /// What was ordered, if anything was.
    pub(crate) fn take(&self) -> Option<Strike> {
        self.strike.lock().unwrap().take()
    }
}
