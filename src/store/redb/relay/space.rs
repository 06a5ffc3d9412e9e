//! Whether there is room for new messages: on a full disk not even a removal could be committed.
//!
//! The store file hardly ever shrinks. What removals free in it is used again, but the disk does not get it back.
//! So where the disk is short, the pages that are free inside the file count as room too. To find them all of the file
//! is read, beside the writer; until the next look, what is written is taken off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use redb::{ReadTransaction, ReadableTableMetadata};

use super::super::engine::Beside;
use super::super::fault::Fault;

use crate::store::StoreError;
use crate::time::{Moment, SharedClock};

/// Between two looks pass so many times as long as one takes, and no less than a second.
const LOOK_SHARE: u32 = 50;
const LOOK_LEAST: Duration = Duration::from_secs(1);
/// While less is free than so many times the length of the journal, nothing is left to it: what it holds has to find room
/// in the tables, whose pages it may touch in many places.
const JOURNALS: u64 = 4;
/// What a message takes beside its own bytes; this and those count twice, for pages are not filled, and are copied
/// when they are written.
const ROW_BYTES: u64 = 512;

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
    /// See [`DiskRoom::free`].
    fn free(&self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::File(path) => {
                let disk = rustix::fs::statvfs(path).ok()?;
                Some(disk.f_bavail.saturating_mul(disk.f_frsize))
            }
            Self::Custom(ask) => ask().map(|room| room.free),
        }
    }

    /// See [`DiskRoom::file`]. Asked only where it counts: after a stat(2) Linux gives the file's next change a time
    /// of its own, and so the next sync writes the inode as well, which makes a small commit take a quarter longer.
    fn file(&self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::File(path) => {
                // In units of 512 bytes.
                let blocks = rustix::fs::stat(path).ok()?.st_blocks;
                Some(u64::try_from(blocks).unwrap_or(0).saturating_mul(512))
            }
            Self::Custom(ask) => ask().map(|room| room.file),
        }
    }
}

/// A look into the file that is under way.
#[derive(Debug)]
struct Look {
    /// How large the file was when it began.
    file: u64,
    /// What had been written until then.
    written: u64,
    /// Writing failed since.
    void: bool,
    /// Bytes that the tables take, and how long it took to find out.
    found: Receiver<(u64, Duration)>,
}

/// What the last look found.
#[derive(Debug, Clone, Copy)]
struct Inside {
    /// Bytes in free pages.
    free: u64,
    file: u64,
    written: u64,
}

impl Inside {
    /// What is left of the free pages. Once the file is larger, they are used up, or of no use.
    const fn left(&self, file: u64, written: u64) -> u64 {
        if file > self.file { 0 } else { self.free.saturating_sub(written.saturating_sub(self.written)) }
    }
}

/// A watch over it.
#[derive(Debug)]
pub(super) struct SpaceWatch {
    space: FreeSpace,
    clock: SharedClock,
    looking: Option<Look>,
    inside: Option<Inside>,
    /// When to look into the file again at the earliest.
    next: Option<Moment>,
    /// The size of the file, if it is to be looked into.
    wanted: Option<u64>,
    /// What messages took in this opening, rather too much.
    written: u64,
    room: u64,
    least: u64,
    /// Of the disk, as it was when the group at work began.
    free: u64,
    told: bool,
}

impl SpaceWatch {
    pub(super) fn new(space: FreeSpace, clock: SharedClock) -> Self {
        Self {
            space,
            clock,
            looking: None,
            inside: None,
            next: None,
            wanted: None,
            written: 0,
            room: u64::MAX,
            least: 0,
            free: u64::MAX,
            told: true,
        }
    }

    /// Whether there is enough after all that was written.
    pub(super) const fn is_enough(&self) -> bool {
        self.room >= self.least
    }

    /// Whether there may be no room for what a journal of this length holds, whatever there is inside the file.
    pub(super) const fn is_short(&self, journal_bytes: u64) -> bool {
        self.free < self.least || self.free < journal_bytes.saturating_mul(JOURNALS)
    }

    /// Notes that a message of so many bytes is written.
    pub(super) const fn wrote(&mut self, bytes: u64) {
        let taken = bytes.saturating_add(ROW_BYTES).saturating_mul(2);
        self.written = self.written.saturating_add(taken);
        self.room = self.room.saturating_sub(taken);
    }

    /// Writing failed: what was found in the file was no use.
    pub(super) fn forget(&mut self) {
        self.inside = None;
        if let Some(look) = &mut self.looking {
            look.void = true;
        }
    }

    /// Finds out whether so many bytes are free. Where nobody knows, they are.
    pub(super) fn measure(&mut self, least: u64) {
        self.take_found();
        (self.least, self.wanted) = (least, None);
        let Some(free_bytes) = self.space.free() else {
            (self.room, self.free) = (u64::MAX, u64::MAX);
            return;
        };
        (self.room, self.free) = (free_bytes, free_bytes);
        if free_bytes < least
            && let Some(file) = self.space.file()
        {
            let left = self.inside.map_or(0, |inside| inside.left(file, self.written));
            self.room = free_bytes.saturating_add(left);
            // While less than half of what was found to spare is used, there is nothing to find out.
            let lacking = least - free_bytes;
            let found = self.inside.map_or(0, |inside| inside.free.saturating_sub(lacking));
            if left.saturating_sub(lacking) <= found / 2 {
                self.wanted = Some(file);
            }
        }
        if self.told && !self.is_enough() {
            tracing::warn!(free_bytes, min_free_bytes = least, "the disk is nearly full: new messages wait (no_room)");
        } else if !self.told && self.is_enough() {
            tracing::info!(room_bytes = self.room, min_free_bytes = least, "there is room again for new messages");
        }
        self.told = self.is_enough();
    }

    /// A look into the file, if one is due: to be done while the writer goes on.
    pub(super) fn look(&mut self) -> Option<Box<Beside>> {
        let begun = self.clock.now();
        if self.looking.is_some() || self.next.is_some_and(|next| begun < next) {
            return None;
        }
        let (tell, found) = channel();
        self.looking = Some(Look { file: self.wanted.take()?, written: self.written, void: false, found });
        let clock = self.clock.clone();
        Some(Box::new(move |transaction| {
            let used = used_bytes(transaction)?;
            tell.send((used, clock.now().since(begun))).map_err(|_| Fault::Refused(StoreError::Closed))
        }))
    }

    fn take_found(&mut self) {
        let Some(look) = &self.looking else { return };
        let rest = match look.found.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => LOOK_LEAST,
            Ok((used, took)) => {
                let (file, written) = (look.file, look.written);
                let inside = Inside { free: file.saturating_sub(used), file, written };
                self.inside = (!look.void).then_some(inside);
                (took * LOOK_SHARE).max(LOOK_LEAST)
            }
        };
        self.next = Some(self.clock.now() + rest);
        self.looking = None;
    }
}

/// What the tables take in the file.
fn used_bytes(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let mut used = 0_u64;
    for table in transaction.list_tables()? {
        let stats = transaction.open_untyped_table(table)?.stats()?;
        let pages = stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        used = used.saturating_add(pages);
    }
    Ok(used)
}
