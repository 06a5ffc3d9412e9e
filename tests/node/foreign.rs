//! Well-formed frames that say what they may not, or what makes no sense: values out of their range, lanes of
//! others, acknowledgements of what was never handed out, pages of any size.

use posthouse::id::{LaneId, StoreId};
use posthouse::protocol::limit::MAX_INTEGER;
use posthouse::protocol::{
    AckR, Answer, CloseCode, CloseR, Envelope, Frame, LaneQuestion, LaneRef, MsgA, MsgR, Order, Outcome, PageA, PageR,
    Refusal, RejectReason, StreamKind, Taken, Verdict, WhereR,
};
use posthouse::ranges::Ranges;

use crate::support::bystander::Bystanders;
use crate::support::raw::{Session, hello, message, peer, reader};
use crate::support::relay::TestRelay;

async fn scene() -> (TestRelay, Bystanders) {
    let relay = TestRelay::in_memory().with(|_, store| store.pair_percent = 100).started();
    let bystanders = Bystanders::of(&relay).await;
    (relay, bystanders)
}

fn lane(sender: Option<u8>) -> LaneRef {
    LaneRef { sender: sender.map(peer), recipient: peer(2), lane: LaneId(7) }
}

fn ask(request: u64, sender: Option<u8>, from: u64, to: u64) -> Frame {
    WhereR { request, lanes: vec![LaneQuestion { lane: lane(sender), from, to }] }.into()
}

/// An envelope with the eight bytes from `offset` on set to this.
fn with_number(message: MsgR, offset: usize, value: u64) -> MsgR {
    let mut bytes = message.envelope.to_vec();
    bytes[offset..offset + 8].copy_from_slice(&value.to_be_bytes());
    MsgR { envelope: bytes.into(), ..message }
}

#[tokio::test]
async fn a_value_outside_its_rule_closes_the_session() {
    let (relay, bystanders) = scene().await;
    let good = || message(0, 1, 2, 7, 5, b"x");
    let (bad, malformed) = (CloseCode::BadValue, CloseCode::Malformed);
    let many = vec![lane(None); 257];
    let questions: Vec<_> = many.iter().map(|lane| LaneQuestion { lane: *lane, from: 1, to: 1 }).collect();
    let cases: Vec<(&str, CloseCode, Vec<Frame>)> = vec![
        ("somebody else's message", bad, vec![message(0, 3, 2, 7, 1, b"x").into()]),
        ("prev is n", bad, vec![MsgR { prev: 5, ..good() }.into()]),
        ("prev is above n", bad, vec![MsgR { prev: MAX_INTEGER, ..good() }.into()]),
        ("a number is repeated", bad, vec![good().into(), good().into()]),
        ("a number goes back", bad, vec![MsgR { request: 9, ..good() }.into(), ask(8, None, 1, 1)]),
        ("2^53 as request", malformed, vec![MsgR { request: MAX_INTEGER + 1, ..good() }.into()]),
        ("2^53 as prev", malformed, vec![MsgR { prev: MAX_INTEGER + 1, ..good() }.into()]),
        ("2^53 as lifetime", malformed, vec![MsgR { ttl_ms: u64::MAX, ..good() }.into()]),
        ("2^53 as n", bad, vec![with_number(good(), 121, MAX_INTEGER + 1).into()]),
        ("0 as n", bad, vec![with_number(good(), 121, 0).into()]),
        ("2^53 as date", bad, vec![with_number(good(), 129, u64::MAX).into()]),
        ("no envelope", bad, vec![MsgR { envelope: vec![1; 144].into(), ..good() }.into()]),
        ("an unknown layout", bad, vec![MsgR { envelope: vec![9; 200].into(), ..good() }.into()]),
        ("a home that is no address", bad, vec![MsgR { home: Some("somewhere".into()), ..good() }.into()]),
        ("a lane of somebody else", bad, vec![ask(0, Some(3), 1, 1)]),
        ("one's own name where none belongs", bad, vec![ask(0, Some(1), 1, 1)]),
        ("a question from 0", bad, vec![ask(0, None, 0, 1)]),
        ("a reversed question", bad, vec![ask(0, None, 2, 1)]),
        ("too many questions", bad, vec![WhereR { request: 0, lanes: questions }.into()]),
        ("too many lanes closed", bad, vec![CloseR { request: 0, lanes: many }.into()]),
        ("closing another's lane", bad, vec![CloseR { request: 0, lanes: vec![lane(Some(3))] }.into()]),
    ];
    for (what, expected, frames) in cases {
        let mut session = Session::open(relay.at(), 1, hello()).await;
        for frame in frames {
            session.submit.say(frame).await;
        }
        let (code, reason) = session.closed().await;
        assert_eq!(code, expected, "{what}: {reason}");
        bystanders.assert_unharmed().await;
    }
    relay.assert_sound().await;
}

#[tokio::test]
async fn numbers_up_to_the_last_one_are_taken() {
    let (relay, bystanders) = scene().await;
    let mut session = Session::open(relay.at(), 1, hello()).await;
    let last = message(MAX_INTEGER - 1, 1, 2, 7, MAX_INTEGER, b"x");
    session.submit.say(MsgR { prev: 0, ..last }).await;
    let Some(Frame::MsgA(MsgA { answer, .. })) = session.submit.hear().await else { panic!("no answer") };
    assert!(matches!(answer, Answer::Accepted { duplicate: false, .. }), "{answer:?}");
    session.submit.say(ask(MAX_INTEGER, None, 1, MAX_INTEGER)).await;
    let Some(Frame::WhereA(row)) = session.submit.hear().await else { panic!("no row") };
    assert_eq!((row.request, row.lanes[0].last, row.lanes[0].upto), (MAX_INTEGER, MAX_INTEGER, MAX_INTEGER));
    // All between were skipped: one run.
    assert_eq!(row.lanes[0].exceptions.len(), 1);
    bystanders.assert_unharmed().await;
    relay.assert_sound().await;
}

#[tokio::test]
async fn what_does_not_belong_here_is_an_outcome_and_no_error() {
    let relay = TestRelay::in_memory().started();
    let mut session = Session::open(relay.at(), 1, hello()).await;
    let elsewhere = MsgR { home: Some(format!("posthouse://{}@127.0.0.1:1", peer(9))), ..message(0, 1, 2, 7, 1, b"x") };
    let foreign = with_relay(message(1, 1, 2, 8, 1, b"x"), 9);
    for (message, expected) in [(elsewhere, RejectReason::BadSignature), (foreign, RejectReason::WrongSender)] {
        session.submit.say(message).await;
        let Some(Frame::MsgA(MsgA { answer, .. })) = session.submit.hear().await else { panic!("no answer") };
        let Answer::Final(Verdict { outcome: Outcome::Rejected { reason, maybe_taken, .. }, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((reason, maybe_taken), (expected, false));
    }
}

/// The message with another home relay named in it.
fn with_relay(message: MsgR, relay: u8) -> MsgR {
    let mut bytes = message.envelope.to_vec();
    bytes[33..65].copy_from_slice(peer(relay).as_bytes());
    assert!(Envelope::parse(bytes.clone().into()).is_ok());
    MsgR { envelope: bytes.into(), ..message }
}

/// Puts so many messages into the mailbox of 2.
async fn fill(relay: &TestRelay, count: u64) {
    let mut alice = Session::open(relay.at(), 1, hello()).await;
    for n in 1..=count {
        alice.submit.say(message(n, 1, 2, 7, n, b"x")).await;
    }
    let mut accepted = 0;
    while accepted < count {
        let Some(Frame::MsgA(answer)) = alice.submit.hear().await else { panic!("no answer") };
        assert!(matches!(answer.answer, Answer::Accepted { .. }));
        accepted += answer.count;
    }
}

fn everything() -> Taken {
    Taken { taken: [(0, MAX_INTEGER)].into_iter().collect(), refused: Vec::new() }
}

#[tokio::test]
async fn what_was_never_handed_out_cannot_be_acknowledged() {
    let (relay, bystanders) = scene().await;
    fill(&relay, 20).await;
    // A session that is pushed nothing: its credit is 0.
    let mut bob = Session::open(relay.at(), 2, hello()).await;
    let store = bob.hello.store;
    let seqs = store_seqs(&relay).await;
    let refused: Vec<_> = seqs.iter().map(|seq| Refusal { seq: *seq, text: Some("never seen".into()) }).collect();
    let scattered: Ranges = (0..10_000).map(|number| (number * 2, number * 2)).collect();
    for (request, (store, answers)) in (0..).zip([
        (store, everything()),
        (store, Taken { taken: Ranges::new(), refused }),
        (store, Taken { taken: scattered, refused: Vec::new() }),
        (StoreId([7; 16]), everything()),
        (store, Taken::default()),
    ]) {
        bob.notify.say(AckR { request, store, answers }).await;
        let Some(Frame::AckA(confirmed)) = bob.notify.hear().await else { panic!("no ACK:A") };
        assert_eq!(confirmed.request, request);
    }
    assert_eq!(relay.waiting_for(2).await, 20);
    // Of what was handed out with a page, all goes, and nothing else.
    let page = page(&bob, PageR { max_messages: 5, ..ask_page(&bob) }).await;
    assert_eq!(page.messages.len(), 5);
    bob.notify.say(AckR { request: 5, store: StoreId([7; 16]), answers: everything() }).await;
    bob.notify.hear().await;
    assert_eq!(relay.waiting_for(2).await, 20, "another store's numbers mean nothing here");
    bob.notify.say(AckR { request: 6, store, answers: everything() }).await;
    bob.notify.hear().await;
    // The confirmation says that it was heard, not that it was done.
    relay.waits_for(2, 15).await;
    bystanders.assert_unharmed().await;
    relay.assert_sound().await;
}

async fn store_seqs(relay: &TestRelay) -> Vec<u64> {
    use posthouse::store::{Query, RelayStore as _};
    let query =
        Query { mailbox: peer(2), order: Order::Oldest, cursor: None, sender: None, max_messages: 99, max_bytes: 9999 };
    relay.store().page(query).await.unwrap().messages.iter().map(|message| message.seq).collect()
}

fn ask_page(session: &Session) -> PageR {
    let (order, store) = (Order::Oldest, session.hello.store);
    let (cursor, sender, answers) = (None, None, Taken::default());
    PageR { request: 0, order, cursor, sender, max_messages: 500, max_bytes: 1 << 20, store, answers }
}

async fn page(session: &Session, ask: PageR) -> PageA {
    let mut sync = session.speaker.open(StreamKind::Sync).await;
    sync.say(ask).await;
    match sync.hear().await {
        Some(Frame::PageA(page)) => page,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pages_of_any_size_and_from_anywhere_are_answered_within_the_limits() {
    let (relay, bystanders) = scene().await;
    fill(&relay, 600).await;
    let bob = Session::open(relay.at(), 2, reader()).await;
    let ask = || ask_page(&bob);
    let size = |page: &PageA| (page.messages.len(), page.remaining, page.complete);
    assert_eq!(size(&page(&bob, PageR { max_messages: 0, ..ask() }).await), (0, 600, false));
    let most = PageR { max_messages: MAX_INTEGER, max_bytes: MAX_INTEGER, ..ask() };
    let first = page(&bob, most.clone()).await;
    assert_eq!(size(&first), (500, 600, false));
    let rest = page(&bob, PageR { cursor: first.cursor, ..most.clone() }).await;
    assert_eq!(size(&rest), (100, 600, true));
    assert_eq!(size(&page(&bob, PageR { max_bytes: 0, ..ask() }).await), (1, 600, false), "one always fits");
    // A cursor that another store gave is void: it begins at the beginning.
    let foreign = PageR { store: StoreId([7; 16]), cursor: Some(MAX_INTEGER), max_messages: 1, ..ask() };
    assert_eq!(page(&bob, foreign).await.messages[0].seq, first.messages[0].seq);
    for (order, cursor) in [(Order::Oldest, MAX_INTEGER), (Order::Newest, 0)] {
        let page = page(&bob, PageR { order, cursor: Some(cursor), ..ask() }).await;
        assert_eq!((size(&page), page.cursor), ((0, 600, true), Some(cursor)), "nothing lies beyond");
    }
    let newest = page(&bob, PageR { order: Order::Newest, max_messages: 1, ..ask() }).await;
    assert_eq!(newest.messages[0].seq, rest.messages[99].seq);
    let stranger = page(&bob, PageR { sender: Some(peer(99)), ..ask() }).await;
    assert_eq!(size(&stranger), (0, 0, true));
    bystanders.assert_unharmed().await;
}

#[tokio::test]
async fn lanes_that_nobody_used_have_no_row_and_closing_them_does_nothing() {
    let (relay, bystanders) = scene().await;
    let mut session = Session::open(relay.at(), 1, hello()).await;
    session.submit.say(ask(0, None, 1, MAX_INTEGER)).await;
    let Some(Frame::WhereA(row)) = session.submit.hear().await else { panic!("no row") };
    assert_eq!((row.lanes[0].last, row.lanes[0].upto), (0, MAX_INTEGER));
    session.submit.say(CloseR { request: 1, lanes: vec![lane(None); 256] }).await;
    assert!(matches!(session.submit.hear().await, Some(Frame::CloseA(closed)) if closed.request == 1));
    session.submit.say(WhereR { request: 2, lanes: Vec::new() }).await;
    assert!(matches!(session.submit.hear().await, Some(Frame::WhereA(row)) if row.lanes.is_empty()));
    bystanders.assert_unharmed().await;
}
