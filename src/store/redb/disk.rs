//! A disk for tests: a platter behind a volatile cache, that fails and loses power where a test says so.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::backend::Backend;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// What of the unsynced writes a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing.
    All,
    /// Some of them, in order.
    Prefix,
    /// Any sectors of any of them.
    Sectors,
    /// Everything: the process was killed, the machine goes on.
    None,
}

/// What goes wrong, counted from the moment it is set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// This many reads succeed, and then one fails.
    pub(crate) read_after: Option<u64>,
    /// This many writes succeed, and then one fails.
    pub(crate) write_after: Option<u64>,
    /// The next sync fails, and part of what it should have synced is lost for good.
    pub(crate) sync: bool,
    /// Bytes the disk has.
    pub(crate) capacity: Option<u64>,
    /// This many writing operations succeed, and then the power fails.
    pub(crate) power_after: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    platter: Vec<u8>,
    cache: Vec<u8>,
    unsynced: Vec<Unsynced>,
    faults: Faults,
    random: u64,
    operations: u64,
    syncs: u64,
    off: bool,
    life: u64,
    open: bool,
}

/// The disk.
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

impl State {
    fn chance(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn persist(&mut self, operation: Unsynced) {
        match operation {
            Unsynced::Write(offset, data) => put(&mut self.platter, offset, &data),
            Unsynced::SetLen(len) => self.platter.resize(len, 0),
        }
    }
}

/// True once, when the count has run out.
fn due(after: &mut Option<u64>) -> bool {
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

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A store's backend on this disk.
    pub(crate) fn backend(&self) -> Backend {
        let disk = self.clone();
        Backend::Custom(Arc::new(move || {
            let mut state = disk.state();
            if state.off {
                return Err(error(EIO));
            }
            assert!(!state.open, "two databases on one disk");
            state.open = true;
            Ok(Box::new(Medium { disk: disk.clone(), life: state.life }))
        }))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Writing operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(crate) fn len(&self) -> u64 {
        self.state().cache.len() as u64
    }

    /// The power fails now. To be called before the store is dropped, which would close it well.
    pub(crate) fn power_off(&self) {
        self.state().off = true;
    }

    /// The power is back.
    pub(crate) fn power_on(&self, loss: Loss) {
        let mut state = self.state();
        let unsynced = std::mem::take(&mut state.unsynced);
        let share = state.chance() % 100;
        let kept = match loss {
            Loss::All => 0,
            Loss::Prefix => usize::try_from(state.chance()).unwrap() % (unsynced.len() + 1),
            Loss::Sectors | Loss::None => unsynced.len(),
        };
        for operation in unsynced.into_iter().take(kept) {
            match operation {
                Unsynced::Write(offset, data) if loss == Loss::Sectors => {
                    let mut from = 0;
                    while from < data.len() {
                        let to = (((offset + from) / 512 + 1) * 512 - offset).min(data.len());
                        if state.chance() % 100 < share {
                            state.persist(Unsynced::Write(offset + from, data[from..to].to_vec()));
                        }
                        from = to;
                    }
                }
                Unsynced::SetLen(_) if loss == Loss::Sectors && state.chance() % 100 >= share => {}
                operation => state.persist(operation),
            }
        }
        state.cache = state.platter.clone();
        state.off = false;
        state.open = false;
        state.life += 1;
        state.faults = Faults::default();
    }
}

#[derive(Debug)]
struct Medium {
    disk: Disk,
    life: u64,
}

impl Medium {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.off || state.life != self.life { Err(error(EIO)) } else { Ok(state) }
    }

    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        state.operations += 1;
        if due(&mut state.faults.power_after) {
            state.off = true;
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
            return Err(error(EIO));
        }
        let offset = usize::try_from(offset).unwrap();
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        out.copy_from_slice(state.cache.get(offset..offset + out.len()).ok_or(end)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        if state.faults.capacity.is_some_and(|capacity| len > capacity) {
            return Err(error(ENOSPC));
        }
        let len = usize::try_from(len).unwrap();
        state.cache.resize(len, 0);
        state.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.writing()?;
        state.syncs += 1;
        let failing = std::mem::take(&mut state.faults.sync);
        for operation in std::mem::take(&mut state.unsynced) {
            if !failing || state.chance().is_multiple_of(2) {
                state.persist(operation);
            }
        }
        if failing { Err(error(EIO)) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.writing()?;
        if due(&mut state.faults.write_after) {
            return Err(error(EIO));
        }
        if state.faults.capacity.is_some_and(|capacity| offset + data.len() as u64 > capacity) {
            return Err(error(ENOSPC));
        }
        let offset = usize::try_from(offset).unwrap();
        put(&mut state.cache, offset, data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.open = false;
        }
        Ok(())
    }
}
