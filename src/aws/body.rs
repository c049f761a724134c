//! Bodies of responses, collected as they arrive.

use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::call::Watch;
use super::fault::Fault;
use crate::error::{Error, ErrorKind, chain};

/// Room that is made before the first byte, at most: what a response says of its length is not
/// believed beyond it.
const FIRST: usize = 1 << 20;

/// A body that came in one piece of at least so many bytes is taken as it is. A smaller one is copied, for it
/// would keep the connection's whole buffer, of up to 400 kB, with it.
const TAKEN: usize = 64 << 10;

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
    let mut all = Collected::default();
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
        all.take(chunk, announced)?;
    }
    match length {
        Length::Exactly(n) if all.len() as u64 != n => Err(broken(
            ErrorKind::Upstream,
            format!("{what} sent {} bytes in place of {n}", all.len()),
        )),
        _ => Ok(all.whole()),
    }
}

/// What came of a body.
#[derive(Default)]
struct Collected {
    /// The first piece, while it is the only one and large.
    only: Bytes,
    /// Else all pieces.
    all: Vec<u8>,
}

impl Collected {
    fn len(&self) -> usize {
        self.only.len() + self.all.len()
    }

    /// Adds a piece of a body that has `announced` bytes or more.
    fn take(&mut self, piece: Bytes, announced: u64) -> Result<(), Fault> {
        if self.len() == 0 && piece.len() >= TAKEN && piece.len() as u64 >= announced {
            self.only = piece;
            return Ok(());
        }
        let first = std::mem::take(&mut self.only);
        if self.all.is_empty() {
            let room = usize::try_from(announced).unwrap_or(FIRST).min(FIRST);
            reserve(&mut self.all, room.max(first.len() + piece.len()))?;
        }
        reserve(&mut self.all, first.len() + piece.len())?;
        self.all.extend_from_slice(&first);
        self.all.extend_from_slice(&piece);
        Ok(())
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.only } else { self.all.into() }
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
    use super::*;

    fn collected(pieces: &[usize], announced: u64) -> (Bytes, bool) {
        let mut all = Collected::default();
        let mut expected = Vec::new();
        for (number, &length) in pieces.iter().enumerate() {
            let piece = Bytes::from(vec![number as u8; length]);
            expected.extend_from_slice(&piece);
            assert!(all.take(piece, announced).is_ok());
            assert_eq!(all.len(), expected.len());
        }
        let taken = !all.only.is_empty();
        let whole = all.whole();
        assert_eq!(whole, expected);
        (whole, taken)
    }

    #[test]
    fn a_large_body_in_one_piece_is_not_copied() {
        assert!(collected(&[TAKEN], TAKEN as u64).1);
        // Of no known length.
        assert!(collected(&[TAKEN], 0).1);
        for (pieces, announced) in [
            (&[TAKEN - 1][..], 0),
            (&[], 0),
            (&[0, 5], 5),
            (&[TAKEN, 1], 0),
            (&[TAKEN, TAKEN, 7], 2 * TAKEN as u64),
            (&[0, TAKEN + 1, 3], u64::MAX),
            (&[10, 20, 30], 60),
        ] {
            assert!(!collected(pieces, announced).1, "{pieces:?}");
        }
        // A piece of nothing before it is no piece.
        assert!(collected(&[0, TAKEN], TAKEN as u64).1);
    }
}
