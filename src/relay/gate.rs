//! Who may try to connect: counts of attempts, so that a flood from one place does not lock out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::time::Moment;

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
#[derive(Debug)]
pub(super) struct Gate {
    per_second: u32,
    second: Mutex<(u64, HashMap<IpAddr, u32>)>,
}

impl Gate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: Mutex::default() }
    }

    /// An attempt from `address`, which has proven itself if `validated`.
    pub(super) fn judge(&self, now: Moment, address: IpAddr, validated: bool) -> Passage {
        let second = now.since(Moment::default()).as_secs();
        let mut counted = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != second {
            *counted = (second, HashMap::new());
        }
        if counted.1.len() >= MAX_ADDRESSES && !counted.1.contains_key(&address) {
            return if validated { Passage::Welcome } else { Passage::Prove };
        }
        let attempts = counted.1.entry(address).or_default();
        *attempts = attempts.saturating_add(1);
        match (*attempts <= self.per_second, validated) {
            (true, _) => Passage::Welcome,
            (false, false) => Passage::Prove,
            (false, true) if *attempts <= self.per_second.saturating_mul(VALIDATED_FACTOR) => Passage::Welcome,
            (false, true) => Passage::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn a_flood_has_to_prove_its_address_and_is_then_refused_while_others_pass() {
        let gate = Gate::new(2);
        let at = |ms| Moment::from_origin(Duration::from_millis(ms));
        let flood = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(gate.judge(at(0), flood, false), Passage::Welcome);
        assert_eq!(gate.judge(at(1), flood, false), Passage::Welcome);
        assert_eq!(gate.judge(at(2), flood, false), Passage::Prove);
        assert_eq!(gate.judge(at(3), flood, true), Passage::Welcome);
        for _ in 0..40 {
            gate.judge(at(4), flood, true);
        }
        assert_eq!(gate.judge(at(5), flood, true), Passage::Refuse);
        assert_eq!(gate.judge(at(5), other, false), Passage::Welcome);
        assert_eq!(gate.judge(at(1000), flood, false), Passage::Welcome, "the next second is a new one");
    }
}
