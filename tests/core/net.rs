//! Connections: ordered streams that overtake each other, and that are lost as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use posthouse::id::{LaneKey, StoreId};
use posthouse::protocol::{AckA, AckN, AckR, CloseA, CloseR, MsgA, Taken, WhereA, WhereR};

/// The streams of a connection.
pub(crate) const SUBMIT: usize = 0;
pub(crate) const NOTIFY: usize = 1;
pub(crate) const SYNC: usize = 2;
pub(crate) const STREAMS: usize = 3;

/// A message, as far as anybody looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) uid: usize,
    pub(crate) lane: LaneKey,
    pub(crate) n: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Up {
    Message { request: u64, prev: u64, ttl: Duration, letter: Letter },
    Where(WhereR),
    Close(CloseR),
    Answers(AckR),
    Page(Ask),
}

#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) cursor: Option<u64>,
    pub(crate) store: StoreId,
    pub(crate) answers: Taken,
}

#[derive(Debug, Clone)]
pub(crate) enum Down {
    Hello { store: StoreId, watermark: u64 },
    Answer(MsgA),
    Rows(WhereA),
    Closed(CloseA),
    Push { seq: u64, letter: Letter },
    Outcomes(AckN),
    Confirmed(AckA),
    Page { items: Vec<(u64, Letter)>, cursor: Option<u64>, complete: bool },
}

/// One connection. It is gone once neither side has it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// Which relay it leads to.
    pub(crate) relay: usize,
    pub(crate) up: [VecDeque<Up>; STREAMS],
    pub(crate) down: [VecDeque<Down>; STREAMS],
    /// The client has given it up; what it had sent may still arrive.
    pub(crate) client_gone: bool,
    /// The relay has given it up; the client has yet to notice.
    pub(crate) relay_gone: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Net {
    pub(crate) links: BTreeMap<u64, Link>,
    last: u64,
}

impl Net {
    pub(crate) fn connect(&mut self, relay: usize) -> u64 {
        self.last += 1;
        self.links.insert(self.last, Link { relay, ..Link::default() });
        self.last
    }

    /// Sends to the client, if it still listens.
    pub(crate) fn down(&mut self, link: u64, stream: usize, frame: Down) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.client_gone) {
            link.down[stream].push_back(frame);
        }
    }

    /// The frame that was sent last on a stream and is still on its way: the next may melt into it.
    pub(crate) fn last_down(&mut self, link: u64, stream: usize) -> Option<&mut Down> {
        self.links.get_mut(&link)?.down[stream].back_mut()
    }

    pub(crate) fn up(&mut self, link: u64, stream: usize, frame: Up) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.relay_gone) {
            link.up[stream].push_back(frame);
        }
    }

    /// The client gives the connection up.
    pub(crate) fn leave(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.client_gone = true;
            link.down = Default::default();
            if link.relay_gone {
                self.links.remove(&id);
            }
        }
    }

    /// The relay gives the connection up; what it has sent may still arrive.
    pub(crate) fn drop_by_relay(&mut self, id: u64, arrives: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            link.relay_gone = true;
            link.up = Default::default();
            if !arrives {
                link.down = Default::default();
            }
            if link.client_gone {
                self.links.remove(&id);
            }
        }
    }
}
