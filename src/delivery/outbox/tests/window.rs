//! The window, and turns between lanes.

use super::*;

fn narrow(messages: usize, bytes: usize) -> Rig {
    let options = OutboxOptions { window_messages: messages, window_bytes: bytes, ..options() };
    let mut rig = Rig::around(Outbox::open(options, Some(store(1)), []), vec![]);
    rig.connect(1);
    rig
}

#[test]
fn the_window_bounds_messages() {
    let mut rig = narrow(2, 1000);
    for _ in 0..4 {
        rig.add(1, DAY);
    }
    assert_eq!(rig.out(), ["a1<0", "a2<1"]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["a3<2"]);
}

#[test]
fn the_window_bounds_bytes() {
    let mut rig = narrow(100, 250);
    for _ in 0..4 {
        rig.add(1, DAY);
    }
    assert_eq!(rig.out(), ["a1<0", "a2<1"]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["a3<2"]);
    rig.accept("a2");
    rig.accept("a3");
    assert_eq!(rig.out(), ["a4<3"]);
}

#[test]
fn one_large_message_always_goes() {
    let mut rig = narrow(100, 250);
    rig.add(1, DAY);
    rig.bytes = 1000;
    rig.add(1, DAY);
    rig.bytes = 1;
    rig.add(1, DAY);
    assert_eq!(rig.out(), ["a1<0"]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["a2<1"]);
    rig.accept("a2");
    assert_eq!(rig.out(), ["a3<2"]);
}

#[test]
fn lanes_take_turns() {
    let mut rig = narrow(4, 10_000);
    for _ in 0..4 {
        rig.add(1, DAY);
    }
    for _ in 0..4 {
        rig.add(2, DAY);
    }
    assert_eq!(rig.out(), ["a1<0", "b1<0", "a2<1", "b2<1"]);
}

#[test]
fn the_window_is_free_again_after_a_repeat_and_in_a_new_session() {
    let mut rig = narrow(2, 1000);
    for _ in 0..3 {
        rig.add(1, DAY);
    }
    assert_eq!(rig.out().len(), 2);
    rig.pass(SECOND);
    assert_eq!(rig.out(), ["a1<0", "a2<1"]);
    rig.accept("a1");
    assert_eq!(rig.out(), ["a3<2"]);
    rig.connect(1);
    rig.out();
    rig.rows(vec![row(1)]);
    assert_eq!(rig.out(), ["a2<1", "a3<2"]);
}
