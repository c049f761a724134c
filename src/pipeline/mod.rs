//! One request from source to outputs: the only place where the stages meet.

mod access;
mod audit;
pub mod compute;
mod forecast;
pub mod frames;
mod holding;
mod images;
pub mod outputs;
mod service;
pub mod timings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

pub use forecast::{Need, need};
pub use holding::{Holding, Places};
pub use service::Service;

use crate::cpu;
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Account;
use crate::progress::{Progress, Stage};
use crate::registry::{Lease, Model};
use crate::request::{InferenceRequest, InputOutcome, Outcome, OutputKind};
use crate::source::ImageSource;
use crate::volume::{self, Plan, Volume, VolumePolicy};
use frames::FrameStats;
use outputs::{Finished, geometry_report};
use timings::Timings;

/// What a request holds from its admission to its end; `None` only in stand-ins without models.
pub type Held = Option<Lease<Model>>;

/// Something that answers requests: the pipeline itself, and in the server's own tests a stand-in.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Acquires what a request needs while it waits for its turn: its model, which is not
    /// unloaded before the request has ended.
    ///
    /// # Errors
    /// As of [`invoke`](Self::invoke), where the request names a model that is not there.
    fn admit(&self, request: &InferenceRequest) -> Result<Held>;

    /// The bytes of a request in S3, at most `limit`.
    ///
    /// # Errors
    /// Those of reading it; [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration)
    /// where this is a stand-in without S3.
    async fn request_object(&self, uri: &str, limit: usize) -> Result<bytes::Bytes> {
        let _ = (uri, limit);
        Err(Error::new(ErrorKind::Configuration, "there is no S3"))
    }

    /// Runs one request with what [`admit`](Self::admit) acquired. Once `cancel` is cancelled it
    /// returns [`ErrorKind::Cancelled`](crate::error::ErrorKind::Cancelled) at once, while a
    /// computation that had begun stops at its next window: `places` are held until then.
    async fn invoke(
        &self,
        request: InferenceRequest,
        held: Held,
        places: Places,
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
    /// What the memory is charged to.
    pub account: Account,
    /// What the scheduler gets back once the work has ended.
    pub places: Places,
    /// How long memory may be waited for; without bound where the request holds none yet.
    pub patience: Option<Duration>,
}

/// One image of an input, or a place where images are.
pub struct Given<'s> {
    /// The name that the request gives it.
    pub name: Option<String>,
    /// The series there, one of which may be meant.
    pub sources: Vec<&'s dyn ImageSource>,
}

/// Acquires the memory that the images planned will need.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`](crate::error::ErrorKind::PayloadTooLarge), naming the attribute at
/// fault, where it is more than there is for any request.
async fn acquire(
    job: &Job,
    planned: &[(&dyn ImageSource, Arc<Series>, Arc<Plan>)],
) -> Result<(Holding, Need)> {
    let plans: Vec<(&Series, &Plan)> = planned.iter().map(|(_, s, p)| (&**s, &**p)).collect();
    let need = need(&job.model, &plans, &job.outputs)?;
    tracing::debug!(bytes = need.bytes, free = job.account.work.free(), "memory for an input");
    let taking = job.account.work.take(need.bytes);
    let taken = match job.patience {
        None => taking.await,
        // It holds the outputs of inputs before this one, and others may wait for those.
        Some(patience) => tokio::time::timeout(patience, taking).await.map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                "the memory for another input of the request did not come free; send its inputs one \
                 by one",
            )
        })?,
    };
    let grant = taken.map_err(|e| need.refused(e))?;
    Ok((Holding::new(grant, job.places.clone()), need))
}

/// Runs one input of one image. Storing the outputs is the caller's, as is `input` in the report.
pub async fn run(source: &dyn ImageSource, job: Job) -> Result<InputOutcome> {
    run_images(&[Given { name: None, sources: vec![source] }], job).await
}

/// Runs one input of several images, each with the name that the model package gives it, or of the
/// series of one place, among which the package's rules choose. The
/// result lies on the grid of the model's first image, whose series it refers to.
pub async fn run_images(given: &[Given<'_>], job: Job) -> Result<InputOutcome> {
    let mut timings = Timings::default();
    let progress = job.progress.clone();
    let described = images::described(given, &job.model).await?;
    let ordered = images::in_order(described, &job.model)?;
    let total = ordered.len();
    let mut planned: Vec<(&dyn ImageSource, Arc<Series>, Arc<Plan>)> = Vec::with_capacity(total);
    for (source, series) in ordered {
        let (described, policy) = (series.clone(), job.policy.clone());
        let plan = Arc::new(cpu::run(move || volume::plan(&described, &policy)).await?);
        images::check_frame_of_reference(planned.first().map(|(_, s, _)| s), &series)?;
        planned.push((source, series, plan));
        progress.advance(Stage::Metadata, planned.len(), total);
    }
    timings.end(Stage::Metadata);
    let (holding, need) = acquire(&job, &planned).await?;
    timings.end(Stage::Memory);
    let mut loaded: Vec<(Arc<Series>, Arc<Plan>, Volume)> = Vec::with_capacity(total);
    let mut stats = FrameStats::default();
    for (source, series, plan) in planned {
        let (volume, took) = frames::load(source, &series, &plan, &*progress, &holding).await?;
        stats.frames += took.frames;
        stats.encoded_bytes += took.encoded_bytes;
        timings.end(Stage::Frames);
        progress.decoded(took.frames, took.encoded_bytes, timings.latest());
        loaded.push((series, plan, volume));
    }

    // The whole computation is one piece of blocking work of its own: it uses the CPU pool inside,
    // and must not sit on one of its threads while it waits for the network's.
    let work = move || {
        // Held until the work has really ended, whether or not anybody still waits for it.
        let holding = holding;
        let model = &*job.model;
        let mut described = Vec::with_capacity(loaded.len());
        let mut volumes = Vec::with_capacity(loaded.len());
        for (series, plan, volume) in loaded {
            volumes.push((volume, plan.geometry.clone()));
            described.push((series, plan));
        }
        let computed = compute::segment(model, volumes, &mut timings, &*job.progress)?;
        let (series, plan) =
            described.first().cloned().ok_or_else(|| Error::internal("an input of no image"))?;
        job.progress.check()?;
        let finished = Finished {
            model,
            series: &series,
            plan: &plan,
            segmentation: &computed.segmentation,
            request_id: &job.request_id,
        };
        holding.keep(need.result);
        let kinds = if job.outputs.is_empty() { &model.outputs } else { &job.outputs };
        let written = finished.write(kinds)?;
        timings.end(Stage::Write);
        job.progress.advance(Stage::Write, 1, 1);
        timings.tell(&*job.progress);

        let mut warnings: Vec<String> =
            described.iter().flat_map(|(_, plan)| plan.warnings.clone()).collect();
        warnings.extend(model.postprocessing.warnings());
        warnings.extend(written.warnings);
        let mut report = Map::new();
        report.insert("studyInstanceUID".to_owned(), json!(series.study_instance_uid));
        report.insert("seriesInstanceUID".to_owned(), json!(series.series_instance_uid));
        if described.len() > 1 {
            let uids = described.iter().map(|(series, _)| json!(series.series_instance_uid));
            let images: Map<String, Value> = model.images.iter().cloned().zip(uids).collect();
            report.insert("images".to_owned(), Value::Object(images));
        }
        report.insert("geometry".to_owned(), geometry_report(&plan, computed.network_dims));
        report.insert("segments".to_owned(), written.segments);
        report.extend(model.network.describe());
        report.insert(
            "frames".to_owned(),
            json!({"count": stats.frames, "encodedBytes": stats.encoded_bytes}),
        );
        report.insert("windows".to_owned(), json!(computed.windows.windows));
        report.insert("timings".to_owned(), timings.to_json());
        report.insert("warnings".to_owned(), Value::from(warnings));
        let mut artifacts = written.artifacts;
        let bytes = artifacts.iter_mut().map(|one| std::mem::take(&mut one.bytes)).collect();
        for (artifact, bytes) in artifacts.iter_mut().zip(holding.outputs(bytes)) {
            artifact.bytes = bytes;
        }
        Ok(InputOutcome { report, artifacts })
    };
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| cpu::contained(work)))
        .await
        .unwrap_or_else(|_| Err(Error::internal("the computation was stopped from outside")))
}
