//! Whether there is room for new messages: on a full disk not even a removal could be committed.
//!
//! The store file hardly ever shrinks. What removals free in it is used again, but the disk does not get it back.
//! So where the disk is short, the pages that are free inside the file count as room too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::WriteTransaction;

use super::super::fault::Fault;
use crate::time::{Moment, SharedClock};

/// Looking into the file reads all of it. Between two looks pass so many times as long as one takes, and no less
/// than a second.
const LOOK_SHARE: u32 = 50;
const LOOK_LEAST: Duration = Duration::from_secs(1);

/// What a disk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that anybody may still write.
    pub free: u64,
    /// Bytes that the store file takes up.
    pub file: u64,
}

/// How free space is found out.
#[derive(Clone, Default)]
pub enum FreeSpace {
    /// It is not: for memory and simulated disks.
    #[default]
    Unlimited,
    /// By asking the file system that this store file lies on (statvfs).
    File(PathBuf),
    /// By asking this; `None` where it is not known.
    Custom(Arc<dyn Fn() -> Option<DiskRoom> + Send + Sync>),
}

impl std::fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("Unlimited"),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl FreeSpace {
    fn ask(&self) -> Option<DiskRoom> {
        match self {
            Self::Unlimited => None,
            Self::File(path) => ask_file_system(path).ok(),
            Self::Custom(ask) => ask(),
        }
    }
}

fn ask_file_system(path: &Path) -> rustix::io::Result<DiskRoom> {
    let disk = rustix::fs::statvfs(path)?;
    let file = rustix::fs::stat(path)?;
    // Blocks of a file are counted in units of 512 bytes (stat(2)).
    let blocks = u64::try_from(file.st_blocks).unwrap_or(0);
    Ok(DiskRoom { free: disk.f_bavail.saturating_mul(disk.f_frsize), file: blocks.saturating_mul(512) })
}

/// A look into the file.
#[derive(Debug, Clone, Copy)]
struct Inside {
    /// Bytes in free pages.
    free: u64,
    /// How large the file was. Once it is larger, those pages are used up.
    file: u64,
    /// When to look again at the earliest.
    next: Moment,
}

/// A watch over it.
#[derive(Debug)]
pub(super) struct SpaceWatch {
    space: FreeSpace,
    inside: Option<Inside>,
    enough: bool,
}

impl SpaceWatch {
    pub(super) const fn new(space: FreeSpace) -> Self {
        Self { space, inside: None, enough: true }
    }

    /// Whether there was enough at the last look.
    pub(super) const fn is_enough(&self) -> bool {
        self.enough
    }

    /// Looks whether so many bytes are free. Where nobody knows, they are.
    pub(super) fn look(
        &mut self,
        least: u64,
        clock: &SharedClock,
        transaction: &WriteTransaction,
    ) -> Result<(), Fault> {
        let Some(disk) = self.space.ask() else {
            self.enough = true;
            return Ok(());
        };
        let mut room = disk.free;
        if room < least {
            room = room.saturating_add(self.free_inside(disk, clock, transaction)?);
        }
        let enough = room >= least;
        if self.enough && !enough {
            let free_bytes = disk.free;
            tracing::warn!(free_bytes, min_free_bytes = least, "the disk is nearly full: new messages wait (no_room)");
        } else if enough && !self.enough {
            tracing::info!(room_bytes = room, min_free_bytes = least, "there is room again for new messages");
        }
        self.enough = enough;
        Ok(())
    }

    fn free_inside(
        &mut self,
        disk: DiskRoom,
        clock: &SharedClock,
        transaction: &WriteTransaction,
    ) -> Result<u64, Fault> {
        let begun = clock.now();
        let inside = match self.inside {
            Some(inside) if begun < inside.next => inside,
            _ => {
                let stats = transaction.stats()?;
                let used = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
                let rest = (clock.now().since(begun) * LOOK_SHARE).max(LOOK_LEAST);
                let free = disk.file.saturating_sub(used);
                *self.inside.insert(Inside { free, file: disk.file, next: clock.now() + rest })
            }
        };
        Ok(if disk.file > inside.file { 0 } else { inside.free })
    }
}
