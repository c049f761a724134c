//! The SageMaker container contract over HTTP.
//!
//! `GET /ping` reads two atomic values and never blocks. Requests go through the [`Scheduler`],
//! whose work runs on another runtime; nothing here computes on the threads that serve HTTP. On a
//! multi-model endpoint, models are loaded and unloaded through `/models`, and `/ping` returns 200
//! even without models. Every response carries `x-request-id`. Every error is JSON, mapped by the
//! table in [`status`]. `openapi.json` describes the whole interface.
//!
//! No client can block another one: [`connections`] limits the number of connections and their
//! timing, [`room`] the memory of their bodies.
//!
//! A request that exceeds the server's capacity is rejected with 503 and `Retry-After`. 429 is not
//! used because it blames the caller, and behind SageMaker all requests come from the platform,
//! which does not identify the caller.

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

/// Parses a JSON request as a route would, for fuzzing.
///
/// # Errors
/// Propagates the errors of the parser.
#[doc(hidden)]
pub fn read_request(json: &[u8]) -> crate::error::Result<()> {
    request_json::parse(json, crate::config::MOST_INPUTS).map(|_| ())
}

/// Health probe of the platform.
const PING: &str = "/ping";

/// Endpoint scraped by Prometheus.
const METRICS: &str = "/metrics";

/// Routes of every server.
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

/// State shared by the handlers.
pub struct App {
    /// Settings of the HTTP interface.
    pub http: HttpSettings,
    /// Compute settings, for `/info`.
    pub compute: ComputeSettings,
    /// The scheduler of requests.
    pub scheduler: Scheduler,
    /// The loaded models.
    pub models: Arc<dyn Host>,
    /// Whether models are loaded and unloaded through `/models`.
    pub multi_model: bool,
    /// The state reported by `/ping`.
    pub readiness: Arc<Readiness>,
    /// Counters and measurements.
    pub metrics: Arc<Metrics>,
    /// Memory for bodies.
    pub bodies: Room,
    /// Memory accounts of inputs and work, for `/info` and `/metrics`.
    pub account: Account,
    /// The client connections.
    pub connections: Arc<Connections>,
    /// The web page, if enabled.
    pub ui: Option<Arc<Ui>>,
}

impl App {
    /// Returns the routes of this server, each as method and pattern.
    pub fn routes(&self) -> Vec<&'static str> {
        let more: &[&str] = if self.multi_model { &MODEL_ROUTES } else { &[] };
        ROUTES.iter().chain(more).copied().collect()
    }
}

/// Builds the router.
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
