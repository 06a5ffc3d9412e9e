//! What a link does to the datagrams that pass it, and the order in which they come out. Pure: time and chance are
//! given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How much later a datagram comes out that others overtake.
const OVERTAKEN: Duration = Duration::from_millis(20);

/// Datagrams on their way at one time, in all links together: as many as 60 MB/s need at 100 ms. What comes on top
/// of that is lost, as in a router.
const ON_THE_WAY: usize = 4096;

/// What one direction of a link does. By default it is perfect.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    pub(crate) delay: Duration,
    /// Each datagram takes up to so much longer; the order stays.
    pub(crate) jitter: Duration,
    /// The share that is lost.
    pub(crate) loss: f64,
    /// The share that others overtake.
    pub(crate) reordering: f64,
    /// The share that comes twice.
    pub(crate) duplication: f64,
    /// Nothing passes.
    pub(crate) cut: bool,
}

/// Which way, seen from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Dice that fall the same in every run: xorshift.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Anywhere from 0 to below 1.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) quality: Quality,
    last: Option<Instant>,
}

impl Direction {
    /// When the copies come out of a datagram that goes in at `at`: none, one or two of them.
    pub(crate) fn pass(&mut self, at: Instant, chance: &mut Chance) -> Vec<Instant> {
        let quality = self.quality;
        if quality.cut || chance.share() < quality.loss {
            return Vec::new();
        }
        let out = at + quality.delay + quality.jitter.mul_f64(chance.share());
        let out = self.last.map_or(out, |last| out.max(last));
        let mut copies = if chance.share() < quality.reordering {
            vec![out + OVERTAKEN]
        } else {
            self.last = Some(out);
            vec![out]
        };
        if chance.share() < quality.duplication {
            copies.push(out + OVERTAKEN);
        }
        copies
    }
}

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// More were on the way than fit.
    pub(crate) overflowed: u64,
}

/// Datagrams on their way, the earliest first.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// By when they are due, and of those due together in the order in which they came.
    waiting: BTreeMap<(Instant, u64), T>,
    came: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), came: 0 }
    }
}

impl<T> Queue<T> {
    /// False if there is no room.
    pub(crate) fn push(&mut self, due: Instant, datagram: T) -> bool {
        let room = self.waiting.len() < ON_THE_WAY;
        if room {
            self.waiting.insert((due, self.came), datagram);
            self.came += 1;
        }
        room
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// One that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        self.waiting.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }
}

const MS: Duration = Duration::from_millis(1);

/// Sends 1,000 datagrams over such a link, one each millisecond. When each came out, if it did.
fn journeys(quality: Quality) -> (Instant, Vec<Vec<Instant>>) {
    let (begin, mut chance) = (Instant::now(), Chance::new(1));
    let mut direction = Direction { quality, last: None };
    (begin, (0..1000).map(|number| direction.pass(begin + number * MS, &mut chance)).collect())
}

#[test]
fn a_link_loses_and_repeats_the_shares_that_it_was_told() {
    let (_, journeys) = journeys(Quality { loss: 0.1, duplication: 0.2, ..Quality::default() });
    let with = |copies: usize| journeys.iter().filter(|journey| journey.len() == copies).count();
    assert!((70..130).contains(&with(0)), "{} lost", with(0));
    assert!((130..230).contains(&with(2)), "{} repeated", with(2));
    let (_, cut) = self::journeys(Quality { cut: true, ..Quality::default() });
    assert!(cut.iter().all(Vec::is_empty));
}

#[test]
fn a_link_keeps_the_order_but_of_the_share_that_is_overtaken() {
    for share in [0.0, 0.2] {
        let (begin, journeys) =
            journeys(Quality { delay: 50 * MS, jitter: 30 * MS, reordering: share, ..Quality::default() });
        let out: Vec<Instant> = journeys.into_iter().flatten().collect();
        let overtaken = out.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert_eq!(overtaken > 0, share > 0.0, "{overtaken} overtaken");
        assert!(out.iter().zip(0..).all(|(at, number)| *at >= begin + (number + 50) * MS));
        assert!(out.iter().zip(0..).all(|(at, number)| *at <= begin + (number + 80) * MS + OVERTAKEN));
    }
}

#[test]
fn what_does_not_fit_on_the_way_is_lost_and_the_rest_comes_out_in_time() {
    let (begin, mut queue) = (Instant::now(), Queue::default());
    let fit = (0..ON_THE_WAY + 1).filter(|number| queue.push(begin + 10 * MS, *number)).count();
    assert_eq!(fit, ON_THE_WAY);
    assert_eq!(queue.pop(begin), None);
    assert_eq!((queue.due(), queue.pop(begin + 10 * MS)), (Some(begin + 10 * MS), Some(0)));
}
