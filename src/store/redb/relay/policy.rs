//! Whose messages the owner of a mailbox takes.

use redb::ReadTransaction;

use super::super::fault::Fault;
use super::read::{number, row};
use super::rows::Rows;
use super::schema::{ALLOWED, BLOCKED, CONTACTS, ContactAt, Number, POLICIES, PolicyRow, Row, Single};
use super::work::Work;
use crate::id::PeerId;
use crate::protocol::limit::MAX_CONTACTS;
use crate::protocol::{Policy, PolicyChange, Senders};

/// The tables that say it.
pub(super) struct Policies<'a, 't> {
    pub(super) policies: &'a mut Rows<'t, Number, PolicyRow>,
    pub(super) contacts: &'a mut Rows<'t, ContactAt, Single>,
}

impl Policies<'_, '_> {
    /// Whether the owner of this mailbox takes messages of this sender.
    pub(super) fn takes(&mut self, mailbox: Option<Number>, sender: PeerId) -> Result<bool, Fault> {
        let Some(mailbox) = mailbox else { return Ok(true) };
        let Some(policy) = self.policies.get(mailbox)?.copied() else { return Ok(true) };
        let contact = match policy.contacts {
            0 => None,
            _ => self.contacts.get((mailbox, *sender.as_bytes()))?.map(|contact| contact.value),
        };
        Ok(match contact {
            Some(BLOCKED) => false,
            Some(_) => true,
            None => policy.contacts_only == 0,
        })
    }
}

/// Changes it. False, and nothing is changed, if the list would be too long.
pub(super) fn change(work: &mut Work<'_>, owner: PeerId, change: &PolicyChange) -> Result<bool, Fault> {
    // Without a mailbox there is no session that could ask.
    let Some(mailbox) = work.number(owner)? else { return Ok(false) };
    if work.mailboxes.get(mailbox)?.is_none() {
        return Ok(false);
    }
    let mut policy = work.policies.get(mailbox)?.copied().unwrap_or_default();
    if let Some(senders) = change.senders {
        policy.contacts_only = u32::from(senders == Senders::Contacts);
    }
    let named = [(&change.forget, None), (&change.allow, Some(ALLOWED)), (&change.block, Some(BLOCKED))];
    let wanted: std::collections::BTreeMap<[u8; 32], Option<u32>> =
        named.iter().flat_map(|(peers, value)| peers.iter().map(|peer| (*peer.as_bytes(), *value))).collect();
    for (peer, value) in &wanted {
        let listed = work.contacts.get((mailbox, *peer))?.is_some();
        match (listed, value.is_some()) {
            (false, true) => policy.contacts += 1,
            (true, false) => policy.contacts = policy.contacts.saturating_sub(1),
            _ => {}
        }
    }
    if policy.contacts > MAX_CONTACTS {
        return Ok(false);
    }
    for (peer, value) in wanted {
        match value {
            Some(value) => work.contacts.put((mailbox, peer), Single { value }),
            None => work.contacts.remove((mailbox, peer)),
        }
    }
    if policy == PolicyRow::default() {
        work.policies.remove(mailbox);
    } else {
        work.policies.put(mailbox, policy);
    }
    Ok(true)
}

/// Reads all of it.
pub(super) fn read(transaction: &ReadTransaction, owner: PeerId) -> Result<Policy, Fault> {
    let Some(mailbox) = number(transaction, owner)? else { return Ok(Policy::default()) };
    let row: PolicyRow = row(&transaction.open_table(POLICIES)?, mailbox)?.unwrap_or_default();
    let senders = if row.contacts_only == 0 { Senders::Anyone } else { Senders::Contacts };
    let mut policy = Policy { senders, ..Policy::default() };
    for entry in transaction.open_table(CONTACTS)?.range((mailbox, [0; 32])..=(mailbox, [u8::MAX; 32]))? {
        let (key, contact) = entry?;
        let list = match Single::decode(contact.value())?.value {
            BLOCKED => &mut policy.blocked,
            _ => &mut policy.allowed,
        };
        list.push(PeerId::from_bytes(key.value().1));
    }
    Ok(policy)
}
