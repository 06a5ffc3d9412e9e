//! The relay's push window: which MSG:N wait for their ACK:R, and when to send them again.
//!
//! The window never holds more than the client's credit. An unanswered message is repeated, each time after
//! twice the wait, and after the last attempt the session is given up as stalled: its messages stay in the
//! mailbox.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::Moment;

/// How often a message is sent before the session counts as stalled.
pub(super) const MAX_ATTEMPTS: u64 = 5;

/// The session did not acknowledge a message in five attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// The first such message.
    pub seq: u64,
}

/// A message to send again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat<T> {
    /// Its place in the mailbox.
    pub seq: u64,
    /// Which attempt this is, from 2.
    pub attempt: u64,
    /// What the shell kept with it.
    pub item: T,
}

#[derive(Debug, Clone)]
struct Pushed<T> {
    item: T,
    bytes: usize,
    attempt: u64,
}

/// The messages that were pushed and not yet answered. `T` is what the shell needs to push one again.
#[derive(Debug, Clone)]
pub struct PushWindow<T> {
    max_messages: usize,
    max_bytes: usize,
    ack_timeout: Duration,
    waiting: BTreeMap<u64, Pushed<T>>,
    bytes: usize,
    /// When to look at which message; those answered meanwhile are passed over. One queue for each attempt,
    /// since all in it wait equally long: so each is in order of time.
    timers: [VecDeque<(Moment, u64)>; MAX_ATTEMPTS as usize],
}

impl<T: Clone> PushWindow<T> {
    /// A window of this credit.
    #[must_use]
    pub fn new(max_messages: usize, max_bytes: usize, ack_timeout: Duration) -> Self {
        let timers = std::array::from_fn(|_| VecDeque::new());
        Self { max_messages, max_bytes, ack_timeout, waiting: BTreeMap::new(), bytes: 0, timers }
    }

    /// How many messages may be pushed now, as far as their number goes.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes >= self.max_bytes && !self.waiting.is_empty() {
            return 0;
        }
        self.max_messages.saturating_sub(self.waiting.len())
    }

    /// Whether a message of this size may be pushed now. The first one always may, or a large one never would.
    #[must_use]
    pub fn admits(&self, bytes: usize) -> bool {
        self.room() > 0 && (self.waiting.is_empty() || self.bytes.saturating_add(bytes) <= self.max_bytes)
    }

    /// A message goes out for the first time.
    pub fn push(&mut self, now: Moment, seq: u64, bytes: usize, item: T) {
        self.bytes += bytes;
        self.waiting.insert(seq, Pushed { item, bytes, attempt: 1 });
        self.time(now, seq, 1);
    }

    /// The client answered for a message. `None` if it was not waiting: answered before, or never pushed.
    pub fn answered(&mut self, seq: u64) -> Option<T> {
        let pushed = self.waiting.remove(&seq)?;
        self.bytes -= pushed.bytes;
        Some(pushed.item)
    }

    /// The messages waiting within a range of `seq`: what an acknowledged range is about.
    #[must_use]
    pub fn within(&self, from: u64, to: u64) -> Vec<u64> {
        if from > to { Vec::new() } else { self.waiting.range(from..=to).map(|(seq, _)| *seq).collect() }
    }

    /// When [`on_timeout`](Self::on_timeout) has something to do.
    #[must_use]
    pub fn next_timeout(&mut self) -> Option<Moment> {
        for (attempt, queue) in (1..).zip(&mut self.timers) {
            // Answered ones are dropped here, so that the timer never fires for nothing.
            while let Some((_, seq)) = queue.front() {
                if self.waiting.get(seq).is_some_and(|pushed| pushed.attempt == attempt) {
                    break;
                }
                queue.pop_front();
            }
        }
        self.timers.iter().filter_map(|queue| queue.front()).map(|(at, _)| *at).min()
    }

    /// The messages to send again now.
    ///
    /// # Errors
    /// [`Stalled`]: a message was tried for the last time; the session is to be closed.
    pub fn on_timeout(&mut self, now: Moment) -> Result<Vec<Repeat<T>>, Stalled> {
        let mut repeats = Vec::new();
        while self.next_timeout().is_some_and(|at| at <= now) {
            for queue in 0..self.timers.len() {
                let due = self.timers.get_mut(queue).and_then(|timers| timers.pop_front_if(|(at, _)| *at <= now));
                let Some((_, seq)) = due else { continue };
                let Some(pushed) = self.waiting.get_mut(&seq) else { continue };
                if pushed.attempt == MAX_ATTEMPTS {
                    return Err(Stalled { seq });
                }
                pushed.attempt += 1;
                let attempt = pushed.attempt;
                repeats.push(Repeat { seq, attempt, item: pushed.item.clone() });
                self.time(now, seq, attempt);
            }
        }
        Ok(repeats)
    }

    fn time(&mut self, now: Moment, seq: u64, attempt: u64) {
        let doublings = u32::try_from(attempt - 1).unwrap_or(u32::MAX);
        let at = now + self.ack_timeout.saturating_mul(1 << doublings.min(16));
        let queue = usize::try_from(attempt - 1).unwrap_or(usize::MAX);
        if let Some(timers) = self.timers.get_mut(queue) {
            timers.push_back((at, seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn window() -> PushWindow<&'static str> {
        PushWindow::new(3, 100, Duration::from_millis(10))
    }

    #[test]
    fn the_window_never_holds_more_than_the_credit() {
        let mut window = window();
        assert!(window.admits(1000), "one message always may go");
        window.push(at(0), 1, 60, "a");
        assert!(window.admits(40) && !window.admits(41));
        window.push(at(0), 2, 40, "b");
        assert_eq!(window.room(), 0, "the bytes are used up");
        assert_eq!(window.answered(1), Some("a"));
        assert_eq!(window.answered(1), None, "an answer counts once");
        window.push(at(0), 3, 1, "c");
        window.push(at(0), 4, 1, "d");
        assert_eq!(window.room(), 0, "the messages are used up");
        assert_eq!(window.within(3, 9), [3, 4]);
    }

    #[test]
    fn an_unanswered_message_is_repeated_with_growing_waits_and_then_the_session_is_stalled() {
        let mut window = window();
        window.push(at(0), 1, 1, "a");
        window.push(at(0), 2, 1, "b");
        assert_eq!(window.on_timeout(at(9)), Ok(vec![]));
        window.answered(2);
        let mut times = vec![];
        loop {
            let next = window.next_timeout().unwrap();
            match window.on_timeout(next) {
                Ok(repeats) => times.extend(repeats.iter().map(|repeat| (next, repeat.seq, repeat.attempt))),
                Err(stalled) => break assert_eq!(stalled, Stalled { seq: 1 }),
            }
        }
        assert_eq!(times, [(at(10), 1, 2), (at(30), 1, 3), (at(70), 1, 4), (at(150), 1, 5)]);
    }

    #[test]
    fn nothing_waits_when_all_is_answered() {
        let mut window = window();
        window.push(at(0), 1, 1, "a");
        window.answered(1);
        assert_eq!(window.next_timeout(), None);
    }
}
