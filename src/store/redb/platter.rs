//! The bytes of a disk for tests: what is safe, the cache before it, what fails, and what a power cut leaves.
//!
//! The tests beside this file and the simulation of whole nodes share it. Whose disk it is, and who may have it open,
//! each of them says for itself.

use std::fmt;
use std::io;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What a disk may tear in the middle: a write of more than this many bytes may be there in parts.
const SECTOR: usize = 512;

/// Chance: a number below the one given.
pub(crate) type Dice = Box<dyn FnMut(u64) -> u64 + Send>;

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// The files of a store: its tables, and its journal.
pub(crate) const TABLES: usize = 0;
pub(crate) const JOURNAL: usize = 1;

/// One file: what of it is safe, what is read, and what leads from the one to the other.
#[derive(Default)]
struct Content {
    safe: Vec<u8>,
    cache: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl Content {
    fn persist(&mut self, operation: Unsynced) {
        match operation {
            Unsynced::Write(offset, data) => put(&mut self.safe, offset, &data),
            Unsynced::SetLen(len) => self.safe.resize(len, 0),
        }
    }

    /// The power was cut.
    fn lose(&mut self, loss: Loss, dice: &mut Dice) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let share = dice(100);
        let kept = match loss {
            Loss::All => 0,
            Loss::Tail => usize::try_from(dice(unsynced.len() as u64 + 1)).unwrap(),
            Loss::Sectors | Loss::Nothing => unsynced.len(),
        };
        for operation in unsynced.into_iter().take(kept) {
            match operation {
                Unsynced::Write(offset, data) if loss == Loss::Sectors => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((offset + from) / SECTOR + 1) * SECTOR - offset).min(data.len());
                        if dice(100) < share {
                            put(&mut self.safe, offset + from, &data[from..to]);
                        }
                        from = to;
                    }
                }
                Unsynced::SetLen(_) if loss == Loss::Sectors && dice(100) >= share => {}
                operation => self.persist(operation),
            }
        }
        self.cache.clone_from(&self.safe);
    }

    fn held(&self) -> usize {
        let unsynced = self.unsynced.iter().map(|operation| match operation {
            Unsynced::Write(_, data) => data.capacity(),
            Unsynced::SetLen(_) => 0,
        });
        self.safe.capacity() + self.cache.capacity() + unsynced.sum::<usize>()
    }
}

/// What of the unsynced writes is lost with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of them.
    All,
    /// The last ones.
    Tail,
    /// Any sectors of any of them.
    Sectors,
    /// Nothing: the process was killed, the machine goes on.
    Nothing,
}

/// What goes wrong, counted from the moment it is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// This many reads succeed, and then one fails.
    pub(crate) read_after: Option<u64>,
    /// This many writes succeed, and then one fails.
    pub(crate) write_after: Option<u64>,
    /// This many syncs succeed, then one fails, and part of what it should have synced is lost for good.
    pub(crate) sync_after: Option<u64>,
    /// This many writing operations succeed, and then the power fails.
    pub(crate) power_after: Option<u64>,
    /// Bytes that may still be added.
    pub(crate) room: Option<u64>,
}

/// See the head of this file.
pub(crate) struct Platter {
    dice: Dice,
    files: [Content; 2],
    faults: Faults,
    /// How long its files may become together.
    pub(crate) capacity: Option<u64>,
    /// Whether it has power. Without it nothing works.
    pub(crate) on: bool,
}

impl fmt::Debug for Platter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, on, .. } = self;
        f.debug_struct("Platter")
            .field("bytes", &self.held())
            .field("faults", faults)
            .field("on", on)
            .finish_non_exhaustive()
    }
}

/// What the operating system says when a disk does not work.
pub(crate) fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

/// True once, when the count has run out.
const fn due(after: &mut Option<u64>) -> bool {
    match after {
        Some(0) => {
            *after = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl Platter {
    /// An empty one.
    pub(crate) fn new(dice: Dice) -> Self {
        Self { dice, files: Default::default(), faults: Faults::default(), capacity: None, on: true }
    }

    /// Bytes that it takes in the memory of this machine.
    pub(crate) fn held(&self) -> usize {
        self.files.iter().map(Content::held).sum()
    }

    /// What is safe of a file.
    pub(crate) fn safe(&self, file: usize) -> &[u8] {
        &self.files[file].safe
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.capacity = faults.room.map(|room| self.used() + room);
        self.faults = faults;
    }

    /// The power is back: what was not synced is lost, or not.
    pub(crate) fn lose(&mut self, loss: Loss) {
        // A kill loses nothing, and makes nothing safer than it was.
        if loss != Loss::Nothing {
            self.files.iter_mut().for_each(|file| file.lose(loss, &mut self.dice));
        }
        // A full disk is full still.
        self.faults = Faults { room: self.faults.room, ..Faults::default() };
        self.on = true;
    }

    /// Puts other bytes in the place of a file's.
    pub(crate) fn put_back(&mut self, file: usize, bytes: Vec<u8>) {
        self.files[file] = Content { cache: bytes.clone(), safe: bytes, unsynced: Vec::new() };
    }

    pub(crate) fn len(&self, file: usize) -> u64 {
        self.files[file].cache.len() as u64
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        self.files.iter().map(|file| file.cache.len() as u64).sum()
    }

    pub(crate) fn read(&mut self, file: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.on || due(&mut self.faults.read_after) {
            return Err(eio());
        }
        let offset = usize::try_from(offset).unwrap();
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        out.copy_from_slice(self.files[file].cache.get(offset..offset + out.len()).ok_or(end)?);
        Ok(())
    }

    pub(crate) fn set_len(&mut self, file: usize, len: u64) -> io::Result<()> {
        self.change()?;
        self.fit(file, len)?;
        let len = usize::try_from(len).unwrap();
        self.files[file].cache.resize(len, 0);
        self.files[file].unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    pub(crate) fn write(&mut self, file: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        if due(&mut self.faults.write_after) {
            return Err(eio());
        }
        self.fit(file, offset + data.len() as u64)?;
        let offset = usize::try_from(offset).unwrap();
        put(&mut self.files[file].cache, offset, data);
        self.files[file].unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    pub(crate) fn sync(&mut self, file: usize) -> io::Result<()> {
        self.change()?;
        let failing = due(&mut self.faults.sync_after);
        let file = &mut self.files[file];
        for operation in std::mem::take(&mut file.unsynced) {
            if !failing || (self.dice)(100) < 50 {
                file.persist(operation);
            }
        }
        if failing {
            return Err(eio());
        }
        // The power may fail when all is safe and nobody has been told yet.
        self.on = self.faults.power_after != Some(0);
        Ok(())
    }

    /// Before everything that changes something.
    fn change(&mut self) -> io::Result<()> {
        self.on &= !due(&mut self.faults.power_after);
        if self.on { Ok(()) } else { Err(eio()) }
    }

    fn fit(&self, file: usize, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.len(file));
        if more == 0 || self.capacity.is_none_or(|capacity| self.used() + more <= capacity) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(ENOSPC))
    }
}
