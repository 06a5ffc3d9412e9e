//! Peers that are told apart by a number, and what they ask of a store.

use std::time::Duration;

use posthouse::id::{LaneId, MessageId, PeerId, RelayId};
use posthouse::protocol::{Answer, Envelope, Header, Order};
use posthouse::store::{Append, Done, Fence, Op, Query};
use posthouse::time::UnixMillis;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Whose mailbox is large.
pub(crate) const READER: u32 = 1_000_000;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
const BODY: [u8; 256] = [7; 256];

/// Keys that lie apart, as real ones do.
pub(crate) fn peer(name: u32) -> PeerId {
    let mut key = [0x5a; 32];
    let (spread, rest) = key.split_at_mut(4);
    spread.copy_from_slice(&name.wrapping_mul(0x9e37_79b1).to_be_bytes());
    rest.iter_mut().zip(name.to_be_bytes()).for_each(|(to, from)| *to = from);
    PeerId::from_bytes(key)
}

pub(crate) fn fence(name: u32) -> Fence {
    Fence { peer: peer(name), device: 0, epoch: 1 }
}

pub(crate) fn append(from: u32, to: u32, n: u64, ttl: Duration) -> Op {
    let header = Header {
        sender: peer(from),
        relay: RelayId::from_bytes([7; 32]),
        recipient: peer(to),
        id: MessageId::new(n, &[7; 10]),
        lane: LaneId(u64::from(from) << 32 | u64::from(to)),
        n,
        created: UnixMillis(0),
        ttl,
    };
    Op::Append(Append {
        envelope: Envelope::new(header, &BODY),
        signature: None,
        prev: n - 1,
        ttl,
        refuse: None,
        forward: None,
    })
}

/// The first page of a mailbox.
pub(crate) fn query(of: u32, order: Order, sender: Option<u32>, max_messages: u64) -> Query {
    Query { mailbox: peer(of), order, cursor: None, sender: sender.map(peer), max_messages, max_bytes: 1 << 20 }
}

/// Whether all messages were accepted.
pub(crate) fn accepted(done: &[Done]) -> Outcome<()> {
    let accepted =
        |done: &&Done| matches!(done, Done::Answered { answer: Answer::Accepted { duplicate: false, .. }, .. });
    match done.iter().find(|done| !accepted(done)) {
        None => Ok(()),
        Some(other) => Err(format!("{other:?}").into()),
    }
}
