//! The format of a backup: rows of tables, in pieces, with a checksum at the end.
//!
//! ```text
//! "posthouse backup 1\n"   u64 version of the tables   u64 rows in all
//! pieces:                  u32 length   u8 length, name of the table   rows (u32 length, key; u32 length, value)
//! the end:                 u32 0   SHA-256 of all before it
//! ```
//!
//! All numbers are big-endian. It is read once from front to back, so it may be a file or a connection; which tables
//! there are is the business of [`backup`](super::backup).

use std::io::{self, Read};

use bytes::Bytes;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::super::file::OpenError;

pub(super) const MAGIC: &[u8; 19] = b"posthouse backup 1\n";

/// A piece is sent off from this size on. Small enough to be at hand at once, large enough to be few.
const PIECE_BYTES: usize = 256 << 10;

/// No piece is longer: a row more than [`PIECE_BYTES`], and no row is as long as that.
const MAX_PIECE_BYTES: usize = 8 << 20;

/// Why a backup cannot be used, or not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is another kind of file.
    #[error("it is no backup of a posthouse relay")]
    Foreign,
    /// It was made by a later version of this program.
    #[error("it has schema {found} and this program knows {known}: use a newer posthouse")]
    LaterSchema {
        /// Its schema.
        found: u64,
        /// The newest schema known here.
        known: u64,
    },
    /// It is not as it was written.
    #[error("it is damaged ({0}): use another backup")]
    Damaged(&'static str),
    /// Reading it failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store that it goes into, or comes from.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// How far a backup is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows so far.
    pub rows: u64,
    /// Rows in all.
    pub of: u64,
}

/// Writes a backup, piece by piece, to whoever takes the pieces.
pub(super) struct Pieces<'a, E> {
    take: &'a mut dyn FnMut(Bytes) -> Result<(), E>,
    digest: Context,
    table: String,
    piece: Vec<u8>,
}

impl<'a, E> Pieces<'a, E> {
    pub(super) fn begin(version: u64, rows: u64, take: &'a mut dyn FnMut(Bytes) -> Result<(), E>) -> Result<Self, E> {
        let mut pieces = Self { take, digest: Context::new(&SHA256), table: String::new(), piece: Vec::new() };
        let head = [&MAGIC[..], &version.to_be_bytes(), &rows.to_be_bytes()].concat();
        pieces.give(head)?;
        Ok(pieces)
    }

    /// Rows of this table follow.
    pub(super) fn table(&mut self, name: &str) -> Result<(), E> {
        self.flush()?;
        name.clone_into(&mut self.table);
        Ok(())
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), E> {
        if self.piece.is_empty() {
            // No table's name is as long as 255, and no row as 4 GiB.
            self.piece.push(self.table.len() as u8);
            self.piece.extend_from_slice(self.table.as_bytes());
        }
        for part in [key, value] {
            self.piece.extend_from_slice(&(part.len() as u32).to_be_bytes());
            self.piece.extend_from_slice(part);
        }
        if self.piece.len() < PIECE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), E> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.give((piece.len() as u32).to_be_bytes().to_vec())?;
        self.give(piece)
    }

    pub(super) fn end(mut self) -> Result<(), E> {
        self.flush()?;
        self.give(0u32.to_be_bytes().to_vec())?;
        let digest = self.digest.clone().finish();
        (self.take)(Bytes::copy_from_slice(digest.as_ref()))
    }

    fn give(&mut self, bytes: Vec<u8>) -> Result<(), E> {
        self.digest.update(&bytes);
        (self.take)(bytes.into())
    }
}

/// Reads a backup, and knows at its end whether it is whole.
pub(super) struct Reader<R> {
    from: R,
    digest: Context,
    pub(super) version: u64,
    pub(super) progress: Progress,
}

/// Rows of one table.
pub(super) struct Piece(Vec<u8>);

/// A row: its key, and its value.
pub(super) type Row<'a> = (&'a [u8], &'a [u8]);

impl<R: Read> Reader<R> {
    pub(super) fn begin(from: R) -> Result<Self, BackupError> {
        let mut reader = Self { from, digest: Context::new(&SHA256), version: 0, progress: Progress::default() };
        let magic = reader.array::<{ MAGIC.len() }>().map_err(|error| match error {
            BackupError::Damaged(_) => BackupError::Foreign,
            other => other,
        })?;
        if magic != *MAGIC {
            return Err(BackupError::Foreign);
        }
        reader.version = u64::from_be_bytes(reader.array()?);
        reader.progress.of = u64::from_be_bytes(reader.array()?);
        Ok(reader)
    }

    /// The next piece; none once all was read and the checksum is right.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, BackupError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length == 0 {
            return self.end().map(|()| None);
        }
        if length > MAX_PIECE_BYTES {
            return Err(BackupError::Damaged("a piece of it is too long"));
        }
        let mut piece = vec![0; length];
        self.fill(&mut piece)?;
        let piece = Piece(piece);
        let (_, rows) = piece.rows().ok_or(BackupError::Damaged("a piece of it makes no sense"))?;
        self.progress.rows += rows.len() as u64;
        Ok(Some(piece))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let digest = self.digest.clone().finish();
        if digest.as_ref() != self.array::<SHA256_OUTPUT_LEN>()? {
            return Err(BackupError::Damaged("its checksum is wrong"));
        }
        if self.progress.rows != self.progress.of {
            return Err(BackupError::Damaged("rows are missing"));
        }
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged("something follows its end")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).map(|()| bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Damaged("it ends early"),
            _ => error.into(),
        })?;
        self.digest.update(bytes);
        Ok(())
    }
}

impl Piece {
    /// The table's name, and its rows; nothing if the bytes are no piece.
    pub(super) fn rows(&self) -> Option<(&str, Vec<Row<'_>>)> {
        let (name, mut rest) = self.0.split_first()?;
        let name = std::str::from_utf8(rest.split_off(..usize::from(*name))?).ok()?;
        let mut rows = Vec::new();
        while !rest.is_empty() {
            rows.push((part(&mut rest)?, part(&mut rest)?));
        }
        Some((name, rows))
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
    rest.split_off(..length as usize)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut take = |piece: Bytes| -> Result<(), Infallible> {
            bytes.extend_from_slice(&piece);
            Ok(())
        };
        let mut pieces = Pieces::begin(7, 3, &mut take).unwrap();
        pieces.table("first").unwrap();
        pieces.row(b"a", &[1; PIECE_BYTES]).unwrap();
        pieces.row(b"b", b"").unwrap();
        pieces.table("second").unwrap();
        pieces.row(b"", b"c").unwrap();
        pieces.end().unwrap();
        bytes
    }

    type Read = Vec<(String, Vec<u8>, usize)>;

    fn read(bytes: &[u8]) -> Result<(u64, Read), BackupError> {
        let (mut reader, mut read) = (Reader::begin(bytes)?, Vec::new());
        while let Some(piece) = reader.next()? {
            let (name, rows) = piece.rows().unwrap();
            read.extend(rows.iter().map(|(key, value)| (name.to_owned(), key.to_vec(), value.len())));
        }
        Ok((reader.version, read))
    }

    #[test]
    fn what_was_written_is_read() {
        let row = |table: &str, key: &[u8], value| (table.to_owned(), key.to_vec(), value);
        let rows = vec![row("first", b"a", PIECE_BYTES), row("first", b"b", 0), row("second", b"", 1)];
        assert_eq!(read(&written()).unwrap(), (7, rows));
    }

    #[test]
    fn no_byte_may_differ_be_missing_or_follow() {
        let whole = written();
        let places = (0..40).chain(whole.len() - 60..whole.len());
        for place in places {
            let mut broken = whole.clone();
            broken[place] ^= 1;
            assert!(read(&broken).is_err(), "byte {place} differs");
            assert!(read(&whole[..place]).is_err(), "it ends before byte {place}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
        assert!(matches!(read(b"something else, which is longer"), Err(BackupError::Foreign)));
        assert!(matches!(read(b"short"), Err(BackupError::Foreign)));
    }
}
