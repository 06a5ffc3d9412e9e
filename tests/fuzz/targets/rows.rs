//! The stores' rows: damaged bytes are rows or errors, and a lane's row works whatever it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posthouse::delivery::lane::{Fate, LaneRow};
use posthouse::protocol::Verdict;
use posthouse::store::redb::{client, relay};
use posthouse::time::UnixMillis;

fuzz_target!(|data: &[u8]| {
    relay::read_any_row(data);
    client::read_any_row(data);
    if let Ok(row) = LaneRow::decode(data) {
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        assert_eq!(LaneRow::decode(&bytes).as_ref(), Ok(&row));
        work_with(row);
    }
});

/// What a relay does with a row that it has read.
fn work_with(mut row: LaneRow) {
    let last = row.last();
    for n in [1, last / 2, last, last.saturating_add(1)] {
        let pending = row.fate(n) == Fate::Pending;
        assert_eq!(row.settle(n, 1, Verdict::DELIVERED, UnixMillis(7)), pending);
    }
    let state = row.state(1, last, 100, 10_000);
    assert!(state.upto >= 1 || last == 0);
    if last < u64::MAX {
        row.accept(last + 1, 1, UnixMillis(7));
        assert_eq!(row.fate(last + 1), Fate::Pending);
    }
}
