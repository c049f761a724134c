//! What the AHI client has done so far, by operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::aws::{CallStats, Counters};

/// The operations of AHI in use.
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
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ListDatastores,
        Self::SearchImageSets,
        Self::GetImageSet,
        Self::GetImageSetMetadata,
        Self::GetImageFrame,
    ];

    /// The service's own name of the operation.
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

/// Counters of every operation, from the start of the process.
#[derive(Debug, Default)]
pub struct AhiStats {
    datastores: Counters,
    search: Counters,
    image_set: Counters,
    metadata: Counters,
    frame: Counters,
    frame_times: FrameTimes,
}

/// Nanoseconds, summed over the frames that came.
#[derive(Debug, Default)]
struct FrameTimes {
    slot: AtomicU64,
    first_byte: AtomicU64,
    body: AtomicU64,
}

/// What the fetching of one frame consisted of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameTime {
    /// Waiting for one of the places in flight, for a token of the rate, and for attempts that failed.
    pub slot: Duration,
    /// From the request that succeeded to the head of its response.
    pub first_byte: Duration,
    /// From there to the end of the body.
    pub body: Duration,
}

impl AhiStats {
    /// Where the time of fetching frames went so far, by the names that it has in the metrics, summed
    /// over frames, which are fetched many at a time.
    pub fn frame_steps(&self) -> [(&'static str, Duration); 3] {
        let FrameTimes { slot, first_byte, body } = &self.frame_times;
        let read = |sum: &AtomicU64| Duration::from_nanos(sum.load(Ordering::Relaxed));
        [("slot", read(slot)), ("first_byte", read(first_byte)), ("body", read(body))]
    }

    /// A frame came.
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

    /// The counters of one operation as they stand. Bytes are counted for `GetImageSetMetadata` and
    /// `GetImageFrame` alone.
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
