//! Maps errors to HTTP: the table of status codes, and the JSON body of an error.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind};

/// Value of `Retry-After`, in seconds, for requests rejected because of load.
const RETRY_AFTER_SECONDS: u16 = 5;

/// nginx's "client closed request": no client receives it, but logs and metrics count it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The code of an error, stored in the response extensions for logging.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorCode(pub &'static str);

/// Returns the status code of each kind of error.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::AccessDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound | ErrorKind::ModelNotFound | ErrorKind::RouteNotFound => {
            StatusCode::NOT_FOUND
        }
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        ErrorKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::ImageSetNotReady | ErrorKind::ModelAlreadyLoaded => StatusCode::CONFLICT,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::InvalidModel
        | ErrorKind::InvalidImage
        | ErrorKind::CorruptFrame
        | ErrorKind::UnsupportedPixelData => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
        }
        ErrorKind::InferenceFailed
        | ErrorKind::Configuration
        | ErrorKind::Io
        | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        ErrorKind::Throttled
        | ErrorKind::Credentials
        | ErrorKind::Overloaded
        | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::OutOfMemory => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// Whether the message and details are for the operator only: such errors name files, settings and
/// defects of the server, nothing of the request.
fn is_private(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Configuration | ErrorKind::Io | ErrorKind::Internal)
}

/// Logs `error` and builds the response `{"error":{"code","message","details"},"requestId"}`.
pub(super) fn respond(error: &Error, request_id: &str) -> Response {
    let kind = error.kind();
    let status = status(kind);
    log(error, status);
    let mut response = (status, Json(body(error, request_id))).into_response();
    if matches!(kind, ErrorKind::Overloaded | ErrorKind::Throttled) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response.extensions_mut().insert(ErrorCode(kind.code()));
    response
}

/// Returns `error` as single-line response text, for one request of a batch.
pub(super) fn text(error: &Error, request_id: &str) -> Vec<u8> {
    body(error, request_id).to_string().into_bytes()
}

/// Logs `error` for one request of a batch.
pub(super) fn log_one(error: &Error) {
    log(error, status(error.kind()));
}

fn body(error: &Error, request_id: &str) -> Value {
    json!({"error": described(error), "requestId": request_id})
}

/// Returns `error` as it appears in a response: `{"code","message","details"}`.
pub(super) fn described(error: &Error) -> Value {
    let kind = error.kind();
    let private = is_private(kind);
    let details = if private { &Map::new() } else { error.details() };
    let message = if private {
        "the server failed on this request; its log says why, under the request's identifier"
    } else {
        error.message()
    };
    json!({"code": kind.code(), "message": message, "details": Value::from(details.clone())})
}

fn log(error: &Error, status: StatusCode) {
    let code = error.kind().code();
    let details = Value::from(error.details().clone());
    if status.is_server_error() {
        let causes = causes(error);
        tracing::error!(code, error = error.message(), %details, causes, "request failed");
    } else {
        // Do not log the causes of a request or image error: they may quote its contents.
        tracing::warn!(code, error = error.message(), %details, "request refused");
    }
}

fn causes(error: &Error) -> String {
    let first = std::error::Error::source(error);
    let chain = std::iter::successors(first, |e| e.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_errors_keep_their_words_and_paths_to_the_log() {
        for kind in [ErrorKind::Internal, ErrorKind::Io, ErrorKind::Configuration] {
            let error = Error::new(kind, "cannot read /etc/secret").with("path", "/etc/secret");
            let response = respond(&error, "id");
            assert_eq!(response.status(), 500);
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert!(!body.to_string().contains("secret"), "{body}");
            assert_eq!(body["error"]["code"], kind.code());
            assert_eq!(body["requestId"], "id");
        }
    }
}
