//! A disk behind a volatile cache, which fails and loses power where the plan says so.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use posthouse::store::redb::relay::DiskRoom;
use posthouse::store::redb::{Backend, Part};
use redb::StorageBackend;

use super::chance::Chance;
use super::life::Life;
pub(crate) use super::platter::{Faults, Loss};
use super::platter::{JOURNAL, Platter, TABLES, eio};

/// The room on a disk that is not full.
const ROOMY: u64 = 1 << 40;

#[derive(Debug)]
struct State {
    platter: Platter,
    opened_by: Option<Life>,
    /// Faults that were met.
    met: u64,
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn new(mut chance: Chance) -> Self {
        let platter = Platter::new(Box::new(move |bound| chance.below(bound)));
        Self(Arc::new(Mutex::new(State { platter, opened_by: None, met: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A store's backend on this disk, for one life of its process.
    pub(crate) fn backend(&self, life: &Life) -> Backend {
        let (disk, life) = (self.clone(), life.clone());
        Backend::Custom(Arc::new(move |part| {
            Ok(Box::new(match part {
                Part::Tables => disk.open(&life)?,
                Part::Journal => Medium { disk: disk.clone(), life: life.clone(), file: JOURNAL },
            }))
        }))
    }

    /// Opens its tables. A second database on them would destroy them, so that may not be.
    pub(crate) fn open(&self, life: &Life) -> io::Result<Medium> {
        let mut state = self.state();
        if life.is_over() {
            return Err(eio());
        }
        assert!(state.opened_by.as_ref().is_none_or(Life::is_over), "two databases on one disk");
        state.opened_by = Some(life.clone());
        Ok(Medium { disk: self.clone(), life: life.clone(), file: TABLES })
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().platter.set_faults(faults);
    }

    /// How many faults were met.
    pub(crate) fn met(&self) -> u64 {
        self.state().met
    }

    /// What the operating system says about the room on it.
    pub(crate) fn room(&self) -> DiskRoom {
        let state = self.state();
        let (used, file) = (state.platter.used(), state.platter.len(TABLES));
        DiskRoom { free: state.platter.capacity.map_or(ROOMY, |capacity| capacity.saturating_sub(used)), file }
    }

    /// Its process is dead: what was not synced is lost, or not, and with a new life it may be opened again.
    pub(crate) fn settle(&self, loss: Loss) {
        let mut state = self.state();
        state.platter.lose(loss);
        state.opened_by = None;
    }

    /// Bytes that it takes in the memory of this machine.
    pub(crate) fn held(&self) -> usize {
        self.state().platter.held()
    }

    /// What is safe of its tables.
    pub(crate) fn copy(&self) -> Vec<u8> {
        self.state().platter.safe(TABLES).to_vec()
    }

    /// Puts a copy in the place of the tables; a journal stays as it is, as it would if somebody did that by hand. Its
    /// process must be dead, and whoever does that sees to it that the disk has room and works.
    pub(crate) fn put_back(&self, copy: Vec<u8>) {
        let mut state = self.state();
        state.platter.set_faults(Faults::default());
        state.platter.put_back(TABLES, copy);
    }
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Medium {
    disk: Disk,
    life: Life,
    file: usize,
}

impl Medium {
    /// Does something with it, unless its process is dead. A power cut ends that.
    fn at<T>(&self, act: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        if self.life.is_over() {
            return Err(eio());
        }
        let mut state = self.disk.state();
        let done = act(&mut state.platter);
        let is_on = state.platter.on;
        state.met += u64::from(done.is_err() || !is_on);
        if !is_on {
            self.life.end();
        }
        done
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.at(|platter| Ok(platter.len(self.file)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.at(|platter| platter.read(self.file, offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.at(|platter| platter.set_len(self.file, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.at(|platter| platter.sync(self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.at(|platter| platter.write(self.file, offset, data))
    }

    fn close(&self) -> io::Result<()> {
        if !self.life.is_over() && self.file == TABLES {
            self.disk.state().opened_by = None;
        }
        Ok(())
    }
}
