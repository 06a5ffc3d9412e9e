//! How the driver stands with its relay: waiting to connect, connecting, connected, or done for good.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::link::{Link, LinkError, Stream};
use crate::protocol::Frame;
use crate::time::{Clock, Moment, sleep_until};
use crate::transport::TransportError;

/// How long a relay that is said to be started anew may say nothing before its connection counts as lost, at
/// least; three round trips if those are longer. A lost connection that is full of unacknowledged data sends
/// nothing that a restarted relay could answer until its next probe, and that may be many seconds off.
const DOUBT: Duration = Duration::from_millis(500);

/// An attempt to connect that lasts so long has to begin anew once the relay says that it is back: its next
/// packet may be two seconds off.
pub(super) const STALE_ATTEMPT: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = Result<Box<Link>, LinkError>> + Send>>;

/// See the head of this file.
pub(super) enum State {
    /// Until then.
    Waiting(Moment),
    Connecting {
        attempt: Connecting,
        since: Moment,
    },
    Up {
        link: Box<Link>,
        since: Moment,
        doubt: Option<Doubt>,
    },
    /// For good.
    Stopped,
}

/// The relay is said to be started anew; the connection is lost if nothing more comes on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    until: Moment,
    /// Datagrams that had come.
    received: u64,
}

/// What happened to the connection.
pub(super) enum News {
    Due,
    Connected(Result<Box<Link>, LinkError>),
    Frame(Stream, Frame),
    Lost(TransportError),
}

impl Doubt {
    pub(super) fn about(link: &Link, now: Moment) -> Self {
        let until = now + DOUBT.max(3 * link.connection.rtt());
        Self { until, received: link.connection.datagrams_received() }
    }
}

impl State {
    /// When a connection in doubt counts as lost.
    pub(super) fn doubted_until(&self) -> Option<Moment> {
        match self {
            Self::Up { doubt: Some(doubt), .. } => Some(doubt.until),
            _ => None,
        }
    }

    /// Whether nothing came on a connection in doubt for too long.
    pub(super) fn is_lost(&mut self, now: Moment) -> bool {
        let Self::Up { link, doubt, .. } = self else { return false };
        match doubt.take_if(|doubt| doubt.until <= now) {
            Some(over) => link.connection.datagrams_received() == over.received,
            None => false,
        }
    }

    /// Cancel-safe: news is either returned or still waits.
    pub(super) async fn next(&mut self, clock: &dyn Clock) -> News {
        match self {
            Self::Waiting(until) => {
                sleep_until(clock, Some(*until)).await;
                News::Due
            }
            Self::Connecting { attempt, .. } => News::Connected(attempt.await),
            Self::Up { link, .. } => match link.next().await {
                Ok((stream, frame)) => News::Frame(stream, frame),
                Err(error) => News::Lost(error),
            },
            Self::Stopped => std::future::pending().await,
        }
    }
}
