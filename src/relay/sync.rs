//! The sync streams: counting and paging a mailbox, and the acknowledgements that ride on page requests.

use std::convert::Infallible;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::session::{End, Session, message, unexpected};
use super::settle::{Settling, settle};
use crate::mutant::Mutant;
use crate::protocol::limit::{MAX_PAGE_BYTES, MAX_PAGE_MESSAGES};
use crate::protocol::{Frame, FrameType, Order, PageA, PageR, PolicyA, PolicyR, StatusA, StatusR, StreamKind};
use crate::store::{Done, Op, Query};
use crate::transport::{FrameReceiver, FrameSender, TransportError};

/// Serves every sync stream that the client opens. The transport bounds how many there are.
pub(super) async fn run(session: &Session) -> Result<Infallible, End> {
    let mut streams = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(end) = streams.next(), if !streams.is_empty() => match end {
                // A client may break a stream off: it wants the page no more. What it took stays taken.
                Ok(()) | Err(End::Transport(TransportError::StreamReset(_) | TransportError::StreamStopped(_))) => {}
                Err(end) => return Err(end),
            },
            accepted = session.connection.accept() => {
                let (kind, sender, receiver) = accepted?;
                if kind != StreamKind::Sync {
                    return Err(unexpected(FrameType::OpenN, "twice: there is one submit stream"));
                }
                streams.push(serve(session, sender, receiver));
            }
        }
    }
}

async fn serve(session: &Session, sender: FrameSender, mut receiver: FrameReceiver) -> Result<(), End> {
    let mut settling = Pending(None);
    let end = answer(session, &sender, &mut receiver, &mut settling).await;
    // However the stream ends: what was confirmed has to become durable, or the session ends.
    settling.done().await?;
    end
}

async fn answer(
    session: &Session,
    sender: &FrameSender,
    receiver: &mut FrameReceiver,
    settling: &mut Pending,
) -> Result<(), End> {
    loop {
        let frame = tokio::select! {
            biased;
            done = settling.failed() => return Err(done),
            frame = receiver.next() => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };
        // In a box: a stream on which nothing is asked has no room for what an answer takes.
        Box::pin(respond(session, sender, frame, settling)).await?;
    }
}

async fn respond(session: &Session, sender: &FrameSender, frame: Frame, settling: &mut Pending) -> Result<(), End> {
    match frame {
        Frame::StatusR(ask) => {
            settling.done().await?;
            sender.send(&status(session, &ask).await?.into()).await?;
        }
        Frame::PageR(ask) => {
            // The place is kept until QUIC has taken the page. It is never closed.
            let _place = session.pages.acquire().await;
            sender.send(&page(session, ask, settling).await?.into()).await?;
            sender.flush().await?;
        }
        Frame::PolicyR(ask) => {
            // A list may be as long as a page.
            let _place = session.pages.acquire().await;
            sender.send(&policy(session, ask).await?.into()).await?;
            sender.flush().await?;
        }
        Frame::NopN(_) => {}
        other => return Err(unexpected(other.frame_type(), "on a sync stream")),
    }
    Ok(())
}

/// The answers that came with the last page request, while the store is busy with them.
struct Pending(Option<Settling>);

impl Pending {
    /// Waits until they are durable. Cancel-safe.
    async fn done(&mut self) -> Result<(), End> {
        if let Some(settling) = &mut self.0 {
            let done = settling.done().await;
            self.0 = None;
            done?;
        }
        Ok(())
    }

    /// Waits until they fail; for ever, if they do not. Cancel-safe.
    async fn failed(&mut self) -> End {
        match self.done().await {
            Ok(()) => std::future::pending().await,
            Err(end) => end,
        }
    }
}

async fn status(session: &Session, ask: &StatusR) -> Result<StatusA, End> {
    let status = session.node.store.status(session.peer, ask.sender).await?;
    Ok(StatusA { request: ask.request, status })
}

async fn policy(session: &Session, ask: PolicyR) -> Result<PolicyA, End> {
    let (node, request) = (&session.node, ask.request);
    if session.is_relay {
        return Err(unexpected(FrameType::PolicyR, "from a relay, which has no mailbox"));
    }
    if ask.change.is_empty() {
        return Ok(PolicyA { request, policy: Some(node.store.policy(session.peer).await?), full: false });
    }
    node.store.ready().await;
    let done = node.store.submit(session.fence, vec![Op::Policy(ask.change)]).await?;
    Ok(PolicyA { request, policy: None, full: done == [Done::Changed(false)] })
}

async fn page(session: &Session, ask: PageR, settling: &mut Pending) -> Result<PageA, End> {
    let node = &session.node;
    let ours = ask.store == node.store.store_id();
    settling.done().await?;
    if ours && !ask.answers.is_empty() {
        session.room().await;
        session.answered.add(&ask.answers);
        settling.0 = Some(settle(session, ask.answers, &[]).by_itself());
    }
    if ask.cursor.is_none() {
        // What was just answered would be on the page again.
        settling.done().await?;
    }
    let query = Query {
        mailbox: session.peer,
        order: ask.order,
        cursor: ask.cursor.filter(|_| ours),
        sender: ask.sender,
        max_messages: ask.max_messages.min(MAX_PAGE_MESSAGES),
        max_bytes: ask.max_bytes.min(MAX_PAGE_BYTES),
    };
    let mut page = node.store.page(query).await?;
    if page.complete && settling.0.is_some() {
        // Who has reached the end is told exactly what is left.
        settling.done().await?;
        page = node.store.page(query).await?;
    }
    node.meter.paged.add(page.messages.len() as u64);
    if let Some(highest) = page.messages.iter().map(|message| message.seq).max() {
        session.hand_out(highest);
    }
    // The first oldest-first page of all that is to be pushed, with nothing beyond it, ends the backlog.
    if page.complete && ask.order == Order::Oldest && ask.sender == session.only_from {
        session.live.send_if_modified(|live| {
            let begins = live.is_none();
            if begins {
                let skipped = u64::from(Mutant::PageSkipsAtHandOver.is_planted());
                *live = Some(page.cursor.unwrap_or(0) + skipped);
            }
            begins
        });
    }
    let date = node.clock.date();
    Ok(PageA {
        request: ask.request,
        messages: page.messages.iter().map(|stored| message(stored, date, 1)).collect(),
        cursor: page.cursor,
        remaining: page.remaining,
        complete: page.complete,
    })
}
