//! Places: lanes, their order, and what the relay says about where they stand.

use super::*;

#[test]
fn nothing_goes_out_on_a_lane_before_the_answer_about_it() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.add(1, DAY);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-2"]);
    rig.add(1, DAY);
    assert_eq!(rig.out(), [""; 0], "not even a new one");
    rig.rows(vec![row(1)]);
    assert_eq!(rig.out(), ["a2<1", "a3<2"]);
    assert_eq!(rig.told(), ["duplicate a1"]);
}

#[test]
fn what_enters_before_the_question_goes_out_is_part_of_it() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.connect(1);
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["where a1-2"]);
}

#[test]
fn a_lane_without_messages_needs_no_question() {
    let mut rig = Rig::connected(1);
    assert_eq!(rig.out(), ["a1<0"]);
}

#[test]
fn lanes_of_several_pairs_are_asked_about_at_once_and_answered_each_for_itself() {
    let mut rig = Rig::new();
    rig.add(1, DAY);
    rig.add(2, DAY);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-1 b1-1"]);
    // Fewer rows than asked for: the other is asked about again.
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["where b1-1", "a1<0"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["b1<0"]);
}

#[test]
fn a_row_that_ends_early_is_asked_for_further_and_the_lane_waits() {
    let mut rig = Rig::new();
    for _ in 0..6 {
        rig.add(1, DAY);
    }
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-6"]);
    rig.rows(vec![LaneState { upto: 2, delivered: [1].into_iter().collect(), ..row(5) }]);
    assert_eq!(rig.told(), ["accepted a1", "delivered a1", "duplicate a2"]);
    assert_eq!(rig.out(), ["where a3-6"]);
    rig.rows(vec![LaneState { upto: 6, delivered: [4].into_iter().collect(), ..row(5) }]);
    assert_eq!(set(rig.told()), set(["accepted a4", "delivered a4", "duplicate a3", "duplicate a5"].map(String::from)));
    assert_eq!(rig.out(), ["a6<5"]);
}

#[test]
fn an_opening_makes_a_lane_of_its_own_and_finishes_the_older_ones() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 7)]);
    rig.add(1, DAY);
    rig.connect(1);
    assert_eq!(rig.keys, ["a7", "b1"]);
    assert_eq!(rig.out(), ["where a7-7 b1-1"]);
}

#[test]
fn a_lane_waits_for_the_answers_about_older_ones_of_its_pair_and_for_their_acceptance() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1), left(1, 1, 1)]);
    rig.connect(1);
    rig.add(1, DAY);
    rig.add(2, DAY);
    assert_eq!(rig.out(), ["where a1-1 b1-1", "d1<0"], "another pair's lane does not wait");
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["where b1-1", "a1<0"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), [""; 0]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["b1<0"]);
    rig.accept("b1");
    assert_eq!(rig.out(), ["c1<0"]);
}

#[test]
fn a_lane_waits_even_if_the_older_one_was_accepted_in_an_earlier_session() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.connect(1);
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["where a1-1"]);
    rig.rows(vec![row(1)]);
    assert_eq!(rig.out(), ["b1<0"]);
    // The relay lost its disk: a1 has to be there again before b1.
    rig.connect(2);
    assert_eq!(rig.out(), ["where a1-1 b1-1"]);
    rig.rows(vec![row(0), row(0)]);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["b1<0"]);
}

#[test]
fn a_lane_waits_for_an_older_one_that_was_accepted_and_may_be_gone() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.connect(1);
    rig.out();
    rig.rows(vec![row(1)]);
    rig.connect(2);
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["where a1-1"], "and nothing of the lane that needs no question");
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["a1<0"]);
}

#[test]
fn what_enters_after_the_question_is_offered_whatever_the_answer_says() {
    // A forwarding outbox put back from an older copy: the other relay is further on than this one knows.
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-1"]);
    let late = |key, n| Entry { key, ..left(key, 0, n).entry };
    rig.keys.extend(["a2".to_owned(), "a3".to_owned()]);
    rig.outbox.add(late(1, 2));
    rig.rows(vec![LaneState { delivered: [(1, 3)].into_iter().collect(), ..row(3) }]);
    assert_eq!(rig.told(), ["accepted a1", "delivered a1"], "the answer speaks of what was held when it was asked");
    assert_eq!(rig.out(), ["a2<1"]);
    rig.outbox.add(late(2, 3));
    assert_eq!(rig.out(), ["a3<2"], "behind the cursor as well");
    rig.answers("a2", accepted(true, Some(Verdict::DELIVERED)));
    rig.answers("a3", accepted(true, None));
    assert_eq!(rig.told(), ["duplicate a2", "delivered a2", "duplicate a3"]);
}

#[test]
fn an_outcome_told_of_another_life_of_a_late_message_does_not_count() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 1)]);
    rig.connect(1);
    rig.out();
    rig.keys.push("a2".to_owned());
    rig.outbox.add(left(1, 0, 2).entry);
    rig.outcome(2, EXPIRED);
    assert_eq!(rig.told(), [""; 0]);
}

#[test]
fn what_the_relay_does_not_have_any_more_is_offered_again_and_what_is_resolved_is_resolved() {
    let mut rig = Rig::sending(4);
    for message in ["a1", "a2", "a3", "a4"] {
        rig.accept(message);
    }
    rig.told();
    rig.connect(2);
    assert_eq!(rig.out(), ["where a1-4"]);
    let exceptions = vec![Exception { from: 2, to: 2, verdict: REFUSED }];
    rig.rows(vec![LaneState { delivered: [1].into_iter().collect(), exceptions, ..row(2) }]);
    assert_eq!(rig.told(), ["delivered a1", "rejected? a2"]);
    assert_eq!(rig.out(), ["a3<2", "a4<3"]);
}

#[test]
fn a_question_is_not_asked_about_what_was_resolved_meanwhile() {
    let mut rig = Rig::new();
    rig.add(1, SECOND);
    rig.add(2, DAY);
    rig.outbox.connect(store(1), Durability::Disk);
    rig.pass(2 * SECOND);
    assert_eq!(rig.told(), ["remember 1", "expired a1"]);
    rig.outbox.remembered();
    assert_eq!(rig.out(), ["where b1-1"]);
    let mut rig = Rig::new();
    rig.add(1, SECOND);
    rig.outbox.connect(store(1), Durability::Disk);
    rig.pass(2 * SECOND);
    rig.outbox.remembered();
    assert_eq!(rig.out(), [""; 0], "nor about nothing");
}

#[test]
fn a_lane_is_closed_once_it_is_used_no_more_and_every_outcome_is_durable() {
    let mut rig = Rig::sending(2);
    rig.accept("a1");
    rig.accept("a2");
    rig.outcome(1, Verdict::DELIVERED);
    rig.outbox.retire();
    assert_eq!(rig.out(), [""; 0]);
    rig.outcome(2, Verdict::DELIVERED);
    rig.persist("a1");
    assert_eq!(rig.out(), [""; 0], "a2's outcome is not durable");
    rig.persist("a2");
    assert!(rig.outbox.is_closing());
    assert_eq!(rig.out(), ["close a"]);
    assert!(rig.outbox.is_closing());
    rig.closes();
    assert!(!rig.outbox.is_closing());
    assert_eq!(rig.out(), [""; 0]);
    rig.connect(1);
    assert_eq!(rig.out(), [""; 0], "once");
}

#[test]
fn a_lane_that_is_used_again_is_not_closed() {
    let mut rig = Rig::sending(1);
    rig.accept("a1");
    rig.outcome(1, Verdict::DELIVERED);
    rig.persist("a1");
    assert_eq!(rig.out(), [""; 0]);
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["a2<1"], "the lane of an opening is kept");
}

#[test]
fn lanes_of_earlier_runs_are_closed_without_being_told() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 3)]);
    rig.connect(1);
    rig.out();
    rig.rows(vec![LaneState { delivered: [(1, 3)].into_iter().collect(), ..row(3) }]);
    rig.persist("a3");
    assert_eq!(rig.out(), ["close a"]);
    // The answer is lost with the session: asked again in the next.
    rig.connect(1);
    assert_eq!(rig.out(), ["close a"]);
    rig.closes();
}

#[test]
fn a_message_that_enters_behind_retirement_is_finished_before_the_lane_is_closed() {
    let mut rig = Rig::connected(0);
    let entry = rig.assign(1, DAY);
    rig.outbox.retire();
    rig.outbox.add(entry);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.accept("a1");
    rig.outcome(1, Verdict::DELIVERED);
    rig.persist("a1");
    assert_eq!(rig.out(), ["close a"]);
}

#[test]
fn answers_to_what_was_never_asked_are_errors() {
    let mut rig = Rig::sending(1);
    assert!(rig.answer(1, accepted(false, None)).is_err());
    let where_a = |request, lanes| WhereA { request, lanes };
    assert!(rig.outbox.on_where_a(rig.now, where_a(9, vec![row(0)])).is_err());
    assert!(rig.outbox.on_where_a(rig.now, where_a(0, vec![row(0)])).is_err(), "it was a message");
    assert!(rig.outbox.on_close_a(&CloseA { request: 9 }).is_err());
    let run = MsgA { request: 0, count: 1 << 50, answer: accepted(false, None) };
    assert!(Rig::sending(1).outbox.on_msg_a(rig.now, run).is_err());
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 3)]);
    rig.connect(1);
    rig.out();
    let says_nothing = LaneState { upto: 2, ..row(0) };
    for lanes in [vec![], vec![row(0), row(0)], vec![says_nothing]] {
        let mut rig = Rig::open(Some(store(1)), [left(0, 0, 3)]);
        rig.connect(1);
        rig.out();
        assert!(rig.outbox.on_where_a(rig.now, where_a(0, lanes)).is_err());
    }
}
