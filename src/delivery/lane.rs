//! What a relay remembers of one lane: one row, however many messages went through it.
//!
//! A row knows the last number it has seen and, below it, what is not simply delivered: the numbers that are
//! pending and those that ended otherwise. So a lane whose messages were all delivered costs a few bytes, and a
//! million that expired in a row cost as much as one. Numbers that the relay was led past are exceptions too:
//! nobody will ever know more about them than that they may have been taken elsewhere.

use std::time::Duration;

use crate::protocol::{Exception, LaneState, Outcome, RANGE_BYTES, Verdict};
use crate::ranges::Ranges;
use crate::time::{UnixMillis, millis};

/// Runs of exceptions that one row keeps. Beyond it the lowest are forgotten: their numbers answer `expired`,
/// `maybe_taken` from then on. More cost memory and disk for who lets every other message expire.
pub const MAX_EXCEPTION_RUNS: usize = 1024;

/// Bytes of recipients' words that one row keeps. Beyond it the oldest refusals lose their words, not their
/// reason: a row is written with each commit that touches its lane.
pub const MAX_TEXT_BYTES: usize = 16 << 10;

/// How exactly a row knows when it was last used. Coarse, so that the date alone never makes a row differ.
pub const TOUCH: Duration = Duration::from_secs(3600);

/// The verdict about what nobody knows.
const UNKNOWN: Verdict = Verdict::here(Outcome::Expired { maybe_taken: true });

/// What became of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Never seen here.
    Unseen,
    /// Stored, and without an outcome yet.
    Pending,
    /// It has its outcome.
    Ended(Verdict),
}

/// A relay's memory of one lane of one submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRow {
    pub(super) last: u64,
    pub(super) pending: Ranges,
    pub(super) pending_bytes: u64,
    /// Ascending; never touching where the verdict is the same; disjoint from `pending`.
    pub(super) exceptions: Vec<Exception>,
    /// At or below it, what is neither pending nor an exception is [`UNKNOWN`] instead of delivered.
    pub(super) forgotten: u64,
    /// When it was last used, in units of [`TOUCH`].
    pub(super) touched: u64,
}

impl LaneRow {
    /// The row of a lane of which nothing is known.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        let (pending, exceptions) = (Ranges::new(), Vec::new());
        Self { last: 0, pending, pending_bytes: 0, exceptions, forgotten: 0, touched: coarse(now) }
    }

    /// The last number that the relay holds or has held.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many messages are without an outcome.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending.count()
    }

    /// Their bytes.
    #[must_use]
    pub const fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Since when nothing has been done with it, rounded up to [`TOUCH`]; `None` while something is pending.
    #[must_use]
    pub fn resting_since(&self) -> Option<UnixMillis> {
        self.pending.is_empty().then(|| UnixMillis((self.touched + 1).saturating_mul(millis(TOUCH))))
    }

    /// Notes that `n`, which is above `last`, is stored. The numbers between are skipped.
    pub fn accept(&mut self, n: u64, bytes: u64, now: UnixMillis) {
        self.advance(n, now);
        self.pending.insert(n);
        self.pending_bytes = self.pending_bytes.saturating_add(bytes);
    }

    /// Notes that `n`, which is above `last`, ended on its arrival. The numbers between are skipped.
    pub fn refuse(&mut self, n: u64, verdict: Verdict, now: UnixMillis) {
        self.advance(n, now);
        self.record(vec![Exception { from: n, to: n, verdict }]);
    }

    /// Notes the outcome of a pending number; false if it is not pending.
    pub fn settle(&mut self, n: u64, bytes: u64, verdict: Verdict, now: UnixMillis) -> bool {
        let pending = self.pending.contains(n);
        match verdict {
            _ if !pending => {}
            Verdict::DELIVERED => self.settle_all(&Ranges::one(n), &[], bytes, now),
            verdict => self.settle_all(&Ranges::new(), &[Exception { from: n, to: n, verdict }], bytes, now),
        }
        pending
    }

    /// Notes outcomes, of so many bytes in all: what was delivered, and what ended otherwise. Numbers that are not
    /// pending stay as they are. Many at once cost one walk over the row, however many gaps it has.
    pub fn settle_all(&mut self, delivered: &Ranges, others: &[Exception], bytes: u64, now: UnixMillis) {
        // Below the mark delivered is not the rule any more, so it is an exception and gets lost with them.
        let uncommon = delivered.within(0, self.forgotten);
        let uncommon = uncommon.iter().map(|(from, to)| Exception { from, to, verdict: Verdict::DELIVERED });
        let mut ended = Vec::new();
        for run in others.iter().cloned().chain(uncommon) {
            let pending = self.pending.within(run.from, run.to);
            ended.extend(pending.iter().map(|(from, to)| Exception { from, to, ..run.clone() }));
        }
        ended.sort_by_key(|run| run.from);
        let mut gone: Ranges = others.iter().map(|run| (run.from, run.to)).collect();
        gone.extend(delivered);
        self.pending = without(&self.pending, &gone);
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        self.touched = self.touched.max(coarse(now));
        // A number has one outcome.
        let mut end = 0;
        ended.retain_mut(|run| {
            run.from = run.from.max(end + 1);
            end = end.max(run.to);
            run.from <= run.to
        });
        self.record(ended);
    }

    /// What became of a number.
    #[must_use]
    pub fn fate(&self, n: u64) -> Fate {
        if n > self.last { Fate::Unseen } else { self.run_at(n).1 }
    }

    /// What became of `from..=to`, in at most `max_runs` runs and `max_bytes` of a frame; one run always.
    #[must_use]
    pub fn state(&self, from: u64, to: u64, max_runs: usize, max_bytes: usize) -> LaneState {
        let (mut at, end) = (from.max(1), to.min(self.last));
        let mut state = LaneState { last: self.last, upto: to, delivered: Ranges::new(), exceptions: Vec::new() };
        let mut bytes = LaneState::BYTES;
        while at <= end {
            let (until, fate) = self.run_at(at);
            let until = until.min(end);
            if let Fate::Ended(verdict) = fate {
                let run = Exception { from: at, to: until, verdict };
                let delivered = run.verdict == Verdict::DELIVERED;
                bytes += if delivered { RANGE_BYTES } else { run.max_wire_bytes() };
                let runs = state.delivered.len() + state.exceptions.len();
                if runs > 0 && (runs >= max_runs || bytes > max_bytes) {
                    state.upto = at - 1;
                    break;
                }
                if delivered {
                    state.delivered.insert_range(at, until);
                } else {
                    append(&mut state.exceptions, run);
                }
            }
            at = until.saturating_add(1);
        }
        state
    }

    /// The answer where there is no row.
    #[must_use]
    pub const fn absent(to: u64) -> LaneState {
        LaneState { last: 0, upto: to, delivered: Ranges::new(), exceptions: Vec::new() }
    }

    fn advance(&mut self, n: u64, now: UnixMillis) {
        debug_assert!(n > self.last, "a number is accepted once");
        if n > self.last.saturating_add(1) {
            self.record(vec![Exception { from: self.last + 1, to: n - 1, verdict: UNKNOWN }]);
        }
        self.last = n;
        self.touched = self.touched.max(coarse(now));
    }

    /// The run of like numbers that `at`, which is at most `last`, stands in: its end, and what became of it.
    fn run_at(&self, at: u64) -> (u64, Fate) {
        let next = self.exceptions.get(self.exceptions.partition_point(|run| run.to < at));
        if let Some(run) = next.filter(|run| run.from <= at) {
            return (run.to, Fate::Ended(run.verdict.clone()));
        }
        let pending = self.pending.range_from(at);
        if let Some((_, to)) = pending.filter(|(from, _)| *from <= at) {
            return (to, Fate::Pending);
        }
        let before_run = next.map_or(self.last, |run| run.from - 1);
        let until = before_run.min(pending.map_or(self.last, |(from, _)| from - 1));
        if at <= self.forgotten {
            return (until.min(self.forgotten), Fate::Ended(UNKNOWN));
        }
        (until, Fate::Ended(Verdict::DELIVERED))
    }

    /// Notes exceptions that are disjoint and ascending.
    fn record(&mut self, runs: Vec<Exception>) {
        let Some(first) = runs.first().map(|run| run.from) else { return };
        let has_text = runs.iter().any(|run| text_bytes(&run.verdict) > 0);
        let at = self.exceptions.partition_point(|run| run.to < first);
        let mut above = self.exceptions.split_off(at);
        above.extend(runs);
        // Of two ascending parts this is one walk.
        above.sort_by_key(|run| run.from);
        for run in above {
            append(&mut self.exceptions, run);
        }
        if has_text {
            self.bound_texts();
        }
        let surplus = self.exceptions.len().saturating_sub(MAX_EXCEPTION_RUNS);
        for run in self.exceptions.drain(..surplus) {
            self.forgotten = self.forgotten.max(run.to);
        }
    }

    fn bound_texts(&mut self) {
        let mut surplus = self.exceptions.iter().map(|run| text_bytes(&run.verdict)).sum::<usize>();
        if surplus <= MAX_TEXT_BYTES {
            return;
        }
        surplus -= MAX_TEXT_BYTES;
        let mut runs = Vec::with_capacity(self.exceptions.len());
        for mut run in self.exceptions.drain(..) {
            if surplus > 0
                && let Outcome::Rejected { text: text @ Some(_), .. } = &mut run.verdict.outcome
            {
                surplus = surplus.saturating_sub(text.take().map_or(0, |text| text.len()));
            }
            append(&mut runs, run);
        }
        self.exceptions = runs;
    }
}

/// The numbers that are not among others.
fn without(numbers: &Ranges, gone: &Ranges) -> Ranges {
    let mut left = Ranges::new();
    for (from, to) in numbers.iter() {
        let mut at = Some(from);
        while let Some(begin) = at {
            let next = gone.range_from(begin).filter(|(low, _)| *low <= to);
            left.insert_range(begin, next.map_or(to, |(low, _)| low.saturating_sub(1)));
            at = next.and_then(|(_, high)| high.checked_add(1)).filter(|begin| *begin <= to);
        }
    }
    left
}

fn coarse(date: UnixMillis) -> u64 {
    date.0 / millis(TOUCH)
}

fn text_bytes(verdict: &Verdict) -> usize {
    match &verdict.outcome {
        Outcome::Rejected { text: Some(text), .. } => text.len(),
        _ => 0,
    }
}

/// Appends a run; it melts into the last one if it goes on from it with the same verdict.
pub(crate) fn append(runs: &mut Vec<Exception>, run: Exception) {
    match runs.last_mut() {
        Some(last) if last.to.saturating_add(1) == run.from && last.verdict == run.verdict => last.to = run.to,
        _ => runs.push(run),
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
