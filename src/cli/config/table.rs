//! What a table of the configuration file is made of: settings, each written down once, with its words, its place
//! among the values and its bounds. What reads the file, what checks it and what explains it all come from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Value;

use super::LogFormat;
use super::written::{List, Places, Text, Whole};
use crate::address::{HostPort, RelayAddress};
use crate::id::{PeerId, RelayId};
use crate::relay::Admission;
use crate::store::Mailboxes;

/// A setting as it is explained.
pub(super) struct Shown {
    pub(super) key: &'static str,
    /// What it means, line by line.
    pub(super) words: &'static [&'static str],
    /// What it is; nothing, if it is not set.
    pub(super) value: Option<Value>,
}

/// A setting that has a value that it cannot have.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) key: &'static str,
    /// What it is, and what would be right.
    pub(super) what: String,
}

/// What a setting may be.
pub(super) trait Setting: Sized {
    /// What stands in the file.
    type Written: DeserializeOwned;

    fn read(written: Self::Written) -> Self;

    fn shown(&self) -> Option<Value>;
}

/// Those that stand in the file as they are.
macro_rules! plain {
    ($($type:ty: $shown:expr;)*) => {$(
        impl Setting for $type {
            type Written = Self;

            fn read(written: Self) -> Self {
                written
            }

            fn shown(&self) -> Option<Value> {
                let shown: fn(&Self) -> Value = $shown;
                Some(shown(self))
            }
        }
    )*};
}

/// Whole numbers.
macro_rules! whole {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            type Written = Whole<Self>;

            fn read(written: Whole<Self>) -> Self {
                written.0
            }

            fn shown(&self) -> Option<Value> {
                Some(integer(*self as u64))
            }
        }
    )*};
}

fn integer(number: u64) -> Value {
    // Above lie no defaults, and TOML has no such numbers.
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

whole! { u64 u32 usize }

plain! {
    bool: |yes| Value::Boolean(*yes);
    PathBuf: |path| Value::String(path.display().to_string());
    String: |text| Value::String(text.clone());
    LogFormat: |format| Value::String(format.name().to_owned());
    Admission: |admission| Value::String(admission.name().to_owned());
    Mailboxes: |mailboxes| Value::String(mailboxes.name().to_owned());
}

/// Whole seconds.
impl Setting for Duration {
    type Written = Whole<u64>;

    fn read(written: Whole<u64>) -> Self {
        Self::from_secs(written.0)
    }

    fn shown(&self) -> Option<Value> {
        Some(integer(self.as_secs()))
    }
}

impl Setting for SocketAddr {
    type Written = Text<SocketAddr>;

    fn read(written: Text<SocketAddr>) -> Self {
        written.0
    }

    fn shown(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl Setting for Option<HostPort> {
    type Written = Text<HostPort>;

    fn read(written: Text<HostPort>) -> Self {
        Some(written.0)
    }

    fn shown(&self) -> Option<Value> {
        self.as_ref().map(|host| Value::String(host.to_string()))
    }
}

/// Relays by id, or by an address of theirs.
impl Setting for BTreeSet<RelayId> {
    type Written = List<RelayId>;

    fn read(written: Self::Written) -> Self {
        written.0
    }

    fn shown(&self) -> Option<Value> {
        Some(Value::Array(self.iter().map(|relay| Value::String(relay.to_string())).collect()))
    }
}

/// Peers by id, or by address.
impl Setting for BTreeSet<PeerId> {
    type Written = List<PeerId>;

    fn read(written: Self::Written) -> Self {
        written.0
    }

    fn shown(&self) -> Option<Value> {
        Some(Value::Array(self.iter().map(|peer| Value::String(peer.to_string())).collect()))
    }
}

/// Relays by their addresses.
impl Setting for BTreeMap<RelayId, RelayAddress> {
    type Written = Places;

    fn read(written: Places) -> Self {
        written.0
    }

    fn shown(&self) -> Option<Value> {
        Some(Value::Array(self.values().map(|address| Value::String(address.to_string())).collect()))
    }
}

/// Holds a number to its bounds.
pub(super) fn bounded<N>(key: &'static str, number: Whole<N>, low: u64, high: u64) -> Result<(), Wrong>
where
    N: Copy + TryInto<u64>,
{
    let right = match high {
        u64::MAX => format!("use {low} or more"),
        _ => format!("use {low} to {high}"),
    };
    match number.0.try_into() {
        Ok(number) if (low..=high).contains(&number) => Ok(()),
        Ok(number) => Err(Wrong { key, what: format!("is {number}; {right}") }),
        Err(_) => Err(Wrong { key, what: format!("is too large; {right}") }),
    }
}

/// A table of the file: settings, each with its words, its type, the place of its value in `$owner`, and bounds
/// where there are any.
macro_rules! settings {
    ($(#[$about:meta])* $table:ident of $owner:ty {
        $($(#[doc = $words:literal])+ $key:ident: $type:ty = $($place:ident).+ $(, $low:literal..=$high:expr)?;)*
    } $($inner:ident: $inner_table:ident),*) => {
        $(#[$about])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $table {
            $($key: Option<<$type as $crate::cli::config::table::Setting>::Written>,)*
            $(#[serde(default, deserialize_with = "crate::cli::config::written::table")] pub(super) $inner: $inner_table,)*
        }

        impl $table {
            /// What is written takes the place of what was there.
            pub(super) fn apply(self, to: &mut $owner) -> Result<(), $crate::cli::config::table::Wrong> {
                $(if let Some(written) = self.$key {
                    $($crate::cli::config::table::bounded(stringify!($key), written, $low, $high)?;)?
                    to.$($place).+ = $crate::cli::config::table::Setting::read(written);
                })*
                $(self.$inner.apply(to)?;)*
                Ok(())
            }

            /// Every setting, as it is.
            pub(super) fn shown(of: &$owner) -> Vec<$crate::cli::config::table::Shown> {
                use $crate::cli::config::table::{Setting, Shown};
                vec![$(Shown {
                    key: stringify!($key),
                    words: &[$($words),+],
                    value: of.$($place).+.shown(),
                },)*]
            }
        }
    };
}
pub(super) use settings;
