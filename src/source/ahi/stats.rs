//! What the AHI client has done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// The operations of AHI in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `SearchImageSets`.
    SearchImageSets,
    /// `GetImageSet`.
    GetImageSet,
    /// `GetImageSetMetadata`.
    GetImageSetMetadata,
    /// `GetImageFrame`.
    GetImageFrame,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::SearchImageSets, Self::GetImageSet, Self::GetImageSetMetadata, Self::GetImageFrame];

    /// The service's own name of the operation.
    pub fn name(self) -> &'static str {
        match self {
            Self::SearchImageSets => "SearchImageSets",
            Self::GetImageSet => "GetImageSet",
            Self::GetImageSetMetadata => "GetImageSetMetadata",
            Self::GetImageFrame => "GetImageFrame",
        }
    }
}

/// Counters of every operation, from the start of the process.
#[derive(Debug, Default)]
pub struct AhiStats {
    search: Counters,
    image_set: Counters,
    metadata: Counters,
    frame: Counters,
}

impl AhiStats {
    /// The counters of one operation as they stand.
    pub fn operation(&self, operation: Operation) -> OperationStats {
        let counters = self.counters(operation);
        OperationStats {
            calls: counters.calls.load(Ordering::Relaxed),
            attempts: counters.attempts.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            throttles: counters.throttles.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn counters(&self, operation: Operation) -> &Counters {
        match operation {
            Operation::SearchImageSets => &self.search,
            Operation::GetImageSet => &self.image_set,
            Operation::GetImageSetMetadata => &self.metadata,
            Operation::GetImageFrame => &self.frame,
        }
    }
}

/// A snapshot of one operation's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationStats {
    /// Calls made, however many attempts each took.
    pub calls: u64,
    /// Requests sent.
    pub attempts: u64,
    /// Attempts after the first of their call.
    pub retries: u64,
    /// Responses that refused for load.
    pub throttles: u64,
    /// Calls given up.
    pub failures: u64,
    /// Bytes of whole bodies received (none are counted for `SearchImageSets` and `GetImageSet`).
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    calls: AtomicU64,
    attempts: AtomicU64,
    retries: AtomicU64,
    throttles: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(super) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attempt(&self, first: bool) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if !first {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn throttle(&self) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
