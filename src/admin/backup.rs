//! `GET /backup`: a backup, streamed to its caller as it is read.
//!
//! Nothing of it is kept here but a few pieces. A caller that takes none for a while, or goes away, ends it: as long as
//! it lasts the store cannot use its freed pages again.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::relay::Observer;
use crate::store::StoreError;

/// Pieces that wait for the caller: with these the disk and the network work at the same time.
const PIECES: usize = 4;
/// How long a caller may take none.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn backup(State(observer): State<Observer>) -> ([(HeaderName, &'static str); 1], Body) {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, StoreError>>(PIECES);
    let (pieces, runtime) = (sender.clone(), Handle::current());
    let take = move |piece| {
        let sent = runtime.block_on(timeout(PATIENCE, pieces.send(Ok(piece))));
        let gone = |why: &str| Err(StoreError::Unavailable(why.into()));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => gone("the caller of the backup went away"),
            Err(_) => gone("the caller of the backup took nothing for 10 s"),
        }
    };
    tokio::spawn(async move {
        match observer.backup(Box::new(take)).await {
            Ok(()) => tracing::info!("a backup was made"),
            Err(error) => {
                tracing::warn!(%error, "a backup was given up");
                // Cut off, it cannot be taken for whole.
                sender.send(Err(error)).await.ok();
            }
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces))
}
