//! A relay's host: its process, started again whenever it died, and its disk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthouse::relay::{Relay, RelayLimits, RelayOptions};
use posthouse::store::RelayStore as _;
use posthouse::store::redb::file::OpenError;
use posthouse::store::redb::relay::{FreeSpace, OpenOptions, RedbRelayStore};

use super::backup;
use super::chance::entropy;
use super::crypto::determinism;
use super::disk::Loss;
use super::ledger::Weakness;
use super::life::{Life, Strike, Swap};
use super::machine::Machine;
use super::net::HostNumber;
use super::plan::FIRST_PEER;
use super::stage::{RELAY_PORT, Stage, who};
use super::trace::note;

/// Memory for a store's pages.
const CACHE_BYTES: usize = 4 << 20;

/// So short that it is full now and then.
const JOURNAL_BYTES: u64 = 32 << 10;

/// How long a polite end may take.
pub(crate) const FAREWELL: Duration = Duration::from_secs(20);

/// What happens next when nobody ordered it.
pub(crate) const BY_ITSELF: Strike =
    Strike { polite: false, loss: Loss::Sectors, down: Duration::from_millis(300), swap: Swap::No };

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// See the head of this file.
pub(crate) struct RelayHost {
    stage: Stage,
    number: HostNumber,
    pub(crate) machine: Machine,
    store: Mutex<Option<Arc<RedbRelayStore>>>,
}

impl RelayHost {
    pub(crate) fn new(stage: &Stage, number: HostNumber) -> Arc<Self> {
        let plan = &stage.plan().relays[usize::from(number)];
        Arc::new(Self {
            stage: stage.clone(),
            number,
            machine: Machine::new(stage.fork(), plan.clock_off_ms),
            store: Mutex::default(),
        })
    }

    /// Lives, again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        let trace = self.stage.trace();
        loop {
            let life = self.machine.fuse.begin();
            match self.start(&life) {
                Ok((relay, store)) => {
                    note!(trace, "relay {} runs, store {}", self.number, store.store_id());
                    self.stage.ledger().lives();
                    self.look(&store).await;
                    *self.store.lock().unwrap() = Some(store.clone());
                    let asked = tokio::select! {
                        biased;
                        () = life.ended() => false,
                        () = life.asked() => true,
                        error = relay.failed() => {
                            note!(trace, "relay {}: {error}", self.number);
                            false
                        }
                    };
                    self.store.lock().unwrap().take();
                    if asked {
                        let farewell = async { drop((relay.shutdown().await, store.close().await)) };
                        tokio::select! {
                            biased;
                            () = life.ended() => {}
                            _ = tokio::time::timeout(FAREWELL, farewell) => {}
                        }
                    }
                    life.end();
                }
                Err(error) => {
                    note!(trace, "relay {} does not start: {error}", self.number);
                    life.end();
                    self.judge(&error);
                }
            }
            self.stage.net().bury();
            let strike = self.machine.fuse.take().unwrap_or(BY_ITSELF);
            note!(trace, "relay {} is dead: {strike:?}, {} faults met", self.number, self.machine.disk.met());
            tokio::time::sleep(strike.down).await;
            // Somebody may have struck again meanwhile.
            let strike = self.machine.fuse.take().unwrap_or(strike);
            self.machine.disk.settle(strike.loss);
            self.swap(strike.swap);
        }
    }

    fn start(&self, life: &Life) -> Result<(Relay, Arc<RedbRelayStore>), Failure> {
        let plan = &self.stage.plan().relays[usize::from(self.number)];
        let (clock, entropy) = (self.machine.clock.process(), entropy(self.stage.fork()));
        let disk = self.machine.disk.clone();
        let store = Arc::new(RedbRelayStore::open(OpenOptions {
            free_space: FreeSpace::Custom(Arc::new(move || Some(disk.room()))),
            limits: plan.limits.clone(),
            writer: plan.writer,
            cache_bytes: CACHE_BYTES,
            journal_bytes: JOURNAL_BYTES,
            ..OpenOptions::new(self.machine.disk.backend(life), clock.clone(), entropy.clone())
        })?);
        let net = self.stage.net();
        let relay = Relay::start(RelayOptions {
            identity: who(self.number),
            socket: net.socket(self.number, Some(RELAY_PORT), life),
            outgoing: net.socket(self.number, None, life),
            store: store.clone(),
            clock: clock.clone(),
            entropy,
            limits: RelayLimits::default(),
            determinism: Some(determinism(clock)),
        })?;
        Ok((relay, store))
    }

    fn judge(&self, error: &Failure) {
        if let Some(OpenError::Corrupt { .. } | OpenError::Foreign { .. }) = error.downcast_ref() {
            self.stage.ledger().break_promise(format!("the store of relay {}: {error}", self.number));
        }
    }

    fn swap(&self, swap: Swap) {
        let copy = self.machine.backup();
        let mut weakness = Weakness::default();
        match (swap, copy) {
            (Swap::No, _) => return,
            (Swap::Empty, _) | (Swap::Restore, None) => {
                self.machine.disk.put_back(Vec::new());
                weakness.restored = true;
            }
            (Swap::Restore, Some(copy)) => {
                let fresh = copy.is_empty();
                self.machine.disk.put_back(copy);
                if !fresh {
                    let mut id = [0; 16];
                    self.stage.fork().fill(&mut id);
                    backup::renew(&self.machine.disk, id);
                }
                weakness.restored = true;
            }
            (Swap::PutBack, None) => return,
            (Swap::PutBack, Some(copy)) => {
                self.machine.disk.put_back(copy);
                weakness.put_back = true;
            }
        }
        note!(self.stage.trace(), "relay {}: {swap:?}", self.number);
        self.stage.ledger().weaken(weakness);
    }

    /// Whatever the last life died of, what it left fits together.
    async fn look(&self, store: &RedbRelayStore) {
        if let Ok(report) = store.check().await
            && let Some(problem) = report.problems.first()
        {
            self.stage.ledger().break_promise(format!("the store of relay {} at its start: {problem}", self.number));
        }
    }

    /// What is left in the store that ought to be gone, in words; nothing if all is well.
    pub(crate) async fn leftovers(&self) -> Option<String> {
        let store = self.store.lock().unwrap().clone();
        let Some(store) = store else { return Some(format!("relay {} is down", self.number)) };
        for (at, peer) in self.stage.plan().peers.iter().enumerate() {
            if peer.home != self.number {
                continue;
            }
            let number = FIRST_PEER + at as HostNumber;
            match store.status(who(number).peer_id(), None).await {
                Ok(status) if status.messages == 0 => {}
                Ok(status) => {
                    return Some(format!(
                        "{} messages wait for peer {number} at relay {}",
                        status.messages, self.number
                    ));
                }
                Err(error) => return Some(format!("relay {}: {error}", self.number)),
            }
        }
        match store.links().await {
            Ok(links) => {
                let waiting = links.iter().find(|link| link.waiting > 0)?;
                Some(format!(
                    "{} messages wait at relay {} for {}",
                    waiting.waiting,
                    self.number,
                    waiting.relay.short()
                ))
            }
            Err(error) => Some(format!("relay {}: {error}", self.number)),
        }
    }

    /// What does not fit together in the store.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let store = self.store.lock().unwrap().clone();
        match store {
            Some(store) => store.check().await.map_or_else(|error| vec![error.to_string()], |report| report.problems),
            None => vec!["it is down".to_owned()],
        }
    }
}
