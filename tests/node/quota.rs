//! Full mailboxes: a temporary refusal holds its lane alone, and everything arrives once there is room.

use posthouse::client::{Client, Event};
use posthouse::protocol::{Outcome, WaitReason};

use crate::support::client::{Log, Taker, accepted, client, outcomes, send};
use crate::support::relay::TestRelay;
use crate::support::{until, within};

/// A relay whose mailboxes hold ten messages, five of each sender; 2 was here, and is away.
async fn narrow() -> TestRelay {
    let relay = TestRelay::on_disk().with(|_, store| store.mailbox_messages = 10).started();
    let bob = client(2, &relay.home());
    within("a session", bob.status(None)).await.unwrap();
    within("its end", bob.close()).await;
    relay
}

/// How often a lane was held for this reason.
fn held(told: &Log, because: WaitReason) -> usize {
    told.count(|event| matches!(event, Event::Waiting { reason, .. } if *reason == because))
}

const WORDS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];

#[tokio::test]
async fn a_full_mailbox_makes_lanes_wait_and_all_arrives_once_there_is_room() {
    let relay = narrow().await;
    let home = relay.home();
    let senders: Vec<Client> = [1, 3, 4].iter().map(|number| client(*number, &home)).collect();
    let mut logs = Vec::new();
    for sender in &senders {
        logs.push(Log::of(sender).await);
    }
    let mut sent = Vec::new();
    for (sender, log) in senders.iter().zip(&logs) {
        sent.push(send(sender, &home, 2, &WORDS).await);
        until("a lane that waits", || log.count(|event| matches!(event, Event::Waiting { .. })) > 0).await;
    }
    // The first two have their five each, and then it is full for everybody.
    assert_eq!(relay.waiting_for(2).await, 10);
    assert!(held(&logs[0], WaitReason::QuotaPair) > 0 && held(&logs[0], WaitReason::Quota) == 0);
    assert!(held(&logs[2], WaitReason::Quota) > 0);
    // Other lanes of the same sender do not wait.
    let dave = client(5, &home);
    let daves = Taker::of(&dave);
    let mut other = send(&senders[0], &home, 5, &["past the others"]).await;
    assert_eq!(outcomes(&mut other).await, [Outcome::Delivered]);
    assert_eq!(daves.bodies(), ["past the others"]);
    assert_eq!(relay.waiting_for(2).await, 10, "and the full mailbox stays so");
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    for sent in &mut sent {
        assert_eq!(outcomes(sent).await, vec![Outcome::Delivered; 8]);
    }
    for number in [1, 3, 4] {
        assert_eq!(taker.bodies_from(number), WORDS, "each once, in order");
    }
    for log in &logs {
        assert_eq!((log.connections(), log.farewells()), (1, Vec::new()));
    }
    relay.assert_sound().await;
}

#[tokio::test]
async fn a_message_that_waits_for_room_ends_in_time_and_was_not_taken() {
    let relay = narrow().await;
    let home = relay.home();
    let alice = client(1, &home);
    let told = Log::of(&alice).await;
    let mut sent = send(&alice, &home, 2, &WORDS[..5]).await;
    accepted(&mut sent).await;
    let draft = crate::support::client::short_lived(&home, 2, "no room", std::time::Duration::from_secs(1));
    let mut waiting = vec![alice.send(draft).await.unwrap()];
    until("a lane that waits", || held(&told, WaitReason::QuotaPair) > 0).await;
    assert_eq!(outcomes(&mut waiting).await, [Outcome::Expired { maybe_taken: false }]);
    // Its number is given up, and the lane goes on past it.
    let bob = client(2, &home);
    let taker = Taker::of(&bob);
    sent.extend(send(&alice, &home, 2, &["after"]).await);
    assert_eq!(outcomes(&mut sent).await, vec![Outcome::Delivered; 6]);
    assert_eq!(taker.bodies(), ["1", "2", "3", "4", "5", "after"]);
    relay.assert_sound().await;
}
