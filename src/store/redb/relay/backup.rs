//! Backups: all rows as they are at one moment, and a store made of them.
//!
//! A backup is read in one transaction beside the writer, so it is consistent and nobody waits for it. What it costs is
//! room: pages that become free while it lasts are not used again before its end. Both its time and the growth of the
//! file are bounded; beyond, it is given up.

use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use redb::{
    Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle, Value, WriteTransaction,
};

use super::super::backend::Backend;
use super::super::fault::Fault;
use super::super::file::{OpenError, Sizes, StoreFile};
use super::super::writer::Writer;
use super::backup_file::{BackupError, Pieces, Progress, Reader, Row};
use super::engine::RelayEngine;
use super::logged::put;
use super::restore::renew;
use super::schema::{self, each_table};
use super::{CheckReport, check};
use crate::random::Entropy;
use crate::store::{Reply, StoreError, TakePiece};
use crate::time::{Clock, SharedClock};

/// How long a backup may take. 15 minutes copy some 50 GiB at 60 MiB a second.
const LONGEST: Duration = Duration::from_secs(900);
/// How much the file may grow meanwhile, if it is smaller than this; else by its own length.
const LEAST_GROWTH_BYTES: u64 = 1 << 30;

/// Reads a backup of a running store.
pub(super) fn running(writer: &Writer<RelayEngine>, clock: SharedClock, mut take: Box<TakePiece>) -> Reply<()> {
    let (begun, watch) = (clock.now(), writer.file().watch().clone());
    let most = watch.length() + watch.length().max(LEAST_GROWTH_BYTES);
    writer.read(move |transaction| {
        let given_up = |why: &str| Err(Fault::Refused(StoreError::Unavailable(why.into())));
        write(transaction, &mut |piece| {
            if clock.now().since(begun) > LONGEST {
                return given_up("the backup took too long, and was given up");
            }
            if watch.length() > most {
                return given_up("the store grew too much during the backup, which was given up");
            }
            take(piece).map_err(Fault::Refused)
        })
    })
}

/// Reads a backup of a store that nobody has open.
///
/// # Errors
/// [`BackupError`]; [`OpenError::InUse`] if a relay runs on it.
pub fn backup_file(path: &Path, entropy: &dyn Entropy, mut take: Box<TakePiece>) -> Result<(), BackupError> {
    let file = open_existing(path, entropy)?;
    let written = file.read(|transaction| write(transaction, &mut |piece| take(piece).map_err(Fault::Refused)));
    file.close();
    written.map_err(|error| std::io::Error::other(error).into())
}

/// Reads a backup to its end, which tells whether it is whole.
///
/// # Errors
/// [`BackupError`].
pub fn verify_backup(from: impl Read, progress: &mut dyn FnMut(Progress)) -> Result<Progress, BackupError> {
    let mut reader = Reader::begin(from)?;
    let known = schema::SCHEMA.version();
    if reader.version > known {
        return Err(BackupError::LaterSchema { found: reader.version, known });
    }
    while reader.next()?.is_some() {
        progress(reader.progress);
    }
    Ok(reader.progress)
}

/// Makes a store of a backup where there is none: one with an id of its own, all of whose messages may have been
/// handed out. It is there as a whole or not at all.
///
/// # Errors
/// [`BackupError`].
pub fn restore_file(
    backup: &Path,
    store: &Path,
    (clock, entropy): (&dyn Clock, &dyn Entropy),
    progress: &mut dyn FnMut(Progress),
) -> Result<Progress, BackupError> {
    let open = || Ok::<_, BackupError>(BufReader::with_capacity(1 << 20, File::open(backup)?));
    // First all of it is read, so that a damaged one makes no store.
    let whole = verify_backup(open()?, &mut |_| ())?;
    if store.try_exists()? {
        return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists).into());
    }
    let mut reader = Reader::begin(open()?)?;
    let mut fill = |transaction: &WriteTransaction| -> Result<(), Fault> {
        let torn = |error: BackupError| Fault::corrupt(error.to_string());
        while let Some(piece) = reader.next().map_err(torn)? {
            let (name, rows) = piece.rows().unwrap_or_default();
            // Rows that nobody wrote may make no sense to whoever reads them, for all that their checksum is right.
            catch_unwind(AssertUnwindSafe(|| insert(transaction, name, &rows)))
                .unwrap_or_else(|_| Err(Fault::corrupt("its rows make no sense")))?;
            progress(reader.progress);
        }
        schema::SCHEMA.upgrade(transaction, reader.version)?;
        renew(transaction, clock)
    };
    let file = StoreFile::open(Backend::File(store.to_owned()), schema::SCHEMA, Sizes::default(), entropy, &mut fill)?;
    file.close();
    Ok(whole)
}

/// Reads a whole store that nobody has open, its pages and its rows, and says what does not fit together.
///
/// # Errors
/// [`OpenError`] if it cannot be opened, or its pages cannot be read.
pub fn check_file(path: &Path, entropy: &dyn Entropy) -> Result<CheckReport, OpenError> {
    let file = open_existing(path, entropy)?;
    let corrupt = |detail: String| OpenError::Corrupt { path: path.to_owned(), detail };
    let checked = catch_unwind(AssertUnwindSafe(|| {
        file.check_pages()?;
        file.read(check::check)
    }));
    file.close();
    let checked = checked.map_err(|_| corrupt("its pages make no sense".to_owned()))?;
    checked.map_err(|error| corrupt(error.to_string()))
}

fn open_existing(path: &Path, entropy: &dyn Entropy) -> Result<StoreFile, OpenError> {
    std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let missing = &mut |_: &_| Err(Fault::corrupt("it is gone"));
    StoreFile::open(Backend::File(path.to_owned()), schema::SCHEMA, Sizes::default(), entropy, missing)
}

fn write(transaction: &ReadTransaction, take: &mut dyn FnMut(Bytes) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut rows = 0;
    macro_rules! count {
        ($($table:ident),*) => { $(rows += transaction.open_table(schema::$table)?.len()?;)* };
    }
    each_table!(count);
    let mut pieces = Pieces::begin(schema::SCHEMA.version(), rows, take)?;
    macro_rules! write {
        ($($table:ident),*) => { $(write_table(transaction, schema::$table, &mut pieces)?;)* };
    }
    each_table!(write);
    pieces.end()
}

fn write_table<K: Key, V: Value>(
    transaction: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
    pieces: &mut Pieces<'_, Fault>,
) -> Result<(), Fault> {
    pieces.table(table.name())?;
    for entry in transaction.open_table(table)?.iter()? {
        let (key, value) = entry?;
        let (key, value) = (key.value(), value.value());
        pieces.row(K::as_bytes(&key).as_ref(), V::as_bytes(&value).as_ref())?;
    }
    Ok(())
}

fn insert(transaction: &WriteTransaction, name: &str, rows: &[Row<'_>]) -> Result<(), Fault> {
    macro_rules! insert {
        ($($table:ident),*) => { match name {
            $(name if name == schema::$table.name() => insert_rows(transaction, schema::$table, rows),)*
            _ => Err(Fault::corrupt("it has a table that no relay has")),
        } };
    }
    each_table!(insert)
}

fn insert_rows<K: Key, V: Value>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    rows: &[Row<'_>],
) -> Result<(), Fault> {
    let mut table = transaction.open_table(table)?;
    rows.iter().try_for_each(|(key, value)| put(&mut table, key, Some(value)))
}
