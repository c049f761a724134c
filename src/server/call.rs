//! One request on its way to the pipeline, by itself or as a line among many.

use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::Semaphore;

use super::context::Context;
use super::{App, model_name, request_json};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Observer, Silent};
use crate::request::{InferenceRequest, Outcome};
use crate::scheduler::{Admitted, Deadline, Scheduled, Ticket};

/// Largest request in JSON: far more image sets than one request should name.
pub(super) const LARGEST_JSON: usize = 25 << 20;

/// What the route of a request says of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Route<'a> {
    /// The model.
    pub model: Option<&'a str>,
    /// Where outputs go, whatever the request says.
    pub outputs: Option<&'a str>,
}

/// What the requests of one body share.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub app: &'a Arc<App>,
    pub context: &'a Context,
    pub headers: &'a HeaderMap,
    pub route: Route<'a>,
    pub deadline: Option<Deadline>,
    /// What lets them through.
    pub ticket: &'a Ticket,
}

impl Call<'_> {
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

    /// Runs a request in its turn, watched by nobody.
    pub(super) async fn run(&self, request: InferenceRequest) -> Result<Outcome> {
        let admitted = self.app.scheduler.admit(self.ticket, request)?;
        run(self.app, admitted, self.deadline, Arc::new(Silent)).await
    }
}

/// Runs a request that was let in, in its turn, and notes what it took.
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
