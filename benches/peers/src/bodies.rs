//! Large bodies through posthouse, beside as many bytes on a stream of a plain quinn connection. The plain stream goes one
//! way once, and touches no disk; a message crosses two connections, and is on the disk in between.

use std::time::{Duration, Instant};

use crate::floor::Plain;
use crate::posthouse_itself;
use crate::work::Load;

/// Bytes of the bodies.
pub const SIZES: [usize; 2] = [64 << 10, 1 << 20];

/// One pair, and enough on their way that it never waits.
const LOAD: Load = Load { pairs: 1, window: 16 };

/// Megabytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Bodies {
    /// Of bodies, for each of [`SIZES`].
    pub posthouse: [f64; 2],
    /// On the plain stream.
    pub plain: f64,
}

pub async fn run(program: &str, length: Duration) -> anyhow::Result<Bodies> {
    let mut posthouse = [0.0; 2];
    for (bytes, rate) in SIZES.into_iter().zip(&mut posthouse) {
        let figures = posthouse_itself::run(program, LOAD, bytes, length)?;
        *rate = figures.per_second * bytes as f64 / 1e6;
    }
    Ok(Bodies { posthouse, plain: plain_stream(length).await? })
}

async fn plain_stream(length: Duration) -> anyhow::Result<f64> {
    let plain = Plain::start().await?;
    let server = plain.server.clone();
    let reader = plain.thread.spawn(async move {
        let mut stream = server.accept_uni().await?;
        let mut bytes = 0;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
            bytes += chunk.bytes.len();
        }
        anyhow::Ok(bytes)
    });
    let mut stream = plain.client.open_uni().await?;
    let (start, piece) = (Instant::now(), vec![b'.'; SIZES[1]]);
    while start.elapsed() < length {
        stream.write_all(&piece).await?;
    }
    stream.finish()?;
    let bytes = reader.await??;
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}
