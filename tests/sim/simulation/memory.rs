//! How much memory a run holds: what its thread has allocated and not freed, byte by byte.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Counts what this allocates and frees.
pub(crate) fn count<T>(run: impl FnOnce() -> T) -> T {
    let mut done = None;
    let counted = allocation_counter::measure(|| done = Some(run()));
    HELD.set(HELD.get() + counted.bytes_current);
    done.unwrap()
}

/// Bytes held on this thread, as of the last time that a count ended.
pub(crate) fn held() -> usize {
    usize::try_from(HELD.get()).unwrap_or(0)
}
