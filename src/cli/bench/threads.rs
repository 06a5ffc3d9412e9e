//! The threads that pairs of clients live on, one for each processor. Each has a runtime of its own, as programs that
//! make load have it: a runtime that moves tasks to whichever thread is free would wake a second one for nearly every
//! step of a message, and take a fifth of both processors for that.

use std::future;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};

/// See the head of this file. They end with the process.
pub(super) struct Threads {
    all: Vec<Handle>,
    given: AtomicUsize,
}

impl Threads {
    pub(super) fn start() -> anyhow::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let all = (1..=processors).map(start).collect::<Result<_, _>>()?;
        Ok(Self { all, given: AtomicUsize::new(0) })
    }

    /// Each in turn.
    pub(super) fn next(&self) -> Handle {
        let turn = self.given.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        self.all.get(turn).cloned().unwrap_or_else(Handle::current)
    }
}

/// A thread, and what starts tasks on it.
fn start(number: usize) -> anyhow::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let handle = runtime.handle().clone();
    let live = move || runtime.block_on(future::pending::<()>());
    thread::Builder::new().name(format!("clients-{number}")).spawn(live).context("no thread for clients")?;
    Ok(handle)
}
