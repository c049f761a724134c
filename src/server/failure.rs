//! Failures as answers: `{"error":{"code","message","details"},"requestId"}`.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::status::{retry_after, status_of};
use crate::error::{Error, ErrorKind};

/// The answer to a failed request.
pub fn failure(error: &Error, request_id: Option<&str>) -> Response {
    let kind = error.kind();
    let mut body = json!({
        "error": {
            "code": kind.code(),
            "message": error.message(),
            "details": error.details(),
        }
    });
    if let Some(id) = request_id {
        body["requestId"] = json!(id);
    }
    let mut response = (status_of(kind), Json(body)).into_response();
    if let Some(seconds) = retry_after(kind) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Any path that is no route.
pub async fn no_route(method: Method, uri: Uri) -> Response {
    let message = format!(
        "there is no {method} {}; there are GET /ping and POST /invocations",
        uri.path()
    );
    failure(&Error::new(ErrorKind::RouteNotFound, message), None)
}

/// A route with another method.
pub async fn no_method(method: Method, uri: Uri) -> Response {
    let message = format!(
        "{} does not take {method}; there are GET /ping and POST /invocations",
        uri.path()
    );
    failure(&Error::new(ErrorKind::MethodNotAllowed, message), None)
}

/// A panic in a handler. What it said is in the log, not in the answer.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = what, "a handler panicked");
    failure(&Error::internal("the request failed unexpectedly"), None)
}
