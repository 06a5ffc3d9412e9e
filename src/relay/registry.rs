//! Who is connected: one seat per peer and device, the newest session in it, and the outcomes it is to be told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::delivery::lane::append;
use crate::id::{LaneKey, PeerId, RelayId};
use crate::mutant::Mutant;
use crate::protocol::limit::{TOLD_BYTES, TOLD_RUNS};
use crate::protocol::{AckN, CloseCode, Exception, RANGE_BYTES};
use crate::ranges::Ranges;
use crate::store::told::Tell;
use crate::store::{Fence, Settled};
use crate::transport::Connection;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics halfway through a change, so a poisoned lock still guards a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All sessions of this relay.
#[derive(Debug, Default)]
pub(super) struct Registry {
    seats: Mutex<HashMap<PeerId, Vec<Arc<Seat>>>>,
    left: Notify,
}

/// A session, as others see it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) fence: Fence,
    is_relay: bool,
    connection: Connection,
    pub(super) outcomes: OutcomeQueue,
}

impl Seat {
    /// Of a peer or a relay, for which so many ranges of outcomes may wait.
    pub(super) fn new(fence: Fence, is_relay: bool, connection: Connection, outcome_ranges: usize) -> Self {
        Self { fence, is_relay, connection, outcomes: OutcomeQueue::new(outcome_ranges) }
    }
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        lock(&self.seats).values().map(Vec::len).sum()
    }

    /// A session begins that takes the place of one that began before the epoch `asked`, which is told and closed. `None`
    /// if a newer one has the seat: it must not give way to somebody who may be dead since.
    pub(super) fn enter(&self, seat: Seat, asked: u64) -> Option<Arc<Seat>> {
        let (fence, seat) = (seat.fence, Arc::new(seat));
        let mut seats = lock(&self.seats);
        let devices = seats.entry(fence.peer).or_default();
        match devices.iter_mut().find(|seat| seat.fence.device == fence.device) {
            Some(old) if old.fence.epoch >= asked && !Mutant::DeadSupersedes.is_planted() => return None,
            Some(old) => {
                old.connection.close(CloseCode::Superseded, "a newer session of this peer took over");
                *old = seat.clone();
            }
            None => devices.push(seat.clone()),
        }
        Some(seat)
    }

    /// A session ended.
    pub(super) fn leave(&self, fence: Fence) {
        let mut seats = lock(&self.seats);
        if let Some(devices) = seats.get_mut(&fence.peer) {
            if Mutant::SeatKept.is_planted() {
                devices.iter().cloned().for_each(std::mem::forget);
            }
            devices.retain(|seat| seat.fence != fence);
            if devices.is_empty() {
                seats.remove(&fence.peer);
            }
        }
        drop(seats);
        self.left.notify_waiters();
    }

    /// Waits until nobody is connected. Cancel-safe.
    pub(super) async fn emptied(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Closes the sessions of these peers. Nothing more reaches them once this returns.
    pub(super) fn close_peers(&self, which: impl Fn(&PeerId) -> bool, code: CloseCode, reason: &str) {
        self.close(|seat| !seat.is_relay && which(&seat.fence.peer), code, reason);
    }

    /// Closes the sessions of relays that are not admitted any more.
    pub(super) fn close_relays(&self, which: impl Fn(&RelayId) -> bool) {
        let which = |seat: &Seat| seat.is_relay && which(&RelayId::from_bytes(*seat.fence.peer.as_bytes()));
        self.close(which, CloseCode::NotAllowed, "this relay takes no messages from that relay");
    }

    /// Closes every session.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        self.close(|_| true, code, reason);
    }

    /// In the order of their peers: no other order is the same in each run of a simulation.
    fn close(&self, which: impl Fn(&Seat) -> bool, code: CloseCode, reason: &str) {
        let seats = lock(&self.seats);
        for seat in seats.iter().collect::<BTreeMap<_, _>>().into_values().flatten().filter(|seat| which(seat)) {
            seat.connection.close(code, reason);
        }
    }
}

impl Tell for Registry {
    fn tell(&self, settled: &Settled) -> Option<u64> {
        let seats = lock(&self.seats);
        let devices = seats.get(&settled.submitter)?;
        for seat in devices {
            if !seat.outcomes.add(settled) {
                seat.connection.close(CloseCode::Overflow, "too many outcomes wait; ask with R:WHERE");
            }
        }
        devices.iter().map(|seat| seat.fence.epoch).max()
    }

    fn session(&self, submitter: PeerId) -> Option<u64> {
        lock(&self.seats).get(&submitter)?.iter().map(|seat| seat.fence.epoch).max()
    }
}

/// Outcomes that wait to be told to one session, gathered by lane, so that they melt into ranges.
#[derive(Debug)]
pub(super) struct OutcomeQueue {
    max_ranges: usize,
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lanes: BTreeMap<LaneKey, (Ranges, Vec<Exception>)>,
    ranges: usize,
}

impl OutcomeQueue {
    fn new(max_ranges: usize) -> Self {
        Self { max_ranges, waiting: Mutex::default(), notify: Notify::new() }
    }

    /// Adds outcomes; false if too many wait.
    fn add(&self, settled: &Settled) -> bool {
        let mut waiting = lock(&self.waiting);
        let (delivered, exceptions) = waiting.lanes.entry(settled.lane).or_default();
        let before = delivered.len() + exceptions.len();
        delivered.extend(&settled.delivered);
        for run in &settled.exceptions {
            append(exceptions, run.clone());
        }
        let after = delivered.len() + exceptions.len();
        // Ranges melt, so there may be fewer than before.
        waiting.ranges = (waiting.ranges + after).saturating_sub(before);
        let fits = waiting.ranges <= self.max_ranges;
        drop(waiting);
        self.notify.notify_one();
        fits
    }

    /// Waits until there is something to tell. Cancel-safe.
    pub(super) async fn changed(&self) {
        loop {
            let notified = self.notify.notified();
            if !lock(&self.waiting).lanes.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Takes what to tell next to a session of `submitter`: of one lane as much as an answer may hold.
    pub(super) fn take(&self, submitter: PeerId) -> Option<AckN> {
        let mut waiting = lock(&self.waiting);
        let mut entry = waiting.lanes.first_entry()?;
        let key = *entry.key();
        let (delivered, exceptions) = entry.get_mut();
        let told = delivered.take_first(TOLD_RUNS);
        let (mut runs, mut bytes) = (0, told.len() * RANGE_BYTES);
        for run in exceptions.iter() {
            bytes += run.max_wire_bytes();
            if told.len() + runs > 0 && (told.len() + runs >= TOLD_RUNS || bytes > TOLD_BYTES) {
                break;
            }
            runs += 1;
        }
        let frame = AckN {
            sender: (key.pair.sender != submitter).then_some(key.pair.sender),
            recipient: key.pair.recipient,
            lane: key.lane,
            exceptions: exceptions.drain(..runs).collect(),
            delivered: told,
        };
        if delivered.is_empty() && exceptions.is_empty() {
            entry.remove();
        }
        waiting.ranges = waiting.ranges.saturating_sub(frame.delivered.len() + frame.exceptions.len());
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::id::{LaneId, Pair};
    use crate::protocol::limit::MAX_FRAME_BYTES;
    use crate::protocol::{Outcome, RejectReason, Verdict, encode};

    const ME: PeerId = PeerId::from_bytes([1; 32]);

    fn settled(lane: u64, from: u64, to: u64) -> Settled {
        let lane = LaneKey { pair: Pair { sender: ME, recipient: ME }, lane: LaneId(lane) };
        Settled { submitter: ME, lane, delivered: [(from, to)].into_iter().collect(), exceptions: vec![] }
    }

    #[test]
    fn outcomes_in_order_cost_one_range_however_many_they_are() {
        let queue = OutcomeQueue::new(2);
        for n in 1..=1000 {
            assert!(queue.add(&settled(1, n, n)));
        }
        let frame = queue.take(ME).unwrap();
        assert_eq!(frame.delivered, [(1, 1000)].into_iter().collect());
        assert_eq!(queue.take(ME), None);
    }

    #[test]
    fn however_many_refusals_wait_each_frame_fits_and_each_is_told_once() {
        let queue = OutcomeQueue::new(20_000);
        let refused = |n: u64| {
            let (reason, text) = (RejectReason::Refused, Some(format!("{n:0>256}")));
            Verdict::here(Outcome::Rejected { reason, text, maybe_taken: false })
        };
        let exceptions: Vec<_> = (1..=9000).map(|n| Exception { from: n, to: n, verdict: refused(n) }).collect();
        for lane in 1..=2 {
            let delivered = (10_000..14_000).step_by(2).collect();
            queue.add(&Settled { delivered, exceptions: exceptions.clone(), ..settled(lane, 0, 0) });
        }
        let mut told = BTreeMap::<LaneId, (Ranges, Vec<Exception>)>::new();
        while let Some(frame) = queue.take(ME) {
            let lane = told.entry(frame.lane).or_default();
            lane.0.extend(&frame.delivered);
            lane.1.extend(frame.exceptions.iter().cloned());
            let mut bytes = BytesMut::new();
            encode(&frame.into(), &mut bytes);
            assert!(bytes.len() < MAX_FRAME_BYTES, "a frame of {} bytes", bytes.len());
        }
        assert_eq!(told.len(), 2);
        for (delivered, refused) in told.into_values() {
            assert_eq!((delivered, refused), ((10_000..14_000).step_by(2).collect(), exceptions.clone()));
        }
        assert_eq!(lock(&queue.waiting).ranges, 0);
    }

    #[test]
    fn scattered_outcomes_are_bounded() {
        let queue = OutcomeQueue::new(2);
        assert!(queue.add(&settled(1, 1, 1)));
        assert!(queue.add(&settled(1, 3, 3)));
        assert!(!queue.add(&settled(1, 5, 5)));
        while queue.take(ME).is_some() {}
        assert!(queue.add(&settled(1, 7, 7)), "what was taken no longer counts");
    }
}
