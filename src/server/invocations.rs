//! `POST /invocations` and `POST /models/{name}/invoke`: handles one HTTP request from body to
//! response.

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

/// Handles one HTTP request; errors become JSON responses.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Response {
    respond(&app, &context, request, Route::default()).await
}

/// Handles one HTTP request with the settings of its route.
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
    // The request is admitted here: a server that is shutting down still completes it.
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
        // The whole request fails, even if parts of it are done.
        stopped = app.scheduler.stopped() => Err(stopped),
        answer = answering => answer,
    }
}

/// Time limits of a request, by the kind of response.
#[derive(Debug, Clone, Copy)]
struct Limits {
    began: Instant,
    whole: Option<Duration>,
    stream: Option<Duration>,
}

impl Limits {
    /// The limits of a request that begins now.
    fn begin(settings: &HttpSettings) -> Self {
        let (whole, stream) = (settings.request_timeout, settings.stream_timeout);
        Self { began: Instant::now(), whole, stream }
    }

    /// The deadline of a plain response.
    fn whole(self, bound: Bound) -> Option<Deadline> {
        self.whole.map(|limit| Deadline::since(self.began, limit, bound))
    }

    /// The deadline of a streaming response.
    fn stream(self) -> Option<Deadline> {
        self.stream.map(|limit| Deadline::since(self.began, limit, Bound::Stream))
    }

    /// The deadline as far as the headers determine it. If they ask for a stream, it will be one:
    /// the body can only rule out a DICOM response.
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

/// Receives a body, unless the server is told to stop first.
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

/// Handles a body with a single request.
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

/// All offers for a response.
const ALL: [Offer; 4] = [Offer::Json, Offer::Dicom, Offer::JsonLines, Offer::EventStream];

/// All offers except DICOM.
const IN_JSON: [Offer; 3] = [Offer::Json, Offer::JsonLines, Offer::EventStream];

/// Negotiates the representation of the response. Accepting `application/dicom` implies a
/// segmentation output if the request lists no outputs; the pipeline knows which type the model
/// package declares.
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

/// Logs that the client disconnected before its response. Dropping the handler has already
/// cancelled the work.
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
