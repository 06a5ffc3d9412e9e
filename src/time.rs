//! The only reader of the operating system's clocks.
//!
//! Two kinds of time, never mixed: a [`Moment`] only grows and measures how long something takes; a
//! [`UnixMillis`] is a date, survives a restart and may jump. Everything that needs either is given a
//! [`Clock`], so that a simulation can give its own.

use std::fmt;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on a clock that only grows, in nanoseconds since an origin of the process's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment this long after the origin.
    #[must_use]
    pub fn from_origin(since: Duration) -> Self {
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A date: milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The time from this date to `later`; zero if that is past.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for UnixMillis {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(millis(length)))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A length of time in whole milliseconds, as the wire and the store write it.
#[must_use]
pub fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Where time comes from. `now` never goes back; `date` may.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time since the origin of this clock.
    fn now(&self) -> Moment;
    /// The date.
    fn date(&self) -> UnixMillis;
}

/// A clock that may be shared between tasks and threads.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the operating system. `now` follows tokio's clock, and so a test that pauses it.
#[derive(Debug)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose origin is this call.
    #[must_use]
    pub fn shared() -> SharedClock {
        #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
        let origin = tokio::time::Instant::now();
        Arc::new(Self { origin })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }

    fn date(&self) -> UnixMillis {
        #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
        let now = SystemTime::now();
        UnixMillis(now.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

/// A timeout that a loop waits for again and again, at little cost as long as it moves to later.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Moment, Pin<Box<tokio::time::Sleep>>)>);

impl Alarm {
    /// Sleeps until `at` on `clock`, or until an earlier time that it was asked for before; for ever if there is
    /// nothing to wait for. Who is woken looks at the clock.
    ///
    /// # Cancel safety
    /// Safe: dropping it forgets the wait and nothing else.
    pub async fn ring(&mut self, clock: &dyn Clock, at: Option<Moment>) {
        let Some(at) = at else { return std::future::pending().await };
        let (set, sleep) = self.0.get_or_insert_with(|| (at, Box::pin(tokio::time::sleep(at - clock.now()))));
        if at < *set {
            #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
            sleep.as_mut().reset(tokio::time::Instant::now() + (at - clock.now()));
            *set = at;
        }
        sleep.await;
        self.0 = None;
    }
}

/// Sleeps until `at` on `clock`; for ever if there is nothing to wait for.
///
/// # Cancel safety
/// Safe: dropping it forgets the wait and nothing else.
pub async fn sleep_until(clock: &dyn Clock, at: Option<Moment>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(clock.now())).await,
        None => std::future::pending().await,
    }
}
