//! Processes to be killed: a relay, senders and recipients, which write down what they see, and die by their own hand
//! at a sync if they are told to. They are this test program, started once more.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthouse::client::{Client, Draft, Event, Stop};
use posthouse::identity::Identity;
use posthouse::protocol::Outcome;
use posthouse::random::SystemEntropy;
use posthouse::relay::{Relay, RelayOptions};
use posthouse::store::redb::file::journal_of;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::store::redb::{Backend, Part};
use posthouse::time::SystemClock;
use posthouse::transport::Socket;
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::program::PATIENCE;
use super::record::{DELIVERED, Entry, PERHAPS, Pen, REFUSED, fate};

/// The variable that makes this test program one of these processes.
const LIFE: &str = "POSTHOUSE_TEST_LIFE";

/// Messages of a sender that may be without an outcome, and how many it sends at once, how soon after each other.
const WINDOW: usize = 64;
const BATCH: u64 = 8;
const PAUSE: Duration = Duration::from_millis(2);

/// A message's body, bytes: its number and filling.
const BODY_BYTES: usize = 300;

/// The exit code of a peer whose session was taken over.
const SUPERSEDED: i32 = 7;

/// Who a process is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Role {
    /// Listens there.
    Relay { at: String },
    /// Sends to this address, from this number on.
    Sender { home: String, pair: usize, to: String, first: u64 },
    /// Takes what comes.
    Recipient { home: String, pair: usize },
}

/// When a process ends its life.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Death {
    /// At which sync of its store.
    pub(super) sync: u64,
    /// Once the sync is done, and not instead of it.
    pub(super) after: bool,
}

/// What a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Life {
    role: Role,
    directory: PathBuf,
    record: PathBuf,
    death: Option<Death>,
}

/// A process that can be killed and started again.
pub(super) struct Mortal {
    life: Life,
    child: Option<Child>,
}

impl Mortal {
    /// Not started yet. Its identity is in its directory.
    pub(super) fn new(role: Role, directory: PathBuf, record: PathBuf) -> Self {
        Self { life: Life { role, directory, record, death: None }, child: None }
    }

    /// A life begins. It ends when its standard input does, or at this death.
    pub(super) fn start(&mut self, death: Option<Death>) {
        self.life.death = death;
        if let Role::Sender { first, .. } = &mut self.life.role {
            // What an earlier life sent, and perhaps could not say so, has other numbers.
            *first += 1_000_000;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "mortal::this_is_a_process_of_another_test", "--ignored", "--nocapture"]);
        command.env(LIFE, serde_json::to_string(&self.life).unwrap()).stdin(Stdio::piped()).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        let child = self.child.as_mut().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether it has died of a kill. One whose session was taken over, by its own life before, is started again.
    pub(super) fn is_dead(&mut self) -> bool {
        match self.child.as_mut().unwrap().try_wait().unwrap() {
            None => false,
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => true,
            Some(status) => {
                assert_eq!(status.code(), Some(SUPERSEDED), "{:?} ended", self.life);
                self.start(self.life.death);
                false
            }
        }
    }

    /// Asks it to end once it has nothing left to do, and waits for that.
    pub(super) fn finish(&mut self) {
        let begin = Instant::now();
        loop {
            let child = self.child.as_mut().unwrap();
            drop(child.stdin.take());
            match child.try_wait().unwrap().map(|status| status.code()) {
                Some(Some(0)) => return,
                Some(Some(SUPERSEDED)) => self.start(None),
                Some(code) => panic!("{:?} ended with {code:?}", self.life),
                None => assert!(begin.elapsed() < PATIENCE, "{:?} does not end", self.life),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
#[ignore = "other tests start it as a process of its own"]
fn this_is_a_process_of_another_test() {
    let Ok(life) = std::env::var(LIFE) else { return };
    let life: Life = serde_json::from_str(&life).unwrap();
    let (end, ended) = oneshot::channel();
    // It ends with the test, also with one that is killed.
    std::thread::spawn(move || {
        io::stdin().read_to_end(&mut Vec::new()).ok();
        end.send(()).ok();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pen = Arc::new(Pen::new(&life.record));
    let stopped = runtime.block_on(live(life, &pen, ended));
    let code = match stopped {
        Ok(()) => 0,
        Err(Stop::Superseded) => {
            pen.write(&[Entry::Superseded]);
            SUPERSEDED
        }
        Err(stop) => panic!("{stop}"),
    };
    std::process::exit(code);
}

async fn live(life: Life, pen: &Arc<Pen>, ended: oneshot::Receiver<()>) -> Result<(), Stop> {
    let Life { role, directory, death, .. } = life;
    let identity = Identity::load_or_create(&directory, "key", &SystemEntropy).unwrap();
    let backend = medium(directory.join("store.redb"), death);
    match role {
        Role::Relay { at } => {
            relay(identity, backend, &at, ended).await;
            Ok(())
        }
        Role::Sender { home, pair, to, first } => {
            let client = Client::builder(identity, home.parse().unwrap()).backend(backend).start().unwrap();
            send(client, pair, &to, first, pen, ended).await
        }
        Role::Recipient { home, pair } => {
            let client = Client::builder(identity, home.parse().unwrap()).backend(backend).start().unwrap();
            receive(client, pair, pen, ended).await
        }
    }
}

async fn relay(identity: Identity, backend: Backend, at: &str, ended: oneshot::Receiver<()>) {
    let options = OpenOptions::new(backend, SystemClock::shared(), SystemEntropy::shared());
    let store = Arc::new(RedbRelayStore::open(options).unwrap());
    let options = RelayOptions::new(identity, store.clone());
    let relay = Relay::start(RelayOptions { socket: Socket::Bind(at.parse().unwrap()), ..options }).unwrap();
    ended.await.ok();
    relay.shutdown().await;
    store.close().await.unwrap();
}

/// Sends without end, and then until everything has its outcome.
async fn send(
    client: Client,
    pair: usize,
    to: &str,
    mut number: u64,
    pen: &Pen,
    mut ended: oneshot::Receiver<()>,
) -> Result<(), Stop> {
    let to: posthouse::address::PeerAddress = to.parse().unwrap();
    pen.write(&[Entry::Sending { pair, first: number }]);
    let mut events = client.events().await?;
    let mut ending = false;
    loop {
        let waiting = client.waiting().await?;
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::Outcome { id, outcome, .. }) => {
                    pen.write(&[Entry::Told { pair, id: id.to_string(), outcome: in_words(&outcome) }]);
                }
                Some(_) => {}
                None => return client.recv().await.map(drop),
            },
            _ = &mut ended, if !ending => ending = true,
            () = std::future::ready(()), if ending && waiting == 0 => break,
            () = tokio::time::sleep(PAUSE), if !ending && waiting < WINDOW => {
                let numbers = number..number + BATCH;
                number += BATCH;
                let drafts = numbers.clone().map(|number| Draft::new(to.clone(), format!("{number:<BODY_BYTES$}")));
                let sent = client.send_all(drafts.collect()).await.unwrap();
                let queued = numbers.zip(sent).map(|(number, sent)| Entry::Queued { pair, number, id: sent.id.to_string() });
                pen.write(&queued.collect::<Vec<_>>());
            }
        }
    }
    client.close().await;
    Ok(())
}

/// In words of the record, if it is one of those that may be.
fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered => DELIVERED.to_owned(),
        Outcome::Rejected { text: Some(text), maybe_taken, .. } if text == REFUSED => {
            if *maybe_taken {
                PERHAPS.to_owned()
            } else {
                REFUSED.to_owned()
            }
        }
        other => format!("{other:?}"),
    }
}

/// Takes what comes, and refuses some of it.
async fn receive(client: Client, pair: usize, pen: &Arc<Pen>, mut ended: oneshot::Receiver<()>) -> Result<(), Stop> {
    pen.write(&[Entry::Reading { pair }]);
    loop {
        let message = tokio::select! {
            message = client.recv() => message?,
            _ = &mut ended => break,
        };
        let number = std::str::from_utf8(&message.body).unwrap().trim_end().parse().unwrap();
        let (id, pen) = (message.id.to_string(), pen.clone());
        pen.write(&[Entry::Got { pair, number, id: id.clone() }]);
        // The next one is handed out meanwhile.
        tokio::spawn(async move {
            let answered = match fate(number) {
                DELIVERED => message.taken().await,
                refused => message.refuse(refused).await,
            };
            if answered.is_ok() {
                pen.write(&[Entry::Answered { pair, id }]);
            }
        });
    }
    client.close().await;
    Ok(())
}

/// Files, and a death at one of their syncs.
fn medium(path: PathBuf, death: Option<Death>) -> Backend {
    let of = move |part| match part {
        Part::Tables => path.clone(),
        Part::Journal => journal_of(&path),
    };
    let Some(Death { sync, after }) = death else {
        return Backend::Custom(Arc::new(move |part| Ok(Box::new(file(&of(part))?))));
    };
    let left = Arc::new(AtomicU64::new(sync));
    Backend::Custom(Arc::new(move |part| Ok(Box::new(Deadly { file: file(&of(part))?, left: left.clone(), after }))))
}

fn file(path: &Path) -> io::Result<FileBackend> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    FileBackend::new(file).map_err(io::Error::other)
}

#[derive(Debug)]
struct Deadly {
    file: FileBackend,
    left: Arc<AtomicU64>,
    after: bool,
}

impl StorageBackend for Deadly {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let is_last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if !is_last || self.after {
            self.file.sync_data()?;
        }
        if is_last {
            kill_process(getpid(), Signal::KILL)?;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
