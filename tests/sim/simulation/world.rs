//! One run: hosts that live, a plan that strikes them, and in the end nothing that is left over.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::forger;
use super::ledger::Weakness;
use super::life::Strike;
use super::net::{HostNumber, Weather};
use super::peer::PeerHost;
use super::plan::{FIRST_PEER, Fault};
use super::relay::RelayHost;
use super::stage::{RELAY_PORT, Stage};
use super::trace::note;

/// How long after everything heals the last message may have its outcome: the longest lifetime, an hour that clocks may
/// be off, and the waits between attempts.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_secs(1);

/// See the head of this file.
pub(crate) struct World {
    stage: Stage,
    relays: Vec<Arc<RelayHost>>,
    peers: Vec<Arc<PeerHost>>,
    tasks: JoinSet<()>,
}

impl World {
    /// Everybody starts to live.
    pub(crate) fn begin(stage: &Stage) -> Self {
        let plan = stage.plan();
        let relays: Vec<_> = (0..plan.relays.len()).map(|at| RelayHost::new(stage, at as HostNumber)).collect();
        let peer = |at| PeerHost::new(stage, FIRST_PEER + at as HostNumber);
        let peers: Vec<_> = (0..plan.peers.len()).map(peer).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(stage.net().clone().run());
        for relay in &relays {
            tasks.spawn(relay.clone().run());
        }
        for peer in &peers {
            tasks.spawn(peer.clone().run());
        }
        if plan.forger {
            tasks.spawn(forger::run(stage.clone(), plan.heals));
        }
        Self { stage: stage.clone(), relays, peers, tasks }
    }

    /// Runs it to its end; how long everything took once it had healed.
    pub(crate) async fn run(mut self) -> Result<Duration, String> {
        let plan = self.stage.plan();
        for (at, fault) in plan.faults.iter().filter(|(at, _)| *at < plan.heals) {
            self.until(*at).await?;
            note!(self.stage.trace(), "{fault:?}");
            if matches!(fault, Fault::Jump(..)) {
                self.stage.ledger().weaken(Weakness { clocks_jump: true, ..Weakness::default() });
            }
            self.strike(fault);
        }
        self.until(plan.heals).await?;
        self.heal();
        let settled = self.settle().await;
        self.tasks.abort_all();
        settled
    }

    /// Lets time pass, and stops at a broken promise.
    async fn until(&self, at: Duration) -> Result<(), String> {
        let at = self.stage.when(at);
        while tokio::time::Instant::now() < at {
            tokio::time::sleep_until(at.min(tokio::time::Instant::now() + LOOK)).await;
            self.broken()?;
        }
        Ok(())
    }

    fn broken(&self) -> Result<(), String> {
        self.stage.ledger().broken().map_or(Ok(()), |broken| Err(broken.to_owned()))
    }

    fn peer(&self, host: HostNumber) -> Option<&Arc<PeerHost>> {
        self.peers.get(usize::from(host.checked_sub(FIRST_PEER)?))
    }

    fn strike(&self, fault: &Fault) {
        let net = self.stage.net();
        match fault {
            Fault::Weather(weather) => net.set_weather(*weather),
            Fault::Cut(from, to, cut) => net.cut(*from, *to, *cut),
            Fault::Move(host) => net.move_host(*host, (*host < FIRST_PEER).then_some(RELAY_PORT)),
            Fault::Rebind(host) => self.peer(*host).unwrap().rebind(),
            Fault::Strike(host, strike) => self.strike_host(*host, strike.clone()),
            Fault::Disk(host, faults) => match self.peer(*host) {
                Some(peer) => peer.disk.set_faults(*faults),
                None => self.relays[usize::from(*host)].disk.set_faults(*faults),
            },
            Fault::Jump(host, by) => match self.peer(*host) {
                Some(peer) => peer.clock.jump(*by),
                None => self.relays[usize::from(*host)].clock.jump(*by),
            },
            Fault::Backup(host) => match self.peer(*host) {
                Some(peer) => peer.back_up(),
                None => self.relays[usize::from(*host)].back_up(),
            },
        }
    }

    fn strike_host(&self, host: HostNumber, strike: Strike) {
        match self.peer(host) {
            Some(peer) => peer.fuse.strike(strike),
            None => self.relays[usize::from(host)].fuse.strike(strike),
        }
    }

    /// From here on nothing goes wrong.
    fn heal(&self) {
        note!(self.stage.trace(), "everything heals");
        let net = self.stage.net();
        net.set_weather(Weather::FAIR);
        net.mend();
        for disk in self.relays.iter().map(|relay| &relay.disk).chain(self.peers.iter().map(|peer| &peer.disk)) {
            disk.set_faults(super::disk::Faults::default());
        }
    }

    /// Waits until nothing is left over.
    async fn settle(&self) -> Result<Duration, String> {
        let begun = tokio::time::Instant::now();
        loop {
            self.broken()?;
            let Some(left) = self.leftovers().await else { break };
            if begun.elapsed() > LIMIT {
                return Err(format!("{LIMIT:?} after everything healed: {left}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        let took = begun.elapsed();
        if let Some(open) = self.stage.ledger().first_open() {
            return Err(format!("without an outcome for ever: {open}"));
        }
        for (number, relay) in self.relays.iter().enumerate() {
            if let Some(problem) = relay.problems().await.first() {
                return Err(format!("the store of relay {number}: {problem}"));
            }
        }
        note!(self.stage.trace(), "nothing is left after {took:?}");
        self.broken().map(|()| took)
    }

    async fn leftovers(&self) -> Option<String> {
        for peer in &self.peers {
            if let Some(left) = peer.leftovers().await {
                return Some(left);
            }
        }
        for relay in &self.relays {
            if let Some(left) = relay.leftovers().await {
                return Some(left);
            }
        }
        None
    }
}
