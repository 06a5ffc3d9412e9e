//! A relay that can be stopped, killed and started again at the same place with the same key.
//!
//! It runs on a runtime of its own. Killing it drops that runtime: no task of it gets to say or write another
//! word. What had reached the store's queue is written still, as by a crash a moment later.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthouse::address::RelayAddress;
use posthouse::identity::Identity;
use posthouse::random::SystemEntropy;
use posthouse::relay::{LinkReport, Meter, Operator, Relay, RelayLimits, RelayOptions};
use posthouse::store::redb::Backend;
use posthouse::store::redb::file::DEFAULT_CACHE_BYTES;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::{RelayStore as _, StoreLimits, outbox_key};
use posthouse::time::SystemClock;
use posthouse::transport::Socket;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::hesitant::{Hesitant, Hesitation};
use super::lasting::lasting_place;
use super::{PATIENCE, who, within};

/// Who the relay is in the cast.
pub(crate) const RELAY: u8 = 0;

const STORE_FILE: &str = "relay.redb";

/// See the head of this file.
pub(crate) struct TestRelay {
    directory: Option<TempDir>,
    name: u8,
    at: SocketAddr,
    pub(crate) limits: RelayLimits,
    pub(crate) store_limits: StoreLimits,
    /// Memory for pages of the store.
    pub(crate) cache_bytes: usize,
    /// What the store takes its time about.
    pub(crate) hesitation: Option<Hesitation>,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    relay: Relay,
    store: Arc<RedbRelayStore>,
}

impl TestRelay {
    /// With a store in a file.
    pub(crate) fn on_disk() -> Self {
        Self::new(Some(tempfile::tempdir().unwrap()))
    }

    /// With a store in memory: each start is one with an empty store.
    pub(crate) fn in_memory() -> Self {
        Self::new(None)
    }

    fn new(directory: Option<TempDir>) -> Self {
        Self {
            directory,
            name: RELAY,
            at: lasting_place(),
            limits: RelayLimits::default(),
            store_limits: StoreLimits::default(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            hesitation: None,
            running: None,
        }
    }

    /// Another one of the cast than the usual.
    #[must_use]
    pub(crate) const fn named(mut self, name: u8) -> Self {
        self.name = name;
        self
    }

    /// At this address of this machine.
    #[must_use]
    pub(crate) fn listening_at(mut self, at: &str) -> Self {
        self.at = at.parse().unwrap();
        self
    }

    /// Moves to another port, from the next start on.
    pub(crate) fn move_away(&mut self) {
        self.at = lasting_place();
    }

    /// Sets limits before the start.
    #[must_use]
    pub(crate) fn with(mut self, set: impl FnOnce(&mut RelayLimits, &mut StoreLimits)) -> Self {
        set(&mut self.limits, &mut self.store_limits);
        self
    }

    /// Starts it; later times at the place of the first.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let backend = match &self.directory {
            Some(directory) => Backend::File(directory.path().join(STORE_FILE)),
            None => Backend::Memory,
        };
        let mut options = OpenOptions::new(backend, clock.clone(), entropy.clone());
        options.limits = self.store_limits.clone();
        options.cache_bytes = self.cache_bytes;
        let store = Arc::new(RedbRelayStore::open(options).unwrap());
        let started = Instant::now();
        let relay = loop {
            let _context = runtime.enter();
            let options = RelayOptions {
                identity: self.identity(),
                socket: Socket::Bind(self.at),
                outgoing: Socket::anywhere(),
                store: match self.hesitation {
                    Some(about) => Arc::new(Hesitant::new(store.clone(), about)),
                    None => store.clone(),
                },
                clock: clock.clone(),
                entropy: entropy.clone(),
                limits: self.limits.clone(),
                determinism: None,
            };
            // The system may hold the port of the last run for a moment.
            match Relay::start(options) {
                Ok(relay) => break relay,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.at = relay.local_addr();
        self.running = Some(Running { runtime, relay, store });
    }

    /// A relay that has been started.
    pub(crate) fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Asks its clients to leave, and waits until they have.
    pub(crate) async fn drain(&self) {
        self.running.as_ref().unwrap().relay.drain().await;
    }

    /// Why it takes nothing, if so.
    pub(crate) async fn trouble(&self) -> Option<String> {
        self.running.as_ref().unwrap().relay.observer().ready().await.err()
    }

    /// Stops it politely.
    pub(crate) async fn stop(&mut self) {
        let Running { runtime, relay, store } = self.running.take().unwrap();
        runtime.spawn(relay.shutdown()).await.unwrap();
        runtime.shutdown_background();
        store.close().await.unwrap();
    }

    /// Stops it as a crash would.
    pub(crate) async fn kill(&mut self) {
        let Running { runtime, relay, store } = self.running.take().unwrap();
        tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(PATIENCE);
            drop(relay);
        })
        .await
        .unwrap();
        store.close().await.unwrap();
    }

    /// Copies the store's file; the relay must not run.
    pub(crate) fn copy(&self) -> PathBuf {
        assert!(self.running.is_none(), "a running relay's file is no backup");
        let directory = self.directory.as_ref().unwrap().path();
        let copy = directory.join("copy.redb");
        std::fs::copy(directory.join(STORE_FILE), &copy).unwrap();
        copy
    }

    /// Puts a copy in the place of the store's file.
    pub(crate) fn put_back(&self, copy: &Path) {
        assert!(self.running.is_none(), "a running relay holds its file");
        std::fs::copy(copy, self.directory.as_ref().unwrap().path().join(STORE_FILE)).unwrap();
    }

    /// Puts a copy in the place of the store's file, as an operator does: it is another store from then on.
    pub(crate) fn restore(&self, copy: &Path) {
        self.put_back(copy);
        let backend = Backend::File(self.directory.as_ref().unwrap().path().join(STORE_FILE));
        RedbRelayStore::restored(backend, &*SystemClock::shared(), &SystemEntropy).unwrap();
    }

    /// Removes the store's file: the disk is lost.
    pub(crate) fn lose_disk(&self) {
        assert!(self.running.is_none(), "a running relay holds its file");
        std::fs::remove_file(self.directory.as_ref().unwrap().path().join(STORE_FILE)).unwrap();
    }

    pub(crate) fn identity(&self) -> Identity {
        who(self.name)
    }

    /// Where it listens.
    pub(crate) const fn at(&self) -> SocketAddr {
        self.at
    }

    /// Its address for clients.
    pub(crate) fn home(&self) -> RelayAddress {
        RelayAddress::new(self.identity().relay_id(), self.at.into())
    }

    /// Its store, to look into.
    pub(crate) fn store(&self) -> &Arc<RedbRelayStore> {
        &self.running.as_ref().unwrap().store
    }

    /// Open sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.running.as_ref().unwrap().relay.sessions()
    }

    /// Connection attempts that had to prove their address, and those that were refused.
    pub(crate) fn turned_away(&self) -> (u64, u64) {
        let observer = self.running.as_ref().unwrap().relay.observer();
        let counted = |meter: &Meter| (meter.retries.count(), meter.turned_away.counts().map(|(_, count)| count).sum());
        observer.counted(|meter, _| counted(meter)).unwrap()
    }

    /// First packets of handshakes that were left unread.
    pub(crate) fn unread(&self) -> u64 {
        let observer = self.running.as_ref().unwrap().relay.observer();
        observer.counted(|meter, _| meter.unread.count()).unwrap()
    }

    /// MSG:N sent, repeats included.
    pub(crate) fn pushed(&self) -> u64 {
        let observer = self.running.as_ref().unwrap().relay.observer();
        observer.counted(|meter, _| meter.msg_n.count()).unwrap()
    }

    /// What its operator may do.
    pub(crate) fn operator(&self) -> Operator {
        self.running.as_ref().unwrap().relay.observer().operator()
    }

    /// Exchanges its limits while it runs.
    pub(crate) fn set_limits(&self, set: impl FnOnce(&mut RelayLimits, &mut StoreLimits)) {
        let (mut limits, mut store) = (self.limits.clone(), self.store_limits.clone());
        set(&mut limits, &mut store);
        self.store().set_limits(store);
        self.running.as_ref().unwrap().relay.set_limits(limits);
    }

    /// Lets all peers prove anew that they may be here.
    pub(crate) fn judge_anew(&self) {
        self.running.as_ref().unwrap().relay.judge_anew(|_| true);
    }

    /// How its links stand.
    pub(crate) async fn links(&self) -> Vec<LinkReport> {
        self.running.as_ref().unwrap().relay.observer().links().await.unwrap()
    }

    /// Messages that wait for this member of the cast.
    pub(crate) async fn waiting_for(&self, number: u8) -> u64 {
        self.store().status(who(number).peer_id(), None).await.unwrap().messages
    }

    /// Waits until so many messages wait for this member of the cast: an outcome may be told before it is on disk.
    #[track_caller]
    pub(crate) fn waits_for(&self, number: u8, messages: u64) -> impl Future<Output = ()> {
        within("the right number of messages", async move {
            while self.waiting_for(number).await != messages {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Waits until nothing that is to go to this other relay lacks its outcome.
    #[track_caller]
    pub(crate) fn outbox_drains(&self, other: &Self) -> impl Future<Output = ()> {
        let outbox = outbox_key(&other.identity().relay_id());
        within("the outcomes at the sender's relay", async move {
            while self.store().status(outbox, None).await.unwrap().messages > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Whether the store fits together.
    pub(crate) async fn assert_sound(&self) {
        let report = self.store().check().await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        if let Some(Running { runtime, .. }) = self.running.take() {
            // A runtime may not be dropped by waiting for it inside another one.
            runtime.shutdown_background();
        }
    }
}
