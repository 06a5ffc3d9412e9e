//! Outcomes: settling, refusing, expiring, and how certain each of them is.

use super::*;

pub(crate) fn settling_is_one_with_the_row<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    home.send(key, 1..=5);
    let seqs = home.seqs(2);
    assert_eq!(home.settle(reader, taken([(seqs[1], seqs[2])]), u64::MAX), [settled(key, &[(2, 3)], &[])]);
    let state = home.state(key);
    assert_eq!((state.last, state.delivered, state.exceptions.len()), (5, [(2, 3)].into_iter().collect(), 0));
    assert_eq!(home.seqs(2), [seqs[0], seqs[3], seqs[4]]);
    assert_eq!(home.append(message(key, 2)), home.accepted(true, Some(Verdict::DELIVERED)));
    // Told once: the same acknowledgement again has nothing to say.
    assert_eq!(home.settle(reader, taken([(seqs[1], seqs[2])]), u64::MAX), []);
    assert_eq!(home.take_all(reader), [settled(key, &[(1, 1), (4, 5)], &[])]);
    assert_eq!(home.state(key).delivered, [(1, 5)].into_iter().collect());
    assert_eq!((home.status(2).messages, home.status(2).bytes), (0, 0));
}

pub(crate) fn settling_ignores_what_was_not_handed_out_or_is_not_there<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let (other, ..) = home.open(3);
    let key = lane(1, 2, 1);
    home.send(key, 1..=3);
    let seqs = home.seqs(2);
    let refusal = |seq| Taken { taken: Ranges::new(), refused: vec![Refusal { seq, text: None }] };
    assert_eq!(home.settle(reader, taken([(0, u64::MAX)]), 0), []);
    assert_eq!(home.settle(reader, refusal(seqs[2]), seqs[1]), []);
    assert_eq!(home.settle(reader, taken([(seqs[2] + 1, u64::MAX)]), u64::MAX), []);
    assert_eq!(home.settle(other, taken([(0, u64::MAX)]), u64::MAX), [], "another peer's mailbox was emptied");
    let batch = vec![Op::Settle {
        store: crate::id::StoreId([9; 16]),
        answers: taken([(0, u64::MAX)]),
        handed_out: u64::MAX,
        patient: false,
    }];
    assert_eq!(home.submit(reader, batch), [Done::Settled(Vec::new())]);
    assert_eq!(home.seqs(2), seqs);
    // A range may be enormous; of it counts what was handed out.
    assert_eq!(home.settle(reader, taken([(0, u64::MAX)]), seqs[1]), [settled(key, &[(1, 2)], &[])]);
    assert_eq!(home.seqs(2), [seqs[2]]);
}

pub(crate) fn settling_goes_as_far_as_any_session_has_handed_out<H: Harness>(mut home: Home<H>) {
    let (earlier, ..) = home.open(2);
    let key = lane(1, 2, 1);
    home.send(key, 1..=4);
    let seqs = home.seqs(2);
    home.submit(earlier, vec![Op::End { handed_out: seqs[1] }]);
    let (reader, ..) = home.open(2);
    let refused = vec![Refusal { seq: seqs[1], text: None }, Refusal { seq: seqs[3], text: None }];
    let answers = Taken { taken: [(seqs[0], seqs[0]), (seqs[2], seqs[2])].into_iter().collect(), refused };
    let verdict = rejected(RejectReason::Refused);
    let carried_over = settled(key, &[(1, 1)], &[(2, 2, verdict)]);
    assert_eq!(home.settle(reader, answers.clone(), 0), [carried_over], "3 and 4 were never handed out");
    assert_eq!(home.seqs(2), seqs[2..]);
    // A session that is replaced can no longer say how far it came.
    let (reader, ..) = home.open(2);
    assert_eq!(home.settle(reader, taken([(seqs[2], seqs[2])]), 0), [settled(key, &[(3, 3)], &[])]);
    home.send(key, 5..=5);
    assert_eq!(home.settle(reader, taken([(0, u64::MAX)]), 0), [settled(key, &[(4, 4)], &[])]);
}

pub(crate) fn of_many_ranges_those_with_messages_count<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    for from in (1..=2000).step_by(500) {
        home.submit(fence(1, u64::MAX), (from..from + 500).map(|n| Op::Append(message(key, n))).collect());
    }
    let mut seqs = Vec::new();
    while seqs.len() < 2000 {
        let page = home.page(2, Order::Oldest, seqs.last().copied(), 500);
        seqs.extend(page.messages.iter().map(|message| message.seq));
    }
    let last = seqs[1999];
    // Ranges before, between and behind the messages; of those near by every third is one of them, and of the
    // others there is one now and then.
    let nothing = (0..100_000u64).map(|at| 2 * at).chain((0..100_000).map(|at| last + 2 + 2 * at));
    let chosen = seqs.iter().enumerate().filter(|(at, _)| if *at < 1000 { at % 3 == 0 } else { at % 100 == 7 });
    let chosen: Vec<_> = chosen.map(|(at, seq)| (at as u64 + 1, *seq)).collect();
    let answers = Taken { taken: nothing.chain(chosen.iter().map(|(_, seq)| *seq)).collect(), refused: Vec::new() };
    let told = home.settle(reader, answers, u64::MAX);
    let delivered = chosen.iter().map(|(n, _)| *n).collect();
    assert_eq!(told, [Settled { delivered, ..settled(key, &[], &[]) }]);
    assert_eq!(home.status(2).messages, 2000 - chosen.len() as u64);
}

pub(crate) fn a_refusal_is_told_with_its_words_and_is_certain<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    home.send(key, 1..=4);
    let seqs = home.seqs(2);
    let refuse = |seq, words: &str| Refusal { seq, text: Some(words.to_owned()) };
    let answers = Taken {
        taken: [(seqs[0], seqs[0])].into_iter().collect(),
        refused: vec![refuse(seqs[3], "busy"), refuse(seqs[1], "no"), refuse(seqs[2], "no")],
    };
    let told = [(2, 3, refused("no")), (4, 4, refused("busy"))];
    assert_eq!(home.settle(reader, answers, u64::MAX), [settled(key, &[(1, 1)], &told)]);
    assert_eq!(home.append(message(key, 3)), home.accepted(true, Some(refused("no"))));
    let state = home.state(key);
    assert_eq!((state.delivered, state.exceptions), (Ranges::one(1), settled(key, &[], &told).exceptions));
    // The first outcome stands.
    assert_eq!(home.settle(reader, taken([(seqs[1], seqs[1])]), u64::MAX), []);
}

pub(crate) fn outcomes_in_any_order_are_told_by_lane<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let lanes = [lane(1, 2, 1), lane(3, 2, 1), lane(1, 2, 9)];
    for n in 1..=4 {
        for key in lanes {
            home.send(key, n..=n);
        }
    }
    let seqs = home.seqs(2);
    let answers = Taken {
        taken: [(seqs[0], seqs[4]), (seqs[11], seqs[11])].into_iter().collect(),
        refused: vec![Refusal { seq: seqs[9], text: Some("no".to_owned()) }],
    };
    let mut told = home.settle(reader, answers, u64::MAX);
    told.sort_by_key(|settled| settled.lane);
    let mut expected = [
        settled(lanes[0], &[(1, 2)], &[(4, 4, refused("no"))]),
        settled(lanes[1], &[(1, 2)], &[]),
        settled(lanes[2], &[(1, 1), (4, 4)], &[]),
    ];
    expected.sort_by_key(|settled| settled.lane);
    assert_eq!(told, expected);
}

/// Sends numbers 1 to 3, runs the steps of a session, lets them expire, and tells who may have been taken.
fn certainty<H: Harness>(home: &mut Home<H>, key: LaneKey, session: impl FnOnce(&mut Home<H>, &[u64])) -> Vec<bool> {
    let name = key.pair.recipient.as_bytes()[0];
    home.send(key, 1..=3);
    let seqs = home.seqs(name);
    session(home, &seqs);
    home.clock.advance(Duration::from_secs(3600));
    let told = home.expire().settled;
    let exceptions = told.into_iter().find(|settled| settled.lane == key).unwrap().exceptions;
    let verdicts = exceptions.into_iter().flat_map(|run| (run.from..=run.to).map(move |_| run.verdict.clone()));
    verdicts.map(|verdict| verdict == MAYBE).collect()
}

pub(crate) fn expiry_says_maybe_taken_exactly_where_it_may_be<H: Harness>(mut home: Home<H>) {
    for name in 10..20 {
        home.visit(name);
    }
    let end = |home: &Home<H>, fence, handed_out| drop(home.submit(fence, vec![Op::End { handed_out }]));
    let certain = certainty(&mut home, lane(1, 10, 1), |_, _| {});
    assert_eq!(certain, [false; 3], "nobody was there");
    let open = certainty(&mut home, lane(1, 11, 1), |home, _| drop(home.open(11)));
    assert_eq!(open, [true; 3], "a session is open");
    let handed = certainty(&mut home, lane(1, 12, 1), |home, seqs| {
        let (fence, ..) = home.open(12);
        end(home, fence, seqs[1]);
    });
    assert_eq!(handed, [true, true, false], "a session handed out two of them");
    let none = certainty(&mut home, lane(1, 13, 1), |home, _| home.visit(13));
    assert_eq!(none, [false; 3], "a session handed out nothing");
    let down = certainty(&mut home, lane(1, 14, 1), |home, seqs| {
        let (fence, ..) = home.open(14);
        end(home, fence, seqs[1]);
        home.visit(14);
    });
    assert_eq!(down, [true, true, false], "the mark never goes down");
    let all = certainty(&mut home, lane(1, 15, 1), |home, _| {
        let (fence, ..) = home.open(15);
        end(home, fence, u64::MAX);
    });
    assert_eq!(all, [true; 3]);
    // What comes after such an end was never handed out.
    assert_eq!(home.append(Append { prev: 3, ..message(lane(1, 15, 1), 4) }), home.accepted(false, None));
    home.clock.advance(Duration::from_secs(3600));
    assert_eq!(home.expire().settled[0].exceptions[0].verdict, EXPIRED);
}

pub(crate) fn a_replaced_session_counts_as_having_handed_out_all<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let replaced = certainty(&mut home, lane(1, 2, 1), |home, _| {
        home.open(2);
        // The older session cannot end any more, and the newer one handed out nothing.
        home.visit(2);
    });
    assert_eq!(replaced, [true; 3]);
}

pub(crate) fn an_interrupted_session_counts_as_having_handed_out_all<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.visit(3);
    home.send(lane(1, 3, 1), 1..=1);
    let keeps = home.harness.keeps();
    let key = lane(1, 2, 1);
    if !keeps {
        return;
    }
    let interrupted = certainty(&mut home, key, |home, _| {
        home.open(2);
        home.reopen();
        // The next life of the store hands out nothing.
        home.visit(2);
        assert_eq!(home.append(message(key, 4)), home.accepted(false, None));
    });
    assert_eq!(interrupted, [true, true, true, false]);
    assert_eq!(home.state(lane(1, 3, 1)).exceptions[0].verdict, EXPIRED, "nobody was at the other mailbox");
}

pub(crate) fn a_sweep_is_bounded_and_costs_nothing_when_nothing_is_due<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    assert_eq!(home.expire(), Expired { settled: Vec::new(), next: None });
    let key = lane(1, 2, 1);
    home.send(key, 1..=5);
    home.clock.advance(Duration::from_secs(100));
    home.append(message(key, 6));
    let due = START + Duration::from_secs(3600);
    assert_eq!(home.expire(), Expired { settled: Vec::new(), next: Some(due) });
    home.clock.advance(Duration::from_secs(3499));
    assert_eq!(home.expire().settled, [], "a message ended before its time");
    home.clock.advance(Duration::from_secs(1));
    let first = home.get(home.store().expire(3));
    assert_eq!(first, Expired { settled: vec![settled(key, &[], &[(1, 3, EXPIRED)])], next: Some(due) });
    let rest = home.get(home.store().expire(3));
    let later = due + Duration::from_secs(100);
    assert_eq!(rest, Expired { settled: vec![settled(key, &[], &[(4, 5, EXPIRED)])], next: Some(later) });
    assert_eq!((home.status(2).messages, home.state(key).exceptions.len()), (1, 1));
}

pub(crate) fn a_sweep_goes_on_where_it_stopped_and_tells_in_ranges<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.visit(3);
    let long = |append| Append { ttl: Duration::from_secs(7200), ..append };
    home.send_all((1..=2500).map(|n| message(lane(1, 2, 1), n)));
    home.send_all(
        (1..=100).map(|n| if n % 2 == 0 { long(message(lane(1, 3, 1), n)) } else { message(lane(1, 3, 1), n) }),
    );
    home.clock.advance(Duration::from_secs(3600));
    let due = Some(START + Duration::from_secs(3600));
    let told = |key, runs: &[(u64, u64)]| {
        let runs: Vec<_> = runs.iter().map(|(from, to)| (*from, *to, EXPIRED)).collect();
        Settled { submitter: peer(250), ..settled(key, &[], &runs) }
    };
    for from in [1, 1001] {
        let step = Expired { settled: vec![told(lane(1, 2, 1), &[(from, from + 999)])], next: due };
        assert_eq!(home.expire(), step);
    }
    let odd: Vec<_> = (1..=99).step_by(2).map(|n| (n, n)).collect();
    let last = home.expire();
    assert_eq!(last.settled, [told(lane(1, 2, 1), &[(2001, 2500)]), told(lane(1, 3, 1), &odd)]);
    assert_eq!(last.next, Some(START + Duration::from_secs(7200)));
    assert_eq!((home.status(2).messages, home.status(3).messages), (0, 50));
}

pub(crate) fn no_message_ends_before_its_time_nor_a_second_after_it<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let key = lane(1, 2, 1);
    home.clock.advance(Duration::from_millis(300));
    home.send(key, 1..=1);
    home.clock.advance(Duration::from_millis(600));
    home.send(key, 2..=2);
    home.clock.advance(Duration::from_millis(3_599_399));
    assert_eq!((home.expire().settled, home.seqs(2).len()), (Vec::new(), 2));
    home.clock.advance(Duration::from_millis(1));
    assert_eq!(home.seqs(2).len(), 1, "it ran out, whether a sweep came or not");
    let next = home.expire().next.unwrap();
    assert!(next <= START + Duration::from_millis(3_601_300), "{next}");
    home.clock.advance(Duration::from_millis(1000));
    // In the order of their numbers, each in time.
    let told: Vec<_> =
        home.state(key).exceptions.into_iter().chain(home.expire().settled.remove(0).exceptions).collect();
    assert_eq!(told, settled(key, &[], &[(1, 2, EXPIRED)]).exceptions);
}

pub(crate) fn interrupted_clients_are_told_of_once<H: Harness>(mut home: Home<H>) {
    assert_eq!(home.store().interrupted(), []);
    home.visit(1);
    home.open(2);
    let (replaced, ..) = home.open(3);
    home.submit(Fence { epoch: 1000, ..replaced }, vec![Op::Open { remote: remote(3000), invitation: None }]);
    if !home.harness.keeps() {
        return;
    }
    home.reopen();
    let mut interrupted = home.store().interrupted();
    interrupted.sort();
    assert_eq!(interrupted, [remote(2), remote(3000)]);
    home.reopen();
    assert_eq!(home.store().interrupted(), []);
}
