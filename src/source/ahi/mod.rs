//! AWS HealthImaging as a source: one client per process, one source per image set.
//!
//! A source first checks that its image set may be read, pins the version it found and reads that
//! version's metadata; it then fetches frames, many at a time. Frames are immutable in AHI and
//! named by the pinned metadata, so a concurrent change of the image set cannot mix two versions.
//! Checksums and dimensions are not checked here, because they describe decoded pixels.

mod client;
mod listing;
mod search;
mod settings;
mod stats;
mod stored;

use std::sync::OnceLock;

use async_trait::async_trait;
use dicom_dictionary_std::tags;
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

pub use client::{AhiClient, ImageSetId};
pub use listing::{Datastore, ImageSetPage, ListedImageSet};
pub use settings::AhiSettings;
pub use stats::{AhiStats, Operation};
pub use stored::FoundSet;

use super::{BYTES_IN_FLIGHT, EncodedFrame, FRAMES_IN_FLIGHT, ImageSource, Origin};
use crate::aws::Retry;
use crate::dicom::{Attributes, FrameDescriptor, FrameKey, Instance, Series};
use crate::error::{Error, ErrorKind, Result};

/// One image set.
#[derive(Debug)]
pub struct AhiSource {
    client: AhiClient,
    id: ImageSetId,
    wanted_version: Option<String>,
    version: OnceLock<String>,
}

impl AhiSource {
    /// Creates a source for the image set `id` at `version`, or at the latest version.
    ///
    /// # Errors
    /// `InvalidRequest` if the version is not a number.
    pub fn new(client: AhiClient, id: ImageSetId, version: Option<&str>) -> Result<Self> {
        if let Some(version) = version {
            let is_number = version.bytes().all(|b| b.is_ascii_digit());
            if version.is_empty() || version.len() > 20 || !is_number {
                return Err(Error::new(ErrorKind::InvalidRequest, "versionId is not a number")
                    .with("field", "versionId"));
            }
        }
        let wanted_version = version.map(str::to_owned);
        Ok(Self { client, id, wanted_version, version: OnceLock::new() })
    }

    /// Returns the version that is read, once [`series`](ImageSource::series) has determined it.
    pub fn version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }
}

#[async_trait]
impl ImageSource for AhiSource {
    async fn series(&self) -> Result<Series> {
        let wanted = self.wanted_version.as_deref();
        let mut version = self.client.readable_version(&self.id, wanted).await?;
        let metadata = match self.client.metadata(&self.id, &version).await {
            // A version that was just found must exist. If it does not, the response that named it
            // was corrupted: its digits have no checksum.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidRequest) => {
                let again = self.client.readable_version(&self.id, wanted).await?;
                if again == version {
                    return Err(e);
                }
                version = again;
                self.client.metadata(&self.id, &version).await?
            }
            metadata => metadata?,
        };
        // Only the first call's version counts: it is the one whose series is read.
        let _ = self.version.set(version);
        Ok(metadata.series)
    }

    fn origin(&self) -> Option<Origin> {
        let version = self.version()?;
        Some(Origin {
            datastore_id: Some(self.id.datastore_id().to_owned()),
            image_set_id: Some(self.id.image_set_id().to_owned()),
            version_id: Some(version.to_owned()),
            e_tag: None,
        })
    }

    /// The stream must be polled within a Tokio runtime: a separate task fetches each frame, so
    /// that transfers continue while the consumer of the stream decodes.
    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>> {
        self.client.allowance().expect(keys.len());
        let wanted: Vec<_> = keys.into_iter().map(|key| Wanted::find(series, key)).collect();
        let (client, image_set) = (self.client.clone(), self.id.clone());
        let span = tracing::Span::current();
        let concurrency = at_once(&wanted, client.max_in_flight());
        let fetches = stream::iter(wanted)
            .map(move |wanted| fetch(client.clone(), image_set.clone(), wanted, span.clone()))
            .buffer_unordered(concurrency);
        until_error(fetches.boxed())
    }

    async fn frame_again(&self, series: &Series, key: FrameKey) -> Result<Option<EncodedFrame>> {
        // Counts as a retry: a permanently broken frame must not be fetched over and over.
        if !self.client.allowance().retry(Retry::Soon) {
            return Ok(None);
        }
        self.client.stats().counters(Operation::GetImageFrame).refetch();
        let wanted = Wanted::find(series, key);
        fetch(self.client.clone(), self.id.clone(), wanted, tracing::Span::current())
            .await
            .map(Some)
    }
}

/// Number of frames to fetch at once: the maximum, or fewer if they are so large that they would
/// fill the memory before they are decoded.
fn at_once(wanted: &[Result<Wanted>], most: usize) -> usize {
    let largest = wanted.iter().flatten().filter_map(|frame| frame.most).max().unwrap_or(0);
    let fitting = BYTES_IN_FLIGHT.checked_div(largest).unwrap_or(u64::MAX);
    let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
    fitting.max(FRAMES_IN_FLIGHT).min(most)
}

/// A frame to fetch.
struct Wanted {
    key: FrameKey,
    id: String,
    /// Maximum number of bytes that its pixels can need.
    most: Option<u64>,
}

impl Wanted {
    fn find(series: &Series, key: FrameKey) -> Result<Self> {
        let found = series
            .instances
            .get(key.instance)
            .and_then(|instance| Some((instance, instance.frames.get(key.frame)?)));
        let (instance, frame) =
            found.ok_or_else(|| Error::internal(format!("{key:?} is not in the series")))?;
        Ok(Self { key, id: frame.id.clone(), most: most_bytes(instance, frame) })
    }
}

/// Maximum number of bytes that a frame can need, however badly it is compressed: twice its pixels,
/// plus its headers.
fn most_bytes(instance: &Instance, frame: &FrameDescriptor) -> Option<u64> {
    const HEADERS: u64 = 64 << 10;
    let number = |tag| instance.dataset.number(tag).map(|n| n as u64);
    let (columns, rows) = match frame.dimensions {
        Some((width, height)) => (width.into(), height.into()),
        None => (number(tags::COLUMNS)?, number(tags::ROWS)?),
    };
    let bytes = number(tags::BITS_ALLOCATED).unwrap_or(16).div_ceil(8);
    let samples = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let raw = [rows, bytes, samples].into_iter().fold(columns, u64::saturating_mul);
    Some(raw.saturating_mul(2).saturating_add(HEADERS))
}

/// Fetches one frame in a task that is aborted when this future is dropped.
async fn fetch(
    client: AhiClient,
    image_set: ImageSetId,
    wanted: Result<Wanted>,
    span: tracing::Span,
) -> Result<EncodedFrame> {
    let Wanted { key, id, most } = wanted?;
    let task = async move { client.frame(&image_set, &id, most).await };
    let data = AbortOnDropHandle::new(tokio::spawn(task.instrument(span)))
        .await
        .map_err(|e| Error::internal("fetching a frame was aborted").caused_by(e))??;
    Ok(EncodedFrame { key, data })
}

/// Ends `frames` after the first error and drops the stream, and with it everything in flight.
fn until_error(
    frames: BoxStream<'static, Result<EncodedFrame>>,
) -> BoxStream<'static, Result<EncodedFrame>> {
    stream::unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        let frame = frames.next().await?;
        let rest = frame.is_ok().then_some(frames);
        Some((frame, rest))
    })
    .boxed()
}
