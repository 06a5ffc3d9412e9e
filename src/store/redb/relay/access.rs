//! Who is let in, and what the operator decides: entries, invitations, and mailboxes that are removed.

use redb::ReadableTable;

use super::super::fault::Fault;
use super::schema::{ALLOWED, BLOCKED, InvitationRow, Number, Single};
use super::settle::{Damage, Outcomes, remove};
use super::work::Work;
use crate::id::PeerId;
use crate::protocol::{Outcome, RejectReason, Verdict};
use crate::store::{Denied, Done, Entry, Invitation, MAX_INVITATIONS, Standing};

/// What a row of `access` says.
pub(super) const fn standing(row: &Single) -> Standing {
    if row.value == BLOCKED { Standing::Blocked } else { Standing::Allowed }
}

/// Whether a peer may open a session. An invitation that it needs for that is used.
pub(super) fn admit(work: &mut Work<'_>, peer: PeerId, shown: Option<[u8; 32]>) -> Result<Option<Denied>, Fault> {
    let decided = work.access.get(*peer.as_bytes())?.map(standing);
    let mailbox = match work.number(peer)? {
        Some(number) => work.mailboxes.get(number)?,
        None => None,
    };
    let has = mailbox.is_some_and(|row| row.caused_by().is_none());
    let access = &work.limits.access;
    match access.entry(access.standing(&peer, decided), has) {
        Err(denied) => Ok(Some(denied)),
        Ok(Entry::Free) => Ok(None),
        Ok(Entry::ByInvitation) => match shown {
            Some(key) if use_invitation(work, key)? => Ok(None),
            _ => Ok(Some(Denied::NotInvited)),
        },
    }
}

fn use_invitation(work: &mut Work<'_>, key: [u8; 32]) -> Result<bool, Fault> {
    let now = work.now.0;
    let Some(row) = work.invitations.get(key)?.copied() else { return Ok(false) };
    if row.expires <= now || row.uses == 0 {
        return Ok(false);
    }
    match row.uses - 1 {
        0 => work.invitations.remove(key),
        uses => work.invitations.put(key, InvitationRow { uses, ..row }),
    }
    Ok(true)
}

/// Keeps an invitation. Those that are over go, where they are in the way.
pub(super) fn invite(work: &mut Work<'_>, invitation: &Invitation) -> Result<bool, Fault> {
    let (mut kept, mut over) = (0, Vec::new());
    for entry in work.invitations.written()?.iter()? {
        let (key, row) = entry?;
        match <InvitationRow as super::schema::Row>::decode(row.value())?.expires <= work.now.0 {
            true => over.push(key.value()),
            false => kept += 1,
        }
    }
    for key in over {
        work.invitations.remove(key);
    }
    let fits = kept < MAX_INVITATIONS;
    if fits {
        let Invitation { key, uses, expires } = *invitation;
        work.invitations.put(key, InvitationRow { uses, expires: expires.0 });
    }
    Ok(fits)
}

/// Keeps what the operator decided about a peer.
pub(super) fn decide(work: &mut Work<'_>, peer: PeerId, standing: Option<Standing>) {
    let key = *peer.as_bytes();
    match standing {
        Some(Standing::Allowed) => work.access.put(key, Single { value: ALLOWED }),
        Some(Standing::Blocked) => work.access.put(key, Single { value: BLOCKED }),
        None => work.access.remove(key),
    }
}

/// Removes messages of a peer's mailbox, and in the end the mailbox.
pub(super) fn remove_peer(work: &mut Work<'_>, damage: &mut Damage, peer: PeerId, limit: usize) -> Result<Done, Fault> {
    let key = *peer.as_bytes();
    if work.access.get(key)?.map(standing) == Some(Standing::Allowed) {
        work.access.remove(key);
    }
    let nothing = Done::Removed { settled: Vec::new(), left: 0, gone: true };
    let Some(mailbox) = work.number(peer)? else { return Ok(nothing) };
    let Some(row) = work.mailboxes.get(mailbox)?.copied() else { return Ok(nothing) };
    // An outbox is no peer's, whatever its name.
    if work.links.get(mailbox)?.is_some() {
        return Ok(nothing);
    }
    let first = work.messages.written()?.range((mailbox, 0)..=(mailbox, u64::MAX))?.take(limit);
    let seqs = first.map(|entry| Ok(entry?.0.value().1)).collect::<Result<_, redb::StorageError>>()?;
    let verdict = |seq| {
        let maybe_taken = row.may_have_handed_out(seq);
        Verdict::here(Outcome::Rejected { reason: RejectReason::Removed, text: None, maybe_taken })
    };
    let mut outcomes = Outcomes::default();
    remove(work, damage, mailbox, &seqs, &mut outcomes, verdict)?;
    let settled = outcomes.enter(work)?;
    let left = work.mailboxes.get(mailbox)?.map_or(0, |row| row.messages);
    // A session that is open may hand out what comes: the mailbox has to be there to say so.
    let gone = left == 0 && row.open == 0;
    if gone {
        forget_owner(work, mailbox)?;
        work.drop_mailbox(mailbox)?;
    }
    Ok(Done::Removed { settled, left, gone })
}

/// Forgets what the owner of a mailbox has set.
fn forget_owner(work: &mut Work<'_>, mailbox: Number) -> Result<(), Fault> {
    work.seen.remove(mailbox);
    work.policies.remove(mailbox);
    let contacts = work.contacts.written()?.range((mailbox, [0; 32])..=(mailbox, [u8::MAX; 32]))?;
    let contacts = contacts.map(|entry| Ok(entry?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
    for contact in contacts {
        work.contacts.remove(contact);
    }
    Ok(())
}
