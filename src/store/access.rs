//! Who may have a mailbox: what the configuration says in general, and what the operator decided of single peers.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::id::PeerId;
use crate::time::UnixMillis;

/// Invitations that a store keeps at most. At the limit no new one is made until some are used up or expire.
pub const MAX_INVITATIONS: u64 = 100_000;

/// Which peers may have a mailbox, but for those that are blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mailboxes {
    /// All.
    #[default]
    Open,
    /// Those that the operator allowed.
    Listed,
    /// Those that have one, those that the operator allowed, and who shows an invitation.
    Invited,
}

impl Mailboxes {
    /// Its name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Listed => "listed",
            Self::Invited => "invited",
        }
    }
}

/// What the operator decided of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may have a mailbox.
    Allowed,
    /// It is not let in, and nothing more is taken for it.
    Blocked,
}

impl Standing {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Blocked => "blocked",
        }
    }
}

/// Why a peer gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The operator blocked it.
    Blocked,
    /// The operator did not allow it.
    NotListed,
    /// It has no mailbox, and showed no invitation that is good.
    NotInvited,
}

/// What a peer has to show to get its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Free,
    /// An invitation.
    ByInvitation,
}

/// Who may have a mailbox, as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// In general.
    pub mailboxes: Mailboxes,
    /// Peers that are allowed.
    pub allow: BTreeSet<PeerId>,
    /// Peers that are blocked, whatever else is said.
    pub block: BTreeSet<PeerId>,
}

impl Access {
    /// How a peer stands, with what the store says that the operator decided of it. Who is blocked in one place is
    /// blocked.
    #[must_use]
    pub fn standing(&self, peer: &PeerId, decided: Option<Standing>) -> Option<Standing> {
        if self.block.contains(peer) {
            return Some(Standing::Blocked);
        }
        decided.or_else(|| self.allow.contains(peer).then_some(Standing::Allowed))
    }

    /// Whether a peer may open a session, if it `has` a lasting mailbox.
    ///
    /// # Errors
    /// [`Denied`] if it may not, whatever it shows.
    pub fn entry(&self, standing: Option<Standing>, has: bool) -> Result<Entry, Denied> {
        match (standing, self.mailboxes) {
            (Some(Standing::Blocked), _) => Err(Denied::Blocked),
            (Some(Standing::Allowed), _) | (None, Mailboxes::Open) => Ok(Entry::Free),
            (None, Mailboxes::Listed) => Err(Denied::NotListed),
            (None, Mailboxes::Invited) if has => Ok(Entry::Free),
            (None, Mailboxes::Invited) => Ok(Entry::ByInvitation),
        }
    }

    /// Whether messages are taken for a peer, if it `has` a mailbox: only for one that could come for them.
    #[must_use]
    pub fn takes(&self, standing: Option<Standing>, has: bool) -> bool {
        self.entry(standing, has) == Ok(Entry::Free)
    }
}

/// A right to a mailbox, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    /// What is kept of its token; see [`invitation_key`].
    pub key: [u8; 32],
    /// How many peers may still use it.
    pub uses: u64,
    /// When it is over.
    pub expires: UnixMillis,
}

/// What a store keeps of an invitation's token: who reads the store learns no token.
#[must_use]
pub fn invitation_key(token: &str) -> [u8; 32] {
    crate::identity::name_from("posthouse invitation 1", token.as_bytes())
}

/// A peer, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// Who.
    pub peer: PeerId,
    /// How the operator decided, if so.
    pub standing: Option<Standing>,
    /// Its mailbox; one that is allowed or blocked may have none.
    pub mailbox: Option<MailboxState>,
}

/// A mailbox, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxState {
    /// Messages in it.
    pub messages: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// Its owner never came.
    pub provisional: bool,
    /// A session is open.
    pub online: bool,
    /// When a session began or ended last.
    pub last_seen: Option<UnixMillis>,
}

/// Some peers, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerPage {
    /// The peers.
    pub peers: Vec<PeerState>,
    /// Behind which peer the next page begins; `None` if this is the last.
    pub next: Option<PeerId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_let_in_is_who_messages_are_taken_for() {
        let (allowed, blocked) = (Some(Standing::Allowed), Some(Standing::Blocked));
        for (mailboxes, standing, has, entry) in [
            (Mailboxes::Open, None, false, Ok(Entry::Free)),
            (Mailboxes::Open, blocked, true, Err(Denied::Blocked)),
            (Mailboxes::Listed, None, true, Err(Denied::NotListed)),
            (Mailboxes::Listed, allowed, false, Ok(Entry::Free)),
            (Mailboxes::Listed, blocked, true, Err(Denied::Blocked)),
            (Mailboxes::Invited, None, true, Ok(Entry::Free)),
            (Mailboxes::Invited, None, false, Ok(Entry::ByInvitation)),
            (Mailboxes::Invited, allowed, false, Ok(Entry::Free)),
            (Mailboxes::Invited, blocked, true, Err(Denied::Blocked)),
        ] {
            let access = Access { mailboxes, ..Access::default() };
            assert_eq!(access.entry(standing, has), entry, "{mailboxes:?} {standing:?} {has}");
            assert_eq!(access.takes(standing, has), entry == Ok(Entry::Free));
        }
    }

    #[test]
    fn who_is_blocked_in_one_place_is_blocked() {
        let [one, two] = [1, 2].map(|byte| PeerId::from_bytes([byte; 32]));
        let access = Access { allow: [one, two].into(), block: [one].into(), ..Access::default() };
        assert_eq!(access.standing(&one, Some(Standing::Allowed)), Some(Standing::Blocked));
        assert_eq!(access.standing(&two, Some(Standing::Blocked)), Some(Standing::Blocked));
        assert_eq!(access.standing(&two, None), Some(Standing::Allowed));
    }
}
