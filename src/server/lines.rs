//! Bodies of many requests, one in JSON on each line, as batch transform sends them.
//!
//! Every line has its line in the answer, in the same order: the report, or the error of that line. A line
//! that fails does not fail the others.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};

use super::accept::{Offer, negotiate};
use super::invocations::{Call, aside};
use super::{answer, request_json, status};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{InferenceRequest, Outcome};
use crate::scheduler::Deadline;

/// Lines of one body.
const MOST: usize = 100_000;

/// Pause of a line that found the queue full of other requests: its caller cannot send it again.
const PAUSE: Duration = Duration::from_millis(500);

/// Answers a body of lines.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] where there is no line, [`ErrorKind::PayloadTooLarge`] where there
/// are too many, [`ErrorKind::NotAcceptable`]. What fails within a line is in its line.
pub(super) async fn answer(call: &Call<'_>, body: Bytes) -> Result<Response> {
    let why_not = " (the answer has a line for each line)";
    let offer = negotiate(call.headers, &[Offer::JsonLines, Offer::Json], why_not)?;
    let lines = lines(&body);
    if lines.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, "the body has no line"));
    }
    if lines.len() > MOST {
        let what = format!("the body has more than {MOST} lines; send it in parts");
        return Err(Error::new(ErrorKind::PayloadTooLarge, what).with("limit", MOST));
    }
    let max_inline = call.app.http.max_inline / lines.len();
    let at_once = call.app.scheduler.settings().max_concurrent;
    let answers: Vec<Vec<u8>> = stream::iter(lines.into_iter().enumerate())
        .map(|(index, line)| async move {
            let request_id = format!("{}-{}", call.context.request_id, index + 1);
            match one(call, line, request_id.clone(), max_inline).await {
                Ok(text) => text,
                Err(error) => status::text(&error.with("line", index + 1), &request_id),
            }
        })
        .buffered(at_once)
        .collect()
        .await;
    let mut text = answers.join(&b'\n');
    text.push(b'\n');
    Ok(([(CONTENT_TYPE, offer.media_type())], text).into_response())
}

/// The lines, without the end of the last one and the carriage returns of some systems.
fn lines(body: &Bytes) -> Vec<Bytes> {
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|b| *b == b'\n')
        .map(|line| body.slice_ref(line.strip_suffix(b"\r").unwrap_or(line)))
        .collect()
}

async fn one(call: &Call<'_>, line: Bytes, id: String, max_inline: usize) -> Result<Vec<u8>> {
    let body = aside(move || request_json::parse(&line)).await??;
    let body = call.expanded(body).await?;
    let outputs = body.outputs.clone();
    let request = call.request(body, outputs, id)?;
    let outcome = run(call, request).await?;
    aside(move || answer::json_text(outcome, max_inline)).await?
}

/// Runs the request of a line, as often as it finds the queue full.
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

    #[test]
    fn lines_end_as_on_any_system() {
        let of = |text: &'static str| lines(&Bytes::from_static(text.as_bytes()));
        assert_eq!(of("a\nb"), ["a", "b"]);
        assert_eq!(of("a\r\nb\r\n"), ["a", "b"]);
        assert_eq!(of("a\n\nb\n"), ["a", "", "b"]);
        assert!(of("").is_empty() && of("\n").is_empty());
    }
}
