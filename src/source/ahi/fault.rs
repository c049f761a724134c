//! What went wrong with one attempt of a call to AHI, and whether another may succeed.
//!
//! Neither bodies nor the service's messages are repeated in an error's own message: it has the
//! error code and the request identifier, which is what AWS support asks for.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_medicalimaging::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_medicalimaging::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::stats::Operation;
use crate::error::{Error, ErrorKind, chain};

/// Whether and how soon the same call may be attempted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// It would fail again.
    No,
    /// The connection or the service failed by chance.
    Soon,
    /// The service wants fewer calls, or is still busy with the image set.
    Later,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) retry: Retry,
    pub(super) error: Error,
}

impl Fault {
    pub(super) fn is_throttle(&self) -> bool {
        self.error.kind() == ErrorKind::Throttled
    }

    fn new(retry: Retry, kind: ErrorKind, message: String) -> Self {
        Self { retry, error: Error::new(kind, message) }
    }

    /// A response that ended before its end, or too slowly for the SDK's taste.
    pub(super) fn broken_body(operation: Operation, e: &(dyn StdError + 'static)) -> Self {
        let message = format!("the body of {}'s response broke off", operation.name());
        let mut fault = Self::new(Retry::Soon, ErrorKind::Upstream, message);
        fault.error = fault.error.caused_by(chain(e));
        fault
    }

    /// A response longer than the program takes.
    pub(super) fn too_large(operation: Operation, limit: u64) -> Self {
        let message = format!("{}'s response is longer than {limit} bytes", operation.name());
        Self::new(Retry::No, ErrorKind::PayloadTooLarge, message)
    }

    /// No whole response in the time for one attempt.
    pub(super) fn timed_out(operation: Operation, after: std::time::Duration) -> Self {
        let message = format!("{} did not answer within {after:?}", operation.name());
        Self::new(Retry::Soon, ErrorKind::Upstream, message)
    }

    /// A request that cannot be put together.
    pub(super) fn from_build(operation: Operation, e: impl StdError + 'static) -> Self {
        let message = format!("{} cannot be called", operation.name());
        let mut fault = Self::new(Retry::No, ErrorKind::Internal, message);
        fault.error = fault.error.caused_by(chain(&e));
        fault
    }

    /// Whatever the SDK says.
    pub(super) fn from_sdk<E>(operation: Operation, e: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let name = operation.name();
        let mut fault = match e {
            SdkError::ServiceError(service) => {
                refused(name, service.raw().status().as_u16(), e.code())
            }
            SdkError::ConstructionFailure(_) => {
                Self::new(Retry::No, ErrorKind::Internal, format!("{name} cannot be called"))
            }
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                Self::new(Retry::No, ErrorKind::Internal, format!("{name} cannot be sent"))
            }
            SdkError::ResponseError(_) => Self::new(
                Retry::Soon,
                ErrorKind::Upstream,
                format!("{name}'s response cannot be read"),
            ),
            _ => credentials_fault(e).unwrap_or_else(|| {
                Self::new(Retry::Soon, ErrorKind::Upstream, format!("{name} cannot be reached"))
            }),
        };
        if let Some(id) = e.request_id() {
            fault.error = fault.error.with("awsRequestId", id);
        }
        fault.error = fault.error.caused_by(chain(e));
        fault
    }
}

/// An error response, by its code and else by its status.
fn refused(name: &str, status: u16, code: Option<&str>) -> Fault {
    let code = code.unwrap_or("no error code");
    let (retry, kind, what) = match (code, status) {
        (
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "SlowDown",
            _,
        )
        | (_, 429) => (Retry::Later, ErrorKind::Throttled, "was refused for load"),
        ("ResourceNotFoundException", _) => (Retry::No, ErrorKind::NotFound, "found no such thing"),
        ("ConflictException", _) => {
            (Retry::Later, ErrorKind::ImageSetNotReady, "met an image set still in the making")
        }
        ("ValidationException" | "BadRequestException", _) => {
            (Retry::No, ErrorKind::InvalidRequest, "was refused as invalid")
        }
        ("RequestTimeTooSkewed" | "RequestTimeout" | "RequestTimeoutException", _) => {
            (Retry::Soon, ErrorKind::Upstream, "failed")
        }
        (_, 401 | 403) => (Retry::No, ErrorKind::AccessDenied, "is not allowed"),
        (_, 408 | 500..) => (Retry::Soon, ErrorKind::Upstream, "failed"),
        _ => (Retry::No, ErrorKind::Upstream, "was refused"),
    };
    Fault::new(retry, kind, format!("{name} {what} ({code}, http status {status})"))
}

/// Credentials that are not to be had: for good where none are configured, for now where the place
/// that hands them out fails.
fn credentials_fault(e: &(dyn StdError + 'static)) -> Option<Fault> {
    let mut cause = e;
    let credentials = loop {
        match cause.downcast_ref::<CredentialsError>() {
            Some(credentials) => break credentials,
            None => cause = cause.source()?,
        }
    };
    let retry = match credentials {
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => Retry::Soon,
        _ => Retry::No,
    };
    let message = "no AWS credentials are to be had; give the process a role or credentials";
    Some(Fault::new(retry, ErrorKind::AccessDenied, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_map_to_kinds() {
        for (code, status, retry, kind) in [
            (Some("ThrottlingException"), 400, Retry::Later, ErrorKind::Throttled),
            (None, 429, Retry::Later, ErrorKind::Throttled),
            (Some("ResourceNotFoundException"), 404, Retry::No, ErrorKind::NotFound),
            (Some("AccessDeniedException"), 403, Retry::No, ErrorKind::AccessDenied),
            (Some("ExpiredTokenException"), 403, Retry::No, ErrorKind::AccessDenied),
            (Some("ValidationException"), 400, Retry::No, ErrorKind::InvalidRequest),
            (Some("ConflictException"), 409, Retry::Later, ErrorKind::ImageSetNotReady),
            (Some("InternalServerException"), 500, Retry::Soon, ErrorKind::Upstream),
            (None, 503, Retry::Soon, ErrorKind::Upstream),
            (None, 418, Retry::No, ErrorKind::Upstream),
        ] {
            let fault = refused("GetImageFrame", status, code);
            assert_eq!((fault.retry, fault.error.kind()), (retry, kind), "{code:?} {status}");
        }
    }
}
