//! Receives request bodies with limits on their size, pace and memory.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout};

use super::room::{Buffer, Room};
use crate::config::Pace;
use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::Deadline;

/// How much of an oversized body is read and discarded, as a multiple of the limit. A client still
/// sending when the connection closes often never sees the response.
const PATIENCE: usize = 3;

/// Maximum number of bytes read beyond the limit.
const MOST_PATIENCE: usize = 64 << 20;

/// The limits for receiving a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Maximum size of the body.
    pub limit: usize,
    /// The source of its memory.
    pub room: &'a Room,
    /// The minimum pace.
    pub pace: Pace,
    /// The deadline of its request.
    pub deadline: Option<Deadline>,
}

/// Receives a body. The returned bytes hold their memory until their last slice is dropped.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`], [`ErrorKind::RequestTimeout`] if it stalls or arrives too
/// slowly, [`ErrorKind::Overloaded`] if there is no memory for it, [`ErrorKind::DeadlineExceeded`],
/// and [`ErrorKind::InvalidRequest`] if it is incomplete.
pub(super) async fn body(headers: &HeaderMap, body: Body, terms: Terms<'_>) -> Result<Bytes> {
    let limit = terms.limit;
    let stated = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_large = stated.is_some_and(|n| n > limit);
    // A client that sends `Expect` gets the error before it sends the body.
    if too_large && headers.contains_key(EXPECT) {
        return Err(payload_too_large(limit));
    }
    // The declared length caps the growth of the buffer, but reserves nothing.
    let buffer = (!too_large).then(|| Buffer::new(terms.room, stated.unwrap_or(limit).min(limit)));
    let paced = Paced::new(body.into_data_stream(), terms.pace);
    tokio::select! {
        biased;
        whole = collect(paced, limit, buffer) => whole,
        () = Deadline::passed(terms.deadline) => {
            Err(Deadline::exceeded(terms.deadline, "being received"))
        }
    }
}

/// Collects chunks while they fit within the limit; beyond it, everything is discarded.
async fn collect<S>(mut chunks: Paced<S>, limit: usize, mut kept: Option<Buffer>) -> Result<Bytes>
where
    S: Stream<Item = Result<Bytes, axum::Error>> + Unpin,
{
    let patience = limit.saturating_mul(PATIENCE).min(limit.saturating_add(MOST_PATIENCE));
    let mut seen = 0_usize;
    while let Some(chunk) = chunks.next().await? {
        seen = seen.saturating_add(chunk.len());
        match &mut kept {
            Some(buffer) if seen <= limit => buffer.extend(&chunk).await?,
            _ if seen > patience => break,
            _ => kept = None,
        }
    }
    kept.map(Buffer::freeze).ok_or_else(|| payload_too_large(limit))
}

/// Chunks with a minimum pace. Only time spent waiting for the client counts, not time spent
/// waiting for memory.
struct Paced<S> {
    chunks: S,
    pace: Pace,
    waited: Duration,
    bytes: usize,
}

impl<S: Stream<Item = Result<Bytes, axum::Error>> + Unpin> Paced<S> {
    fn new(chunks: S, pace: Pace) -> Self {
        Self { chunks, pace, waited: Duration::ZERO, bytes: 0 }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let started = Instant::now();
        let left = self.pace.window.saturating_sub(self.waited);
        let Ok(chunk) = timeout(left, self.chunks.next()).await else {
            return Err(self.too_slow());
        };
        let Some(chunk) = chunk else { return Ok(None) };
        let chunk = chunk.map_err(|e| {
            Error::new(ErrorKind::InvalidRequest, "the body did not arrive whole").caused_by(e)
        })?;
        self.waited += started.elapsed();
        self.bytes = self.bytes.saturating_add(chunk.len());
        if self.bytes >= self.pace.bytes {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(Some(chunk))
    }

    fn too_slow(&self) -> Error {
        let seconds = self.pace.window.as_secs_f64();
        Error::new(
            ErrorKind::RequestTimeout,
            format!(
                "less than {} bytes of the body arrived within {seconds} s; send it faster \
                 (TRANSFER_TIMEOUT, MIN_TRANSFER_RATE)",
                self.pace.bytes
            ),
        )
        .with("seconds", seconds)
        .with("bytes", self.bytes)
    }
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
    use futures::stream;

    use super::*;

    /// A body of `chunks` chunks, each sent after a pause.
    fn dripping(chunks: usize, bytes: usize, pause: Duration) -> Body {
        Body::from_stream(stream::unfold(0, move |sent| async move {
            if sent == chunks {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes])), sent + 1))
        }))
    }

    fn stated(bytes: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static(bytes));
        headers
    }

    async fn received(headers: HeaderMap, sent: Body, window: u64, bytes: usize) -> Result<Bytes> {
        let room = Room::new(1 << 20, Duration::from_millis(50));
        let pace = Pace { window: Duration::from_millis(window), bytes };
        let terms = Terms { limit: 1 << 20, room: &room, pace, deadline: None };
        let bytes = body(&headers, sent, terms).await?;
        assert!(bytes.is_empty() || room.used() > 0);
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_body_has_to_keep_its_pace() {
        let none = HeaderMap::new;
        // At least 100 ms in total, and never 100 bytes at once.
        let drip = || dripping(20, 100, Duration::from_millis(5));
        assert_eq!(received(none(), drip(), 5000, 100).await.unwrap().len(), 2000);
        let error = received(none(), drip(), 50, 100_000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
        let idle = dripping(2, 100, Duration::from_secs(3600));
        let error = received(stated("1000000"), idle, 50, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    }

    #[tokio::test]
    async fn what_is_stated_is_not_believed() {
        let sent = || dripping(3, 1000, Duration::ZERO);
        for length in ["1", "3000", "1000000", "x"] {
            assert_eq!(received(stated(length), sent(), 1000, 1).await.unwrap().len(), 3000);
        }
        let error = received(stated("18446744073709551615"), sent(), 1000, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
        let long = dripping(2, 600_000, Duration::ZERO);
        let error = received(HeaderMap::new(), long, 1000, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    }
}
