//! Batch bodies with one JSON request per line, as sent by batch transform.
//!
//! Each input line has a line in the response, in the same order: its report or its error. A failed
//! line does not fail the others. A blank line fails, except at the end of the body.

mod answers;

use std::ops::Range;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};

use super::accept::{Offer, negotiate};
use super::call::{Call, LARGEST_JSON, aside};
use super::{answer, request_json};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{InferenceRequest, Outcome};
use crate::scheduler::Deadline;
use answers::{Answers, Id};

/// Maximum number of lines per body.
const MOST: usize = 100_000;

/// Length up to which parsing a line inline is faster than moving it to another thread.
const SHORT: usize = 16 << 10;

/// Pause before a line is retried if the queue was full: the caller cannot resend a single line.
const PAUSE: Duration = Duration::from_millis(500);

/// Responds to a batch body.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if there is no line, [`ErrorKind::PayloadTooLarge`] if there are
/// too many, [`ErrorKind::NotAcceptable`], and [`ErrorKind::Overloaded`] if there is no memory for
/// the responses. Errors of a line are reported in that line.
pub(super) async fn answer(call: &Call<'_>, body: Bytes) -> Result<Response> {
    let why_not = " (the answer has a line for each line)";
    let offer = negotiate(call.headers, &[Offer::JsonLines, Offer::Json], why_not)?;
    let scanned = body.clone();
    let lines = aside(move || lines(&scanned, MOST)).await??;
    if lines.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, "the body has no line"));
    }
    let max_inline = call.app.http.max_inline / lines.len();
    let at_once = call.app.scheduler.settings().max_concurrent;
    let mut answers = Answers::begin(&call.app.bodies, lines.len()).await?;
    let mut answered = stream::iter(lines.into_iter().enumerate())
        .map(|(index, line)| {
            let bytes = body.slice(line);
            async move {
                let id = Id { request: &call.context.request_id, line: index + 1 };
                (id, one(call, bytes, id.to_string(), max_inline).await)
            }
        })
        .buffered(at_once);
    while let Some((id, answer)) = answered.next().await {
        answers.push(id, answer).await?;
        // Lets other tasks run if lines are rejected without waiting.
        tokio::task::yield_now().await;
    }
    let text = answers.finish();
    Ok(([(CONTENT_TYPE, offer.media_type())], text).into_response())
}

/// Returns the byte ranges of the lines in a body, without their line ends (LF or CRLF). Trailing
/// blank lines are dropped. Scanning stops with an error after `most` lines.
fn lines(body: &[u8], most: usize) -> Result<Vec<Range<usize>>> {
    let body = body.trim_ascii_end();
    let mut lines = Vec::new();
    if body.is_empty() {
        return Ok(lines);
    }
    let mut start = 0;
    for text in body.split(|b| *b == b'\n') {
        if lines.len() == most {
            let what = format!("the body has more than {most} lines; send it in parts");
            return Err(Error::new(ErrorKind::PayloadTooLarge, what).with("limit", most));
        }
        lines.push(start..start + text.strip_suffix(b"\r").unwrap_or(text).len());
        start += text.len() + 1;
    }
    Ok(lines)
}

async fn one(call: &Call<'_>, line: Bytes, id: String, max_inline: usize) -> Result<Vec<u8>> {
    if line.len() > LARGEST_JSON {
        let what = format!("the line is longer than {LARGEST_JSON} bytes");
        return Err(Error::new(ErrorKind::PayloadTooLarge, what).with("limit", LARGEST_JSON));
    }
    let most = call.app.http.max_inputs;
    let body = if line.len() <= SHORT {
        request_json::parse(&line, most)?
    } else {
        aside(move || request_json::parse(&line, most)).await??
    };
    let body = call.expanded(body).await?;
    let request = call.request(body, id)?;
    let outcome = run(call, request).await?;
    aside(move || answer::json_text(outcome, max_inline)).await?
}

/// Runs the request of a line, and retries while the queue is full.
async fn run(call: &Call<'_>, request: InferenceRequest) -> Result<Outcome> {
    loop {
        match call.run(request.clone()).await {
            Err(e) if e.kind() == ErrorKind::Overloaded => {}
            other => return other,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = Deadline::passed(call.deadline) => {
                return Err(Deadline::exceeded(call.deadline, "waiting for its turn"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<&str> {
        lines(text.as_bytes(), MOST).unwrap().into_iter().map(|line| &text[line]).collect()
    }

    #[test]
    fn lines_end_as_on_any_system() {
        assert_eq!(of("a\nb"), ["a", "b"]);
        assert_eq!(of("a\r\nb\r\n"), ["a", "b"]);
        assert_eq!(of("\na\n\nb\n\n \r\n"), ["", "a", "", "b"]);
        assert!(of("").is_empty() && of("\n").is_empty() && of("\r\n\n").is_empty());
    }

    #[test]
    fn lines_are_bounded_while_they_are_counted() {
        let flood = "1\n".repeat(1_000_000);
        let error = lines(flood.as_bytes(), MOST).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
        assert_eq!(lines(&flood.as_bytes()[..2 * MOST], MOST).unwrap().len(), MOST);
        assert!(lines(&vec![b'\n'; 1_000_000], MOST).unwrap().is_empty());
    }
}
