//! Frames for people who watch the wire: each is told on [`PACKETS`] at level trace, where it was sent and where it
//! has come. While nobody watches, that is one look at a number.

use crate::id::PeerId;
use crate::protocol::Frame;

/// The target of the log where frames are told, for filters. The fields are `here` and `there` (who tells it and who
/// is at the other end, by key in short; `?` for nobody), `way` (`sent` or `received`), `frame` (its name in
/// docs/PROTOCOL.md) and `says` (what is in it, but for bodies).
pub const PACKETS: &str = "posthouse::packets";

/// Who is at the two ends of a stream.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) here: PeerId,
    pub(super) there: Option<PeerId>,
}

impl Ends {
    pub(super) fn sent(&self, frame: &Frame) {
        self.tell("sent", frame);
    }

    pub(super) fn received(&self, frame: &Frame) {
        self.tell("received", frame);
    }

    fn tell(&self, way: &'static str, frame: &Frame) {
        // Nothing to the right of a field's name is looked at if nobody watches.
        tracing::trace!(
            target: PACKETS,
            here = %self.here.short(),
            there = %self.there.map_or_else(|| "?".to_owned(), |there| there.short()),
            way,
            frame = frame.frame_type().name(),
            says = %frame.summary(),
        );
    }
}
