//! Which other relays this one has to do with, and where they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::address::RelayAddress;
use crate::id::RelayId;

/// Which relays are admitted, but for those that are blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// All.
    #[default]
    Open,
    /// Those that are listed.
    Listed,
    /// None.
    Closed,
}

impl Admission {
    /// Its name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Listed => "listed",
            Self::Closed => "closed",
        }
    }
}

/// Which relays may send messages here, and are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// In general.
    pub admission: Admission,
    /// Who is listed.
    pub allow: BTreeSet<RelayId>,
    /// Who is not admitted in any case.
    pub block: BTreeSet<RelayId>,
    /// Where relays are, whatever the addresses in messages say.
    pub places: BTreeMap<RelayId, RelayAddress>,
}

impl Policy {
    /// Whether this relay is admitted.
    #[must_use]
    pub fn admits(&self, relay: &RelayId) -> bool {
        let admitted = match self.admission {
            Admission::Open => true,
            Admission::Listed => self.allow.contains(relay),
            Admission::Closed => false,
        };
        admitted && !self.block.contains(relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_relay_is_not_admitted_whatever_else_is_said() {
        let [one, two] = [1, 2].map(|byte| RelayId::from_bytes([byte; 32]));
        for (admission, expected) in
            [(Admission::Open, [true, true]), (Admission::Listed, [true, false]), (Admission::Closed, [false; 2])]
        {
            let policy = Policy { admission, allow: [one].into(), ..Policy::default() };
            assert_eq!([one, two].map(|relay| policy.admits(&relay)), expected);
            let policy = Policy { block: [one].into(), ..policy };
            assert!(!policy.admits(&one));
        }
    }
}
