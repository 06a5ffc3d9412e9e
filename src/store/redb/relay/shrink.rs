//! Gives the disk back what a drained store no longer needs: at an opening, where nobody waits behind it.
//!
//! While a store is open, pages that become free are used again, and redb cuts free pages off the end of the file.
//! One page in use near the end keeps all before it. So a file that is far larger than what it holds is compacted
//! when it is next opened, but only if there is little to move.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::super::backend::Backend;
use super::super::fault::Fault;
use super::super::file::StoreFile;
use super::schema::{LANES, MAILBOXES, MESSAGES, MailboxRow, PEERS, Row};
use crate::store::StoreError;

/// A smaller file is left as it is.
const LEAST_FILE_BYTES: u64 = 64 << 20;
/// Nor is one touched that holds more: moving it takes about a second for each 100 MiB.
const MOST_HELD_BYTES: u64 = 64 << 20;
/// What a row may take in all tables together, beside a message's own bytes. Rather too much.
const ROW_BYTES: u64 = 512;

/// Compacts the file if more than half of it is unused, and little is in use. If that fails the store is as good as
/// before.
pub(super) fn shrink(file: &StoreFile) {
    if let Err(error) = try_shrink(file) {
        tracing::warn!(%error, "the store file is mostly empty and could not be compacted");
    }
}

fn try_shrink(file: &StoreFile) -> Result<(), StoreError> {
    let Backend::File(path) = file.backend() else { return Ok(()) };
    let length = || std::fs::metadata(path).map_or(0, |file| file.len());
    let before = length();
    if before < LEAST_FILE_BYTES {
        return Ok(());
    }
    let held = file.read(held_bytes)?;
    if held > MOST_HELD_BYTES || held > before / 2 {
        return Ok(());
    }
    file.compact()?;
    tracing::info!(before_bytes = before, after_bytes = length(), "the store file was mostly empty: compacted");
    Ok(())
}

/// About how much the store holds.
fn held_bytes(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let rows = transaction.open_table(MESSAGES)?.len()?
        + transaction.open_table(LANES)?.len()?
        + transaction.open_table(PEERS)?.len()?;
    let mut held = rows.saturating_mul(ROW_BYTES);
    for entry in transaction.open_table(MAILBOXES)?.iter()? {
        if held > MOST_HELD_BYTES {
            break;
        }
        held = held.saturating_add(MailboxRow::decode(entry?.1.value())?.bytes);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::file::journal_of;
    use super::super::super::writer::WriterMode;
    use super::super::contract_tests::options;
    use super::super::{OpenOptions, RedbRelayStore};
    use super::*;
    use crate::protocol::Envelope;
    use crate::store::contract::{TestClock, fence, lane, message, peer, remote, taken};
    use crate::store::{Append, Op, RelayStore, StoreLimits};

    fn open(path: &Path) -> RedbRelayStore {
        let limits = StoreLimits { pair_percent: 100, ..StoreLimits::default() };
        let options = options(Backend::File(path.to_owned()), &TestClock::shared(), WriterMode::Thread);
        RedbRelayStore::open(OpenOptions { limits, ..options }).unwrap()
    }

    #[tokio::test]
    async fn a_drained_store_gives_its_disk_back_when_it_is_next_opened_and_keeps_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.redb");
        let store = open(&path);
        store.submit(fence(2, 1), vec![Op::Open { remote: remote(1), invitation: None }]).await.unwrap();
        let large = |n| {
            let append = message(lane(1, 2, 1), n);
            Op::Append(Append { envelope: Envelope::new(append.envelope.header(), &[7; 1 << 20]), ..append })
        };
        for n in 1..=100 {
            store.submit(fence(1, 1), vec![large(n)]).await.unwrap();
        }
        // One message comes last and stays.
        store.submit(fence(3, 1), vec![Op::Append(message(lane(3, 2, 1), 1))]).await.unwrap();
        let query = crate::store::Query {
            mailbox: peer(2),
            order: crate::protocol::Order::Newest,
            cursor: None,
            sender: None,
            max_messages: 1,
            max_bytes: 1,
        };
        let newest = store.page(query).await.unwrap().messages[0].clone();
        let answers = taken([(0, newest.seq - 1)]);
        let settle = Op::Settle { store: store.store_id(), answers, handed_out: newest.seq, patient: false };
        store.submit(fence(2, 1), vec![settle]).await.unwrap();
        // As a kill would leave it: a store that is closed well may get rid of the end of its file.
        let copy = directory.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(journal_of(&path), journal_of(&copy)).unwrap();
        store.close().await.unwrap();
        let before = std::fs::metadata(&copy).unwrap().len();
        assert!(before > LEAST_FILE_BYTES, "{before}");
        let store = open(&copy);
        let after = std::fs::metadata(&copy).unwrap().len();
        assert!(after < before / 10, "{before} -> {after}");
        assert_eq!(store.page(query).await.unwrap().messages, [newest]);
        assert_eq!(store.check().await.unwrap().problems, [] as [String; 0]);
        store.close().await.unwrap();
    }
}
