//! One line at the bottom of a terminal that says how a running relay is, second by second. Lines of the log go above
//! it; where standard error is no terminal there is none.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::relay::{Observer, Report};

const PAUSE: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Live(ProgressBar);

impl Live {
    /// A line that shows nothing yet.
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style))
    }

    /// Where the log goes: to standard error, above the line.
    pub(super) fn log(&self) -> impl Write + use<> {
        Above(self.0.clone())
    }

    /// Shows how the relay is, for as long as there is one and this is not dropped.
    ///
    /// # Cancel safety
    /// Dropped, the line is gone.
    pub(super) async fn show(&self, observer: Observer) {
        if !io::stderr().is_terminal() {
            return;
        }
        let _cleared = Cleared(self.0.clone());
        self.0.set_draw_target(ProgressDrawTarget::stderr());
        let accepted = || observer.counted(|_, counted| counted.accepted.count()).unwrap_or(0);
        let mut before = accepted();
        while let Ok(report) = observer.report().await {
            let now = accepted();
            self.0.set_message(words(&report, now.saturating_sub(before)));
            self.0.tick();
            before = now;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Above(ProgressBar);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn words(report: &Report, rate: u64) -> String {
    let count = |count: u64| HumanCount(count).to_string();
    let (sessions, stored) = (output::count(report.sessions as u64, "session", "sessions"), &report.stored);
    let mut line = format!("{sessions}, {} messages/s, {} waiting", count(rate), count(stored.messages));
    if stored.forwarding > 0 {
        line += &format!(", {} for other relays", count(stored.forwarding));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RelayId;
    use crate::store::Totals;

    #[test]
    fn the_line_says_how_it_is() {
        let mut report = Report {
            relay: RelayId::from_bytes([7; 32]),
            uptime: Duration::ZERO,
            draining: false,
            sessions: 12,
            links: [].into(),
            stored: Totals { messages: 1204, ..Totals::default() },
        };
        assert_eq!(words(&report, 340), "12 sessions, 340 messages/s, 1,204 waiting");
        report.sessions = 1;
        assert_eq!(words(&report, 0), "1 session, 0 messages/s, 1,204 waiting");
        report.sessions = 12;
        report.stored.forwarding = 3;
        assert_eq!(words(&report, 0), "12 sessions, 0 messages/s, 1,204 waiting, 3 for other relays");
    }
}
