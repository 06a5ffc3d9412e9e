//! The sync streams: counting and paging a mailbox, and the acknowledgements that ride on page requests.

use std::convert::Infallible;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::session::{End, Session, message, unexpected};
use super::settle::settle;
use crate::protocol::limit::{MAX_PAGE_BYTES, MAX_PAGE_MESSAGES};
use crate::protocol::{Frame, FrameType, Order, PageA, PageR, StatusA, StatusR, StreamKind};
use crate::store::Query;
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
    loop {
        // A page request may carry acknowledgements: it is read when the store has room for them.
        session.node.store.ready().await;
        match receiver.next().await? {
            Some(Frame::StatusR(ask)) => sender.send(&status(session, &ask).await?.into()).await?,
            Some(Frame::PageR(ask)) => {
                // The place is kept until QUIC has taken the page. It is never closed.
                let _place = session.pages.acquire().await;
                sender.send(&page(session, ask).await?.into()).await?;
                sender.flush().await?;
            }
            Some(Frame::NopN(_)) => {}
            Some(other) => return Err(unexpected(other.frame_type(), "on a sync stream")),
            None => return Ok(()),
        }
    }
}

async fn status(session: &Session, ask: &StatusR) -> Result<StatusA, End> {
    let status = session.node.store.status(session.peer, ask.sender).await?;
    Ok(StatusA { request: ask.request, status })
}

async fn page(session: &Session, ask: PageR) -> Result<PageA, End> {
    let node = &session.node;
    let ours = ask.store == node.store.store_id();
    if ours && !ask.answers.is_empty() {
        settle(session, ask.answers, &[]).done().await?;
    }
    let query = Query {
        mailbox: session.peer,
        order: ask.order,
        cursor: ask.cursor.filter(|_| ours),
        sender: ask.sender,
        max_messages: ask.max_messages.min(MAX_PAGE_MESSAGES),
        max_bytes: ask.max_bytes.min(MAX_PAGE_BYTES),
    };
    let page = node.store.page(query).await?;
    if let Some(highest) = page.messages.iter().map(|message| message.seq).max() {
        session.hand_out(highest);
    }
    // The first oldest-first page of all that is to be pushed, with nothing beyond it, ends the backlog.
    if page.complete && ask.order == Order::Oldest && ask.sender == session.only_from {
        session.live.send_if_modified(|live| {
            let begins = live.is_none();
            if begins {
                *live = Some(page.cursor.unwrap_or(0));
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
