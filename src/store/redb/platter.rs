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
    /// What is safe.
    pub(crate) safe: Vec<u8>,
    /// What is read.
    cache: Vec<u8>,
    unsynced: Vec<Unsynced>,
    faults: Faults,
    /// How long it may become.
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
        Self {
            dice,
            safe: Vec::new(),
            cache: Vec::new(),
            unsynced: Vec::new(),
            faults: Faults::default(),
            capacity: None,
            on: true,
        }
    }

    /// Bytes that it takes in the memory of this machine.
    pub(crate) fn held(&self) -> usize {
        let unsynced = self.unsynced.iter().map(|operation| match operation {
            Unsynced::Write(_, data) => data.capacity(),
            Unsynced::SetLen(_) => 0,
        });
        self.safe.capacity() + self.cache.capacity() + unsynced.sum::<usize>()
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.capacity = faults.room.map(|room| self.len() + room);
        self.faults = faults;
    }

    /// The power is back: what was not synced is lost, or not.
    pub(crate) fn lose(&mut self, loss: Loss) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let share = (self.dice)(100);
        let kept = match loss {
            Loss::All => 0,
            Loss::Tail => usize::try_from((self.dice)(unsynced.len() as u64 + 1)).unwrap(),
            Loss::Sectors | Loss::Nothing => unsynced.len(),
        };
        for operation in unsynced.into_iter().take(kept) {
            match operation {
                Unsynced::Write(offset, data) if loss == Loss::Sectors => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((offset + from) / SECTOR + 1) * SECTOR - offset).min(data.len());
                        if (self.dice)(100) < share {
                            put(&mut self.safe, offset + from, &data[from..to]);
                        }
                        from = to;
                    }
                }
                Unsynced::SetLen(_) if loss == Loss::Sectors && (self.dice)(100) >= share => {}
                operation => self.persist(operation),
            }
        }
        self.cache.clone_from(&self.safe);
        // A full disk is full still.
        self.faults = Faults { room: self.faults.room, ..Faults::default() };
        self.on = true;
    }

    /// Puts other bytes in the place of those that are there.
    pub(crate) fn put_back(&mut self, bytes: Vec<u8>) {
        self.cache.clone_from(&bytes);
        self.safe = bytes;
        self.unsynced.clear();
    }

    pub(crate) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(crate) fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.on || due(&mut self.faults.read_after) {
            return Err(eio());
        }
        let offset = usize::try_from(offset).unwrap();
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        out.copy_from_slice(self.cache.get(offset..offset + out.len()).ok_or(end)?);
        Ok(())
    }

    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change()?;
        self.fit(len)?;
        let len = usize::try_from(len).unwrap();
        self.cache.resize(len, 0);
        self.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        if due(&mut self.faults.write_after) {
            return Err(eio());
        }
        self.fit(offset + data.len() as u64)?;
        let offset = usize::try_from(offset).unwrap();
        put(&mut self.cache, offset, data);
        self.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.change()?;
        let failing = due(&mut self.faults.sync_after);
        for operation in std::mem::take(&mut self.unsynced) {
            if !failing || (self.dice)(100) < 50 {
                self.persist(operation);
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

    fn fit(&self, end: u64) -> io::Result<()> {
        if end <= self.len() || self.capacity.is_none_or(|capacity| end <= capacity) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(ENOSPC))
    }

    fn persist(&mut self, operation: Unsynced) {
        match operation {
            Unsynced::Write(offset, data) => put(&mut self.safe, offset, &data),
            Unsynced::SetLen(len) => self.safe.resize(len, 0),
        }
    }
}
