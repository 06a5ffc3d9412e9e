//! Connections that have not said R:HELLO, handshakes included: a place for each, and none for more than a share of
//! them to any one address, so that whoever is silent in one place does not keep the others out.
//!
//! How often an address may try at all is for `gate`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::meter::TurnedAway;
use crate::transport::network;

/// One address has this share (one in so many) of the places. As many as it can need: with the attempts that it may
/// make in a second, each would have to keep its place for a quarter of one.
const ADDRESS_SHARE: usize = 4;

/// With this share (one in so many) of the places taken, the relay is crowded.
const CROWDED_SHARE: usize = 10;

/// The places that are taken. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of a connection that has not said R:HELLO yet, for as long as this lives.
#[derive(Debug)]
pub(super) struct Stranger {
    of: Strangers,
    address: IpAddr,
}

impl Strangers {
    /// Whether so many of `places` are taken that everybody should prove its address.
    pub(super) fn crowd(&self, places: usize) -> bool {
        self.lock().all > places / CROWDED_SHARE
    }

    /// A place for a connection from `address`, if there is one.
    pub(super) fn admit(&self, address: IpAddr, places: usize) -> Result<Stranger, TurnedAway> {
        let address = network(address);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= places {
            return Err(TurnedAway::Full);
        }
        if own >= places.div_ceil(ADDRESS_SHARE) {
            return Err(TurnedAway::AddressFull);
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Ok(Stranger { of: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_has_its_share_of_the_places_and_the_others_theirs() {
        let strangers = Strangers::default();
        let first: Vec<_> = (0..2).map(|_| strangers.admit(from(1), 8).unwrap()).collect();
        assert_eq!(strangers.admit(from(1), 8).err(), Some(TurnedAway::AddressFull));
        let others: Vec<_> = (2..=7).map(|last| strangers.admit(from(last), 8).unwrap()).collect();
        assert_eq!(strangers.admit(from(9), 8).err(), Some(TurnedAway::Full));
        drop(first);
        assert!(strangers.admit(from(1), 8).is_ok(), "places that are free again are given anew");
        drop(others);
        let taken = strangers.lock();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0), "nothing is remembered");
    }

    #[test]
    fn a_tenth_of_the_places_is_a_crowd() {
        let strangers = Strangers::default();
        let mut places: Vec<_> = (1..=2).map(|last| strangers.admit(from(last), 20).unwrap()).collect();
        assert!(!strangers.crowd(20));
        places.extend(strangers.admit(from(3), 20));
        assert!(strangers.crowd(20));
    }
}
