//! Endpoints that describe the server: `/info`, `/metrics`, `/openapi.json`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::context::Context;
use super::{App, status};
use crate::memory;
use crate::registry::ModelStatus;
use crate::telemetry::metrics::{MEDIA_TYPE, Standing};

/// The OpenAPI 3.1 description of every route. Tests compare it with the router.
const OPENAPI: &str = include_str!("openapi.json");

/// Returns the version, the models and the limits.
pub(super) async fn info(State(app): State<Arc<App>>) -> Json<Value> {
    let admission = app.scheduler.settings();
    let models: Value = app
        .models
        .all()
        .into_iter()
        .map(|(ModelStatus { name, url, state, bytes }, description)| {
            let mut model = json!({"name": name, "url": url, "state": state, "bytes": bytes});
            if let Some(map) = model.as_object_mut() {
                map.extend(description);
            }
            model
        })
        .collect();
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "multiModel": app.multi_model,
        "models": models,
        "limits": {
            "bodyBytes": app.http.max_body,
            "inlineAnswerBytes": app.http.max_inline,
            "requestSeconds": app.http.request_timeout.map(|t| t.as_secs_f64()),
            "streamSeconds": app.http.stream_timeout.map(|t| t.as_secs_f64()),
            "requestsRunning": admission.max_concurrent,
            "requestsWaiting": admission.queue,
            "inputsPerRequest": app.http.max_inputs,
            "connections": app.connections.most(),
            "cpuThreads": app.compute.threads,
            "memoryBytes": memory::limit(),
            "modelMemoryBytes": app.models.budget().limit(),
            "inputMemoryBytes": app.account.inputs.limit(),
            "workMemoryBytes": app.account.work.limit(),
        },
    }))
}

/// Returns the parameters that batch transform queries before it sends records. A record takes
/// seconds, so each one gets a request of its own, and as many run in parallel as the server
/// allows. The platform limits their total payload to 100 MB.
pub(super) async fn execution_parameters(State(app): State<Arc<App>>) -> Json<Value> {
    let at_once = app.scheduler.settings().max_concurrent.clamp(1, 100);
    let megabytes = (100 / at_once).min(app.http.max_body >> 20).max(1);
    Json(json!({
        "MaxConcurrentTransforms": at_once,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": megabytes,
    }))
}

/// Returns the metrics in Prometheus text format.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
) -> Response {
    let load = app.scheduler.load();
    let budget = app.models.budget();
    let standing = Standing {
        running: load.running,
        waiting: load.waiting,
        models: app.models.states(),
        model_bytes: budget.used(),
        model_budget: budget.limit().unwrap_or(0),
        resident: memory::resident().unwrap_or(0),
        input_bytes: app.account.inputs.used(),
        work_bytes: app.account.work.used(),
        connections: app.connections.open(),
        connections_ended: app.connections.endings(),
        body_bytes: app.bodies.used(),
    };
    match app.metrics.encode(&standing) {
        Ok(text) => ([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(error) => status::respond(&error, &context.request_id),
    }
}

/// Returns the OpenAPI description.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_of_this_version() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
