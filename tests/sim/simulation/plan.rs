//! What a seed makes of the world: who is there, what they send, what goes wrong and when.

use std::time::Duration;

use posthouse::client::Reading;
use posthouse::store::StoreLimits;
use posthouse::store::redb::writer::WriterMode;

use super::chance::Chance;
use super::disk::{Faults, Loss};
use super::life::{Strike, Swap};
use super::net::{HostNumber, Weather};

const SECOND: Duration = Duration::from_secs(1);

/// The first peer's number; relays have those below.
pub(crate) const FIRST_PEER: HostNumber = 10;

/// A relay that forges messages.
pub(crate) const FORGER: HostNumber = 99;

/// All of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) relays: Vec<RelayPlan>,
    pub(crate) peers: Vec<PeerPlan>,
    /// What goes wrong, in the order of time.
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// When everything goes well again, for good.
    pub(crate) heals: Duration,
    /// Somebody forges messages.
    pub(crate) forger: bool,
}

#[derive(Debug)]
pub(crate) struct RelayPlan {
    pub(crate) writer: WriterMode,
    pub(crate) limits: StoreLimits,
    pub(crate) clock_off_ms: i64,
}

/// A peer and its application.
#[derive(Debug)]
pub(crate) struct PeerPlan {
    /// Which relay is its home.
    pub(crate) home: HostNumber,
    pub(crate) reading: Reading,
    pub(crate) writer: WriterMode,
    pub(crate) clock_off_ms: i64,
    pub(crate) page_messages: u64,
    pub(crate) credit: u64,
    pub(crate) ack_timeout: Duration,
    /// Percent of messages that it refuses, and that it drops unanswered.
    pub(crate) refuses: u64,
    pub(crate) drops: u64,
    /// How long it looks at a message at most, and whether at several at a time.
    pub(crate) thinks_ms: u64,
    pub(crate) at_once: bool,
    /// When it first starts.
    pub(crate) starts: Duration,
    /// What it sends, in the order of time.
    pub(crate) sends: Vec<Send>,
}

/// A message, or several in one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Send {
    pub(crate) at: Duration,
    pub(crate) to: HostNumber,
    pub(crate) count: u64,
    pub(crate) ttl: Duration,
    pub(crate) bytes: usize,
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Weather(Weather),
    Cut(HostNumber, HostNumber, bool),
    Move(HostNumber),
    Rebind(HostNumber),
    Strike(HostNumber, Strike),
    Disk(HostNumber, Faults),
    Jump(HostNumber, i64),
    Backup(HostNumber),
}

/// What may happen in one run. Some things exclude each other, where one takes back what the other promises.
struct Profile {
    /// A relay's store is lost, or restored from a backup.
    loses_stores: bool,
    /// A relay's store is replaced by an older copy, by hand.
    puts_back: bool,
    /// That happens once, and nothing else: too much goes wrong otherwise for what it may break to be seen.
    relapses: bool,
    /// A sender is restored from an older copy.
    restores_senders: bool,
    /// Clocks are set while they run.
    clocks_jump: bool,
    /// Mailboxes and outboxes are small.
    small: bool,
    /// Strangers' mailboxes are so small that messages are refused for good.
    strangers: bool,
    /// Disks fail.
    disks_fail: bool,
}

impl Profile {
    fn draw(chance: &mut Chance) -> Self {
        let loses_stores = chance.percent(25);
        let puts_back = !loses_stores && chance.percent(12);
        let restores_senders = !loses_stores && !puts_back && chance.percent(12);
        let whole = !loses_stores && !puts_back && !restores_senders;
        Self {
            loses_stores,
            puts_back,
            relapses: puts_back && chance.percent(50),
            restores_senders,
            clocks_jump: !puts_back && !restores_senders && chance.percent(25),
            small: chance.percent(25),
            strangers: whole && chance.percent(20),
            disks_fail: chance.percent(50),
        }
    }
}

fn writer(chance: &mut Chance) -> WriterMode {
    match chance.below(4) {
        0 | 1 => WriterMode::Inline,
        2 => WriterMode::Task(chance.time(1, 20)),
        _ => WriterMode::Task(chance.time(20, 600)),
    }
}

fn limits(chance: &mut Chance, profile: &Profile) -> StoreLimits {
    let mut limits = StoreLimits { min_free_bytes: 1 << 20, ..StoreLimits::default() };
    if profile.small {
        limits.mailbox_messages = chance.between(4, 20);
        limits.pair_percent = chance.between(25, 100);
        limits.outbox_messages = chance.between(4, 20);
        limits.lanes_per_pair = chance.between(2, 5);
    }
    if profile.strangers {
        limits.provisional_messages = chance.between(1, 4);
        limits.provisional_per_submitter = chance.between(1, 2);
    }
    limits
}

impl Plan {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let profile = Profile::draw(chance);
        let relays = chance.pick(&[1, 1, 2, 2, 3]);
        let peers = chance.between(2, 4) + u64::from(relays == 3);
        let heals = chance.time(10_000, 60_000);
        let relay = |chance: &mut Chance| RelayPlan {
            writer: writer(chance),
            limits: limits(chance, &profile),
            clock_off_ms: chance.between(0, 20_000) as i64 - 10_000,
        };
        let relays: Vec<_> = (0..relays).map(|_| relay(chance)).collect();
        let peers: Vec<_> = (0..peers).map(|_| peer(chance, relays.len(), peers, heals)).collect();
        let mut plan = Self { relays, peers, faults: Vec::new(), heals, forger: chance.percent(15) };
        let most = chance.pick(&[6, 14, 40]);
        if profile.relapses {
            let at = chance.time(4_000, heals.as_millis() as u64 - 5_000);
            plan.add_relapse(chance, at);
        } else {
            for _ in 0..chance.below(most) {
                plan.add_fault(chance, &profile);
            }
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// How far clocks may be off because they were set: by so much later, or earlier, something may be due.
    pub(crate) fn clocks_off(&self) -> Duration {
        let jump = |(_, fault): &(Duration, Fault)| match fault {
            Fault::Jump(_, by) => Duration::from_millis(by.unsigned_abs()),
            _ => Duration::ZERO,
        };
        self.faults.iter().map(jump).sum()
    }

    fn any_peer(&self, chance: &mut Chance) -> HostNumber {
        FIRST_PEER + chance.index(self.peers.len()) as HostNumber
    }

    fn any_host(&self, chance: &mut Chance) -> HostNumber {
        if chance.percent(50) { chance.index(self.relays.len()) as HostNumber } else { self.any_peer(chance) }
    }

    fn add_fault(&mut self, chance: &mut Chance, profile: &Profile) {
        let last = self.heals.as_millis() as u64;
        // Half of it while somebody sends: that is when promises are made.
        let sends: Vec<_> = self.peers.iter().flat_map(|peer| &peer.sends).map(|send| send.at).collect();
        let at = if sends.is_empty() || chance.percent(50) {
            chance.time(500, last)
        } else {
            chance.pick(&sends) + chance.time(0, 300)
        };
        let mut add = |after: Duration, fault| self.faults.push((at + after, fault));
        match chance.below(100) {
            0..20 => {
                add(Duration::ZERO, Fault::Weather(weather(chance)));
                add(chance.time(500, 20_000), Fault::Weather(Weather::FAIR));
            }
            20..35 => {
                let (one, two) = (self.any_host(chance), self.any_host(chance));
                let most = if chance.percent(20) { 60_000 } else { 10_000 };
                let until = chance.time(500, most);
                let both = chance.percent(60);
                let ways = [(one, two), (two, one)];
                for (from, to) in ways.into_iter().take(if both { 2 } else { 1 }) {
                    self.faults.push((at, Fault::Cut(from, to, true)));
                    self.faults.push((at + until, Fault::Cut(from, to, false)));
                }
            }
            35..40 => {
                let host = self.any_host(chance);
                self.faults.push((at, Fault::Move(host)));
            }
            40..43 => {
                let peer = self.any_peer(chance);
                self.faults.push((at, Fault::Rebind(peer)));
            }
            43..66 => {
                let host = self.any_host(chance);
                self.faults.push((at, Fault::Strike(host, strike(chance))));
            }
            66..70 => self.add_flicker(chance, at),
            70..82 if profile.disks_fail => {
                let host = self.any_host(chance);
                let faults = disk_faults(chance);
                self.faults.push((at, Fault::Disk(host, faults)));
                if faults.room.is_some() {
                    self.faults.push((at + chance.time(500, 8_000), Fault::Disk(host, Faults::default())));
                }
            }
            82..88 if profile.clocks_jump => {
                let host = self.any_host(chance);
                let by = chance.between(0, 1_200_000) as i64 - 600_000;
                // A relay that is restored and whose clock was set back hands out what it told as expired: a limit.
                let by = if profile.loses_stores && host < FIRST_PEER { by.abs() } else { by };
                self.faults.push((at, Fault::Jump(host, by)));
            }
            88..100 => self.add_swap(chance, profile, at),
            _ => {
                let host = self.any_host(chance);
                let power = Faults { power_after: Some(chance.between(1, 60)), ..Faults::default() };
                self.faults.push((at, Fault::Disk(host, power)));
            }
        }
    }

    /// A client dies again and again while what it said last is still on its way.
    fn add_flicker(&mut self, chance: &mut Chance, at: Duration) {
        let peer = self.any_peer(chance);
        let late = Weather { late: 50, late_ms: 3_000, delay_ms: (1, 20), ..Weather::FAIR };
        self.faults.push((at, Fault::Weather(late)));
        let mut at = at;
        for _ in 0..chance.between(2, 6) {
            at += chance.time(30, 800);
            let strike = Strike { polite: false, loss: Loss::Nothing, down: chance.time(1, 50), swap: Swap::No };
            self.faults.push((at, Fault::Strike(peer, strike)));
        }
        self.faults.push((at + SECOND, Fault::Weather(Weather::FAIR)));
    }

    /// What came behind a copy is delivered and told; then the copy is put back, and something else comes while the
    /// recipient, who remembers what it answered last, is away.
    fn add_relapse(&mut self, chance: &mut Chance, at: Duration) {
        let reader = chance.index(self.peers.len());
        let other = (reader + 1) % self.peers.len();
        let (home, to) = (self.peers[reader].home, FIRST_PEER + reader as HostNumber);
        let cut = chance.time(2_000, 4_000);
        let strike = Strike { polite: false, loss: Loss::Nothing, down: chance.time(1, 300), swap: Swap::PutBack };
        self.faults.push((at.saturating_sub(2 * SECOND), Fault::Backup(home)));
        self.faults.push((at, Fault::Strike(home, strike)));
        for (from, to) in [(home, to), (to, home)] {
            self.faults.push((at, Fault::Cut(from, to, true)));
            self.faults.push((at + cut, Fault::Cut(from, to, false)));
        }
        let mut send = |sender: usize, at: Duration| {
            let send = Send { at, to, count: chance.between(1, 3), ttl: 100 * SECOND, bytes: 50 };
            let sends = &mut self.peers[sender].sends;
            sends.push(send);
            sends.sort_by_key(|send| send.at);
        };
        send(other, at.saturating_sub(SECOND));
        send(other, at + SECOND);
        // Who says something to a relay that was started anew learns of that at once.
        send(reader, at + cut);
    }

    /// A host gets another disk, or an older copy of its own.
    fn add_swap(&mut self, chance: &mut Chance, profile: &Profile, at: Duration) {
        let (host, swap) = if profile.loses_stores {
            (chance.index(self.relays.len()) as HostNumber, chance.pick(&[Swap::Empty, Swap::Restore]))
        } else if profile.puts_back {
            (chance.index(self.relays.len()) as HostNumber, Swap::PutBack)
        } else if profile.restores_senders {
            // Only one that does not read: a recipient that forgets what it took takes it again.
            let senders = (0..self.peers.len()).filter(|at| self.peers[*at].reading == Reading::Nothing);
            let senders: Vec<_> = senders.collect();
            if senders.is_empty() {
                return;
            }
            (FIRST_PEER + chance.pick(&senders) as HostNumber, Swap::PutBack)
        } else {
            return;
        };
        if swap != Swap::Empty {
            let before = chance.time(0, at.as_millis() as u64);
            self.faults.push((before, Fault::Backup(host)));
        }
        self.faults.push((at, Fault::Strike(host, Strike { swap, ..strike(chance) })));
    }
}

fn peer(chance: &mut Chance, relays: usize, peers: u64, heals: Duration) -> PeerPlan {
    let late = chance.percent(30);
    let mut sends: Vec<_> = (0..chance.below(12)).map(|_| send(chance, peers, heals)).collect();
    sends.sort_by_key(|send| send.at);
    PeerPlan {
        home: chance.index(relays) as HostNumber,
        reading: chance.pick(&[Reading::InOrder, Reading::InOrder, Reading::RecentFirst, Reading::Nothing]),
        writer: writer(chance),
        clock_off_ms: chance.between(0, 20_000) as i64 - 10_000,
        page_messages: chance.pick(&[1, 2, 5, 500]),
        credit: chance.pick(&[1, 2, 8, 256]),
        ack_timeout: chance.pick(&[SECOND / 2, 2 * SECOND, 30 * SECOND]),
        refuses: chance.pick(&[0, 0, 10, 40]),
        drops: chance.pick(&[0, 0, 0, 15]),
        thinks_ms: chance.pick(&[0, 0, 50, 1500]),
        at_once: chance.percent(40),
        starts: if late { chance.time(0, heals.as_millis() as u64) } else { Duration::ZERO },
        sends,
    }
}

fn send(chance: &mut Chance, peers: u64, heals: Duration) -> Send {
    let ttl = match chance.below(10) {
        0 | 1 => chance.time(1_000, 4_000),
        2 | 3 => chance.time(4_000, 30_000),
        _ => chance.time(60_000, 240_000),
    };
    let bytes = match chance.below(20) {
        0 => chance.between(8, 60_000),
        1 | 2 => chance.between(8, 3_000),
        _ => chance.between(8, 100),
    };
    Send {
        at: chance.time(0, heals.as_millis() as u64),
        to: FIRST_PEER + chance.below(peers) as HostNumber,
        count: if chance.percent(50) { 1 } else { chance.between(1, 8) },
        ttl,
        bytes: bytes as usize,
    }
}

fn weather(chance: &mut Chance) -> Weather {
    let least = chance.between(1, 80);
    Weather {
        loss: chance.pick(&[0, 2, 10, 30]),
        twice: chance.pick(&[0, 0, 5, 30]),
        corrupt: chance.pick(&[0, 0, 2, 10]),
        late: chance.pick(&[0, 5, 30]),
        late_ms: chance.pick(&[50, 500, 3_000]),
        delay_ms: (least, least + chance.between(0, 100)),
    }
}

fn strike(chance: &mut Chance) -> Strike {
    let loss = chance.pick(&[Loss::Nothing, Loss::Nothing, Loss::All, Loss::Tail, Loss::Sectors]);
    let down = match chance.below(4) {
        0 => chance.time(1, 50),
        1 | 2 => chance.time(50, 3_000),
        _ => chance.time(3_000, 20_000),
    };
    Strike { polite: chance.percent(15), loss, down, swap: Swap::No }
}

fn disk_faults(chance: &mut Chance) -> Faults {
    let none = Faults::default();
    match chance.below(6) {
        0 => Faults { read_after: Some(chance.below(20)), ..none },
        1 | 2 => Faults { write_after: Some(chance.below(60)), ..none },
        3 => Faults { sync_after: Some(chance.below(10)), ..none },
        _ => Faults { room: Some(chance.pick(&[0, 4_096, 100_000])), ..none },
    }
}
