//! What every engine of [`RelayStore`] has to keep, as tests that run against each of them.
//!
//! An engine brings a [`Harness`] and says `contract_tests!(its_name, its_harness())`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Append, Done, Expired, Fence, Op, Page, Query, RelayStore, Reply, Settled, StoreError, StoreLimits, Stored,
};
use crate::id::{LaneId, LaneKey, MessageId, Pair, PeerId, RelayId};
use crate::protocol::{
    Answer, Envelope, Exception, Header, LaneState, Order, Outcome, Refusal, RejectReason, Status, Taken, Verdict,
    WaitReason,
};
use crate::ranges::Ranges;
use crate::time::{Clock, Moment, UnixMillis, millis};

pub(crate) mod access;
pub(crate) mod forward;
pub(crate) mod mailbox;
pub(crate) mod outcome;
pub(crate) mod place;
pub(crate) mod told;

/// When the tests begin.
pub(crate) const START: UnixMillis = UnixMillis(1_700_000_000_000);

pub(crate) const EXPIRED: Verdict = Verdict::here(Outcome::Expired { maybe_taken: false });
pub(crate) const MAYBE: Verdict = Verdict::here(Outcome::Expired { maybe_taken: true });

/// A clock that a test sets.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(START.0)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::from_origin(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }

    fn date(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// How to open a store of one engine.
pub(crate) trait Harness {
    type Store: RelayStore;
    /// Opens it, again if it was opened before.
    fn open(&self, clock: &Arc<TestClock>) -> Self::Store;
    fn set_limits(store: &Self::Store, limits: StoreLimits);
    /// Closes it well.
    fn close(store: Self::Store);
    /// Leaves it as a killed process would; false if the engine cannot.
    fn kill(&self, store: Self::Store) -> bool;
    /// Whether the content outlives the store.
    fn keeps(&self) -> bool;
    /// What an engine wants to be true after every test.
    fn check(_: &Self::Store, _: &Home<Self>)
    where
        Self: Sized,
    {
    }
}

/// A store at work in a test.
pub(crate) struct Home<H: Harness> {
    pub(crate) harness: H,
    pub(crate) clock: Arc<TestClock>,
    store: Option<H::Store>,
    runtime: tokio::runtime::Runtime,
    epoch: u64,
    limits: Mutex<StoreLimits>,
}

pub(crate) fn peer(name: u8) -> PeerId {
    PeerId::from_bytes([name; 32])
}

pub(crate) fn lane(from: u8, to: u8, lane: u64) -> LaneKey {
    LaneKey { pair: Pair { sender: peer(from), recipient: peer(to) }, lane: LaneId(lane) }
}

pub(crate) fn rejected(reason: RejectReason) -> Verdict {
    Verdict::here(Outcome::Rejected { reason, text: None, maybe_taken: false })
}

pub(crate) fn refused(words: &str) -> Verdict {
    let (reason, text) = (RejectReason::Refused, Some(words.to_owned()));
    Verdict::here(Outcome::Rejected { reason, text, maybe_taken: false })
}

/// Number `n` of a lane, following `n - 1`, with an hour to live.
pub(crate) fn message(key: LaneKey, n: u64) -> Append {
    let header = Header {
        sender: key.pair.sender,
        relay: RelayId::from_bytes([200; 32]),
        recipient: key.pair.recipient,
        id: MessageId::new(START.0 + n, &[7; 10]),
        lane: key.lane,
        n,
        created: START,
        ttl: Duration::from_secs(3600),
    };
    let envelope = Envelope::new(header, &[n as u8; 100]);
    Append { envelope, signature: None, prev: n - 1, ttl: Duration::from_secs(3600), refuse: None, forward: None }
}

/// Bytes of the envelopes that [`message`] makes.
pub(crate) const MESSAGE_BYTES: u64 = 245;

pub(crate) fn fence(name: u8, epoch: u64) -> Fence {
    Fence { peer: peer(name), device: 0, epoch }
}

pub(crate) fn remote(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

impl<H: Harness> Home<H> {
    pub(crate) fn new(harness: H) -> Self {
        let clock = TestClock::shared();
        let store = Some(harness.open(&clock));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { harness, clock, store, runtime, epoch: 0, limits: Mutex::new(StoreLimits::default()) }
    }

    pub(crate) fn store(&self) -> &H::Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn date(&self) -> UnixMillis {
        self.clock.date()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn get<T>(&self, reply: Reply<T>) -> T {
        self.wait(reply).unwrap()
    }

    pub(crate) fn limit(&self, change: impl FnOnce(&mut StoreLimits)) {
        let mut limits = self.limits.lock().unwrap();
        change(&mut limits);
        H::set_limits(self.store(), limits.clone());
    }

    pub(crate) fn reopen(&mut self) {
        H::close(self.store.take().unwrap());
        self.store = Some(self.harness.open(&self.clock));
    }

    /// Kills and reopens; false if the engine cannot.
    pub(crate) fn kill(&mut self) -> bool {
        let killed = self.harness.kill(self.store.take().unwrap());
        self.store = Some(self.harness.open(&self.clock));
        killed
    }

    pub(crate) fn submit(&self, fence: Fence, batch: Vec<Op>) -> Vec<Done> {
        self.get(self.store().submit(fence, batch))
    }

    pub(crate) fn try_submit(&self, fence: Fence, batch: Vec<Op>) -> Result<Vec<Done>, StoreError> {
        self.wait(self.store().submit(fence, batch))
    }

    /// Begins a session; what it may be used for.
    pub(crate) fn open(&mut self, name: u8) -> (Fence, u64, Status) {
        self.epoch += 1;
        let fence = fence(name, self.epoch);
        match self.submit(fence, vec![Op::Open { remote: remote(u16::from(name)), invitation: None }]).pop() {
            Some(Done::Opened { watermark, status }) => (fence, watermark, status),
            other => panic!("{other:?}"),
        }
    }

    /// Begins a session and ends it, having handed out nothing.
    pub(crate) fn visit(&mut self, name: u8) {
        let (fence, ..) = self.open(name);
        self.submit(fence, vec![Op::End { handed_out: 0 }]);
    }

    pub(crate) fn append(&self, append: Append) -> Answer {
        self.append_full(append).0
    }

    /// Appends as its sender; the answer, and whether it has to be remembered.
    pub(crate) fn append_full(&self, append: Append) -> (Answer, bool) {
        let fence = Fence { peer: append.envelope.header().sender, device: 0, epoch: u64::MAX };
        match self.submit(fence, vec![Op::Append(append)]).pop() {
            Some(Done::Answered { answer, remember }) => (answer, remember),
            other => panic!("{other:?}"),
        }
    }

    /// Appends a run of a lane.
    pub(crate) fn send(&self, key: LaneKey, numbers: std::ops::RangeInclusive<u64>) {
        for n in numbers {
            assert_eq!(self.append(message(key, n)), self.accepted(false, None), "number {n}");
        }
    }

    /// Appends in one batch, as one submitter for all senders.
    pub(crate) fn send_all(&self, messages: impl IntoIterator<Item = Append>) {
        let fence = Fence { peer: peer(250), device: 0, epoch: u64::MAX };
        for done in self.submit(fence, messages.into_iter().map(Op::Append).collect()) {
            assert_eq!(done, Done::Answered { answer: self.accepted(false, None), remember: false });
        }
    }

    pub(crate) fn accepted(&self, duplicate: bool, verdict: Option<Verdict>) -> Answer {
        Answer::Accepted { durability: self.store().durability(), duplicate, ttl_ms: None, verdict }
    }

    pub(crate) fn settle(&self, fence: Fence, answers: Taken, handed_out: u64) -> Vec<Settled> {
        let store = self.store().store_id();
        match self.submit(fence, vec![Op::Settle { store, answers, handed_out, patient: false }]).pop() {
            Some(Done::Settled(settled)) => settled,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn take_all(&self, fence: Fence) -> Vec<Settled> {
        self.settle(fence, taken([(0, u64::MAX)]), u64::MAX)
    }

    pub(crate) fn state(&self, key: LaneKey) -> LaneState {
        let fence = Fence { peer: key.pair.sender, device: 0, epoch: u64::MAX };
        match self.submit(fence, vec![Op::Where(vec![(key, 1, 1000)])]).pop() {
            Some(Done::Lanes(mut lanes)) => lanes.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn close_lane(&self, key: LaneKey) {
        let fence = Fence { peer: key.pair.sender, device: 0, epoch: u64::MAX };
        self.submit(fence, vec![Op::Close(vec![key])]);
    }

    pub(crate) fn page(&self, name: u8, order: Order, cursor: Option<u64>, max_messages: u64) -> Page {
        let mailbox = peer(name);
        self.get(self.store().page(Query { mailbox, order, cursor, sender: None, max_messages, max_bytes: 1 << 20 }))
    }

    /// The `seq`s in a mailbox.
    pub(crate) fn seqs(&self, name: u8) -> Vec<u64> {
        self.page(name, Order::Oldest, None, 500).messages.iter().map(|message| message.seq).collect()
    }

    pub(crate) fn status(&self, name: u8) -> Status {
        self.get(self.store().status(peer(name), None))
    }

    pub(crate) fn expire(&self) -> Expired {
        self.get(self.store().expire(1000))
    }
}

impl<H: Harness> Drop for Home<H> {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(store) = self.store.take()
        {
            H::check(&store, self);
            H::close(store);
        }
    }
}

pub(crate) fn taken<const N: usize>(ranges: [(u64, u64); N]) -> Taken {
    Taken { taken: ranges.into_iter().collect(), refused: Vec::new() }
}

pub(crate) fn settled(key: LaneKey, delivered: &[(u64, u64)], exceptions: &[(u64, u64, Verdict)]) -> Settled {
    let exceptions =
        exceptions.iter().map(|(from, to, verdict)| Exception { from: *from, to: *to, verdict: verdict.clone() });
    Settled {
        submitter: key.pair.sender,
        lane: key,
        delivered: delivered.iter().copied().collect(),
        exceptions: exceptions.collect(),
    }
}

/// All tests of the contract, against one engine.
macro_rules! contract_tests {
    ($engine:ident, $harness:expr) => {
        mod $engine {
            use super::*;
            $crate::store::contract::contract_tests!(@each $harness;
                place {
                    an_older_session_changes_nothing
                    a_device_does_not_fence_off_another
                    seq_grows_with_each_message_and_is_never_given_twice
                    a_killed_store_keeps_what_was_answered
                    watches_see_commits_in_order_and_lag_when_too_slow
                    a_question_asked_after_a_change_sees_it
                    a_lane_is_accepted_in_order_and_once
                    a_message_without_time_left_ends_before_anything_waits
                    final_refusals_are_recorded_or_remembered
                    relays_submit_for_others_without_touching_their_lanes
                    closing_a_lane_keeps_what_is_pending
                    lane_rows_are_limited
                    lane_rows_go_when_they_have_rested
                }
                mailbox {
                    quotas_hold_one_pair_and_all
                    a_mailbox_of_a_peer_never_seen_is_small_and_they_are_few
                    nobody_fills_the_mailbox_of_a_peer_never_seen_alone
                    an_empty_provisional_mailbox_makes_room_for_another
                    closed_access_knows_nobody_new
                    pages_go_on_behind_their_cursor_from_either_end
                    pages_of_one_sender_hold_no_other
                    a_page_is_bounded_but_never_empty_while_something_waits
                    what_ran_out_is_on_no_page
                    pages_of_one_sender_go_on_however_far_apart_its_messages_lie
                    status_counts_without_touching
                    status_tells_the_largest_of_many_senders_in_order
                }
                outcome {
                    settling_is_one_with_the_row
                    settling_ignores_what_was_not_handed_out_or_is_not_there
                    settling_goes_as_far_as_any_session_has_handed_out
                    of_many_ranges_those_with_messages_count
                    a_refusal_is_told_with_its_words_and_is_certain
                    outcomes_in_any_order_are_told_by_lane
                    expiry_says_maybe_taken_exactly_where_it_may_be
                    a_replaced_session_counts_as_having_handed_out_all
                    an_interrupted_session_counts_as_having_handed_out_all
                    a_sweep_is_bounded_and_costs_nothing_when_nothing_is_due
                    a_sweep_goes_on_where_it_stopped_and_tells_in_ranges
                    no_message_ends_before_its_time_nor_a_second_after_it
                    interrupted_clients_are_told_of_once
                }
                forward {
                    what_is_forwarded_waits_in_an_outbox_and_its_outcome_is_the_senders
                    an_outbox_remembers_which_store_it_spoke_to_and_where
                    outboxes_are_limited_one_by_one_by_sender_and_together
                    what_was_forwarded_waits_for_the_other_relays_word_beyond_its_time
                    nobody_writes_to_an_outbox_as_if_it_were_a_peer
                    an_outbox_that_is_empty_and_needed_no_longer_leaves_nothing_behind
                }
                access {
                    an_invitation_is_used_up_by_as_many_new_mailboxes_as_it_was_made_for
                    an_invitation_survives_and_its_uses_do
                    a_relay_of_listed_peers_lets_in_and_writes_to_no_other
                    who_is_blocked_by_the_operator_is_out_and_gets_nothing_more
                    a_mailbox_is_removed_in_steps_and_its_senders_are_told
                    no_outbox_is_removed_as_if_it_were_a_peers
                    a_recipient_says_whose_messages_it_takes
                    a_recipients_list_is_bounded_and_kept_whole
                    a_policy_outlives_no_fence
                    peers_are_listed_page_by_page
                    many_peers_without_a_mailbox_hide_none_behind_them
                    a_stranger_of_an_inviting_relay_is_unknown
                }
                told {
                    what_is_told_about_many_lanes_fits_a_frame_and_an_outbox_learns_all_of_it
                    a_question_about_many_lanes_is_answered_for_one_at_least
                }
            );
        }
    };
    (@each $harness:expr; $($part:ident { $($name:ident)* })*) => {
        $($(#[test] fn $name() {
            $crate::store::contract::$part::$name($crate::store::contract::Home::new($harness));
        })*)*
    };
}
pub(crate) use contract_tests;

#[test]
fn the_samples_have_the_size_they_claim() {
    assert_eq!(message(lane(1, 2, 3), 1).envelope.bytes().len() as u64, MESSAGE_BYTES);
}
