//! AWS HealthImaging as a source: one client per process, one source per image set.
//!
//! A source first makes sure that its image set may be read, pins the version it found and reads
//! that version's metadata; frames are then fetched many at a time. Frames are immutable in AHI and
//! named by the pinned metadata, so a change of the image set meanwhile cannot mix two versions.
//! Checksums and dimensions are not looked at here: they speak of decoded pixels.

mod client;
mod fault;
mod retry;
mod search;
mod settings;
mod stats;

use std::sync::OnceLock;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

pub use client::{AhiClient, ImageSetId};
pub use settings::AhiSettings;
pub use stats::{AhiStats, Operation, OperationStats};

use super::{EncodedFrame, ImageSource, Origin};
use crate::dicom::{FrameKey, Series};
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
    /// The image set `id` at `version`, or at the latest one.
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

    /// The version that is read, once [`series`](ImageSource::series) has found it.
    pub fn version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }
}

#[async_trait]
impl ImageSource for AhiSource {
    async fn series(&self) -> Result<Series> {
        let wanted = self.wanted_version.as_deref();
        let version = self.client.readable_version(&self.id, wanted).await?;
        let metadata = self.client.metadata(&self.id, &version).await?;
        let (datastore, image_set) = (self.id.datastore_id(), self.id.image_set_id());
        if metadata.datastore_id != datastore || metadata.image_set_id != image_set {
            let e = Error::new(ErrorKind::Upstream, "the metadata is another image set's");
            return Err(self.id.name_in(e));
        }
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

    /// The stream must be polled within a Tokio runtime: each frame is fetched by a task of its own,
    /// so that transfers go on while the reader of the stream decodes.
    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>> {
        let wanted: Vec<_> =
            keys.into_iter().map(|key| frame_id(series, key).map(|id| (key, id))).collect();
        let (client, image_set) = (self.client.clone(), self.id.clone());
        let span = tracing::Span::current();
        let concurrency = client.max_in_flight();
        let fetches = stream::iter(wanted)
            .map(move |wanted| fetch(client.clone(), image_set.clone(), wanted, span.clone()))
            .buffer_unordered(concurrency);
        until_error(fetches.boxed())
    }
}

fn frame_id(series: &Series, key: FrameKey) -> Result<String> {
    series
        .instances
        .get(key.instance)
        .and_then(|instance| instance.frames.get(key.frame))
        .map(|frame| frame.id.clone())
        .ok_or_else(|| Error::internal(format!("{key:?} is not in the series")))
}

/// Fetches one frame in a task that ends with this future.
async fn fetch(
    client: AhiClient,
    image_set: ImageSetId,
    wanted: Result<(FrameKey, String)>,
    span: tracing::Span,
) -> Result<EncodedFrame> {
    let (key, frame_id) = wanted?;
    let task = async move { client.frame(&image_set, &frame_id).await };
    let data = AbortOnDropHandle::new(tokio::spawn(task.instrument(span)))
        .await
        .map_err(|e| Error::internal("fetching a frame was aborted").caused_by(e))??;
    Ok(EncodedFrame { key, data })
}

/// Ends `frames` after the first error, dropping it and with it all that is in flight.
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
