//! What the AHI client has done so far, by operation.

use crate::aws::{CallStats, Counters};

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
    /// The counters of one operation as they stand. Bytes are not counted for `SearchImageSets` and
    /// `GetImageSet`.
    pub fn operation(&self, operation: Operation) -> CallStats {
        self.counters(operation).snapshot()
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
