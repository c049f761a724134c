//! One request from source to outputs: the only place where the stages meet.

pub mod compute;
pub mod frames;
pub mod outputs;
mod service;
pub mod timings;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

pub use service::Service;

use crate::cpu;
use crate::error::Result;
use crate::progress::{Progress, Stage};
use crate::registry::{Lease, Model};
use crate::request::{InferenceRequest, InputOutcome, Outcome, OutputKind};
use crate::source::ImageSource;
use crate::volume::{self, VolumePolicy};
use outputs::{Finished, geometry_report};
use timings::Timings;

/// What a request holds from its admission to its end; `None` only in stand-ins without models.
pub type Held = Option<Lease<Model>>;

/// Something that answers requests: the pipeline itself, and in the server's own tests a stand-in.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Takes hold of what a request needs while it waits for its turn: its model, which is not
    /// unloaded before the request has ended.
    ///
    /// # Errors
    /// As of [`invoke`](Self::invoke), where the request names a model that is not there.
    fn admit(&self, request: &InferenceRequest) -> Result<Held>;

    /// Runs one request with what [`admit`](Self::admit) took hold of. Once `cancel` is cancelled it stops at the next stage or window with
    /// [`ErrorKind::Cancelled`](crate::error::ErrorKind::Cancelled).
    async fn invoke(
        &self,
        request: InferenceRequest,
        held: Held,
        cancel: CancellationToken,
    ) -> Result<Outcome>;
}

/// What one input needs beside its images.
#[derive(Clone)]
pub struct Job {
    /// The model to run.
    pub model: Lease<Model>,
    /// What to make; empty means the model's own list.
    pub outputs: Vec<OutputKind>,
    /// How series that are not clean stacks are treated.
    pub policy: VolumePolicy,
    /// For names of outputs.
    pub request_id: String,
    /// Told of progress, asked about cancellation.
    pub progress: Arc<dyn Progress>,
}

/// Runs one input. Storing the outputs is the caller's, as is `input` in the report.
pub async fn run(source: &dyn ImageSource, job: Job) -> Result<InputOutcome> {
    let mut timings = Timings::default();
    let progress = job.progress.clone();
    let series = Arc::new(source.series().await?);
    let (planned, policy) = (series.clone(), job.policy.clone());
    let plan = Arc::new(cpu::run(move || volume::plan(&planned, &policy)).await?);
    timings.end(Stage::Metadata);
    progress.advance(Stage::Metadata, 1, 1);
    let (volume, stats) = frames::load(source, &series, &plan, &*progress).await?;
    timings.end(Stage::Frames);
    progress.decoded(stats.frames, stats.encoded_bytes, timings.latest());

    // The whole computation is one piece of blocking work of its own: it uses the CPU pool inside,
    // and must not sit on one of its threads while it waits for the network's.
    let work = move || {
        let model = &*job.model;
        let computed =
            compute::segment(model, volume, &plan.geometry, &mut timings, &*job.progress)?;
        job.progress.check()?;
        let finished = Finished {
            model,
            series: &series,
            plan: &plan,
            segmentation: &computed.segmentation,
            request_id: &job.request_id,
        };
        let kinds = if job.outputs.is_empty() { &model.outputs } else { &job.outputs };
        let written = finished.write(kinds)?;
        timings.end(Stage::Write);
        job.progress.advance(Stage::Write, 1, 1);
        timings.tell(&*job.progress);

        let mut warnings = plan.warnings.clone();
        warnings.extend(written.warnings);
        let mut report = Map::new();
        report.insert("studyInstanceUID".to_owned(), json!(series.study_instance_uid));
        report.insert("seriesInstanceUID".to_owned(), json!(series.series_instance_uid));
        report.insert("geometry".to_owned(), geometry_report(&plan, computed.network_dims));
        report.insert("segments".to_owned(), written.segments);
        report.insert("executionProvider".to_owned(), json!(model.network.provider()));
        report.insert(
            "frames".to_owned(),
            json!({"count": stats.frames, "encodedBytes": stats.encoded_bytes}),
        );
        report.insert("windows".to_owned(), json!(computed.windows.windows));
        report.insert("timings".to_owned(), timings.to_json());
        report.insert("warnings".to_owned(), Value::from(warnings));
        Ok(InputOutcome { report, artifacts: written.artifacts })
    };
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| cpu::contained(work)))
        .await
        .unwrap_or_else(|_| {
            Err(crate::error::Error::internal("the computation was stopped from outside"))
        })
}
