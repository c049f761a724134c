//! Faults of one attempt of an AWS call, and whether another attempt may succeed.
//!
//! The same responses mean the same for every service, so there is one mapping. What the caller can
//! fix (a permission, a name) becomes a 4xx of this server; failures of credentials, clocks,
//! networks and services become a 5xx, so that they trip the operator's alarm. An error's own
//! message contains neither bodies nor a service's messages, but the error code and the request
//! identifier, which AWS support asks for.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_medicalimaging::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_medicalimaging::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{Error, ErrorKind, chain};

/// Whether and how soon a call may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    No,
    /// The connection or the service failed temporarily.
    Soon,
    /// The service wants fewer calls, or is still busy with the image set.
    Later,
}

/// A failed attempt.
#[derive(Debug)]
pub struct Fault {
    /// Whether another attempt may succeed.
    pub retry: Retry,
    /// The error if no attempt succeeds.
    pub error: Error,
}

impl Fault {
    /// Creates a transient fault.
    pub fn passing(error: Error) -> Self {
        Self { retry: Retry::Soon, error }
    }

    /// Creates a permanent fault.
    pub fn last(error: Error) -> Self {
        Self { retry: Retry::No, error }
    }

    pub(super) fn is_throttle(&self) -> bool {
        self.error.kind() == ErrorKind::Throttled
    }

    /// Maps an error response received outside the SDK, by its code or else its status.
    pub fn refused(operation: &str, status: u16, code: Option<&str>) -> Self {
        match code {
            Some(code) if is_skew(code, None) => skewed(operation, status, code),
            code => refused(operation, status, code),
        }
    }

    fn new(retry: Retry, kind: ErrorKind, message: String) -> Self {
        Self { retry, error: Error::new(kind, message) }
    }

    /// Creates the fault of an attempt that timed out.
    pub(super) fn timed_out(operation: &str, after: std::time::Duration) -> Self {
        let message = format!("{operation} did not answer within {after:?}");
        Self::new(Retry::Soon, ErrorKind::Upstream, message)
    }

    /// Creates the fault of a request that cannot be built.
    pub fn from_build(operation: &str, e: impl StdError + 'static) -> Self {
        let error = Error::internal(format!("{operation} cannot be called"));
        Self::last(error.caused_by(chain(&e)))
    }

    /// Maps an SDK error of `operation`.
    pub fn from_sdk<E>(operation: &str, e: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let mut fault = match e {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let header = code_in_headers(service.raw());
                let code = e.code().or(header.as_deref());
                match code {
                    Some(code) if is_skew(code, e.message()) => skewed(operation, status, code),
                    code => refused(operation, status, code),
                }
            }
            SdkError::ResponseError(response) if response.raw().status().as_u16() >= 400 => {
                // A response that is not an AWS error: from a proxy, or corrupted.
                let header = code_in_headers(response.raw());
                refused(operation, response.raw().status().as_u16(), header.as_deref())
            }
            SdkError::ResponseError(_) => Self::new(
                Retry::Soon,
                ErrorKind::Upstream,
                format!("{operation}'s response cannot be read"),
            ),
            _ => unsent(operation, e),
        };
        if let Some(id) = e.request_id() {
            fault.error = fault.error.with("awsRequestId", id);
        }
        fault.error = fault.error.caused_by(chain(e));
        fault
    }
}

/// Maps a request that got no response.
fn unsent<E>(operation: &str, e: &SdkError<E, HttpResponse>) -> Fault
where
    E: StdError + 'static,
{
    if let Some(fault) = without_credentials(e) {
        return fault;
    }
    let internal =
        |what: &str| Fault::last(Error::internal(format!("{operation} cannot be {what}")));
    match e {
        SdkError::ConstructionFailure(_) => internal("called"),
        SdkError::DispatchFailure(failure) if failure.is_user() => internal("sent"),
        SdkError::TimeoutError(_) => {
            let message = format!("{operation} did not answer in time");
            Fault::new(Retry::Soon, ErrorKind::Upstream, message)
        }
        _ => {
            let message = format!("{operation} cannot be reached");
            Fault::new(Retry::Soon, ErrorKind::Upstream, message)
        }
    }
}

/// Returns the error code of a response without a body, such as that of `HEAD`.
fn code_in_headers(response: &HttpResponse) -> Option<String> {
    let headers = response.headers();
    let text = headers.get("x-amz-error-code").or_else(|| headers.get("x-amzn-errortype"))?;
    let code = text.split(':').next().unwrap_or(text);
    let code = code.rsplit('#').next().unwrap_or(code).trim();
    (!code.is_empty()).then(|| code.to_owned())
}

/// Error codes by which a service asks for fewer calls.
const THROTTLES: [&str; 10] = [
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Error codes for expired credentials, in S3 and the other services.
const EXPIRED: [&str; 4] =
    ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"];

/// Error codes for credentials that are missing, unknown, or do not match the signature.
const NOT_KNOWN: [&str; 14] = [
    "AuthFailure",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "MissingSecurityHeader",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "UnrecognizedClientException",
];

/// Whether a response says that the clock is wrong. Services without a separate code say so in the
/// message about the signature.
fn is_skew(code: &str, message: Option<&str>) -> bool {
    match code {
        "RequestTimeTooSkewed" | "RequestInTheFuture" => true,
        "InvalidSignatureException" | "SignatureDoesNotMatch" => message
            .is_some_and(|m| m.contains("Signature expired") || m.contains("not yet current")),
        _ => false,
    }
}

/// The only refusal that is retried: the SDK learns the time from the response and uses it to sign
/// the next attempt.
fn skewed(operation: &str, status: u16, code: &str) -> Fault {
    let message = format!(
        "{operation} was refused because the clock of this machine is wrong; set it, as by NTP \
         ({code}, http status {status})"
    );
    Fault::new(Retry::Soon, ErrorKind::Credentials, message)
}

/// Maps an error response by its code or else its status.
fn refused(operation: &str, status: u16, code: Option<&str>) -> Fault {
    let name = code.unwrap_or("no error code");
    let (retry, kind, what) = match (name, status) {
        (code, status) if THROTTLES.contains(&code) || status == 429 => {
            (Retry::Later, ErrorKind::Throttled, "was refused for load")
        }
        (code, _) if EXPIRED.contains(&code) => (
            Retry::No,
            ErrorKind::Credentials,
            "was refused because the AWS credentials have expired; the platform replaces those of a \
             role, others have to be given anew",
        ),
        (code, _) if NOT_KNOWN.contains(&code) => (
            Retry::No,
            ErrorKind::Credentials,
            "was refused because AWS does not take the credentials; check the role or the access key",
        ),
        // A wrong key is a configuration error of this process, not of the request.
        (code, 400) if code.starts_with("KMS.") => {
            (Retry::No, ErrorKind::Configuration, "was refused for its KMS key")
        }
        ("ConflictException", _) => {
            (Retry::Later, ErrorKind::ImageSetNotReady, "met an image set still in the making")
        }
        ("ResourceNotFoundException" | "NoSuchBucket" | "NoSuchKey", _) | (_, 404) => {
            (Retry::No, ErrorKind::NotFound, "found no such resource")
        }
        ("PreconditionFailed", _) | (_, 412) => (
            Retry::No,
            ErrorKind::Upstream,
            "found that the object was replaced while it was read; send the request again",
        ),
        // The request body was corrupted in transit, or the response does not belong to the
        // operation.
        ("BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch", _) | (_, 200..=299) => {
            (Retry::Soon, ErrorKind::Upstream, "met a broken transfer")
        }
        ("RequestTimeout" | "RequestTimeoutException", _) | (_, 408 | 500..) => {
            (Retry::Soon, ErrorKind::Upstream, "failed")
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301 | 307) => {
            (Retry::No, ErrorKind::InvalidRequest, "found the bucket in another region")
        }
        (_, 401 | 403) => (Retry::No, ErrorKind::AccessDenied, "is not allowed"),
        (_, 400) => (Retry::No, ErrorKind::InvalidRequest, "was refused as invalid"),
        _ => (Retry::No, ErrorKind::Upstream, "was refused"),
    };
    Fault::new(retry, kind, format!("{operation} {what} ({name}, http status {status})"))
}

/// Maps missing credentials: a permanent fault if none are configured, a transient one if their
/// provider fails.
fn without_credentials(e: &(dyn StdError + 'static)) -> Option<Fault> {
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
    let message = "no AWS credentials were found; give the process a role or credentials";
    Some(Fault::new(retry, ErrorKind::Credentials, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_map_to_kinds() {
        use ErrorKind::{
            AccessDenied, Configuration, Credentials, ImageSetNotReady, InvalidRequest, NotFound,
            Throttled, Upstream,
        };
        for (code, status, retry, kind) in [
            ("ThrottlingException", 400, Retry::Later, Throttled),
            ("SlowDown", 503, Retry::Later, Throttled),
            ("", 429, Retry::Later, Throttled),
            ("ResourceNotFoundException", 404, Retry::No, NotFound),
            ("NoSuchKey", 404, Retry::No, NotFound),
            ("", 404, Retry::No, NotFound),
            ("AccessDeniedException", 403, Retry::No, AccessDenied),
            ("AccessDenied", 403, Retry::No, AccessDenied),
            ("", 403, Retry::No, AccessDenied),
            ("ExpiredTokenException", 403, Retry::No, Credentials),
            ("ExpiredToken", 400, Retry::No, Credentials),
            ("InvalidAccessKeyId", 403, Retry::No, Credentials),
            ("InvalidClientTokenId", 403, Retry::No, Credentials),
            ("UnrecognizedClientException", 403, Retry::No, Credentials),
            ("InvalidSignatureException", 403, Retry::No, Credentials),
            ("MissingAuthenticationTokenException", 403, Retry::No, Credentials),
            ("KMS.NotFoundException", 400, Retry::No, Configuration),
            ("ValidationException", 400, Retry::No, InvalidRequest),
            ("ConflictException", 409, Retry::Later, ImageSetNotReady),
            ("PreconditionFailed", 412, Retry::No, Upstream),
            ("InternalServerException", 500, Retry::Soon, Upstream),
            ("RequestTimeout", 400, Retry::Soon, Upstream),
            ("", 408, Retry::Soon, Upstream),
            ("", 200, Retry::Soon, Upstream),
            ("BadDigest", 400, Retry::Soon, Upstream),
            ("", 503, Retry::Soon, Upstream),
            ("", 418, Retry::No, Upstream),
        ] {
            let fault = refused("GetImageFrame", status, Some(code).filter(|c| !c.is_empty()));
            assert_eq!((fault.retry, fault.error.kind()), (retry, kind), "{code:?} {status}");
        }
    }

    #[test]
    fn a_wrong_clock_is_told_from_a_wrong_key() {
        let expired = "Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z";
        assert!(is_skew("RequestTimeTooSkewed", None));
        assert!(is_skew("InvalidSignatureException", Some(expired)));
        assert!(!is_skew("InvalidSignatureException", Some("The request signature differs")));
        assert!(!is_skew("AccessDenied", Some(expired)));
        assert_eq!(
            skewed("GetObject", 403, "RequestTimeTooSkewed").error.kind(),
            ErrorKind::Credentials
        );
    }

    #[test]
    fn missing_credentials_are_found_below_other_errors() {
        let below = CredentialsError::not_loaded("none");
        let fault = without_credentials(&below).unwrap();
        assert_eq!((fault.retry, fault.error.kind()), (Retry::No, ErrorKind::Credentials));
        let timed = CredentialsError::provider_timed_out(std::time::Duration::from_secs(1));
        assert_eq!(without_credentials(&timed).unwrap().retry, Retry::Soon);
        assert!(without_credentials(&std::io::Error::other("x")).is_none());
    }
}
