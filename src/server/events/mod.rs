//! Streaming responses: progress events of a request, with the report as the last event.
//!
//! The events, in order: `accepted` at once; `queued` if the request has to wait, repeated whenever
//! its position changes; `started`; `progress` for each stage of each input; finally `result` with
//! the report of a plain response, or `error`. A `heartbeat` is sent during silence. A failure
//! before `accepted` is an ordinary error response.
//!
//! The work runs in a task of its own, so that a slow client blocks neither the queue nor the
//! pipeline. Progress is sent a few times a second, and only the latest of each stage. The body
//! owns the task: if the client disconnects, dropping the body aborts the task and cancels the
//! work.

mod feed;
mod frame;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use futures::stream;
use serde_json::{Map, Value, json};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

pub(super) use frame::Framing;

use super::accept::Offer;
use super::call::{self, Call, aside};
use super::context::{Context, Ended};
use super::{answer, status};
use crate::error::{Error, Result};
use crate::request::InferenceRequest;
use crate::scheduler::Deadline;
use feed::{Feed, News};

/// Asks an nginx in front of the server to forward each event immediately.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How often events are sent.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Silence before a heartbeat.
    heartbeat: Duration,
    /// Minimum time between progress updates.
    progress: Duration,
}

/// The heartbeat comes at half of the silence that clients must tolerate, to allow for delays on
/// the way.
const PACE: Pace = Pace { heartbeat: Duration::from_secs(5), progress: Duration::from_millis(250) };

/// Responds to a request with a stream of events.
///
/// # Errors
/// Propagates the errors of admission, which can still be sent with a status.
pub(super) fn answer(
    call: &Call<'_>,
    offer: Offer,
    framing: Framing,
    request: InferenceRequest,
    deadline: Option<Deadline>,
) -> Result<Response> {
    let admitted = call.app.scheduler.admit(call.ticket, request)?;
    let feed = Arc::new(Feed::default());
    let (app, ticket) = (Arc::clone(call.app), call.ticket.clone());
    let observer = Arc::clone(&feed);
    let work = async move {
        // Holds the ticket until the report is encoded, so that draining waits for it.
        let _ticket = ticket;
        let outcome = call::run(&app, admitted, deadline, observer).await?;
        let max_inline = app.http.max_inline;
        aside(move || answer::json_text(outcome, max_inline)).await?
    };
    let work = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    let ended = Ended::default();
    let limit = deadline.map(|deadline| deadline.limit().as_secs_f64());
    let events = Events::begin(framing, call.context, limit, feed, work, ended.clone(), PACE);
    let mut response = Response::new(events.into_body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(offer.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(ended);
    Ok(response)
}

/// The task that produces the text of the report. Dropping it cancels the work.
type Work = AbortOnDropHandle<Result<Vec<u8>>>;

/// The events of a request, in the order the client receives them.
struct Events {
    framing: Framing,
    request_id: String,
    feed: Arc<Feed>,
    /// `None` once it has ended.
    work: Option<Work>,
    /// Records how the stream ended.
    ended: Ended,
    /// Encoded events that are sent before anything else.
    ready: VecDeque<Bytes>,
    /// The earliest time for the next progress update.
    next_progress: Instant,
    began: Instant,
    pace: Pace,
    span: Span,
}

impl Events {
    fn begin(
        framing: Framing,
        context: &Context,
        limit: Option<f64>,
        feed: Arc<Feed>,
        work: Work,
        ended: Ended,
        pace: Pace,
    ) -> Self {
        let now = Instant::now();
        let mut events = Self {
            framing,
            request_id: context.request_id.clone(),
            feed,
            work: Some(work),
            ended,
            ready: VecDeque::new(),
            next_progress: now,
            began: now,
            pace,
            span: Span::current(),
        };
        let mut fields = object(json!({"requestId": context.request_id}));
        if let Some(id) = &context.inference_id {
            fields.insert("inferenceId".to_owned(), id.as_str().into());
        }
        fields.insert("limitSeconds".to_owned(), limit.into());
        events.tell("accepted", fields);
        events
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut events| async move {
            let bytes = events.next().await?;
            Some((Ok::<_, Infallible>(bytes), events))
        }))
    }

    /// Returns the next bytes to send; `None` after the last event.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            let work = self.work.as_mut()?;
            tokio::select! {
                biased;
                report = work => {
                    self.work = None;
                    self.tell_news();
                    self.finish(report);
                }
                () = news(&self.feed, self.next_progress) => {
                    self.tell_news();
                    self.next_progress = Instant::now() + self.pace.progress;
                }
                () = tokio::time::sleep(self.pace.heartbeat) => {
                    let seconds = seconds(self.began.elapsed());
                    self.tell("heartbeat", object(json!({ "seconds": seconds })));
                }
            }
        }
    }

    fn tell(&mut self, name: &'static str, fields: Map<String, Value>) {
        self.ready.extend(self.framing.event(name, fields, None));
    }

    fn tell_news(&mut self) {
        let News { place, started, stages } = self.feed.take();
        if let Some(place) = place {
            self.tell("queued", object(json!({ "place": place })));
        }
        if started {
            let waited = seconds(self.began.elapsed());
            self.tell("started", object(json!({ "seconds": waited })));
        }
        for ((input, stage), (done, total)) in stages {
            let share = if total == 0 { 1.0 } else { done as f64 / total as f64 };
            let share = (share.min(1.0) * 1e4).round() / 1e4;
            let stage = stage.name();
            let fields = json!({
                "input": input, "stage": stage, "done": done, "total": total, "share": share,
            });
            self.tell("progress", object(fields));
        }
    }

    fn finish(&mut self, report: Result<Result<Vec<u8>>, JoinError>) {
        let died = |_| Err(Error::internal("answering the request panicked"));
        match report.unwrap_or_else(died) {
            Ok(report) => {
                self.ended.well();
                let last = Some(("report", report));
                self.ready.extend(self.framing.event("result", Map::new(), last));
            }
            Err(error) => {
                self.span.in_scope(|| status::log_one(&error));
                self.ended.badly(error.kind());
                let fields = json!({
                    "status": status::status(error.kind()).as_u16(),
                    "error": status::described(&error),
                    "requestId": self.request_id,
                });
                self.tell("error", object(fields));
            }
        }
    }
}

/// Logs that the client disconnected. The work is cancelled when the task is dropped next.
impl Drop for Events {
    fn drop(&mut self) {
        if self.work.is_some() && !std::thread::panicking() {
            let _span = self.span.enter();
            tracing::warn!(code = "cancelled", "the client went away; its work is cancelled");
        }
    }
}

/// Resolves once there are updates to send, but not before `due`.
async fn news(feed: &Feed, due: Instant) {
    feed.any().await;
    tokio::time::sleep_until(due).await;
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Seconds, rounded to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests;
