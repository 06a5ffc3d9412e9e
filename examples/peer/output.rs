//! Printing: words for people or JSON objects for programs on standard output, everything else on standard
//! error. The JSON here is a contract; the words are not.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use posthouse::client::{Event, Incoming};
use posthouse::id::PeerId;
use posthouse::protocol::{Outcome, Policy, Status};
use posthouse::{id::MessageId, id::RelayId};
use serde::Serialize;

use crate::fault::Fault;
use crate::screen::Screen;

/// How often a progress bar is drawn anew at least.
const BAR_TICK: Duration = Duration::from_millis(200);

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    Id {
        peer: String,
        address: Option<String>,
    },
    Status {
        total: u64,
        bytes: u64,
        by_sender: Vec<Sender>,
        oldest: Option<u64>,
        newest: Option<u64>,
        /// There are more senders than are listed.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    Queued {
        id: String,
        to: String,
        n: u64,
    },
    Accepted {
        id: String,
        durability: &'static str,
        duplicate: bool,
    },
    Delivered {
        id: String,
    },
    Expired {
        id: String,
        relay: String,
        maybe_taken: bool,
    },
    Rejected {
        id: String,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        relay: String,
        maybe_taken: bool,
    },
    /// Messages that were refused because `from` did not write them; of the first one, and how many there were.
    Forged {
        id: String,
        from: String,
        relay: String,
        count: u64,
    },
    Policy {
        senders: &'static str,
        allowed: Vec<String>,
        blocked: Vec<String>,
    },
    Message {
        id: String,
        from: String,
        n: u64,
        seq: u64,
        backlog: bool,
        sent_at: u64,
        #[serde(flatten)]
        body: Body,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct Sender {
    peer: String,
    count: u64,
    bytes: u64,
}

/// What a message says: a text, or bytes that are none.
#[derive(Debug, Serialize)]
pub(crate) enum Body {
    #[serde(rename = "body")]
    Text(String),
    #[serde(rename = "body_base64")]
    Bytes(String),
}

impl Body {
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(data_encoding::BASE64.encode(bytes)),
        }
    }
}

impl Report {
    pub(crate) fn policy(policy: &Policy) -> Self {
        let names = |peers: &[PeerId]| peers.iter().map(ToString::to_string).collect();
        let (senders, allowed, blocked) = (policy.senders.name(), names(&policy.allowed), names(&policy.blocked));
        Self::Policy { senders, allowed, blocked }
    }

    pub(crate) fn status(status: &Status) -> Self {
        let sender = |count: &posthouse::protocol::SenderCount| Sender {
            peer: count.sender.to_string(),
            count: count.messages,
            bytes: count.bytes,
        };
        Self::Status {
            total: status.messages,
            bytes: status.bytes,
            by_sender: status.senders.iter().map(sender).collect(),
            oldest: status.oldest_ms,
            newest: status.newest_ms,
            more: status.more,
        }
    }

    pub(crate) fn message(message: &Incoming) -> Self {
        Self::Message {
            id: message.id.to_string(),
            from: message.from.to_string(),
            n: message.n,
            seq: message.seq,
            backlog: message.backlog,
            sent_at: message.sent_at.0,
            body: Body::new(&message.body),
        }
    }

    /// A report about forgeries; about any other event there is none.
    pub(crate) fn forged(event: &Event) -> Option<Self> {
        let Event::Forged { id, sender, relay, count } = event else { return None };
        Some(Self::Forged { id: id.to_string(), from: sender.to_string(), relay: relay.to_string(), count: *count })
    }

    pub(crate) fn outcome(id: MessageId, outcome: &Outcome, relay: RelayId) -> Self {
        let (id, relay) = (id.to_string(), relay.to_string());
        match outcome {
            Outcome::Delivered => Self::Delivered { id },
            Outcome::Expired { maybe_taken } => Self::Expired { id, relay, maybe_taken: *maybe_taken },
            Outcome::Rejected { reason, text, maybe_taken } => {
                Self::Rejected { id, reason: reason.name(), text: text.clone(), relay, maybe_taken: *maybe_taken }
            }
        }
    }
}

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    bar: ProgressBar,
    /// A conversation has the terminal: all goes there.
    screen: Option<RefCell<Screen>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bar: ProgressBar::hidden(), screen: None }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Tells what happened and sends it off at once: the report to a program, the words, if any, to a person.
    pub(crate) fn tell(&self, report: &Report, human: Option<String>) -> Result<(), Fault> {
        if let Some(screen) = &self.screen {
            return written(draw(&mut screen.borrow_mut(), report, human));
        }
        let line = match (self.json, human) {
            (true, _) => serde_json::to_string(report).map_err(|error| Fault::Failed(error.into()))?,
            (false, Some(words)) => words,
            (false, None) => return Ok(()),
        };
        self.bar.suspend(|| line_out(&line))
    }

    /// Says something to a person alone.
    pub(crate) fn say(&self, words: &str) -> Result<(), Fault> {
        match &self.screen {
            Some(screen) => written(screen.borrow_mut().line(words)),
            None if self.json => Ok(()),
            None => self.bar.suspend(|| line_out(words)),
        }
    }

    /// Prints what was said, with its ticks, where these can be changed later; nowhere else.
    pub(crate) fn said(&self, id: &str, ticks: &str, words: &str) -> Result<(), Fault> {
        self.screen.as_ref().map_or(Ok(()), |screen| written(screen.borrow_mut().said(id, ticks, words)))
    }

    /// Says something on standard error.
    pub(crate) fn note(&self, words: &str) {
        // With nobody to read it there is nobody to tell.
        if let Some(screen) = &self.screen {
            screen.borrow_mut().line(words).ok();
            return;
        }
        self.bar.suspend(|| writeln!(io::stderr(), "{words}")).ok();
    }

    /// A conversation takes the terminal, or gives it back.
    pub(crate) fn set_screen(&mut self, screen: Option<Screen>) {
        self.screen = screen.map(RefCell::new);
    }

    /// A line was typed on the terminal, which showed this.
    pub(crate) fn typed(&self, shown: &str) -> Result<(), Fault> {
        self.screen.as_ref().map_or(Ok(()), |screen| written(screen.borrow_mut().typed(shown)))
    }

    /// The line that is typed moved down by a row.
    pub(crate) fn moved(&self) {
        if let Some(screen) = &self.screen {
            screen.borrow_mut().moved();
        }
    }

    /// Shows from now on how many of how many are done, to a person at a terminal; `what` says of what.
    pub(crate) fn start_bar(&mut self, total: u64, what: &'static str) {
        if self.json || !io::stderr().is_terminal() {
            return;
        }
        let template = format!("{{bar:30}} {{human_pos}} of {{human_len}} {what} {{msg}} ({{elapsed}})");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = ProgressBar::new(total).with_style(style);
        self.bar.enable_steady_tick(BAR_TICK);
    }

    /// How far it is; `more` is what else to say.
    pub(crate) fn move_bar(&self, done: u64, total: u64, more: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_length(total);
            self.bar.set_position(done);
            self.bar.set_message(more());
        }
    }

    /// Takes the bar away.
    pub(crate) fn end_bar(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Of a line that can be seen the ticks change. That it failed is told in words as well.
fn draw(screen: &mut Screen, report: &Report, human: Option<String>) -> io::Result<()> {
    let (id, ticks) = match report {
        Report::Accepted { id, .. } => (id, "✓"),
        Report::Delivered { id } => (id, "✓✓"),
        Report::Expired { id, .. } | Report::Rejected { id, .. } => (id, "✗"),
        Report::Message { id, .. } => return screen.said(id, "", &human.unwrap_or_default()),
        _ => return human.map_or(Ok(()), |words| screen.line(&words)),
    };
    match human {
        _ if screen.mark(id, ticks)? && ticks != "✗" => Ok(()),
        Some(words) => screen.line(&words),
        None => Ok(()),
    }
}

fn line_out(text: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

fn written(result: io::Result<()>) -> Result<(), Fault> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Fault::Unread,
        _ => Fault::Failed(anyhow::Error::new(error).context("cannot write to standard output")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse::id::PeerId;
    use posthouse::protocol::{RejectReason, SenderCount};

    fn json(report: &Report) -> String {
        serde_json::to_string(report).unwrap()
    }

    #[test]
    fn outcomes_are_the_events_of_the_contract() {
        let id = MessageId::new(1_700_000_000_000, &[0xff; 10]);
        let relay = RelayId::from_bytes([0; 32]);
        let a = "a".repeat(52);
        let told = |outcome| json(&Report::outcome(id, &outcome, relay));
        assert_eq!(told(Outcome::Delivered), format!(r#"{{"event":"delivered","id":"{id}"}}"#));
        assert_eq!(
            told(Outcome::Expired { maybe_taken: true }),
            format!(r#"{{"event":"expired","id":"{id}","relay":"{a}","maybe_taken":true}}"#)
        );
        let rejected = |text| Outcome::Rejected { reason: RejectReason::Refused, text, maybe_taken: false };
        assert_eq!(
            told(rejected(None)),
            format!(r#"{{"event":"rejected","id":"{id}","reason":"refused","relay":"{a}","maybe_taken":false}}"#)
        );
        assert!(told(rejected(Some("no \"thanks\"".into()))).contains(r#""text":"no \"thanks\"""#));
    }

    #[test]
    fn forgeries_name_who_is_said_to_have_written_them() {
        let (sender, relay) = (PeerId::from_bytes([0; 32]), RelayId::from_bytes([0; 32]));
        let id = MessageId::new(1_700_000_000_000, &[0xff; 10]);
        let report = Report::forged(&Event::Forged { id, sender, relay, count: 3 }).unwrap();
        let a = "a".repeat(52);
        assert_eq!(json(&report), format!(r#"{{"event":"forged","id":"{id}","from":"{a}","relay":"{a}","count":3}}"#));
    }

    #[test]
    fn an_empty_mailbox_has_no_oldest_message() {
        let status = Status::default();
        let expected = r#"{"event":"status","total":0,"bytes":0,"by_sender":[],"oldest":null,"newest":null}"#;
        assert_eq!(json(&Report::status(&status)), expected);
    }

    #[test]
    fn a_status_names_its_senders_and_says_if_that_is_not_all() {
        let senders = vec![SenderCount { sender: PeerId::from_bytes([0; 32]), messages: 2, bytes: 9 }];
        let status = Status { messages: 3, bytes: 12, oldest_ms: Some(5), newest_ms: Some(6), senders, more: true };
        let expected = format!(
            r#"{{"event":"status","total":3,"bytes":12,"by_sender":[{{"peer":"{}","count":2,"bytes":9}}],"oldest":5,"newest":6,"more":true}}"#,
            "a".repeat(52)
        );
        assert_eq!(json(&Report::status(&status)), expected);
    }

    #[test]
    fn a_body_is_a_text_or_base64() {
        assert_eq!(serde_json::to_string(&Body::new("zwei\n".as_bytes())).unwrap(), r#"{"body":"zwei\n"}"#);
        assert_eq!(serde_json::to_string(&Body::new(&[0xff, 0])).unwrap(), r#"{"body_base64":"/wA="}"#);
    }
}
