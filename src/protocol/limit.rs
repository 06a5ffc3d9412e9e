//! The limits that both ends of a connection hold each other to.
//!
//! What an operator may turn is in the relay's configuration; the numbers here are part of the protocol.

use std::time::Duration;

/// The version this code speaks, named at HELLO and in the ALPN.
pub const VERSION: u64 = 1;

/// What both ends offer in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"posthouse/1";

/// The largest body a relay may be set to accept, and the default. Larger ones are `too_large`.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// What a frame may add to the largest body: envelope, keys, and the small frames' own content.
pub const FRAME_OVERHEAD_BYTES: usize = 64 << 10;

/// The largest frame, without its 6 bytes of length and type. Fixed: a longer one closes the connection.
pub const MAX_FRAME_BYTES: usize = MAX_BODY_BYTES + FRAME_OVERHEAD_BYTES;

/// Integers on the wire are below this, so that every language can hold them exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Nested maps and lists in a frame. Ours need five.
pub const MAX_DEPTH: usize = 16;

/// Ranges, rows or items in one list of a frame. More is `bad_value`.
pub const MAX_LIST: usize = 10_000;

/// Lanes that one R:WHERE or R:CLOSE asks about. More is `bad_value`.
pub const MAX_LANES_ASKED: usize = 256;

/// Peers that one R:POLICY names. More is `bad_value`.
pub const MAX_PEERS_CHANGED: usize = 256;

/// Peers that one recipient may have allowed and blocked. What goes beyond is refused.
pub const MAX_CONTACTS: u64 = 10_000;

/// Bytes of rows in one A:WHERE, and of outcomes in one ACK:N. The rest is told in the next: far below a frame,
/// so that a relay's memory for one answer is small, and one run may go beyond.
pub const TOLD_BYTES: usize = 256 << 10;

/// Runs of one lane in one A:WHERE or ACK:N.
pub const TOLD_RUNS: usize = 1024;

/// Bytes of a text that a person reads: an agent's name, the words of a refusal. Longer ones are cut by
/// whoever writes them, and are `bad_value` on the wire.
pub const MAX_TEXT_BYTES: usize = 256;

/// Messages on one page, whatever was asked for.
pub const MAX_PAGE_MESSAGES: u64 = 500;

/// Bytes of the messages on one page, envelopes included; one message always fits.
pub const MAX_PAGE_BYTES: u64 = 1 << 20;

/// Senders named in one status; the others are counted in the totals alone.
pub const MAX_STATUS_SENDERS: usize = 100;

/// Lifetimes a message may have; what a sender names is clamped to this by its relay.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// See [`MIN_TTL`].
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The lifetime of a message whose sender names none.
pub const DEFAULT_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a relay waits for ACK:R before it sends MSG:N again, if the client names no time at HELLO.
pub const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest and the longest time a client may name for it.
pub const MIN_ACK_TIMEOUT: Duration = Duration::from_millis(100);
/// See [`MIN_ACK_TIMEOUT`].
pub const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(600);

/// MSG:N that may wait for an ACK:R at once: the default, and the most a client may name.
pub const DEFAULT_CREDIT_MESSAGES: u64 = 256;
/// See [`DEFAULT_CREDIT_MESSAGES`].
pub const MAX_CREDIT_MESSAGES: u64 = 4096;
/// Their bytes, likewise; one message may always go.
pub const DEFAULT_CREDIT_BYTES: u64 = 4 << 20;
/// See [`DEFAULT_CREDIT_BYTES`].
pub const MAX_CREDIT_BYTES: u64 = DEFAULT_CREDIT_BYTES;

/// MSG:R that may wait for MSG:A at once.
pub const WINDOW_MESSAGES: usize = 1024;
/// Their bytes; one message may always go.
pub const WINDOW_BYTES: usize = 4 << 20;

/// How long after its time a message that was offered waits for a silent relay's word.
pub const SILENCE_GRACE: Duration = Duration::from_secs(3600);
