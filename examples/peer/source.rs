//! Where `peer recv` has its messages from: what the client receives, and pages of the mailbox.

use std::collections::VecDeque;
use std::time::Duration;

use posthouse::client::{Client, ClientBuilder, Incoming, PageOptions, Pages, Reading, Stop};
use posthouse::protocol::Order as From;
use posthouse::time::{Moment, SharedClock, sleep_until};

use crate::args::{Order, RecvArgs};

/// How often who only looks is shown what is new: without an answer the relay pushes nothing for long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How to connect for this way of reading.
pub(crate) fn set_up(builder: ClientBuilder, args: &RecvArgs) -> ClientBuilder {
    let reading = match args.order {
        _ if args.no_ack => Reading::Nothing,
        Order::Oldest => Reading::InOrder,
        Order::Newest => Reading::RecentFirst,
    };
    let builder = builder.page_messages(args.page).reading(reading);
    match args.from {
        Some(from) => builder.only_from(from),
        None => builder,
    }
}

/// See the head of this file.
pub(crate) struct Source {
    client: Client,
    clock: SharedClock,
    options: PageOptions,
    /// Whether what is new comes by `recv`.
    receives: bool,
    pages: Option<Pages>,
    /// Of the page that was turned last.
    rest: VecDeque<Incoming>,
    /// The end of the mailbox was reached: when to look what came since, and from where on.
    look_at: Option<Moment>,
    highest: Option<u64>,
}

impl Source {
    pub(crate) async fn open(client: Client, clock: SharedClock, args: &RecvArgs) -> Result<Self, Stop> {
        let order = match args.order {
            Order::Oldest => From::Oldest,
            Order::Newest => From::Newest,
        };
        let options = PageOptions { order, sender: args.from, after: None, messages: args.page };
        // In order, the client itself sees to the backlog.
        let pages = match args.order {
            Order::Oldest if !args.no_ack => None,
            _ => Some(client.pages(options).await?),
        };
        let receives = !args.no_ack;
        Ok(Self { client, clock, options, receives, pages, rest: VecDeque::new(), look_at: None, highest: None })
    }

    /// The next message: what is new before what waits. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Stop> {
        loop {
            let look_at = self.look_at;
            let may_turn = self.rest.is_empty() && look_at.is_none();
            tokio::select! {
                biased;
                message = self.client.recv(), if self.receives => return message,
                () = std::future::ready(()), if !self.rest.is_empty() => {
                    if let Some(message) = self.rest.pop_front() {
                        return Ok(message);
                    }
                }
                page = turn(&mut self.pages), if may_turn => {
                    let page = page?;
                    self.highest = self.highest.max(page.messages.iter().map(|message| message.seq).max());
                    self.rest.extend(page.messages);
                    if page.complete && self.receives {
                        self.pages = None;
                    } else if page.complete {
                        self.look_at = Some(self.clock.now() + LOOK_AGAIN);
                    }
                }
                () = sleep_until(&*self.clock, look_at), if look_at.is_some() => {
                    if self.options.order == From::Newest {
                        let since = PageOptions { order: From::Oldest, after: self.highest, ..self.options };
                        self.pages = Some(self.client.pages(since).await?);
                        self.options = since;
                    }
                    self.look_at = None;
                }
            }
        }
    }
}

/// The next page; never, if there are none.
async fn turn(pages: &mut Option<Pages>) -> Result<posthouse::client::Page, Stop> {
    match pages {
        Some(pages) => pages.next().await,
        None => std::future::pending().await,
    }
}
