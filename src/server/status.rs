//! The one table from causes to HTTP statuses.

use axum::http::StatusCode;

use crate::error::ErrorKind;

/// 499, nginx's "client closed request": nobody reads it, but it shows in logs.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The status that a failure is answered with.
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::AccessDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound | ErrorKind::ModelNotFound | ErrorKind::RouteNotFound => {
            StatusCode::NOT_FOUND
        }
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        ErrorKind::ImageSetNotReady => StatusCode::CONFLICT,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::InvalidImage
        | ErrorKind::CorruptFrame
        | ErrorKind::UnsupportedPixelData
        | ErrorKind::InvalidModel => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
        }
        ErrorKind::Configuration | ErrorKind::Io | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        ErrorKind::Throttled | ErrorKind::Overloaded | ErrorKind::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::OutOfMemory => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// Seconds after which a refused caller may come back, where that helps.
pub fn retry_after(kind: ErrorKind) -> Option<u32> {
    match kind {
        ErrorKind::Throttled | ErrorKind::Overloaded => Some(5),
        ErrorKind::Unavailable => Some(10),
        _ => None,
    }
}
