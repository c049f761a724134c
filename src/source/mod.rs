//! Where images come from. A source first delivers the headers of a series, then a stream of
//! encoded frames in whatever order they arrive; it decodes nothing.

pub mod ahi;
pub mod archive;
pub mod aws;
pub mod dicom_files;
pub mod dicom_objects;
pub mod local;
mod packed;
pub mod s3;

pub use crate::aws::limiter;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::dicom::{FrameKey, Series};
use crate::error::Result;

/// Bytes of frames that a source has in memory at once for one series, before they are decoded; or
/// [`FRAMES_IN_FLIGHT`] frames, where that is more.
pub const BYTES_IN_FLIGHT: u64 = 128 << 20;

/// Frames that a source has in memory at once however large they are.
pub const FRAMES_IN_FLIGHT: usize = 2;

/// One frame as its source stores it.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Which frame of the series this is.
    pub key: FrameKey,
    /// The encoded bytes, in the transfer syntax of the frame's instance.
    pub data: Bytes,
}

/// One series of images that can be fetched.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// The headers of the series. Called once, before [`frames`](ImageSource::frames).
    async fn series(&self) -> Result<Series>;

    /// The frames named by `keys`, in the order they arrive. After the first error the stream ends.
    /// Dropping the stream cancels what is in flight.
    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>>;

    /// One frame once more, because what came the first time was broken; `None` where the source would
    /// give the same bytes again, or may not be asked any more.
    ///
    /// # Errors
    /// Those of [`frames`](ImageSource::frames).
    async fn frame_again(&self, series: &Series, key: FrameKey) -> Result<Option<EncodedFrame>> {
        let _ = (series, key);
        Ok(None)
    }

    /// What lay beside the series and was passed over, once [`series`](ImageSource::series) has found it:
    /// for the answer's warnings. Nothing of a patient.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What was read, once [`series`](ImageSource::series) has found it: for the audit.
    fn origin(&self) -> Option<Origin> {
        None
    }
}

/// Where images were read from: identifiers that are no patient's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// AHI data store.
    pub datastore_id: Option<String>,
    /// AHI image set.
    pub image_set_id: Option<String>,
    /// The version of the image set that was read.
    pub version_id: Option<String>,
    /// ETag of the object in S3 that was read, where it is a single one.
    pub e_tag: Option<String>,
}
