//! What a message costs the server's processor with few pairs and with many: as many messages as it can deliver, and the same
//! number in a second. Beside the former, what an echo on a plain quinn stream does that has as many bytes as a turn of a
//! pair, on as many connections.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::floor::{FRAME_BYTES, Plain, PlainServer};
use crate::posthouse_itself;
use crate::work::{BODY_BYTES, Load};

pub const PAIRS: [u32; 2] = [16, 1000];
/// Messages of a pair on their way.
pub const WINDOWS: [u32; 2] = [1, 16];
/// Messages in a second, by all pairs together: less than half of what a thousand pairs can with one each on its way.
pub const RATE: u32 = 2000;

/// What goes before the measured time.
const WARM_UP: Duration = Duration::from_secs(1);

/// Microseconds of the server's processor: a row for each of [`WINDOWS`], a column for each of [`PAIRS`].
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// For each message.
    pub posthouse: [[f64; 2]; 2],
    /// For each message, [`RATE`] of them in a second.
    pub steady: [f64; 2],
    /// For each echo of a turn.
    pub plain: [[f64; 2]; 2],
}

pub async fn run(program: &str, length: Duration) -> anyhow::Result<Scale> {
    let mut scale = Scale { posthouse: [[0.0; 2]; 2], steady: [0.0; 2], plain: [[0.0; 2]; 2] };
    for (row, window) in WINDOWS.into_iter().enumerate() {
        for (column, pairs) in PAIRS.into_iter().enumerate() {
            let figures = posthouse_itself::run(program, Load { pairs, window }, BODY_BYTES, length)?;
            scale.posthouse[row][column] = figures.server_us;
            scale.plain[row][column] = echoes(2 * pairs, window as usize * FRAME_BYTES, length).await?;
        }
    }
    for (column, pairs) in PAIRS.into_iter().enumerate() {
        scale.steady[column] = posthouse_itself::run_steadily(program, pairs, RATE, length)?.server_us;
    }
    Ok(scale)
}

/// Microseconds of the server's processor for each echo of so many bytes, while each connection always has one on its way.
async fn echoes(connections: u32, bytes: usize, length: Duration) -> anyhow::Result<f64> {
    let server = PlainServer::start()?;
    let mut open = Vec::new();
    // None sends before all are there: the others' handshakes would wait for it.
    for _ in 0..connections {
        open.push(server.connect().await?);
    }
    let (done, mut both) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for plain in open {
        both.spawn_on(answer(plain.server.clone(), bytes), &server.thread);
        both.spawn(ask(plain, bytes, done.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let (cpu, count) = (cpu_of(&server.thread).await?, done.load(Ordering::Relaxed));
    tokio::time::sleep(length).await;
    let (cpu, count) = (cpu_of(&server.thread).await? - cpu, done.load(Ordering::Relaxed) - count);
    if let Some(ended) = both.try_join_next() {
        ended??;
        anyhow::bail!("an echo ended by itself");
    }
    Ok(cpu.as_secs_f64() * 1e6 / count.max(1) as f64)
}

async fn answer(server: quinn::Connection, bytes: usize) -> anyhow::Result<()> {
    let (mut send, mut receive) = server.accept_bi().await?;
    let mut frame = vec![0; bytes];
    loop {
        receive.read_exact(&mut frame).await?;
        send.write_all(&frame).await?;
    }
}

async fn ask(plain: Plain, bytes: usize, done: Arc<AtomicU64>) -> anyhow::Result<()> {
    let (mut send, mut receive) = plain.client.open_bi().await?;
    let mut frame = vec![b'.'; bytes];
    loop {
        send.write_all(&frame).await?;
        receive.read_exact(&mut frame).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// CPU time that the only thread of a runtime has used.
async fn cpu_of(thread: &Handle) -> anyhow::Result<Duration> {
    let told = thread.spawn(async { fs::read_to_string("/proc/thread-self/schedstat") }).await??;
    let nanoseconds = told.split_whitespace().next().context("no time in schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
