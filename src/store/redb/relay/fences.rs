//! Which session of each peer and device is the newest: what an older one still has queued is discarded.
//!
//! Kept in memory alone, since an epoch is the process's own. Bounded: the ended sessions that are longest
//! gone are forgotten, and with them goes only the right of even older ones to write, which they do not have.

use std::collections::{BTreeMap, VecDeque};

use crate::id::PeerId;
use crate::store::Fence;

/// Ended sessions that are remembered one by one; about 100 bytes each. Fewer could fence off a session that
/// took longer to begin than so many others took to begin and end.
const REMEMBERED: usize = 16_384;

/// The newest sessions.
#[derive(Debug, Default)]
pub(super) struct Fences {
    newest: BTreeMap<(PeerId, u64), u64>,
    ended: VecDeque<((PeerId, u64), u64)>,
    /// At or below it, who is not among the newest is fenced off.
    forgotten: u64,
}

impl Fences {
    /// Whether a newer session than this one has begun.
    pub(super) fn is_superseded(&self, fence: &Fence) -> bool {
        match self.newest.get(&(fence.peer, fence.device)) {
            Some(newest) => fence.epoch < *newest,
            None => fence.epoch <= self.forgotten,
        }
    }

    pub(super) fn begin(&mut self, who: (PeerId, u64), epoch: u64) {
        let newest = self.newest.entry(who).or_default();
        *newest = epoch.max(*newest);
    }

    /// A session of this peer and device has ended.
    pub(super) fn end(&mut self, who: (PeerId, u64), epoch: u64) {
        if self.newest.get(&who) == Some(&epoch) {
            self.ended.push_back((who, epoch));
        }
        if self.ended.len() > REMEMBERED
            && let Some((who, epoch)) = self.ended.pop_front()
            && self.newest.get(&who) == Some(&epoch)
        {
            self.newest.remove(&who);
            self.forgotten = self.forgotten.max(epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(peer: u32, epoch: u64) -> Fence {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&peer.to_be_bytes());
        Fence { peer: PeerId::from_bytes(key), device: 0, epoch }
    }

    #[test]
    fn older_sessions_stay_fenced_off_when_they_are_forgotten() {
        let mut fences = Fences::default();
        let old = fence(1, 1);
        fences.begin((old.peer, 0), 1);
        assert!(!fences.is_superseded(&old));
        fences.begin((old.peer, 0), 2);
        assert!(fences.is_superseded(&old));
        assert!(!fences.is_superseded(&fence(1, 2)));
        fences.end((old.peer, 0), 2);
        for at in 0..2 * REMEMBERED as u32 {
            let other = fence(100 + at, 100 + u64::from(at));
            fences.begin((other.peer, 0), other.epoch);
            fences.end((other.peer, 0), other.epoch);
        }
        assert!(fences.newest.len() <= REMEMBERED && fences.ended.len() <= REMEMBERED);
        assert!(fences.is_superseded(&old), "an old session came back to life");
        assert!(!fences.is_superseded(&fence(1, 1_000_000)));
    }

    #[test]
    fn the_end_of_an_older_session_does_not_forget_the_newer_one() {
        let mut fences = Fences::default();
        let live = fence(1, 2);
        fences.begin((live.peer, 0), 2);
        fences.end((live.peer, 0), 1);
        for at in 0..2 * REMEMBERED as u32 {
            let other = fence(100 + at, 100 + u64::from(at));
            fences.begin((other.peer, 0), other.epoch);
            fences.end((other.peer, 0), other.epoch);
        }
        assert!(!fences.is_superseded(&live));
    }
}
