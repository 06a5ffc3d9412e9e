//! What goes on to other relays: outboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Harness, Home, lane, message, peer, rejected};
use crate::id::{LaneId, LaneKey, Pair, RelayId, StoreId};
use crate::protocol::limit::SILENCE_GRACE;
use crate::protocol::{Answer, Order, Outcome, RejectReason, Verdict, WaitReason};
use crate::store::{Append, Done, Fence, Forward, LinkState, Op, Query, RelayStore as _, Settled, outbox_key};

const FULL: Answer = Answer::Wait { reason: WaitReason::OutboxFull, retry_after_ms: 5000 };

fn relay(byte: u8) -> RelayId {
    RelayId::from_bytes([byte; 32])
}

fn forwarded(key: LaneKey, n: u64, to: u8) -> Append {
    let forward = Forward { relay: relay(to), address: format!("relay {to}") };
    Append { forward: Some(forward), ..message(key, n) }
}

fn seqs<H: Harness>(home: &Home<H>, to: u8) -> Vec<u64> {
    let query = Query {
        mailbox: outbox_key(&relay(to)),
        order: Order::Oldest,
        cursor: None,
        sender: None,
        max_messages: 500,
        max_bytes: 1 << 20,
    };
    home.get(home.store().page(query)).messages.iter().map(|message| message.seq).collect()
}

fn resolve<H: Harness>(home: &Home<H>, to: u8, outcomes: impl IntoIterator<Item = (u64, Verdict)>) -> Vec<Settled> {
    let outbox = outbox_key(&relay(to));
    let fence = Fence { peer: outbox, device: 0, epoch: 1 };
    let outcomes: BTreeMap<u64, Verdict> = outcomes.into_iter().collect();
    match home.submit(fence, vec![Op::Resolve { outbox, outcomes }]).pop() {
        Some(Done::Settled(settled)) => settled,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn what_is_forwarded_waits_in_an_outbox_and_its_outcome_is_the_senders<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    for n in 1..=3 {
        assert_eq!(home.append(forwarded(lane(1, 2, 7), n, 9)), home.accepted(false, None));
    }
    assert_eq!(home.append(forwarded(lane(1, 2, 7), 2, 9)), home.accepted(true, None), "a duplicate");
    assert_eq!((home.seqs(2).len(), seqs(&home, 9).len(), seqs(&home, 8).len()), (0, 3, 0));
    let link = LinkState { relay: relay(9), address: "relay 9".to_owned(), store: None, foreign_below: 0, waiting: 3 };
    assert_eq!(home.get(home.store().links()), [link]);
    let waiting = seqs(&home, 9);
    let there = Verdict {
        outcome: Outcome::Rejected { reason: RejectReason::Blocked, text: None, maybe_taken: false },
        relay: Some(relay(9)),
    };
    let settled =
        resolve(&home, 9, [(waiting[0], Verdict::DELIVERED), (waiting[2], there.clone()), (77, there.clone())]);
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].submitter, settled[0].lane), (peer(1), lane(1, 2, 7)));
    assert_eq!(settled[0].delivered, [(1, 1)].into_iter().collect());
    assert_eq!(settled[0].exceptions[0].verdict, there);
    assert_eq!(seqs(&home, 9), [waiting[1]]);
    assert_eq!(resolve(&home, 9, [(waiting[0], there)]), [], "the first outcome stands");
    let state = home.state(lane(1, 2, 7));
    assert_eq!((state.last, state.delivered), (3, [(1, 1)].into_iter().collect()));
}

pub(crate) fn an_outbox_remembers_which_store_it_spoke_to_and_where<H: Harness>(mut home: Home<H>) {
    home.append(forwarded(lane(1, 2, 7), 1, 9));
    let outbox = outbox_key(&relay(9));
    let fence = Fence { peer: outbox, device: 0, epoch: 1 };
    home.submit(fence, vec![Op::Remember { outbox, store: StoreId([5; 16]), foreign_below: 88 }]);
    let moved = Forward { relay: relay(9), address: "elsewhere".to_owned() };
    home.append(Append { forward: Some(moved), ..message(lane(1, 2, 7), 2) });
    if !home.kill() {
        return;
    }
    let expected = LinkState {
        relay: relay(9),
        address: "elsewhere".to_owned(),
        store: Some(StoreId([5; 16])),
        foreign_below: 88,
        waiting: 2,
    };
    assert_eq!(home.get(home.store().links()), [expected]);
}

pub(crate) fn outboxes_are_limited_one_by_one_by_sender_and_together<H: Harness>(home: Home<H>) {
    home.limit(|limits| (limits.outbox_messages, limits.outboxes_messages, limits.pair_percent) = (4, 6, 50));
    let send = |from, n, to| home.append(forwarded(lane(from, 20, u64::from(to)), n, to));
    let accepted = home.accepted(false, None);
    assert_eq!([send(1, 1, 9), send(1, 2, 9)], [const { None }; 2].map(|_: Option<()>| accepted.clone()));
    assert_eq!(send(1, 3, 9), FULL, "a sender's share");
    assert_eq!([send(2, 1, 9), send(2, 2, 9)], [accepted.clone(), accepted.clone()]);
    assert_eq!(send(3, 1, 9), FULL, "the outbox");
    assert_eq!([send(1, 1, 8), send(2, 1, 8)], [accepted.clone(), accepted.clone()]);
    assert_eq!(send(3, 1, 7), FULL, "all outboxes");
    let first = seqs(&home, 9)[0];
    resolve(&home, 9, [(first, Verdict::DELIVERED)]);
    assert_eq!(send(3, 1, 7), accepted);
}

pub(crate) fn what_was_forwarded_waits_for_the_other_relays_word_beyond_its_time<H: Harness>(home: Home<H>) {
    let ttl = Duration::from_secs(10);
    home.append(Append { ttl, ..forwarded(lane(1, 2, 7), 1, 9) });
    home.clock.advance(ttl + SILENCE_GRACE - Duration::from_secs(2));
    assert_eq!(home.get(home.store().expire(10)).settled, []);
    assert_eq!(seqs(&home, 9).len(), 1, "the link may still ask about it");
    home.clock.advance(Duration::from_secs(4));
    let settled = home.get(home.store().expire(10)).settled;
    assert_eq!(settled[0].exceptions[0].verdict, Verdict::here(Outcome::Expired { maybe_taken: true }));
}

pub(crate) fn nobody_writes_to_an_outbox_as_if_it_were_a_peer<H: Harness>(home: Home<H>) {
    // The name can be computed: somebody may have used it before there was an outbox.
    let key = LaneKey { pair: Pair { sender: peer(3), recipient: outbox_key(&relay(9)) }, lane: LaneId(7) };
    assert_eq!(home.append(message(key, 1)), home.accepted(false, None));
    let ttl = Duration::from_secs(10);
    home.append(Append { ttl, ..forwarded(lane(1, 2, 7), 1, 9) });
    assert_eq!(home.append(message(key, 2)), Answer::Final(rejected(RejectReason::UnknownPeer)));
    assert_eq!(seqs(&home, 9).len(), 2);
    home.clock.advance(ttl + SILENCE_GRACE + Duration::from_secs(2));
    let settled = home.get(home.store().expire(10)).settled;
    let ended = settled.iter().find(|settled| settled.submitter == peer(1)).unwrap();
    assert_eq!(
        ended.exceptions[0].verdict,
        Verdict::here(Outcome::Expired { maybe_taken: true }),
        "it may have gone out"
    );
}

pub(crate) fn an_outbox_that_is_empty_and_needed_no_longer_leaves_nothing_behind<H: Harness>(home: Home<H>) {
    let outbox = outbox_key(&relay(9));
    let fence = Fence { peer: outbox, device: 0, epoch: 1 };
    let release = || home.submit(fence, vec![Op::Release { outbox }]);
    assert_eq!(release(), [Done::Done], "there is none");
    home.append(forwarded(lane(1, 2, 7), 1, 9));
    release();
    let first = seqs(&home, 9)[0];
    resolve(&home, 9, [(first, Verdict::DELIVERED)]);
    assert_eq!(home.get(home.store().links()).len(), 1);
    release();
    assert_eq!(home.get(home.store().links()), []);
    assert_eq!(home.state(lane(1, 2, 7)).delivered, [(1, 1)].into_iter().collect(), "its sender may still ask");
    home.append(forwarded(lane(1, 2, 7), 2, 9));
    assert!(seqs(&home, 9)[0] > first, "no seq names two messages");
}
