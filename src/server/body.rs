//! Request bodies: which ones are read, and how much of them.

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::BytesMut;
use futures::{Stream, StreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::Deadline;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit. A
/// client that is still sending when the connection closes often never sees the answer.
const PATIENCE: usize = 3;

/// Checks that the body is JSON in UTF-8 and not compressed. No content type means JSON.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`].
pub(super) fn ensure_json(headers: &HeaderMap) -> Result<()> {
    let unsupported = |what: &str| Error::new(ErrorKind::UnsupportedMediaType, what);
    let encodings = headers.get_all(CONTENT_ENCODING);
    if !encodings.iter().all(|v| v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("compressed bodies are not read; send the request as it is"));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let json = parts.next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json"));
    if !json {
        return Err(unsupported("the content type must be application/json"));
    }
    let charset = parts
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, set)) if !set.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {
            Err(unsupported("JSON is read in UTF-8 only"))
        }
        _ => Ok(()),
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`], [`ErrorKind::DeadlineExceeded`] where it arrives too slowly, and
/// [`ErrorKind::InvalidRequest`] where it does not arrive whole.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    deadline: Option<Deadline>,
) -> Result<Bytes> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_large = stated.is_some_and(|n| n > limit);
    // A client that asks first is told at once; it has not sent anything yet.
    if too_large && headers.contains_key(EXPECT) {
        return Err(payload_too_large(limit));
    }
    let reading = collect(body.into_data_stream(), limit, too_large);
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
) -> Result<Bytes> {
    let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
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

    #[test]
    fn json_in_utf8_passes() {
        let check = |name, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            ensure_json(&headers).is_ok()
        };
        assert!(ensure_json(&HeaderMap::new()).is_ok());
        for good in ["application/json", "Application/JSON ; charset=\"UTF-8\""] {
            assert!(check(CONTENT_TYPE, good), "{good}");
        }
        for bad in ["application/dicom", "text/json", "", "application/json; charset=latin1"] {
            assert!(!check(CONTENT_TYPE, bad), "{bad}");
        }
        assert!(check(CONTENT_ENCODING, "identity") && !check(CONTENT_ENCODING, "gzip"));
    }
}
