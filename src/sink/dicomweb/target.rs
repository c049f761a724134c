//! Archives to store in.

use serde_json::{Value, json};

use super::batch::LARGEST;
use super::outcome::Instance;
use super::stats::DicomWebOperation;
use crate::archive::ServiceUrl;
use crate::error::Error;

/// An archive to store in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A data store of AWS HealthImaging.
    Datastore(String),
    /// A DICOMweb service.
    Service(ServiceUrl),
}

impl Target {
    /// Describes it for reports.
    pub fn describe(&self) -> Value {
        match self {
            Self::Datastore(id) => json!({ "datastoreId": id }),
            Self::Service(url) => json!({ "dicomweb": url.to_string() }),
        }
    }

    /// Returns its name in the audit log: one word.
    pub fn name(&self) -> String {
        match self {
            Self::Datastore(id) => format!("datastore/{id}"),
            Self::Service(url) => url.to_string(),
        }
    }

    pub(super) fn name_in(&self, error: Error) -> Error {
        match self {
            Self::Datastore(id) => error
                .context(format_args!("storing in data store {id}"))
                .with("datastoreId", id.as_str()),
            Self::Service(url) => error
                .context(format_args!("storing in the archive at {}", url.origin()))
                .with("archive", url.origin()),
        }
    }

    /// Whether an instance is too large for a request.
    pub(super) fn is_too_large(&self, instance: &Instance) -> bool {
        matches!(self, Self::Datastore(_)) && instance.bytes.len() > LARGEST
    }

    pub(super) fn store_operation(&self) -> DicomWebOperation {
        match self {
            Self::Datastore(_) => DicomWebOperation::StoreDicomStudy,
            Self::Service(_) => DicomWebOperation::Store,
        }
    }
}
