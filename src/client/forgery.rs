//! Messages that their senders did not write, on their way to the application: one event for many, so that who
//! floods a client with forgeries gets neither its memory nor its other events.

use std::time::Duration;

use super::event::Event;
use crate::protocol::Header;
use crate::time::Moment;

/// The least time between two events about forgeries.
const PAUSE: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Forgeries {
    /// The first that was not told yet, and how many there are.
    untold: Option<(Header, u64)>,
    /// Nothing is told before this.
    not_before: Option<Moment>,
}

impl Forgeries {
    /// One more.
    pub(super) fn add(&mut self, header: &Header) {
        self.untold.get_or_insert((*header, 0)).1 += 1;
    }

    /// What to tell now.
    pub(super) fn take(&mut self, now: Moment) -> Option<Event> {
        if self.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        let (header, count) = self.untold.take()?;
        self.not_before = Some(now + PAUSE);
        Some(Event::Forged { id: header.id, sender: header.sender, relay: header.relay, count })
    }

    /// When there will be something to tell.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.untold.as_ref().and(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::protocol::sample;
    use crate::store::contract::TestClock;
    use crate::time::Clock as _;

    fn forged(number: u64) -> Header {
        Header { id: MessageId::new(number, &[0; 10]), ..sample(1, b"").header() }
    }

    fn told(event: Option<Event>) -> Option<(MessageId, u64)> {
        event.map(|event| match event {
            Event::Forged { id, count, .. } => (id, count),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_flood_of_forgeries_is_told_at_once_and_then_now_and_again_with_their_number() {
        let clock = TestClock::shared();
        let mut forgeries = Forgeries::default();
        assert_eq!(forgeries.next_timeout(), None);
        forgeries.add(&forged(1));
        assert_eq!(told(forgeries.take(clock.now())), Some((forged(1).id, 1)), "the first at once");
        for number in 2..=10_000 {
            forgeries.add(&forged(number));
            assert_eq!(told(forgeries.take(clock.now())), None);
        }
        assert_eq!(forgeries.next_timeout(), Some(clock.now() + PAUSE), "the others are not left untold");
        clock.advance(PAUSE);
        assert_eq!(told(forgeries.take(clock.now())), Some((forged(2).id, 9_999)));
        assert_eq!((told(forgeries.take(clock.now())), forgeries.next_timeout()), (None, None));
    }
}
