//! The one error type of the crate.
//!
//! An [`Error`] says what went wrong in terms a caller can act on: its [`ErrorKind`] is the closed
//! list of causes, its message names what was at fault (an instance, a frame, a JSON path, a model)
//! and what to do about it, and its details repeat the identifiers for machines. Nothing here knows
//! about HTTP: `server` maps each kind to a status in one table. Messages never carry pixel data or
//! patient attributes, because they end in logs and in answers.

use std::fmt;

use serde_json::{Map, Value};

/// Result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed, as seen by whoever has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be understood: not JSON, a missing or unknown field, a bad value.
    InvalidRequest,
    /// The body's `Content-Type` is not one the server reads.
    UnsupportedMediaType,
    /// Nothing the server can produce matches `Accept`.
    NotAcceptable,
    /// The request did not arrive in time: its client sends nothing, or too slowly.
    RequestTimeout,
    /// The body, or what it expands to, is larger than the configured limit.
    PayloadTooLarge,
    /// No such route.
    RouteNotFound,
    /// The route does not take the method.
    MethodNotAllowed,
    /// The image set, data store or object named in the request does not exist.
    NotFound,
    /// The model named in the request is not here.
    ModelNotFound,
    /// A model of that name is loaded already.
    ModelAlreadyLoaded,
    /// The model's package cannot be used: broken ONNX, bad configuration, unsupported transform.
    InvalidModel,
    /// The credentials in use, or the settings, do not allow to read or write what the request names.
    AccessDenied,
    /// The image set is not in a state to be read (not ACTIVE, not primary).
    ImageSetNotReady,
    /// The images cannot be made into a volume, or do not fit the model: attributes, geometry, gaps.
    InvalidImage,
    /// A frame's bytes are truncated, do not decode, or fail their checksum or dimensions.
    CorruptFrame,
    /// The pixel data's transfer syntax or format is one no decoder here takes.
    UnsupportedPixelData,
    /// A service this server depends on refuses for load, after retries.
    Throttled,
    /// A service this server depends on failed or could not be reached, after retries.
    Upstream,
    /// This server's own credentials are missing, expired or not taken, or its clock is wrong.
    Credentials,
    /// The server has as much work as it may accept.
    Overloaded,
    /// The server is stopping or not ready yet.
    Unavailable,
    /// The request's deadline passed.
    DeadlineExceeded,
    /// Whoever asked went away.
    Cancelled,
    /// Memory for a model or a request is not to be had.
    OutOfMemory,
    /// The network failed in ONNX Runtime or on a GPU although its input is one it takes.
    InferenceFailed,
    /// The process was set up wrongly: flags, environment, missing library.
    Configuration,
    /// A local file or folder cannot be read or written.
    Io,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// The stable name of this kind in answers, logs and metrics: lower case, underscores.
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

/// What went wrong, for whom to act on it, and where.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    details: Map<String, Value>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error. `message` is lower case, names what was at fault and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), details: Map::new(), source: None }))
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds an identifier to the details: `sopInstanceUID`, `frame`, `path`, `model` and the like.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(key.to_owned(), value.into());
        self
    }

    /// Keeps the error below this one as its source.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `context` and a colon before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same error once more, without its source: for a failure that several callers are told.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            details: self.0.details.clone(),
            source: None,
        }))
    }

    /// The cause, from the closed list.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was at fault and what to do.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Identifiers of what was at fault.
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

/// The messages of an error and of its causes, outermost first. For errors of other libraries whose
/// `Debug` form would carry whole requests or responses along.
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
