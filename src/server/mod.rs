//! The SageMaker contract over HTTP.
//!
//! `GET /ping` reads one atomic value and waits for nothing; `POST /invocations` goes through the
//! [`Scheduler`], whose work runs on another runtime. Nothing here computes on the threads that
//! answer HTTP. Every answer carries `x-request-id`; every error is JSON, by the one table of
//! [`status`].

mod accept;
mod answer;
mod body;
mod context;
mod invocations;
mod lifecycle;
mod model_name;
mod request_json;
mod run;
pub mod status;

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};

pub use lifecycle::{Readiness, State};
pub use run::{Termination, bind, run};

use crate::config::HttpSettings;
use crate::error::{Error, ErrorKind};
use crate::scheduler::Scheduler;
use context::Context;

/// Health probe of the platform.
const PING: &str = "/ping";

/// Requests of the platform.
const INVOCATIONS: &str = "/invocations";

/// What the handlers share.
pub struct App {
    /// Settings of the HTTP interface.
    pub http: HttpSettings,
    /// Where requests go.
    pub scheduler: Scheduler,
    /// What `/ping` answers from.
    pub readiness: Arc<Readiness>,
}

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(PING, get(ping))
        .route(INVOCATIONS, post(invocations::handle))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(route_not_found)
        .layer(middleware::from_fn(context::around))
        .with_state(app)
}

async fn ping(Shared(app): Shared<Arc<App>>) -> StatusCode {
    match app.readiness.state() {
        State::Ready => StatusCode::OK,
        State::Starting | State::Failed | State::Draining => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn route_not_found(Extension(context): Extension<Context>) -> Response {
    let message = "there is no such route; there are GET /ping and POST /invocations";
    status::respond(&Error::new(ErrorKind::RouteNotFound, message), &context.request_id)
}

async fn method_not_allowed(Extension(context): Extension<Context>) -> Response {
    let message = "the route does not take this method; it is GET /ping and POST /invocations";
    status::respond(&Error::new(ErrorKind::MethodNotAllowed, message), &context.request_id)
}
