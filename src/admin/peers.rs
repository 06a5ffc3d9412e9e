//! Peers and invitations, for an operator: `GET /peers`, `POST /peers/PEER/allow` and the like, `POST /invitations`.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::id::PeerId;
use crate::relay::Operator;
use crate::store::{PeerState, Standing, StoreError};

/// Peers on one page at most.
const MAX_PAGE: usize = 1000;

type Answer = Result<Json<Value>, (StatusCode, String)>;

#[derive(Debug, Deserialize)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    uses: u64,
    expires_ms: u64,
}

pub(super) fn routes(operator: Operator) -> Router {
    Router::new()
        .route("/peers", get(peers))
        .route("/peers/{peer}/{change}", post(change))
        .route("/invitations", post(invite))
        .with_state(operator)
}

fn unavailable(error: StoreError) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

fn read(peer: &str) -> Result<PeerId, (StatusCode, String)> {
    peer.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("{peer:?} is no peer's id: {error}\n")))
}

async fn peers(State(operator): State<Operator>, Query(page): Query<Page>) -> Answer {
    let after = page.after.as_deref().map(read).transpose()?;
    let page = operator.peers(after, page.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)).await.map_err(unavailable)?;
    let peers: Vec<Value> = page.peers.iter().map(peer).collect();
    Ok(Json(json!({ "peers": peers, "next": page.next.map(|next| next.to_string()) })))
}

fn peer(state: &PeerState) -> Value {
    let mailbox = state.mailbox.as_ref();
    json!({
        "peer": state.peer.to_string(),
        "access": state.standing.map(Standing::name),
        "mailbox": mailbox.is_some(),
        "messages": mailbox.map_or(0, |mailbox| mailbox.messages),
        "bytes": mailbox.map_or(0, |mailbox| mailbox.bytes),
        "provisional": mailbox.is_some_and(|mailbox| mailbox.provisional),
        "online": mailbox.is_some_and(|mailbox| mailbox.online),
        "last_seen": mailbox.and_then(|mailbox| mailbox.last_seen).map(|seen| seen.0),
    })
}

async fn change(State(operator): State<Operator>, Path((peer, change)): Path<(String, String)>) -> Answer {
    let peer = read(&peer)?;
    let standing = match change.as_str() {
        "allow" => Some(Standing::Allowed),
        "block" => Some(Standing::Blocked),
        "reset" => None,
        "remove" => {
            let removal = operator.remove(peer).await.map_err(unavailable)?;
            return Ok(Json(json!({ "messages": removal.messages, "gone": removal.gone })));
        }
        _ => return Err((StatusCode::NOT_FOUND, "allow, block, reset or remove\n".to_owned())),
    };
    operator.decide(peer, standing).await.map_err(unavailable)?;
    Ok(Json(json!({})))
}

async fn invite(State(operator): State<Operator>, Query(wanted): Query<Wanted>) -> Answer {
    let lifetime = Duration::from_millis(wanted.expires_ms);
    match operator.invite(wanted.uses.max(1), lifetime).await.map_err(unavailable)? {
        Some((token, expires)) => Ok(Json(json!({ "token": token, "uses": wanted.uses.max(1), "expires": expires.0 }))),
        None => Err((StatusCode::CONFLICT, "there are too many invitations: wait until some expire\n".to_owned())),
    }
}
