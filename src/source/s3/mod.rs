//! Series in Amazon S3: DICOM objects below a prefix, a single object, or an archive of them.
//!
//! Objects are read in ranges, several at once, and parsed as they come, so that what they hold is
//! in memory once. Each read names the object's ETag: one that is replaced meanwhile is an error and
//! never a mixture of two. Keys of objects below a prefix are not repeated in errors.
//!
//! A transfer that broke is found where the object has a checksum and is read whole, as objects of up
//! to a block are. In a range, or without a checksum, a flipped bit is found only where what it hit
//! cannot be parsed; the input is then read a second time before it is called broken.

mod object;
mod reader;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::archive::{self, Format, Limits};
use super::dicom_objects::{DicomObjects, DicomSeries};
use crate::aws::{Allowance, S3};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use object::Object;
use reader::{BLOCK, ObjectReader};

/// Objects, or parts of them, read at the same time.
const PARALLEL: usize = 16;

/// S3 as a place that inputs come from.
#[derive(Debug, Clone)]
pub struct S3Input {
    client: S3,
    limits: Limits,
    /// Account that buckets must belong to.
    owner: Option<Arc<str>>,
    allowance: Arc<Allowance>,
}

/// Where something is in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    bucket: Arc<str>,
    key: String,
}

impl Location {
    /// Reads `s3://BUCKET/KEY`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`].
    pub fn parse(uri: &str) -> Result<Self> {
        if !crate::request::is_s3_uri(uri) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "an s3Uri must be s3://BUCKET/KEY or s3://BUCKET/PREFIX/",
            ));
        }
        let rest = uri.trim_start_matches("s3://");
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self { bucket: bucket.into(), key: key.to_owned() })
    }
}

impl S3Input {
    /// Inputs through `client`, within `limits`, from buckets of the account `owner` where one is given.
    pub fn new(client: S3, limits: Limits, owner: Option<&str>) -> Self {
        Self { client, limits, owner: owner.map(Arc::from), allowance: Arc::default() }
    }

    /// The same for one request, whose calls together may spend `allowance`.
    #[must_use]
    pub fn within(&self, allowance: Arc<Allowance>) -> Self {
        Self { allowance, ..self.clone() }
    }

    /// How much is taken.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The series that an object, an archive or a prefix holds.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is nothing, [`ErrorKind::AccessDenied`],
    /// [`ErrorKind::PayloadTooLarge`] beyond the limits, [`ErrorKind::InvalidRequest`] where it is
    /// neither DICOM nor an archive, those of reading archives and DICOM files, and
    /// [`ErrorKind::Upstream`] where S3 fails.
    pub async fn series(&self, location: &Location) -> Result<Vec<DicomSeries>> {
        match self.read(location).await {
            Err(e) if may_be_the_transfers(&e) => {
                self.counters_of_reads().refetch();
                self.read(location).await
            }
            result => result,
        }
    }

    async fn read(&self, location: &Location) -> Result<Vec<DicomSeries>> {
        if !location.key.is_empty()
            && !location.key.ends_with('/')
            && let Some(object) = self.find(location).await?
        {
            return self.object(object).await;
        }
        self.prefix(location).await
    }

    /// An object of at most `limit` bytes, whole: a request.
    ///
    /// # Errors
    /// As [`series`](Self::series).
    pub async fn small_object(&self, location: &Location, limit: usize) -> Result<Bytes> {
        let object =
            self.find(location).await?.ok_or_else(|| nothing("there is no such object"))?;
        if object.size > limit as u64 {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("the object is larger than {limit} bytes, the limit of a request in JSON"),
            ));
        }
        self.whole(&object).await
    }

    /// Series of a single object.
    async fn object(&self, object: Object) -> Result<Vec<DicomSeries>> {
        if object.size > self.limits.bytes {
            return Err(self.limits.too_large());
        }
        let head = self.range(&object, 0, object.size.min(archive::HEAD as u64)).await?;
        let format = match archive::format(&head) {
            Some(Format::Json) => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "the object is JSON; a request in S3 must be the only input and end in .json",
                ));
            }
            Some(format) => format,
            None => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "the object is neither a DICOM file nor a zip, tar or tar.gz archive",
                ));
            }
        };
        let (size, limits) = (object.size, self.limits);
        self.allowance.expect(usize::try_from(size / BLOCK).unwrap_or(usize::MAX));
        let reader = ObjectReader::new(self.clone(), object, tokio::runtime::Handle::current());
        read_aside(move |stopped| read_series(reader, size, format, limits, stopped)).await
    }

    /// Series of all objects below a prefix.
    async fn prefix(&self, location: &Location) -> Result<Vec<DicomSeries>> {
        let objects = self.list(location).await?;
        match self.objects(objects.clone()).await {
            // What was just listed is there: the list may have broken on its way.
            Err(e) if e.kind() == ErrorKind::NotFound => match self.list(location).await? {
                again if again == objects => Err(e),
                again => self.objects(again).await,
            },
            result => result,
        }
    }

    async fn objects(&self, objects: Vec<Object>) -> Result<Vec<DicomSeries>> {
        if objects.is_empty() {
            return Err(nothing("there is no object, and none below it as a prefix"));
        }
        self.allowance.expect(objects.len());
        let parsed = stream::iter(objects.into_iter().enumerate())
            .map(|(index, object)| async move {
                let data = self.whole(&object).await?;
                cpu::run(move || {
                    let mut one = DicomObjects::default();
                    one.add(index + 1, &data)?;
                    Ok(one)
                })
                .await
            })
            .buffered(PARALLEL)
            .try_fold(DicomObjects::default(), |mut all, one| async move {
                all.append(one)?;
                Ok(all)
            })
            .await?;
        parsed.into_series()
    }
}

/// The series in the bytes of a request: a DICOM file or an archive.
///
/// # Errors
/// Those of [`S3Input::series`] but for S3's own.
pub async fn series_in(bytes: Bytes, limits: Limits) -> Result<Vec<DicomSeries>> {
    let format = match archive::format(&bytes) {
        Some(format) if format != Format::Json => format,
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "the body is neither a DICOM file nor a zip, tar or tar.gz archive",
            ));
        }
    };
    let size = bytes.len() as u64;
    let file = std::io::Cursor::new(bytes);
    read_aside(move |stopped| read_series(file, size, format, limits, stopped)).await
}

/// Parses a DICOM file or each file of an archive.
fn read_series(
    file: impl std::io::Read + std::io::Seek,
    size: u64,
    format: Format,
    limits: Limits,
    stopped: &CancellationToken,
) -> Result<Vec<DicomSeries>> {
    let mut objects = DicomObjects::default();
    let file = std::io::BufReader::with_capacity(1 << 16, file);
    if format == Format::Dicom {
        objects.read(1, file, size)?;
        return objects.into_series();
    }
    archive::read(file, size, format, limits, &mut |number, data| {
        if stopped.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
        }
        objects.add(number, &data)
    })?;
    objects.into_series()
}

/// Runs `work` on a thread that may block, and tells it once nobody waits any more.
async fn read_aside<T: Send + 'static>(
    work: impl FnOnce(&CancellationToken) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stopped = CancellationToken::new();
    let _stop_on_drop = stopped.clone().drop_guard();
    let span = tracing::Span::current();
    let work = move || span.in_scope(|| cpu::contained(|| work(&stopped)));
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("reading the input was aborted").caused_by(e))?
}

fn nothing(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, what)
}

/// Whether an error can come of a transfer that broke where nothing else would tell.
fn may_be_the_transfers(error: &Error) -> bool {
    use ErrorKind::{CorruptFrame, InvalidImage, InvalidRequest};
    matches!(error.kind(), InvalidRequest | InvalidImage | CorruptFrame)
        && !error.details().contains_key("attempts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read() {
        let location = Location::parse("s3://bucket/a/b c.zip").unwrap();
        assert_eq!((&*location.bucket, location.key.as_str()), ("bucket", "a/b c.zip"));
        assert_eq!(Location::parse("s3://bucket").unwrap().key, "");
        assert_eq!(Location::parse("file:///x").unwrap_err().kind(), ErrorKind::InvalidRequest);
    }

    #[tokio::test]
    async fn bodies_that_are_no_images_are_refused() {
        let limits = Limits { bytes: 1 << 20, entries: 10 };
        for body in [&b""[..], b"{}", b"text", b"PK\x03\x04 but not zip", b"\x1f\x8b but not gzip"]
        {
            let error = series_in(Bytes::from_static(body), limits).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        }
    }
}
