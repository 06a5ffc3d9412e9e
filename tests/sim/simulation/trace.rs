//! What happened, line by line: a digest of all of it, and for who reads along the lines themselves.
//!
//! `SIM_TRACE=1` shows what the simulation did and what the program logged, `SIM_TRACE=2` every datagram as well.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ring::digest::{Context, SHA256};
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    Lost,
    Cut,
    Arrived,
    Nowhere,
}

struct State {
    digest: Context,
    datagrams: u64,
    /// 0: nothing is shown.
    show: u8,
    /// The lines, where they are to be compared.
    kept: Option<Vec<String>>,
}

/// See the head of this file. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Trace {
    origin: Instant,
    state: Arc<Mutex<State>>,
}

impl Trace {
    pub(crate) fn new(show: u8, keep: bool) -> Self {
        let state = State { digest: Context::new(&SHA256), datagrams: 0, show, kept: keep.then(Vec::new) };
        Self { origin: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Seconds since the beginning, as people read them.
    fn at(&self) -> String {
        format!("{:10.3}", self.origin.elapsed().as_secs_f64())
    }

    /// Notes a line. What is kept of it is no memory of the simulated world.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        allocation_counter::opt_out(|| self.keep(line));
    }

    fn keep(&self, line: fmt::Arguments<'_>) {
        let line = format!("{} {line}", self.at());
        let mut state = self.state.lock().unwrap();
        state.digest.update(line.as_bytes());
        if state.show > 0 {
            println!("{line}");
        }
        if let Some(kept) = &mut state.kept {
            kept.push(line);
        }
    }

    /// Likewise, what became of a datagram.
    pub(crate) fn datagram(&self, fate: Fate, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        allocation_counter::opt_out(|| self.keep_datagram(fate, from, to, bytes));
    }

    fn keep_datagram(&self, fate: Fate, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let at = self.origin.elapsed();
        let mut state = self.state.lock().unwrap();
        state.datagrams += 1;
        state.digest.update(&at.as_nanos().to_le_bytes());
        state.digest.update(&[fate as u8]);
        state.digest.update(bytes);
        if state.show < 2 && state.kept.is_none() {
            return;
        }
        let hash = ring::digest::digest(&SHA256, bytes);
        let hash = u64::from_be_bytes(*hash.as_ref().first_chunk().unwrap());
        let line = format!("{} {fate:?} {from} > {to} {} {hash:016x}", self.at(), bytes.len());
        if state.show > 1 {
            println!("{line}");
        }
        if let Some(kept) = &mut state.kept {
            kept.push(line);
        }
    }

    /// The digest of all that happened, and the lines if they were kept.
    pub(crate) fn finish(&self) -> (String, u64, Vec<String>) {
        let mut state = self.state.lock().unwrap();
        let digest = state.digest.clone().finish();
        let text = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (text, state.datagrams, state.kept.take().unwrap_or_default())
    }

    /// Shows what the program logs among the other lines, as long as the guard lives.
    pub(crate) fn show_log(&self) -> Option<tracing::subscriber::DefaultGuard> {
        if self.state.lock().unwrap().show == 0 {
            return None;
        }
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(Shown)
            .with_timer(Simulated(self.clone()))
            .finish();
        Some(tracing::subscriber::set_default(tracing_subscriber::layer::SubscriberExt::with(
            subscriber,
            tracing_subscriber::filter::EnvFilter::new("posthouse=debug"),
        )))
    }
}

/// Prints as tests print, so that it is captured.
struct Shown;

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        print!("{}", String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Shown {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        Self
    }
}

struct Simulated(Trace);

impl FormatTime for Simulated {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.at())
    }
}

/// Adds a line to a trace.
macro_rules! note {
    ($trace:expr, $($line:tt)*) => { $trace.note(format_args!($($line)*)) };
}
pub(crate) use note;
