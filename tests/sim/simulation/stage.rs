//! What all hosts of a run share.

use std::sync::{Arc, Mutex, MutexGuard};

use posthouse::address::{PeerAddress, RelayAddress};
use posthouse::identity::Identity;
use tokio::time::Instant;

use super::chance::Chance;
use super::ledger::Ledger;
use super::net::{HostNumber, Net, address};
use super::plan::Plan;
use super::trace::Trace;

/// The port of every relay.
pub(crate) const RELAY_PORT: u16 = 4433;

/// See the head of this file. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Inner>);

struct Inner {
    plan: Plan,
    net: Net,
    trace: Trace,
    ledger: Mutex<Ledger>,
    chance: Mutex<Chance>,
    begun: Instant,
}

/// The identity of a host: always the same one for the same number.
pub(crate) fn who(host: HostNumber) -> Identity {
    Identity::from_seed([host; 32])
}

impl Stage {
    pub(crate) fn new(plan: Plan, mut chance: Chance, trace: Trace) -> Self {
        let net = Net::new(chance.fork(), trace.clone());
        let mut ledger = Ledger::default();
        for peer in 0..plan.peers.len() {
            let number = super::plan::FIRST_PEER + peer as HostNumber;
            ledger.know(who(number).peer_id(), number);
        }
        let (ledger, chance) = (Mutex::new(ledger), Mutex::new(chance));
        Self(Arc::new(Inner { plan, net, trace, ledger, chance, begun: Instant::now() }))
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    pub(crate) fn net(&self) -> &Net {
        &self.0.net
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.0.trace
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap()
    }

    /// A chance of its own for some part of the run.
    pub(crate) fn fork(&self) -> Chance {
        self.0.chance.lock().unwrap().fork()
    }

    /// When this is due that the plan has at a time.
    pub(crate) fn when(&self, at: std::time::Duration) -> Instant {
        self.0.begun + at
    }

    /// Where a relay is.
    pub(crate) fn relay(&self, relay: HostNumber) -> RelayAddress {
        RelayAddress::new(who(relay).relay_id(), address(relay, RELAY_PORT).into())
    }

    /// Where a peer is reached.
    pub(crate) fn peer(&self, peer: HostNumber) -> PeerAddress {
        let home = self.plan().peers[usize::from(peer - super::plan::FIRST_PEER)].home;
        self.relay(home).peer(who(peer).peer_id())
    }
}
