//! Group commit: requests of many tasks are done together, synced together, then answered.
//!
//! What a request means is the [`Engine`]'s affair; this file gathers, commits, answers, and decides how far a
//! failure reaches. While one group syncs, the next requests queue up, so the groups grow with the load. Where there is a
//! journal, many groups share a transaction: what they change enters the tables at its end, which comes when somebody
//! wants to read, when it has become long, or when there is nothing else to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::ReadTransaction;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::engine::{Beside, Changes, Engine};
use super::fault::Fault;
use super::file::{BUG, StoreFile, Writing};
use super::queue::{GROUP_OPS, Heeds, Job, Queue};
use crate::store::{Reply, StoreError};

/// A group of so many requests shows that many sessions are at work. Then the next one may grow for as long as
/// more keep coming, look after look: all that is done for a group, here and in every session that is answered, is
/// done for more messages at a time.
const BUSY_REQUESTS: usize = 8;
const LOOKS: usize = 10;
const LOOK_PAUSE: Duration = Duration::from_micros(100);

/// How long requests wait that may, or twice as long. A recipient's answers come just before the sender's next message,
/// and two commits would take twice as long as one for both. Nor is the writer woken for them: their senders are told first.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many operations, and bytes of what the journal has, one transaction takes; then all of it enters the tables. More
/// keeps more rows in memory, and makes those who wait meanwhile wait longer.
const TRANSACTION_OPS: usize = 8192;
const TRANSACTION_BYTES: usize = 8 << 20;

/// After so much quiet what is durable enters the tables. Nobody waits for it then.
const PAUSE: Duration = Duration::from_millis(20);

/// After so much quiet the tables are synced, and nothing depends on the journal any more. Where that fails, it is tried
/// after twice as much each time, up to the second value.
const QUIET: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
    /// On a task of the runtime, which gathers requests for so long before each transaction, and does them in two groups;
    /// reads on the call that asks. A slow disk, and the same every time, for simulation.
    Task(Duration),
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
        let shared = Arc::new(Shared {
            file,
            mode,
            engine: Mutex::new(engine),
            queue: Mutex::default(),
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
        let (reply, answer) = oneshot::channel();
        let job = Job::new(request, reply);
        match self.shared.mode {
            WriterMode::Thread | WriterMode::Task(_) => self.shared.enqueue(job),
            WriterMode::Inline if lock(&self.shared.queue).closing => job.answer(Err(StoreError::Closed)),
            WriterMode::Inline => self.shared.carry_out(vec![job], &mut |_, _| ()),
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
            let answer = shared.read(look);
            return Box::pin(async move { answer });
        }
        Box::pin(async move {
            let _permit = shared.reads.acquire().await.map_err(|_| StoreError::Closed)?;
            let reader = shared.clone();
            let read = tokio::task::spawn_blocking(move || reader.read(look)).await;
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

/// What the writer does next.
enum Next {
    Requests,
    /// What is durable enters the tables.
    Settle,
    /// Nothing came for a while, and the tables are not synced.
    Checkpoint,
    /// There will be no more requests.
    End,
}

/// Waits for the next group, which stays empty if the transaction is to end: one that has something to settle, or not.
type Wait<'a, E> = dyn FnMut(bool, &mut Vec<Job<E>>) + 'a;

/// How the work in a transaction ended.
enum Served<A> {
    /// All that was to be done is done, or the journal has it; it has entered the tables, or not.
    Settle(Result<(), Fault>),
    /// The last group has to be synced with the tables. Its answers.
    Commit(Vec<Result<A, StoreError>>),
    /// A reader met an error: with the file opened anew the group may be done.
    Anew,
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
        queue.push(job);
        self.crowded.store(!queue.has_room(), Ordering::Relaxed);
        let calls = queue.calls();
        drop(queue);
        if calls {
            self.call_writer();
        }
    }

    /// Reads. After an error the writer is called, who has the file even while it waits, to open that anew.
    fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let call = || {
            // It looks whether somebody waits while it holds this.
            drop(lock(&self.queue));
            self.call_writer();
        };
        let read = self.file.read_beside(call, look);
        if matches!(read, Err(StoreError::Unavailable(_))) {
            lock(&self.queue).reopen = true;
            self.call_writer();
        }
        read
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

    /// The writer's thread. While it waits, a transaction is at hand, with its tables open: that takes as long as
    /// what a message changes.
    fn run(self: &Arc<Self>) {
        let (mut busy, mut quiet) = (false, QUIET.0);
        loop {
            let mut next = Next::Requests;
            self.carry_out(Vec::new(), &mut |ahead, group| {
                next = self.next_group(busy, ahead, quiet, group);
                busy = group.len() >= BUSY_REQUESTS;
            });
            match next {
                Next::Requests | Next::Settle => {}
                Next::Checkpoint => quiet = if self.sync_tables() { QUIET.0 } else { QUIET.1.min(2 * quiet) },
                Next::End => return self.finish(),
            }
        }
    }

    /// Waits for the next group, which is empty if something else is to be done. `ahead` is true if not all that is
    /// durable is in the tables.
    fn next_group(&self, busy: bool, ahead: bool, quiet: Duration, group: &mut Vec<Job<E>>) -> Next {
        let queue = lock(&self.queue);
        let idle = queue.is_idle();
        if idle && ahead && self.file.was_read() {
            // Who reads page after page finds them at hand.
            return Next::Settle;
        }
        let mut queue = self.wait_a_little(queue, ahead);
        while queue.is_idle() || self.keeps_waiting(ahead) {
            if std::mem::take(&mut queue.reopen) {
                return Next::Requests;
            }
            if self.keeps_waiting(ahead) {
                return Next::Settle;
            }
            queue.heeds = Heeds::All;
            let (patience, next) = match ahead {
                true => (PAUSE, Next::Settle),
                false if self.file.is_logged() => (quiet, Next::Checkpoint),
                false => {
                    queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let waited = self.filled.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            if waited.1.timed_out() && queue.is_idle() {
                return next;
            }
        }
        if idle && queue.is_patient() {
            queue = self.wait_a_little(queue, ahead);
        }
        if busy {
            queue = self.gather(queue, ahead);
        }
        if self.keeps_waiting(ahead) {
            return Next::Settle;
        }
        queue.heeds = Heeds::Nobody;
        *group = queue.take_group();
        self.crowded.store(!queue.has_room(), Ordering::Relaxed);
        drop(queue);
        if group.is_empty() {
            return Next::End;
        }
        self.room.notify_waiters();
        Next::Requests
    }

    /// Whether somebody cannot read since not all that is durable is in the tables.
    fn keeps_waiting(&self, ahead: bool) -> bool {
        ahead && self.file.is_awaited()
    }

    /// Waits for something that has no patience.
    fn wait_a_little<'a>(&self, queue: MutexGuard<'a, Queue<E>>, ahead: bool) -> MutexGuard<'a, Queue<E>> {
        let waits = |queue: &mut Queue<E>| {
            queue.heeds = Heeds::Urgent;
            queue.is_patient() && !queue.reopen && !self.keeps_waiting(ahead)
        };
        let waited = self.filled.wait_timeout_while(queue, PATIENCE, waits);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        queue.heeds = Heeds::Nobody;
        queue
    }

    /// False if that failed.
    fn sync_tables(&self) -> bool {
        let synced = self.file.checkpoint();
        if let Err(error) = &synced {
            tracing::warn!(%error, "the store's tables could not be synced; its journal keeps what they lack");
        }
        synced.is_ok()
    }

    /// Lets the next group grow while requests keep coming.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue<E>>, ahead: bool) -> MutexGuard<'a, Queue<E>> {
        let mut seen = 0;
        for _ in 0..LOOKS {
            let (requests, ops) = queue.len();
            if self.keeps_waiting(ahead) || queue.closing || ops >= GROUP_OPS || requests == seen {
                break;
            }
            seen = requests;
            drop(queue);
            std::thread::sleep(LOOK_PAUSE);
            queue = lock(&self.queue);
        }
        queue
    }

    /// The writer's task.
    async fn run_slowly(self: &Arc<Self>, pause: Duration) {
        loop {
            while self.falls_idle() {
                self.called.notified().await;
            }
            tokio::time::sleep(pause).await;
            let mut group = lock(&self.queue).take_group();
            if group.is_empty() {
                return self.finish();
            }
            self.room.notify_waiters();
            let rest = group.split_off(group.len().div_ceil(2));
            let mut groups = [group, rest].into_iter().filter(|group| !group.is_empty());
            while let Some(group) = groups.next() {
                self.carry_out(group, &mut |_, next| *next = groups.next().unwrap_or_default());
            }
        }
    }

    /// Whether there is nothing to do. Then it is called for whatever comes.
    fn falls_idle(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.heeds = Heeds::All;
        queue.is_idle()
    }

    /// The writer has done all that was queued, and there will be no more.
    fn finish(&self) {
        self.file.close();
        lock(&self.queue).done = true;
        self.room.notify_waiters();
    }

    /// Does a group, and those that `wait` brings, in one transaction.
    fn carry_out(self: &Arc<Self>, group: Vec<Job<E>>, wait: &mut Wait<'_, E>) {
        let mut engine = lock(&self.engine);
        self.answer_all(&mut engine, group, wait);
        if self.mode != WriterMode::Thread
            && let Some(look) = engine.beside()
        {
            drop(engine);
            self.look(look);
        }
    }

    fn look(&self, look: Box<Beside>) {
        if let Err(error) = self.read(look) {
            tracing::warn!(%error, "the store could not be read beside its writer");
        }
    }

    /// Begins what the engine wants to be read, on a thread of its own: it may take seconds, and the runtime may be gone.
    fn look_beside(self: &Arc<Self>, engine: &mut E) {
        if self.mode != WriterMode::Thread {
            return;
        }
        let Some(look) = engine.beside() else { return };
        let shared = self.clone();
        let begun = std::thread::Builder::new().name("store-look".to_owned()).spawn(move || shared.look(look));
        if let Err(error) = begun {
            tracing::warn!(%error, "there is no thread to read the store beside its writer");
        }
    }

    /// Does a group and those that follow, and answers all of them. A request that meets a corrupt row is answered
    /// alone, and the others of its group are done again without it.
    fn answer_all(self: &Arc<Self>, engine: &mut E, mut group: Vec<Job<E>>, wait: &mut Wait<'_, E>) {
        loop {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(engine, &mut group, wait)));
            let spoiled = match attempt.unwrap_or_else(|_| Err(Spoiled::Group(self.file.condemn(BUG)))) {
                Ok(()) => return,
                Err(spoiled) => spoiled,
            };
            engine.aborted();
            match spoiled {
                // Nobody had asked for anything yet, and for whoever comes it is tried again.
                _ if group.is_empty() => wait(false, &mut group),
                Spoiled::Request(at, error) => {
                    tracing::error!(%error, "a row of the store is damaged");
                    group.remove(at).answer(Err(error));
                }
                Spoiled::Group(error) => {
                    engine.failed();
                    tracing::error!(%error, requests = group.len(), "the store could not write");
                    group.drain(..).for_each(|job| job.answer(Err(error.clone())));
                }
            }
            if group.is_empty() {
                return;
            }
        }
    }

    /// Does groups in one transaction.
    fn attempt(
        self: &Arc<Self>,
        engine: &mut E,
        group: &mut Vec<Job<E>>,
        wait: &mut Wait<'_, E>,
    ) -> Result<(), Spoiled> {
        loop {
            let mut writing = self.file.write().map_err(Spoiled::Group)?;
            match self.serve(engine, &mut writing, group, wait) {
                Ok(Served::Settle(written)) => {
                    writing.settle(written);
                    engine.settled();
                }
                Ok(Served::Commit(answers)) => {
                    writing.commit().map_err(Spoiled::Group)?;
                    self.answer(engine, group, answers);
                }
                Ok(Served::Anew) => continue,
                Err(spoiled) => {
                    writing.undo();
                    return Err(spoiled);
                }
            }
            return Ok(());
        }
    }

    /// Does groups until their transaction is to end. Each is answered as soon as it is durable: where the journal has it,
    /// that is before it is in the tables.
    fn serve(
        self: &Arc<Self>,
        engine: &mut E,
        writing: &mut Writing<'_>,
        group: &mut Vec<Job<E>>,
        wait: &mut Wait<'_, E>,
    ) -> Result<Served<E::Answer>, Spoiled> {
        let (transaction, mut pen) = writing.parts();
        let mut work = engine.begin(transaction).map_err(|fault| Spoiled::Group(pen.report(fault)))?;
        let mut ops = 0;
        while ops < TRANSACTION_OPS && pen.entered_bytes().unwrap_or(0) < TRANSACTION_BYTES {
            if group.is_empty() {
                wait(pen.entered_bytes().is_some(), group);
            }
            if group.is_empty() {
                break;
            }
            if self.file.is_broken() {
                return Ok(Served::Anew);
            }
            ops += group.iter().map(Job::ops).sum::<usize>();
            engine.start(&mut work);
            let spoiled = |at, fault| match fault {
                Fault::Corrupt(what) => Spoiled::Request(at, StoreError::Unavailable(what)),
                fault => Spoiled::Group(pen.report(fault)),
            };
            let mut answers = Vec::with_capacity(group.len());
            for (at, job) in group.iter().enumerate() {
                match engine.apply(&mut work, &job.request) {
                    Ok(answer) => answers.push(Ok(answer)),
                    Err(Fault::Refused(error)) => answers.push(Err(error)),
                    Err(fault) => return Err(spoiled(at, fault)),
                }
            }
            let durable = match engine.finish(&mut work).map_err(|fault| spoiled(0, fault))? {
                // Questions alone cost no sync.
                Changes::None => true,
                Changes::Logged(record) => pen.enter(&mut record.borrow_mut()).map_err(Spoiled::Group)?,
                Changes::Some => false,
            };
            if !durable {
                engine.write(&mut work).map_err(|fault| Spoiled::Group(pen.report(fault)))?;
                return Ok(Served::Commit(answers));
            }
            self.answer(engine, group, answers);
        }
        Ok(Served::Settle(if pen.entered_bytes().is_some() { engine.write(&mut work) } else { Ok(()) }))
    }

    /// Answers a group that is durable.
    fn answer(self: &Arc<Self>, engine: &mut E, group: &mut Vec<Job<E>>, answers: Vec<Result<E::Answer, StoreError>>) {
        engine.committed();
        for (job, answer) in group.drain(..).zip(answers) {
            job.answer(answer);
        }
        self.look_beside(engine);
    }
}
