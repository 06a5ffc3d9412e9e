//! What the outbox knows of the session: which requests are unanswered, and what is still to be asked.

use std::collections::VecDeque;

use crate::protocol::Durability;
use crate::time::Moment;

#[derive(Debug)]
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

#[derive(Debug)]
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
