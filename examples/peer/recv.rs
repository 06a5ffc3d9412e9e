//! `peer recv`: prints messages, then takes them.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use posthouse::client::{Client, Event, Events, Incoming, Stop};
use posthouse::id::PeerId;
use posthouse::time::{Moment, SharedClock, SystemClock, sleep_until};

use crate::args::RecvArgs;
use crate::fault::{Done, Fault};
use crate::ledger::{Ledger, come_already};
use crate::output::{Output, Report};
use crate::session::{self, Troubles, after, interrupted, unreachable_relay, why_stopped};
use crate::source::Source;
use crate::words;

/// Answers on their way to the disk; more messages are not printed before some are there.
const ANSWERS: usize = 256;

/// How long `--idle` waits for a relay that cannot be reached, if it is shorter itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// From so many waiting messages on a person sees how far it is.
const BAR_FROM: u64 = 50;

type Answer = Pin<Box<dyn Future<Output = Result<(), Stop>> + Send>>;

struct Receiving<'a> {
    client: Client,
    args: RecvArgs,
    out: &'a mut Output,
    clock: SharedClock,
    ledger: Ledger,
    troubles: Troubles,
    answers: FuturesUnordered<Answer>,
    printed: u64,
    /// How many waited at first.
    backlog: u64,
    last_from: Option<PeerId>,
    /// When there was something new, and why there is no connection if there is none.
    news_at: Moment,
    lost: Option<String>,
}

pub(crate) async fn run(client: Client, args: RecvArgs, out: &mut Output) -> Result<Done, Fault> {
    let clock = SystemClock::shared();
    let news_at = clock.now();
    let mut receiving = Receiving {
        client,
        args,
        out,
        clock,
        ledger: Ledger::default(),
        troubles: Troubles::default(),
        answers: FuturesUnordered::new(),
        printed: 0,
        backlog: 0,
        last_from: None,
        news_at,
        lost: None,
    };
    let result = receiving.run().await;
    // What was printed is taken, however it ends.
    let taken = receiving.settle().await;
    receiving.out.end_bar();
    result?;
    taken?;
    receiving.summary()
}

impl Receiving<'_> {
    async fn run(&mut self) -> Result<(), Fault> {
        let stop = interrupted();
        tokio::pin!(stop);
        let patience = self.args.idle.map(|idle| PATIENCE.max(idle.into()));
        let until = after(self.news_at, patience);
        let client = self.client.clone();
        let counts = async {
            let status = session::first(&client, (&self.clock, until), &mut self.troubles, self.out).await?;
            let backlog = match self.args.from {
                Some(from) => client.status(Some(from)).await?.messages,
                None => status.messages,
            };
            Ok::<_, Fault>((status, backlog))
        };
        let (status, backlog) = tokio::select! {
            () = &mut stop => return Ok(()),
            counts = counts => counts?,
        };
        self.out.tell(&Report::status(&status), Some(words::status(&status, self.clock.date())))?;
        self.backlog = backlog;
        if self.backlog >= BAR_FROM {
            self.out.start_bar(self.backlog, "printed");
        }
        // Only now: the status comes first, and events that nobody reads keep the client waiting.
        let mut events = self.client.events().await?;
        self.news_at = self.clock.now();
        let mut source = Source::open(client.clone(), self.clock.clone(), &self.args).await?;
        while self.args.max.is_none_or(|max| self.printed < max) {
            let clock = self.clock.clone();
            let until = self.leave_at();
            tokio::select! {
                biased;
                () = &mut stop => break,
                event = events.next() => self.on_event(event)?,
                Some(taken) = self.answers.next() => taken?,
                message = source.next(), if self.answers.len() < ANSWERS => match message {
                    Ok(message) => self.print(message)?,
                    // The reason is among the events.
                    Err(stop) => return Err(stop.into()),
                },
                () = sleep_until(&*clock, until), if until.is_some() => match &self.lost {
                    Some(reason) => return Err(unreachable_relay(&client, reason)),
                    None => break,
                },
            }
        }
        self.tell_the_rest(&mut events)
    }

    /// When to leave, if nothing new comes: with a relay that cannot be reached there is more patience.
    fn leave_at(&self) -> Option<Moment> {
        let idle: Duration = self.args.idle?.into();
        Some(self.news_at + if self.lost.is_some() { PATIENCE.max(idle) } else { idle })
    }

    fn on_event(&mut self, event: Option<Event>) -> Result<(), Fault> {
        match &event {
            None => return Err(why_stopped(&self.client, "the client is closed")),
            Some(Event::Connected { .. }) => {
                self.lost = None;
                self.news_at = self.clock.now();
            }
            Some(Event::Disconnected { reason, .. }) => {
                self.troubles.disconnected(reason, self.out);
                if self.lost.replace(reason.clone()).is_none() {
                    self.news_at = self.clock.now();
                }
            }
            Some(Event::Stopped { reason }) => return Err(why_stopped(&self.client, reason)),
            Some(Event::Waiting { lane, reason, .. }) => self.troubles.waiting(lane, *reason, self.out),
            Some(event) => {
                // Forgeries are no news: whoever sends them would keep it from leaving.
                if !self.troubles.forged(event, self.out)? && self.ledger.apply(event, self.out)? {
                    self.news_at = self.clock.now();
                }
            }
        }
        Ok(())
    }

    /// Prints a message and answers it, without waiting for the disk: the next one can be printed meanwhile.
    fn print(&mut self, message: Incoming) -> Result<(), Fault> {
        let human = (!self.out.is_json()).then(|| {
            let time = words::time(message.sent_at, self.clock.date());
            let heading = match self.last_from.replace(message.from) {
                Some(last) if last == message.from => String::new(),
                _ => format!("from {}\n", message.from),
            };
            format!("{heading}  {time}  {}", words::printable(&message.body))
        });
        self.out.tell(&Report::message(&message), human)?;
        if self.args.no_ack {
            message.leave();
        } else {
            self.answers.push(Box::pin(message.taken()));
        }
        self.printed += 1;
        self.news_at = self.clock.now();
        self.out.move_bar(self.printed.min(self.backlog), self.backlog, String::new);
        if self.printed == self.backlog {
            self.out.end_bar();
        }
        Ok(())
    }

    /// Waits until what was printed is taken for good.
    async fn settle(&mut self) -> Result<(), Fault> {
        while let Some(taken) = self.answers.next().await {
            taken?;
        }
        Ok(())
    }

    fn tell_the_rest(&mut self, events: &mut Events) -> Result<(), Fault> {
        while let Some(event) = come_already(events) {
            self.troubles.forged(&event, self.out)?;
            self.ledger.apply(&event, self.out)?;
        }
        Ok(())
    }

    fn summary(&self) -> Result<Done, Fault> {
        let tally = self.ledger.tally();
        let verb = if self.args.no_ack { "shown, none taken" } else { "taken" };
        self.out.say(&format!("{} {verb}", words::count(self.printed, "message")))?;
        if tally.ended() > 0 {
            self.out.say(&format!("of those sent earlier: {}", tally.outcomes()))?;
        }
        Ok(tally.done())
    }
}
