//! A disk for the tests of the stores: it fails and loses power where a test says so, and can tell later what was on it
//! at any sync.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::backend::{Backend, Part};
pub(crate) use super::platter::{Faults, JOURNAL, Loss, TABLES};
use super::platter::{Platter, eio};

/// What was done to a disk, in order.
#[derive(Debug)]
enum Deed {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// What is on the files of a disk.
type Files = [Vec<u8>; 2];

#[derive(Debug)]
struct State {
    platter: Platter,
    operations: u64,
    syncs: u64,
    life: u64,
    open: [bool; 2],
    /// What was on it when the diary began, and what was done since, to which file.
    diary: Option<(Files, Vec<(usize, Deed)>)>,
}

/// The disk. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let dice = move |below| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
        };
        let platter = Platter::new(Box::new(dice));
        Self(Arc::new(Mutex::new(State { platter, operations: 0, syncs: 0, life: 0, open: [false; 2], diary: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A store's backend on this disk.
    pub(crate) fn backend(&self) -> Backend {
        let disk = self.clone();
        Backend::Custom(Arc::new(move |part| {
            Ok(Box::new(disk.medium(match part {
                Part::Tables => TABLES,
                Part::Journal => JOURNAL,
            })?))
        }))
    }

    /// Opens a file of it. A second database on it would destroy it, so that may not be.
    pub(crate) fn medium(&self, file: usize) -> io::Result<Medium> {
        let mut state = self.state();
        if !state.platter.on {
            return Err(eio());
        }
        assert!(!state.open[file], "two databases on one disk");
        state.open[file] = true;
        Ok(Medium { disk: self.clone(), life: state.life, file })
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().platter.set_faults(faults);
    }

    /// Writing operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(crate) fn len(&self) -> u64 {
        self.state().platter.used()
    }

    pub(crate) fn journal_len(&self) -> u64 {
        self.state().platter.len(JOURNAL)
    }

    /// The power fails now. To be called before the store is dropped, which would close it well.
    pub(crate) fn power_off(&self) {
        self.state().platter.on = false;
    }

    /// The power is back.
    pub(crate) fn power_on(&self, loss: Loss) {
        let mut state = self.state();
        state.platter.lose(loss);
        state.open = [false; 2];
        state.life += 1;
    }

    /// Counts syncs from here, and remembers everything that is done.
    pub(crate) fn keep_diary(&self) {
        let mut state = self.state();
        state.syncs = 0;
        state.diary = Some(([TABLES, JOURNAL].map(|file| state.platter.safe(file).to_vec()), Vec::new()));
    }

    /// Another disk, with what would be on this one if the power had failed at that sync since the diary began: the
    /// first is 1. Of what it would have synced, that much is lost.
    pub(crate) fn at_sync(&self, sync: u64, loss: Loss, seed: u64) -> Self {
        let found = Self::new(seed);
        let (state, mut other) = (self.state(), found.state());
        let (begin, deeds) = state.diary.as_ref().expect("a diary is kept");
        begin.iter().enumerate().for_each(|(file, bytes)| other.platter.put_back(file, bytes.clone()));
        let mut syncs = 0;
        for (file, deed) in deeds {
            let done = match deed {
                Deed::Write(offset, data) => other.platter.write(*file, *offset, data),
                Deed::SetLen(len) => other.platter.set_len(*file, *len),
                Deed::Sync => {
                    syncs += 1;
                    if syncs == sync {
                        break;
                    }
                    other.platter.sync(*file)
                }
            };
            done.unwrap();
        }
        other.platter.lose(loss);
        drop(other);
        found
    }
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Medium {
    disk: Disk,
    life: u64,
    file: usize,
}

impl Medium {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.platter.on && state.life == self.life { Ok(state) } else { Err(eio()) }
    }

    fn change(&self, deed: Deed) -> io::Result<()> {
        let mut state = self.state()?;
        state.operations += 1;
        match &deed {
            Deed::Write(offset, data) => state.platter.write(self.file, *offset, data)?,
            Deed::SetLen(len) => state.platter.set_len(self.file, *len)?,
            Deed::Sync => {
                state.syncs += 1;
                state.platter.sync(self.file)?;
            }
        }
        if let Some((_, deeds)) = &mut state.diary {
            deeds.push((self.file, deed));
        }
        Ok(())
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.platter.len(self.file))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state()?.platter.read(self.file, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Deed::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Deed::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Deed::Write(offset, data.to_vec()))
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.open[self.file] = false;
        }
        Ok(())
    }
}
