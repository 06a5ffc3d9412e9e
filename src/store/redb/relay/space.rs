//! Whether the disk has room for new messages: on a full one not even a removal could be committed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::time::{Moment, SharedClock};

/// How old an answer of the file system may be. Shorter costs a system call more often; longer lets more be
/// written between two looks.
const MAX_AGE: Duration = Duration::from_millis(100);

/// How free space is found out.
#[derive(Clone, Default)]
pub enum FreeSpace {
    /// It is not: for memory and simulated disks.
    #[default]
    Unlimited,
    /// By asking the file system of this directory (statvfs).
    Directory(PathBuf),
    /// By asking this; `None` where it is not known.
    Custom(Arc<dyn Fn() -> Option<u64> + Send + Sync>),
}

impl std::fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("Unlimited"),
            Self::Directory(path) => write!(f, "Directory({})", path.display()),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl FreeSpace {
    /// Bytes that may still be written; `None` where it is not known.
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Directory(path) => {
                let room = rustix::fs::statvfs(path).ok()?;
                Some(room.f_bavail.saturating_mul(room.f_frsize))
            }
            Self::Custom(ask) => ask(),
        }
    }
}

/// A watch over it.
#[derive(Debug)]
pub(super) struct SpaceWatch {
    space: FreeSpace,
    asked: Option<(Moment, u64)>,
}

impl SpaceWatch {
    pub(super) const fn new(space: FreeSpace) -> Self {
        Self { space, asked: None }
    }

    /// Whether so many bytes are free. Where nobody knows, they are.
    pub(super) fn has(&mut self, bytes: u64, clock: &SharedClock) -> bool {
        let now = clock.now();
        let fresh = self.asked.filter(|(asked, _)| now.since(*asked) < MAX_AGE);
        let (_, free) = *self.asked.insert(fresh.unwrap_or_else(|| (now, self.space.bytes().unwrap_or(u64::MAX))));
        free >= bytes
    }
}
