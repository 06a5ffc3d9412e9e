//! A peer's host: its client's process, started again whenever it died, its disk, and its application.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthouse::client::{
    Client, Connection, Draft, Event, Incoming, PageOptions, Reading, SendError, StartError, Stop,
};
use posthouse::store::StoreError;
use posthouse::store::redb::file::OpenError;
use tokio::task::JoinSet;

use super::chance::{Chance, entropy};
use super::crypto::determinism;
use super::ledger::Number;
use super::life::{Life, Swap};
use super::machine::Machine;
use super::net::HostNumber;
use super::plan::{FIRST_PEER, PeerPlan, Send};
use super::relay::{BY_ITSELF, FAREWELL};
use super::stage::{Stage, who};
use super::trace::note;

/// How often somebody looks for older messages, and how long a sender waits after its disk failed.
const PAUSE: Duration = Duration::from_secs(2);

/// See the head of this file.
pub(crate) struct PeerHost {
    stage: Stage,
    pub(crate) number: HostNumber,
    pub(crate) machine: Machine,
    /// The messages that were in the outbox when the disk was copied.
    kept: Mutex<BTreeSet<Number>>,
    to_send: Mutex<VecDeque<Send>>,
    client: Mutex<Option<(Client, Life)>>,
}

/// The application in one life of its process.
#[derive(Clone)]
struct Application {
    host: Arc<PeerHost>,
    client: Client,
    life: u64,
    chance: Arc<Mutex<Chance>>,
}

impl PeerHost {
    pub(crate) fn new(stage: &Stage, number: HostNumber) -> Arc<Self> {
        let plan = &stage.plan().peers[usize::from(number - FIRST_PEER)];
        Arc::new(Self {
            stage: stage.clone(),
            number,
            machine: Machine::new(stage.fork(), plan.clock_off_ms),
            kept: Mutex::default(),
            to_send: Mutex::new(plan.sends.iter().copied().collect()),
            client: Mutex::default(),
        })
    }

    fn plan(&self) -> &PeerPlan {
        &self.stage.plan().peers[usize::from(self.number - FIRST_PEER)]
    }

    /// Copies what is safe on the disk.
    pub(crate) fn back_up(&self) {
        self.machine.back_up();
        *self.kept.lock().unwrap() = self.stage.ledger().kept(self.number);
    }

    /// The machine has another network, and the application says so.
    pub(crate) fn rebind(&self) {
        if let Some((client, life)) = &*self.client.lock().unwrap() {
            client.rebind(self.stage.net().socket(self.number, None, life)).unwrap();
        }
    }

    /// Lives, again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::time::sleep_until(self.stage.when(self.plan().starts)).await;
        for number in 1.. {
            let life = self.machine.fuse.begin();
            match self.start(&life) {
                Ok(client) => self.live(&life, number, client).await,
                Err(error) => {
                    note!(self.stage.trace(), "peer {} does not start: {error}", self.number);
                    life.end();
                    if let StartError::Store(OpenError::Corrupt { .. } | OpenError::Foreign { .. }) = &error {
                        self.stage.ledger().break_promise(format!("the store of peer {}: {error}", self.number));
                    }
                }
            }
            self.stage.net().bury();
            let strike = self.machine.fuse.take().unwrap_or(BY_ITSELF);
            note!(
                self.stage.trace(),
                "peer {} is dead: {strike:?}, {} faults met",
                self.number,
                self.machine.disk.met()
            );
            tokio::time::sleep(strike.down).await;
            let strike = self.machine.fuse.take().unwrap_or(strike);
            self.machine.disk.settle(strike.loss);
            if strike.swap != Swap::No
                && let Some(copy) = self.machine.backup()
            {
                note!(self.stage.trace(), "peer {} is put back", self.number);
                self.machine.disk.put_back(copy);
                self.stage.ledger().sender_restored(self.number, &self.kept.lock().unwrap());
            }
        }
    }

    fn start(&self, life: &Life) -> Result<Client, StartError> {
        let plan = self.plan();
        let clock = self.machine.clock.process();
        Client::builder(who(self.number), self.stage.relay(plan.home))
            .backend(self.machine.disk.backend(life))
            .writer(plan.writer)
            .reading(plan.reading)
            .page_messages(plan.page_messages)
            .credit(plan.credit, 1 << 20)
            .ack_timeout(plan.ack_timeout)
            .socket(self.stage.net().socket(self.number, None, life))
            .entropy(entropy(self.stage.fork()))
            .determinism(determinism(clock.clone()))
            .clock(clock)
            .start()
    }

    /// One life, to its end.
    async fn live(self: &Arc<Self>, life: &Life, number: u64, client: Client) {
        let trace = self.stage.trace();
        note!(trace, "peer {} runs, life {number}", self.number);
        self.stage.ledger().lives();
        *self.client.lock().unwrap() = Some((client.clone(), life.clone()));
        let chance = Arc::new(Mutex::new(self.stage.fork()));
        let application = Application { host: self.clone(), client: client.clone(), life: number, chance };
        let mut tasks = JoinSet::new();
        application.begin(&mut tasks);
        let mut connection = client.connection();
        let asked = tokio::select! {
            biased;
            () = life.ended() => false,
            () = life.asked() => true,
            stopped = connection.wait_for(|now| matches!(now, Connection::Stopped(_))) => {
                self.judge(stopped.ok().as_deref());
                false
            }
        };
        self.client.lock().unwrap().take();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        drop(application);
        if asked {
            tokio::select! {
                biased;
                () = life.ended() => {}
                _ = tokio::time::timeout(FAREWELL, client.close()) => {}
            }
        }
        life.end();
    }

    /// A client that stops by itself says why.
    fn judge(&self, stopped: Option<&Connection>) {
        note!(self.stage.trace(), "peer {}: {stopped:?}", self.number);
        match stopped {
            Some(Connection::Stopped(Stop::Refused(why))) => {
                self.stage.ledger().break_promise(format!("peer {} was refused: {why}", self.number));
            }
            // Nobody else has its key.
            Some(Connection::Stopped(Stop::Superseded)) => {
                self.stage.ledger().break_promise(format!("peer {} was superseded by its own past", self.number));
            }
            _ => {}
        }
    }

    /// What has not been sent yet, or has no outcome as far as the client knows, in words; nothing if all is well.
    pub(crate) async fn leftovers(&self) -> Option<String> {
        let client = self.client.lock().unwrap().as_ref().map(|(client, _)| client.clone());
        let to_send = self.to_send.lock().unwrap().len();
        let Some(client) = client else { return Some(format!("peer {} is down", self.number)) };
        match client.waiting().await {
            Ok(0) if to_send == 0 => None,
            Ok(waiting) => Some(format!("peer {}: {to_send} to send, {waiting} without outcome", self.number)),
            Err(stop) => Some(format!("peer {}: {stop}", self.number)),
        }
    }
}

impl Application {
    /// Starts all that it does.
    fn begin(&self, tasks: &mut JoinSet<()>) {
        tasks.spawn(self.clone().listen());
        tasks.spawn(self.clone().send());
        match self.host.plan().reading {
            Reading::InOrder => drop(tasks.spawn(self.clone().read())),
            Reading::RecentFirst => {
                tasks.spawn(self.clone().read());
                tasks.spawn(self.clone().turn_pages());
            }
            Reading::Nothing => {}
        }
    }

    fn stage(&self) -> &Stage {
        &self.host.stage
    }

    async fn listen(self) {
        let Ok(mut events) = self.client.events().await else { return };
        while let Some(event) = events.next().await {
            match event {
                Event::Outcome { id, outcome, .. } => {
                    note!(self.stage().trace(), "peer {} is told {id}: {outcome:?}", self.host.number);
                    self.stage().ledger().told(self.life, id, outcome);
                }
                Event::Connected { .. } => note!(self.stage().trace(), "peer {} is connected", self.host.number),
                Event::Disconnected { reason, .. } => {
                    note!(self.stage().trace(), "peer {} is not connected: {reason}", self.host.number);
                }
                _ => {}
            }
        }
    }

    async fn send(self) {
        loop {
            let Some(next) = self.host.to_send.lock().unwrap().front().copied() else { return };
            tokio::time::sleep_until(self.stage().when(next.at)).await;
            // Taken before it is sent: whether one that was cut off is in the outbox, nobody knows.
            self.host.to_send.lock().unwrap().pop_front();
            let (from, to) = (self.host.number, self.stage().peer(next.to));
            let numbers: Vec<_> =
                (0..next.count).map(|_| self.stage().ledger().sends(from, next.to, next.ttl)).collect();
            let draft = |number: &Number| {
                let mut body = vec![b'.'; next.bytes];
                body[..8].copy_from_slice(&number.to_be_bytes());
                Draft { ttl: Some(next.ttl), ..Draft::new(to.clone(), body) }
            };
            let drafts = numbers.iter().map(draft).collect();
            let sent = self.client.send_all(drafts).await;
            let trace = self.stage().trace();
            match sent {
                Ok(sent) => {
                    for (number, outgoing) in numbers.iter().zip(sent) {
                        note!(trace, "peer {from} sent {number} to {}: {}", next.to, outgoing.id);
                        self.stage().ledger().sent(*number, outgoing.id);
                    }
                }
                Err(SendError::Store(StoreError::Unavailable(why))) => {
                    note!(trace, "peer {from} could not send {numbers:?}: {why}");
                    numbers.iter().for_each(|number| self.stage().ledger().not_sent(*number));
                    tokio::time::sleep(PAUSE).await;
                }
                // The process ends; what became of it nobody knows.
                Err(error) => note!(trace, "peer {from} could not send {numbers:?}: {error}"),
            }
        }
    }

    async fn read(self) {
        let mut hands = JoinSet::new();
        while let Ok(message) = self.client.recv().await {
            let handling = self.clone().handle(message);
            if self.host.plan().at_once {
                hands.spawn(handling);
                while hands.try_join_next().is_some() {}
            } else {
                handling.await;
            }
        }
    }

    /// Reads what is older, most recent first, again and again.
    async fn turn_pages(self) {
        let messages = self.host.plan().page_messages;
        loop {
            let Ok(mut pages) = self.client.pages(PageOptions { messages, ..PageOptions::default() }).await else {
                return;
            };
            while let Ok(page) = pages.next().await {
                let complete = page.complete;
                for message in page.messages {
                    self.clone().handle(message).await;
                }
                if complete {
                    break;
                }
            }
            drop(pages);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at a message, and answers it or not.
    fn handle(self, message: Incoming) -> impl Future<Output = ()> {
        let (number, plan) = (self.host.number, self.host.plan());
        let body = message.body.first_chunk().map(|bytes| Number::from_be_bytes(*bytes));
        let in_order = plan.reading == Reading::InOrder;
        let who = (message.from, message.id);
        let known = self.stage().ledger().handed(number, self.life, in_order, who, body);
        note!(self.stage().trace(), "peer {number} is handed {body:?}, seq {}, n {}", message.seq, message.n);
        let mut chance = self.chance.lock().unwrap().fork();
        let thinks = chance.time(0, plan.thinks_ms);
        let (drops, refuses) = (chance.percent(plan.drops), chance.percent(plan.refuses));
        async move {
            let Some(letter) = known else {
                // Dropped at once it would come again at once, and time would stand still.
                return tokio::time::sleep(PAUSE).await;
            };
            tokio::time::sleep(thinks).await;
            let answered = if drops {
                self.stage().ledger().drops(letter);
                return drop(message);
            } else if refuses {
                self.stage().ledger().refuses(letter);
                message.refuse("no, thank you").await
            } else {
                self.stage().ledger().takes(letter);
                message.taken().await
            };
            if answered.is_ok() {
                note!(self.stage().trace(), "peer {number} has answered {letter}");
                self.stage().ledger().answered(letter, !refuses);
            }
        }
    }
}
