//! `peer chat`: two people talk. What is typed is sent line by line; ticks say how far each line is.

use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use posthouse::client::{Client, ClientBuilder, Draft, Event, Incoming, PageOptions, Pages, Reading, Stop};
use posthouse::protocol::{Order, Status};
use posthouse::time::{SharedClock, SystemClock, sleep_until};

use tokio::task::JoinSet;

use crate::args::ChatArgs;
use crate::fault::{Done, Fault};
use crate::ledger::{Ledger, come_already};
use crate::lines::{self, LineFault};
use crate::output::{Output, Report};
use crate::session::{Troubles, interrupted, why_stopped};
use crate::words;

/// How long the last lines may still get their ticks once nothing more is typed.
const LAST_TICKS: Duration = Duration::from_secs(2);

/// Waiting messages that are shown at once.
const SHOWN: u64 = 20;

/// What is typed to see older ones, and to count.
const PAGE: &[u8] = b"/page";
const COUNT: &[u8] = b"/count";

pub(crate) fn set_up(builder: ClientBuilder, args: &ChatArgs) -> ClientBuilder {
    builder.reading(Reading::RecentFirst).only_from(args.address.peer)
}

struct Chat<'a> {
    client: Client,
    args: ChatArgs,
    out: &'a mut Output,
    clock: SharedClock,
    ledger: Ledger,
    troubles: Troubles,
    /// Older messages, and how many pages of them are to be shown.
    older: Pages,
    to_turn: usize,
    turned: usize,
    counts: JoinSet<Result<Status, Stop>>,
}

pub(crate) async fn run(client: Client, args: ChatArgs, out: &mut Output) -> Result<Done, Fault> {
    let (clock, ledger) = (SystemClock::shared(), Ledger::of_all());
    let peer = args.address.peer;
    let recent = PageOptions { order: Order::Newest, sender: Some(peer), after: None, messages: SHOWN };
    let older = client.pages(recent).await?;
    let troubles = Troubles::default();
    Chat { client, args, out, clock, ledger, troubles, older, to_turn: 1, turned: 0, counts: JoinSet::new() }
        .run()
        .await
}

impl Chat<'_> {
    async fn run(&mut self) -> Result<Done, Fault> {
        let peer = self.args.address.peer;
        self.out.say(&format!("talking with {peer}; /page shows older messages, /count counts, Ctrl-D ends"))?;
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let mut events = client.events().await?;
        let mut typed = lines::standard_input();
        let mut leave_at = None;
        let stop = interrupted();
        tokio::pin!(stop);
        while leave_at.is_none() || self.ledger.open() > 0 || self.to_turn > 0 || !self.counts.is_empty() {
            tokio::select! {
                biased;
                () = &mut stop => break,
                event = events.next() => self.on_event(event)?,
                batch = typed.recv(), if leave_at.is_none() => match batch {
                    Some(Ok(lines)) => self.say(lines).await?,
                    Some(Err(LineFault::TooLong(_))) => {
                        return Err(Fault::Usage(anyhow!("that line is longer than a message may be")));
                    }
                    Some(Err(LineFault::Unreadable(error))) => {
                        return Err(anyhow::Error::new(error).context("cannot read standard input").into());
                    }
                    None => leave_at = Some(clock.now() + LAST_TICKS),
                },
                message = client.recv() => self.show(message?).await?,
                page = self.older.next(), if self.to_turn > 0 => {
                    let mut page = page?;
                    self.to_turn -= 1;
                    self.turned += 1;
                    if page.messages.is_empty() && self.turned > 1 {
                        self.out.note("no older ones wait");
                    }
                    page.messages.reverse();
                    for message in page.messages {
                        self.show(message).await?;
                    }
                    if !page.complete {
                        self.out.note("older ones wait; /page shows them");
                    }
                }
                Some(counted) = self.counts.join_next() => {
                    if let Ok(Ok(status)) = counted {
                        self.out.note(&format!("{} here", words::waiting(status.messages)));
                    }
                }
                () = sleep_until(&*clock, leave_at), if leave_at.is_some() => break,
            }
        }
        while let Some(event) = come_already(&mut events) {
            self.ledger.apply(&event, self.out)?;
        }
        let tally = self.ledger.tally();
        if self.ledger.met_earlier() {
            self.out.say(&format!("all in all, with what was sent earlier: {}", tally.outcomes()))?;
        }
        let waiting = client.waiting().await?;
        if waiting > 0 {
            self.out.note(&format!("peer: {} for an outcome; the outbox keeps it", words::waiting(waiting as u64)));
        }
        Ok(tally.done())
    }

    async fn say(&mut self, lines: Vec<Bytes>) -> Result<(), Fault> {
        let (orders, lines): (Vec<Bytes>, Vec<Bytes>) =
            lines.into_iter().filter(|line| !line.is_empty()).partition(|line| line == PAGE || line == COUNT);
        for order in orders {
            if order == PAGE {
                self.to_turn += 1;
                continue;
            }
            // Without a connection that takes long, and typing goes on.
            let (client, peer) = (self.client.clone(), self.args.address.peer);
            self.counts.spawn(async move { client.status(Some(peer)).await });
        }
        let drafts = lines.iter().map(|line| Draft::new(self.args.address.clone(), line.clone()));
        let sent = self.client.send_all(drafts.collect()).await.map_err(|error| Fault::Failed(error.into()))?;
        self.ledger.queued(&sent, &lines, &self.args.address, self.out)
    }

    /// Prints a message before it is taken: the other one's second tick is true.
    async fn show(&mut self, message: Incoming) -> Result<(), Fault> {
        let time = words::time(message.sent_at, self.clock.date());
        let line = format!("{time} {}.. > {}", message.from.short(), words::printable(&message.body));
        self.out.tell(&Report::message(&message), Some(line))?;
        Ok(message.taken().await?)
    }

    fn on_event(&mut self, event: Option<Event>) -> Result<(), Fault> {
        match &event {
            None => return Err(why_stopped(&self.client, "the client is closed")),
            Some(Event::Connected { status }) => {
                let here = status.senders.iter().find(|sender| sender.sender == self.args.address.peer);
                let here = here.map_or(0, |sender| sender.messages);
                let others = match status.messages - here.min(status.messages) {
                    0 => String::new(),
                    others => format!(" ({others} from others)"),
                };
                self.out.note(&format!("connected; {} here{others}", words::waiting(here)));
                self.troubles = Troubles::default();
            }
            Some(Event::Disconnected { reason, .. }) => self.troubles.disconnected(reason, self.out),
            Some(Event::Stopped { reason }) => return Err(why_stopped(&self.client, reason)),
            Some(Event::Waiting { lane, reason, .. }) => self.troubles.waiting(lane, *reason, self.out),
            Some(event) => {
                self.troubles.forged(event, self.out)?;
                self.ledger.apply(event, self.out)?;
            }
        }
        Ok(())
    }
}
