//! A relay's sessions: a peer that has proven its key says frames in any order, on any stream, and hangs up when
//! it likes. The relay is a whole one, over QUIC on loopback; it must not panic, and must serve the next peer.
#![no_main]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use posthouse::id::{LaneId, MessageId, PeerId, RelayId, StoreId};
use posthouse::identity::Identity;
use posthouse::protocol::{
    AckA, AckN, AckR, AgainN, CloseA, CloseCode, CloseR, Envelope, Frame, GoawayN, Header, HelloR, LaneQuestion,
    LaneRef, MsgR, NopN, OpenN, Order, PageR, PushMode, Refusal, Role, StatusR, StreamKind, Taken, WhereA, WhereR,
};
use posthouse::random::SystemEntropy;
use posthouse::ranges::Ranges;
use posthouse::relay::{Relay, RelayLimits, RelayOptions};
use posthouse::store::redb::Backend;
use posthouse::store::redb::relay::{OpenOptions, RedbRelayStore};
use posthouse::time::{SystemClock, UnixMillis};
use posthouse::transport::{ClientEndpoint, Connection, FrameReceiver, FrameSender, Socket, TransportLimits};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(20);

/// Frames that a peer waits for in one turn, and how long.
const HEARD: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Arbitrary, Debug)]
struct Visit {
    relay: bool,
    as_whom: u8,
    greets: Option<Greeting>,
    turns: Vec<Turn>,
}

#[derive(Arbitrary, Debug)]
struct Greeting {
    relay: bool,
    late: bool,
    sender: Option<u8>,
    credit: u16,
    bytes: u32,
    timeout: u16,
}

#[derive(Arbitrary, Debug)]
enum Turn {
    Open(u8),
    Say { stream: u8, what: What },
    Finish(u8),
    Hear,
}

#[derive(Arbitrary, Debug)]
enum What {
    Message {
        request: u16,
        from: u8,
        to: u8,
        lane: u8,
        n: u8,
        prev: u8,
        ttl: u16,
        body: u8,
        home: Option<u8>,
        signed: bool,
    },
    Where {
        request: u16,
        sender: Option<u8>,
        to: u8,
        lane: u8,
        from: u8,
        until: u8,
    },
    Close {
        request: u16,
        sender: Option<u8>,
        to: u8,
        lane: u8,
    },
    Answers {
        request: u16,
        right_store: bool,
        taken: Vec<(u8, u8)>,
        refused: Vec<u8>,
        words: bool,
    },
    Page {
        request: u16,
        newest: bool,
        cursor: Option<u8>,
        sender: Option<u8>,
        messages: u16,
        bytes: u32,
        taken: Vec<(u8, u8)>,
    },
    Status {
        request: u16,
        sender: Option<u8>,
    },
    Hello(Greeting),
    OpenKind(u8),
    Nop,
    FromARelay(u8),
}

struct Home {
    runtime: Runtime,
    _relay: Relay,
    at: SocketAddr,
    peers: Vec<ClientEndpoint>,
    visits: AtomicU64,
}

fn who(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

/// An identity makes its certificate, which takes longer than all else here.
static IDS: LazyLock<[PeerId; 4]> = LazyLock::new(|| [0, 1, 2, 3].map(|number| who(number).peer_id()));

fn peer(number: u8) -> PeerId {
    IDS[1 + usize::from(number % 3)]
}

fn relay_id() -> RelayId {
    IDS[0].into()
}

/// One relay for all visits: what earlier ones left behind is part of the next.
fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(|| {
        // A panic in a task of the relay would otherwise be nobody's.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            std::process::abort();
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let mut options = OpenOptions::new(Backend::Memory, clock.clone(), entropy);
        options.limits.mailbox_messages = 500;
        options.limits.lanes_per_pair = 50;
        let store = Arc::new(RedbRelayStore::open(options).expect("a store in memory"));
        let _context = runtime.enter();
        let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let limits = RelayLimits { connections_per_address: u32::MAX / 32, ..RelayLimits::default() };
        let socket = Socket::Bind(anywhere);
        let options = RelayOptions { socket, clock, limits, ..RelayOptions::new(who(0), store) };
        let relay = Relay::start(options).expect("a relay");
        let at = relay.local_addr();
        let endpoint = |number: u8| {
            let (limits, entropy) = (TransportLimits::default(), SystemEntropy::shared());
            ClientEndpoint::bind(Socket::Bind(anywhere), &who(1 + number), &limits, &*entropy, None).expect("a socket")
        };
        let peers = (0..3).map(endpoint).collect();
        drop(_context);
        Home { runtime, _relay: relay, at, peers, visits: AtomicU64::new(0) }
    })
}

fn hello(greeting: &Greeting) -> HelloR {
    HelloR {
        invitation: None,
        version: 1,
        role: if greeting.relay { Role::Relay } else { Role::Peer },
        device: 0,
        push: if greeting.late { PushMode::AfterBacklog } else { PushMode::AtOnce },
        sender: greeting.sender.map(peer),
        credit_messages: greeting.credit.into(),
        credit_bytes: greeting.bytes.into(),
        ack_timeout_ms: greeting.timeout.into(),
        agent: None,
    }
}

/// What the relay has said that makes a difference.
#[derive(Default)]
struct Heard {
    store: Option<StoreId>,
    first_seq: u64,
}

fn ranges(pairs: &[(u8, u8)], base: u64) -> Ranges {
    pairs.iter().map(|(from, more)| (base + u64::from(*from), base + u64::from(*from) + u64::from(*more))).collect()
}

fn frame(what: &What, heard: &Heard) -> Frame {
    let lane_ref = |sender: Option<u8>, to: u8, lane: u8| LaneRef {
        sender: sender.map(peer),
        recipient: peer(to),
        lane: LaneId((lane % 8).into()),
    };
    let store = heard.store.unwrap_or(StoreId([0; 16]));
    match what {
        What::Message { request, from, to, lane, n, prev, ttl, body, home, signed } => {
            let header = Header {
                sender: peer(*from),
                relay: relay_id(),
                recipient: peer(*to),
                id: MessageId::new(1, &[*n; 10]),
                lane: LaneId((lane % 8).into()),
                n: u64::from(*n).max(1),
                created: UnixMillis(1),
                ttl: Duration::from_secs(60),
            };
            let home = home.map(|home| match home % 3 {
                0 => "nowhere".to_owned(),
                1 => format!("posthouse://{}@127.0.0.1:4433", relay_id()),
                _ => format!("posthouse://{}@127.0.0.1:9", RelayId::from(peer(2))),
            });
            MsgR {
                request: (*request).into(),
                prev: (*prev).into(),
                ttl_ms: (*ttl).into(),
                envelope: Envelope::new(header, &vec![7; usize::from(*body) * 16]).bytes().clone(),
                signature: signed.then_some([7; 64]),
                home,
            }
            .into()
        }
        What::Where { request, sender, to, lane, from, until } => {
            let lane = lane_ref(*sender, *to, *lane);
            let lanes = vec![LaneQuestion { lane, from: (*from).into(), to: (*until).into() }];
            WhereR { request: (*request).into(), lanes }.into()
        }
        What::Close { request, sender, to, lane } => {
            CloseR { request: (*request).into(), lanes: vec![lane_ref(*sender, *to, *lane)] }.into()
        }
        What::Answers { request, right_store, taken, refused, words } => {
            let text = words.then(|| "no".to_owned());
            let refusal = |seq: &u8| Refusal { seq: heard.first_seq + u64::from(*seq), text: text.clone() };
            let taken = ranges(taken, heard.first_seq);
            let answers = Taken { taken, refused: refused.iter().map(refusal).collect() };
            let store = if *right_store { store } else { StoreId([9; 16]) };
            AckR { request: (*request).into(), store, answers }.into()
        }
        What::Page { request, newest, cursor, sender, messages, bytes, taken } => PageR {
            request: (*request).into(),
            order: if *newest { Order::Newest } else { Order::Oldest },
            cursor: cursor.map(|cursor| heard.first_seq + u64::from(cursor)),
            sender: sender.map(peer),
            max_messages: (*messages).into(),
            max_bytes: (*bytes).into(),
            store,
            answers: Taken { taken: ranges(taken, heard.first_seq), refused: vec![] },
        }
        .into(),
        What::Status { request, sender } => StatusR { request: (*request).into(), sender: sender.map(peer) }.into(),
        What::Hello(greeting) => hello(greeting).into(),
        What::OpenKind(kind) => OpenN { kind: stream_kind(*kind) }.into(),
        What::Nop => NopN {}.into(),
        What::FromARelay(which) => match which % 6 {
            0 => AckA { request: 0 }.into(),
            1 => CloseA { request: 0 }.into(),
            2 => WhereA { request: 0, lanes: vec![] }.into(),
            3 => GoawayN { delay_ms: 1 }.into(),
            4 => AgainN {}.into(),
            _ => {
                AckN { sender: None, recipient: peer(0), lane: LaneId(0), delivered: Ranges::new(), exceptions: vec![] }
                    .into()
            }
        },
    }
}

const fn stream_kind(number: u8) -> StreamKind {
    match number % 3 {
        0 => StreamKind::Submit,
        1 => StreamKind::Notify,
        _ => StreamKind::Sync,
    }
}

struct Streams {
    senders: Vec<FrameSender>,
    receivers: Vec<FrameReceiver>,
}

impl Streams {
    /// Hears what comes within a moment.
    async fn hear(&mut self, heard: &mut Heard) {
        tokio::time::sleep(PAUSE).await;
        for receiver in &mut self.receivers {
            for _ in 0..HEARD {
                let Ok(Ok(Some(frame))) = tokio::time::timeout(Duration::ZERO, receiver.next()).await else { break };
                match frame {
                    Frame::MsgN(message) => heard.first_seq = message.seq.saturating_sub(2),
                    Frame::PageA(page) => {
                        let first = page.messages.first().map(|message| message.seq.saturating_sub(2));
                        heard.first_seq = first.unwrap_or(heard.first_seq);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Says R:HELLO until the relay believes that somebody is there, and hears the store's id.
async fn greet(sender: &FrameSender, receiver: &mut FrameReceiver, hello: HelloR) -> Option<StoreId> {
    loop {
        sender.send(&hello.clone().into()).await.ok()?;
        match receiver.next().await {
            Ok(Some(Frame::HelloA(welcome))) => return Some(welcome.store),
            Ok(Some(Frame::AgainN(_))) => {}
            _ => return None,
        }
    }
}

async fn visit(connection: &Connection, visit: &Visit) {
    let mut heard = Heard::default();
    let mut streams = Streams { senders: vec![], receivers: vec![] };
    if let Some(greeting) = &visit.greets {
        let Ok((sender, mut receiver)) = connection.open(StreamKind::Submit, 1 << 20).await else { return };
        let mut hello = hello(greeting);
        hello.role = if visit.relay { Role::Relay } else { Role::Peer };
        let welcome = tokio::time::timeout(PAUSE * 10, greet(&sender, &mut receiver, hello)).await;
        heard.store = welcome.ok().flatten();
        (streams.senders, streams.receivers) = (vec![sender], vec![receiver]);
        if let Ok(Ok((_, sender, receiver))) = tokio::time::timeout(PAUSE * 10, connection.accept()).await {
            streams.senders.push(sender);
            streams.receivers.push(receiver);
        }
        streams.hear(&mut heard).await;
    }
    for turn in visit.turns.iter().take(40) {
        match turn {
            Turn::Open(kind) => {
                let opening = tokio::time::timeout(PAUSE, connection.open(stream_kind(*kind), 1 << 20));
                if let Ok(Ok((sender, receiver))) = opening.await {
                    streams.senders.push(sender);
                    streams.receivers.push(receiver);
                }
            }
            Turn::Say { stream, what } => {
                if let Some(sender) = streams.senders.get(usize::from(*stream) % streams.senders.len().max(1)) {
                    drop(sender.try_send(&frame(what, &heard)));
                    sender.write();
                }
            }
            Turn::Finish(stream) => {
                if let Some(sender) = streams.senders.get(usize::from(*stream) % streams.senders.len().max(1)) {
                    sender.finish();
                }
            }
            Turn::Hear => streams.hear(&mut heard).await,
        }
    }
    streams.hear(&mut heard).await;
}

/// Whether somebody with manners is still served.
async fn assert_served(home: &Home) {
    let connection = home.peers[0].connect(home.at, relay_id(), PATIENCE).await.expect("the relay takes connections");
    let (sender, mut receiver) = connection.open(StreamKind::Submit, 1 << 20).await.expect("a stream");
    let greeting = Greeting { relay: false, late: false, sender: None, credit: 0, bytes: 1, timeout: 100 };
    let welcome = tokio::time::timeout(PATIENCE, greet(&sender, &mut receiver, hello(&greeting)));
    assert!(welcome.await.expect("the relay answers in time").is_some());
    connection.close(CloseCode::Done, "");
}

fuzz_target!(|input: Visit| {
    let home = home();
    home.runtime.block_on(async {
        let endpoint = &home.peers[usize::from(input.as_whom) % home.peers.len()];
        let connection = endpoint.connect(home.at, relay_id(), PATIENCE).await.expect("the relay takes connections");
        visit(&connection, &input).await;
        connection.close(CloseCode::Done, "");
        if home.visits.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
            assert_served(home).await;
        }
    });
});
