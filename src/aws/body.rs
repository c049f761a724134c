//! Bodies of responses, collected as they arrive.

use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::call::Watch;
use super::fault::Fault;
use crate::error::{Error, ErrorKind, chain};

/// Room that is made before the first byte, at most: what a response says of its length is not
/// believed beyond it.
const FIRST: usize = 1 << 20;

/// How long a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Exactly so many bytes, as was asked for.
    Exactly(u64),
    /// At most as many as the program takes.
    AtMost(u64),
    /// At most as many as what is asked for can have; more is a broken transfer.
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

/// All of a body, if it is whole and of that length. Memory is taken as bytes arrive. `what` names the
/// operation, `watch` is told of every byte.
///
/// # Errors
/// A fault that may pass where the body breaks off or is of another length; `PayloadTooLarge` and
/// `OutOfMemory` are for good.
pub async fn whole(
    what: &str,
    mut body: ByteStream,
    length: Length,
    watch: &Watch,
) -> Result<Bytes, Fault> {
    let limit = length.limit();
    let (announced, _) = body.size_hint();
    if announced > limit {
        return Err(length.exceeded(what));
    }
    let mut all: Vec<u8> = Vec::new();
    reserve(&mut all, (announced as usize).min(FIRST))?;
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
        _ => Ok(all.into()),
    }
}

fn reserve(all: &mut Vec<u8>, more: usize) -> Result<(), Fault> {
    all.try_reserve(more).map_err(|e| {
        let error = Error::new(ErrorKind::OutOfMemory, "there is no memory for a response of AWS");
        Fault::last(error.caused_by(e))
    })
}
