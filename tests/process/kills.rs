//! kill -9 while messages flow: at random moments, and at every sync of every store.
//!
//! `KILLS` sets how many random kills (12 if not set), `KILLS_SEED` which, `KILLS_SYNCS` up to which sync of a life
//! (8). What a killed application saw is in its record, so the oracle is exact: a recipient's application is handed a
//! message once more only if it died before its answer had returned, and never after the sender was told.

use std::path::Path;
use std::time::{Duration, Instant};

use posthouse::address::RelayAddress;
use posthouse::identity::Identity;
use posthouse::random::SystemEntropy;

use super::lasting::lasting_place;
use super::mortal::{Death, Mortal, Role};
use super::program::{PATIENCE, Relay};
use super::record::Oracle;

/// Senders, each with a recipient.
const PAIRS: usize = 3;

/// A kill comes at most so long after messages flow again.
const DELAY_US: u64 = 30_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Who can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Relay,
    Sender(usize),
    Recipient(usize),
}

impl Victim {
    /// The pairs whose messages go through its hands.
    fn pairs(self) -> std::ops::Range<usize> {
        match self {
            Self::Relay => 0..PAIRS,
            Self::Sender(pair) | Self::Recipient(pair) => pair..pair + 1,
        }
    }

    const fn kind(self) -> usize {
        match self {
            Self::Relay => 0,
            Self::Sender(_) => 1,
            Self::Recipient(_) => 2,
        }
    }
}

/// The pairs, and what is known of them.
struct Town {
    oracle: Oracle,
    senders: Vec<Mortal>,
    recipients: Vec<Mortal>,
}

impl Town {
    /// Everybody has an identity, and nobody is alive yet.
    fn new(directory: &Path, home: &RelayAddress) -> Self {
        let record = directory.join("record");
        let place = |name: &str, pair: usize| {
            let place = directory.join(format!("{name}{pair}"));
            std::fs::create_dir(&place).unwrap();
            place
        };
        let (mut senders, mut recipients) = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let (here, there) = (place("sender", pair), place("recipient", pair));
            let recipient = Identity::load_or_create(&there, "key", &SystemEntropy).unwrap();
            let (to, from) = (home.peer(recipient.peer_id()).to_string(), home.to_string());
            let role = Role::Sender { home: from.clone(), pair, to, first: 0 };
            senders.push(Mortal::new(role, here, record.clone()));
            recipients.push(Mortal::new(Role::Recipient { home: from, pair }, there, record.clone()));
        }
        Self { oracle: Oracle::new(&record, PAIRS), senders, recipients }
    }

    fn peer(&mut self, victim: Victim) -> Option<&mut Mortal> {
        match victim {
            Victim::Relay => None,
            Victim::Sender(pair) => Some(&mut self.senders[pair]),
            Victim::Recipient(pair) => Some(&mut self.recipients[pair]),
        }
    }

    /// How many messages have come, of each pair.
    fn came(&self) -> [usize; PAIRS] {
        std::array::from_fn(|pair| self.oracle.pairs[pair].came())
    }

    fn in_flight(&self, victim: Victim) -> bool {
        victim.pairs().any(|pair| self.oracle.pairs[pair].in_flight() > 0)
    }

    /// Ends it all, which has to leave nothing behind.
    fn end(mut self) -> Oracle {
        for mortal in self.senders.iter_mut().chain(&mut self.recipients) {
            mortal.finish();
        }
        self.oracle.read();
        for pair in &self.oracle.pairs {
            pair.end();
        }
        self.oracle
    }
}

/// A victim that was killed, and is not known to be back.
struct Killed {
    victim: Victim,
    at: Instant,
    came: [usize; PAIRS],
}

impl Killed {
    /// Whether a message of every pair that it serves has come since.
    fn is_back(&self, came: [usize; PAIRS]) -> bool {
        self.victim.pairs().all(|pair| came[pair] > self.came[pair])
    }
}

/// A run of random kills.
struct Run {
    town: Town,
    relay: Relay,
    killed: Vec<Killed>,
    /// How long it took each kind until messages came again.
    back: [Vec<Duration>; 3],
}

impl Run {
    /// Looks at what has happened.
    fn look(&mut self) {
        std::thread::sleep(Duration::from_micros(500));
        self.town.oracle.read();
        let came = self.town.came();
        self.killed.retain(|killed| {
            let is_back = killed.is_back(came);
            if is_back {
                self.back[killed.victim.kind()].push(killed.at.elapsed());
            }
            assert!(killed.at.elapsed() < PATIENCE, "nothing comes since {:?} was killed", killed.victim);
            !is_back
        });
        for peer in self.town.senders.iter_mut().chain(&mut self.town.recipients) {
            assert!(!peer.is_dead(), "somebody else kills as well");
        }
    }

    fn kill(&mut self, victim: Victim) {
        self.killed.retain(|killed| killed.victim != victim);
        let (at, came) = (Instant::now(), self.town.came());
        match self.town.peer(victim) {
            Some(peer) => {
                peer.kill();
                peer.start(None);
            }
            None => {
                self.relay.kill();
                self.relay.start_again();
            }
        }
        self.killed.push(Killed { victim, at, came });
    }

    fn is_back(&self, victim: Victim) -> bool {
        self.killed.iter().all(|killed| killed.victim != victim)
    }
}

#[test]
fn whoever_is_killed_under_load_nothing_is_lost_or_doubled_or_out_of_order() {
    let wanted = setting("KILLS", 12);
    let mut random = setting("KILLS_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut chance = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) % below
    };
    let begin = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path());
    let town = Town::new(directory.path(), &relay.address.parse().unwrap());
    let mut run = Run { town, relay, killed: Vec::new(), back: Default::default() };
    for pair in 0..PAIRS {
        run.town.senders[pair].start(None);
        run.town.recipients[pair].start(None);
        let came = run.town.came();
        run.killed.push(Killed { victim: Victim::Recipient(pair), at: begin, came });
    }
    while !run.killed.is_empty() {
        run.look();
    }
    run.back = Default::default();

    // A kill counts if messages flowed through the victim in this life and some are on their way. Others are killed
    // while they come back.
    let (mut counted, mut early) = ([0; 3], 0);
    while counted.iter().sum::<u64>() < wanted {
        let pair = chance(PAIRS as u64) as usize;
        let victim = [Victim::Relay, Victim::Sender(pair), Victim::Recipient(pair)][chance(3) as usize];
        let is_early = chance(8) == 0;
        while !is_early && !run.is_back(victim) {
            run.look();
        }
        let (since, delay) = (Instant::now(), Duration::from_micros(chance(DELAY_US)));
        while since.elapsed() < delay {
            run.look();
        }
        if run.is_back(victim) && run.town.in_flight(victim) {
            counted[victim.kind()] += 1;
        } else {
            early += 1;
        }
        run.kill(victim);
    }
    while !run.killed.is_empty() {
        run.look();
    }

    let Run { town, mut relay, back, .. } = run;
    let oracle = town.end();
    relay.terminate();
    assert!(relay.wait().success(), "{}", relay.logged());
    let check = relay.command(&["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let (messages, again) = oracle.pairs.iter().fold((0, 0), |sum, pair| (sum.0 + pair.sent, sum.1 + pair.again));
    let [relays, senders, recipients] = counted;
    println!(
        "{wanted} kills under load ({relays} of the relay, {senders} of senders, {recipients} of recipients) and {early} \
         of who was only coming back; {messages} messages, all with their outcome, once, in order; {again} handed out \
         again, unanswered before; {} sessions taken over by a life before; {:?}",
        oracle.superseded,
        begin.elapsed()
    );
    for (kind, mut back) in ["relay", "sender", "recipient"].into_iter().zip(back) {
        back.sort();
        if let (Some(median), Some(longest)) = (back.get(back.len() / 2), back.last()) {
            println!("{kind}: messages came again {median:?} after the kill (median), {longest:?} (longest)");
        }
    }
}

#[test]
fn whoever_dies_at_whichever_sync_of_its_store_goes_on_from_there() {
    let deepest = setting("KILLS_SYNCS", 8);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("relay");
    std::fs::create_dir(&place).unwrap();
    let at = lasting_place();
    let identity = Identity::load_or_create(&place, "key", &SystemEntropy).unwrap();
    let home = RelayAddress::new(identity.relay_id(), at.into());
    let mut town = Town::new(directory.path(), &home);
    let mut relay = Mortal::new(Role::Relay { at: at.to_string() }, place, directory.path().join("record"));

    // Each begins to die with its first life, over the making of its store. All others are alive.
    let deaths = [Victim::Relay, Victim::Sender(1), Victim::Recipient(2)];
    for victim in Victim::Relay.pairs().flat_map(|pair| [Victim::Sender(pair), Victim::Recipient(pair)]) {
        if !deaths.contains(&victim) {
            town.peer(victim).unwrap().start(None);
        }
    }
    for victim in deaths {
        for (sync, after) in (1..=deepest).flat_map(|sync| [(sync, false), (sync, true)]) {
            let begin = Instant::now();
            let mortal = town.peer(victim).unwrap_or(&mut relay);
            mortal.start(Some(Death { sync, after }));
            while !mortal.is_dead() {
                assert!(begin.elapsed() < PATIENCE, "{victim:?} does not come to sync {sync}");
                std::thread::sleep(Duration::from_millis(1));
            }
            town.oracle.read();
        }
        town.peer(victim).unwrap_or(&mut relay).start(None);
    }
    let (before, begin) = (town.came(), Instant::now());
    while (0..PAIRS).any(|pair| town.came()[pair] <= before[pair]) {
        assert!(begin.elapsed() < PATIENCE, "{before:?} came, and now {:?}", town.came());
        std::thread::sleep(Duration::from_millis(1));
        town.oracle.read();
    }
    let oracle = town.end();
    relay.finish();
    let [messages, again] = oracle.pairs.iter().fold([0; 2], |sum, pair| [sum[0] + pair.sent, sum[1] + pair.again]);
    println!("{} deaths, each at a sync; {messages} messages, {again} handed out again", 3 * 2 * deepest);
}
