//! Clocks: one for each host, which may be wrong, and may be set anew while its processes run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use posthouse::time::{Clock, Moment, SharedClock, SystemClock, UnixMillis, millis};
use tokio::time::Instant;

/// When every run begins: 2027-01-15.
const BEGINNING: u64 = 1_800_000_000_000;

/// A host's wall clock. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct WallClock {
    origin: Instant,
    /// How far it is from the truth, ms.
    off: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn new(off_ms: i64) -> Self {
        Self { origin: Instant::now(), off: Arc::new(AtomicI64::new(off_ms)) }
    }

    /// Somebody sets it.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.off.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// The clock of a process that starts now.
    pub(crate) fn process(&self) -> SharedClock {
        Arc::new(ProcessClock { steady: SystemClock::shared(), wall: self.clone() })
    }
}

#[derive(Debug)]
struct ProcessClock {
    /// Follows tokio's clock, which is the simulation's.
    steady: SharedClock,
    wall: WallClock,
}

impl Clock for ProcessClock {
    fn now(&self) -> Moment {
        self.steady.now()
    }

    fn date(&self) -> UnixMillis {
        let truth = BEGINNING + millis(self.wall.origin.elapsed());
        UnixMillis(truth.saturating_add_signed(self.wall.off.load(Ordering::SeqCst)))
    }
}
