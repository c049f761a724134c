//! S3 objects: finds, lists and reads them, whole or in ranges.

use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::ChecksumMode;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Location, S3Input};
use crate::aws::body::{Length, whole};
use crate::aws::call::Watch;
use crate::aws::{Counters, Fault, Hedge, S3Operation};
use crate::error::{Error, ErrorKind, Result};

/// Responses of a few hundred bytes that take longer than this are late.
const LATE: Duration = Duration::from_secs(1);

/// Size of a fetched block in bytes.
pub(super) const BLOCK: u64 = 8 << 20;

/// Objects up to this size are read whole, larger ones in blocks.
const SMALL: u64 = BLOCK;

/// An object as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub location: Location,
    pub size: u64,
    pub e_tag: Option<String>,
}

impl S3Input {
    pub(super) fn counters_of_reads(&self) -> &Counters {
        self.client.counters(S3Operation::GetObject)
    }

    fn owner(&self) -> Option<String> {
        self.owner.as_deref().map(str::to_owned)
    }

    /// Returns the size and ETag of an object, if it exists.
    pub(super) async fn find(&self, location: &Location) -> Result<Option<Object>> {
        let operation = S3Operation::HeadObject;
        self.allowance.expect(1);
        let call = self.client.call(operation, &self.allowance, Hedge::After(LATE));
        let found = call
            .run(async |_| {
                let head = self.client.sdk().head_object().bucket(&*location.bucket);
                let head = head.key(&location.key).set_expected_bucket_owner(self.owner());
                match head.send().await {
                    Ok(found) => Ok(Some(Object {
                        location: location.clone(),
                        size: found
                            .content_length()
                            .and_then(|n| u64::try_from(n).ok())
                            .unwrap_or(0),
                        e_tag: found.e_tag().map(str::to_owned),
                    })),
                    Err(e) if status(&e) == 404 => Ok(None),
                    Err(e) if matches!(status(&e), 400 | 403) => Err(self.why(location, &e).await),
                    Err(e) => Err(Fault::from_sdk(operation.name(), &e)),
                }
            })
            .await;
        found.map_err(explain)
    }

    /// Determines why a `HEAD` was refused. Its response has no body and so no error code, and is
    /// the same for expired credentials and for a missing permission; a `GET` returns the code.
    async fn why(
        &self,
        location: &Location,
        refusal: &SdkError<HeadObjectError, HttpResponse>,
    ) -> Fault {
        let get = self.client.sdk().get_object().bucket(&*location.bucket).key(&location.key);
        let get = get.range("bytes=0-0").set_expected_bucket_owner(self.owner());
        match get.send().await {
            Err(e) if e.raw_response().is_some() => {
                Fault::from_sdk(S3Operation::GetObject.name(), &e)
            }
            _ => Fault::from_sdk(S3Operation::HeadObject.name(), refusal),
        }
    }

    /// Lists the objects below a prefix, which is treated as a folder: `a/b` does not match `a/bc`.
    pub(super) async fn list(&self, location: &Location) -> Result<Vec<Object>> {
        let Location { bucket, key } = location;
        let prefix = match key.as_str() {
            "" => String::new(),
            key if key.ends_with('/') => key.to_owned(),
            key => format!("{key}/"),
        };
        let (mut objects, mut bytes) = (Vec::new(), 0u64);
        let mut next = None;
        loop {
            let page = self.page(bucket, &prefix, next.clone()).await.map_err(explain)?;
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
            // A page may be empty without being the last; a page whose token repeats would loop
            // forever.
            let following =
                page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
            if following.is_some() && following == next {
                let what = "S3 returned the same page of objects again";
                return Err(Error::new(ErrorKind::Upstream, what));
            }
            if following.is_none() {
                return Ok(objects);
            }
            next = following;
        }
    }

    /// Requests one page of a listing.
    async fn page(
        &self,
        bucket: &str,
        prefix: &str,
        next: Option<String>,
    ) -> Result<ListObjectsV2Output> {
        let operation = S3Operation::ListObjects;
        self.allowance.expect(1);
        let call = self.client.call(operation, &self.allowance, Hedge::After(LATE));
        call.run(async |_| {
            let list = self.client.sdk().list_objects_v2().bucket(bucket).prefix(prefix);
            let list = list.set_continuation_token(next.clone());
            let page = list
                .set_expected_bucket_owner(self.owner())
                .send()
                .await
                .map_err(|e| Fault::from_sdk(operation.name(), &e))?;
            // The list has no checksum; a corrupted tag would silently drop an object.
            let listed = page.contents().len();
            match page.key_count().map(usize::try_from) {
                Some(count) if count != Ok(listed) => {
                    let what = format!("S3 listed {listed} objects and said there are others");
                    Err(Fault::passing(Error::new(ErrorKind::Upstream, what)))
                }
                _ => Ok(page),
            }
        })
        .await
    }

    /// Reads a whole object; large ones in several concurrent ranges.
    pub(super) async fn whole(&self, object: &Object) -> Result<Bytes> {
        if object.size <= SMALL {
            return self.range(object, 0, object.size).await;
        }
        let mut bytes: Vec<u8> = Vec::new();
        let mut parts = stream::iter((0..object.size).step_by(BLOCK as usize))
            .map(|begins| self.range(object, begins, BLOCK.min(object.size - begins)))
            .buffered(4);
        while let Some(part) = parts.try_next().await? {
            bytes.try_reserve(part.len()).map_err(|e| {
                Error::new(ErrorKind::OutOfMemory, "there is no memory for an object").caused_by(e)
            })?;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.into())
    }

    /// Reads `length` bytes of an object starting at `begins`.
    pub(super) async fn range(&self, object: &Object, begins: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let call = self.client.call(S3Operation::GetObject, &self.allowance, Hedge::Paced);
        let bytes = call
            .run(async |watch| self.read_range(object, begins, length, &watch).await)
            .await
            .map_err(explain)?;
        self.counters_of_reads().received(bytes.len());
        Ok(bytes)
    }

    async fn read_range(
        &self,
        object: &Object,
        begins: u64,
        length: u64,
        watch: &Watch,
    ) -> Result<Bytes, Fault> {
        let operation = S3Operation::GetObject.name();
        let end = begins + length - 1;
        // S3 sends an object's checksum, which the SDK verifies, only with the whole object.
        let part = (length < object.size).then(|| format!("bytes={begins}-{end}"));
        let response: GetObjectOutput = self
            .client
            .sdk()
            .get_object()
            .bucket(&*object.location.bucket)
            .key(&object.location.key)
            .set_range(part)
            .set_if_match(object.e_tag.clone())
            .checksum_mode(ChecksumMode::Enabled)
            .set_expected_bucket_owner(self.owner())
            .send()
            .await
            .map_err(|e| Fault::from_sdk(operation, &e))?;
        watch.progress();
        whole(operation, response.body, Length::Exactly(length), watch).await
    }
}

fn status<E>(e: &SdkError<E, HttpResponse>) -> u16 {
    e.raw_response().map_or(0, |r| r.status().as_u16())
}

/// Adds to S3's refusal what else it may mean.
fn explain(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AccessDenied => error.context(
            "S3 denied access; without s3:ListBucket it does so for objects that do not exist, too",
        ),
        _ => error,
    }
}
