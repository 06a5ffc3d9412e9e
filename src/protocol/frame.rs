//! All frames: one list owns every type number.
//!
//! The high byte of a number is the class (01 request, 02 acknowledge, 03 notify), the low byte the packet,
//! so R:HELLO is 0x0103 and A:HELLO 0x0203. From 0x8000 on a type may be skipped by who does not know it.

use serde::Deserialize;

use super::error::WireError;
use super::lane::{CloseA, CloseR, WhereA, WhereR};
use super::limit::{MAX_DEPTH, MAX_LANES_ASKED, MAX_PEERS_CHANGED};
use super::mailbox::{PageA, PageR, StatusA, StatusR};
use super::message::{AckA, AckN, AckR, Exception, MsgA, MsgN, MsgR};
use super::policy::{PolicyA, PolicyR};
use super::session::{AgainN, GoawayN, HelloA, HelloR, NopN, OpenN};

/// Types from here on are skipped if unknown; below they close the connection.
pub const FIRST_SKIPPABLE: u16 = 0x8000;

macro_rules! frames {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// The type of a frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum FrameType {
            $(#[doc = concat!("See [`", stringify!($name), "`](struct@super::", stringify!($name), ").")] $name = $number,)*
        }

        impl FrameType {
            /// All types, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The name, as in docs/PROTOCOL.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The type with this number; `None` for one to skip.
            ///
            /// # Errors
            /// [`WireError::UnknownFrame`] for a type that may not be skipped.
            pub const fn from_number(number: u16) -> Result<Option<Self>, WireError> {
                match number {
                    $($number => Ok(Some(Self::$name)),)*
                    FIRST_SKIPPABLE.. => Ok(None),
                    _ => Err(WireError::UnknownFrame(number)),
                }
            }
        }

        /// One frame.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Frame {
            $(#[doc = concat!("See [`", stringify!($name), "`](struct@super::", stringify!($name), ").")] $name($name),)*
        }

        $(impl From<$name> for Frame {
            fn from(content: $name) -> Self {
                Self::$name(content)
            }
        })*

        impl Frame {
            /// Its type.
            #[must_use]
            pub const fn frame_type(&self) -> FrameType {
                match self { $(Self::$name(_) => FrameType::$name),* }
            }

            /// Reads the content of a frame of this type.
            ///
            /// # Errors
            /// [`WireError::Malformed`] if it is anything but one map of the right shape.
            pub fn decode(frame: FrameType, content: &[u8]) -> Result<Self, WireError> {
                let read = match frame { $(FrameType::$name => parse::<$name>(frame, content).map(Self::$name)),* }?;
                read.check()
            }

            /// Appends the content, a MessagePack map.
            pub(super) fn write_content<W: std::io::Write>(&self, to: &mut W) -> Result<(), rmp_serde::encode::Error> {
                let mut serializer = rmp_serde::Serializer::new(to).with_struct_map();
                match self { $(Self::$name(content) => serde::Serialize::serialize(content, &mut serializer)),* }
            }
        }
    };
}

frames! {
    MsgR = 0x0101 "MSG:R",
    AckR = 0x0102 "ACK:R",
    HelloR = 0x0103 "R:HELLO",
    WhereR = 0x0104 "R:WHERE",
    CloseR = 0x0105 "R:CLOSE",
    StatusR = 0x0106 "R:STATUS",
    PageR = 0x0107 "R:PAGE",
    PolicyR = 0x0108 "R:POLICY",
    MsgA = 0x0201 "MSG:A",
    AckA = 0x0202 "ACK:A",
    HelloA = 0x0203 "A:HELLO",
    WhereA = 0x0204 "A:WHERE",
    CloseA = 0x0205 "A:CLOSE",
    StatusA = 0x0206 "A:STATUS",
    PageA = 0x0207 "A:PAGE",
    PolicyA = 0x0208 "A:POLICY",
    MsgN = 0x0301 "MSG:N",
    AckN = 0x0302 "ACK:N",
    OpenN = 0x0303 "N:OPEN",
    GoawayN = 0x0304 "N:GOAWAY",
    AgainN = 0x0305 "N:AGAIN",
    NopN = 0x8301 "N:NOP",
}

fn parse<'de, T: Deserialize<'de>>(frame: FrameType, content: &'de [u8]) -> Result<T, WireError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(content);
    decoder.set_max_depth(MAX_DEPTH);
    let malformed = |detail: String| WireError::Malformed { frame, detail };
    // A content that is no map could still fill a struct as a list: refuse it by its first byte.
    if !matches!(content.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(malformed("the content is not a map".to_owned()));
    }
    let value = T::deserialize(&mut decoder).map_err(|error| malformed(error.to_string()))?;
    // The decoder does not say where it is; but at the end alone there is no further marker to read. A unit has nothing
    // inside, whose marker may be missing as well.
    match <()>::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(malformed("bytes follow the map".to_owned())),
    }
}

const REVERSED: &str = "a range of numbers starts at 1 and is not reversed";

impl Frame {
    /// The rules that single fields cannot know.
    fn check(self) -> Result<Self, WireError> {
        let bad = |what| Err(WireError::BadValue { frame: self.frame_type(), what });
        match &self {
            Self::WhereR(ask) if ask.lanes.len() > MAX_LANES_ASKED => bad("too many lanes"),
            Self::WhereR(ask) if ask.lanes.iter().any(|lane| lane.from == 0 || lane.from > lane.to) => bad(REVERSED),
            Self::AckN(told) if told.exceptions.iter().any(Exception::is_reversed) => bad(REVERSED),
            Self::WhereA(told) if told.lanes.iter().flat_map(|lane| &lane.exceptions).any(Exception::is_reversed) => {
                bad(REVERSED)
            }
            Self::PolicyR(ask) if ask.change.peers() > MAX_PEERS_CHANGED => bad("too many peers"),
            Self::CloseR(close) if close.lanes.len() > MAX_LANES_ASKED => bad("too many lanes"),
            _ => Ok(self),
        }
    }
}
