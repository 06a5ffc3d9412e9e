//! `peer chat`: two people talk. What is typed is sent line by line; ticks say how far each line is.
//!
//! On a terminal `screen` shows it, `history` what was said before; otherwise each line that comes in is a message, and
//! each step is a line.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use posthouse::client::{Client, ClientBuilder, Draft, Event, Events, Incoming, PageOptions, Pages, Reading, Stop};
use posthouse::protocol::{Order, Status};
use posthouse::time::{SharedClock, SystemClock, UnixMillis, sleep_until};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::ChatArgs;
use crate::fault::{Done, Fault};
use crate::history::{History, Mark, Said};
use crate::ledger::{Ledger, come_already};
use crate::lines::{self, LineFault};
use crate::output::{Output, Report};
use crate::screen::{self, Typed, Typing};
use crate::session::{Troubles, interrupted, why_stopped};
use crate::words;

/// How long the last lines may still get their ticks once nothing more is typed.
const LAST_TICKS: Duration = Duration::from_secs(2);

/// Messages that are shown at once, of what was said before and of what waits.
const SHOWN: u64 = 20;

/// What stands before the line that is typed.
const CONNECTING: &str = "(connecting) > ";
const CONNECTED: &str = "> ";
const NOT_CONNECTED: &str = "(not connected) > ";

const HELP: &str = "\
/page   shows older messages that wait
/count  counts those that wait
/quit   ends, as Ctrl-D does
one tick: the relay has it; two ticks: the other one has it";

pub(crate) fn set_up(builder: ClientBuilder, args: &ChatArgs) -> ClientBuilder {
    builder.reading(Reading::RecentFirst).only_from(args.address.peer)
}

/// A line that is no message.
#[derive(Debug, Clone, Copy)]
enum Command {
    Page,
    Count,
    Help,
    Quit,
}

impl Command {
    fn of(line: &[u8]) -> Option<Self> {
        match line {
            b"/page" => Some(Self::Page),
            b"/count" => Some(Self::Count),
            b"/help" => Some(Self::Help),
            b"/quit" => Some(Self::Quit),
            _ => None,
        }
    }
}

/// Where lines come from.
enum Input {
    Pipe(mpsc::Receiver<Result<Vec<Bytes>, LineFault>>),
    Terminal(Box<Typing>),
    Over,
}

enum Came {
    Lines(Vec<Bytes>),
    End,
    /// Not even the last ticks are waited for.
    Stop,
}

impl Input {
    /// What comes next. Cancel-safe.
    async fn next(&mut self, out: &Output) -> Result<Came, Fault> {
        let batch = match self {
            Self::Over => None,
            Self::Pipe(lines) => lines.recv().await,
            Self::Terminal(typing) => {
                return Ok(match typing.next().await.context("cannot read the terminal")? {
                    Typed::Line { line, shown } => {
                        out.typed(&shown)?;
                        Came::Lines(vec![line.into()])
                    }
                    Typed::End => Came::End,
                    Typed::Stop => Came::Stop,
                });
            }
        };
        match batch {
            Some(Ok(lines)) => Ok(Came::Lines(lines)),
            Some(Err(LineFault::TooLong(_))) => Err(Fault::Usage(anyhow!("that line is longer than a message may be"))),
            Some(Err(LineFault::Unreadable(error))) => {
                Err(anyhow::Error::new(error).context("cannot read standard input").into())
            }
            None => Ok(Came::End),
        }
    }
}

struct Chat<'a> {
    client: Client,
    args: ChatArgs,
    out: &'a mut Output,
    input: Input,
    clock: SharedClock,
    history: History,
    ledger: Ledger,
    troubles: Troubles,
    /// Older messages, and how many pages of them are to be shown.
    older: Pages,
    to_turn: usize,
    turned: usize,
    counts: JoinSet<Result<Status, Stop>>,
    leaving: bool,
}

pub(crate) async fn run(client: Client, args: ChatArgs, data: &Path, out: &mut Output) -> Result<Done, Fault> {
    let peer = args.address.peer;
    let history = History::open(data, peer).context("cannot open what was said before")?;
    let recent = PageOptions { order: Order::Newest, sender: Some(peer), after: None, messages: SHOWN };
    let older = client.pages(recent).await?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !out.is_json();
    let input = if is_terminal {
        let (typing, screen) = screen::open(CONNECTING).context("cannot use the terminal")?;
        out.set_screen(Some(screen));
        Input::Terminal(Box::new(typing))
    } else {
        Input::Pipe(lines::standard_input())
    };
    let mut chat = Chat {
        client,
        args,
        out,
        input,
        clock: SystemClock::shared(),
        history,
        ledger: Ledger::of_all(),
        troubles: Troubles::default(),
        older,
        to_turn: 1,
        turned: 0,
        counts: JoinSet::new(),
        leaving: false,
    };
    let mut events = chat.client.events().await?;
    let result = chat.talk(&mut events).await;
    chat.leave_terminal()?;
    result?;
    while let Some(event) = come_already(&mut events) {
        chat.told(&event)?;
    }
    summary(&chat.client, &chat.ledger, chat.out).await
}

async fn summary(client: &Client, ledger: &Ledger, out: &Output) -> Result<Done, Fault> {
    let tally = ledger.tally();
    if ledger.met_earlier() && tally.ended() > 0 {
        out.say(&format!("all in all, with what was sent earlier: {}", tally.outcomes()))?;
    }
    let waiting = client.waiting().await?;
    if waiting > 0 {
        let them = if waiting == 1 { "it" } else { "them" };
        out.note(&format!("peer: {} for an outcome; the outbox keeps {them}", words::waiting(waiting as u64)));
    }
    Ok(tally.done())
}

impl Chat<'_> {
    async fn talk(&mut self, events: &mut Events) -> Result<(), Fault> {
        let other = match &self.input {
            Input::Terminal(_) => format!("{}..", self.args.address.peer.short()),
            Input::Pipe(_) | Input::Over => self.args.address.peer.to_string(),
        };
        self.show_history()?;
        self.out.say(&format!("talking with {other}; /help says what can be typed, Ctrl-D ends"))?;
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let mut leave_at = None;
        let stop = interrupted();
        tokio::pin!(stop);
        while !self.leaving || self.ledger.open() > 0 || self.to_turn > 0 || !self.counts.is_empty() {
            if self.leaving && leave_at.is_none() {
                leave_at = Some(clock.now() + LAST_TICKS);
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                // A terminal is asked on: it draws what comes last.
                came = self.input.next(self.out), if !self.leaving || matches!(self.input, Input::Terminal(_)) => match came? {
                    Came::Lines(lines) => self.say(lines).await?,
                    Came::End => self.end()?,
                    Came::Stop => break,
                },
                event = events.next() => self.on_event(event)?,
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
        Ok(())
    }

    /// The terminal is as it was before.
    fn leave_terminal(&mut self) -> Result<(), Fault> {
        if let Input::Terminal(typing) = &mut self.input {
            typing.end().context("cannot write to the terminal")?;
            self.input = Input::Over;
            self.out.set_screen(None);
        }
        Ok(())
    }

    /// What was said before, for a person to see.
    fn show_history(&self) -> Result<(), Fault> {
        for said in self.history.latest(SHOWN as usize) {
            let (tick, who) = match said.mark {
                None => ("", self.other()),
                Some(Mark::Queued) => ("", "you".to_owned()),
                Some(Mark::Accepted) => ("✓", "you".to_owned()),
                Some(Mark::Delivered) => ("✓✓", "you".to_owned()),
                Some(Mark::Expired | Mark::Rejected) => ("✗", "you".to_owned()),
            };
            self.out.said(&said.id, tick, &self.line(UnixMillis(said.at), &who, &said.text))?;
        }
        Ok(())
    }

    fn line(&self, at: UnixMillis, who: &str, text: &str) -> String {
        format!("{} {who} > {text}", words::time(at, self.clock.date()))
    }

    fn other(&self) -> String {
        format!("{}..", self.args.address.peer.short())
    }

    /// Nothing more is typed.
    fn end(&mut self) -> Result<(), Fault> {
        self.leaving = true;
        self.prompt("")?;
        if matches!(self.input, Input::Terminal(_)) {
            self.out.moved();
        }
        Ok(())
    }

    fn prompt(&mut self, prompt: &'static str) -> Result<(), Fault> {
        let Input::Terminal(typing) = &mut self.input else { return Ok(()) };
        Ok(typing.prompt(prompt).context("cannot write to the terminal")?)
    }

    async fn say(&mut self, lines: Vec<Bytes>) -> Result<(), Fault> {
        let mut said = Vec::new();
        for line in lines.into_iter().filter(|line| !line.is_empty()) {
            match Command::of(&line) {
                None => said.push(line),
                Some(Command::Page) => self.to_turn += 1,
                Some(Command::Count) => {
                    // Without a connection that takes long, and typing goes on.
                    let (client, peer) = (self.client.clone(), self.args.address.peer);
                    self.counts.spawn(async move { client.status(Some(peer)).await });
                }
                Some(Command::Help) => self.out.say(HELP)?,
                Some(Command::Quit) => self.leaving = true,
            }
        }
        let drafts = said.iter().map(|line| Draft::new(self.args.address.clone(), line.clone()));
        let sent = self.client.send_all(drafts.collect()).await.map_err(|error| Fault::Failed(error.into()))?;
        for (outgoing, line) in sent.iter().zip(&said) {
            let (id, at, text) = (outgoing.id.to_string(), self.clock.date(), words::printable(line));
            self.out.said(&id, "", &self.line(at, "you", &text))?;
            self.keep(Said { id, at: at.0, text, mark: Some(Mark::Queued) })?;
        }
        self.ledger.queued(&sent, &said, &self.args.address, self.out)
    }

    /// Prints a message before it is taken: the other one's second tick is true.
    async fn show(&mut self, message: Incoming) -> Result<(), Fault> {
        let text = words::printable(&message.body);
        let line = self.line(message.sent_at, &self.other(), &text);
        self.out.tell(&Report::message(&message), Some(line))?;
        self.keep(Said { id: message.id.to_string(), at: message.sent_at.0, text, mark: None })?;
        Ok(message.taken().await?)
    }

    fn keep(&mut self, said: Said) -> Result<(), Fault> {
        Ok(self.history.add(said).context("cannot write down what was said")?)
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
                self.prompt(if self.leaving { "" } else { CONNECTED })?;
            }
            Some(Event::Disconnected { reason, .. }) => {
                self.troubles.disconnected(reason, self.out);
                self.prompt(if self.leaving { "" } else { NOT_CONNECTED })?;
            }
            Some(Event::Stopped { reason }) => return Err(why_stopped(&self.client, reason)),
            Some(Event::Waiting { lane, reason, .. }) => self.troubles.waiting(lane, *reason, self.out),
            Some(event) => self.told(event)?,
        }
        Ok(())
    }

    /// Shows an event about a message, and writes down what became of it.
    fn told(&mut self, event: &Event) -> Result<(), Fault> {
        self.troubles.forged(event, self.out)?;
        self.ledger.apply(event, self.out)?;
        let (id, mark) = match event {
            Event::Accepted { id, .. } => (*id, Mark::Accepted),
            Event::Outcome { id, outcome, .. } => (*id, Mark::from(outcome)),
            _ => return Ok(()),
        };
        Ok(self.history.mark(id, mark).context("cannot write down what became of it")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_only_begins_like_a_command_is_a_message() {
        assert!(Command::of(b"/quit").is_some());
        assert!(["/quit now", "/etc/hosts", " /quit", "/"].iter().all(|line| Command::of(line.as_bytes()).is_none()));
    }
}
