//! `POST /invocations` and `POST /models/{name}/invoke`: one request from its bytes to its answer.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::accept::{self, Offer};
use super::context::{self, Context};
use super::{App, answer, body, model_name, request_json, status};
use crate::error::{Error, Result};
use crate::request::{InferenceRequest, OutputKind};
use crate::scheduler::{Deadline, Scheduled};

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
    body::ensure_json(&headers)?;
    let body = body::read(&headers, body, app.http.max_body, deadline).await?;
    let body = aside(move || request_json::parse(&body)).await??;

    let (offer, outputs) = offer(&headers, &body)?;
    let request = InferenceRequest {
        request_id: context.request_id.clone(),
        inference_id: context.inference_id.clone(),
        inputs: body.inputs,
        model: match routed {
            Some(name) => Some(model_name::routed(&headers, body.model, name)?),
            None => model_name::requested(&headers, body.model)?,
        },
        outputs,
        output_uri: body.output_uri.or_else(|| app.http.output_uri.clone()),
    };
    let inputs = request.inputs.len();
    let Scheduled { outcome, queued, ran } = app.scheduler.run(request, deadline).await?;
    app.metrics.queued(queued.as_secs_f64());
    tracing::info!(
        model = outcome.model,
        inputs,
        queued_seconds = queued.as_secs_f64(),
        ran_seconds = ran.as_secs_f64(),
        "inference finished"
    );
    let max_inline = app.http.max_inline;
    aside(move || match offer {
        Offer::Json => answer::json(outcome, max_inline),
        Offer::Dicom => answer::dicom(outcome),
    })
    .await?
}

/// What to answer with, and the outputs to ask for. Asking for the DICOM object itself asks for
/// that output, too, where the request does not list outputs.
fn offer(headers: &HeaderMap, body: &request_json::Body) -> Result<(Offer, Vec<OutputKind>)> {
    let outputs = body.outputs.clone();
    let (offers, why_not): (&[Offer], _) = if body.inputs.len() > 1 {
        (&[Offer::Json], " (an answer in DICOM holds one segmentation, and there are many inputs)")
    } else if !outputs.is_empty() && !outputs.contains(&OutputKind::DicomSeg) {
        (&[Offer::Json], " (dicom-seg is not among the outputs asked for)")
    } else {
        (&[Offer::Json, Offer::Dicom], "")
    };
    match accept::negotiate(headers, offers, why_not)? {
        Offer::Dicom if outputs.is_empty() => Ok((Offer::Dicom, vec![OutputKind::DicomSeg])),
        offer => Ok((offer, outputs)),
    }
}

/// Runs `work` on a thread that may block, so that the threads that answer HTTP do not compute.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|_| Error::internal("reading the request or writing its answer panicked"))
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
