//! What every host has, whatever runs on it: a disk and perhaps a copy of it, a clock, and a way to be struck.

use std::sync::Mutex;

use super::chance::Chance;
use super::date::WallClock;
use super::disk::Disk;
use super::life::Fuse;

/// See the head of this file.
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) clock: WallClock,
    pub(crate) fuse: Fuse,
    copy: Mutex<Option<Vec<u8>>>,
}

impl Machine {
    pub(crate) fn new(chance: Chance, clock_off_ms: i64) -> Self {
        let (clock, fuse) = (WallClock::new(clock_off_ms), Fuse::default());
        Self { disk: Disk::new(chance), clock, fuse, copy: Mutex::default() }
    }

    /// Copies what is safe on the disk.
    pub(crate) fn back_up(&self) {
        *self.copy.lock().unwrap() = Some(self.disk.copy());
    }

    /// The latest copy.
    pub(crate) fn backup(&self) -> Option<Vec<u8>> {
        self.copy.lock().unwrap().clone()
    }

    /// Bytes that its disk and the copy of it take in the memory of the real one.
    pub(crate) fn held(&self) -> usize {
        self.disk.held() + self.copy.lock().unwrap().as_ref().map_or(0, Vec::capacity)
    }
}
