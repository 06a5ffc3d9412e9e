//! What requests mean: the half of a store that knows its tables. When they are carried out, and how they become
//! durable, is the affair of the [`writer`](super::writer).

use std::cell::RefCell;
use std::rc::Rc;

use redb::{ReadTransaction, WriteTransaction};

use super::fault::Fault;
use super::file::Record;

/// How much a request weighs in a transaction and in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Operations; at least 1.
    pub ops: usize,
    /// Bytes of messages it carries; 0 for none.
    pub bytes: usize,
    /// It may wait a moment for others to go with.
    pub patient: bool,
}

/// What is read while the writer goes on.
pub type Beside = dyn FnOnce(&ReadTransaction) -> Result<(), Fault> + Send;

/// What there is to commit.
#[derive(Debug)]
pub enum Changes {
    /// Nothing.
    None,
    /// Something, for which the tables are to be synced.
    Some,
    /// Something, which is written down here for the journal.
    Logged(Rc<RefCell<Record>>),
}

/// What requests mean. An engine keeps in memory only what it can rebuild or roll back.
pub trait Engine: Send + 'static {
    /// What is asked for. Not consumed: where another request spoils a transaction, this one is done again.
    type Request: Send + 'static;
    /// What a request is answered with.
    type Answer: Send + 'static;
    /// The open tables of one transaction, and rows kept in memory until its end.
    type Work<'t>;

    /// Opens the tables. There is no request yet.
    ///
    /// # Errors
    /// [`Fault::Storage`] gives the transaction up.
    fn begin<'t>(&mut self, transaction: &'t WriteTransaction) -> Result<Self::Work<'t>, Fault>;

    /// A group of requests is there.
    fn start(&mut self, _work: &mut Self::Work<'_>) {}

    /// Does one request.
    ///
    /// # Errors
    /// See [`Fault`]; with [`Fault::Refused`] nothing may have been changed.
    fn apply(&mut self, work: &mut Self::Work<'_>, request: &Self::Request) -> Result<Self::Answer, Fault>;

    /// All requests of the group are done.
    ///
    /// # Errors
    /// [`Fault::Storage`] gives the transaction up.
    fn finish(&mut self, work: &mut Self::Work<'_>) -> Result<Changes, Fault>;

    /// Brings into the tables what is not there yet.
    ///
    /// # Errors
    /// [`Fault::Storage`] gives the transaction up.
    fn write(&mut self, _work: &mut Self::Work<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// The group is durable (or had nothing to commit): publish what it did. Answers follow.
    fn committed(&mut self);

    /// What was durable before has entered the tables, or that failed.
    fn settled(&mut self) {}

    /// The group is undone: so has to be everything the engine itself keeps in memory about it.
    fn aborted(&mut self) {}

    /// The storage failed: the disk may be full.
    fn failed(&mut self) {}

    /// What is to be read now, without anybody waiting for it. It is called after each group.
    fn beside(&mut self) -> Option<Box<Beside>> {
        None
    }

    /// How much the request weighs.
    fn weight(request: &Self::Request) -> Weight;
}
