//! `GET /readyz` and `GET /status`: whether the relay takes messages, and how it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::relay::Observer;
use crate::time::{Moment, SharedClock};

/// How long an answer to `/readyz` holds: each new one costs a commit, and anybody may ask.
const READY_HOLDS: Duration = Duration::from_secs(1);

type Readiness = Result<(), String>;

/// What is looked at, and what was found last.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) observer: Observer,
    pub(super) clock: SharedClock,
    last: Mutex<Option<(Moment, Readiness)>>,
}

impl Health {
    pub(super) fn new(observer: Observer, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { observer, clock, last: Mutex::default() })
    }

    async fn readiness(&self) -> Readiness {
        // One looks at a time, and the others take what it finds.
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && self.clock.now().since(*at) < READY_HOLDS
            && !self.observer.is_draining()
        {
            return found.clone();
        }
        let found = self.observer.ready().await;
        *last = Some((self.clock.now(), found.clone()));
        found
    }
}

pub(super) async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

pub(super) async fn status(State(health): State<Arc<Health>>) -> Result<Json<Value>, (StatusCode, String)> {
    let ready = health.readiness().await;
    let report = health.observer.report().await;
    let report = report.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")))?;
    let stored = &report.stored;
    Ok(Json(json!({
        "relay": report.relay.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": report.uptime.as_secs(),
        "ready": ready.is_ok(),
        "trouble": ready.err(),
        "draining": report.draining,
        "sessions": report.sessions,
        "mailboxes": stored.mailboxes,
        "provisional_mailboxes": stored.provisional,
        "messages": stored.messages,
        "outboxes": stored.outboxes,
        "outbox_messages": stored.forwarding,
        "outbox_bytes": stored.forwarding_bytes,
        "lanes": stored.lanes,
        "links": report.links,
        "store_bytes": stored.file_bytes,
    })))
}
