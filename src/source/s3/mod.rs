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
    /// What the memory of inputs is charged to.
    memory: Arc<Pool>,
    /// What is held by threads that read an archive, until they have ended.
    held: Arc<dyn Any + Send + Sync>,
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
    /// Inputs through `client`, within the limits of `memory`, from buckets of the account `owner`
    /// where one is given.
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

    /// The same for one request, whose calls together may spend `allowance`. Threads that read for
    /// it hold `held` until they have ended, also where nobody waits for them any more.
    #[must_use]
    pub fn within(&self, allowance: Arc<Allowance>, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { allowance, held, ..self.clone() }
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
        let grant = self.memory.take(object.size).await?;
        let bytes = self.whole(&object).await?;
        Ok(charged(bytes, grant))
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
        let size = object.size;
        self.allowance.expect(usize::try_from(size / BLOCK).unwrap_or(usize::MAX));
        let reader = ObjectReader::new(self.clone(), object, tokio::runtime::Handle::current());
        packed::series(reader, size, format, self.bounds()).await
    }

    /// The series in the bytes of a request: a DICOM file or an archive.
    ///
    /// # Errors
    /// Those of [`series`](Self::series) but for S3's own.
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

    /// What reading a file or an archive is bound by.
    fn bounds(&self) -> packed::Bounds {
        packed::Bounds {
            limits: self.limits,
            memory: Arc::clone(&self.memory),
            held: Arc::clone(&self.held),
        }
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
        let size = objects.iter().fold(0, |sum: u64, object| sum.saturating_add(object.size));
        let grant = self.memory.take(size).await?;
        let memory = &self.memory;
        let parsed = stream::iter(objects.into_iter().enumerate())
            .map(|(index, object)| async move {
                let data = self.whole(&object).await?;
                let none = memory.open();
                cpu::run(move || {
                    // All of them were charged together.
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

/// Whether an error can come of a transfer that broke where nothing else would tell.
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
