//! `POST /invocations` and `POST /models/{name}/invoke`: one request from its bytes to its answer.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::accept::{self, Offer};
use super::body::Media;
use super::call::{Call, LARGEST_JSON, aside};
use super::context::{self, Context};
use super::receive::{self, Terms};
use super::{App, answer, body, lines, request_json, status};
use crate::error::Result;
use crate::scheduler::Deadline;

/// Answers one request; errors become their JSON.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Response {
    respond(&app, &context, request, None).await
}

/// Answers one request for the model that the route names, if it does.
pub(super) async fn respond(
    app: &App,
    context: &Context,
    request: Request,
    routed: Option<&str>,
) -> Response {
    let deadline = app.http.request_timeout.map(Deadline::after);
    let mut hang_up = HangUp { answered: false };
    let answered = answer(app, context, request, routed, deadline).await;
    hang_up.answered = true;
    answered.unwrap_or_else(|error| status::respond(&error, &context.request_id))
}

async fn answer(
    app: &App,
    context: &Context,
    request: Request,
    routed: Option<&str>,
    deadline: Option<Deadline>,
) -> Result<Response> {
    app.scheduler.ensure_open()?;
    if let Some(name) = routed {
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
    let terms = Terms { limit, room: &app.bodies, pace: app.http.connections.pace, deadline };
    let bytes = receive_while_open(app, &headers, body, terms).await?;
    // From here on the request is let in: a server that is told to stop answers it first.
    let ticket = app.scheduler.ticket()?;
    let call = Call { app, context, headers: &headers, routed, deadline, ticket: &ticket };
    let answering = async {
        match media {
            Media::Json => {
                let most = app.http.max_inputs;
                let body = aside(move || request_json::parse(&bytes, most)).await??;
                one(&call, body).await
            }
            Media::Images => one(&call, request_json::Body::of_images(bytes)).await,
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
async fn one(call: &Call<'_>, body: request_json::Body) -> Result<Response> {
    let body = call.expanded(body).await?;
    let offer = offer(call.headers, &body)?;
    let mut request = call.request(body, call.context.request_id.clone())?;
    request.single = offer == Offer::Dicom;
    let outcome = call.run(request).await?;
    let max_inline = call.app.http.max_inline;
    aside(move || match offer {
        Offer::Dicom => answer::dicom(outcome),
        Offer::Json | Offer::JsonLines => answer::json(outcome, max_inline),
    })
    .await?
}

/// What to answer with. Asking for the DICOM object itself asks for that output, too, where the request does
/// not list outputs: the pipeline knows which type the model's package lists.
fn offer(headers: &HeaderMap, body: &request_json::Body) -> Result<Offer> {
    let segmentations = body.outputs.iter().filter(|kind| kind.is_segmentation()).count();
    let (offers, why_not): (&[Offer], _) = if body.inputs.len() > 1 {
        (&[Offer::Json], " (an answer in DICOM holds one segmentation, and there are many inputs)")
    } else if !body.outputs.is_empty() && segmentations == 0 {
        (
            &[Offer::Json],
            " (neither dicom-seg nor dicom-seg-labelmap is among the outputs asked for)",
        )
    } else if segmentations > 1 {
        (
            &[Offer::Json],
            " (an answer in DICOM holds one segmentation, and two types are asked for)",
        )
    } else {
        (&[Offer::Json, Offer::Dicom], "")
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
