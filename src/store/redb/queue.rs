//! What waits for the writer, and how much of it may.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::engine::{Engine, Weight};
use crate::store::StoreError;

/// The most one group takes: more gives no more throughput, but longer waits for its last request.
pub(super) const GROUP_OPS: usize = 8192;
/// The same in bytes; one request always goes.
const GROUP_BYTES: usize = 8 << 20;

/// From here on [`Writer::room`](super::writer::Writer::room) waits. Who asks it before reading more from the network is
/// slowed down before memory fills.
const QUEUE_BYTES: usize = 64 << 20;
/// The same in operations.
const QUEUE_OPS: usize = 1 << 18;
/// From here on requests that carry messages are answered `Unavailable`; the others are small and bounded by
/// the number of sessions.
const QUEUE_MAX_BYTES: usize = 4 * QUEUE_BYTES;

/// A request, and whom to answer.
pub(super) struct Job<E: Engine> {
    pub(super) request: E::Request,
    reply: oneshot::Sender<Result<E::Answer, StoreError>>,
    weight: Weight,
}

impl<E: Engine> Job<E> {
    pub(super) fn new(request: E::Request, reply: oneshot::Sender<Result<E::Answer, StoreError>>) -> Self {
        let weight = E::weight(&request);
        Self { request, reply, weight }
    }

    pub(super) const fn ops(&self) -> usize {
        self.weight.ops
    }

    pub(super) fn answer(self, answer: Result<E::Answer, StoreError>) {
        // Who no longer waits gave up the answer, not the work.
        drop(self.reply.send(answer));
    }
}

/// Who has to call the writer. A call is a system call, even where nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeds {
    /// It is at work, or was called already, and looks by itself when it is done.
    Nobody,
    /// It comes by itself within moments: who has patience need not.
    Urgent,
    All,
}

impl Heeds {
    /// Whether a push calls the writer, if all that is there may wait for more, or not. The next does not, then.
    fn calls(&mut self, patient: bool) -> bool {
        let calls = match self {
            Self::Nobody => false,
            Self::Urgent => !patient,
            Self::All => true,
        };
        if calls {
            *self = Self::Nobody;
        }
        calls
    }
}

/// See the head of this file.
pub(super) struct Queue<E: Engine> {
    jobs: VecDeque<Job<E>>,
    ops: usize,
    bytes: usize,
    /// Requests that wait for no others.
    urgent: usize,
    pub(super) heeds: Heeds,
    /// A reader met an error: the file is to be opened anew.
    pub(super) reopen: bool,
    /// There will be no more.
    pub(super) closing: bool,
    /// All is done, and the file closed.
    pub(super) done: bool,
}

impl<E: Engine> Default for Queue<E> {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            ops: 0,
            bytes: 0,
            urgent: 0,
            heeds: Heeds::All,
            reopen: false,
            closing: false,
            done: false,
        }
    }
}

impl<E: Engine> Queue<E> {
    /// How many requests wait, and how many operations.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.jobs.len(), self.ops)
    }

    /// Takes a request in, or answers it at once.
    pub(super) fn push(&mut self, job: Job<E>) {
        let Weight { ops, bytes, patient } = job.weight;
        if self.closing {
            return job.answer(Err(StoreError::Closed));
        }
        if bytes > 0 && self.bytes + bytes > QUEUE_MAX_BYTES {
            return job.answer(Err(StoreError::Unavailable("too much waits to be written".into())));
        }
        self.ops += ops;
        self.bytes += bytes;
        self.urgent += usize::from(!patient);
        self.jobs.push_back(job);
    }

    pub(super) const fn has_room(&self) -> bool {
        self.closing || (self.bytes < QUEUE_BYTES && self.ops < QUEUE_OPS)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.closing
    }

    /// Whether all that is there may wait for more.
    pub(super) const fn is_patient(&self) -> bool {
        self.urgent == 0 && self.ops < GROUP_OPS && !self.closing
    }

    /// Whether the writer has to be called for what was pushed.
    pub(super) fn calls(&mut self) -> bool {
        let patient = self.is_patient();
        self.heeds.calls(patient)
    }

    /// Takes the next group: none once all is done.
    pub(super) fn take_group(&mut self) -> Vec<Job<E>> {
        let (mut group, mut ops, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.jobs.front() {
            (ops, bytes) = (ops + next.weight.ops, bytes + next.weight.bytes);
            if !group.is_empty() && (ops > GROUP_OPS || bytes > GROUP_BYTES) {
                break;
            }
            let Some(job) = self.jobs.pop_front() else { break };
            self.ops -= job.weight.ops;
            self.bytes -= job.weight.bytes;
            self.urgent -= usize::from(!job.weight.patient);
            group.push(job);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_called_once_by_those_it_waits_for_and_while_it_works_by_nobody() {
        let mut heeds = Heeds::All;
        assert_eq!([true, false, true].map(|patient| heeds.calls(patient)), [true, false, false]);
        heeds = Heeds::Urgent;
        assert_eq!([true, false, false].map(|patient| heeds.calls(patient)), [false, true, false]);
    }
}
