//! Sessions: what is remembered of the relay's store, and what a new session makes void.

use super::*;

#[test]
fn nothing_is_asked_or_offered_before_the_store_is_remembered() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.outbox.connect(store(1), Durability::Disk);
    assert_eq!(rig.told(), ["remember 1"]);
    assert_eq!(rig.out(), [""; 0]);
    rig.outbox.remembered();
    assert_eq!(rig.out(), ["where a1-1"]);
}

#[test]
fn a_store_once_remembered_needs_no_second_time() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.outbox.connect(store(1), Durability::Disk);
    assert_eq!(rig.told(), [""; 0]);
    assert_eq!(rig.out(), ["where a1-1"]);
}

#[test]
fn a_reconnect_does_not_go_past_a_store_that_is_still_on_its_way_to_the_disk() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.outbox.connect(store(1), Durability::Disk);
    rig.outbox.disconnect();
    rig.outbox.connect(store(1), Durability::Disk);
    assert_eq!(rig.told(), ["remember 1"]);
    assert_eq!(rig.out(), [""; 0]);
    rig.outbox.remembered();
    assert_eq!(rig.out(), ["where a1-1"]);
}

#[test]
fn a_store_of_an_earlier_session_that_becomes_durable_frees_nothing() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.outbox.connect(store(1), Durability::Disk);
    rig.outbox.connect(store(2), Durability::Disk);
    assert_eq!(rig.told(), ["remember 1", "remember 2"]);
    rig.outbox.remembered();
    assert_eq!(rig.out(), [""; 0], "that was store 1");
    rig.outbox.remembered();
    assert_eq!(rig.out(), ["where a1-1"]);
}

#[test]
fn what_was_offered_to_another_store_may_have_been_taken() {
    let mut rig = Rig::sending(3);
    rig.connect(2);
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["where a1-4"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out().len(), 4);
    rig.answers("a1", Answer::Final(REFUSED));
    rig.answers("a2", Answer::Final(EXPIRED));
    rig.outcome(3, Verdict::DELIVERED);
    rig.answers("a4", Answer::Final(REFUSED));
    assert_eq!(rig.told(), ["rejected? a1", "expired? a2", "accepted a3", "delivered a3", "rejected a4"]);
}

#[test]
fn what_was_never_offered_to_the_other_store_was_not_taken_there() {
    let mut rig = Rig::connected(0);
    rig.outbox.disconnect();
    rig.add(1, DAY);
    rig.connect(2);
    rig.out();
    rig.rows(vec![row(0)]);
    rig.out();
    rig.answers("a1", Answer::Final(EXPIRED));
    assert_eq!(rig.told(), ["expired a1"]);
}

#[test]
fn an_opening_that_does_not_know_the_store_takes_every_message_as_offered_elsewhere() {
    let ends = |known, foreign, connects| {
        let mut rig = Rig::open(known, [Restored { foreign, ..left(0, 0, 1) }]);
        rig.connect(connects);
        rig.out();
        rig.rows(vec![LaneState { exceptions: vec![Exception { from: 1, to: 1, verdict: EXPIRED }], ..row(1) }]);
        rig.told().pop().unwrap()
    };
    assert_eq!(ends(Some(store(1)), false, 1), "expired a1");
    assert_eq!(ends(Some(store(1)), false, 2), "expired? a1");
    assert_eq!(ends(Some(store(1)), true, 1), "expired? a1");
    assert_eq!(ends(None, false, 1), "expired? a1");
}

#[test]
fn in_a_new_session_all_that_waits_goes_out_again_oldest_first() {
    let mut rig = Rig::sending(3);
    rig.accept("a2");
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-3"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["a1<0", "a2<1", "a3<2"], "a2 is gone there, whatever was said of it");
}

#[test]
fn a_message_resolved_before_it_was_sent_is_withdrawn_and_nothing_waits_for_it() {
    let mut rig = Rig::connected(1);
    rig.out();
    rig.outcome(1, Verdict::DELIVERED);
    rig.outbox.withdraw(rig.request("a1"));
    rig.told();
    rig.pass(600 * SECOND);
    assert_eq!(rig.told(), [""; 0], "nobody is silent");
    rig.add(1, DAY);
    assert_eq!(rig.out().len(), 1);
}

#[test]
fn without_a_session_nothing_goes_out_and_nothing_is_taken_for_an_answer() {
    let mut rig = Rig::sending(1);
    rig.outbox.disconnect();
    rig.accept("a1");
    rig.outcome(1, Verdict::DELIVERED);
    assert_eq!((rig.told(), rig.out()), (vec![], vec![]));
}
