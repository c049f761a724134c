//! Responses of an archive to a request that it did not carry out as a whole.

use super::http::Response;
use super::target::Target;
use crate::aws::{Fault, Retry};
use crate::error::{Error, ErrorKind};

/// Returns the fault of a response with that status, by its meaning for the whole request.
pub(super) fn of(target: &Target, operation: &'static str, response: &Response) -> Fault {
    match target {
        Target::Datastore(_) => {
            Fault::refused(operation, response.status, response.code.as_deref())
        }
        Target::Service(_) => of_service(operation, response.status),
    }
}

fn of_service(operation: &'static str, status: u16) -> Fault {
    let (retry, kind, what) = match status {
        429 => (Retry::Later, ErrorKind::Throttled, "was refused for load"),
        503 => (Retry::Later, ErrorKind::Upstream, "found the archive not available"),
        408 | 500 | 502 | 504 => (Retry::Soon, ErrorKind::Upstream, "failed"),
        401 => (
            Retry::No,
            ErrorKind::Credentials,
            "was refused because the archive does not take the credentials; check DICOMWEB_TOKEN, or \
             DICOMWEB_USER and DICOMWEB_PASSWORD, and DICOMWEB_CREDENTIALS_ORIGIN",
        ),
        403 => (Retry::No, ErrorKind::AccessDenied, "is not allowed"),
        404 => (Retry::No, ErrorKind::NotFound, "found no DICOMweb service at that URL"),
        413 => (Retry::No, ErrorKind::Upstream, "was refused as too large"),
        300..=399 => (
            Retry::No,
            ErrorKind::Upstream,
            "met a redirect, which is not followed; name its target",
        ),
        _ => (Retry::No, ErrorKind::Upstream, "was refused"),
    };
    Fault { retry, error: Error::new(kind, format!("{operation} {what} (http status {status})")) }
}

/// Returns the fault of a response that does not belong to the operation.
pub(super) fn not_understood(operation: &'static str, status: u16) -> Fault {
    let what = format!(
        "the answer to {operation} is not the DICOM JSON of a store (HTTP status {status})"
    );
    Fault::last(Error::new(ErrorKind::Upstream, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_kinds() {
        use ErrorKind::{AccessDenied, Credentials, NotFound, Throttled, Upstream};
        for (status, retry, kind) in [
            (429, Retry::Later, Throttled),
            (503, Retry::Later, Upstream),
            (500, Retry::Soon, Upstream),
            (502, Retry::Soon, Upstream),
            (504, Retry::Soon, Upstream),
            (501, Retry::No, Upstream),
            (401, Retry::No, Credentials),
            (403, Retry::No, AccessDenied),
            (404, Retry::No, NotFound),
            (302, Retry::No, Upstream),
            (413, Retry::No, Upstream),
            (400, Retry::No, Upstream),
        ] {
            let fault = of_service("StoreInstances", status);
            assert_eq!((fault.retry, fault.error.kind()), (retry, kind), "{status}");
        }
    }
}
