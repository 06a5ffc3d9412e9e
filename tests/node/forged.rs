//! Messages that their senders did not write: refused, told to the application as such, and nothing more.

use posthouse::client::{Client, Event, Reading};
use posthouse::id::{LaneId, MessageId, PeerId};
use posthouse::protocol::{AckA, AckR, Envelope, Frame, Header, HelloR, MsgN, Role, StreamKind, Taken};
use posthouse::time::UnixMillis;
use posthouse::transport::{Connection, FrameReceiver, FrameSender, RelayEndpoint};

use crate::support::client::{Log, Taker, builder, client};
use crate::support::pretender::{pretender, welcome};
use crate::support::raw::{Session, forwarded, hello, peer};
use crate::support::relay::{RELAY, TestRelay};
use crate::support::{until, who, within};

/// Another relay than the client's.
const THERE: u8 = 250;

/// A client's home that says what it likes.
struct Liar {
    notify: FrameSender,
    answers: FrameReceiver,
    answered: Taken,
    _held: (RelayEndpoint, Connection, FrameSender, FrameReceiver),
}

impl Liar {
    /// Somebody's home relay, once its client has a session.
    async fn home_of(number: u8) -> (Self, Client) {
        let (home, endpoint) = pretender(RELAY);
        let client = builder(number, &home).reading(Reading::RecentFirst).start().unwrap();
        let attempt = within("an attempt", endpoint.accept()).await.unwrap();
        let connection = within("a handshake", attempt.handshake()).await.unwrap();
        let (_, submit, mut asked) = within("a stream", connection.accept()).await.unwrap();
        assert!(matches!(within("R:HELLO", asked.next()).await, Ok(Some(Frame::HelloR(_)))));
        submit.send(&welcome().into()).await.unwrap();
        let (notify, answers) = connection.open(StreamKind::Notify, 1 << 20).await.unwrap();
        let liar = Self { notify, answers, answered: Taken::default(), _held: (endpoint, connection, submit, asked) };
        (liar, client)
    }

    /// Pushes message `n` of member 1 of the cast, of that relay, signed in this way.
    async fn push(&self, seq: u64, n: u64, relay: u8, signature: Option<[u8; 64]>) {
        let header = Header {
            sender: peer(1),
            relay: who(relay).relay_id(),
            recipient: peer(2),
            id: MessageId::new(seq, &[1; 10]),
            lane: LaneId(1),
            n,
            created: UnixMillis(1_700_000_000_000),
            ttl: std::time::Duration::from_secs(3600),
        };
        let envelope = Envelope::new(header, b"x").bytes().clone();
        let message = MsgN { seq, ttl_ms: 60_000, attempt: 1, envelope, signature };
        within("room", self.notify.send(&message.into())).await.unwrap();
    }

    /// Waits until so many messages are answered, and confirms that.
    async fn answered(&mut self, messages: u64) -> &Taken {
        let count = |answered: &Taken| answered.taken.count() + answered.refused.len() as u64;
        while count(&self.answered) < messages {
            let Ok(Some(Frame::AckR(AckR { request, answers, .. }))) = within("ACK:R", self.answers.next()).await
            else {
                panic!("no ACK:R")
            };
            self.answered.taken.extend(&answers.taken);
            self.answered.refused.extend(answers.refused);
            self.notify.send(&AckA { request }.into()).await.unwrap();
        }
        &self.answered
    }
}

/// Of which sender and relay forgeries were told, and how many.
fn told(log: &Log) -> Vec<(PeerId, u8, u64)> {
    let name = |relay| [RELAY, THERE].into_iter().find(|number| who(*number).relay_id() == relay).unwrap();
    let forged = log.all().into_iter().filter_map(|event| match event {
        Event::Forged { sender, relay, count, .. } => Some((sender, name(relay), count)),
        _ => None,
    });
    forged.collect()
}

#[tokio::test]
async fn a_forgery_that_another_relay_brings_is_told_to_the_application_and_never_shown() {
    let here = TestRelay::in_memory().started();
    let bob = client(2, &here.home());
    within("a session", bob.status(None)).await.unwrap();
    let (log, taker) = (Log::of(&bob).await, Taker::of(&bob));
    let mut relay = Session::open(here.at(), THERE, HelloR { role: Role::Relay, ..hello() }).await;
    let mut broken = forwarded(0, &who(1), THERE, 1, 1);
    broken.signature.as_mut().unwrap()[0] ^= 1;
    relay.submit.say(broken).await;
    until("the event", || !told(&log).is_empty()).await;
    relay.submit.say(forwarded(1, &who(1), THERE, 2, 1)).await;
    taker.count(1).await;
    assert_eq!((told(&log), taker.len()), (vec![(peer(1), THERE, 1)], 1));
}

#[tokio::test]
async fn a_home_relay_speaks_for_no_peer_of_another() {
    let (mut liar, bob) = Liar::home_of(2).await;
    let (log, taker) = (Log::of(&bob).await, Taker::of(&bob));
    liar.push(1, 1, THERE, None).await;
    assert_eq!(liar.answered(1).await.refused[0].text.as_deref(), Some("bad_signature"));
    until("the event", || told(&log) == [(peer(1), THERE, 1)]).await;
    assert_eq!(taker.len(), 0);
}

#[tokio::test]
async fn a_flood_of_forgeries_neither_holds_up_messages_nor_fills_the_events() {
    let (mut liar, bob) = Liar::home_of(2).await;
    let (log, taker) = (Log::of(&bob).await, Taker::of(&bob));
    for seq in 1..=5000 {
        liar.push(seq, seq, THERE, None).await;
    }
    liar.push(5001, 5001, RELAY, None).await;
    let answered = liar.answered(5001).await;
    assert_eq!((answered.refused.len(), answered.taken.count()), (5000, 1));
    taker.count(1).await;
    assert!(told(&log).len() <= 2, "{:?}", told(&log));
}

#[tokio::test]
async fn a_forgery_at_the_place_of_a_message_in_hand_changes_nothing_about_that() {
    let (mut liar, bob) = Liar::home_of(2).await;
    let log = Log::of(&bob).await;
    liar.push(1, 1, RELAY, None).await;
    let message = within("a message", bob.recv()).await.unwrap();
    liar.push(2, 1, RELAY, Some([7; 64])).await;
    assert_eq!(liar.answered(1).await.refused[0].seq, 2);
    within("the disk", message.taken()).await.unwrap();
    assert!(liar.answered(2).await.taken.contains(1));
    assert_eq!(told(&log), [(peer(1), RELAY, 1)]);
}
