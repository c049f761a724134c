//! `POST /invocations` and `POST /models/{name}/invoke`: one request from its bytes to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::Instant;

use super::accept::{self, Offer};
use super::body::Media;
use super::call::{Call, LARGEST_JSON, Route, aside};
use super::context::{self, Context};
use super::events::{self, Framing};
use super::receive::{self, Terms};
use super::{App, answer, body, lines, request_json, status};
use crate::config::HttpSettings;
use crate::error::Result;
use crate::scheduler::{Bound, Deadline};

/// Answers one request; errors become their JSON.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Response {
    respond(&app, &context, request, Route::default()).await
}

/// Answers one request, with what its route says of it.
pub(super) async fn respond(
    app: &Arc<App>,
    context: &Context,
    request: Request,
    route: Route<'_>,
) -> Response {
    let limits = Limits::begin(&app.http);
    let mut hang_up = HangUp { answered: false };
    let answered = answer(app, context, request, route, limits).await;
    hang_up.answered = true;
    answered.unwrap_or_else(|error| status::respond(&error, &context.request_id))
}

async fn answer(
    app: &Arc<App>,
    context: &Context,
    request: Request,
    route: Route<'_>,
    limits: Limits,
) -> Result<Response> {
    app.scheduler.ensure_open()?;
    if let Some(name) = route.model {
        app.models.loaded(name)?;
    }
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    context::inference_id(&headers)?;
    let media = body::media(&headers)?;
    let limit = match media {
        Media::Json => app.http.max_body.min(LARGEST_JSON),
        Media::JsonLines | Media::Images => app.http.max_body,
    };
    let deadline = limits.expected(media, &headers);
    let terms = Terms { limit, room: &app.bodies, pace: app.http.connections.pace, deadline };
    let bytes = receive_while_open(app, &headers, body, terms).await?;
    // From here on the request is let in: a server that is told to stop answers it first.
    let ticket = app.scheduler.ticket()?;
    let call = Call { app, context, headers: &headers, route, deadline, ticket: &ticket };
    let answering = async {
        match media {
            Media::Json => {
                let most = app.http.max_inputs;
                let body = aside(move || request_json::parse(&bytes, most)).await??;
                one(&call, body, limits).await
            }
            Media::Images => one(&call, request_json::Body::of_images(bytes), limits).await,
            Media::JsonLines => lines::answer(&call, bytes).await,
        }
    };
    tokio::select! {
        biased;
        // Answered as a whole, whatever parts of it are done.
        stopped = app.scheduler.stopped() => Err(stopped),
        answer = answering => answer,
    }
}

/// How long a request has, by how it is answered.
#[derive(Debug, Clone, Copy)]
struct Limits {
    began: Instant,
    whole: Option<Duration>,
    stream: Option<Duration>,
}

impl Limits {
    /// Those of a request that begins now.
    fn begin(settings: &HttpSettings) -> Self {
        let (whole, stream) = (settings.request_timeout, settings.stream_timeout);
        Self { began: Instant::now(), whole, stream }
    }

    /// The deadline of an answer as a whole.
    fn whole(self, bound: Bound) -> Option<Deadline> {
        self.whole.map(|limit| Deadline::since(self.began, limit, bound))
    }

    /// The deadline of a stream.
    fn stream(self) -> Option<Deadline> {
        self.stream.map(|limit| Deadline::since(self.began, limit, Bound::Stream))
    }

    /// The deadline as far as headers tell it. What is expected to be a stream will be one: all that a body
    /// can still rule out is an answer in DICOM.
    fn expected(self, media: Media, headers: &HeaderMap) -> Option<Deadline> {
        let bound = match (media, self.whole, self.stream) {
            (Media::JsonLines, _, _) => Bound::Request,
            (_, Some(whole), Some(stream)) if stream <= whole => Bound::Request,
            _ => Bound::RequestOrStream,
        };
        let streams = accept::negotiate(headers, &ALL, "").ok().and_then(Framing::of);
        match (media, streams) {
            (Media::Json | Media::Images, Some(_)) => self.stream(),
            _ => self.whole(bound),
        }
    }
}

/// Receives a body, for as long as the server is not told to stop.
pub(super) async fn receive_while_open(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    terms: Terms<'_>,
) -> Result<Bytes> {
    tokio::select! {
        biased;
        closed = app.scheduler.closed() => Err(closed),
        bytes = receive::body(headers, body, terms) => bytes,
    }
}

/// Answers a body of one request.
async fn one(call: &Call<'_>, body: request_json::Body, limits: Limits) -> Result<Response> {
    let body = call.expanded(body).await?;
    let offer = offer(call.headers, &body)?;
    let mut request = call.request(body, call.context.request_id.clone())?;
    if let Some(framing) = Framing::of(offer) {
        return events::answer(call, offer, framing, request, limits.stream());
    }
    request.single = offer == Offer::Dicom;
    let outcome = call.run(request).await?;
    let max_inline = call.app.http.max_inline;
    aside(move || match offer {
        Offer::Dicom => answer::dicom(outcome),
        Offer::Json | Offer::JsonLines | Offer::EventStream => answer::json(outcome, max_inline),
    })
    .await?
}

/// All that a request may be answered with.
const ALL: [Offer; 4] = [Offer::Json, Offer::Dicom, Offer::JsonLines, Offer::EventStream];

/// The same without DICOM.
const IN_JSON: [Offer; 3] = [Offer::Json, Offer::JsonLines, Offer::EventStream];

/// What to answer with. Asking for the DICOM object itself asks for that output, too, where the request does
/// not list outputs: the pipeline knows which type the model's package lists.
fn offer(headers: &HeaderMap, body: &request_json::Body) -> Result<Offer> {
    let segmentations = body.outputs.iter().filter(|kind| kind.is_segmentation()).count();
    let (offers, why_not): (&[Offer], _) = if body.inputs.len() > 1 {
        (&IN_JSON, " (an answer in DICOM holds one segmentation, and there are many inputs)")
    } else if !body.outputs.is_empty() && segmentations == 0 {
        (&IN_JSON, " (neither dicom-seg nor dicom-seg-labelmap is among the outputs asked for)")
    } else if segmentations > 1 {
        (&IN_JSON, " (an answer in DICOM holds one segmentation, and two types are asked for)")
    } else {
        (&ALL, "")
    };
    accept::negotiate(headers, offers, why_not)
}

/// Notes in the log that a client went away before its answer. Dropping the handler has cancelled
/// the work by then.
struct HangUp {
    answered: bool,
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if !self.answered && !std::thread::panicking() {
            tracing::warn!(code = "cancelled", "the client went away; its work is cancelled");
        }
    }
}
