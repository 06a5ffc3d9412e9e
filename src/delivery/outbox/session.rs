//! What the outbox knows of the session: which requests are unanswered, and what is still to be asked.

use std::collections::VecDeque;

use crate::protocol::Durability;
use crate::time::Moment;

#[derive(Debug, Clone)]
pub(super) enum Flight {
    Offer {
        lane: u64,
        n: u64,
        bytes: usize,
        round: u32,
        at: Moment,
        /// It takes part of the window; not once it was given up and sent anew.
        counts: bool,
        first: bool,
    },
    Ask {
        lanes: Vec<(u64, u64, u64)>,
        at: Moment,
    },
    Close {
        lanes: Vec<u64>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) durability: Durability,
    pub(super) next_request: u64,
    /// The unanswered requests, from number `next_request - flights.len()` on; `None` for an answered one.
    pub(super) flights: VecDeque<Option<Flight>>,
    pub(super) window_messages: usize,
    pub(super) window_bytes: usize,
    pub(super) asks: VecDeque<(u64, u64, u64)>,
    pub(super) closes: VecDeque<u64>,
}

impl Session {
    /// Whether one more request may go out, so that at most so many are unanswered. The oldest that nobody
    /// waits for any more make room: their answers are lost. Those that are waited for end by their timer.
    pub(super) fn has_place(&mut self, most: usize) -> bool {
        while self.flights.len() >= most {
            if self.flights.pop_front_if(|flight| !flight.as_ref().is_some_and(Flight::is_awaited)).is_none() {
                return false;
            }
        }
        true
    }
}

impl Flight {
    const fn is_awaited(&self) -> bool {
        matches!(self, Self::Offer { counts: true, .. } | Self::Ask { .. })
    }
}
