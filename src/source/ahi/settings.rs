//! Bounds that the AHI client keeps to.

use std::time::Duration;

use crate::source::limiter::Rate;

/// Bounds of one [`AhiClient`](super::AhiClient).
///
/// The rates default to the service's own quotas (HealthImaging developer guide, "Throttling
/// limits"); lower them where several processes share an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AhiSettings {
    /// Frames fetched at the same time, over all image sets.
    pub max_in_flight: usize,
    /// Attempts of one call, the first included.
    pub max_attempts: u32,
    /// Time for one attempt, the response's body included.
    pub attempt_timeout: Duration,
    /// Longest wait before the second attempt; doubled for each one after it. Waits are drawn at
    /// random between nothing and the longest. Throttled calls wait five times as long.
    pub backoff: Duration,
    /// Longest wait before any attempt.
    pub max_backoff: Duration,
    /// `GetImageFrame`.
    pub frame_rate: Rate,
    /// `GetImageSetMetadata`.
    pub metadata_rate: Rate,
    /// `GetImageSet`.
    pub image_set_rate: Rate,
    /// Whether image sets that conflict with others of their series may be read too.
    pub allow_non_primary: bool,
    /// Largest metadata document, decompressed, in bytes.
    pub max_metadata_bytes: u64,
    /// Largest encoded frame in bytes.
    pub max_frame_bytes: u64,
}

impl Default for AhiSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 64,
            max_attempts: 6,
            attempt_timeout: Duration::from_secs(60),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            frame_rate: Rate { per_second: 1000, burst: 2000 },
            metadata_rate: Rate { per_second: 50, burst: 100 },
            image_set_rate: Rate { per_second: 25, burst: 50 },
            allow_non_primary: false,
            max_metadata_bytes: 256 << 20,
            max_frame_bytes: 256 << 20,
        }
    }
}
