//! What restoring a relay's store from a backup means: the messages of the copy, in a new life of the store, and
//! everything in it counts as handed out.

use redb::{Database, ReadableTable, TableDefinition};

use super::disk::Disk;
use super::life::Life;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const MAILBOXES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("mailboxes");
const LINKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("links");
const SESSIONS: TableDefinition<'_, (u32, u64), &str> = TableDefinition::new("sessions");

/// Makes the store on this disk, whose process is dead, another one.
pub(crate) fn renew(disk: &Disk, id: [u8; 16]) {
    let life = Life::default();
    let database = Database::builder().create_with_backend(disk.open(&life).unwrap()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        transaction.open_table(META).unwrap().insert("store_id", id.as_slice()).unwrap();
        let mailboxes = transaction.open_table(MAILBOXES).unwrap();
        let mut sessions = transaction.open_table(SESSIONS).unwrap();
        let links = transaction.open_table(LINKS).unwrap();
        for row in mailboxes.iter().unwrap() {
            let mailbox = row.unwrap().0.value();
            // A session that was open counts as having handed out all; of an outbox that is so anyway.
            if links.get(mailbox).unwrap().is_none() {
                sessions.insert((mailbox, 0), "").unwrap();
            }
        }
    }
    transaction.commit().unwrap();
}
