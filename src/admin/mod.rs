//! What an operator sees from outside: for now that the relay is there.
//!
//! HTTP on loopback by default, beside the relay and never in its way.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running admin endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    local: SocketAddr,
    server: JoinHandle<()>,
}

impl Admin {
    /// Listens, and answers `GET /healthz` with 200 for as long as the process lives.
    ///
    /// # Errors
    /// What the system says if the address cannot be had.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        let router = Router::new().route("/healthz", get(async || "ok\n"));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin endpoint ended");
            }
        });
        Ok(Self { local, server })
    }

    /// Where it listens: the real port, if 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.server.abort();
    }
}
