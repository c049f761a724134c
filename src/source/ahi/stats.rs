//! Counters of the AHI client, by operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::aws::{CallStats, Counters};

/// The AHI operations in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `ListDatastores`.
    ListDatastores,
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
    /// All operations.
    pub const ALL: [Self; 5] = [
        Self::ListDatastores,
        Self::SearchImageSets,
        Self::GetImageSet,
        Self::GetImageSetMetadata,
        Self::GetImageFrame,
    ];

    /// Returns the service's name of the operation.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListDatastores => "ListDatastores",
            Self::SearchImageSets => "SearchImageSets",
            Self::GetImageSet => "GetImageSet",
            Self::GetImageSetMetadata => "GetImageSetMetadata",
            Self::GetImageFrame => "GetImageFrame",
        }
    }
}

/// Counters of every operation since the start of the process.
#[derive(Debug, Default)]
pub struct AhiStats {
    datastores: Counters,
    search: Counters,
    image_set: Counters,
    metadata: Counters,
    frame: Counters,
    frame_times: FrameTimes,
}

/// Nanoseconds, summed over the frames received.
#[derive(Debug, Default)]
struct FrameTimes {
    slot: AtomicU64,
    first_byte: AtomicU64,
    body: AtomicU64,
}

/// The phases of fetching one frame.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameTime {
    /// Waiting for a permit, for a rate limiter token, and for failed attempts.
    pub slot: Duration,
    /// From the successful request to the head of its response.
    pub first_byte: Duration,
    /// From the head of the response to the end of the body.
    pub body: Duration,
}

impl AhiStats {
    /// Returns the time spent fetching frames so far, by phase as named in the metrics, summed over
    /// frames, many of which are fetched concurrently.
    pub fn frame_steps(&self) -> [(&'static str, Duration); 3] {
        let FrameTimes { slot, first_byte, body } = &self.frame_times;
        let read = |sum: &AtomicU64| Duration::from_nanos(sum.load(Ordering::Relaxed));
        [("slot", read(slot)), ("first_byte", read(first_byte)), ("body", read(body))]
    }

    /// Records a received frame.
    pub(super) fn frame_came(&self, time: FrameTime) {
        let FrameTimes { slot, first_byte, body } = &self.frame_times;
        let add = |sum: &AtomicU64, time: Duration| {
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            sum.fetch_add(nanoseconds, Ordering::Relaxed);
        };
        add(slot, time.slot);
        add(first_byte, time.first_byte);
        add(body, time.body);
    }

    /// Returns a snapshot of one operation's counters. Bytes are counted only for
    /// `GetImageSetMetadata` and `GetImageFrame`.
    pub fn operation(&self, operation: Operation) -> CallStats {
        self.counters(operation).snapshot()
    }

    pub(super) fn counters(&self, operation: Operation) -> &Counters {
        match operation {
            Operation::ListDatastores => &self.datastores,
            Operation::SearchImageSets => &self.search,
            Operation::GetImageSet => &self.image_set,
            Operation::GetImageSetMetadata => &self.metadata,
            Operation::GetImageFrame => &self.frame,
        }
    }
}
