//! One of two relays put back from an older backup, or with an emptied store: nothing is lost that its neighbours, or
//! its own peers, still hold, and nothing comes twice to an application.
//!
//! Bob takes whatever comes, at once; Carol is away until the end. Both are at home at the other relay than Alice.

use posthouse::client::{Client, Outgoing};
use posthouse::protocol::Outcome;

use crate::support::client::{Log, Taker, accepted, client, outcomes, send};
use crate::support::relay::TestRelay;
use crate::support::within;

const ALICE: u8 = 1;
const BOB: u8 = 2;
const CAROL: u8 = 3;
const THERE: u8 = 250;

struct Cast {
    here: TestRelay,
    there: TestRelay,
    alice: Client,
    log: Log,
    bobs: Taker,
    _bob: Client,
}

impl Cast {
    async fn enter() -> Self {
        let (here, there) = (TestRelay::on_disk().started(), TestRelay::on_disk().named(THERE).started());
        let alice = client(ALICE, &here.home());
        let log = Log::of(&alice).await;
        let (bob, carol) = (client(BOB, &there.home()), client(CAROL, &there.home()));
        for client in [&bob, &carol] {
            within("a session", client.status(None)).await.unwrap();
        }
        within("her leaving", carol.close()).await;
        Self { here, there, alice, log, bobs: Taker::of(&bob), _bob: bob }
    }

    /// To Bob, who takes it.
    async fn deliver(&self, word: &str) {
        let mut sent = send(&self.alice, &self.there.home(), BOB, &[word]).await;
        assert_eq!(outcomes(&mut sent).await, [Outcome::Delivered], "{word}");
    }

    /// To Carol, and it has come as far as it can when so many wait for her.
    async fn leave(&self, word: &str, waiting: u64) -> Outgoing {
        let mut sent = send(&self.alice, &self.there.home(), CAROL, &[word]).await;
        accepted(&mut sent).await;
        self.there.waits_for(CAROL, waiting).await;
        sent.remove(0)
    }

    /// Carol comes and takes all. What she took.
    async fn carol_takes(&self, sent: &mut [Outgoing]) -> Vec<String> {
        let carol = client(CAROL, &self.there.home());
        let taker = Taker::of(&carol);
        assert_eq!(outcomes(sent).await, vec![Outcome::Delivered; sent.len()]);
        within("her leaving", carol.close()).await;
        taker.bodies()
    }

    /// It all goes on as if nothing had been.
    async fn leave_the_stage(self, expected: &[&str]) {
        self.deliver("more").await;
        assert_eq!(self.bobs.bodies(), [expected, &["more"]].concat());
        for relay in [&self.here, &self.there] {
            relay.assert_sound().await;
        }
    }
}

/// What became of a relay's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    PutBack,
    Emptied,
}

#[tokio::test]
async fn a_recipients_relay_that_forgot_is_offered_again_what_has_no_outcome() {
    for fate in [Fate::PutBack, Fate::Emptied] {
        let mut cast = Cast::enter().await;
        cast.deliver("one").await;
        let mut waiting = vec![cast.leave("two", 1).await, cast.leave("three", 2).await];
        cast.there.stop().await;
        let backup = cast.there.copy();
        cast.there.start();
        // All that happens from here on is unknown to the copy.
        cast.deliver("four").await;
        waiting.push(cast.leave("five", 3).await);
        cast.there.kill().await;
        match fate {
            Fate::PutBack => cast.there.restore(&backup),
            Fate::Emptied => cast.there.lose_disk(),
        }
        cast.there.start();
        assert_eq!(cast.carol_takes(&mut waiting).await, ["two", "three", "five"], "{fate:?}");
        cast.leave_the_stage(&["one", "four"]).await;
    }
}

#[tokio::test]
async fn a_senders_relay_that_forgot_learns_again_what_its_peers_hold_and_what_became_of_it() {
    for fate in [Fate::PutBack, Fate::Emptied] {
        let mut cast = Cast::enter().await;
        cast.deliver("one").await;
        // In the copy it has no outcome yet.
        let mut early = vec![cast.leave("two", 1).await];
        cast.here.stop().await;
        let backup = cast.here.copy();
        cast.here.start();
        assert_eq!(cast.carol_takes(&mut early).await, ["two"]);
        cast.deliver("three").await;
        let mut waiting = vec![cast.leave("four", 1).await, cast.leave("five", 2).await];
        let connections = cast.log.connections();
        cast.here.kill().await;
        match fate {
            Fate::PutBack => cast.here.restore(&backup),
            Fate::Emptied => cast.here.lose_disk(),
        }
        cast.here.start();
        cast.log.connected(connections + 1).await;
        assert_eq!(cast.carol_takes(&mut waiting).await, ["four", "five"], "{fate:?}");
        cast.leave_the_stage(&["one", "three"]).await;
    }
}

#[tokio::test]
async fn an_outcome_that_the_senders_relay_forgot_before_its_sender_knew_it_is_found_again() {
    for fate in [Fate::PutBack, Fate::Emptied] {
        let mut cast = Cast::enter().await;
        let place = tempfile::tempdir().unwrap();
        let dora = |relay: &TestRelay| crate::support::client::client_in(place.path(), 4, &relay.home());
        let sender = dora(&cast.here);
        let mut sent = send(&sender, &cast.there.home(), CAROL, &["word"]).await;
        accepted(&mut sent).await;
        cast.there.waits_for(CAROL, 1).await;
        within("her leaving", sender.close()).await;
        cast.here.stop().await;
        let backup = cast.here.copy();
        cast.here.start();
        let carol = client(CAROL, &cast.there.home());
        let taker = Taker::of(&carol);
        taker.count(1).await;
        cast.here.outbox_drains(&cast.there).await;
        cast.here.kill().await;
        match fate {
            Fate::PutBack => cast.here.restore(&backup),
            Fate::Emptied => cast.here.lose_disk(),
        }
        cast.here.start();
        let sender = dora(&cast.here);
        let log = Log::of(&sender).await;
        crate::support::until("the outcome", || log.outcomes().len() == 1).await;
        assert_eq!(log.outcomes()[0].1, Outcome::Delivered);
        assert_eq!(taker.bodies(), ["word"], "{fate:?}");
        cast.leave_the_stage(&[]).await;
    }
}
