//! Errors in AHI's form: the type in `x-amzn-errortype`, `{"message"}` as body.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error response of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Failure {
    /// `ResourceNotFoundException`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "ResourceNotFoundException",
            message: message.into(),
        }
    }

    /// `ValidationException`.
    pub fn validation(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "ValidationException",
            message: message.into(),
        }
    }

    /// `ConflictException`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, kind: "ConflictException", message: message.into() }
    }

    /// `AccessDeniedException`.
    pub fn access_denied() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            kind: "AccessDeniedException",
            message: "the request is not signed".to_owned(),
        }
    }

    /// `NotAcceptableException`, used by DICOMweb only.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_ACCEPTABLE,
            kind: "NotAcceptableException",
            message: message.into(),
        }
    }

    /// The media type of the body is not supported by DICOMweb's store transaction.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: "UnsupportedMediaTypeException",
            message: message.into(),
        }
    }

    /// The body exceeds the size limit of the service.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "PayloadTooLargeException",
            message: message.into(),
        }
    }

    /// `ThrottlingException`.
    pub fn throttled() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "ThrottlingException",
            message: "Rate exceeded".to_owned(),
        }
    }

    /// `InternalServerException`.
    pub fn internal(error: &crate::error::Error) -> Self {
        tracing::error!(%error, "the local HealthImaging failed");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServerException",
            message: "the store cannot be read or written".to_owned(),
        }
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"message": self.message}))).into_response();
        let name = HeaderName::from_static("x-amzn-errortype");
        response.headers_mut().insert(name, HeaderValue::from_static(self.kind));
        response
    }
}
