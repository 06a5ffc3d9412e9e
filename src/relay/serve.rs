//! Serves one connection: R:HELLO, the session in the store, its streams side by side, and its end.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, watch};

use super::registry::Seat;
use super::session::{Answered, End, SEND_BUFFER_BYTES, Session, unexpected};
use super::strangers::Stranger;
use super::{Node, notify, submit, sync};
use crate::id::{PeerId, RelayId};
use crate::protocol::{
    AgainN, CloseCode, Frame, FrameType, HelloA, HelloR, PushMode, Role, Status, StreamKind, WireError, clip_text,
    limit,
};
use crate::store::{Denied, Done, Fence, Op, StoreError, invitation_key};
use crate::transport::{Connection, FrameReceiver, FrameSender, TransportError};

/// Pages of one session that are on their way to QUIC. A client that asks on every stream and reads none of them
/// costs two pages and not fifteen.
const PAGES_AT_ONCE: usize = 2;

/// How long a client that was told to come back later may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// How this relay introduces itself.
const AGENT: &str = concat!("posthouse/", env!("CARGO_PKG_VERSION"));

/// Serves a connection until it is over.
pub(super) async fn run(node: &Arc<Node>, connection: Connection, stranger: Stranger) {
    let remote = connection.remote();
    let end = match greet(node, &connection).await {
        Err(end) => end,
        Ok(guest) => {
            let fence = guest.seat.fence;
            let end = serve(node, &connection, guest, stranger).await;
            node.registry.leave(fence);
            end
        }
    };
    if let Some(code) = end.code() {
        node.meter.closed.add(code.name());
    }
    match &end {
        End::Transport(error) => connection.close_for(error),
        End::Close(code, reason) => connection.close(*code, reason),
        End::Store(StoreError::Superseded) => connection.close(CloseCode::Superseded, "a newer session took over"),
        End::Store(error) => {
            node.store_failed(error);
            // A row that is damaged shows here, and to its owner alone.
            if let Some(count) = node.store_trouble.count() {
                tracing::error!(%error, count, "sessions end since the store does not do what they ask of it");
            }
            connection.close(CloseCode::Unavailable, "the store does not work at the moment");
        }
    }
    tracing::debug!(%remote, %end, "session over");
}

/// Who has said R:HELLO and has a seat.
struct Guest {
    hello: HelloR,
    seat: Arc<Seat>,
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// Reads the first frames of the submit stream, and finds a seat for who says them.
///
/// An R:HELLO may have been on its way for long, and who said it be dead since. So it ends no session that is open:
/// that takes one more, which answers a question asked after that session had begun.
async fn greet(node: &Node, connection: &Connection) -> Result<Box<Guest>, End> {
    let Some(peer) = connection.peer_id() else {
        return Err(End::Close(CloseCode::NoIdentity, "connect with a client certificate"));
    };
    let begin = async {
        let (kind, sender, mut receiver) = connection.accept().await?;
        if kind != StreamKind::Submit {
            return Err(unexpected(FrameType::OpenN, "before R:HELLO: the submit stream comes first"));
        }
        let hello = hear_hello(node, peer, &mut receiver).await?;
        Ok((hello, sender, receiver))
    };
    let (mut hello, sender, mut receiver) = in_time(node, begin).await?;
    let mut asked = 0;
    loop {
        let fence = Fence { peer, device: hello.device, epoch: node.next_epoch() };
        let outcome_ranges = node.in_force.limits().outcome_ranges;
        let seat = Seat::new(fence, hello.role == Role::Relay, connection.clone(), outcome_ranges);
        if let Some(seat) = node.registry.enter(seat, asked) {
            return Ok(Box::new(Guest { hello, seat, sender, receiver }));
        }
        asked = node.next_epoch();
        hello = in_time(node, async {
            sender.send(&AgainN {}.into()).await?;
            hear_hello(node, peer, &mut receiver).await
        })
        .await?;
    }
}

/// Waits for R:HELLO as long as a client may take.
async fn in_time<T>(node: &Node, hello: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    let hello_timeout = node.in_force.limits().transport.hello_timeout;
    let late = |_| Err(End::Close(CloseCode::HelloTimeout, "no R:HELLO in time"));
    tokio::time::timeout(hello_timeout, hello).await.unwrap_or_else(late)
}

async fn hear_hello(node: &Node, peer: PeerId, receiver: &mut FrameReceiver) -> Result<HelloR, End> {
    let hello = loop {
        match receiver.next().await? {
            Some(Frame::HelloR(hello)) => break hello,
            Some(Frame::NopN(_)) => {}
            Some(other) => return Err(unexpected(other.frame_type(), "before R:HELLO")),
            None => return Err(WireError::Truncated.into()),
        }
    };
    if hello.version != limit::VERSION {
        return Err(End::Close(CloseCode::Version, "this relay speaks version 1"));
    }
    let relay = RelayId::from_bytes(*peer.as_bytes());
    if hello.role == Role::Relay {
        if !node.in_force.limits().federation.admits(&relay) {
            return Err(End::Close(CloseCode::NotAllowed, "this relay takes no messages from that relay"));
        }
        node.federation.heard_from(&relay);
    }
    Ok(hello)
}

/// Runs a session from its beginning to its end.
async fn serve(node: &Arc<Node>, connection: &Connection, guest: Box<Guest>, stranger: Stranger) -> End {
    // What only the beginning needs is not kept as long as the session.
    let mut begun = match Box::pin(begin(node, connection, guest)).await {
        Ok(begun) => begun,
        Err(end) => return end,
    };
    drop(stranger);
    let end = match stream(&mut begun).await {
        Ok(()) => End::Close(CloseCode::GoingAway, "the relay stops"),
        Err(end) => end,
    };
    let (fence, handed_out) = (begun.session.fence, begun.session.handed_out());
    // What cannot be told now is assumed later: a mailbox still open at the next start counts as handed out.
    if let Err(error) = node.store.submit(fence, vec![Op::End { handed_out }]).await
        && !matches!(error, StoreError::Superseded)
    {
        tracing::debug!(%error, "the end of a session was not recorded");
    }
    end
}

/// A session with its submit stream.
struct Begun {
    session: Session,
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// Opens the session in the store and answers R:HELLO.
async fn begin(node: &Arc<Node>, connection: &Connection, guest: Box<Guest>) -> Result<Box<Begun>, End> {
    let Guest { hello, seat, sender, receiver } = *guest;
    let (is_relay, fence) = (hello.role == Role::Relay, seat.fence);
    let opened = if is_relay { join(node, fence).await } else { open(node, fence, &hello, connection).await };
    let (watermark, status) = opened?;
    // A relay has no mailbox.
    let credit_messages = if is_relay { 0 } else { hello.credit_messages.min(limit::MAX_CREDIT_MESSAGES) };
    let credit_bytes = hello.credit_bytes.clamp(1, limit::MAX_CREDIT_BYTES);
    let ack_timeout = Duration::from_millis(hello.ack_timeout_ms);
    let session = Session {
        node: node.clone(),
        connection: connection.clone(),
        peer: fence.peer,
        fence,
        is_relay,
        only_from: hello.sender,
        seat,
        credit_messages: usize::try_from(credit_messages).unwrap_or(usize::MAX),
        credit_bytes: usize::try_from(credit_bytes).unwrap_or(usize::MAX),
        ack_timeout: ack_timeout.clamp(limit::MIN_ACK_TIMEOUT, limit::MAX_ACK_TIMEOUT),
        live: watch::Sender::new((hello.push == PushMode::AtOnce).then_some(watermark)),
        pages: Semaphore::new(PAGES_AT_ONCE),
        handed_out: AtomicU64::new(0),
        answered: Answered::default(),
    };
    tracing::debug!(peer = %fence.peer.short(), agent = hello.agent, "session open");
    let answer = HelloA {
        version: limit::VERSION,
        store: node.store.store_id(),
        durability: node.store.durability(),
        watermark,
        status,
        max_body_bytes: node.in_force.limits().body_bytes as u64,
        credit_messages,
        agent: Some(clip_text(AGENT)),
    };
    sender.push(&answer.into())?;
    sender.write();
    Ok(Box::new(Begun { session, sender, receiver }))
}

async fn open(node: &Node, fence: Fence, hello: &HelloR, connection: &Connection) -> Result<(u64, Status), End> {
    let invitation = hello.invitation.as_deref().map(invitation_key);
    let done = node.store.submit(fence, vec![Op::Open { remote: connection.remote(), invitation }]).await?;
    match done.into_iter().next() {
        Some(Done::Opened { watermark, status }) => Ok((watermark, status)),
        Some(Done::Denied(denied)) => Err(turned_away(denied, hello.invitation.is_some())),
        _ => Err(StoreError::Closed.into()),
    }
}

/// Why a peer gets no session, in words for its person.
fn turned_away(denied: Denied, showed_invitation: bool) -> End {
    match denied {
        Denied::Blocked => End::Close(CloseCode::NotAllowed, "the operator blocked this peer"),
        Denied::NotListed => {
            End::Close(CloseCode::NotAllowed, "this relay lets in only peers that its operator allowed")
        }
        Denied::NotInvited if showed_invitation => {
            End::Close(CloseCode::NotInvited, "the invitation is unknown, used up or expired")
        }
        Denied::NotInvited => End::Close(CloseCode::NotInvited, "this relay wants an invitation from new peers"),
    }
}

async fn join(node: &Node, fence: Fence) -> Result<(u64, Status), End> {
    node.store.submit(fence, vec![Op::Join]).await?;
    Ok((0, Status::default()))
}

/// Runs the streams until something ends them, or until the relay drains and all that was begun is done.
async fn stream(Begun { session, sender, receiver }: &mut Begun) -> Result<(), End> {
    let session = &*session;
    let (notify_sender, mut notify_receiver) = session.connection.open(StreamKind::Notify, SEND_BUFFER_BYTES).await?;
    // Each is woken by itself: what comes for one costs the others nothing.
    let mut parts: FuturesUnordered<BoxFuture<'_, Result<(), End>>> = FuturesUnordered::new();
    parts.push(Box::pin(submit::run(session, sender, receiver)));
    parts.push(Box::pin(notify::run(session, &notify_sender, &mut notify_receiver)));
    parts.push(Box::pin(others(session)));
    // Only the first two end well, once the relay drains.
    for _ in 0..2 {
        if let Some(end) = parts.next().await {
            end?;
        }
    }
    // The streams are kept until then: whoever sees one break off looks for no more words on the other.
    // A client that was told leaves by itself, and then has all that it was told.
    match tokio::time::timeout(GOODBYE, parts.next()).await {
        Ok(Some(Err(end))) if !matches!(end, End::Transport(TransportError::Closed(_))) => Err(end),
        _ => Ok(()),
    }
}

/// The streams on which little happens, and what ends a session from outside.
async fn others(session: &Session) -> Result<(), End> {
    tokio::select! {
        biased;
        end = sync::run(session) => end.map(|never| match never {}),
        reason = session.connection.closed() => Err(reason.into()),
        () = session.node.ended() => Err(End::Close(CloseCode::GoingAway, "the relay stops")),
    }
}
