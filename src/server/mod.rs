//! The SageMaker contract over HTTP.
//!
//! `GET /ping` reads two atomic values and waits for nothing; requests go through the [`Scheduler`],
//! whose work runs on another runtime. On a multi-model endpoint models come and go through
//! `/models`, and `/ping` answers 200 while there are none. Nothing here computes on the threads that
//! answer HTTP. Every answer carries `x-request-id`; every error is JSON, by the one table of
//! [`status`]. `openapi.json` describes it all.
//!
//! No client holds up another one: [`connections`] bounds how many there are and how long they take,
//! [`room`] how much memory their bodies have.
//!
//! A request that the server has no room for is refused with 503 and `Retry-After`. 429 is not used:
//! it would blame a caller, and behind SageMaker all requests come from the one platform, which says
//! nothing of who asked.

mod accept;
mod answer;
mod body;
mod call;
mod connections;
mod context;
mod custom_attributes;
mod events;
mod info;
mod invocations;
mod lifecycle;
mod lines;
mod model_name;
mod models;
mod receive;
mod request_json;
mod room;
mod run;
pub mod status;
mod ui;

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::Value;

pub use connections::Connections;
pub use lifecycle::{Readiness, State};
pub use room::{Permit, Room};
pub use run::{Termination, bind, run};
pub use ui::Ui;

use crate::config::{ComputeSettings, HttpSettings};
use crate::error::{Error, ErrorKind};
use crate::memory::Account;
use crate::registry::Host;
use crate::scheduler::Scheduler;
use crate::telemetry::Metrics;
use context::Context;

/// Reads a request in JSON as a route would, for fuzzing.
///
/// # Errors
/// Those of the request.
#[doc(hidden)]
pub fn read_request(json: &[u8]) -> crate::error::Result<()> {
    request_json::parse(json, crate::config::MOST_INPUTS).map(|_| ())
}

/// Health probe of the platform.
const PING: &str = "/ping";

/// What Prometheus reads.
const METRICS: &str = "/metrics";

/// Routes there always are.
const ROUTES: [&str; 6] = [
    "GET /ping",
    "POST /invocations",
    "GET /execution-parameters",
    "GET /metrics",
    "GET /info",
    "GET /openapi.json",
];

/// Routes of a multi-model endpoint.
const MODEL_ROUTES: [&str; 5] = [
    "GET /models",
    "POST /models",
    "GET /models/{name}",
    "DELETE /models/{name}",
    "POST /models/{name}/invoke",
];

/// What the handlers share.
pub struct App {
    /// Settings of the HTTP interface.
    pub http: HttpSettings,
    /// Settings of the computation, for `/info`.
    pub compute: ComputeSettings,
    /// Where requests go.
    pub scheduler: Scheduler,
    /// The models.
    pub models: Arc<dyn Host>,
    /// Whether models are loaded and unloaded through `/models`.
    pub multi_model: bool,
    /// What `/ping` answers from.
    pub readiness: Arc<Readiness>,
    /// What is counted and measured.
    pub metrics: Arc<Metrics>,
    /// Memory for bodies.
    pub bodies: Room,
    /// Memory for inputs and work, for `/info` and `/metrics`.
    pub account: Account,
    /// The connections of clients.
    pub connections: Arc<Connections>,
    /// The page, where there is one.
    pub ui: Option<Arc<Ui>>,
}

impl App {
    /// The routes this server has, each as method and pattern.
    pub fn routes(&self) -> Vec<&'static str> {
        let more: &[&str] = if self.multi_model { &MODEL_ROUTES } else { &[] };
        ROUTES.iter().chain(more).copied().collect()
    }
}

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route(PING, get(ping))
        .route("/invocations", post(invocations::handle))
        .route("/execution-parameters", get(info::execution_parameters))
        .route(METRICS, get(info::metrics))
        .route("/info", get(info::info))
        .route("/openapi.json", get(info::openapi));
    if app.multi_model {
        router = router
            .route("/models", get(models::list).post(models::load))
            .route("/models/{name}", get(models::show).delete(models::unload))
            .route("/models/{name}/invoke", post(models::invoke));
    }
    if let Some(ui) = &app.ui {
        router = router.merge(ui::routes(Arc::clone(ui)));
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(route_not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), ui::check))
        .layer(middleware::from_fn(connections::only_probes))
        .layer(middleware::from_fn_with_state(Arc::clone(&app.metrics), context::around))
        .with_state(app)
}

async fn ping(Shared(app): Shared<Arc<App>>) -> StatusCode {
    match app.readiness.state() {
        State::Ready => StatusCode::OK,
        State::Starting | State::Broken | State::Failed | State::Draining => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn route_not_found(
    Shared(app): Shared<Arc<App>>,
    Extension(context): Extension<Context>,
) -> Response {
    unroutable(&app, &context, ErrorKind::RouteNotFound, "there is no such route")
}

async fn method_not_allowed(
    Shared(app): Shared<Arc<App>>,
    Extension(context): Extension<Context>,
) -> Response {
    unroutable(&app, &context, ErrorKind::MethodNotAllowed, "the route does not take this method")
}

fn unroutable(app: &App, context: &Context, kind: ErrorKind, problem: &str) -> Response {
    let routes = app.routes();
    let error = Error::new(kind, format!("{problem}; there are {}", routes.join(", ")))
        .with("routes", Value::from(routes));
    status::respond(&error, &context.request_id)
}
