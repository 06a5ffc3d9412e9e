//! An outbox of a relay: lanes are others', and the outcomes name the relay they come from.

use super::*;
use crate::id::RelayId;

const RELAY: RelayId = RelayId::from_bytes([7; 32]);

/// An outbox as a link has it, and a session.
fn forwarding() -> Rig {
    let options = OutboxOptions { names: Some(RELAY), keeps_lanes: true, ..options() };
    let mut rig = Rig::around(Outbox::open(options, None, []), vec![]);
    rig.connect(1);
    rig
}

/// Message `n` of a sender's lane comes in.
fn comes(rig: &mut Rig, lane: u64, n: u64) {
    let entry = left(rig.keys.len() as u64, lane, n).entry;
    rig.keys.push(name(entry.lane, n));
    rig.outbox.add(entry);
}

/// Message `n` goes out, is accepted, and its outcome is on disk.
fn through(rig: &mut Rig, n: u64) {
    comes(rig, 0, n);
    rig.out();
    let name = format!("a{n}");
    rig.answers(&name, accepted(false, Some(Verdict::DELIVERED)));
    rig.persist(&name);
}

#[test]
fn an_outcome_names_the_relay_that_it_is_from() {
    let mut rig = forwarding();
    comes(&mut rig, 0, 1);
    rig.out();
    rig.answers("a1", accepted(false, Some(EXPIRED)));
    let verdicts: Vec<_> = std::iter::from_fn(|| rig.outbox.poll_effect())
        .filter_map(|effect| match effect {
            Effect::Resolved { verdict, .. } => verdict.relay,
            _ => None,
        })
        .collect();
    assert_eq!(verdicts, [RELAY]);
}

#[test]
fn a_lane_with_nothing_in_it_goes_on_where_it_was() {
    let mut rig = forwarding();
    through(&mut rig, 4);
    assert_eq!((rig.out(), rig.outbox.lanes()), (vec![], 1));
    comes(&mut rig, 0, 5);
    assert_eq!(rig.out(), ["a5<4"]);
}

#[test]
fn idle_lanes_are_closed_and_begin_anew() {
    let mut rig = forwarding();
    through(&mut rig, 4);
    comes(&mut rig, 1, 1);
    rig.out();
    rig.accept("b1");
    rig.outbox.retire_idle();
    assert_eq!(rig.out(), ["close a"]);
    rig.closes();
    assert_eq!(rig.outbox.lanes(), 1, "the other one has a message in it");
    comes(&mut rig, 0, 5);
    assert_eq!(rig.out(), ["a5<0"], "nothing is known of it any more, there or here");
}

#[test]
fn a_message_that_comes_while_its_lane_is_closed_is_asked_about_or_offered_but_never_lost() {
    let mut rig = forwarding();
    through(&mut rig, 4);
    rig.outbox.retire_idle();
    assert_eq!(rig.out(), ["close a"]);
    comes(&mut rig, 0, 5);
    let early = rig.out();
    rig.closes();
    let mut sent = [early, rig.out()].concat();
    if sent.iter().any(|sent| sent.starts_with("where")) {
        rig.rows(vec![row(0)]);
        sent.extend(rig.out());
    }
    if sent.contains(&"a5<4".to_owned()) {
        rig.gap("a5", 0);
        sent.extend(rig.out());
    }
    assert_eq!(sent.last().map(String::as_str), Some("a5<0"), "{sent:?}");
    rig.answers("a5", accepted(false, Some(Verdict::DELIVERED)));
    rig.persist("a5");
    assert!(rig.outbox.is_empty());
}

#[test]
fn what_is_read_at_the_start_is_asked_about_and_kept_in_its_lane() {
    let options = OutboxOptions { names: Some(RELAY), keeps_lanes: true, ..options() };
    let mut rig = Rig::around(Outbox::open(options, Some(store(1)), []), vec![]);
    for n in [3, 4] {
        let message = left(n - 3, 0, n);
        rig.keys.push(name(message.entry.lane, n));
        rig.outbox.restore(message);
    }
    rig.connect(1);
    assert_eq!(rig.out(), ["where a3-4"]);
    rig.rows(vec![row(3)]);
    assert_eq!(rig.out(), ["a4<3"], "the other relay has the third");
}

#[test]
fn a_message_that_its_own_relay_has_ended_holds_up_no_later_one() {
    let options = OutboxOptions { names: Some(RELAY), keeps_lanes: true, ..options() };
    let mut rig = Rig::around(Outbox::open(options, Some(store(1)), []), vec![]);
    for n in [1, 2] {
        let message = left(n - 1, 0, n);
        rig.keys.push(name(message.entry.lane, n));
        rig.outbox.restore(message);
    }
    rig.connect(1);
    rig.out();
    rig.rows(vec![row(0)]);
    assert_eq!(rig.out(), ["a1<0", "a2<1"]);
    // The store's sweep was faster: it has only the second one left to send.
    rig.outbox.withdraw(rig.request("a1"));
    rig.gap("a2", 0);
    assert_eq!(rig.out(), ["a2<0"], "the first one is not tried again");
    rig.answers("a2", accepted(false, Some(Verdict::DELIVERED)));
    rig.persist("a2");
    assert!(rig.outbox.is_empty());
}
