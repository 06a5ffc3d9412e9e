//! What can go wrong inside a transaction, and how far it reaches.

use std::sync::Arc;

use redb::{CommitError, SetDurabilityError, StorageError, TableError, TransactionError};

use crate::store::StoreError;

/// Why a step inside a transaction failed.
#[derive(Debug)]
pub enum Fault {
    /// The storage failed: the whole transaction is given up and the file reopened.
    Storage(StorageError),
    /// A row does not say what it has to: the request that met it is given up, the others are done again.
    Corrupt(Arc<str>),
    /// The request may not be done and has changed nothing: it alone is answered with this.
    Refused(StoreError),
}

impl Fault {
    /// A row that is not as it was written.
    #[must_use]
    pub fn corrupt(what: impl Into<Arc<str>>) -> Self {
        Self::Corrupt(what.into())
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => Self::Storage(error),
            other => Self::Storage(StorageError::Corrupted(other.to_string())),
        }
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => Self::Storage(error),
            other => Self::Storage(StorageError::Io(std::io::Error::other(other.to_string()))),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => Self::Storage(error),
            // An operation failed halfway before: nothing of it reached the disk.
            other => Self::Storage(StorageError::Io(std::io::Error::other(other.to_string()))),
        }
    }
}

impl From<SetDurabilityError> for Fault {
    fn from(error: SetDurabilityError) -> Self {
        Self::Storage(StorageError::Corrupted(error.to_string()))
    }
}
