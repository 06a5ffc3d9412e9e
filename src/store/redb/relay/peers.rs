//! The peers of a relay, as its operator sees them: a page at a time.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::ReadTransaction;

use super::super::fault::Fault;
use super::access::standing;
use super::read::row;
use super::schema::{ACCESS, DateRow, LINKS, MAILBOXES, MailboxRow, NUMBERS, Row, SEEN, Single};
use crate::id::PeerId;
use crate::store::{Access, MailboxState, PeerPage, PeerState, Standing};
use crate::time::UnixMillis;

/// Peers that one page looks at: many of those with a number have no mailbox here.
const LOOKED_AT: usize = 4096;

/// Reads a page. Both tables are in the order of keys, so the page is complete up to where the nearer of both looks ended.
pub(super) fn peers(
    transaction: &ReadTransaction,
    access: &Access,
    after: Option<PeerId>,
    limit: usize,
) -> Result<PeerPage, Fault> {
    let mut page = PeerPage::default();
    if limit == 0 {
        return Ok(PeerPage { next: after, ..page });
    }
    let behind = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after.as_bytes()));
    let bounds = (behind, Bound::Unbounded);
    let mut found: BTreeMap<[u8; 32], (Option<Standing>, Option<MailboxState>)> = BTreeMap::new();
    let mut ends: Option<[u8; 32]> = None;
    for (at, entry) in transaction.open_table(ACCESS)?.range::<[u8; 32]>(bounds)?.enumerate() {
        let (key, decided) = entry?;
        found.insert(key.value(), (Some(standing(&Single::decode(decided.value())?)), None));
        if at + 1 == limit {
            ends = Some(key.value());
            break;
        }
    }
    let (mailboxes, links, seen) =
        (transaction.open_table(MAILBOXES)?, transaction.open_table(LINKS)?, transaction.open_table(SEEN)?);
    let mut with_mailbox = 0;
    for (at, entry) in transaction.open_table(NUMBERS)?.range::<[u8; 32]>(bounds)?.enumerate() {
        let (key, number) = entry?;
        let (key, number) = (key.value(), Single::decode(number.value())?.value);
        let mailbox: Option<MailboxRow> = if links.get(number)?.is_some() { None } else { row(&mailboxes, number)? };
        if let Some(mailbox) = mailbox {
            let last_seen: Option<DateRow> = row(&seen, number)?;
            found.entry(key).or_default().1 = Some(MailboxState {
                messages: mailbox.messages,
                bytes: mailbox.bytes,
                provisional: mailbox.caused_by().is_some(),
                online: mailbox.open > 0,
                last_seen: last_seen.map(|seen| UnixMillis(seen.ms)),
            });
            with_mailbox += 1;
        }
        if with_mailbox == limit || at + 1 == LOOKED_AT {
            ends = Some(ends.map_or(key, |end| end.min(key)));
            break;
        }
    }
    let listed = found.iter().filter(|(key, _)| ends.is_none_or(|end| **key <= end));
    for (key, (decided, mailbox)) in listed.take(limit) {
        let peer = PeerId::from_bytes(*key);
        page.peers.push(PeerState { peer, standing: access.standing(&peer, *decided), mailbox: mailbox.clone() });
    }
    let last = page.peers.last().map(|last| last.peer);
    page.next = if found.len() > limit && page.peers.len() == limit { last } else { ends.map(PeerId::from_bytes) };
    Ok(page)
}
