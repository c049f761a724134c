//! Errors in the form of the SageMaker runtime: the type in `x-amzn-errortype`, the members as a
//! JSON body.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::container::{Answer, Trouble};
use crate::error::{Error, ErrorKind};

/// An error response of the platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    status: StatusCode,
    kind: Option<&'static str>,
    body: Value,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind: Some(kind), body: json!({"Message": message.into()}) }
    }

    /// `ValidationError`: the request is invalid.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationError", message)
    }

    /// The request is not signed.
    pub fn unsigned() -> Self {
        let problem = "the request is not signed";
        Self::new(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", problem)
    }

    /// `ModelNotReadyException`: the model is still being loaded.
    pub fn not_ready(target: &str) -> Self {
        let message = format!("{target} is still being loaded; ask again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "ModelNotReadyException", message)
    }

    /// The platform's response to an oversized body, which has no error type.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("HTTP content length exceeded {limit} bytes.");
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: None,
            body: json!({"Message": message}),
        }
    }

    /// `InternalFailure`: a defect, or a folder that cannot be read or written.
    pub fn internal(error: &Error) -> Self {
        tracing::error!(%error, "the local SageMaker runtime failed");
        let message = "the local runtime failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", message)
    }

    /// `ModelError`: the server responded with a status other than 200.
    pub fn model(answer: &Answer) -> Self {
        let side = if answer.status.is_client_error() { "client" } else { "server" };
        let original = String::from_utf8_lossy(&answer.body).into_owned();
        let code = answer.status.as_u16();
        let message =
            format!("Received {side} error ({code}) from primary with message \"{original}\"");
        Self::model_error(code, &original, &message)
    }

    /// `ModelError` or `ServiceUnavailable`: the server did not respond properly.
    pub fn trouble(trouble: &Trouble) -> Self {
        let original = match trouble {
            Trouble::Unreachable(problem) => {
                let message = format!("the endpoint's server cannot be reached: {problem}");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self::new(status, "ServiceUnavailable", message);
            }
            Trouble::Late => {
                "Your invocation timed out while waiting for a response from container primary; \
                 InvokeEndpointWithResponseStream waits longer than InvokeEndpoint, and asynchronous \
                 endpoints wait longest"
                    .to_owned()
            }
            Trouble::TooLarge(limit) => format!(
                "the answer is larger than {limit} bytes; have outputs written to S3 (outputS3Uri)"
            ),
        };
        let message = format!("Received server error (0) from primary with message \"{original}\"");
        Self::model_error(0, &original, &message)
    }

    fn model_error(code: u16, original: &str, message: &str) -> Self {
        Self {
            status: StatusCode::FAILED_DEPENDENCY,
            kind: Some("ModelError"),
            body: json!({
                "Message": message,
                "OriginalStatusCode": code,
                "OriginalMessage": original,
                "LogStreamArn": "",
            }),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidRequest | ErrorKind::NotFound => Self::validation(error.message()),
            _ => Self::internal(&error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(kind) = self.kind {
            let name = HeaderName::from_static("x-amzn-errortype");
            response.headers_mut().insert(name, HeaderValue::from_static(kind));
        }
        response
    }
}
