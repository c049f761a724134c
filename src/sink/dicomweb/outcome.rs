//! Instances to store, and their outcomes.

use bytes::Bytes;

use super::reasons;

/// A DICOM object to be stored.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The kind of output, as named in requests.
    pub kind: &'static str,
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// The object as a PS3.10 file.
    pub bytes: Bytes,
}

/// Result of storing an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The archive stored it.
    Stored,
    /// It was already in the archive.
    Already,
    /// The archive stored it with a warning.
    Warning,
    /// The archive refused it.
    Failed,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Already, Self::Warning, Self::Failed];

    /// Returns its name in responses and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Already => "already",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    /// Whether the instance is in the archive.
    pub fn is_there(self) -> bool {
        self != Self::Failed
    }
}

/// The result of storing an instance, with a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result.
    pub status: Status,
    /// The reason for a failure or warning: in this program's words, never the archive's.
    pub reason: Option<String>,
}

impl Outcome {
    pub(super) fn of(status: Status) -> Self {
        Self { status, reason: None }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { status: Status::Failed, reason: Some(reason.into()) }
    }

    /// The outcome of a Failure Reason (0008,1197).
    pub(super) fn refused(code: u16) -> Self {
        match reasons::is_duplicate(code) {
            true => Self::of(Status::Already),
            false => Self::failed(reasons::failure(code)),
        }
    }

    /// The outcome of a Warning Reason (0008,1196).
    pub(super) fn warned(code: u16) -> Self {
        match reasons::is_duplicate(code) {
            true => Self::of(Status::Already),
            false => Self { status: Status::Warning, reason: Some(reasons::warning(code)) },
        }
    }
}

/// An image set of HealthImaging that holds stored instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// Its identifier.
    pub image_set_id: String,
    /// Whether it is primary, if the service states it.
    pub is_primary: Option<bool>,
    /// The series that it holds.
    pub series_instance_uid: String,
}

/// The results of storing all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// One outcome for each instance, in order.
    pub outcomes: Vec<Outcome>,
    /// The image sets in HealthImaging that hold them.
    pub image_sets: Vec<ImageSet>,
    /// Warnings for the caller.
    pub warnings: Vec<String>,
}
