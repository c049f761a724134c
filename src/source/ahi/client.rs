//! The process-wide client of AHI: limits on concurrency and rate, and retries.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use aws_sdk_medicalimaging::operation::get_image_set::GetImageSetOutput;
use aws_sdk_medicalimaging::types::{ImageFrameInformation, ImageSetState, ImageSetWorkflowStatus};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::settings::AhiSettings;
use super::stats::{AhiStats, FrameTime, Operation};
use crate::aws::body::{Length, passing, whole};
use crate::aws::{Allowance, Call, Fault, Hedge, RateLimiter};
use crate::dicom::ahi_metadata::ImageSetMetadata;
use crate::dicom::ahi_metadata::read;
use crate::error::{Error, ErrorKind, Result};

/// Responses of a few hundred bytes that take longer than this are late.
const LATE: std::time::Duration = std::time::Duration::from_secs(1);

/// Identifiers of an image set, validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageSetId {
    datastore_id: String,
    image_set_id: String,
}

impl ImageSetId {
    /// Creates the identifiers; both must be 32 characters of `[0-9a-z]`.
    ///
    /// # Errors
    /// `InvalidRequest`, naming the malformed identifier.
    pub fn new(datastore_id: &str, image_set_id: &str) -> Result<Self> {
        for (name, id) in [("datastoreId", datastore_id), ("imageSetId", image_set_id)] {
            if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()) {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!("{name} is not 32 characters of 0-9 and a-z"),
                )
                .with("field", name));
            }
        }
        Ok(Self { datastore_id: datastore_id.to_owned(), image_set_id: image_set_id.to_owned() })
    }

    /// Returns the identifier of the data store.
    pub fn datastore_id(&self) -> &str {
        &self.datastore_id
    }

    /// Returns the identifier of the image set.
    pub fn image_set_id(&self) -> &str {
        &self.image_set_id
    }

    /// Adds this image set to an error.
    pub(super) fn name_in(&self, error: Error) -> Error {
        error
            .context(self)
            .with("datastoreId", self.datastore_id.as_str())
            .with("imageSetId", self.image_set_id.as_str())
    }
}

impl fmt::Display for ImageSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image set {} in data store {}", self.image_set_id, self.datastore_id)
    }
}

/// A client of AHI within the limits of its [`AhiSettings`]. Clones share the limits and the retry
/// allowance.
#[derive(Debug, Clone)]
pub struct AhiClient {
    shared: Arc<Shared>,
    allowance: Arc<Allowance>,
}

#[derive(Debug)]
struct Shared {
    sdk: aws_sdk_medicalimaging::Client,
    settings: AhiSettings,
    stats: AhiStats,
    in_flight: Semaphore,
    frame_limiter: RateLimiter,
    metadata_limiter: RateLimiter,
    image_set_limiter: RateLimiter,
}

impl AhiClient {
    /// Wraps the SDK's client, which must attempt each call only once
    /// ([`aws::ahi_client`](crate::source::aws::ahi_client)).
    pub fn new(sdk: aws_sdk_medicalimaging::Client, settings: AhiSettings) -> Self {
        let permits = settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Shared {
            sdk,
            stats: AhiStats::default(),
            in_flight: Semaphore::new(permits),
            frame_limiter: RateLimiter::new(settings.frame_rate),
            metadata_limiter: RateLimiter::new(settings.metadata_rate),
            image_set_limiter: RateLimiter::new(settings.image_set_rate),
            settings,
        };
        Self { shared: Arc::new(shared), allowance: Arc::default() }
    }

    /// Returns the same client for one request, whose calls share `allowance`.
    #[must_use]
    pub fn within(&self, allowance: Arc<Allowance>) -> Self {
        Self { shared: Arc::clone(&self.shared), allowance }
    }

    /// Returns the counters of this client.
    pub fn stats(&self) -> &AhiStats {
        &self.shared.stats
    }

    /// Number of frames being fetched, including those waiting between two attempts.
    pub fn frames_in_flight(&self) -> usize {
        self.max_in_flight().saturating_sub(self.shared.in_flight.available_permits())
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.shared.settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS)
    }

    pub(super) fn allows_non_primary(&self) -> bool {
        self.shared.settings.allow_non_primary
    }

    pub(super) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    pub(super) fn sdk(&self) -> &aws_sdk_medicalimaging::Client {
        &self.shared.sdk
    }

    /// Returns the call parameters of `operation`.
    pub(super) fn call(&self, operation: Operation) -> Call<'_> {
        let shared = &*self.shared;
        let (limiter, hedge) = match operation {
            // A search shares its rate with `GetImageSet`, as in the service; data stores are only
            // listed interactively.
            Operation::ListDatastores | Operation::SearchImageSets | Operation::GetImageSet => {
                (&shared.image_set_limiter, Hedge::After(LATE))
            }
            Operation::GetImageSetMetadata => (&shared.metadata_limiter, Hedge::After(LATE)),
            Operation::GetImageFrame => (&shared.frame_limiter, Hedge::Paced),
        };
        Call {
            operation: operation.name(),
            patience: &shared.settings.patience,
            limiter: Some(limiter),
            counters: shared.stats.counters(operation),
            allowance: &self.allowance,
            hedge,
        }
    }

    /// Checks with `GetImageSet` that an image set may be read, and returns the version to read:
    /// `version` if given, else the latest.
    ///
    /// # Errors
    /// `NotFound`, `AccessDenied`; `ImageSetNotReady` if it is locked, deleted, or not primary.
    pub async fn readable_version(&self, id: &ImageSetId, version: Option<&str>) -> Result<String> {
        let operation = Operation::GetImageSet;
        self.allowance.expect(1);
        self.call(operation)
            .run(async |_| {
                let request = self.sdk().get_image_set();
                let image_set = request
                    .datastore_id(&id.datastore_id)
                    .image_set_id(&id.image_set_id)
                    .set_version_id(version.map(str::to_owned))
                    .send()
                    .await
                    .map_err(|e| Fault::from_sdk(operation.name(), &e))?;
                check_plausible(&image_set, id)?;
                Ok(image_set)
            })
            .await
            .and_then(|image_set| {
                check_readable(&image_set, self.allows_non_primary())?;
                Ok(image_set.version_id)
            })
            .map_err(|e| id.name_in(e))
    }

    /// Fetches and parses the metadata of one version of an image set.
    ///
    /// # Errors
    /// The service's errors, `PayloadTooLarge`, and the errors of
    /// [`parse`](crate::dicom::ahi_metadata::parse).
    pub async fn metadata(&self, id: &ImageSetId, version: &str) -> Result<ImageSetMetadata> {
        let operation = Operation::GetImageSetMetadata;
        let limit = self.shared.settings.max_metadata_bytes;
        self.allowance.expect(1);
        self.call(operation)
            .run(async |watch| {
                let request = self.sdk().get_image_set_metadata();
                let response = request
                    .datastore_id(&id.datastore_id)
                    .image_set_id(&id.image_set_id)
                    .version_id(version)
                    .send()
                    .await
                    .map_err(|e| Fault::from_sdk(operation.name(), &e))?;
                watch.progress();
                let blob = response.image_set_metadata_blob;
                let body = whole(operation.name(), blob, Length::AtMost(limit), &watch).await?;
                self.stats().counters(operation).received(body.len());
                watch.arrived();
                read_metadata(body, limit, id).await
            })
            .await
            .map_err(|e| id.name_in(e))
    }

    /// Fetches one encoded frame, after acquiring a permit. `most` is the maximum number of bytes
    /// that its pixels can need, if known.
    ///
    /// # Errors
    /// The service's errors, naming the image set and the frame; `CorruptFrame` beyond `most`
    /// bytes.
    pub async fn frame(&self, id: &ImageSetId, frame_id: &str, most: Option<u64>) -> Result<Bytes> {
        let operation = Operation::GetImageFrame;
        let limit = self.shared.settings.max_frame_bytes;
        let length = match most {
            Some(most) if most < limit => Length::Plausible(most),
            _ => Length::AtMost(limit),
        };
        let asked = Instant::now();
        let _permit =
            self.shared.in_flight.acquire().await.map_err(|e| {
                Error::internal("the bound on frames in flight is closed").caused_by(e)
            })?;
        let (body, time) = self
            .call(operation)
            .run(async |watch| {
                let sent = Instant::now();
                let frame = ImageFrameInformation::builder()
                    .image_frame_id(frame_id)
                    .build()
                    .map_err(|e| Fault::from_build(operation.name(), e))?;
                let request = self.sdk().get_image_frame();
                let response = request
                    .datastore_id(&id.datastore_id)
                    .image_set_id(&id.image_set_id)
                    .image_frame_information(frame)
                    .send()
                    .await
                    .map_err(|e| Fault::from_sdk(operation.name(), &e))?;
                watch.progress();
                let first_byte = sent.elapsed();
                let body =
                    passing(operation.name(), response.image_frame_blob, length, &watch).await?;
                let slot = sent.saturating_duration_since(asked);
                let time = FrameTime { slot, first_byte, body: sent.elapsed() - first_byte };
                Ok((body, time))
            })
            .await
            .map_err(|e| {
                id.name_in(e.context(format_args!("frame {frame_id}")))
                    .with("imageFrameId", frame_id)
            })?;
        self.stats().counters(operation).received(body.len());
        self.stats().frame_came(time);
        Ok(body)
    }
}

/// Checks that a response can be the requested one: a transfer may break and still leave valid
/// JSON.
fn check_plausible(image_set: &GetImageSetOutput, id: &ImageSetId) -> Result<(), Fault> {
    let broken = |what: &str| Err(Fault::passing(Error::new(ErrorKind::Upstream, what)));
    if image_set.datastore_id() != id.datastore_id || image_set.image_set_id() != id.image_set_id {
        return broken("GetImageSet answered with another image set");
    }
    let version = image_set.version_id();
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit()) {
        return broken("GetImageSet answered without a version");
    }
    let state = image_set.image_set_state();
    if !ImageSetState::values().contains(&state.as_str()) {
        let message = "its state is none that this program knows; try again later";
        return Err(Fault::passing(Error::new(ErrorKind::ImageSetNotReady, message)));
    }
    Ok(())
}

/// Parses a metadata document on a blocking thread, because it may be megabytes of JSON.
///
/// Faults of the document itself are permanent; gzip's checksum detects a broken transfer.
async fn read_metadata(
    body: Bytes,
    limit: u64,
    id: &ImageSetId,
) -> Result<ImageSetMetadata, Fault> {
    let parsed = tokio::task::spawn_blocking(move || {
        let checked = body.starts_with(&[0x1f, 0x8b]);
        let document = read::decompress(&body, limit).map_err(|e| match e.kind() {
            ErrorKind::Upstream => Fault::passing(e),
            _ => Fault::last(e),
        })?;
        drop(body);
        read::parse(&document).map_err(|e| if checked { Fault::last(e) } else { Fault::passing(e) })
    });
    let metadata = parsed.await.map_err(|e| {
        Fault::last(Error::internal("reading image set metadata was aborted").caused_by(e))
    })??;
    if metadata.datastore_id != id.datastore_id || metadata.image_set_id != id.image_set_id {
        let e = Error::new(ErrorKind::Upstream, "the metadata is another image set's");
        return Err(Fault::passing(e));
    }
    Ok(metadata)
}

/// Checks that an image set will not change while it is read, and is the one to read.
fn check_readable(image_set: &GetImageSetOutput, allow_non_primary: bool) -> Result<()> {
    let not_ready = |message: String| {
        let state = image_set.image_set_state().as_str();
        Err(Error::new(ErrorKind::ImageSetNotReady, message).with("imageSetState", state))
    };
    let status = image_set.image_set_workflow_status();
    let status_name = status.map_or("unknown", |s| s.as_str());
    match image_set.image_set_state() {
        ImageSetState::Active => {}
        // The source of a copy is locked against changes but stays readable.
        ImageSetState::Locked
            if status == Some(&ImageSetWorkflowStatus::CopyingWithReadOnlyAccess) => {}
        ImageSetState::Deleted => return not_ready("it is deleted".to_owned()),
        state => {
            return not_ready(format!(
                "its state is {} (workflow status {status_name}); try again once it is ACTIVE",
                state.as_str()
            ));
        }
    }
    // Image sets created before the service introduced the flag do not have it.
    if image_set.is_primary() == Some(false) && !allow_non_primary {
        return not_ready(
            "it is not primary: it conflicts with another image set of its series; resolve the \
             conflict or allow non-primary image sets"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_checked_before_any_call() {
        let good = "0123456789abcdefghijklmnopqrstuv";
        assert!(ImageSetId::new(good, good).is_ok());
        for bad in
            ["", "0123456789ABCDEFGHIJKLMNOPQRSTUV", "../3456789abcdefghijklmnopqrstuv", &good[1..]]
        {
            let e = ImageSetId::new(good, bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidRequest);
            assert!(e.message().contains("imageSetId"), "{e}");
            assert!(ImageSetId::new(bad, good).unwrap_err().message().contains("datastoreId"));
        }
    }
}
