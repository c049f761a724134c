//! Limits of the AHI client.

use crate::aws::{Patience, Rate};

/// Limits of one [`AhiClient`](super::AhiClient).
///
/// The rates default to the service's own quotas (HealthImaging developer guide, "Throttling
/// limits"); lower them if several processes share an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AhiSettings {
    /// Maximum number of frames fetched at the same time, over all image sets.
    pub max_in_flight: usize,
    /// Timeouts and retries of calls.
    pub patience: Patience,
    /// Rate of `GetImageFrame`.
    pub frame_rate: Rate,
    /// Rate of `GetImageSetMetadata`.
    pub metadata_rate: Rate,
    /// Rate of `GetImageSet`.
    pub image_set_rate: Rate,
    /// Whether image sets that conflict with others of their series may be read, too.
    pub allow_non_primary: bool,
    /// Maximum size of a metadata document, decompressed, in bytes.
    pub max_metadata_bytes: u64,
    /// Maximum size of an encoded frame in bytes.
    pub max_frame_bytes: u64,
}

impl Default for AhiSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 64,
            patience: Patience::default(),
            frame_rate: Rate { per_second: 1000, burst: 2000 },
            metadata_rate: Rate { per_second: 50, burst: 100 },
            image_set_rate: Rate { per_second: 25, burst: 50 },
            allow_non_primary: false,
            max_metadata_bytes: 256 << 20,
            max_frame_bytes: 256 << 20,
        }
    }
}
