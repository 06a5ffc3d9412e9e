//! Printing: lines for people, JSON objects for programs, errors for both.

use std::io::{self, Write};

use indicatif::HumanCount;

/// What an error is about that comes from printing.
const STANDARD_OUTPUT: &str = "standard output";

/// Prints an error and its causes on one line, so that it can be found in a log.
pub(super) fn error(error: &anyhow::Error) {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors repeat their source in their own words.
        if !causes.last().is_some_and(|last| last.contains(&cause)) {
            causes.push(cause);
        }
    }
    note(&format!("posthouse: {}", causes.join(": ")));
}

/// Whether it is that nobody reads standard output any more, as in `posthouse peers | head`: no news to anybody.
pub(super) fn is_unread(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.to_string() == STANDARD_OUTPUT && error.root_cause().downcast_ref().is_some_and(closed)
}

/// Says something on standard error.
pub(super) fn note(words: &str) {
    // With nobody to read it there is nobody to tell.
    writeln!(io::stderr(), "{words}").ok();
}

/// A number of things, as people write it.
pub(super) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { one } else { more })
}

/// Prints one line and sends it off at once.
///
/// # Errors
/// If standard output is closed.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
