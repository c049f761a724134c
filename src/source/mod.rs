//! Image sources. A source first delivers the headers of a series, then a stream of encoded frames
//! in order of arrival; it does not decode.

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

/// Maximum number of bytes of encoded frames that a source holds in memory for one series, or
/// [`FRAMES_IN_FLIGHT`] frames if those are more.
pub const BYTES_IN_FLIGHT: u64 = 128 << 20;

/// Number of frames that a source may hold in memory, whatever their size.
pub const FRAMES_IN_FLIGHT: usize = 2;

/// One frame as stored by its source.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// The frame's position in the series.
    pub key: FrameKey,
    /// The encoded bytes, in the transfer syntax of the frame's instance.
    pub data: Bytes,
}

/// A series of images that can be fetched.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Returns the headers of the series. Called once, before [`frames`](ImageSource::frames).
    async fn series(&self) -> Result<Series>;

    /// Streams the frames named by `keys` in order of arrival. The stream ends after the first
    /// error. Dropping the stream cancels everything in flight.
    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>>;

    /// Fetches one frame again because the first copy was broken. Returns `None` if the source
    /// would return the same bytes or may not be asked again.
    ///
    /// # Errors
    /// The errors of [`frames`](ImageSource::frames).
    async fn frame_again(&self, series: &Series, key: FrameKey) -> Result<Option<EncodedFrame>> {
        let _ = (series, key);
        Ok(None)
    }

    /// Returns warnings about skipped objects next to the series, once
    /// [`series`](ImageSource::series) has found it, for the response. They contain no patient
    /// data.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the origin of the images, once [`series`](ImageSource::series) has found it, for the
    /// audit log.
    fn origin(&self) -> Option<Origin> {
        None
    }
}

/// Origin of images: identifiers without patient data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// AHI data store.
    pub datastore_id: Option<String>,
    /// AHI image set.
    pub image_set_id: Option<String>,
    /// The version of the image set that was read.
    pub version_id: Option<String>,
    /// ETag of the S3 object that was read, if it is a single one.
    pub e_tag: Option<String>,
}
