//! Those who attack the relay in scenario `hostile`: a process of its own, so that what they cost is not counted as
//! anybody else's. It attacks relays of this machine alone, and ends with its standard input.
//!
//! `flood` has those who never open a session; here are those who have proven a key, and then misuse what a session
//! may do.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use super::fill::Senders;
use super::raw::Session;
use super::report::{self, Report};
use super::threads::Threads;
use super::{BODY_BYTES, Bench, flood};
use crate::address::RelayAddress;
use crate::id::StoreId;
use crate::identity::Identity;
use crate::protocol::limit::{MAX_FRAME_BYTES, MAX_INTEGER, MAX_PAGE_BYTES, MAX_PAGE_MESSAGES};
use crate::protocol::{AckR, FrameType, Order, PageR, Refusal, Taken};
use crate::random::{Entropy, SystemEntropy};
use crate::ranges::Ranges;
use crate::time::SystemClock;

/// What is attacked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Attack {
    /// None: a thread that takes as much of the processors as one attacker can, to compare with
    Spinning,
    /// First packets of handshakes, each from another port, as fast as one thread can
    Initials,
    /// A thousand handshakes that are begun and never ended
    HalfOpen,
    /// A thousand connections that never say R:HELLO
    Silent,
    /// Twenty peers with every stream open, and on each a large frame of which the end is missing
    Streams,
    /// A peer with a full mailbox that asks for pages on every stream, and reads none
    Pages,
    /// A peer that acknowledges what it never had: any numbers, again and again, of any store
    Acks,
    /// All of these at the same time
    All,
}

/// Peers that open every stream.
const PEERS: usize = 20;

/// Streams that a client may open beside submit.
const SYNC_STREAMS: usize = 15;

/// Messages in the mailbox of who asks for pages, from two senders: one alone may not fill it.
const MAIL: u64 = 20_000;
const SENDERS: usize = 2;

/// How long one who asks and does not read stays, before it comes anew.
const STAY: Duration = Duration::from_secs(1);

/// Acknowledgements that may come again, and the numbers in one.
const REMEMBERED: usize = 16;
const RANGES: u64 = 64;

impl Attack {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Attacks until standard input ends. Says one line once it has begun.
pub(super) async fn run(attack: Attack, relay: RelayAddress) -> anyhow::Result<()> {
    let host = relay.hosts().first().context("the relay's address names no host")?;
    let at: SocketAddr = format!("{}:{}", host.host, host.port).parse().context("an address of this machine")?;
    ensure!(at.ip().is_loopback(), "only a relay of this machine is attacked");
    let attackers = Attackers(Bench {
        relay,
        relays: 1,
        figures: None,
        clients: None,
        durability: "",
        body: vec![b'.'; BODY_BYTES],
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
        threads: Threads::start()?,
        report: Report::new("hostile", true),
    });
    match attack {
        Attack::All => {
            let each = |attack: &&Attack| !matches!(attack, Attack::Spinning | Attack::All);
            for attack in Attack::value_variants().iter().filter(each) {
                attackers.begin(*attack, at).await?;
            }
        }
        attack => attackers.begin(attack, at).await?,
    }
    super::super::output::line("attacking")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

struct Attackers(Bench);

impl Attackers {
    /// Begins; it goes on by itself.
    async fn begin(&self, attack: Attack, at: SocketAddr) -> anyhow::Result<()> {
        let Self(bench) = self;
        let (relay, entropy) = (bench.relay.clone(), &*bench.entropy);
        match attack {
            Attack::Spinning => {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            Attack::Initials => flood::initials(relay, at, entropy).await?,
            Attack::HalfOpen => flood::half_open(relay, at, entropy).await?,
            Attack::Silent => flood::silent(relay, at, entropy)?,
            Attack::Streams => {
                for _ in 0..PEERS {
                    let session = self.open(&Identity::generate(entropy)).await?;
                    begin_frames(&session).await?;
                    tokio::spawn(async move { session.connection.closed().await });
                }
            }
            Attack::Pages => {
                let reader = Identity::generate(entropy);
                self.fill(&reader).await?;
                let relay = relay.clone();
                tokio::spawn(async move {
                    while let Ok(session) = Session::open(&relay, &reader, &SystemEntropy).await {
                        ask(&session).await.ok();
                        tokio::time::sleep(STAY).await;
                    }
                });
            }
            Attack::Acks => {
                let session = self.open(&Identity::generate(entropy)).await?;
                tokio::spawn(async move { acknowledge(session, &SystemEntropy).await.ok() });
            }
            Attack::All => bail!("all are begun one by one"),
        }
        Ok(())
    }

    async fn open(&self, who: &Identity) -> anyhow::Result<Session> {
        Session::open(&self.0.relay, who, &*self.0.entropy).await
    }

    /// Fills the mailbox of `reader`.
    async fn fill(&self, reader: &Identity) -> anyhow::Result<()> {
        // Who was never here has a smaller mailbox.
        self.open(reader).await?.close().await;
        let who: Vec<Identity> = (0..SENDERS).map(|_| Identity::generate(&*self.0.entropy)).collect();
        let mut senders = Senders::open(&self.0, &who, reader.peer_id()).await?;
        let bar = report::progress("filling", MAIL);
        senders.send(MAIL, None, &bar).await?;
        bar.finish_and_clear();
        senders.close().await;
        Ok(())
    }
}

/// Begins the largest frame that there may be on every stream, and ends none.
async fn begin_frames(session: &Session) -> anyhow::Result<()> {
    let content = vec![0; MAX_FRAME_BYTES - 1];
    let begun = |of: FrameType| {
        let length = u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &of.number().to_be_bytes(), &content].concat()
    };
    for _ in 0..SYNC_STREAMS {
        let stream = session.sync().await?;
        stream.0.write_bytes(&begun(FrameType::PageR))?;
        tokio::spawn(async move {
            // Dropped, it would end.
            let _stream = stream;
            std::future::pending::<()>().await;
        });
    }
    session.submit.write_bytes(&begun(FrameType::MsgR))?;
    Ok(session.notify.write_bytes(&begun(FrameType::AckR))?)
}

/// Asks for pages on every stream, one after the other.
async fn ask(session: &Session) -> anyhow::Result<()> {
    for _ in 0..SYNC_STREAMS {
        let (sync, unread) = session.sync().await?;
        for request in 0..100 {
            let ask = PageR {
                request,
                order: Order::Newest,
                cursor: None,
                sender: None,
                max_messages: MAX_PAGE_MESSAGES,
                max_bytes: MAX_PAGE_BYTES,
                store: session.hello.store,
                answers: Taken::default(),
            };
            sync.send(&ask.into()).await?;
        }
        // Until it leaves.
        tokio::spawn(async move {
            let _unread = unread;
            tokio::time::sleep(STAY).await;
        });
    }
    Ok(())
}

/// Acknowledges as fast as it is confirmed.
async fn acknowledge(session: Session, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let mut said: Vec<AckR> = Vec::new();
    let mut from_notify = session.from_notify;
    tokio::spawn(async move { while let Ok(Some(_)) = from_notify.next().await {} });
    for request in 0.. {
        let any = |below: u64| entropy.word() % below;
        let old = usize::try_from(any(2 * REMEMBERED as u64)).unwrap_or(0);
        let ack = match said.get(old) {
            Some(again) => again.clone(),
            None => {
                let ranges: Ranges = (0..any(RANGES)).map(|_| (any(MAX_INTEGER), MAX_INTEGER)).collect();
                let single = (0..any(RANGES)).map(|_| any(MAX_INTEGER)).collect();
                let refused = (0..any(RANGES)).map(|_| Refusal { seq: any(MAX_INTEGER), text: None }).collect();
                let taken = if any(8) == 0 { ranges } else { single };
                let store = if any(4) == 0 { StoreId(entropy.bytes()) } else { session.hello.store };
                AckR { request, store, answers: Taken { taken, refused } }
            }
        };
        session.notify.send(&ack.clone().into()).await?;
        if said.len() < REMEMBERED {
            said.push(ack);
        } else if let Some(forgotten) = said.get_mut(old % REMEMBERED) {
            *forgotten = ack;
        }
    }
    Ok(())
}
