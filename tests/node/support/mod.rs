//! What the tests stand on: relays that stop and crash, clients, a man in the middle, and raw speakers.

pub(crate) mod bystander;
pub(crate) mod client;
pub(crate) mod hesitant;
pub(crate) mod lasting;
pub(crate) mod pretender;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod relay;

use std::time::Duration;

use posthouse::identity::Identity;
use posthouse::transport::TransportLimits;

/// How long anything may take before a test fails. Far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The secret of a member of the cast.
pub(crate) const fn seed(number: u8) -> [u8; 32] {
    [number; 32]
}

/// A member of the cast: always the same one for the same number.
pub(crate) fn who(number: u8) -> Identity {
    Identity::from_seed(seed(number))
}

/// Connections that say often that they are there: a relay that lost its store knows nobody to wake.
pub(crate) fn lively() -> TransportLimits {
    TransportLimits { keep_alive: Duration::from_millis(250), ..TransportLimits::default() }
}

/// Waits for something that has to come.
#[track_caller]
pub(crate) fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: {what} did not come in {PATIENCE:?}"),
        }
    }
}

/// Waits until a condition holds, looking often.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    within(what, async move {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}
