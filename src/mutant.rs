//! Deliberate defects, for the tests that have to find them.
//!
//! One at a time, on the thread that runs the simulation. Without the feature `mutants` none is compiled in.

/// A promise that the code breaks on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// MSG:A goes out before the message is on the disk.
    AcknowledgedBeforeStored,
    /// A number of a lane that came before is taken once more.
    NoDedup,
    /// A message and its lane's row are committed one after the other.
    RowInAnotherCommit,
    /// *Delivered* is told when the message is pushed.
    OutcomeBeforeTaken,
    /// A client that opens its outbox again goes on in the lanes it had.
    LaneKeptOverReopening,
    /// What a sender gave up is forgotten when it opens its outbox again.
    GivingUpNotDurable,
    /// No outcome ever says that the message may have been taken.
    MaybeTakenNeverSet,
    /// Live messages begin one message behind where the pages ended.
    PageSkipsAtHandOver,
    /// An acknowledgement's ranges reach one number too far.
    AckRangeOffByOne,
    /// The sender forgets a message at MSG:A instead of at its outcome.
    OutboxDroppedAtAnswer,
    /// A relay takes a number whose predecessor it does not have.
    GapAccepted,
    /// A session begins without asking what the relay knows.
    WhereSkipped,
    /// A mailbox restored from a backup hands out numbers once more.
    SeqReusedAfterRestore,
    /// A forwarded message's signature is not looked at.
    SignatureUnchecked,
    /// A late R:HELLO ends the session of a client that lives, whether or not the one who said it does.
    DeadSupersedes,
    /// What a relay knows of a session is never freed.
    SeatKept,
    /// What a relay's journal holds is not carried out when its store is opened.
    JournalForgotten,
}

impl Mutant {
    /// All of them, in the order above.
    pub const ALL: [Self; 17] = [
        Self::AcknowledgedBeforeStored,
        Self::NoDedup,
        Self::RowInAnotherCommit,
        Self::OutcomeBeforeTaken,
        Self::LaneKeptOverReopening,
        Self::GivingUpNotDurable,
        Self::MaybeTakenNeverSet,
        Self::PageSkipsAtHandOver,
        Self::AckRangeOffByOne,
        Self::OutboxDroppedAtAnswer,
        Self::GapAccepted,
        Self::WhereSkipped,
        Self::SeqReusedAfterRestore,
        Self::SignatureUnchecked,
        Self::DeadSupersedes,
        Self::SeatKept,
        Self::JournalForgotten,
    ];

    /// Whether this defect is planted on this thread.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_planted(self) -> bool {
        planted::PLANTED.get() == Some(self)
    }

    /// Whether this defect is planted on this thread: never, without the feature `mutants`.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    #[inline]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Plants this defect on this thread until the guard goes.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn plant(self) -> Planted {
        planted::PLANTED.set(Some(self));
        Planted(())
    }
}

#[cfg(feature = "mutants")]
pub use planted::Planted;

#[cfg(feature = "mutants")]
mod planted {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// A defect is there as long as this is.
    #[derive(Debug)]
    pub struct Planted(pub(super) ());

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
