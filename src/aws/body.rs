//! Collects response bodies as they arrive.

use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::call::Watch;
use super::fault::Fault;
use crate::error::{Error, ErrorKind, chain};
use crate::memory::Shelf;

/// Maximum memory reserved before the first byte: a response's stated length is not trusted beyond
/// it.
const FIRST: usize = 1 << 20;

/// Memory of short-lived bodies, reused for later ones.
static PASSING: Shelf<u8> = Shelf::new(16 << 20);

/// Expected length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Exactly this many bytes, as requested.
    Exactly(u64),
    /// At most this many bytes, the program's limit.
    AtMost(u64),
    /// At most this many bytes, the most that the requested object can have; more means a broken
    /// transfer.
    Plausible(u64),
}

impl Length {
    fn limit(self) -> u64 {
        let (Self::Exactly(limit) | Self::AtMost(limit) | Self::Plausible(limit)) = self;
        limit
    }

    fn exceeded(self, what: &str) -> Fault {
        match self {
            Self::Exactly(n) => broken(
                ErrorKind::Upstream,
                format!("{what} sent more than the {n} bytes asked for"),
            ),
            Self::AtMost(n) => Fault::last(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("{what}'s response is longer than {n} bytes"),
            )),
            Self::Plausible(n) => broken(
                ErrorKind::CorruptFrame,
                format!("{what} sent more than {n} bytes, which is more than its pixels can need"),
            ),
        }
    }
}

fn broken(kind: ErrorKind, message: String) -> Fault {
    Fault::passing(Error::new(kind, message))
}

/// Returns a whole body if it is complete and of the given length. Memory is allocated as bytes
/// arrive. `what` names the operation, `watch` is notified of progress.
///
/// # Errors
/// A transient fault if the body breaks off or has another length; `PayloadTooLarge` and
/// `OutOfMemory` are permanent.
pub async fn whole(
    what: &str,
    body: ByteStream,
    length: Length,
    watch: &Watch,
) -> Result<Bytes, Fault> {
    collect(what, body, length, watch, None).await
}

/// Like [`whole`], for a short-lived body, such as a frame to be decoded: it may hold up to twice
/// its size, in memory reused from earlier bodies.
///
/// # Errors
/// The errors of [`whole`].
pub async fn passing(
    what: &str,
    body: ByteStream,
    length: Length,
    watch: &Watch,
) -> Result<Bytes, Fault> {
    collect(what, body, length, watch, Some(&PASSING)).await
}

async fn collect(
    what: &str,
    mut body: ByteStream,
    length: Length,
    watch: &Watch,
    shelf: Option<&'static Shelf<u8>>,
) -> Result<Bytes, Fault> {
    let limit = length.limit();
    let (announced, _) = body.size_hint();
    if announced > limit {
        return Err(length.exceeded(what));
    }
    let room = usize::try_from(announced).unwrap_or(FIRST).min(FIRST);
    let mut all = shelf.map_or_else(Vec::new, |shelf| shelf.room(room));
    reserve(&mut all, room)?;
    loop {
        let chunk = body.try_next().await.map_err(|e| {
            let error =
                Error::new(ErrorKind::Upstream, format!("the body of {what}'s response broke off"));
            Fault::passing(error.caused_by(chain(&e)))
        })?;
        let Some(chunk) = chunk else { break };
        watch.progress();
        if (all.len() + chunk.len()) as u64 > limit {
            return Err(length.exceeded(what));
        }
        reserve(&mut all, chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    match length {
        Length::Exactly(n) if all.len() as u64 != n => Err(broken(
            ErrorKind::Upstream,
            format!("{what} sent {} bytes in place of {n}", all.len()),
        )),
        _ => Ok(match shelf {
            Some(shelf) => shelf.lend(all),
            None => all.into(),
        }),
    }
}

fn reserve(all: &mut Vec<u8>, more: usize) -> Result<(), Fault> {
    all.try_reserve(more).map_err(|e| {
        let error = Error::new(ErrorKind::OutOfMemory, "there is no memory for a response of AWS");
        Fault::last(error.caused_by(e))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Reads a body in both ways.
    async fn both(bytes: usize, length: Length) -> [Result<Bytes, Fault>; 2] {
        let watch = Watch::new(Instant::now());
        let body = || ByteStream::from(vec![5; bytes]);
        [
            whole("GetThing", body(), length, &watch).await,
            passing("GetThing", body(), length, &watch).await,
        ]
    }

    #[tokio::test]
    async fn bodies_are_whole_and_of_their_length() {
        for bytes in [0, 1, 65_535, 65_537, FIRST + 7] {
            for result in both(bytes, Length::AtMost(bytes as u64)).await {
                let body = result.unwrap_or_else(|fault| panic!("{}", fault.error));
                assert!(body.len() == bytes && body.iter().all(|&b| b == 5));
            }
            for result in both(bytes + 1, Length::Plausible(bytes as u64)).await {
                assert_eq!(result.unwrap_err().error.kind(), ErrorKind::CorruptFrame);
            }
            for result in both(bytes, Length::Exactly(bytes as u64 + 1)).await {
                assert_eq!(result.unwrap_err().error.kind(), ErrorKind::Upstream);
            }
        }
    }
}
