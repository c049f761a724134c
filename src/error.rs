//! The error type of the crate.
//!
//! An [`Error`] tells the caller what to do about it: its [`ErrorKind`] is one of a closed list of
//! causes, its message names what is at fault (an instance, a frame, a JSON path, a model) and the
//! remedy, and its details repeat the identifiers in machine-readable form. Errors are independent
//! of HTTP: `server` maps each kind to a status in one table. Messages never contain pixel data or
//! patient attributes, because they end up in logs and responses.

use std::fmt;

use serde_json::{Map, Value};

/// Result of a fallible operation in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error, as seen by the caller or operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be parsed or validated: not JSON, a missing or unknown field, a bad
    /// value.
    InvalidRequest,
    /// The `Content-Type` of the body is not supported.
    UnsupportedMediaType,
    /// No available representation matches `Accept`.
    NotAcceptable,
    /// The request did not arrive in time: its client stalled or was too slow.
    RequestTimeout,
    /// The body, or its decompressed content, is larger than the configured limit.
    PayloadTooLarge,
    /// The route does not exist.
    RouteNotFound,
    /// The route does not support the method.
    MethodNotAllowed,
    /// The image set, data store or object named in the request does not exist.
    NotFound,
    /// The model named in the request is not available.
    ModelNotFound,
    /// A model of that name is already loaded.
    ModelAlreadyLoaded,
    /// The model package cannot be used: broken ONNX, bad configuration, unsupported transform.
    InvalidModel,
    /// The credentials or the settings do not permit access to what the request names.
    AccessDenied,
    /// The image set is not in a readable state (not ACTIVE, not primary).
    ImageSetNotReady,
    /// The images do not form a volume, or do not match the model: attributes, geometry, gaps.
    InvalidImage,
    /// A frame's bytes are truncated, cannot be decoded, or do not match their checksum or
    /// dimensions.
    CorruptFrame,
    /// No decoder supports the transfer syntax or format of the pixel data.
    UnsupportedPixelData,
    /// An upstream service rejected requests because of load, even after retries.
    Throttled,
    /// An upstream service failed or could not be reached, even after retries.
    Upstream,
    /// The server's own credentials are missing, expired or rejected, or its clock is wrong.
    Credentials,
    /// The server has reached its capacity.
    Overloaded,
    /// The server is stopping or not ready yet.
    Unavailable,
    /// The request's deadline passed.
    DeadlineExceeded,
    /// The caller disconnected.
    Cancelled,
    /// There is not enough memory for a model or a request.
    OutOfMemory,
    /// The network failed in ONNX Runtime or on a GPU although its input was valid.
    InferenceFailed,
    /// The process is misconfigured: flags, environment, missing library.
    Configuration,
    /// A local file or folder cannot be read or written.
    Io,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Returns the stable name of this kind in responses, logs and metrics: lower case with
    /// underscores.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::NotAcceptable => "not_acceptable",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RouteNotFound => "route_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::ModelNotFound => "model_not_found",
            Self::ModelAlreadyLoaded => "model_already_loaded",
            Self::InvalidModel => "invalid_model",
            Self::AccessDenied => "access_denied",
            Self::ImageSetNotReady => "image_set_not_ready",
            Self::InvalidImage => "invalid_image",
            Self::CorruptFrame => "corrupt_frame",
            Self::UnsupportedPixelData => "unsupported_pixel_data",
            Self::Throttled => "throttled",
            Self::Upstream => "upstream",
            Self::Credentials => "credentials",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out_of_memory",
            Self::InferenceFailed => "inference_failed",
            Self::Configuration => "configuration",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }
}

/// An error with its cause, message and details.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    details: Map<String, Value>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error. `message` is lower case and names what is at fault and the remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), details: Map::new(), source: None }))
    }

    /// Creates an error for a defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds an identifier to the details: `sopInstanceUID`, `frame`, `path`, `model` and the like.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(key.to_owned(), value.into());
        self
    }

    /// Attaches the underlying error as the source.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Prefixes the message with `context` and a colon.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Returns a copy without the source, for a failure reported to several callers.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            details: self.0.details.clone(),
            source: None,
        }))
    }

    /// Returns the cause.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the message: what is at fault and the remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the identifiers of what is at fault.
    pub fn details(&self) -> &Map<String, Value> {
        &self.0.details
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("details", &self.0.details)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

/// Joins the messages of an error and its causes, outermost first. For errors of libraries whose
/// `Debug` output would contain whole requests or responses.
pub fn chain(e: &(dyn std::error::Error + 'static)) -> String {
    let mut messages = vec![e.to_string()];
    let mut next = e.source();
    while let Some(e) = next {
        let message = e.to_string();
        if messages.last() != Some(&message) {
            messages.push(message);
        }
        next = e.source();
    }
    messages.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_details() {
        let e = Error::new(ErrorKind::CorruptFrame, "checksum differs")
            .with("frame", 3)
            .context("instance 1.2.3");
        assert_eq!(e.kind(), ErrorKind::CorruptFrame);
        assert_eq!(e.to_string(), "instance 1.2.3: checksum differs");
        assert_eq!(e.details()["frame"], 3);
    }
}
