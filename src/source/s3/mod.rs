//! Series in Amazon S3: DICOM objects below a prefix, a single object, or an archive.
//!
//! Objects are read in ranges, several at once, and parsed on arrival, so that their content is in
//! memory only once. Each read names the object's ETag: an object that is replaced meanwhile is an
//! error and never a mixture of two versions. Errors do not contain the keys of objects below a
//! prefix.
//!
//! A corrupted transfer is detected if the object has a checksum and is read whole, as objects of
//! up to one block are. In a range, or without a checksum, a flipped bit is only detected if it
//! makes the data unparseable; the input is then read a second time before it is reported as
//! broken.

mod object;
mod reader;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::archive::{self, Format, Limits};
use super::dicom_objects::{DicomObjects, DicomSeries};
use super::packed;
use crate::aws::{Allowance, S3};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Pool, charged};
use object::BLOCK;
use object::Object;
use reader::ObjectReader;

/// Objects or ranges read concurrently.
const PARALLEL: usize = 16;

/// S3 as a source of inputs.
#[derive(Debug, Clone)]
pub struct S3Input {
    client: S3,
    limits: Limits,
    /// Account that buckets must belong to.
    owner: Option<Arc<str>>,
    allowance: Arc<Allowance>,
    /// The pool that the memory of inputs is charged to.
    memory: Arc<Pool>,
    /// A value that threads reading an archive hold until they end.
    held: Arc<dyn Any + Send + Sync>,
}

/// A location in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    bucket: Arc<str>,
    key: String,
}

impl Location {
    /// Parses `s3://BUCKET/KEY`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the URI is malformed.
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
    /// Creates a source of inputs that reads through `client`, within the limits of `memory`, and
    /// from buckets of the account `owner` if one is given.
    pub fn new(client: S3, memory: Arc<Pool>, owner: Option<&str>) -> Self {
        Self {
            client,
            limits: Limits::of_bytes(memory.limit()),
            owner: owner.map(Arc::from),
            allowance: Arc::default(),
            memory,
            held: Arc::new(()),
        }
    }

    /// Returns the same source for one request, whose calls share `allowance`. Threads that read
    /// for it hold `held` until they end, even if no caller waits for them any more.
    #[must_use]
    pub fn within(&self, allowance: Arc<Allowance>, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { allowance, held, ..self.clone() }
    }

    /// Returns the limits on an input.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the series in an object, an archive or below a prefix.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no object, [`ErrorKind::AccessDenied`],
    /// [`ErrorKind::PayloadTooLarge`] beyond the limits, [`ErrorKind::InvalidRequest`] if it is
    /// neither DICOM nor an archive, the errors of reading archives and DICOM files, and
    /// [`ErrorKind::Upstream`] if S3 fails.
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
            let e_tag = object.e_tag.clone();
            let series = self.object(object).await?.into_iter();
            return Ok(series.map(|series| series.of_object(e_tag.clone())).collect());
        }
        self.prefix(location).await
    }

    /// Reads a whole object of at most `limit` bytes, a request.
    ///
    /// # Errors
    /// The errors of [`series`](Self::series).
    pub async fn small_object(&self, location: &Location, limit: usize) -> Result<Bytes> {
        let object =
            self.find(location).await?.ok_or_else(|| nothing("there is no such object"))?;
        if object.size > limit as u64 {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("the object is larger than {limit} bytes, the limit of a request in JSON"),
            ));
        }
        let grant = self.memory.take(object.size).await?;
        let bytes = self.whole(&object).await?;
        Ok(charged(bytes, grant))
    }

    /// Returns the series in a single object.
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
        let size = object.size;
        self.allowance.expect(usize::try_from(size / BLOCK).unwrap_or(usize::MAX));
        let reader = ObjectReader::new(self.clone(), object, tokio::runtime::Handle::current());
        packed::series(reader, size, format, self.bounds()).await
    }

    /// Returns the series in the body of a request: a DICOM file or an archive.
    ///
    /// # Errors
    /// The errors of [`series`](Self::series), except those of S3.
    pub async fn series_in(&self, bytes: Bytes) -> Result<Vec<DicomSeries>> {
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
        packed::series(std::io::Cursor::new(bytes), size, format, self.bounds()).await
    }

    /// Returns the limits for reading a file or an archive.
    fn bounds(&self) -> packed::Bounds {
        packed::Bounds {
            limits: self.limits,
            memory: Arc::clone(&self.memory),
            held: Arc::clone(&self.held),
        }
    }

    /// Returns the series of all objects below a prefix.
    async fn prefix(&self, location: &Location) -> Result<Vec<DicomSeries>> {
        let objects = self.list(location).await?;
        match self.objects(objects.clone()).await {
            // An object that was just listed must exist: the list may have been corrupted in
            // transit.
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
        let size = objects.iter().fold(0, |sum: u64, object| sum.saturating_add(object.size));
        let grant = self.memory.take(size).await?;
        let memory = &self.memory;
        let parsed = stream::iter(objects.into_iter().enumerate())
            .map(|(index, object)| async move {
                let data = self.whole(&object).await?;
                let none = memory.open();
                cpu::run(move || {
                    // All objects are charged together.
                    let mut one = DicomObjects::new(none);
                    one.add(index + 1, &data)?;
                    Ok(one)
                })
                .await
            })
            .buffered(PARALLEL)
            .try_fold(DicomObjects::new(memory.open()), |mut all, one| async move {
                all.append(one)?;
                Ok(all)
            })
            .await?;
        parsed.charged(grant)?.into_series()
    }
}

fn nothing(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, what)
}

/// Whether an error can result from a corrupted transfer that no other check would detect.
fn may_be_the_transfers(error: &Error) -> bool {
    use ErrorKind::{CorruptFrame, InvalidImage, InvalidRequest};
    matches!(error.kind(), InvalidRequest | InvalidImage | CorruptFrame)
        && !error.details().contains_key("attempts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::Patience;
    use crate::phantom::PhantomArgs;

    #[test]
    fn locations_are_read() {
        let location = Location::parse("s3://bucket/a/b c.zip").unwrap();
        assert_eq!((&*location.bucket, location.key.as_str()), ("bucket", "a/b c.zip"));
        assert_eq!(Location::parse("s3://bucket").unwrap().key, "");
        assert_eq!(Location::parse("file:///x").unwrap_err().kind(), ErrorKind::InvalidRequest);
    }

    fn input(bytes: u64) -> S3Input {
        let settings = aws_sdk_s3::Config::builder().behavior_version_latest().build();
        let client = S3::new(aws_sdk_s3::Client::from_conf(settings), Patience::default());
        S3Input::new(client, Pool::new("inputs", "MAX_INPUT_BYTES", Some(bytes)), None)
    }

    #[tokio::test]
    async fn bodies_that_are_no_images_are_refused() {
        let input = input(1 << 20);
        for body in [&b""[..], b"{}", b"text", b"PK\x03\x04 but not zip", b"\x1f\x8b but not gzip"]
        {
            let error = input.series_in(Bytes::from_static(body)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        }
        assert_eq!(input.memory.used(), 0);
    }

    #[tokio::test]
    async fn what_an_archive_holds_is_charged_until_its_series_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (out, spacing) = (folder.path().join("p"), 3.0);
        let phantom =
            PhantomArgs { out, seed: 1, size: 64, slices: 48, spacing, slice_spacing: 4.0 };
        phantom.write().unwrap();
        let files = crate::dicom::p10::list_files(&phantom.out.join("dicom")).unwrap();
        let file = std::fs::read(&files[0]).unwrap();
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("a", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, &file).unwrap();
        let archive = Bytes::from(zip.finish().unwrap().into_inner());
        let input = input(1 << 20);
        let series = input.series_in(archive.clone()).await.unwrap();
        assert!(input.memory.used() >= file.len() as u64);
        drop(series);
        assert_eq!(input.memory.used(), 0);
    }
}
