//! One run: hosts that live, a plan that strikes them, and in the end nothing that is left over.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::forger;
use super::ledger::Weakness;
use super::life::Strike;
use super::machine::Machine;
use super::memory;
use super::net::{HostNumber, Weather};
use super::peer::PeerHost;
use super::plan::{FIRST_PEER, Fault};
use super::relay::{BY_ITSELF, RelayHost};
use super::stage::{RELAY_PORT, Stage};
use super::trace::note;

/// How long after everything healed the last message may have its outcome: the longest lifetime, and the waits between
/// attempts. Less than the hour that a sender grants a relay which says nothing: relays that live say something.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What all processes and connections of a run may hold in memory, for each host. Its store's cache is most of it.
const HOST_BYTES: usize = 4 << 20;

/// How often hosts die at the end to see what they leave behind, how much of it all of them together may, and how many
/// times in a row more is a leak.
const DEATHS: usize = 6;
const LEFT_BYTES: usize = 48 << 10;
const LOOKS_AT_GROWTH: usize = 2;

/// When nothing is left of a connection whose other end died.
const FORGOTTEN: Duration = Duration::from_secs(100);

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
        let settled = match self.settle().await {
            Ok(took) => self.live_on().await.map(|()| took),
            broken => broken,
        };
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

    /// Bytes that the hosts' processes hold, and what simulates them but for their disks.
    fn held(&self) -> usize {
        memory::held().saturating_sub(self.machines().map(Machine::held).sum())
    }

    /// Everybody dies and comes back, several times: what is held in memory does not grow with it. Relays first, whom
    /// their clients live to see again; then clients, who leave their relays behind.
    async fn live_on(&self) -> Result<(), String> {
        let relays: Vec<_> = (0..self.relays.len() as HostNumber).collect();
        let peers: Vec<_> = (0..self.peers.len() as HostNumber).map(|at| FIRST_PEER + at).collect();
        for (who, hosts) in [("relays", relays), ("clients", peers)] {
            let mut before = self.held_after_deaths(&hosts).await?;
            // A table that became larger does so once; what is left behind grows each time.
            for look in 1.. {
                let after = self.held_after_deaths(&hosts).await?;
                if after <= before + LEFT_BYTES {
                    break;
                }
                if look == LOOKS_AT_GROWTH {
                    return Err(format!("{who} that died left {} bytes behind", after - before));
                }
                before = after;
            }
        }
        Ok(())
    }

    async fn held_after_deaths(&self, hosts: &[HostNumber]) -> Result<usize, String> {
        for death in 0..DEATHS {
            let strike = Strike { polite: death % 2 == 0, ..BY_ITSELF };
            hosts.iter().for_each(|host| self.strike_host(*host, strike.clone()));
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(FORGOTTEN).await;
        self.broken()?;
        Ok(self.held())
    }

    fn broken(&self) -> Result<(), String> {
        let (held, hosts) = (self.held(), self.relays.len() + self.peers.len());
        if held > hosts * HOST_BYTES {
            return Err(format!("{held} bytes are held in memory for {hosts} hosts"));
        }
        self.stage.ledger().broken().map_or(Ok(()), |broken| Err(broken.to_owned()))
    }

    fn peer(&self, host: HostNumber) -> Option<&Arc<PeerHost>> {
        self.peers.get(usize::from(host.checked_sub(FIRST_PEER)?))
    }

    fn machine(&self, host: HostNumber) -> &Machine {
        self.peer(host).map_or_else(|| &self.relays[usize::from(host)].machine, |peer| &peer.machine)
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.relays.iter().map(|relay| &relay.machine).chain(self.peers.iter().map(|peer| &peer.machine))
    }

    fn strike(&self, fault: &Fault) {
        let net = self.stage.net();
        match fault {
            Fault::Weather(weather) => net.set_weather(*weather),
            Fault::Cut(from, to, cut) => net.cut(*from, *to, *cut),
            Fault::Move(host) => net.move_host(*host, (*host < FIRST_PEER).then_some(RELAY_PORT)),
            Fault::Rebind(host) => self.peer(*host).unwrap().rebind(),
            Fault::Strike(host, strike) => self.strike_host(*host, strike.clone()),
            Fault::Disk(host, faults) => self.machine(*host).disk.set_faults(*faults),
            Fault::Jump(host, by) => self.machine(*host).clock.jump(*by),
            Fault::Backup(host) => match self.peer(*host) {
                Some(peer) => peer.back_up(),
                None => self.machine(*host).back_up(),
            },
        }
    }

    fn strike_host(&self, host: HostNumber, strike: Strike) {
        self.machine(host).fuse.strike(strike);
    }

    /// From here on nothing goes wrong.
    fn heal(&self) {
        note!(self.stage.trace(), "everything heals");
        let net = self.stage.net();
        net.set_weather(Weather::FAIR);
        net.mend();
        self.machines().for_each(|machine| machine.disk.set_faults(super::disk::Faults::default()));
    }

    /// Waits until nothing is left over.
    async fn settle(&self) -> Result<Duration, String> {
        let limit = LIMIT + self.stage.plan().clocks_off();
        let begun = tokio::time::Instant::now();
        loop {
            self.broken()?;
            let Some(left) = self.leftovers().await else { break };
            if begun.elapsed() > limit {
                return Err(format!("{limit:?} after everything healed: {left}"));
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
