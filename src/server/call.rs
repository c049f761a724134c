//! A single request on its way to the pipeline, sent alone or as one line of a batch.

use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::Semaphore;

use super::context::Context;
use super::{App, model_name, request_json};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Observer, Silent};
use crate::request::{InferenceRequest, Outcome};
use crate::scheduler::{Admitted, Deadline, Scheduled, Ticket};

/// Maximum size of a JSON request: far more image sets than a request should name.
pub(super) const LARGEST_JSON: usize = 25 << 20;

/// What the route of a request determines.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Route<'a> {
    /// The model name.
    pub model: Option<&'a str>,
    /// The output URI, which overrides the one in the request.
    pub outputs: Option<&'a str>,
}

/// State shared by the requests of one body.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub app: &'a Arc<App>,
    pub context: &'a Context,
    pub headers: &'a HeaderMap,
    pub route: Route<'a>,
    pub deadline: Option<Deadline>,
    /// Their admission ticket.
    pub ticket: &'a Ticket,
}

impl Call<'_> {
    /// Fetches the request itself if the body names a request in S3 as its only input. Fields of
    /// the body override those of the object.
    ///
    /// # Errors
    /// Fails if the object cannot be fetched or parsed. The error omits the URI, because S3 keys
    /// often contain patient names.
    pub(super) async fn expanded(&self, body: request_json::Body) -> Result<request_json::Body> {
        let Some(uri) = body.request_object() else { return Ok(body) };
        let reading = async {
            // The object's size is not known in advance, so reserve the maximum.
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

    /// Builds the request for the pipeline.
    pub(super) fn request(
        &self,
        body: request_json::Body,
        request_id: String,
    ) -> Result<InferenceRequest> {
        Ok(InferenceRequest {
            request_id,
            inference_id: self.context.inference_id.clone(),
            inputs: body.inputs,
            model: match self.route.model {
                Some(name) => Some(model_name::routed(self.headers, body.model, name)?),
                None => model_name::requested(self.headers, body.model)?,
            },
            outputs: body.outputs,
            segments: body.segments,
            segmentation: body.segmentation,
            output_uri: match self.route.outputs {
                Some(uri) => Some(uri.to_owned()),
                None => body.output_uri.or_else(|| self.app.http.output_uri.clone()),
            },
            store: body.store,
            policy: body.policy,
            single: false,
            trace: self.context.trace.clone(),
        })
    }

    /// Admits and runs a request without a progress observer.
    pub(super) async fn run(&self, request: InferenceRequest) -> Result<Outcome> {
        let admitted = self.app.scheduler.admit(self.ticket, request)?;
        run(self.app, admitted, self.deadline, Arc::new(Silent)).await
    }
}

/// Runs an admitted request when its turn comes, and records its timings.
pub(super) async fn run(
    app: &App,
    admitted: Admitted,
    deadline: Option<Deadline>,
    observer: Arc<dyn Observer>,
) -> Result<Outcome> {
    let inputs = admitted.inputs();
    let scheduled = app.scheduler.run(admitted, deadline, observer).await?;
    let Scheduled { outcome, queued, ran } = scheduled;
    app.metrics.queued(queued.as_secs_f64());
    tracing::info!(
        model = outcome.model,
        inputs,
        queued_seconds = queued.as_secs_f64(),
        ran_seconds = ran.as_secs_f64(),
        "inference finished"
    );
    Ok(outcome)
}

/// Runs `work` on a blocking thread, so that the threads serving HTTP do not compute. Concurrency
/// is limited, because threads also take memory.
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
