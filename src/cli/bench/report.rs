//! What a benchmark prints: words, or one JSON object a line; and how far it is, where somebody watches.

use std::time::Duration;

use anyhow::Context;
use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::super::output;

/// How often a progress bar is drawn anew at least.
const BAR_TICK: Duration = Duration::from_millis(200);

/// See the head of this file.
pub(super) struct Report {
    pub(super) scenario: &'static str,
    json: bool,
}

impl Report {
    pub(super) const fn new(scenario: &'static str, json: bool) -> Self {
        Self { scenario, json }
    }

    /// Says something to people alone.
    pub(super) fn words(&self, words: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { output::line(words).context("standard output") }
    }

    /// Says what was measured: the fields to programs, the words to people.
    pub(super) fn tell(
        &self,
        event: &str,
        fields: impl IntoIterator<Item = (String, Value)>,
        words: &str,
    ) -> anyhow::Result<()> {
        if !self.json {
            return self.words(words);
        }
        let mut object = Map::new();
        object.insert("event".to_owned(), event.into());
        object.insert("scenario".to_owned(), self.scenario.into());
        object.extend(fields);
        output::line(&Value::Object(object).to_string()).context("standard output")
    }
}

/// Named fields of a report.
pub(super) fn fields<const N: usize>(fields: [(&str, Value); N]) -> impl Iterator<Item = (String, Value)> + use<N> {
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter()
}

/// A bar on standard error while something goes on, if that is a terminal.
pub(super) fn progress(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    let style = ProgressStyle::with_template("{msg:8} {bar:30} {human_pos} of {human_len}, {per_sec}, {eta} left");
    // The template is the same in every run.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(BAR_TICK);
    bar
}

/// How many in a second.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts here are positive and far below 2^52"
)]
pub(super) fn rate(count: u64, took: Duration) -> u64 {
    (count as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)).round() as u64
}

/// By how much `later` is more than `earlier`, to two digits behind the point.
#[expect(clippy::cast_precision_loss, reason = "microseconds here are far below 2^52")]
pub(super) fn ratio(later: u64, earlier: u64) -> f64 {
    (later as f64 / earlier.max(1) as f64 * 100.0).round() / 100.0
}

/// A rate for people.
pub(super) fn rate_words(rate: u64) -> String {
    format!("{} messages/s", count(rate))
}

/// A number for people.
pub(super) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A size for people.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// Microseconds for people: three digits that count.
#[expect(clippy::cast_precision_loss, reason = "microseconds here are far below 2^52")]
pub(super) fn duration(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}
