//! Group commit: requests of many tasks meet in one write transaction, are synced together, then answered.
//!
//! What a request means is the [`Engine`]'s affair; this file gathers, commits, answers, and decides how far a
//! failure reaches. While one transaction syncs, the next requests queue up, so the groups grow with the load.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{ReadTransaction, WriteTransaction};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::fault::Fault;
use super::file::StoreFile;
use crate::store::{Reply, StoreError};

/// The most one transaction takes: more gives no more throughput, but longer waits for its last request.
pub(super) const GROUP_OPS: usize = 8192;
/// The same in bytes; one request always goes.
const GROUP_BYTES: usize = 8 << 20;

/// A group of so many requests shows that many sessions are at work. Then the next one may grow for as long as
/// more keep coming, look after look: all that is done for a group, here and in every session that is answered, is
/// done for more messages at a time.
const BUSY_REQUESTS: usize = 8;
const LOOKS: usize = 10;
const LOOK_PAUSE: Duration = Duration::from_micros(100);

/// How long requests wait that may. A recipient's answers come just before the sender's next message, and two commits
/// would take twice as long as one for both.
const PATIENCE: Duration = Duration::from_millis(1);

/// From here on [`Writer::room`] waits. Who asks it before reading more from the network is slowed down
/// before memory fills.
const QUEUE_BYTES: usize = 64 << 20;
/// The same in operations.
const QUEUE_OPS: usize = 1 << 18;
/// From here on requests that carry messages are answered `Unavailable`; the others are small and bounded by
/// the number of sessions.
const QUEUE_MAX_BYTES: usize = 4 * QUEUE_BYTES;

/// Reads at a time. Each holds a thread; more would only queue for the disk.
const READS: usize = 16;

/// How a writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriterMode {
    /// On a thread of its own; reads on tokio's blocking threads. A tokio runtime is needed for reads.
    #[default]
    Thread,
    /// On the call that submits, with a transaction for each request, and reads on the call that asks: the
    /// same every time, for simulation.
    Inline,
    /// On a task of the runtime, which gathers requests for so long before each transaction; reads on the call
    /// that asks. A slow disk, and the same every time, for simulation.
    Task(Duration),
}

/// How much a request weighs in a transaction and in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Operations; at least 1.
    pub ops: usize,
    /// Bytes of messages it carries; 0 for none.
    pub bytes: usize,
    /// It may wait a moment for others to go with.
    pub patient: bool,
}

/// What is read while the writer goes on.
pub type Beside = dyn FnOnce(&ReadTransaction) -> Result<(), Fault> + Send;

/// What requests mean. An engine keeps in memory only what it can rebuild or roll back.
pub trait Engine: Send + 'static {
    /// What is asked for. Not consumed: where another request spoils a transaction, this one is done again.
    type Request: Send + 'static;
    /// What a request is answered with.
    type Answer: Send + 'static;
    /// The open tables of one transaction, and rows kept in memory until its end.
    type Work<'t>;

    /// Opens the tables.
    ///
    /// # Errors
    /// [`Fault::Storage`] gives the transaction up.
    fn begin<'t>(&mut self, transaction: &'t WriteTransaction) -> Result<Self::Work<'t>, Fault>;

    /// Does one request.
    ///
    /// # Errors
    /// See [`Fault`]; with [`Fault::Refused`] nothing may have been changed.
    fn apply(&mut self, work: &mut Self::Work<'_>, request: &Self::Request) -> Result<Self::Answer, Fault>;

    /// Writes the rows kept in memory. False if there is nothing to commit.
    ///
    /// # Errors
    /// [`Fault::Storage`] gives the transaction up.
    fn finish(&mut self, work: Self::Work<'_>) -> Result<bool, Fault>;

    /// The transaction is on the disk (or had nothing to commit): publish what it did. Answers follow.
    fn committed(&mut self);

    /// The transaction is undone: so has to be everything the engine itself keeps in memory about it.
    fn aborted(&mut self) {}

    /// The storage failed: the disk may be full.
    fn failed(&mut self) {}

    /// What is to be read now, without anybody waiting for it. It is called after each transaction.
    fn beside(&mut self) -> Option<Box<Beside>> {
        None
    }

    /// How much the request weighs.
    fn weight(request: &Self::Request) -> Weight;
}

struct Job<E: Engine> {
    request: E::Request,
    reply: oneshot::Sender<Result<E::Answer, StoreError>>,
    weight: Weight,
}

struct Queue<E: Engine> {
    jobs: VecDeque<Job<E>>,
    ops: usize,
    bytes: usize,
    /// Requests that wait for no others.
    urgent: usize,
    closing: bool,
    done: bool,
}

struct Shared<E: Engine> {
    file: StoreFile,
    mode: WriterMode,
    engine: Mutex<E>,
    queue: Mutex<Queue<E>>,
    /// Told whenever the queue has something for the writer: its thread, or its task.
    filled: Condvar,
    /// The queue has no room. A copy, for those who only want to know.
    crowded: AtomicBool,
    called: Notify,
    /// Told whenever the queue has become shorter, and at the end.
    room: Notify,
    reads: Semaphore,
}

/// The one who writes to a store file. Dropping it lets what is queued be done and closes the file.
pub struct Writer<E: Engine> {
    shared: Arc<Shared<E>>,
}

impl<E: Engine> std::fmt::Debug for Writer<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("file", &self.shared.file).field("mode", &self.shared.mode).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock is held condemns the store (see `carry_out`), so nobody works on after it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Engine> Writer<E> {
    /// Starts a writer; in [`WriterMode::Thread`] on a thread of this name.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    ///
    /// # Panics
    /// In [`WriterMode::Task`] outside a tokio runtime.
    pub fn start(file: StoreFile, engine: E, mode: WriterMode, name: &str) -> std::io::Result<Self> {
        let queue = Queue { jobs: VecDeque::new(), ops: 0, bytes: 0, urgent: 0, closing: false, done: false };
        let shared = Arc::new(Shared {
            file,
            mode,
            engine: Mutex::new(engine),
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            crowded: AtomicBool::new(false),
            called: Notify::new(),
            room: Notify::new(),
            reads: Semaphore::new(READS),
        });
        let writing = shared.clone();
        match mode {
            WriterMode::Thread => {
                drop(std::thread::Builder::new().name(name.to_owned()).spawn(move || writing.run())?);
            }
            WriterMode::Task(pause) => drop(tokio::spawn(async move { writing.run_slowly(pause).await })),
            WriterMode::Inline => {}
        }
        Ok(Self { shared })
    }

    /// The file it writes to.
    #[must_use]
    pub fn file(&self) -> &StoreFile {
        &self.shared.file
    }

    /// Hands in a request. It is in the queue when this call returns, whatever becomes of the reply.
    pub fn submit(&self, request: E::Request) -> Reply<E::Answer> {
        let weight = E::weight(&request);
        let (reply, answer) = oneshot::channel();
        let job = Job { request, reply, weight };
        match self.shared.mode {
            WriterMode::Thread | WriterMode::Task(_) => self.shared.enqueue(job),
            WriterMode::Inline if lock(&self.shared.queue).closing => job.answer(Err(StoreError::Closed)),
            WriterMode::Inline => self.shared.carry_out(vec![job]),
        }
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    /// Whether [`room`](Self::room) would not wait.
    pub fn has_room(&self) -> bool {
        !self.shared.crowded.load(Ordering::Relaxed)
    }

    /// Waits until the queue is short enough to take more. A session that asks before it reads from its peer
    /// makes the peer wait instead of the memory grow.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room(&self) {
        let shared = &self.shared;
        loop {
            let mut notified = pin!(shared.room.notified());
            notified.as_mut().enable();
            if lock(&shared.queue).has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Reads in a transaction of its own, which ends with `look`.
    pub fn read<T, F>(&self, look: F) -> Reply<T>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    {
        let shared = self.shared.clone();
        if shared.mode != WriterMode::Thread {
            let answer = shared.file.read(look);
            return Box::pin(async move { answer });
        }
        Box::pin(async move {
            let _permit = shared.reads.acquire().await.map_err(|_| StoreError::Closed)?;
            let reader = shared.clone();
            let read = tokio::task::spawn_blocking(move || reader.file.read(look)).await;
            read.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string().into())))
        })
    }

    /// Closes the file once all that is queued is done. Later requests are answered [`StoreError::Closed`].
    pub fn close(&self) -> Reply<()> {
        let shared = self.shared.clone();
        shared.begin_closing();
        Box::pin(async move {
            loop {
                let mut notified = pin!(shared.room.notified());
                notified.as_mut().enable();
                if lock(&shared.queue).done {
                    return Ok(());
                }
                notified.await;
            }
        })
    }
}

impl<E: Engine> Drop for Writer<E> {
    fn drop(&mut self) {
        self.shared.begin_closing();
    }
}

impl<E: Engine> Queue<E> {
    fn has_room(&self) -> bool {
        self.closing || (self.bytes < QUEUE_BYTES && self.ops < QUEUE_OPS)
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.closing
    }

    /// Whether all that is there may wait for more.
    fn is_patient(&self) -> bool {
        self.urgent == 0 && self.ops < GROUP_OPS && !self.closing
    }

    fn take_group(&mut self) -> Vec<Job<E>> {
        let (mut group, mut ops, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.jobs.front() {
            (ops, bytes) = (ops + next.weight.ops, bytes + next.weight.bytes);
            if !group.is_empty() && (ops > GROUP_OPS || bytes > GROUP_BYTES) {
                break;
            }
            let Some(job) = self.jobs.pop_front() else { break };
            self.ops -= job.weight.ops;
            self.bytes -= job.weight.bytes;
            self.urgent -= usize::from(!job.weight.patient);
            group.push(job);
        }
        group
    }
}

impl<E: Engine> Job<E> {
    fn answer(self, answer: Result<E::Answer, StoreError>) {
        // Who no longer waits gave up the answer, not the work.
        drop(self.reply.send(answer));
    }
}

/// Why a group was not committed.
enum Spoiled {
    /// The request at this place met a row that makes no sense.
    Request(usize, StoreError),
    /// All of it.
    Group(StoreError),
}

impl<E: Engine> Shared<E> {
    fn enqueue(&self, job: Job<E>) {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return job.answer(Err(StoreError::Closed));
        }
        if job.weight.bytes > 0 && queue.bytes + job.weight.bytes > QUEUE_MAX_BYTES {
            return job.answer(Err(StoreError::Unavailable("too much waits to be written".into())));
        }
        queue.ops += job.weight.ops;
        queue.bytes += job.weight.bytes;
        queue.urgent += usize::from(!job.weight.patient);
        queue.jobs.push_back(job);
        self.crowded.store(!queue.has_room(), Ordering::Relaxed);
        drop(queue);
        self.call_writer();
    }

    fn call_writer(&self) {
        self.filled.notify_one();
        self.called.notify_one();
    }

    fn begin_closing(&self) {
        let mut queue = lock(&self.queue);
        if !queue.closing {
            queue.closing = true;
            self.crowded.store(false, Ordering::Relaxed);
            if self.mode == WriterMode::Inline {
                queue.done = true;
                self.file.close();
            }
        }
        drop(queue);
        self.call_writer();
        self.room.notify_waiters();
    }

    /// The writer's thread.
    fn run(self: &Arc<Self>) {
        let mut busy = false;
        loop {
            let mut queue = lock(&self.queue);
            while queue.is_idle() {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_patient() {
                let waited = self.filled.wait_timeout_while(queue, PATIENCE, |queue| queue.is_patient());
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if busy {
                queue = self.gather(queue);
            }
            let group = queue.take_group();
            busy = group.len() >= BUSY_REQUESTS;
            self.crowded.store(!queue.has_room(), Ordering::Relaxed);
            drop(queue);
            if group.is_empty() {
                return self.finish();
            }
            self.room.notify_waiters();
            self.carry_out(group);
        }
    }

    /// Lets the next group grow while requests keep coming.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue<E>>) -> MutexGuard<'a, Queue<E>> {
        let mut seen = 0;
        for _ in 0..LOOKS {
            if queue.closing || queue.ops >= GROUP_OPS || queue.jobs.len() == seen {
                break;
            }
            seen = queue.jobs.len();
            drop(queue);
            std::thread::sleep(LOOK_PAUSE);
            queue = lock(&self.queue);
        }
        queue
    }

    /// The writer's task.
    async fn run_slowly(self: &Arc<Self>, pause: Duration) {
        loop {
            while lock(&self.queue).is_idle() {
                self.called.notified().await;
            }
            tokio::time::sleep(pause).await;
            let group = lock(&self.queue).take_group();
            if group.is_empty() {
                return self.finish();
            }
            self.room.notify_waiters();
            self.carry_out(group);
        }
    }

    /// The writer has done all that was queued, and there will be no more.
    fn finish(&self) {
        self.file.close();
        lock(&self.queue).done = true;
        self.room.notify_waiters();
    }

    /// Does a group, and begins what the engine wants to be read.
    fn carry_out(self: &Arc<Self>, group: Vec<Job<E>>) {
        let mut engine = lock(&self.engine);
        self.answer_all(&mut engine, group);
        let Some(look) = engine.beside() else { return };
        drop(engine);
        let shared = self.clone();
        let read = move || {
            if let Err(error) = shared.file.read(look) {
                tracing::warn!(%error, "the store could not be read beside its writer");
            }
        };
        match self.mode {
            WriterMode::Inline | WriterMode::Task(_) => read(),
            WriterMode::Thread => {
                // A thread of its own: it may take seconds, and the runtime may be gone.
                let begun = std::thread::Builder::new().name("store-look".to_owned()).spawn(read);
                if let Err(error) = begun {
                    tracing::warn!(%error, "there is no thread to read the store beside its writer");
                }
            }
        }
    }

    /// Does a group in one transaction and answers all of it. A request that meets a corrupt row is answered
    /// alone, and the others are done again without it.
    fn answer_all(&self, engine: &mut E, mut group: Vec<Job<E>>) {
        while !group.is_empty() {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(engine, &group)));
            match attempt.unwrap_or_else(|_| Err(Spoiled::Group(self.file.condemn("the writer met a bug")))) {
                Ok(answers) => {
                    for (job, answer) in group.into_iter().zip(answers) {
                        job.answer(answer);
                    }
                    return;
                }
                Err(Spoiled::Request(at, error)) => {
                    engine.aborted();
                    tracing::error!(%error, "a row of the store is damaged");
                    group.remove(at).answer(Err(error));
                }
                Err(Spoiled::Group(error)) => {
                    engine.aborted();
                    engine.failed();
                    tracing::error!(%error, requests = group.len(), "the store could not write");
                    for job in group {
                        job.answer(Err(error.clone()));
                    }
                    return;
                }
            }
        }
    }

    fn attempt(&self, engine: &mut E, group: &[Job<E>]) -> Result<Vec<Result<E::Answer, StoreError>>, Spoiled> {
        let writing = self.file.write().map_err(Spoiled::Group)?;
        let mut answers = Vec::with_capacity(group.len());
        match do_all(engine, writing.transaction(), group, &mut answers) {
            // Questions alone cost no sync.
            Ok(changed) => if changed { writing.commit() } else { writing.abort() }.map_err(Spoiled::Group)?,
            Err((at, Fault::Corrupt(what))) => return Err(Spoiled::Request(at, StoreError::Unavailable(what))),
            Err((_, fault)) => return Err(Spoiled::Group(writing.report(fault))),
        }
        engine.committed();
        Ok(answers)
    }
}

/// Does the requests; whether there is something to commit, or the place of the one that failed.
fn do_all<E: Engine>(
    engine: &mut E,
    transaction: &WriteTransaction,
    group: &[Job<E>],
    answers: &mut Vec<Result<E::Answer, StoreError>>,
) -> Result<bool, (usize, Fault)> {
    let mut work = engine.begin(transaction).map_err(|fault| (0, fault))?;
    for (at, job) in group.iter().enumerate() {
        match engine.apply(&mut work, &job.request) {
            Ok(answer) => answers.push(Ok(answer)),
            Err(Fault::Refused(error)) => answers.push(Err(error)),
            Err(fault) => return Err((at, fault)),
        }
    }
    engine.finish(work).map_err(|fault| (0, fault))
}
