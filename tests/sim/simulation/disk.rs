//! A disk behind a volatile cache, which fails and loses power where the plan says so.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::DiskRoom;
use redb::StorageBackend;

use super::chance::Chance;
use super::life::Life;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What a disk may tear in the middle: a write of more than this many bytes may be there in parts.
const SECTOR: usize = 512;

/// The room on a disk that is not full.
const ROOMY: u64 = 1 << 40;

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

#[derive(Debug)]
struct State {
    chance: Chance,
    /// What is safe.
    platter: Vec<u8>,
    /// What is read.
    cache: Vec<u8>,
    unsynced: Vec<Unsynced>,
    faults: Faults,
    capacity: Option<u64>,
    opened_by: Option<Life>,
    /// Faults that were met.
    met: u64,
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
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

impl State {
    fn persist(&mut self, operation: Unsynced) {
        match operation {
            Unsynced::Write(offset, data) => put(&mut self.platter, offset, &data),
            Unsynced::SetLen(len) => self.platter.resize(len, 0),
        }
    }

    fn lose(&mut self, loss: Loss) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let share = self.chance.below(100);
        let kept = match loss {
            Loss::All => 0,
            Loss::Tail => self.chance.index(unsynced.len() + 1),
            Loss::Sectors | Loss::Nothing => unsynced.len(),
        };
        for operation in unsynced.into_iter().take(kept) {
            match operation {
                Unsynced::Write(offset, data) if loss == Loss::Sectors => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((offset + from) / SECTOR + 1) * SECTOR - offset).min(data.len());
                        if self.chance.percent(share) {
                            put(&mut self.platter, offset + from, &data[from..to]);
                        }
                        from = to;
                    }
                }
                Unsynced::SetLen(_) if loss == Loss::Sectors && !self.chance.percent(share) => {}
                operation => self.persist(operation),
            }
        }
    }

    fn fits(&self, end: u64) -> bool {
        end <= self.cache.len() as u64 || self.capacity.is_none_or(|capacity| end <= capacity)
    }
}

impl Disk {
    pub(crate) fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance,
            platter: Vec::new(),
            cache: Vec::new(),
            unsynced: Vec::new(),
            faults: Faults::default(),
            capacity: None,
            opened_by: None,
            met: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A store's backend on this disk, for one life of its process.
    pub(crate) fn backend(&self, life: &Life) -> Backend {
        let (disk, life) = (self.clone(), life.clone());
        Backend::Custom(Arc::new(move || Ok(Box::new(disk.open(&life)?))))
    }

    /// Opens it. A second database on it would destroy it, so that may not be.
    pub(crate) fn open(&self, life: &Life) -> io::Result<Medium> {
        let mut state = self.state();
        if life.is_over() {
            return Err(error(EIO));
        }
        assert!(state.opened_by.as_ref().is_none_or(Life::is_over), "two databases on one disk");
        state.opened_by = Some(life.clone());
        Ok(Medium { disk: self.clone(), life: life.clone() })
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.capacity = faults.room.map(|room| state.cache.len() as u64 + room);
        state.faults = faults;
    }

    /// How many faults were met.
    pub(crate) fn met(&self) -> u64 {
        self.state().met
    }

    /// What the operating system says about the room on it.
    pub(crate) fn room(&self) -> DiskRoom {
        let state = self.state();
        let file = state.cache.len() as u64;
        DiskRoom { free: state.capacity.map_or(ROOMY, |capacity| capacity.saturating_sub(file)), file }
    }

    /// Its process is dead: what was not synced is lost, or not, and with a new life it may be opened again.
    pub(crate) fn settle(&self, loss: Loss) {
        let mut state = self.state();
        state.lose(loss);
        state.cache = state.platter.clone();
        state.opened_by = None;
        state.faults = Faults { room: state.faults.room, ..Faults::default() };
    }

    /// Bytes that it takes in the memory of this machine.
    pub(crate) fn held(&self) -> usize {
        let state = self.state();
        let unsynced = state.unsynced.iter().map(|operation| match operation {
            Unsynced::Write(_, data) => data.capacity(),
            Unsynced::SetLen(_) => 0,
        });
        state.platter.capacity() + state.cache.capacity() + unsynced.sum::<usize>()
    }

    /// What is safe on it.
    pub(crate) fn copy(&self) -> Vec<u8> {
        self.state().platter.clone()
    }

    /// Puts a copy in its place. Its process must be dead.
    pub(crate) fn put_back(&self, copy: Vec<u8>) {
        let mut state = self.state();
        state.cache.clone_from(&copy);
        state.platter = copy;
        state.unsynced.clear();
    }
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Medium {
    disk: Disk,
    life: Life,
}

impl Medium {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.life.is_over() { Err(error(EIO)) } else { Ok(self.disk.state()) }
    }

    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        if due(&mut state.faults.power_after) {
            state.met += 1;
            self.life.end();
            return Err(error(EIO));
        }
        Ok(state)
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        if due(&mut state.faults.read_after) {
            state.met += 1;
            return Err(error(EIO));
        }
        let offset = usize::try_from(offset).unwrap();
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        out.copy_from_slice(state.cache.get(offset..offset + out.len()).ok_or(end)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        if !state.fits(len) {
            state.met += 1;
            return Err(error(ENOSPC));
        }
        let len = usize::try_from(len).unwrap();
        state.cache.resize(len, 0);
        state.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.writing()?;
        let failing = due(&mut state.faults.sync_after);
        for operation in std::mem::take(&mut state.unsynced) {
            if !failing || state.chance.percent(50) {
                state.persist(operation);
            }
        }
        if failing {
            state.met += 1;
            return Err(error(EIO));
        }
        // The power may fail when all is safe and nobody has been told yet.
        if state.faults.power_after == Some(0) {
            state.faults.power_after = None;
            state.met += 1;
            self.life.end();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.writing()?;
        if due(&mut state.faults.write_after) {
            state.met += 1;
            return Err(error(EIO));
        }
        if !state.fits(offset + data.len() as u64) {
            state.met += 1;
            return Err(error(ENOSPC));
        }
        let offset = usize::try_from(offset).unwrap();
        put(&mut state.cache, offset, data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        if !self.life.is_over() {
            self.disk.state().opened_by = None;
        }
        Ok(())
    }
}
