//! What the commands share about a client's connection: its troubles told once each, and when to leave.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::anyhow;
use posthouse::client::{Client, Connection, Event};
use posthouse::id::LaneKey;
use posthouse::protocol::{Status, WaitReason};
use posthouse::time::{Moment, SharedClock, sleep_until};
use tokio::signal::unix::{SignalKind, signal};

use crate::fault::Fault;
use crate::output::{Output, Report};
use crate::words;

/// What went wrong so far and was said.
#[derive(Debug, Default)]
pub(crate) struct Troubles(HashSet<String>);

impl Troubles {
    /// There is no session, or none any more.
    pub(crate) fn disconnected(&mut self, reason: &str, out: &Output) {
        self.note(format!("not connected: {reason}; trying again"), out);
    }

    /// The relay does not take more of one lane now.
    pub(crate) fn waiting(&mut self, lane: &LaneKey, reason: WaitReason, out: &Output) {
        let why = match reason {
            WaitReason::Quota => "the recipient's mailbox is full",
            WaitReason::QuotaPair => "this peer's share of the recipient's mailbox is full",
            WaitReason::OutboxFull => "too much waits for the recipient's relay",
            WaitReason::Lanes => "too many lanes are open",
            WaitReason::Rate => "too many messages in too short a time",
            WaitReason::NoRoom => "the relay's disk is nearly full",
            WaitReason::Unavailable => "the relay's store does not work just now",
            _ => "of another reason",
        };
        let recipient = lane.pair.recipient.short();
        self.note(format!("the relay takes no more for {recipient}.. now: {why} ({reason}); trying again"), out);
    }

    /// Tells it if somebody forges messages; false if the event is about something else.
    pub(crate) fn forged(&self, event: &Event, out: &Output) -> Result<bool, Fault> {
        let (Some(report), Event::Forged { sender, relay, count, .. }) = (Report::forged(event), event) else {
            return Ok(false);
        };
        let refused = words::count(*count, "message");
        let (sender, relay) = (sender.short(), relay.short());
        let words =
            format!("!   refused {refused} that {sender}.. at relay {relay}.. did not write, though it says so");
        out.tell(&report, Some(words))?;
        Ok(true)
    }

    fn note(&mut self, words: String, out: &Output) {
        if !self.0.contains(&words) {
            out.note(&format!("peer: {words}"));
            self.0.insert(words);
        }
    }
}

/// Waits for the first session and says what stands in its way. What waits in the mailbox.
///
/// # Errors
/// If there will be none, or none has come by then.
pub(crate) async fn first(
    client: &Client,
    (clock, until): (&SharedClock, Option<Moment>),
    troubles: &mut Troubles,
    out: &Output,
) -> Result<Status, Fault> {
    let mut connection = client.connection();
    let mut last = None;
    loop {
        match connection.borrow_and_update().clone() {
            Connection::Open { status } => return Ok(status),
            Connection::Lost { reason, .. } => {
                troubles.disconnected(&reason, out);
                last = Some(reason);
            }
            Connection::Stopped(stop) => return Err(stop.into()),
            _ => {}
        }
        tokio::select! {
            changed = connection.changed() => if changed.is_err() {
                return Err(anyhow!("the client is closed").into());
            },
            () = sleep_until(&**clock, until), if until.is_some() => {
                let reason = last.unwrap_or_else(|| "no answer".to_owned());
                return Err(unreachable_relay(client, &reason));
            }
        }
    }
}

/// The home relay cannot be reached, and who asked does not wait any longer.
pub(crate) fn unreachable_relay(client: &Client, reason: &str) -> Fault {
    let relay = client.address().relay;
    Fault::Failed(anyhow!("{relay} cannot be reached ({reason}): is it running, and is that still its address?"))
}

/// Why the client said that it does nothing more.
pub(crate) fn why_stopped(client: &Client, reason: &str) -> Fault {
    match &*client.connection().borrow() {
        Connection::Stopped(stop) => stop.clone().into(),
        _ => anyhow!("{reason}").into(),
    }
}

/// Waits for Ctrl-C or SIGTERM; for ever if there can be none.
pub(crate) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// The moment this long after `since`, if a length is given.
pub(crate) fn after(since: Moment, length: Option<Duration>) -> Option<Moment> {
    length.map(|length| since + length)
}
