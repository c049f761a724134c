//! Request bodies: which ones are read, and how much of them.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::Deadline;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit. A
/// client that is still sending when the connection closes often never sees the answer.
const PATIENCE: usize = 3;

/// Bytes of a body that are read without asking for room: any request in JSON.
const SMALL: usize = 1 << 20;

/// Bytes of one permit of [`Room`].
const UNIT: usize = 1 << 10;

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// A request in JSON.
    Json,
    /// A request in JSON on each line.
    JsonLines,
    /// A DICOM file, or an archive of them.
    Images,
}

const JSON_LINES: [&str; 4] = [
    "application/jsonlines",
    "application/jsonl",
    "application/x-ndjson",
    "application/x-jsonlines",
];

/// The forms of an archive are told by their bytes, so that one label for all will do, too.
const IMAGES: [&str; 10] = [
    "application/dicom",
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/x-gtar",
    "application/x-compressed-tar",
    "application/octet-stream",
];

/// What a body is said to hold; JSON where nothing is said. It must not be compressed as a whole,
/// and JSON must be UTF-8.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`].
pub(super) fn media(headers: &HeaderMap) -> Result<Media> {
    let unsupported = |what: &str| Error::new(ErrorKind::UnsupportedMediaType, what);
    let encodings = headers.get_all(CONTENT_ENCODING);
    if !encodings.iter().all(|v| v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("compressed bodies are not read; send the request as it is"));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Media::Json) };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let named = parts.next().map(|t| t.trim().to_ascii_lowercase()).unwrap_or_default();
    if IMAGES.contains(&named.as_str()) {
        return Ok(Media::Images);
    }
    let media = match named.as_str() {
        "application/json" => Media::Json,
        lines if JSON_LINES.contains(&lines) => Media::JsonLines,
        _ => {
            return Err(unsupported(
                "the content type must be application/json, application/jsonlines, \
                 application/dicom, application/zip, application/x-tar or application/gzip",
            ));
        }
    };
    let charset = parts
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, set)) if !set.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {
            Err(unsupported("JSON is read in UTF-8 only"))
        }
        _ => Ok(media),
    }
}

/// Checks that the body is JSON.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`].
pub(super) fn ensure_json(headers: &HeaderMap) -> Result<()> {
    match media(headers)? {
        Media::Json => Ok(()),
        Media::JsonLines | Media::Images => Err(Error::new(
            ErrorKind::UnsupportedMediaType,
            "the content type must be application/json",
        )),
    }
}

/// Memory for bodies: in sum they hold no more than the largest single one may.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    permits: Arc<Semaphore>,
}

impl Room {
    /// Room for bodies of `limit` bytes in sum.
    pub fn new(limit: usize) -> Self {
        let permits = limit.div_ceil(UNIT).min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self { limit, permits: Arc::new(Semaphore::new(permits)) }
    }

    /// Waits until there is room for `bytes`; small bodies always have it.
    async fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let wanted = u32::try_from(bytes.min(self.limit).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.permits).acquire_many_owned(wanted).await;
        permits.map(Some).map_err(|_| Error::internal("the room for bodies is closed"))
    }
}

/// A body, and the room it takes.
pub(super) struct Read {
    pub bytes: Bytes,
    pub room: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `limit` bytes, once there is `room` for it.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`], [`ErrorKind::DeadlineExceeded`] where it arrives too slowly, and
/// [`ErrorKind::InvalidRequest`] where it does not arrive whole.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    room: &Room,
    deadline: Option<Deadline>,
) -> Result<Read> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_large = stated.is_some_and(|n| n > limit);
    // A client that asks first is told at once; it has not sent anything yet.
    if too_large && headers.contains_key(EXPECT) {
        return Err(payload_too_large(limit));
    }
    let reading = async {
        let expected = stated.filter(|n| *n <= limit);
        // One that does not say how long it is may be as long as any.
        let held = if too_large { None } else { room.take(expected.unwrap_or(limit)).await? };
        let bytes = collect(body.into_data_stream(), limit, too_large, expected.unwrap_or(0));
        Ok(Read { bytes: bytes.await?, room: held })
    };
    tokio::select! {
        biased;
        read = reading => read,
        () = Deadline::passed(deadline) => Err(Deadline::exceeded(deadline, "being received")),
    }
}

async fn collect(
    mut chunks: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    limit: usize,
    mut too_large: bool,
    expected: usize,
) -> Result<Bytes> {
    // Reserved at once, so that a large body is not copied while it grows.
    let (mut kept, mut seen) = (BytesMut::with_capacity(expected), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| {
            Error::new(ErrorKind::InvalidRequest, "the body did not arrive whole").caused_by(e)
        })?;
        seen = seen.saturating_add(chunk.len());
        too_large |= seen > limit;
        if !too_large {
            kept.extend_from_slice(&chunk);
        } else if seen > limit.saturating_mul(PATIENCE) {
            break;
        }
    }
    if too_large { Err(payload_too_large(limit)) } else { Ok(kept.freeze()) }
}

fn payload_too_large(limit: usize) -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        format!("the body is larger than {limit} bytes, the limit of this server (MAX_BODY_BYTES)"),
    )
    .with("limit", limit)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: axum::http::HeaderName, value: &'static str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        media(&headers).ok()
    }

    #[test]
    fn bodies_are_told_apart() {
        assert_eq!(media(&HeaderMap::new()).ok(), Some(Media::Json));
        for (value, expected) in [
            ("application/json", Some(Media::Json)),
            ("Application/JSON ; charset=\"UTF-8\"", Some(Media::Json)),
            ("application/jsonlines", Some(Media::JsonLines)),
            ("application/dicom", Some(Media::Images)),
            ("application/zip", Some(Media::Images)),
            ("text/json", None),
            ("", None),
            ("application/json; charset=latin1", None),
        ] {
            assert_eq!(of(CONTENT_TYPE, value), expected, "{value}");
        }
        assert_eq!(of(CONTENT_ENCODING, "identity"), Some(Media::Json));
        assert_eq!(of(CONTENT_ENCODING, "gzip"), None);
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room() {
        let room = Room::new(4 << 20);
        assert!(room.take(SMALL).await.unwrap().is_none());
        let first = room.take(3 << 20).await.unwrap();
        let second = room.take(2 << 20);
        tokio::pin!(second);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut second).await.is_err());
        drop(first);
        assert!(second.await.unwrap().is_some());
        assert!(room.take(usize::MAX).await.unwrap().is_some(), "no more than all of it");
    }
}
