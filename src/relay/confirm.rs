//! When ACK:A leaves: with something that goes the same way anyway, or by itself.
//!
//! Nobody needs it at once, and a datagram of its own costs both sides as much as a message. So it waits a little for company.
//! Where none came the last time it does not: most clients get a message now and then, and a session that has to be looked
//! at once more has left the processor's caches by then.

use std::time::Duration;

use crate::time::Moment;

/// How long ACK:A waits, and how far apart two are that go by themselves. Shorter than the 25 ms after which QUIC would
/// acknowledge ACK:R by itself (RFC 9000, section 18.2), so that the two go together.
const PATIENCE: Duration = Duration::from_millis(20);

/// The ACK:A that one session has to send.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The last ACK:R that came, and by when it is confirmed. Its ACK:A says that those before it have come as well.
    waiting: Option<(u64, Moment)>,
    /// When the last ACK:A went by itself, if nothing came since that could have taken it along, had it waited.
    alone: Option<Moment>,
}

impl Confirmation {
    /// ACK:R has come.
    pub(super) fn ask(&mut self, request: u64, now: Moment) {
        let by = self.due().unwrap_or_else(|| self.alone.unwrap_or(now) + PATIENCE);
        self.waiting = Some((request, by));
    }

    /// By when one has to go.
    pub(super) fn due(&self) -> Option<Moment> {
        self.waiting.map(|(_, by)| by)
    }

    /// Something goes the same way: the request to confirm with it.
    pub(super) fn with_company(&mut self, now: impl FnOnce() -> Moment) -> Option<u64> {
        if self.alone.is_some_and(|alone| now() < alone + PATIENCE) {
            self.alone = None;
        }
        self.waiting.take().map(|(request, _)| request)
    }

    /// Nothing else goes: the request that has to be confirmed all the same.
    pub(super) fn by_itself(&mut self, now: impl FnOnce() -> Moment) -> Option<u64> {
        let (_, by) = self.waiting?;
        let now = now();
        if now < by {
            return None;
        }
        self.alone = Some(now);
        self.waiting.take().map(|(request, _)| request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_waits_for_company_and_then_goes_by_itself() {
        let (start, mut confirmation) = (Moment::default(), Confirmation::default());
        confirmation.ask(1, start);
        confirmation.ask(2, start + 5 * MS);
        assert_eq!(confirmation.due(), Some(start + PATIENCE));
        assert_eq!(confirmation.by_itself(|| start + 19 * MS), None);
        assert_eq!(confirmation.by_itself(|| start + 20 * MS), Some(2));
        assert_eq!((confirmation.due(), confirmation.by_itself(|| start + 99 * MS)), (None, None));
    }

    #[test]
    fn with_something_else_it_goes_at_once() {
        let (start, mut confirmation) = (Moment::default(), Confirmation::default());
        confirmation.ask(1, start);
        assert_eq!(confirmation.with_company(|| start), Some(1));
        assert_eq!((confirmation.due(), confirmation.with_company(|| start)), (None, None));
    }

    #[test]
    fn where_none_came_the_last_time_it_does_not_wait_until_some_would_have_come() {
        let (start, mut confirmation) = (Moment::default(), Confirmation::default());
        confirmation.ask(1, start);
        assert_eq!(confirmation.by_itself(|| start + PATIENCE), Some(1));
        let second = start + 500 * MS;
        confirmation.ask(2, second);
        assert_eq!(confirmation.by_itself(|| second), Some(2));
        // Too late for the answer before it.
        assert_eq!(confirmation.with_company(|| second + 20 * MS), None);
        let third = second + 500 * MS;
        confirmation.ask(3, third);
        assert_eq!(confirmation.by_itself(|| third), Some(3));
        // This would have taken it along.
        assert_eq!(confirmation.with_company(|| third + 19 * MS), None);
        let fourth = third + 500 * MS;
        confirmation.ask(4, fourth);
        assert_eq!(confirmation.by_itself(|| fourth), None);
        assert_eq!(confirmation.due(), Some(fourth + PATIENCE));
    }

    #[test]
    fn those_that_go_by_themselves_are_apart_however_fast_they_are_asked_for() {
        let (start, mut confirmation) = (Moment::default(), Confirmation::default());
        let mut went = Vec::new();
        for ms in 0..200 {
            let now = start + ms * MS;
            confirmation.ask(u64::from(ms), now);
            went.extend(confirmation.by_itself(|| now));
        }
        assert_eq!(went, [20, 40, 60, 80, 100, 120, 140, 160, 180]);
    }
}
