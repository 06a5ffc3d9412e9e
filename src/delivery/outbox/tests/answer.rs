//! The relay's answers: acceptance, gaps, refusals for now and for good.

use super::*;

#[test]
fn a_message_is_kept_after_acceptance_until_its_outcome() {
    let mut rig = Rig::sending(1);
    rig.accept("a1");
    assert_eq!(rig.told(), ["accepted a1"]);
    assert_eq!(rig.outbox.len(), 1);
    rig.outcome(1, Verdict::DELIVERED);
    assert_eq!(rig.told(), ["delivered a1"]);
    assert!(rig.outbox.is_empty());
}

#[test]
fn an_outcome_that_overtakes_the_acceptance_stands_for_both() {
    let mut rig = Rig::sending(1);
    rig.outcome(1, Verdict::DELIVERED);
    assert_eq!(rig.told(), ["accepted a1", "delivered a1"]);
    rig.accept("a1");
    rig.outcome(1, EXPIRED);
    assert_eq!(rig.told(), [""; 0], "the first outcome stands");
}

#[test]
fn a_run_of_answers_counts_for_each() {
    let mut rig = Rig::sending(3);
    let answer = accepted(false, None);
    rig.outbox.on_msg_a(rig.now, MsgA { request: 0, count: 3, answer }).unwrap();
    assert_eq!(rig.told(), ["accepted a1", "accepted a2", "accepted a3"]);
}

#[test]
fn an_answer_counts_once() {
    let mut rig = Rig::sending(2);
    rig.accept("a2");
    rig.gap("a2", 0);
    rig.accept("a1");
    assert_eq!(rig.told(), ["accepted a2", "accepted a1"]);
    assert_eq!(rig.out(), [""; 0]);
}

#[test]
fn gaps_set_a_lane_back_once() {
    let mut rig = Rig::sending(1);
    rig.accept("a1");
    for _ in 0..200 {
        rig.add(1, DAY);
    }
    let sent = rig.out();
    assert_eq!(sent.len(), 200);
    // The relay has forgotten all: every one of the 200 finds a gap, and all go out once more, no more. Most of
    // the gaps are told when the lane is on its way again.
    rig.gap("a2", 0);
    let mut again = rig.out();
    assert_eq!(again, ["a1<0"], "one that counted as accepted goes first");
    for n in 3..=100 {
        rig.gap(&format!("a{n}"), 0);
    }
    rig.accept("a1");
    let stale: Vec<_> = (101..=201).map(|n| rig.request(&format!("a{n}"))).collect();
    let mut last = 1;
    loop {
        let out = rig.out();
        if out.is_empty() {
            break;
        }
        for request in &stale {
            rig.answer(*request, Answer::Gap { last: 0 }).unwrap();
        }
        for message in &out {
            let (message, prev) = message.split_once('<').unwrap();
            assert_eq!(prev.parse(), Ok(last));
            last = message[1..].parse().unwrap();
            rig.accept(message);
        }
        again.extend(out);
    }
    assert_eq!(again.len(), 201);
}

#[test]
fn a_gap_beyond_what_was_believed_leads_on() {
    let mut rig = Rig::open(Some(store(1)), [left(0, 0, 5), left(1, 0, 6)]);
    rig.connect(1);
    rig.out();
    rig.rows(vec![row(2)]);
    assert_eq!(rig.out(), ["a5<2", "a6<5"]);
    rig.gap("a5", 4);
    rig.gap("a6", 4);
    assert_eq!(rig.out()[0], "a5<4");
}

#[test]
fn refusals_that_leave_no_row_cost_a_few_requests_each_and_no_storm() {
    let mut rig = Rig::connected(300);
    let mut requests = 0;
    loop {
        let out = rig.out();
        if out.is_empty() {
            break;
        }
        requests += out.len();
        // Without a row each message that names one before it finds a gap.
        for message in out {
            let (name, prev) = message.split_once('<').unwrap();
            match prev {
                "0" => rig.answers(name, Answer::Final(rejected(RejectReason::UnknownPeer))),
                _ => rig.gap(name, 0),
            }
        }
        for told in rig.told() {
            if let Some(message) = told.strip_prefix("rejected ") {
                rig.persist(message);
            }
        }
    }
    assert!(rig.outbox.is_empty());
    assert!(requests < 1000, "{requests} requests for 300 messages");
}

#[test]
fn a_temporary_refusal_holds_its_lane_alone_until_its_time() {
    let mut rig = Rig::connected(0);
    rig.add(1, DAY);
    rig.add(1, DAY);
    rig.add(2, DAY);
    assert_eq!(set(rig.out()), set(["a1<0", "a2<1", "b1<0"].map(String::from)));
    rig.wait("a1", 60 * SECOND);
    rig.gap("a2", 0);
    rig.accept("b1");
    assert_eq!(rig.told(), ["held a", "accepted b1"]);
    rig.add(1, DAY);
    rig.add(2, DAY);
    assert_eq!(rig.out(), ["b2<1"]);
    rig.accept("b2");
    rig.pass(59 * SECOND);
    assert_eq!(rig.out(), [""; 0]);
    rig.pass(SECOND);
    assert_eq!(rig.out()[0], "a1<0");
    rig.accept("a1");
    assert_eq!(rig.out(), ["a2<1", "a3<2"]);
}

#[test]
fn a_full_mailbox_is_asked_again_with_one_message_not_with_the_whole_window() {
    let mut rig = Rig::sending(500);
    rig.wait("a1", SECOND);
    for n in 2..=500 {
        rig.gap(&format!("a{n}"), 0);
    }
    for _ in 0..10 {
        rig.pass(SECOND);
        assert_eq!(rig.out(), ["a1<0"]);
        rig.wait("a1", SECOND);
    }
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.accept("a1");
    assert_eq!(rig.out().len(), 499, "once one is taken the others follow");
}

#[test]
fn a_hold_ends_with_the_session() {
    let mut rig = Rig::sending(1);
    rig.wait("a1", 60 * SECOND);
    rig.connect(1);
    assert_eq!(rig.out(), ["where a1-1"]);
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["a1<0"]);
}

#[test]
fn a_refusal_for_good_is_the_outcome_and_durable_before_the_next_goes_out() {
    let mut rig = Rig::sending(1);
    rig.add(1, DAY);
    rig.answers("a1", Answer::Final(REFUSED));
    assert_eq!(rig.told(), ["rejected a1"]);
    assert_eq!(rig.out(), [""; 0]);
    rig.outbox.persisted(rig.receipts.remove("a1").unwrap());
    assert_eq!(rig.out(), ["a2<1"]);
}

#[test]
fn a_duplicate_is_told_what_became_of_it() {
    let mut rig = Rig::sending(3);
    rig.answers("a1", accepted(true, Some(Verdict::DELIVERED)));
    rig.answers("a2", accepted(true, Some(REFUSED)));
    rig.answers("a3", accepted(true, None));
    assert_eq!(rig.told(), ["duplicate a1", "delivered a1", "duplicate a2", "rejected a2", "duplicate a3"]);
}
