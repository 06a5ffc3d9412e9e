//! What an operator sees from outside.
//!
//! HTTP on loopback by default, beside the relay and never in its way. That it is there is told to everybody; what
//! it does, to who has the token. A browser is refused: whatever page it shows may be anybody's.

mod access;
mod backup;
mod health;
mod metrics;
mod peers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use access::{ACCESS_FILE, Access};

use crate::federation::Standing;
use crate::random::Entropy;
use crate::relay::{LinkReport, Observer};
use crate::store::StoreError;
use crate::time::SharedClock;
use health::Health;

/// A running admin endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    access: Arc<Access>,
    server: JoinHandle<()>,
}

impl Admin {
    /// Listens, and answers: to everybody `GET /healthz` (the process lives), `/readyz` (it takes messages), `/status`
    /// and `/metrics`, which name nobody; to who shows the token `/relays`, `/backup`, and what
    /// [`Operator`](crate::relay::Operator) does.
    ///
    /// # Errors
    /// What the system says if the address cannot be had.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn start(
        address: SocketAddr,
        observer: Observer,
        clock: SharedClock,
        entropy: &dyn Entropy,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let access = Arc::new(Access::new(listener.local_addr()?, entropy));
        let health = Health::new(observer.clone(), clock);
        let open = Router::new()
            .route("/readyz", get(health::readyz))
            .route("/status", get(health::status))
            .route("/metrics", get(metrics::metrics))
            .with_state(health.clone());
        let guarded = Router::new()
            .route("/relays", get(relays))
            .with_state(observer.clone())
            .route("/backup", get(backup::backup))
            .with_state(health)
            .merge(peers::routes(observer.operator()))
            .layer(from_fn_with_state(access.clone(), with_token));
        let router =
            Router::new().route("/healthz", get(async || "ok\n")).merge(open).merge(guarded).layer(from_fn(no_browser));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin endpoint ended");
            }
        });
        Ok(Self { access, server })
    }

    /// Where it listens (the real port, if 0 was asked for), and what it wants to be shown.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn no_browser(request: Request, next: Next) -> Result<Response, (StatusCode, &'static str)> {
    match request.headers().contains_key(header::ORIGIN) {
        true => Err((StatusCode::FORBIDDEN, "no browsers\n")),
        false => Ok(next.run(request).await),
    }
}

async fn with_token(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Result<Response, (StatusCode, &'static str)> {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|shown| shown.to_str().ok());
    match shown.is_some_and(|shown| access.admits(shown)) {
        true => Ok(next.run(request).await),
        false => Err((StatusCode::UNAUTHORIZED, "show the token of the data directory's admin.json\n")),
    }
}

async fn relays(State(observer): State<Observer>) -> Result<Json<Value>, (StatusCode, String)> {
    let unavailable = |error: StoreError| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    let links = observer.links().await.map_err(unavailable)?;
    Ok(Json(json!({ "relays": links.iter().map(link).collect::<Vec<_>>() })))
}

fn link(report: &LinkReport) -> Value {
    let retry_at = match report.standing {
        Standing::Waiting { retry_at } => Some(retry_at.0),
        _ => None,
    };
    json!({
        "relay": report.relay.to_string(),
        "address": report.address,
        "state": report.standing.name(),
        "waiting": report.waiting,
        "oldest": report.oldest.map(|oldest| oldest.0),
        "last_error": report.last_error,
        "next_try": retry_at,
    })
}
