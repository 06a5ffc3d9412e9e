//! Real relays, real clients and real QUIC in a simulated world: network, disks, clocks, crashes.
//!
//! | module | charge |
//! | --- | --- |
//! | `plan`, `chance` | what a seed makes of the world |
//! | `world`, `stage` | one run from its beginning to its end, and what all in it share |
//! | `relay`, `peer`, `machine`, `life` | hosts: processes that die and live again, with their applications |
//! | `forger` | a relay that lies |
//! | `net`, `disk` (on the `platter` that the stores' own tests use), `date`, `crypto` | what a process otherwise has from its machine |
//! | `backup` | what an operator does with a store |
//! | `ledger` | the oracle: what was promised, held against what happened |
//! | `memory` | what all of it holds in memory |
//! | `trace` | what happened, to be compared and to be read |
//!
//! Everything of a run happens on one thread, in tokio's paused time: it jumps to the next timer as soon as nobody has
//! anything to do.

mod backup;
mod chance;
mod crypto;
mod date;
mod disk;
mod forger;
mod ledger;
mod life;
mod machine;
mod memory;
mod net;
mod peer;
mod plan;
#[path = "../../../src/store/redb/platter.rs"]
mod platter;
mod relay;
mod stage;
mod trace;
mod world;

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use chance::Chance;
pub(crate) use ledger::Counts;
use plan::Plan;
use stage::Stage;
use trace::Trace;
use world::World;

/// What to keep of a run beside its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    /// 0: nothing is shown; 1: what happens; 2: every datagram.
    pub(crate) show: u8,
    /// Keep the lines.
    pub(crate) keep: bool,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How long it took after everything had healed, or the promise that was broken.
    pub(crate) result: Result<Duration, String>,
    pub(crate) counts: Counts,
    /// Simulated time.
    pub(crate) simulated: Duration,
    pub(crate) datagrams: u64,
    pub(crate) digest: String,
    pub(crate) lines: Vec<String>,
}

/// How much of a run is counted at a time.
const PIECE: Duration = Duration::from_millis(500);

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics in tasks are nobody's business otherwise: the first one of a thread is kept.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if let Some(seed) = thread.name().filter(|name| name.starts_with("seed ")) {
                // Said at once as well: a panic on top of it would end all.
                eprintln!("{seed}: {info}");
                PANIC.with_borrow_mut(|kept| _ = kept.get_or_insert_with(|| info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs one seed, on a thread of its own: nothing of another run is left there.
pub(crate) fn run(seed: u64, watch: Watch) -> Ended {
    run_with(seed, watch, || ())
}

/// The same with something on that thread which is held until the end.
pub(crate) fn run_with<T>(seed: u64, watch: Watch, hold: impl FnOnce() -> T + Send) -> Ended {
    watch_panics();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("seed {seed}"));
        let run = || {
            let _held = hold();
            run_here(seed, watch)
        };
        thread.spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

/// Runs one seed on this thread.
fn run_here(seed: u64, watch: Watch) -> Ended {
    PANIC.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let run = async {
        let trace = Trace::new(watch.show, watch.keep);
        let _log = trace.show_log();
        let mut chance = Chance::new(seed);
        crypto::set_chance(chance.fork());
        let plan = Plan::new(&mut chance);
        trace.note(format_args!("seed {seed}: {plan:#?}"));
        let begun = tokio::time::Instant::now();
        let stage = Stage::new(plan, chance, trace.clone());
        let mut result = World::begin(&stage).run().await;
        if let Some(panic) = PANIC.take() {
            result = Err(panic);
        }
        let counts = stage.ledger().counts();
        trace.note(format_args!("{result:?}, {counts:?}"));
        let simulated = begun.elapsed();
        let (digest, datagrams, lines) = trace.finish();
        Ended { result, counts, simulated, datagrams, digest, lines }
    };
    let mut run = std::pin::pin!(run);
    // Piece by piece, so that what is held in between is known.
    let ended = loop {
        let piece = memory::count(|| runtime.block_on(async { tokio::time::timeout(PIECE, &mut run).await }));
        if let Ok(ended) = piece {
            break ended;
        }
    };
    // What is left of the dead ends with the runtime.
    runtime.shutdown_background();
    ended
}
