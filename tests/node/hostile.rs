//! Floods, silence, and acknowledgements of anything: what is attacked stays bounded, others are served meanwhile, and
//! nothing leaves a mailbox that its owner did not take.
//!
//! Attackers that are counted by address have one of their own, 127.0.0.2.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use posthouse::id::StoreId;
use posthouse::protocol::limit::{MAX_FRAME_BYTES, MAX_INTEGER};
use posthouse::protocol::{AckR, Frame, FrameType, MsgA, Order, PageA, PageR, Refusal, StreamKind, Taken};
use posthouse::random::SystemEntropy;
use posthouse::transport::{ClientEndpoint, Socket, TransportLimits};
use tokio::task::JoinSet;

use crate::support::bystander::Bystanders;
use crate::support::raw::{Session, Speaker, hello, message, peer, reader};
use crate::support::relay::TestRelay;
use crate::support::{PATIENCE, until, who, within};

const ATTACKER: &str = "127.0.0.2:0";
const WINDOW: u32 = 1 << 20;

/// Places for connections without R:HELLO, of which one address has a quarter.
const PLACES: usize = 40;
const OF_ONE_ADDRESS: usize = 10;

/// A relay with few places, where a connection without R:HELLO may stay for the whole test.
async fn scene() -> (TestRelay, Bystanders) {
    let mut relay = TestRelay::in_memory().with(|limits, _| {
        limits.connections_per_address = 16;
        limits.transport.max_without_hello = PLACES;
        limits.transport.hello_timeout = 2 * PATIENCE;
        limits.transport.handshake_timeout = 2 * PATIENCE;
    });
    relay.start();
    let bystanders = Bystanders::of(&relay).await;
    (relay, bystanders)
}

/// The first packets of so many connections.
async fn first_packets(relay: &TestRelay, count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (at, whole) = (sink.local_addr().unwrap(), TransportLimits::default());
    let here = Socket::Bind("127.0.0.1:0".parse().unwrap());
    let client = ClientEndpoint::bind(here, &who(9), &whole, &SystemEntropy, None).unwrap();
    let (mut connecting, mut packets) = (FuturesUnordered::new(), BTreeMap::new());
    while packets.len() < count {
        connecting.push(client.connect(at, relay.identity().relay_id(), PATIENCE));
        let mut packet = vec![0; 2048];
        let received = tokio::select! {
            biased;
            _ = connecting.next() => unreachable!("nobody answers"),
            received = sink.recv(&mut packet) => received.unwrap(),
        };
        // By the id that it is sent to: one that nobody answers comes again.
        packets.insert(packet[6..22].to_vec(), packet[..received].to_vec());
    }
    packets.into_values().collect()
}

fn send_from_attacker(packets: &[Vec<u8>], to: SocketAddr) {
    for packet in packets {
        UdpSocket::bind(ATTACKER).unwrap().send_to(packet, to).unwrap();
    }
}

#[tokio::test]
async fn first_packets_in_somebodys_name_begin_few_handshakes_and_do_not_lock_that_one_out() {
    let (relay, bystanders) = scene().await;
    let packets = first_packets(&relay, 600).await;
    for some in packets.chunks(50) {
        let (retries, refused) = relay.turned_away();
        send_from_attacker(some, relay.at());
        // All that are not told to come again have begun a handshake; none is refused that can be told.
        until("the packets", || relay.turned_away().0 + OF_ONE_ADDRESS as u64 >= retries + some.len() as u64).await;
        assert_eq!(relay.turned_away().1, refused);
    }
    assert!(relay.turned_away().0 >= 600 - OF_ONE_ADDRESS as u64, "{:?}", relay.turned_away());
    bystanders.assert_unharmed().await;
    let owner = Speaker::try_connect_from(ATTACKER, relay.at(), Some(1), WINDOW).await.unwrap();
    owner.greet(hello()).await;
    Session::open(relay.at(), 2, hello()).await;
}

#[tokio::test]
async fn a_flood_of_first_packets_is_left_unread_and_those_who_are_there_go_on() {
    let mut relay = TestRelay::in_memory().with(|limits, _| limits.transport.first_packets_per_address = 20);
    relay.start();
    let bystanders = Bystanders::of(&relay).await;
    let packets = first_packets(&relay, 200).await;
    let mut sent = 0;
    // A second may begin anew meanwhile.
    until("packets that are left unread", || {
        send_from_attacker(&packets, relay.at());
        sent += packets.len() as u64;
        relay.unread() > 0
    })
    .await;
    assert!(relay.unread() <= sent);
    bystanders.assert_unharmed().await;
    Session::open(relay.at(), 2, hello()).await;
}

#[tokio::test]
async fn silent_connections_from_one_address_leave_places_for_the_others() {
    let (relay, bystanders) = scene().await;
    let (mut silent, mut refused) = (Vec::new(), 0);
    for _ in 0..2 * PLACES {
        match Speaker::try_connect_from(ATTACKER, relay.at(), Some(1), WINDOW).await {
            Ok(speaker) => silent.push(speaker),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((silent.len(), refused), (OF_ONE_ADDRESS, 2 * PLACES - OF_ONE_ADDRESS));
    assert_eq!(relay.turned_away().1, refused as u64);
    bystanders.assert_unharmed().await;
    Session::open(relay.at(), 2, hello()).await;
    // Who says R:HELLO at last gives its place back.
    silent.pop().unwrap().greet(hello()).await;
    Speaker::try_connect_from(ATTACKER, relay.at(), Some(3), WINDOW).await.unwrap();
}

/// Puts so many messages of 1 into this mailbox.
async fn fill(relay: &TestRelay, to: u8, count: u64) {
    let mut sender = Session::open(relay.at(), 1, hello()).await;
    for n in 1..=count {
        sender.submit.say(message(n, 1, to, to.into(), n, b"x")).await;
    }
    let mut accepted = 0;
    while accepted < count {
        let Some(Frame::MsgA(MsgA { count, .. })) = sender.submit.hear().await else { panic!("no answer") };
        accepted += count;
    }
}

async fn page(session: &Session, max_messages: u64) -> PageA {
    let mut sync = session.speaker.open(StreamKind::Sync).await;
    sync.say(ask(session, max_messages)).await;
    match sync.hear().await {
        Some(Frame::PageA(page)) => page,
        other => panic!("no page: {other:?}"),
    }
}

fn ask(session: &Session, max_messages: u64) -> PageR {
    let (order, store) = (Order::Oldest, session.hello.store);
    let (cursor, sender, answers) = (None, None, Taken::default());
    PageR { request: 0, order, cursor, sender, max_messages, max_bytes: 1 << 20, store, answers }
}

fn seqs(page: &PageA) -> Vec<u64> {
    page.messages.iter().map(|message| message.seq).collect()
}

/// Says this, and waits until it is confirmed.
async fn acknowledge(session: &mut Session, request: u64, store: StoreId, taken: &[(u64, u64)], refused: &[u64]) {
    let refused = refused.iter().map(|seq| Refusal { seq: *seq, text: None }).collect();
    let answers = Taken { taken: taken.iter().copied().collect(), refused };
    session.notify.say(AckR { request, store, answers }).await;
    let Some(Frame::AckA(confirmed)) = session.notify.hear().await else { panic!("no ACK:A") };
    assert_eq!(confirmed.request, request);
}

#[tokio::test]
async fn acknowledgements_repeated_reordered_and_of_any_numbers_take_what_was_handed_out_and_nothing_else() {
    let relay = TestRelay::in_memory().with(|_, store| store.pair_percent = 100).started();
    let bystanders = Bystanders::of(&relay).await;
    fill(&relay, 2, 20).await;
    fill(&relay, 3, 10).await;
    let others = seqs(&page(&Session::open(relay.at(), 3, hello()).await, 99).await);
    let mut bob = Session::open(relay.at(), 2, hello()).await;
    let store = bob.hello.store;
    let own = seqs(&page(&bob, 10).await);
    let shared = others.iter().filter(|seq| own.contains(seq)).count();
    assert!(shared > 0, "mailboxes count for themselves, so a mistaken one would lose messages here");
    let wild = [
        // In the middle, once more, overlapping, backwards, and with holes that are nobody's.
        (store, vec![(own[4], own[5])]),
        (store, vec![(own[4], own[5])]),
        (store, vec![(own[5], own[6])]),
        (store, vec![(own[1], own[1]), (own[4], own[6])]),
        (store, vec![(0, own[0] - 1), (MAX_INTEGER - 1, MAX_INTEGER)]),
        // All there can be, by another store's numbers.
        (StoreId([7; 16]), vec![(0, MAX_INTEGER)]),
    ];
    for (request, (store, taken)) in (1..).zip(&wild) {
        acknowledge(&mut bob, request, *store, taken, &[]).await;
    }
    // The other way round, as well in another session.
    for (request, (store, taken)) in (10..).zip(wild.iter().rev()) {
        acknowledge(&mut bob, request, *store, taken, &[]).await;
    }
    drop(bob);
    let mut bob = Session::open(relay.at(), 2, hello()).await;
    for (request, (store, taken)) in (0..).zip(wild.iter().rev()) {
        acknowledge(&mut bob, request, *store, taken, &[]).await;
    }
    relay.waits_for(2, 16).await;
    // Beyond what was handed out nothing goes, and what was taken is not refused afterwards.
    acknowledge(&mut bob, 20, store, &[(own[8], MAX_INTEGER)], &[own[4], own[9] + 1, MAX_INTEGER]).await;
    relay.waits_for(2, 14).await;
    let left = seqs(&page(&bob, 99).await);
    let taken = [1, 4, 5, 6, 8, 9];
    let kept: Vec<u64> = (0..10).filter(|at| !taken.contains(at)).map(|at| own[at]).collect();
    assert_eq!(left[..4], kept[..]);
    assert_eq!(left.len(), 14);
    assert_eq!(relay.waiting_for(3).await, 10, "nothing of another peer is touched");
    bystanders.assert_unharmed().await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn others_are_served_while_a_relay_is_attacked_in_all_these_ways_at_once() {
    let (relay, bystanders) = scene().await;
    let (at, mut attackers) = (relay.at(), JoinSet::new());
    fill(&relay, 4, 200).await;
    let packets = first_packets(&relay, 100).await;
    attackers.spawn(async move {
        loop {
            send_from_attacker(&packets, at);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for _ in 0..PLACES {
        attackers.spawn(async move {
            loop {
                let silent = Speaker::try_connect_from(ATTACKER, at, Some(1), WINDOW).await;
                match silent {
                    Ok(silent) => drop(silent.connection.closed().await),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }
    let opener = Session::open(at, 3, hello()).await;
    let length = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    for _ in 0..15 {
        let mut sync = opener.speaker.open(StreamKind::Sync).await;
        attackers.spawn(async move {
            let number = FrameType::PageR.number().to_be_bytes();
            sync.say_bytes(&[&length[..], &number, &vec![0; MAX_FRAME_BYTES - 1]].concat()).await;
            std::future::pending().await
        });
    }
    let asker = Session::open(at, 4, reader()).await;
    for _ in 0..15 {
        let mut sync = asker.speaker.open(StreamKind::Sync).await;
        let ask = ask(&asker, 500);
        attackers.spawn(async move {
            // Until flow control holds it back: nothing of it is ever read.
            loop {
                sync.say(ask.clone()).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let mut wild = Session::open(at, 5, hello()).await;
    let store = wild.hello.store;
    attackers.spawn(async move {
        for request in 0.. {
            let low = request * 7919 % 1000;
            let taken = [(low, low * 3 + 1), (1 << 40, MAX_INTEGER)];
            acknowledge(&mut wild, request, store, &taken, &[low]).await;
        }
    });
    until("the attacks", || {
        let (retries, refused) = relay.turned_away();
        retries > 0 && refused > 0
    })
    .await;
    for _ in 0..20 {
        bystanders.assert_unharmed().await;
    }
    // A newcomer is let in as well.
    within("a session", Session::open(at, 6, hello())).await;
    assert!(relay.sessions() <= 6, "{}", relay.sessions());
    assert_eq!(relay.waiting_for(4).await, 200, "{} has taken nothing", peer(4));
    drop(attackers);
}
