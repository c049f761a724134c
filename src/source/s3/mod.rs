//! Series in Amazon S3: DICOM objects below a prefix, a single object, or an archive of them.
//!
//! Objects are read in ranges, several at once, and parsed as they come, so that what they hold is
//! in memory once. Each read names the object's ETag: one that is replaced meanwhile is an error and
//! never a mixture of two. Keys of objects below a prefix are not repeated in errors.

mod reader;

use std::sync::Arc;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::archive::{self, Format, Limits};
use super::dicom_objects::{DicomObjects, DicomSeries};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result, chain};
use reader::{BLOCK, ObjectReader};

/// Objects, or parts of them, read at the same time.
const PARALLEL: usize = 16;

/// Attempts to read a range whose bytes stop coming; the SDK's own retries end where they begin.
const ATTEMPTS: usize = 3;

/// Objects of a prefix up to this size are read whole, larger ones in blocks.
const SMALL: u64 = BLOCK;

/// S3 as a place that inputs come from.
#[derive(Debug, Clone)]
pub struct S3Input {
    client: aws_sdk_s3::Client,
    limits: Limits,
}

/// Where something is in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    bucket: Arc<str>,
    key: String,
}

/// An object as it was found.
#[derive(Debug, Clone)]
struct Object {
    location: Location,
    size: u64,
    e_tag: Option<String>,
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
    /// Inputs through `client`, within `limits`.
    pub fn new(client: aws_sdk_s3::Client, limits: Limits) -> Self {
        Self { client, limits }
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
        if !location.key.is_empty()
            && !location.key.ends_with('/')
            && let Some(object) = self.find(location).await?
        {
            let e_tag = object.e_tag.clone();
            let series = self.object(object).await?.into_iter();
            return Ok(series.map(|series| series.of_object(e_tag.clone())).collect());
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
        self.range(&object, 0, object.size).await
    }

    /// Size and ETag of an object, if there is one.
    async fn find(&self, location: &Location) -> Result<Option<Object>> {
        let head = self.client.head_object().bucket(&*location.bucket).key(&location.key);
        match head.send().await {
            Ok(found) => Ok(Some(Object {
                location: location.clone(),
                size: found.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                e_tag: found.e_tag().map(str::to_owned),
            })),
            Err(e) if e.raw_response().is_some_and(|r| r.status().as_u16() == 404) => Ok(None),
            Err(e) => Err(failure(&e)),
        }
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
        let reader = ObjectReader::new(self.clone(), object, tokio::runtime::Handle::current());
        read_aside(move |stopped| read_series(reader, size, format, limits, stopped)).await
    }

    /// Series of all objects below a prefix.
    async fn prefix(&self, location: &Location) -> Result<Vec<DicomSeries>> {
        let objects = self.list(location).await?;
        if objects.is_empty() {
            return Err(nothing("there is no object, and none below it as a prefix"));
        }
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

    /// The objects below a prefix, which is a folder's name: `a/b` does not mean `a/bc`.
    async fn list(&self, location: &Location) -> Result<Vec<Object>> {
        let Location { bucket, key } = location;
        let prefix = match key.as_str() {
            "" => String::new(),
            key if key.ends_with('/') => key.to_owned(),
            key => format!("{key}/"),
        };
        let mut pages =
            self.client.list_objects_v2().bucket(&**bucket).prefix(prefix).into_paginator().send();
        let (mut objects, mut bytes) = (Vec::new(), 0u64);
        while let Some(page) = pages.try_next().await.map_err(|e| failure(&e))? {
            for found in page.contents() {
                let size = found.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let Some(key) = found.key().filter(|key| !key.ends_with('/')) else { continue };
                bytes = bytes.saturating_add(size);
                objects.push(Object {
                    location: Location { bucket: bucket.clone(), key: key.to_owned() },
                    size,
                    e_tag: found.e_tag().map(str::to_owned),
                });
                if objects.len() > self.limits.entries {
                    return Err(self.limits.too_many());
                }
                if bytes > self.limits.bytes {
                    return Err(self.limits.too_large());
                }
            }
        }
        Ok(objects)
    }

    /// A whole object, large ones in several ranges at once.
    async fn whole(&self, object: &Object) -> Result<Bytes> {
        if object.size <= SMALL {
            return self.range(object, 0, object.size).await;
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(object.size).unwrap_or(0));
        let mut parts = stream::iter((0..object.size).step_by(BLOCK as usize))
            .map(|begins| self.range(object, begins, BLOCK.min(object.size - begins)))
            .buffered(4);
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// `length` bytes of an object from `begins` on.
    async fn range(&self, object: &Object, begins: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut attempt = 1;
        loop {
            match self.read_range(object, begins, length).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) if e.kind() == ErrorKind::Upstream && attempt < ATTEMPTS => attempt += 1,
                Err(e) => return Err(e.with("attempts", attempt)),
            }
        }
    }

    async fn read_range(&self, object: &Object, begins: u64, length: u64) -> Result<Bytes> {
        let end = begins + length - 1;
        let response = self
            .client
            .get_object()
            .bucket(&*object.location.bucket)
            .key(&object.location.key)
            .range(format!("bytes={begins}-{end}"))
            .set_if_match(object.e_tag.clone())
            .send()
            .await
            .map_err(|e| failure(&e))?;
        let bytes = response.body.collect().await.map_err(|e| {
            Error::new(ErrorKind::Upstream, "S3 stopped sending an object").caused_by(chain(&e))
        })?;
        let bytes = bytes.into_bytes();
        if bytes.len() as u64 != length {
            let what = format!("S3 sent {} bytes of an object in place of {length}", bytes.len());
            return Err(Error::new(ErrorKind::Upstream, what));
        }
        Ok(bytes)
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

/// An error of S3 in terms of ours.
fn failure<E>(e: &SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let status = e.raw_response().map_or(0, |r| r.status().as_u16());
    let code = e.code().unwrap_or("no error code");
    let kind = match (code, status) {
        ("SlowDown" | "ThrottlingException" | "RequestLimitExceeded", _) | (_, 429) => {
            ErrorKind::Throttled
        }
        (_, 404) => ErrorKind::NotFound,
        (_, 401 | 403) => ErrorKind::AccessDenied,
        (_, 301 | 400) => ErrorKind::InvalidRequest,
        _ => ErrorKind::Upstream,
    };
    let what = match status {
        0 => "S3 cannot be reached".to_owned(),
        412 => "the object was replaced while it was read; send the request again".to_owned(),
        403 => format!(
            "S3 refused to read it ({code}, http status 403); without s3:ListBucket it says so of \
             what is not there, too"
        ),
        status => format!("S3 refused to read it ({code}, http status {status})"),
    };
    Error::new(kind, what).caused_by(chain(e))
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
