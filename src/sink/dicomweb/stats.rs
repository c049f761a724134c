//! Counters of the archive client.

use std::sync::atomic::{AtomicU64, Ordering};

use super::outcome::{Outcome, Status};
use crate::aws::{CallStats, Counters};

/// The operations in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DicomWebOperation {
    /// HealthImaging's `StoreDICOMStudy`.
    StoreDicomStudy,
    /// Store (PS3.18 section 10.5) to other archives.
    Store,
    /// Search (PS3.18 section 10.6) in other archives.
    Search,
}

impl DicomWebOperation {
    /// All operations.
    pub const ALL: [Self; 3] = [Self::StoreDicomStudy, Self::Store, Self::Search];

    /// Returns its name in metrics and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::StoreDicomStudy => "StoreDICOMStudy",
            Self::Store => "StoreInstances",
            Self::Search => "SearchInstances",
        }
    }
}

/// Counters since the start of the process.
#[derive(Debug)]
pub struct DicomWebStats {
    calls: [Counters; DicomWebOperation::ALL.len()],
    instances: [AtomicU64; Status::ALL.len()],
}

impl Default for DicomWebStats {
    fn default() -> Self {
        Self {
            calls: std::array::from_fn(|_| Counters::default()),
            instances: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl DicomWebStats {
    /// Returns a snapshot of one operation's counters.
    pub fn operation(&self, operation: DicomWebOperation) -> CallStats {
        self.counters(operation).snapshot()
    }

    /// Returns the number of instances by status.
    pub fn instances(&self) -> [(&'static str, u64); Status::ALL.len()] {
        Status::ALL
            .map(|status| (status.name(), self.instances[status as usize].load(Ordering::Relaxed)))
    }

    pub(super) fn counters(&self, operation: DicomWebOperation) -> &Counters {
        &self.calls[operation as usize]
    }

    /// Counts instances; one without an outcome counts as failed.
    pub(super) fn count(&self, outcomes: &[Option<Outcome>]) {
        for outcome in outcomes {
            let status = outcome.as_ref().map_or(Status::Failed, |outcome| outcome.status);
            self.instances[status as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}
