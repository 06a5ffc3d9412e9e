//! Order and place: fences, `seq`, watches, lanes.

use super::*;

pub(crate) fn an_older_session_changes_nothing<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let (old, ..) = home.open(1);
    let (new, ..) = home.open(1);
    let key = lane(1, 2, 1);
    let batch = || vec![Op::Append(message(key, 1)), Op::End { handed_out: 9 }];
    assert_eq!(home.try_submit(old, batch()), Err(StoreError::Superseded));
    assert_eq!(
        home.try_submit(old, vec![Op::Open { remote: remote(1), invitation: None }]),
        Err(StoreError::Superseded)
    );
    assert_eq!((home.status(2).messages, home.state(key).last), (0, 0));
    assert!(home.try_submit(new, vec![Op::Append(message(key, 1))]).is_ok());
    // Both in the queue at once: the older one comes too late all the same.
    let newest = Fence { epoch: new.epoch + 1, ..new };
    let opened = home.store().submit(newest, vec![Op::Open { remote: remote(1), invitation: None }]);
    let late = home.store().submit(new, vec![Op::Append(message(key, 2))]);
    assert!(home.wait(opened).is_ok());
    assert_eq!(home.wait(late), Err(StoreError::Superseded));
    assert_eq!(home.state(key).last, 1);
}

pub(crate) fn a_device_does_not_fence_off_another<H: Harness>(mut home: Home<H>) {
    let (first, ..) = home.open(1);
    let second = Fence { device: 1, epoch: first.epoch + 1, ..first };
    home.submit(second, vec![Op::Open { remote: remote(2), invitation: None }]);
    home.submit(first, vec![Op::End { handed_out: 0 }]);
    // One session is still open: what expires now may have been taken.
    home.send(lane(2, 1, 1), 1..=1);
    home.clock.advance(Duration::from_secs(3601));
    assert_eq!(home.expire().settled, [settled(lane(2, 1, 1), &[], &[(1, 1, MAYBE)])]);
    home.submit(second, vec![Op::End { handed_out: 0 }]);
}

pub(crate) fn seq_grows_with_each_message_and_is_never_given_twice<H: Harness>(mut home: Home<H>) {
    let key = lane(1, 2, 1);
    let (fence, watermark, _) = home.open(2);
    assert_eq!(watermark, 0);
    home.send(key, 1..=5);
    let first = home.seqs(2);
    assert!(first.windows(2).all(|pair| pair[0] < pair[1]));
    home.take_all(fence);
    home.send(key, 6..=6);
    assert!(home.seqs(2)[0] > first[4], "an empty mailbox began anew");
    if !home.harness.keeps() {
        return;
    }
    let before = home.seqs(2)[0];
    // The clock went back, as after a restart without a time server.
    home.clock.0.fetch_sub(1_000_000_000, Ordering::SeqCst);
    home.reopen();
    home.send(key, 7..=7);
    let seqs = home.seqs(2);
    assert_eq!((seqs.len(), seqs[0]), (2, before));
    assert!(seqs[1] > before);
    // A restored store lacks the last messages: what it gives then is above what they had.
    home.clock.0.fetch_add(1_000_060_000, Ordering::SeqCst);
    home.reopen();
    let (_, watermark, _) = home.open(2);
    assert_eq!(watermark, seqs[1]);
    home.send(key, 8..=8);
    let first = home.seqs(2).pop().unwrap();
    assert!(first > watermark + 1000 * 1000, "a minute after {watermark} begins with {first}");
}

pub(crate) fn a_killed_store_keeps_what_was_answered<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let key = lane(1, 2, 1);
    home.send(key, 1..=20);
    let (fence, ..) = home.open(2);
    let seqs = home.seqs(2);
    home.settle(fence, taken([(seqs[3], seqs[6])]), u64::MAX);
    if !home.kill() {
        return;
    }
    let state = home.state(key);
    assert_eq!((state.last, state.delivered), (20, [(4, 7)].into_iter().collect()));
    assert_eq!(home.status(2).messages, 16);
    assert_eq!(home.seqs(2).len(), 16);
}

pub(crate) fn watches_see_commits_in_order_and_lag_when_too_slow<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    home.visit(3);
    let watch = home.store().watch(peer(2));
    let key = lane(1, 2, 1);
    home.send(lane(1, 3, 1), 1..=1);
    home.send(key, 1..=3);
    home.wait(watch.changed());
    let news = watch.take(2);
    let told: Vec<_> = news.messages.iter().map(|message| message.envelope.header().n).collect();
    assert_eq!((told, news.lagged), (vec![1, 2], false));
    assert_eq!(news.messages[0].as_ref(), home.page(2, Order::Oldest, None, 1).messages[0].as_ref());
    assert_eq!(watch.take(9).messages[0].seq, home.seqs(2)[2]);
    // Nothing is told that was not committed, and a duplicate is no news.
    home.append(message(key, 3));
    assert!(watch.take(9).messages.is_empty());
    for from in (4..=5003).step_by(1000) {
        let batch = (from..from + 1000).map(|n| Op::Append(message(key, n))).collect();
        home.submit(Fence { peer: peer(1), device: 0, epoch: u64::MAX }, batch);
    }
    assert!(watch.take(9).lagged);
    let news = watch.take(9);
    assert!(!news.lagged && news.messages.is_empty());
    home.send(key, 5004..=5004);
    assert_eq!(watch.take(9).messages.len(), 1);
}

pub(crate) fn a_question_asked_after_a_change_sees_it<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    let sender = Fence { peer: peer(1), device: 0, epoch: u64::MAX };
    let sent = home.store().submit(sender, vec![Op::Append(message(key, 1)), Op::Append(message(key, 2))]);
    let store = home.store().store_id();
    let (answers, handed_out) = (taken([(0, u64::MAX)]), u64::MAX);
    let took = home.store().submit(reader, vec![Op::Settle { store, answers, handed_out, patient: false }]);
    let asked = home.store().submit(sender, vec![Op::Where(vec![(key, 1, 9)]), Op::Append(message(key, 1))]);
    // Nobody waits for the first two, and they happen all the same.
    drop((sent, took));
    let answers = home.wait(asked).unwrap();
    let delivered: Ranges = [(1, 2)].into_iter().collect();
    let state = LaneState { last: 2, upto: 9, delivered, exceptions: Vec::new() };
    assert_eq!(answers[0], Done::Lanes(vec![state]));
    let answer = home.accepted(true, Some(Verdict::DELIVERED));
    assert_eq!(answers[1], Done::Answered { answer, remember: false });
}

pub(crate) fn a_lane_is_accepted_in_order_and_once<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let key = lane(1, 2, 1);
    assert_eq!(home.append(message(key, 2)), Answer::Gap { last: 0 });
    home.send(key, 1..=2);
    assert_eq!(home.append(message(key, 2)), home.accepted(true, None));
    assert_eq!(home.append(message(key, 4)), Answer::Gap { last: 2 });
    // Led past 3 and 4: nobody will ever know more about them here.
    assert_eq!(home.append(Append { prev: 2, ..message(key, 5) }), home.accepted(false, None));
    assert_eq!(home.append(message(key, 4)), home.accepted(true, Some(MAYBE)));
    let state = home.state(key);
    assert_eq!((state.last, state.delivered.is_empty()), (5, true));
    assert_eq!(state.exceptions, [Exception { from: 3, to: 4, verdict: MAYBE }]);
    assert_eq!(home.status(2).messages, 3);
    let other = LaneState { last: 0, upto: 1000, delivered: Ranges::new(), exceptions: Vec::new() };
    assert_eq!(home.state(lane(1, 2, 2)), other);
    assert_eq!(home.state(lane(77, 78, 2)), other);
}

pub(crate) fn a_message_without_time_left_ends_before_anything_waits<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let key = lane(1, 2, 1);
    home.limit(|limits| limits.mailbox_messages = 1);
    let late = |n| Append { ttl: Duration::ZERO, ..message(key, n) };
    assert_eq!(home.append_full(late(1)), (Answer::Final(MAYBE), false));
    assert_eq!(home.state(key).last, 0, "a row was made");
    home.send(key, 1..=1);
    assert!(matches!(home.append(message(key, 2)), Answer::Wait { .. }));
    assert_eq!(home.append_full(late(2)), (Answer::Final(EXPIRED), false));
    assert_eq!(home.append(message(key, 2)), home.accepted(true, Some(EXPIRED)));
    assert_eq!(home.state(key).last, 2);
}

pub(crate) fn final_refusals_are_recorded_or_remembered<H: Harness>(mut home: Home<H>) {
    home.visit(2);
    let key = lane(1, 2, 1);
    let refuse = |n, reason| Append { refuse: Some(reason), ..message(key, n) };
    let verdict = rejected(RejectReason::WrongSender);
    assert_eq!(home.append_full(refuse(1, RejectReason::WrongSender)), (Answer::Final(verdict), true));
    assert_eq!(home.state(key).last, 0);
    let verdict = rejected(RejectReason::TooLarge);
    let answered = home.append_full(refuse(1, RejectReason::TooLarge));
    assert_eq!(answered, (Answer::Final(verdict.clone()), false));
    assert_eq!(home.append(message(key, 1)), home.accepted(true, Some(verdict)));
    home.send(key, 2..=2);
    let stranger = Append { refuse: Some(RejectReason::Blocked), ..message(lane(1, 9, 1), 1) };
    assert_eq!(home.append_full(stranger), (Answer::Final(rejected(RejectReason::Blocked)), true));
    assert_eq!(home.state(lane(1, 9, 1)).last, 0);
    assert_eq!(home.status(2).messages, 1);
}

pub(crate) fn relays_submit_for_others_without_touching_their_lanes<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    let relay = Fence { peer: peer(50), device: 0, epoch: u64::MAX };
    home.send(key, 1..=1);
    let mut forwarded = message(key, 1);
    forwarded.signature = Some([3; 64]);
    let answers = home.submit(relay, vec![Op::Append(forwarded.clone()), Op::Where(vec![(key, 1, 9)])]);
    assert_eq!(answers[0], Done::Answered { answer: home.accepted(false, None), remember: false });
    let stored = home.page(2, Order::Newest, None, 1).messages[0].clone();
    assert_eq!((stored.submitter, stored.signature), (peer(50), Some([3; 64])));
    assert_eq!(stored.envelope, forwarded.envelope);
    let both = home.take_all(reader);
    assert_eq!(both[0], settled(key, &[(1, 1)], &[]));
    assert_eq!(both[1], Settled { submitter: peer(50), ..settled(key, &[(1, 1)], &[]) });
}

pub(crate) fn closing_a_lane_keeps_what_is_pending<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let key = lane(1, 2, 1);
    home.send(key, 1..=2);
    let first = home.seqs(2)[0];
    home.settle(reader, taken([(first, first)]), u64::MAX);
    home.close_lane(key);
    assert_eq!(home.state(key).last, 2, "a row with something pending went");
    home.take_all(reader);
    // Another submitter's lane of the same name is not touched.
    let other = Fence { peer: peer(50), device: 0, epoch: u64::MAX };
    home.submit(other, vec![Op::Close(vec![key])]);
    assert_eq!(home.state(key).last, 2);
    home.close_lane(key);
    assert_eq!(home.state(key).last, 0);
    home.close_lane(key);
    home.send(key, 1..=1);
}

pub(crate) fn lane_rows_are_limited<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    home.visit(3);
    home.limit(|limits| (limits.lanes_per_pair, limits.lanes_per_submitter) = (2, 3));
    let waits = |answer| matches!(answer, Answer::Wait { reason: WaitReason::Lanes, .. });
    home.send(lane(1, 2, 1), 1..=1);
    home.send(lane(1, 2, 2), 1..=1);
    assert!(waits(home.append(message(lane(1, 2, 3), 1))), "a third lane of the pair");
    home.send(lane(1, 2, 1), 2..=2);
    home.send(lane(1, 3, 1), 1..=1);
    assert!(waits(home.append(message(lane(1, 3, 2), 1))), "a fourth lane of the submitter");
    home.send(lane(4, 2, 1), 1..=1);
    home.take_all(reader);
    home.close_lane(lane(1, 2, 1));
    home.send(lane(1, 2, 3), 1..=1);
}

pub(crate) fn lane_rows_go_when_they_have_rested<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let (done, waiting) = (lane(1, 2, 1), lane(1, 2, 2));
    let day = Duration::from_secs(24 * 3600);
    home.limit(|limits| limits.lane_rest = day);
    home.send(done, 1..=1);
    home.take_all(reader);
    let mut long = message(waiting, 1);
    long.ttl = 30 * day;
    home.append(long);
    home.clock.advance(Duration::from_secs(20 * 3600));
    // Used again before it has rested: the day begins anew.
    home.send(done, 2..=2);
    let last = home.seqs(2)[1];
    home.settle(reader, taken([(last, last)]), u64::MAX);
    home.clock.advance(Duration::from_secs(20 * 3600));
    home.expire();
    assert_eq!((home.state(done).last, home.state(waiting).last), (2, 1));
    home.clock.advance(2 * day);
    let next = home.expire().next.expect("something is to be done yet");
    assert!(next > home.clock.date(), "the sweep would come again at once: {next}");
    assert_eq!(home.state(done).last, 0, "a row that rested is still there");
    assert_eq!(home.state(waiting).last, 1, "a row with something pending went");
    home.clock.advance(40 * day);
    home.expire();
    home.clock.advance(2 * day);
    while home.expire().next.is_some() {
        home.clock.advance(day);
    }
    assert_eq!(home.state(waiting).last, 0);
}
