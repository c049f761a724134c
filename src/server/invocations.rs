//! `POST /invocations` and `POST /models/{name}/invoke`: one request from its bytes to its answer.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::sync::Semaphore;

use super::accept::{self, Offer};
use super::body::Media;
use super::context::{self, Context};
use super::receive::{self, Terms};
use super::{App, answer, body, lines, model_name, request_json, status};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{InferenceRequest, Outcome};
use crate::scheduler::{Deadline, Scheduled, Ticket};

/// Largest request in JSON: far more image sets than one request should name.
pub(super) const LARGEST_JSON: usize = 25 << 20;

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
                call.one(body).await
            }
            Media::Images => call.one(request_json::Body::of_images(bytes)).await,
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

/// What the requests of one body share.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub app: &'a App,
    pub context: &'a Context,
    pub headers: &'a HeaderMap,
    /// The model that the route names.
    pub routed: Option<&'a str>,
    pub deadline: Option<Deadline>,
    /// What lets them through.
    pub ticket: &'a Ticket,
}

impl Call<'_> {
    /// Answers a body of one request.
    async fn one(&self, body: request_json::Body) -> Result<Response> {
        let body = self.expanded(body).await?;
        let offer = offer(self.headers, &body)?;
        let mut request = self.request(body, self.context.request_id.clone())?;
        request.single = offer == Offer::Dicom;
        let outcome = self.run(request).await?;
        let max_inline = self.app.http.max_inline;
        aside(move || match offer {
            Offer::Dicom => answer::dicom(outcome),
            Offer::Json | Offer::JsonLines => answer::json(outcome, max_inline),
        })
        .await?
    }

    /// The request itself, where the body names one in S3 as its only input. What the body says
    /// beside it holds before what the object says.
    ///
    /// # Errors
    /// Those of reading it. Its URI is not repeated: keys in S3 are often names of patients.
    pub(super) async fn expanded(&self, body: request_json::Body) -> Result<request_json::Body> {
        let Some(uri) = body.request_object() else { return Ok(body) };
        let reading = async {
            // How large it is shows when it comes.
            let room = self.app.bodies.take(LARGEST_JSON).await?;
            let object = self.app.scheduler.request_object(uri, LARGEST_JSON).await?;
            Ok::<_, Error>((object, room))
        };
        let (object, room) = tokio::select! {
            biased;
            object = reading => object?,
            () = Deadline::passed(self.deadline) => {
                return Err(Deadline::exceeded(self.deadline, "being read from S3"));
            }
        };
        let most = self.app.http.max_inputs;
        let inner = aside(move || request_json::parse(&object, most)).await?;
        drop(room);
        let inner = inner.map_err(|e| e.context("the request in S3"))?;
        if inner.request_object().is_some() {
            let what = "the request in S3 must not name another one";
            return Err(Error::new(ErrorKind::InvalidRequest, what));
        }
        Ok(body.over(inner))
    }

    /// What the pipeline is asked.
    pub(super) fn request(
        &self,
        body: request_json::Body,
        request_id: String,
    ) -> Result<InferenceRequest> {
        Ok(InferenceRequest {
            request_id,
            inference_id: self.context.inference_id.clone(),
            inputs: body.inputs,
            model: match self.routed {
                Some(name) => Some(model_name::routed(self.headers, body.model, name)?),
                None => model_name::requested(self.headers, body.model)?,
            },
            outputs: body.outputs,
            segments: body.segments,
            segmentation: body.segmentation,
            output_uri: body.output_uri.or_else(|| self.app.http.output_uri.clone()),
            store: body.store,
            policy: body.policy,
            single: false,
        })
    }

    /// Runs a request in its turn, and notes what it took.
    pub(super) async fn run(&self, request: InferenceRequest) -> Result<Outcome> {
        let inputs = request.inputs.len();
        let scheduled = self.app.scheduler.run(self.ticket, request, self.deadline).await?;
        let Scheduled { outcome, queued, ran } = scheduled;
        self.app.metrics.queued(queued.as_secs_f64());
        tracing::info!(
            model = outcome.model,
            inputs,
            queued_seconds = queued.as_secs_f64(),
            ran_seconds = ran.as_secs_f64(),
            "inference finished"
        );
        Ok(outcome)
    }
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

/// Runs `work` on a thread that may block, so that the threads that answer HTTP do not compute. A few
/// do so at a time: threads take memory, too.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    static PLACES: Semaphore = Semaphore::const_new(16);
    let _place = PLACES.acquire().await;
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
