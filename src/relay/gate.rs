//! Who may try to connect: counts of attempts, so that a flood from one place does not lock out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::time::Moment;
use crate::transport::network;

/// A validated address may make so many times the attempts of an unvalidated one.
const VALIDATED_FACTOR: u32 = 16;

/// Addresses counted within one second; beyond, all unvalidated ones have to prove themselves.
const MAX_ADDRESSES: usize = 100_000;

/// What to do with a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Shake hands.
    Welcome,
    /// Send a Retry: whoever spoofs its address never sees it.
    Prove,
    /// Refuse.
    Refuse,
}

/// Counts attempts by address, second by second.
#[derive(Debug, Default)]
pub(super) struct Gate {
    second: Mutex<(u64, HashMap<IpAddr, Attempts>)>,
}

/// Attempts from one address in one second. Those that only name it are not counted against those that have proven
/// it: otherwise whoever sends packets in the name of somebody else would lock that one out.
#[derive(Debug, Default)]
struct Attempts {
    claimed: u32,
    proven: u32,
}

impl Gate {
    /// An attempt from `address`, which has proven itself if `validated`, where `per_second` are welcome. While the
    /// relay is `crowded` with connections that have not said who they are, everybody has to prove its address: a
    /// flood from spoofed ones then takes no places.
    pub(super) fn judge(
        &self,
        per_second: u32,
        now: Moment,
        address: IpAddr,
        (validated, crowded): (bool, bool),
    ) -> Passage {
        let address = network(address);
        let second = now.since(Moment::default()).as_secs();
        let mut counted = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != second {
            *counted = (second, HashMap::new());
        }
        if counted.1.len() >= MAX_ADDRESSES && !counted.1.contains_key(&address) {
            return if validated { Passage::Welcome } else { Passage::Prove };
        }
        let attempts = counted.1.entry(address).or_default();
        if validated {
            attempts.proven = attempts.proven.saturating_add(1);
            let welcome = attempts.proven <= per_second.saturating_mul(VALIDATED_FACTOR);
            return if welcome { Passage::Welcome } else { Passage::Refuse };
        }
        attempts.claimed = attempts.claimed.saturating_add(1);
        if attempts.claimed <= per_second && !crowded { Passage::Welcome } else { Passage::Prove }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn a_flood_has_to_prove_its_address_and_is_then_refused_while_others_pass() {
        let gate = Gate::default();
        let at = |ms| Moment::from_origin(Duration::from_millis(ms));
        let flood = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(gate.judge(2, at(0), flood, (false, false)), Passage::Welcome);
        assert_eq!(gate.judge(2, at(1), flood, (false, false)), Passage::Welcome);
        assert_eq!(gate.judge(2, at(2), flood, (false, false)), Passage::Prove);
        assert_eq!(gate.judge(2, at(3), flood, (true, false)), Passage::Welcome);
        for _ in 0..31 {
            assert_eq!(gate.judge(2, at(4), flood, (true, false)), Passage::Welcome);
        }
        assert_eq!(gate.judge(2, at(5), flood, (true, false)), Passage::Refuse);
        assert_eq!(gate.judge(2, at(5), other, (false, false)), Passage::Welcome);
        assert_eq!(gate.judge(2, at(1000), flood, (false, false)), Passage::Welcome, "the next second is a new one");
    }

    #[test]
    fn a_flood_in_the_name_of_an_address_does_not_lock_its_owner_out() {
        let gate = Gate::default();
        let owner = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        for _ in 0..10_000 {
            gate.judge(2, Moment::default(), owner, (false, false));
        }
        assert_eq!(gate.judge(2, Moment::default(), owner, (false, false)), Passage::Prove);
        assert_eq!(gate.judge(2, Moment::default(), owner, (true, false)), Passage::Welcome);
    }

    #[test]
    fn a_crowded_relay_wants_proof_from_everybody() {
        let gate = Gate::default();
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(gate.judge(2, Moment::default(), address, (false, true)), Passage::Prove);
        assert_eq!(gate.judge(2, Moment::default(), address, (true, true)), Passage::Welcome);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let gate = Gate::default();
        let judge = |text: &str| gate.judge(1, Moment::default(), text.parse().unwrap(), (false, false));
        assert_eq!(judge("2001:db8::1"), Passage::Welcome);
        assert_eq!(judge("2001:db8::ffff:2"), Passage::Prove);
        assert_eq!(judge("2001:db8:0:1::1"), Passage::Welcome);
        assert_eq!(judge("::ffff:10.0.0.1"), Passage::Welcome);
        assert_eq!(judge("10.0.0.1"), Passage::Prove, "the same IPv4 address in another dress");
    }
}
