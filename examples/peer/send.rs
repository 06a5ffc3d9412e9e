//! `peer send`: messages into the outbox, and on until their fate is known.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use bytes::Bytes;
use posthouse::client::{Client, ClientBuilder, Draft, Event, Events, Outgoing, Reading, SendError};
use posthouse::protocol::limit::MAX_BODY_BYTES;
use posthouse::time::{SharedClock, SystemClock, sleep_until};
use tokio::sync::mpsc;

use crate::args::{SendArgs, Until};
use crate::fault::{Done, Fault};
use crate::ledger::{Ledger, come_already};
use crate::lines::{self, BATCH_MESSAGES, LineFault};
use crate::output::Output;
use crate::session::{Troubles, interrupted, why_stopped};
use crate::words;

type Batches = mpsc::Receiver<Result<Vec<Bytes>, LineFault>>;

/// From so many messages on a person sees how far it is.
const BAR_FROM: u64 = 50;

pub(crate) fn set_up(builder: ClientBuilder) -> ClientBuilder {
    // A sender must not take messages away from whoever receives with the same key.
    builder.reading(Reading::Nothing)
}

struct Sending<'a> {
    client: Client,
    args: SendArgs,
    out: &'a mut Output,
    events: Events,
    clock: SharedClock,
    ledger: Ledger,
    troubles: Troubles,
    /// A batch for which the outbox has no room yet.
    held: Option<Vec<Bytes>>,
}

pub(crate) async fn run(client: Client, mut args: SendArgs, out: &mut Output) -> Result<Done, Fault> {
    let text = std::mem::take(&mut args.text);
    let batches = if text.is_empty() {
        if std::io::stdin().is_terminal() {
            out.note("each line you type is a message; Ctrl-D ends");
        }
        lines::standard_input()
    } else {
        arguments(text).await?
    };
    // Before anything is sent, or a step could be missed.
    let events = client.events().await?;
    let (clock, ledger) = (SystemClock::shared(), Ledger::default());
    let mut sending = Sending { client, args, out, events, clock, ledger, troubles: Troubles::default(), held: None };
    let result = sending.run(batches).await;
    sending.out.end_bar();
    result?;
    sending.summary()
}

/// The messages on the command line, none of them longer than a message may be.
async fn arguments(text: Vec<std::ffi::OsString>) -> Result<Batches, Fault> {
    let bodies: Vec<Bytes> = text.into_iter().map(|text| text.into_encoded_bytes().into()).collect();
    if let Some(at) = bodies.iter().position(|body| body.len() > MAX_BODY_BYTES) {
        return Err(too_long("message", at as u64 + 1));
    }
    let batches: Vec<_> = bodies.chunks(BATCH_MESSAGES).map(<[Bytes]>::to_vec).collect();
    let (sender, receiver) = mpsc::channel(batches.len().max(1));
    for batch in batches {
        // There is room for all of them.
        sender.send(Ok(batch)).await.ok();
    }
    Ok(receiver)
}

fn too_long(what: &str, number: u64) -> Fault {
    Fault::Usage(anyhow!(
        "{what} {number} is longer than the {} that a message may have; it was not sent, and nothing after it",
        words::size(MAX_BODY_BYTES as u64)
    ))
}

impl Sending<'_> {
    async fn run(&mut self, mut batches: Batches) -> Result<(), Fault> {
        let stop = interrupted();
        tokio::pin!(stop);
        let mut ended = false;
        let mut progress_at = self.clock.now();
        loop {
            if ended && self.held.is_none() && self.is_done().await? {
                return Ok(());
            }
            // Whoever types may take their time; what is all there has to go on.
            let patience = (ended || self.held.is_some()).then(|| progress_at + self.args.timeout.into());
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                () = &mut stop => return Err(self.left("stopped").await),
                event = self.events.next() => if self.on_event(event).await? {
                    progress_at = self.clock.now();
                },
                batch = batches.recv(), if !ended && self.held.is_none() => {
                    match batch {
                        Some(Ok(bodies)) => self.queue(bodies).await?,
                        Some(Err(LineFault::TooLong(line))) => return Err(too_long("line", line)),
                        Some(Err(LineFault::Unreadable(error))) => {
                            return Err(anyhow::Error::new(error).context("cannot read standard input").into());
                        }
                        None => ended = true,
                    }
                    progress_at = self.clock.now();
                }
                () = sleep_until(&*clock, patience), if patience.is_some() => {
                    let words = format!("no progress for {}", self.args.timeout);
                    return Err(self.left(&words).await);
                }
            }
        }
    }

    /// Puts messages into the outbox. Events wait meanwhile, so that each is told as queued before anything else.
    async fn queue(&mut self, bodies: Vec<Bytes>) -> Result<(), Fault> {
        let ttl = self.args.ttl.map(Into::into);
        let draft = |body: &Bytes| Draft { to: self.args.to.clone(), body: body.clone(), ttl };
        let sent: Vec<Outgoing> = match self.client.send_all(bodies.iter().map(draft).collect()).await {
            Ok(sent) => sent,
            Err(SendError::OutboxFull { .. }) => {
                self.held = Some(bodies);
                return Ok(());
            }
            Err(error) => return Err(anyhow::Error::new(error).context("the outbox takes no messages").into()),
        };
        let before = self.ledger.tally().queued;
        self.ledger.queued(&sent, &bodies, &self.args.to, self.out)?;
        if before < BAR_FROM && self.ledger.tally().queued >= BAR_FROM {
            self.out.start_bar(0, "delivered");
        }
        self.show_progress();
        Ok(())
    }

    /// Whether what is waited for has happened, and all of it has been told.
    async fn is_done(&mut self) -> Result<bool, Fault> {
        let done = match self.args.until {
            Until::Queued => true,
            Until::Accepted => self.ledger.unaccepted() == 0 && self.client.unaccepted().await? == 0,
            Until::Delivered => self.ledger.open() == 0 && self.client.waiting().await? == 0,
        };
        if done {
            while let Some(event) = come_already(&mut self.events) {
                self.ledger.apply(&event, self.out)?;
            }
        }
        Ok(done)
    }

    /// True if it was about a message: there is progress.
    async fn on_event(&mut self, event: Option<Event>) -> Result<bool, Fault> {
        match &event {
            None => return Err(why_stopped(&self.client, "the client is closed")),
            Some(Event::Disconnected { reason, .. }) => self.troubles.disconnected(reason, self.out),
            Some(Event::Stopped { reason }) => return Err(why_stopped(&self.client, reason)),
            Some(Event::Waiting { lane, reason, .. }) => self.troubles.waiting(lane, *reason, self.out),
            Some(event) => {
                let progress = self.ledger.apply(event, self.out)?;
                self.show_progress();
                if matches!(event, Event::Outcome { .. })
                    && let Some(bodies) = self.held.take()
                {
                    self.queue(bodies).await?;
                }
                return Ok(progress);
            }
        }
        Ok(false)
    }

    fn show_progress(&self) {
        let tally = self.ledger.tally();
        // Messages of earlier runs count as well once they are heard of.
        let total = tally.queued.max(tally.ended());
        self.out.move_bar(tally.delivered, total, || format!("✓ {} accepted", tally.accepted.min(total)));
    }

    /// It ends before its time.
    async fn left(&self, why: &str) -> Fault {
        let waiting = self.client.waiting().await.unwrap_or(self.ledger.open());
        let unaccepted = self.client.unaccepted().await.unwrap_or(0);
        let lost = if self.held.is_some() { "; it is full, and the last lines read are not in it" } else { "" };
        Fault::Failed(anyhow!(
            "{why}: {} no outcome yet, {unaccepted} of them not accepted by the relay. The outbox keeps what it has{lost}; \
             the next send, recv or chat goes on with it",
            if waiting == 1 { "1 message has".to_owned() } else { format!("{waiting} messages have") },
        ))
    }

    fn summary(&self) -> Result<Done, Fault> {
        let tally = self.ledger.tally();
        let accepted = match self.args.until {
            Until::Accepted => format!("{} accepted, ", tally.accepted),
            Until::Queued | Until::Delivered => String::new(),
        };
        let whose = if self.ledger.met_earlier() { "; with those sent earlier " } else { "; " };
        let sent = format!("{} queued{whose}{accepted}{}", words::count(tally.queued, "message"), tally.outcomes());
        self.out.say(&sent)?;
        Ok(tally.done())
    }
}
