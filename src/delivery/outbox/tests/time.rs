//! Time: repeats, and messages whose lifetime is over.

use super::*;

#[test]
fn an_unanswered_message_is_repeated_with_growing_waits_and_the_relay_then_counts_as_silent() {
    let mut rig = Rig::sending(1);
    let start = rig.now;
    let mut repeats = Vec::new();
    let silent = loop {
        rig.now = rig.outbox.next_timeout().unwrap();
        rig.outbox.on_timeout(rig.now);
        if rig.told().contains(&"silent".to_owned()) {
            break rig.now;
        }
        assert_eq!(rig.out(), ["a1<0"]);
        repeats.push((rig.now - start).as_secs());
    };
    assert_eq!((repeats, (silent - start).as_secs()), (vec![1, 3, 7], 15));
}

#[test]
fn a_lost_answer_is_made_up_for_by_a_repeat_that_is_a_duplicate() {
    let mut rig = Rig::sending(1);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.answers("a1", accepted(true, None));
    assert_eq!(rig.told(), ["duplicate a1"]);
    rig.pass(600 * SECOND);
    assert_eq!(rig.out(), [""; 0]);
}

#[test]
fn a_lost_answer_is_made_up_for_even_if_a_later_message_was_accepted() {
    let mut rig = Rig::sending(3);
    rig.accept("a2");
    rig.accept("a3");
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0"], "it alone");
    rig.answers("a1", accepted(true, None));
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["a4<3"]);
    assert_eq!(rig.told(), ["accepted a2", "accepted a3", "duplicate a1"]);
}

#[test]
fn an_answer_that_comes_late_does_not_take_the_place_of_one_that_is_lost() {
    for late in [accepted(false, None), Answer::Final(REFUSED)] {
        let mut rig = Rig::sending(2);
        rig.pass(SECOND);
        // Set back, and before anything goes out again.
        rig.answers("a2", late);
        rig.told();
        rig.receipts.remove("a2").into_iter().for_each(|receipt| rig.outbox.persisted(receipt));
        assert_eq!(rig.out(), ["a1<0"]);
    }
}

#[test]
fn the_answer_to_the_first_copy_counts_as_well_when_it_comes_at_last() {
    let mut rig = Rig::sending(2);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0", "a2<1"]);
    let first = rig.requests["a1"][0];
    rig.answer(first, accepted(false, None)).unwrap();
    rig.answer(first + 1, accepted(false, None)).unwrap();
    assert_eq!(rig.told(), ["accepted a1", "accepted a2"]);
    rig.answers("a1", accepted(true, None));
    rig.answers("a2", accepted(true, None));
    assert_eq!((rig.told(), rig.out()), (vec![], vec![]));
}

#[test]
fn refusals_of_an_earlier_copy_do_not_hold_the_repeated_one() {
    let mut rig = Rig::sending(1);
    rig.pass(SECOND);
    rig.out();
    let first = rig.requests["a1"][0];
    rig.answer(first, waits(60 * SECOND)).unwrap();
    assert_eq!(rig.told(), [""; 0]);
    rig.accept("a1");
    assert_eq!(rig.told(), ["accepted a1"]);
}

#[test]
fn answers_that_are_lost_for_ever_do_not_fill_the_memory_and_never_stop_the_sender() {
    let mut rig = Rig::sending(1);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.answers("a1", accepted(true, None));
    // The first copy is never answered.
    for n in 2..20_000_u64 {
        rig.add(1, DAY);
        assert_eq!(rig.out(), [format!("a{n}<{}", n - 1)]);
        rig.accept(&format!("a{n}"));
        rig.outcome(n, Verdict::DELIVERED);
        rig.persist(&format!("a{n}"));
    }
}

#[test]
fn a_question_without_an_answer_is_asked_again() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-1"]);
    rig.add(1, DAY);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["where a1-2"], "with what has entered since");
    let void = rig.asked.pop_front().unwrap();
    rig.outbox.on_where_a(rig.now, WhereA { request: void, lanes: vec![row(0)] }).unwrap();
    assert_eq!(rig.out(), [""; 0], "the first answer is void");
    rig.rows(vec![row(1)]);
    assert_eq!(rig.out(), ["a2<1"]);
    assert_eq!(rig.told(), ["duplicate a1"]);
}

#[test]
fn what_was_never_offered_expires_by_itself_for_certain() {
    let mut rig = Rig::new();
    rig.add(1, 5 * SECOND);
    rig.pass(4 * SECOND);
    assert_eq!(rig.told(), [""; 0]);
    rig.pass(SECOND);
    assert_eq!(rig.told(), ["expired a1"]);
}

#[test]
fn what_was_offered_waits_for_the_relays_word() {
    let mut rig = Rig::connected(0);
    rig.add(1, 5 * SECOND);
    rig.out();
    rig.accept("a1");
    rig.told();
    rig.pass(50 * SECOND);
    assert_eq!(rig.told(), [""; 0]);
    rig.outcome(1, EXPIRED);
    assert_eq!(rig.told(), ["expired a1"]);
}

#[test]
fn a_relay_that_stays_silent_leaves_it_open_whether_the_message_was_taken() {
    let mut rig = Rig::connected(0);
    rig.add(1, 5 * SECOND);
    rig.out();
    rig.accept("a1");
    rig.outbox.disconnect();
    rig.told();
    rig.pass(104 * SECOND);
    assert_eq!(rig.told(), [""; 0]);
    rig.pass(SECOND);
    assert_eq!(rig.told(), ["expired? a1"]);
}

#[test]
fn what_an_opening_finds_counts_as_offered() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.pass(DAY + 99 * SECOND);
    assert_eq!(rig.told(), [""; 0]);
    rig.pass(SECOND);
    assert_eq!(rig.told(), ["expired? a1"]);
}

#[test]
fn a_message_given_up_is_durably_so_before_a_later_one_goes_past_it() {
    let mut rig = Rig::connected(0);
    rig.outbox.disconnect();
    rig.add(1, SECOND);
    rig.add(1, DAY);
    rig.pass(2 * SECOND);
    assert_eq!(rig.told(), ["expired a1"]);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a2-2"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), [""; 0]);
    rig.outbox.persisted(rig.receipts.remove("a1").unwrap());
    assert_eq!(rig.out(), ["a2<0"], "and the relay learns that a1 is skipped");
}

#[test]
fn a_lane_on_hold_offers_an_overdue_message_at_once() {
    let mut rig = Rig::connected(0);
    rig.add(1, 5 * SECOND);
    rig.out();
    rig.wait("a1", 60 * SECOND);
    rig.pass(4 * SECOND);
    assert_eq!(rig.out(), [""; 0]);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.answers("a1", Answer::Final(EXPIRED));
    assert_eq!(rig.told(), ["held a", "expired a1"]);
}

#[test]
fn timers_end_with_what_they_are_for() {
    let mut rig = Rig::sending(1);
    rig.accept("a1");
    rig.outcome(1, Verdict::DELIVERED);
    assert_eq!(rig.outbox.next_timeout(), None);
}
