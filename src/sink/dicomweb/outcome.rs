//! What is stored, and what became of it.

use bytes::Bytes;

use super::reasons;

/// A DICOM object to be stored.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The kind of output it is, as requests name it.
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

/// What became of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The archive stored it.
    Stored,
    /// It was in the archive before.
    Already,
    /// The archive stored it and warns.
    Warning,
    /// The archive refused it.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Already, Self::Warning, Self::Failed];

    /// Its name in answers and metrics.
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

/// What became of an instance, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What became of it.
    pub status: Status,
    /// Why, where it failed or the archive warns: in our own words, never the archive's.
    pub reason: Option<String>,
}

impl Outcome {
    pub(super) fn of(status: Status) -> Self {
        Self { status, reason: None }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { status: Status::Failed, reason: Some(reason.into()) }
    }

    /// Failure Reason (0008,1197).
    pub(super) fn refused(code: u16) -> Self {
        match reasons::is_duplicate(code) {
            true => Self::of(Status::Already),
            false => Self::failed(reasons::failure(code)),
        }
    }

    /// Warning Reason (0008,1196).
    pub(super) fn warned(code: u16) -> Self {
        match reasons::is_duplicate(code) {
            true => Self::of(Status::Already),
            false => Self { status: Status::Warning, reason: Some(reasons::warning(code)) },
        }
    }
}

/// An image set of HealthImaging that holds what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// Its identifier.
    pub image_set_id: String,
    /// Whether it is primary, where the service says it.
    pub is_primary: Option<bool>,
    /// The series that it holds.
    pub series_instance_uid: String,
}

/// What became of all instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// One for each instance, in their order.
    pub outcomes: Vec<Outcome>,
    /// Where HealthImaging has them.
    pub image_sets: Vec<ImageSet>,
    /// What the caller should know beside it.
    pub warnings: Vec<String>,
}
