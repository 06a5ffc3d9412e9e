//! What a session costs whose client takes all it may ask for and reads nothing, or begins frames and ends none.
//!
//! The relay runs in a process of its own, this test binary started again, so that what grows is the relay alone.
//! A client that does not read is bounded by what may lie on its way: the messages the watch and the session hold
//! for it, QUIC's send window, the streams' buffers, and two pages.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use posthouse::id::{LaneId, MessageId, StoreId};
use posthouse::protocol::limit::MAX_FRAME_BYTES;
use posthouse::protocol::{Envelope, FrameType, Header, Order, PageR, StreamKind, Taken};
use posthouse::store::{Append, Fence, Op, RelayStore as _};
use posthouse::time::UnixMillis;
use tokio::task::JoinSet;

use crate::support::raw::{Session, Speaker, peer, reader};
use crate::support::relay::{RELAY, TestRelay};
use crate::support::{until, who};

/// Sessions that do not read, and the mail that waits for each.
const SESSIONS: u8 = 50;
const MAIL_MESSAGES: u64 = 128;
const MAIL_BYTES: usize = 64 << 10;

/// What such a session may cost: 4 MiB that the watch keeps for it, 4 MiB taken from there to be pushed, and what
/// is on its way, 2 MiB of QUIC's send window, a buffer and a frame, once as messages to be repeated and once as
/// bytes.
const PUSH_BUDGET: usize = 12 << 20;

/// What one may cost that asks for pages on all its streams: two pages at a time, each as messages and as bytes,
/// and QUIC's send window.
const PAGE_BUDGET: usize = 6 << 20;

/// What one may cost that begins a frame of the largest size on each stream: one of them and the beginnings of the
/// others, in buffers that have grown by doubling, and QUIC's window.
const FRAME_BUDGET: usize = 10 << 20;

/// Says in the child that it is one.
const ROLE: &str = "POSTHOUSE_TEST_RELAY";

/// The sender of all the mail.
const SENDER: u8 = 200;

/// A relay in a process of its own.
struct Process {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    at: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::relay_process", "--ignored", "--nocapture", "--test-threads", "1"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, commands, answers, at: "127.0.0.1:1".parse().unwrap() };
        process.at = process.answer().parse().unwrap();
        process
    }

    /// The next line that is meant for us.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the relay's process ended");
            // The test harness may have begun a line.
            if let Some((_, answer)) = line.split_once('@') {
                return answer.trim().to_owned();
            }
        }
    }

    /// Puts mail into the mailbox of every session.
    fn mail(&mut self) {
        writeln!(self.commands, "mail").unwrap();
        assert_eq!(self.answer(), "mailed");
    }

    /// Bytes in memory, once they do not change any more.
    async fn settled_bytes(&self) -> usize {
        let (mut last, mut still) = (0, 0);
        until("memory that stays the same", || {
            let now = self.bytes();
            still = if now.abs_diff(last) < 1 << 20 { still + 1 } else { 0 };
            last = now;
            still > 100
        })
        .await;
        last
    }

    fn bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The child: a relay that puts mail into its mailboxes when it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the relay of the other tests, in a process of its own"]
async fn relay_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    // All sessions come from one address.
    let mut relay = TestRelay::on_disk().with(|limits, _| limits.connections_per_address = 10_000);
    relay.cache_bytes = 4 << 20;
    let relay = relay.started();
    println!("@{}", relay.at());
    let mut mailed = 0;
    for command in std::io::stdin().lines() {
        assert_eq!(command.unwrap(), "mail");
        for number in 1..=SESSIONS {
            mail(&relay, number, mailed).await;
        }
        mailed += MAIL_MESSAGES;
        println!("@mailed");
    }
}

async fn mail(relay: &TestRelay, to: u8, after: u64) {
    let body = vec![7; MAIL_BYTES];
    let append = |n| {
        let header = Header {
            sender: peer(SENDER),
            relay: who(RELAY).relay_id(),
            recipient: peer(to),
            id: MessageId::new(n, &[to; 10]),
            lane: LaneId(to.into()),
            n,
            created: UnixMillis(1_700_000_000_000),
            ttl: Duration::from_secs(3600),
        };
        let (envelope, ttl) = (Envelope::new(header, &body), header.ttl);
        Op::Append(Append { envelope, signature: None, prev: n - 1, ttl, refuse: None, forward: None })
    };
    let fence = Fence { peer: peer(SENDER), device: 0, epoch: u64::MAX };
    // Little by little, so that the session is told of each and does not read it all from the disk.
    for first in (after + 1..=after + MAIL_MESSAGES).step_by(16) {
        let batch = (first..first + 16).map(append).collect();
        relay.store().submit(fence, batch).await.unwrap();
    }
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Opens all the sessions, and says what one costs that does nothing.
async fn open_all(relay: &Process) -> Vec<Session> {
    let before = relay.settled_bytes().await;
    let mut sessions = Vec::new();
    for number in 1..=SESSIONS {
        let speaker = Speaker::connect(relay.at, Some(number), 1 << 20).await;
        sessions.push(speaker.greet(reader()).await);
    }
    let cost = relay.settled_bytes().await.saturating_sub(before) / usize::from(SESSIONS);
    println!("a session that does nothing costs {:.0} KiB", cost as f64 / 1024.0);
    sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_never_reads_what_is_pushed_costs_no_more_than_its_budget() {
    let mut relay = Process::start();
    let sessions = open_all(&relay).await;
    let before = relay.settled_bytes().await;
    relay.mail();
    let cost = relay.settled_bytes().await.saturating_sub(before) / usize::from(SESSIONS);
    println!("a session that does not read what is pushed costs {:.1} MiB", mebibytes(cost));
    assert!(cost < PUSH_BUDGET, "{cost} bytes for each session");
    assert!(sessions.iter().all(|session| session.speaker.connection.close_reason().is_none()), "all are open still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_asks_for_pages_and_never_reads_them_costs_no_more_than_its_budget() {
    let mut relay = Process::start();
    relay.mail();
    let sessions = open_all(&relay).await;
    let before = relay.settled_bytes().await;
    let mut streams = Vec::new();
    for session in &sessions {
        for _ in 0..15 {
            let mut sync = session.speaker.open(StreamKind::Sync).await;
            for request in 0..8 {
                let (order, store) = (Order::Oldest, StoreId([0; 16]));
                let (cursor, sender, answers) = (None, None, Taken::default());
                let ask =
                    PageR { request, order, cursor, sender, max_messages: 500, max_bytes: 1 << 20, store, answers };
                sync.say(ask).await;
            }
            streams.push(sync);
        }
    }
    let cost = relay.settled_bytes().await.saturating_sub(before) / usize::from(SESSIONS);
    println!("a session that does not read fifteen streams of pages costs {:.1} MiB", mebibytes(cost));
    assert!(cost < PAGE_BUDGET, "{cost} bytes for each session");
    assert!(sessions.iter().all(|session| session.speaker.connection.close_reason().is_none()), "all are open still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_begins_a_large_frame_on_every_stream_costs_no_more_than_its_budget() {
    let relay = Process::start();
    let sessions = open_all(&relay).await;
    let before = relay.settled_bytes().await;
    let length = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    let (mut speakers, mut writing) = (Vec::new(), JoinSet::new());
    for Session { speaker, submit, notify, .. } in sessions {
        let mut streams = vec![(submit, FrameType::MsgR), (notify, FrameType::AckR)];
        for _ in 0..15 {
            streams.push((speaker.open(StreamKind::Sync).await, FrameType::PageR));
        }
        for (mut stream, of_type) in streams {
            let begun = [&length[..], &of_type.number().to_be_bytes(), &vec![0; MAX_FRAME_BYTES - 1]].concat();
            // Most of these wait for ever, and the others are to stay open.
            writing.spawn(async move {
                stream.say_bytes(&begun).await;
                std::future::pending::<()>().await;
            });
        }
        speakers.push(speaker);
    }
    let cost = relay.settled_bytes().await.saturating_sub(before) / usize::from(SESSIONS);
    println!("a session that ends none of seventeen frames costs {:.1} MiB", mebibytes(cost));
    assert!(cost < FRAME_BUDGET, "{cost} bytes for each session");
    assert!(speakers.iter().all(|speaker| speaker.connection.close_reason().is_none()), "all are open still");
}
