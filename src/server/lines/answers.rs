//! Collects the responses to the lines of one body within a memory limit.

use std::fmt;

use axum::body::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::server::room::{Buffer, Room};
use crate::server::status;

/// Maximum total size of the responses to one body.
const LARGEST: usize = 64 << 20;

/// Bytes reserved per line: enough for an error without details.
const LEAST: usize = 320;

/// Maximum number of failed lines that are logged individually.
const MOST_LOGGED: usize = 100;

/// The identifier of a line's request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<'a> {
    /// The identifier of the whole body.
    pub request: &'a str,
    /// The line number, starting at 1.
    pub line: usize,
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.request, self.line)
    }
}

/// The responses, one per line. Every line keeps its reserved minimum, whatever earlier lines used.
pub(super) struct Answers {
    text: Buffer,
    left: usize,
    failed: usize,
}

impl Answers {
    /// Reserves memory for a short response to each line.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if not even that is available.
    pub async fn begin(room: &Room, lines: usize) -> Result<Self> {
        let mut text = Buffer::new(room, LARGEST);
        text.charge(lines.saturating_mul(LEAST)).await?;
        Ok(Self { text, left: lines, failed: 0 })
    }

    /// Appends the response to a line, or its error.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`].
    pub async fn push(&mut self, id: Id<'_>, answer: Result<Vec<u8>>) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        let answer = answer.unwrap_or_else(|error| self.failure(id, error));
        match self.fit(answer.len()).await {
            Ok(()) => self.append(&answer).await,
            Err(error) => {
                let short = self.failure(id, error);
                self.append(&short).await
            }
        }
    }

    /// Returns the responses, which hold their memory until they have been sent.
    pub fn finish(self) -> Bytes {
        if self.failed > MOST_LOGGED {
            tracing::warn!(failed = self.failed, logged = MOST_LOGGED, "lines failed");
        }
        self.text.freeze()
    }

    /// Checks that a response leaves the later lines their reserved minimum.
    async fn fit(&mut self, bytes: usize) -> Result<()> {
        let kept = self.left.saturating_mul(LEAST);
        let more = bytes.saturating_add(1).saturating_add(kept);
        if bytes < LEAST {
            // Already reserved at the beginning.
            return Ok(());
        }
        if self.text.len().saturating_add(more) > LARGEST {
            let what = "the answers to this body are too large in sum; send it in parts, or set outputS3Uri";
            return Err(Error::new(ErrorKind::PayloadTooLarge, what));
        }
        self.text.charge(more).await.map_err(|_| {
            let what = "there is no memory for the answer to this line; send fewer at once";
            Error::new(ErrorKind::Overloaded, what)
        })
    }

    async fn append(&mut self, answer: &[u8]) -> Result<()> {
        self.text.extend(answer).await?;
        self.text.extend(b"\n").await
    }

    fn failure(&mut self, id: Id<'_>, error: Error) -> Vec<u8> {
        self.failed += 1;
        let error = error.with("line", id.line);
        if self.failed <= MOST_LOGGED {
            status::log_one(&error);
        }
        status::text(&error, &id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn answers_that_do_not_fit_are_errors_and_the_others_have_their_places() {
        let room = Room::new(2 << 20, Duration::from_millis(20));
        let _others = room.take((2 << 20) - (64 << 10)).await.unwrap();
        let mut answers = Answers::begin(&room, 50).await.unwrap();
        for line in 1..=50 {
            let id = Id { request: "body", line };
            // The first response does not fit into what is left beside the reserve; the others are
            // minimal.
            let answer = if line == 1 { vec![b'1'; 400 << 10] } else { b"{}".to_vec() };
            let answer = if line == 50 { Err(Error::internal("secret")) } else { Ok(answer) };
            answers.push(id, answer).await.unwrap();
        }
        let text = answers.finish();
        let lines: Vec<&str> = std::str::from_utf8(&text).unwrap().lines().collect();
        assert_eq!(lines.len(), 50);
        assert!(
            lines[0].contains("\"overloaded\"") && lines[0].contains("\"body-1\""),
            "{}",
            lines[0]
        );
        assert!(lines[0].len() < LEAST);
        assert!(lines[1..49].iter().all(|line| *line == "{}"));
        assert!(lines[49].contains("\"internal\""), "{}", lines[49]);
        drop(text);
        assert_eq!(room.used() as usize, (2 << 20) - (64 << 10));
    }

    #[tokio::test]
    async fn answers_are_bounded_in_sum() {
        let room = Room::new(1 << 30, Duration::from_millis(20));
        let mut answers = Answers::begin(&room, 3).await.unwrap();
        for line in 1..=3 {
            let id = Id { request: "body", line };
            answers.push(id, Ok(vec![b'1'; 30 << 20])).await.unwrap();
        }
        let text = answers.finish();
        assert!(text.len() < LARGEST);
        assert!(text.ends_with(b"\"requestId\":\"body-3\"}\n"));
    }
}
