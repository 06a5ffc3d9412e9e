//! The client's store: its outbox, the outcomes nobody has asked for yet, and its inbox.
//!
//! Changes come in batches and are synced before they are answered (LAW 1). All rows are written and removed
//! by key, so a batch whose fate is unknown may be handed in again.
//!
//! | table | key | row |
//! | --- | --- | --- |
//! | `outbox` | key, in order of entry | deadline, home relay's address, envelope |
//! | `outcomes` | the message's key | id, lane, number, verdict |
//! | `inbox` | sender, lane | numbers taken and refused |
//! | `session` | `store`, `foreign_below` | what was known of the relay's store |

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Backend;
use super::engine::{Changes, Engine, Weight};
use super::fault::Fault;
use super::file::{OpenError, Schema, Sizes, StoreFile};
use super::writer::{Writer, WriterMode};
use crate::delivery::InboxRow;
use crate::id::{LaneId, LaneKey, MessageId, PeerId, StoreId};
use crate::protocol::{Envelope, Verdict};
use crate::random::Entropy;
use crate::ranges::Ranges;
use crate::store::{Reply, StoreError};
use crate::time::UnixMillis;

const SCHEMA: Schema = Schema { kind: "client", upgrades: &[], replay: None };

const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
const OUTCOMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outcomes");
const INBOX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("inbox");
const SESSION: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("session");

const STORE: &str = "store";
const FOREIGN_BELOW: &str = "foreign_below";

/// Memory for pages, bytes: a client's store is small.
const CACHE_BYTES: usize = 8 << 20;

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub envelope: Envelope,
    /// The address of the recipient's home relay, where that is another one than the sender's.
    pub home: Option<String>,
    /// When its time runs out, by this machine's clock.
    pub deadline: UnixMillis,
}

/// The outcome of a message, kept until somebody has asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOutcome {
    /// Which message.
    pub id: MessageId,
    /// Its lane.
    pub lane: LaneKey,
    /// Its number there.
    pub n: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// One step of a batch. Each may be repeated without harm.
#[derive(Debug, Clone)]
pub enum Change {
    /// A message enters the outbox.
    Keep(u64, Arc<Letter>),
    /// A message leaves the outbox; its outcome is kept until somebody has seen it.
    Resolve(u64, Arc<KeptOutcome>),
    /// Somebody has seen an outcome.
    Forget(u64),
    /// The relay's store is now this one; messages with keys below may have been offered to another.
    Remember {
        /// The relay's store.
        store: StoreId,
        /// The first key that has not.
        foreign_below: u64,
    },
    /// What was answered on a lane.
    Answered(PeerId, LaneId, InboxRow),
    /// A lane that can bring nothing any more.
    Silent(PeerId, LaneId),
}

/// What an opened store holds.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The relay's store that was last spoken to.
    pub store: Option<StoreId>,
    /// Messages with keys below may have been offered to another store than that.
    pub foreign_below: u64,
    /// The key for the next message.
    pub next_key: u64,
    /// The outbox, in order of entry, without the messages themselves.
    pub outbox: Vec<RecoveredLetter>,
    /// Outcomes nobody has seen yet.
    pub outcomes: Vec<(u64, Arc<KeptOutcome>)>,
    /// The inbox.
    pub inbox: Vec<((PeerId, LaneId), InboxRow)>,
}

/// A message of the outbox, as far as it has to be known to begin with.
#[derive(Debug, Clone, Copy)]
pub struct RecoveredLetter {
    /// Its key.
    pub key: u64,
    /// Its id.
    pub id: MessageId,
    /// Its lane.
    pub lane: LaneKey,
    /// Its number there.
    pub n: u64,
    /// The envelope's size.
    pub bytes: usize,
    /// When its time runs out.
    pub deadline: UnixMillis,
}

/// A client's durable state, or one that is gone with the process.
#[derive(Debug)]
pub struct ClientStore(Keeper);

#[derive(Debug)]
enum Keeper {
    File(Writer<ClientEngine>),
    /// The outbox alone: the rest is read at the next opening only, and there is none.
    Memory(Mutex<BTreeMap<u64, Arc<Letter>>>),
}

impl ClientStore {
    /// Opens the store, or makes a new one, and reads what it holds.
    ///
    /// # Errors
    /// [`OpenError`]: it says which file, and what to do.
    pub fn open(backend: Backend, writer: WriterMode, entropy: &dyn Entropy) -> Result<(Self, Recovered), OpenError> {
        if matches!(backend, Backend::Memory) {
            return Ok((Self(Keeper::Memory(Mutex::default())), Recovered::default()));
        }
        let path = backend.path().to_owned();
        let mut fill = |transaction: &WriteTransaction| {
            ClientEngine.begin(transaction)?;
            Ok(())
        };
        let sizes = Sizes { cache_bytes: CACHE_BYTES, ..Sizes::default() };
        let file = StoreFile::open(backend, SCHEMA, sizes, entropy, &mut fill)?;
        let damaged = |error: StoreError| OpenError::Corrupt { path: path.clone(), detail: error.to_string() };
        let recovered = file.read(recover).map_err(damaged)?;
        let io = |source| OpenError::Io { path: path.clone(), source };
        let writer = Writer::start(file, ClientEngine, writer, "posthouse-client-store").map_err(io)?;
        Ok((Self(Keeper::File(writer)), recovered))
    }

    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe: a dropped reply does not undo the changes.
    pub fn commit(&self, changes: impl Into<Arc<Vec<Change>>>) -> Reply<()> {
        let changes = changes.into();
        match &self.0 {
            Keeper::File(writer) => writer.submit(changes),
            Keeper::Memory(outbox) => {
                let mut outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
                for change in &*changes {
                    match change {
                        Change::Keep(key, letter) => drop(outbox.insert(*key, letter.clone())),
                        Change::Resolve(key, _) => drop(outbox.remove(key)),
                        _ => {}
                    }
                }
                Box::pin(ready(Ok(())))
            }
        }
    }

    /// Reads messages of the outbox; those that are gone are left out.
    ///
    /// # Errors
    /// See [`StoreError`]. Cancel-safe.
    pub fn letters(&self, keys: Vec<u64>) -> Reply<Vec<(u64, Arc<Letter>)>> {
        let writer = match &self.0 {
            Keeper::File(writer) => writer,
            Keeper::Memory(outbox) => {
                let outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
                let letters = keys.iter().filter_map(|key| Some((*key, outbox.get(key)?.clone())));
                return Box::pin(ready(Ok(letters.collect())));
            }
        };
        writer.read(move |transaction| {
            let outbox = transaction.open_table(OUTBOX)?;
            let mut letters = Vec::with_capacity(keys.len());
            for key in keys {
                if let Some(row) = outbox.get(key)? {
                    letters.push((key, Arc::new(read_letter(row.value())?)));
                }
            }
            Ok(letters)
        })
    }

    /// Closes it once all is written. Cancel-safe: what was handed in is written all the same.
    ///
    /// # Errors
    /// None so far.
    pub fn close(&self) -> Reply<()> {
        match &self.0 {
            Keeper::File(writer) => writer.close(),
            Keeper::Memory(_) => Box::pin(ready(Ok(()))),
        }
    }
}

fn recover(transaction: &ReadTransaction) -> Result<Recovered, Fault> {
    let mut recovered = Recovered::default();
    let session = transaction.open_table(SESSION)?;
    if let Some(row) = session.get(STORE)? {
        let id: [u8; 16] = row.value().try_into().map_err(|_| Fault::corrupt("the relay's store id"))?;
        recovered.store = Some(StoreId(id));
    }
    if let Some(row) = session.get(FOREIGN_BELOW)? {
        let key = row.value().try_into().map_err(|_| Fault::corrupt("the first key of this store"))?;
        recovered.foreign_below = u64::from_be_bytes(key);
    }
    let mut next_key = recovered.foreign_below;
    for row in transaction.open_table(OUTBOX)?.iter()? {
        let (key, row) = row?;
        let letter = read_letter(row.value())?;
        let header = letter.envelope.header();
        next_key = next_key.max(key.value() + 1);
        recovered.outbox.push(RecoveredLetter {
            key: key.value(),
            id: header.id,
            lane: header.lane_key(),
            n: header.n,
            bytes: letter.envelope.bytes().len(),
            deadline: letter.deadline,
        });
    }
    for row in transaction.open_table(OUTCOMES)?.iter()? {
        let (key, row) = row?;
        let row: OutcomeRow = decode(row.value())?;
        next_key = next_key.max(key.value() + 1);
        recovered.outcomes.push((key.value(), Arc::new(row.into())));
    }
    for row in transaction.open_table(INBOX)?.iter()? {
        let (key, row) = row?;
        let row: InboxBytes = decode(row.value())?;
        recovered.inbox.push((read_inbox_key(key.value())?, row.into()));
    }
    recovered.next_key = next_key;
    Ok(recovered)
}

/// Carries out batches of changes. Keeps nothing in memory.
#[derive(Debug)]
struct ClientEngine;

struct Tables<'t> {
    outbox: Table<'t, u64, &'static [u8]>,
    outcomes: Table<'t, u64, &'static [u8]>,
    inbox: Table<'t, &'static [u8], &'static [u8]>,
    session: Table<'t, &'static str, &'static [u8]>,
}

impl Engine for ClientEngine {
    type Request = Arc<Vec<Change>>;
    type Answer = ();
    type Work<'t> = Tables<'t>;

    fn begin<'t>(&mut self, transaction: &'t WriteTransaction) -> Result<Tables<'t>, Fault> {
        Ok(Tables {
            outbox: transaction.open_table(OUTBOX)?,
            outcomes: transaction.open_table(OUTCOMES)?,
            inbox: transaction.open_table(INBOX)?,
            session: transaction.open_table(SESSION)?,
        })
    }

    fn apply(&mut self, tables: &mut Tables<'_>, changes: &Arc<Vec<Change>>) -> Result<(), Fault> {
        for change in &**changes {
            match change {
                Change::Keep(key, letter) => drop(tables.outbox.insert(key, &*letter_row(letter)?)?),
                Change::Resolve(key, outcome) => {
                    tables.outbox.remove(key)?;
                    tables.outcomes.insert(key, &*encode(&OutcomeRow::from(&**outcome))?)?;
                }
                Change::Forget(key) => drop(tables.outcomes.remove(key)?),
                Change::Remember { store, foreign_below } => {
                    tables.session.insert(STORE, &store.0[..])?;
                    tables.session.insert(FOREIGN_BELOW, &foreign_below.to_be_bytes()[..])?;
                }
                Change::Answered(sender, lane, row) => {
                    let row = encode(&InboxBytes::from(row))?;
                    tables.inbox.insert(&inbox_key(sender, *lane)[..], &*row)?;
                }
                Change::Silent(sender, lane) => drop(tables.inbox.remove(&inbox_key(sender, *lane)[..])?),
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Tables<'_>) -> Result<Changes, Fault> {
        Ok(Changes::Some)
    }

    fn committed(&mut self) {}

    fn aborted(&mut self) {}

    fn weight(changes: &Arc<Vec<Change>>) -> Weight {
        let bytes = changes.iter().map(|change| match change {
            Change::Keep(_, letter) => letter.envelope.bytes().len(),
            _ => 0,
        });
        Weight { ops: changes.len().max(1), bytes: bytes.sum(), patient: false }
    }
}

#[derive(Serialize, Deserialize)]
struct LetterHead {
    deadline: u64,
    home: Option<String>,
}

/// A head of known length, then the envelope as it is.
fn letter_row(letter: &Letter) -> Result<Vec<u8>, Fault> {
    let head = encode(&LetterHead { deadline: letter.deadline.0, home: letter.home.clone() })?;
    let length = u16::try_from(head.len()).map_err(|_| Fault::corrupt("an address that is too long"))?;
    Ok([&length.to_be_bytes()[..], &head, letter.envelope.bytes()].concat())
}

fn read_letter(row: &[u8]) -> Result<Letter, Fault> {
    let damaged = || Fault::corrupt("a message in the outbox");
    let (length, rest) = row.split_first_chunk::<2>().ok_or_else(damaged)?;
    let (head, envelope) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(damaged)?;
    let head: LetterHead = decode(head)?;
    let envelope = Envelope::parse(envelope.to_vec().into()).map_err(|_| damaged())?;
    Ok(Letter { envelope, home: head.home, deadline: UnixMillis(head.deadline) })
}

#[derive(Serialize, Deserialize)]
struct OutcomeRow {
    #[serde(with = "serde_bytes")]
    id: [u8; 16],
    sender: PeerId,
    recipient: PeerId,
    lane: LaneId,
    n: u64,
    verdict: Verdict,
}

impl From<&KeptOutcome> for OutcomeRow {
    fn from(outcome: &KeptOutcome) -> Self {
        let LaneKey { pair, lane } = outcome.lane;
        let verdict = outcome.verdict.clone();
        Self { id: *outcome.id.as_bytes(), sender: pair.sender, recipient: pair.recipient, lane, n: outcome.n, verdict }
    }
}

impl From<OutcomeRow> for KeptOutcome {
    fn from(row: OutcomeRow) -> Self {
        let pair = crate::id::Pair { sender: row.sender, recipient: row.recipient };
        let lane = LaneKey { pair, lane: row.lane };
        Self { id: MessageId::from_bytes(row.id), lane, n: row.n, verdict: row.verdict }
    }
}

#[derive(Serialize, Deserialize)]
struct InboxBytes {
    taken: Vec<(u64, u64)>,
    refused: Vec<(u64, u64)>,
    texts: Vec<(u64, String)>,
    touched: u64,
    #[serde(default)]
    closed: u64,
}

impl From<&InboxRow> for InboxBytes {
    fn from(row: &InboxRow) -> Self {
        Self {
            taken: row.taken.iter().collect(),
            refused: row.refused.iter().collect(),
            texts: row.texts.iter().map(|(n, text)| (*n, text.clone())).collect(),
            touched: row.touched.0,
            closed: row.closed,
        }
    }
}

impl From<InboxBytes> for InboxRow {
    fn from(row: InboxBytes) -> Self {
        Self {
            taken: row.taken.into_iter().collect::<Ranges>(),
            refused: row.refused.into_iter().collect::<Ranges>(),
            texts: row.texts.into_iter().collect(),
            touched: UnixMillis(row.touched),
            closed: row.closed,
        }
    }
}

fn inbox_key(sender: &PeerId, lane: LaneId) -> [u8; 40] {
    let mut key = [0; 40];
    let (first, second) = key.split_at_mut(32);
    first.copy_from_slice(sender.as_bytes());
    second.copy_from_slice(&lane.0.to_be_bytes());
    key
}

fn read_inbox_key(key: &[u8]) -> Result<(PeerId, LaneId), Fault> {
    let damaged = || Fault::corrupt("a lane of the inbox");
    let (sender, lane) = key.split_first_chunk::<32>().ok_or_else(damaged)?;
    let lane = u64::from_be_bytes(lane.try_into().map_err(|_| damaged())?);
    Ok((PeerId::from_bytes(*sender), LaneId(lane)))
}

fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, Fault> {
    rmp_serde::to_vec_named(row).map_err(|error| Fault::corrupt(error.to_string()))
}

fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, Fault> {
    rmp_serde::from_slice(row).map_err(|error| Fault::corrupt(error.to_string()))
}

/// Reads bytes as each kind of row: for the fuzzer, which has to reach them.
#[cfg(fuzzing)]
pub fn read_any_row(bytes: &[u8]) {
    drop(read_letter(bytes));
    drop(read_inbox_key(bytes));
    drop(decode::<OutcomeRow>(bytes).map(KeptOutcome::from));
    if let Ok(row) = decode::<InboxBytes>(bytes).map(InboxRow::from) {
        let again = encode(&InboxBytes::from(&row)).and_then(|bytes| decode::<InboxBytes>(&bytes));
        assert_eq!(again.ok().map(InboxRow::from), Some(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Outcome, RejectReason, sample};
    use crate::random::SystemEntropy;

    fn letter(n: u64) -> Arc<Letter> {
        let (home, deadline) = (Some("posthouse://x".into()), UnixMillis(n * 7));
        Arc::new(Letter { envelope: sample(n, b"hello"), home, deadline })
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let backend = Backend::File(directory.path().join("client.redb"));
            ClientStore::open(backend, WriterMode::Thread, &SystemEntropy).unwrap()
        };
        let (store, recovered) = open();
        assert_eq!((recovered.next_key, recovered.store), (0, None));
        let header = letter(1).envelope.header();
        let outcome = Arc::new(KeptOutcome {
            id: header.id,
            lane: header.lane_key(),
            n: 2,
            verdict: Verdict::here(Outcome::Rejected {
                reason: RejectReason::Refused,
                text: Some("no".into()),
                maybe_taken: false,
            }),
        });
        let row = InboxRow {
            taken: [(1, 5), (9, 9)].into_iter().collect(),
            refused: Ranges::one(7),
            texts: [(7, "no".to_owned())].into(),
            touched: UnixMillis(99),
            closed: 3,
        };
        let sender = PeerId::from_bytes([9; 32]);
        let changes = vec![
            Change::Keep(0, letter(1)),
            Change::Keep(1, letter(2)),
            Change::Keep(2, letter(3)),
            Change::Resolve(1, outcome.clone()),
            Change::Resolve(2, outcome.clone()),
            Change::Forget(2),
            Change::Remember { store: StoreId([5; 16]), foreign_below: 1 },
            Change::Answered(sender, LaneId(u64::MAX), row.clone()),
            Change::Answered(sender, LaneId(1), InboxRow::default()),
            Change::Silent(sender, LaneId(1)),
        ];
        store.commit(changes).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let (store, recovered) = open();
        assert_eq!((recovered.store, recovered.foreign_below, recovered.next_key), (Some(StoreId([5; 16])), 1, 2));
        assert_eq!(recovered.outbox.len(), 1);
        assert_eq!((recovered.outbox[0].n, recovered.outbox[0].deadline), (1, UnixMillis(7)));
        assert_eq!(recovered.outcomes, [(1, outcome)]);
        assert_eq!(recovered.inbox, [((sender, LaneId(u64::MAX)), row)]);
        assert_eq!(store.letters(vec![0, 1]).await.unwrap(), [(0, letter(1))]);
        store.commit(vec![Change::Forget(1)]).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(open().1.outcomes, []);
    }
}
