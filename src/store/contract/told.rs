//! What is told about lanes in answer to a question: bounded, and all of it in the end.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::*;
use crate::delivery::{Effect, Entry, Outbox, OutboxOptions, Request, Restored};
use crate::protocol::limit::MAX_FRAME_BYTES;
use crate::protocol::{PREFIX_BYTES, WhereA, WhereR, encode};

const LANES: u64 = 80;
const MESSAGES: u64 = 60;

fn words(lane: u64, n: u64) -> String {
    format!("{lane} {n} {}", "x".repeat(240))
}

/// The store's answer as it would travel.
fn answer<H: Harness>(home: &Home<H>, ask: &WhereR) -> WhereA {
    let questions = ask.lanes.iter().map(|ask| (ask.lane.key(peer(1)), ask.from, ask.to)).collect();
    let Some(Done::Lanes(lanes)) = home.submit(fence(1, u64::MAX), vec![Op::Where(questions)]).pop() else {
        panic!("no rows")
    };
    let answer = WhereA { request: ask.request, lanes };
    let mut frame = BytesMut::new();
    encode(&answer.clone().into(), &mut frame);
    assert!(frame.len() - PREFIX_BYTES <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
    answer
}

pub(crate) fn what_is_told_about_many_lanes_fits_a_frame_and_an_outbox_learns_all_of_it<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    home.limit(|limits| limits.pair_percent = 100);
    let mut letters = Vec::new();
    for id in 1..=LANES {
        let key = lane(1, 2, id);
        let batch = (1..=MESSAGES).map(|n| Op::Append(message(key, n))).collect();
        home.submit(fence(1, u64::MAX), batch);
        for n in 1..=MESSAGES {
            let (at, id) = (letters.len() as u64, MessageId::new(n, &[0; 10]));
            let deadline = Moment::from_origin(Duration::MAX);
            let entry = Entry { key: at, id, lane: key, n, bytes: 100, deadline };
            letters.push(Restored { entry, foreign: false });
        }
        // Every second one is refused in words of its own; so are the runs as many as there are messages.
        let all = home.page(2, Order::Oldest, None, 500);
        let at = |stored: &Stored| (stored.seq, stored.envelope.header().n);
        let (refused, taken): (Vec<_>, Vec<_>) =
            all.messages.iter().map(|stored| at(stored)).partition(|(_, n)| n % 2 == 0);
        let refusal = |(seq, n)| Refusal { seq, text: Some(words(id, n)) };
        let refused = refused.into_iter().map(refusal).collect();
        home.settle(reader, Taken { taken: taken.into_iter().map(|(seq, _)| seq).collect(), refused }, u64::MAX);
    }

    let mut outbox = Outbox::open(OutboxOptions::new(peer(1)), Some(home.store().store_id()), letters);
    outbox.connect(home.store().store_id(), home.store().durability());
    let (mut asked, mut told) = (0, BTreeMap::new());
    while let Some(request) = outbox.poll_request(Moment::from_origin(Duration::ZERO)) {
        let Request::Ask(ask) = request else { continue };
        asked += 1;
        assert!(asked < 1000, "the questions have no end");
        outbox.on_where_a(Moment::from_origin(Duration::ZERO), answer(&home, &ask)).unwrap();
        while let Some(effect) = outbox.poll_effect() {
            if let Effect::Resolved { lane, n, verdict, receipt, .. } = effect {
                told.insert((lane.lane.0, n), verdict);
                outbox.persisted(receipt);
            }
        }
    }
    assert!(asked > 2, "one answer told {} outcomes", told.len());
    assert!(outbox.is_empty(), "{} messages have no outcome", outbox.len());
    for ((id, n), verdict) in told {
        let expected = if n % 2 == 0 { refused(&words(id, n)) } else { Verdict::DELIVERED };
        assert_eq!(verdict, expected, "number {n} of lane {id}");
    }
}

pub(crate) fn a_question_about_many_lanes_is_answered_for_one_at_least<H: Harness>(mut home: Home<H>) {
    let (reader, ..) = home.open(2);
    let unknown = (1..=256).map(|id| (lane(1, 2, id), 1, u64::MAX)).collect();
    let Some(Done::Lanes(rows)) = home.submit(fence(1, u64::MAX), vec![Op::Where(unknown)]).pop() else {
        panic!("no rows")
    };
    assert_eq!(rows.len(), 256, "rows that say nothing are small");
    let key = lane(1, 2, 1);
    home.send(key, 1..=3);
    home.take_all(reader);
    let Some(Done::Lanes(rows)) = home.submit(fence(1, u64::MAX), vec![Op::Where(vec![(key, 2, 2)])]).pop() else {
        panic!("no rows")
    };
    assert_eq!((rows[0].upto, &rows[0].delivered), (2, &Ranges::one(2)));
}
