//! The SageMaker contract over HTTP: `GET /ping` and `POST /invocations`.
//!
//! Nothing here computes: requests are read, handed to the scheduler and answered. `/ping` reads an
//! atomic and never waits for anything.

mod accept;
mod answer;
mod failure;
mod invocations;
mod parse;
mod readiness;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use readiness::{Readiness, ReadyState};
pub use status::status_of;

use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::Scheduler;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    /// Where requests go.
    pub scheduler: Arc<Scheduler>,
    /// What `/ping` says.
    pub readiness: Readiness,
    /// Largest body of a request in bytes.
    pub max_body: usize,
}

/// The routes.
pub fn router(app: App) -> Router {
    let limit = DefaultBodyLimit::max(app.max_body);
    Router::new()
        .route("/ping", get(ping))
        .route("/invocations", post(invocations::invocations))
        .fallback(failure::no_route)
        .method_not_allowed_fallback(failure::no_method)
        .layer(limit)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(failure::panicked))
        .with_state(app)
}

/// 200 with an empty body while requests are taken, else 503.
async fn ping(State(app): State<App>) -> StatusCode {
    match app.readiness.get() {
        ReadyState::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Serves until `stop` is cancelled. Then no new work is begun, and what runs is finished within
/// `drain`; what is not finished by then is cancelled and answered so.
///
/// # Errors
///
/// [`ErrorKind::DeadlineExceeded`] where work had to be cancelled, [`ErrorKind::Io`] where the
/// listener fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: CancellationToken,
    drain: Duration,
) -> Result<()> {
    let (scheduler, readiness) = (app.scheduler.clone(), app.readiness.clone());
    let closed = CancellationToken::new();
    let server = tokio::spawn(
        axum::serve(listener, router(app))
            .with_graceful_shutdown(closed.clone().cancelled_owned())
            .into_future(),
    );
    tokio::pin!(server);
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, "the listener failed").caused_by(e);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = &mut server => {
            return ended.map_err(|_| Error::internal("the server stopped"))?.map_err(failed);
        }
    }
    readiness.set(ReadyState::Draining);
    tracing::info!(running = scheduler.running(), "stopping: no new work is taken");
    let finished = scheduler.drain(drain).await;
    closed.cancel();
    // Answers of finished work still have to leave; idle connections do not hold this up for long.
    let _ = tokio::time::timeout(Duration::from_secs(2), &mut server).await;
    if finished {
        tracing::info!("stopped");
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::DeadlineExceeded,
        format!("work was not finished within {} s and was cancelled", drain.as_secs()),
    ))
}
