//! A body of `multipart/related; type="application/dicom"` (PS3.18 section 8.6.1.2), sent in pieces
//! directly from the objects' memory, without copying them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};

use crate::aws::call::Watch;

/// Maximum size of a piece in bytes: progress is reported per piece.
const PIECE: usize = 256 << 10;

/// A body in pieces.
#[derive(Debug, Clone)]
pub(super) struct Multipart {
    boundary: String,
    pieces: Vec<Bytes>,
}

impl Multipart {
    /// Creates a body with one part for each object.
    pub fn new(objects: impl IntoIterator<Item = Bytes>) -> Self {
        // An object does not contain 122 random bits by chance.
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        let head = Bytes::from(format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"));
        let mut pieces = Vec::new();
        for object in objects {
            pieces.extend([head.clone(), object, Bytes::from_static(b"\r\n")]);
        }
        pieces.push(format!("--{boundary}--\r\n").into());
        Self { boundary, pieces }
    }

    /// Returns its media type.
    pub fn media_type(&self) -> String {
        format!("multipart/related; type=\"application/dicom\"; boundary={}", self.boundary)
    }

    /// Returns its total size in bytes.
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Returns the SHA-256 of the whole body, in hexadecimal. CPU-bound.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        self.pieces.iter().for_each(|piece| digest.update(piece));
        format!("{:x}", digest.finalize())
    }

    /// Returns the body to send, which notifies `watch` of every piece taken.
    pub fn body(self, watch: Watch) -> Sending {
        let left = self.len();
        Sending { pieces: self.pieces.into(), left, watch }
    }
}

/// A body being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pieces: VecDeque<Bytes>,
    left: u64,
    watch: Watch,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        let Some(front) = self.pieces.front_mut() else { return Poll::Ready(None) };
        let piece = front.split_to(front.len().min(PIECE));
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.watch.progress();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn parts_stand_between_boundaries_and_are_of_the_length_told() {
        let objects = [Bytes::from_static(b"one"), Bytes::new(), vec![7; PIECE + 5].into()];
        let multipart = Multipart::new(objects.clone());
        let (boundary, length, digest) =
            (multipart.boundary.clone(), multipart.len(), multipart.sha256());
        assert!(multipart.media_type().ends_with(&boundary));
        let sending = multipart.body(Watch::new(Instant::now()));
        assert_eq!(sending.size_hint().exact(), Some(length));
        let sent = sending.collect().await.unwrap().to_bytes();
        assert_eq!(sent.len() as u64, length);
        assert_eq!(format!("{:x}", Sha256::digest(&sent)), digest);
        let head = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n");
        let mut expected = Vec::new();
        for object in objects {
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&object);
            expected.extend_from_slice(b"\r\n");
        }
        expected.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        assert!(sent == expected);
    }
}
