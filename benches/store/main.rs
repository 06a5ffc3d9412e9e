//! What the relay's store costs by itself: counting, paging, draining, expiring, and the size of its file.
//!
//! `cargo bench --bench store [-- reads drain expiry file]` prints the figures; nothing is asserted. `BENCH_DIR` names
//! a directory on the disk to measure, `BENCH_MESSAGES` the size of the large mailbox.

mod setup;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use posthouse::protocol::Order;
use posthouse::store::RelayStore;
use posthouse::time::SystemClock;

use self::setup::{Bench, SENDERS, Times, WEEK, memory, open};
use self::traffic::{HOUR, Outcome, READER, accepted, append, fence, peer, query};

/// Another mailbox, and others from there on.
const OTHER: u32 = READER + 1;
/// What `relay/sweep.rs` ends in one step.
const STEP: usize = 250;
/// Pairs that talk while others' messages expire.
const PAIRS: usize = 4;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let messages = std::env::var("BENCH_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let parts: Vec<_> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    runtime.block_on(async {
        if wanted("reads") {
            reads(messages).await?;
        }
        if wanted("drain") {
            drain(messages).await?;
        }
        if wanted("expiry") {
            expiry().await?;
        }
        if wanted("file") {
            file(messages).await?;
        }
        Ok(())
    })
}

/// The same questions to a small and a large mailbox, and to one of very many senders.
async fn reads(messages: u64) -> Outcome<()> {
    let bench = Bench::new()?;
    for (of, messages) in [(OTHER, 10_000), (READER, messages)] {
        bench.visit(of).await?;
        bench.fill(of, SENDERS, 1, messages, WEEK).await?;
    }
    // In turn, since a machine has its moods.
    for (of, messages) in [(OTHER, 10_000), (READER, messages)].repeat(2) {
        println!("a mailbox of {messages} messages from {SENDERS} senders:");
        questions(&bench, of).await?;
    }
    bench.visit(OTHER + 1).await?;
    bench.fill(OTHER + 1, 100_000, 1, 100_000, WEEK).await?;
    println!("a mailbox of one message from each of 100,000 senders:");
    questions(&bench, OTHER + 1).await?;
    let mut times = Times::new();
    for _ in 0..200 {
        times.of(bench.visit(OTHER + 1)).await?;
    }
    times.report("HELLO: a commit, with the status");
    Ok(())
}

async fn questions(bench: &Bench, of: u32) -> Outcome<()> {
    for (name, sender) in [("status", None), ("status of one sender", Some(7))] {
        let mut times = Times::new();
        for _ in 0..1000 {
            times.of(async { Ok(bench.store.status(peer(of), sender.map(peer)).await?) }).await?;
        }
        times.report(name);
    }
    for order in [Order::Newest, Order::Oldest] {
        for sender in [None, Some(7)] {
            let whose = if sender.is_some() { ", one sender" } else { "" };
            page(bench, &format!("first page of 50, {order:?}{whose}"), of, order, sender).await?;
        }
    }
    Ok(())
}

async fn page(bench: &Bench, name: &str, of: u32, order: Order, sender: Option<u32>) -> Outcome<()> {
    let mut times = Times::new();
    for _ in 0..1000 {
        times.of(async { Ok(bench.store.page(query(of, order, sender, 50)).await?) }).await?;
    }
    times.report(name);
    Ok(())
}

/// A large mailbox taken out, oldest first, in pages of 500.
async fn drain(messages: u64) -> Outcome<()> {
    let clock = SystemClock::shared();
    for depth in [0, 1, 2, 8] {
        let bench = Bench::new()?;
        bench.visit(READER).await?;
        let rate = |begun, count: u64| count as f64 / clock.now().since(begun).as_secs_f64();
        let begun = clock.now();
        bench.fill(READER, SENDERS, 1, messages, WEEK).await?;
        let filled = rate(begun, messages);
        let begun = clock.now();
        let count = bench.drain(READER, depth).await?;
        let drained = rate(begun, count);
        let memory = memory();
        println!("{count}, {depth} settles on their way: filled {filled:.0}/s, drained {drained:.0}/s; {memory}");
    }
    Ok(())
}

/// How long messages take from their arrival to their end, while 100,000 others run out and while none does.
async fn expiry() -> Outcome<()> {
    const EXPIRING: u64 = 100_000;
    let bench = Arc::new(Bench::new()?);
    for of in (OTHER..).take(PAIRS).chain([READER]) {
        bench.visit(of).await?;
    }
    bench.fill(READER, SENDERS, 1, EXPIRING, HOUR).await?;
    let mut times = Times::new();
    for _ in 0..1000 {
        times.of(async { Ok(bench.store.expire(STEP).await?) }).await?;
    }
    times.report("a sweep with nothing due");
    let mut next = [1; PAIRS];
    for round in 1..=2 {
        let stop = Arc::new(AtomicBool::new(false));
        let (rest, stopper) = (tokio::time::sleep(Duration::from_secs(3)), stop.clone());
        let timer = tokio::spawn(async move {
            rest.await;
            stopper.store(true, Ordering::SeqCst);
        });
        steady_load(&bench, &mut next, &stop, "stored and settled, nothing expires").await?;
        timer.await?;
        bench.clock.advance(HOUR + Duration::from_secs(1));
        for sender in [None, Some(7)] {
            page(&bench, &format!("first page, where all ran out ({sender:?})"), READER, Order::Oldest, sender).await?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let sweep = tokio::spawn(sweep(bench.clone(), EXPIRING, stop.clone()));
        steady_load(&bench, &mut next, &stop, "stored and settled, 100,000 expire").await?;
        sweep.await??;
        bench.fill(READER, SENDERS, 1 + EXPIRING / u64::from(SENDERS) * round, EXPIRING, HOUR).await?;
    }
    Ok(())
}

/// As `relay/sweep.rs` does it.
async fn sweep(bench: Arc<Bench>, messages: u64, stop: Arc<AtomicBool>) -> Outcome<()> {
    let clock = SystemClock::shared();
    let (begun, mut told, mut steps, mut runs) = (clock.now(), 0, 0, 0);
    while told < messages {
        let step = clock.now();
        for settled in bench.store.expire(STEP).await?.settled {
            told += settled.exceptions.iter().map(|run| run.to - run.from + 1).sum::<u64>();
            runs += settled.exceptions.len();
        }
        steps += 1;
        tokio::time::sleep(clock.now().since(step)).await;
    }
    println!("  {told} ended in {:.1?}: {steps} steps, {runs} runs to tell", clock.now().since(begun));
    stop.store(true, Ordering::SeqCst);
    Ok(())
}

/// Pairs that send ten messages at a time and settle them, until they are stopped. `next` are their numbers.
async fn steady_load(bench: &Arc<Bench>, next: &mut [u64], stop: &Arc<AtomicBool>, name: &str) -> Outcome<()> {
    let pairs = (OTHER..).zip(next.iter()).map(|(to, n)| tokio::spawn(pair(bench.clone(), to, *n, stop.clone())));
    let (pairs, mut all) = (pairs.collect::<Vec<_>>(), Times::new());
    for (pair, next) in pairs.into_iter().zip(next) {
        let (times, n) = pair.await??;
        all.all.extend(times.all);
        *next = n;
    }
    all.report(name);
    Ok(())
}

async fn pair(bench: Arc<Bench>, to: u32, first: u64, stop: Arc<AtomicBool>) -> Outcome<(Times, u64)> {
    let (mut times, mut n, from) = (Times::new(), first, to + 100);
    while !stop.load(Ordering::SeqCst) {
        let round = async {
            let batch = (n..n + 10).map(|n| append(from, to, n, WEEK)).collect();
            accepted(&bench.store.submit(fence(from), batch).await?)?;
            let newest = bench.store.page(query(to, Order::Newest, None, 1)).await?.cursor.unwrap_or(0);
            bench.store.submit(fence(to), vec![bench.settle(0, newest)]).await?;
            Ok(())
        };
        times.of(round).await?;
        n += 10;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok((times, n))
}

/// The store's file over rounds of filling and draining, with readers beside it and without.
async fn file(messages: u64) -> Outcome<()> {
    let (small, senders) = (messages / 5, u64::from(SENDERS));
    for readers in [0, 2] {
        let bench = Arc::new(Bench::new()?);
        bench.visit(READER).await?;
        bench.visit(OTHER).await?;
        println!("{small} filled in and drained, ten times, with {readers} readers:");
        let stop = Arc::new(AtomicBool::new(false));
        let reading: Vec<_> = (0..readers).map(|_| tokio::spawn(read_on(bench.clone(), stop.clone()))).collect();
        let mut first = 1;
        for round in 1..=10 {
            bench.fill(READER, SENDERS, first, small, WEEK).await?;
            first += small.div_ceil(senders);
            let full = bench.file();
            bench.drain(READER, 8).await?;
            println!("  round {round}: full {full}; drained {}; {}", bench.file(), memory());
        }
        stop.store(true, Ordering::SeqCst);
        for task in reading {
            task.await??;
        }
        bench.fill(READER, SENDERS, first, messages, WEEK).await?;
        first += messages.div_ceil(senders);
        let full = bench.file();
        bench.fill(OTHER, 1, 1, 1000, WEEK).await?;
        bench.drain(READER, 8).await?;
        println!("  {messages}: full {full}; drained but for the last 1,000 {}; {}", bench.file(), memory());
        bench.fill(READER, SENDERS, first, small, WEEK).await?;
        bench.drain(READER, 8).await?;
        println!("  {small} more, filled in and drained: {}", bench.file());
        bench.store.close().await?;
        println!("  closed: {}", bench.file());
        let clock = SystemClock::shared();
        let begun = clock.now();
        let store = open(bench.path.clone(), bench.clock.clone())?;
        println!("  opened in {:.1?}: {}", clock.now().since(begun), bench.file());
        store.close().await?;
        println!("  closed: {}", bench.file());
    }
    Ok(())
}

async fn read_on(bench: Arc<Bench>, stop: Arc<AtomicBool>) -> Outcome<()> {
    while !stop.load(Ordering::SeqCst) {
        bench.store.page(query(READER, Order::Newest, None, 500)).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
