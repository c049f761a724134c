//! One request from source to outputs: the only place where the stages meet.

mod access;
mod audit;
pub mod compute;
mod decoding;
pub mod fetch;
mod forecast;
pub mod frames;
mod holding;
mod images;
pub mod outputs;
mod placing;
mod service;
mod suited;
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
use crate::policy::{Policy, VolumeChoice, Wanted};
use crate::progress::{Progress, Stage};
use crate::registry::{Lease, Model};
use crate::request::{InferenceRequest, InputOutcome, Outcome, OutputKind};
use crate::source::ImageSource;
use crate::volume::{self, Plan, Volume, VolumeId};
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
    pub policy: Policy,
    /// For names of outputs: that of the request, with the input's number where it has several.
    pub request_id: String,
    /// Told of progress, asked about cancellation.
    pub progress: Arc<dyn Progress>,
    /// What the memory is charged to.
    pub account: Account,
    /// What the scheduler gets back once the work has ended.
    pub places: Places,
    /// How long memory may be waited for; without bound where the request holds none yet.
    pub patience: Option<Duration>,
    /// Whether the answer has room for one result only.
    pub single: bool,
}

/// One image of an input, or a place where images are.
pub struct Given<'s> {
    /// The name that the request gives it.
    pub name: Option<String>,
    /// The series there, one of which may be meant.
    pub sources: Vec<&'s dyn ImageSource>,
    /// Which of the series' volumes, where the request says it.
    pub volume: Option<VolumeChoice>,
}

/// An image as its headers describe it: its source, its series, the volume to be made.
type Planned<'s> = (&'s dyn ImageSource, Arc<Series>, Arc<Plan>);

/// How long memory may be waited for while the outputs of what was done before are held.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Acquires the memory that the images planned will need.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`](crate::error::ErrorKind::PayloadTooLarge), naming the attribute at
/// fault, where it is more than there is for any request.
async fn acquire(job: &Job, planned: &[Planned<'_>]) -> Result<(Holding, Need)> {
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

/// Runs one input of one image. Storing the outputs is the caller's, as is `input` in the reports: one
/// for each volume that is segmented.
pub async fn run(
    source: &dyn ImageSource,
    volume: Option<VolumeChoice>,
    job: Job,
) -> Result<Vec<InputOutcome>> {
    run_images(&[Given { name: None, sources: vec![source], volume }], job).await
}

/// Runs one input of several images, each with the name that the model package gives it, or of the
/// series of one place, among which the package's rules choose. The
/// result lies on the grid of the model's first image, whose series it refers to. There are several where
/// the policy says that each volume of a series is segmented.
pub async fn run_images(given: &[Given<'_>], mut job: Job) -> Result<Vec<InputOutcome>> {
    let mut timings = Timings::default();
    let described = images::described(given, &job.model).await?;
    let ordered = images::in_order(described, &job.model)?;
    let volumes = plan_all(ordered, &job).await?;
    timings.end(Stage::Metadata);
    let mut outcomes = Vec::with_capacity(volumes.len());
    for planned in volumes {
        outcomes.push(segment(planned, job.clone(), std::mem::take(&mut timings)).await?);
        // From now on it holds outputs.
        job.patience = Some(PATIENCE);
    }
    Ok(outcomes)
}

/// Plans the volumes of each image, in the order of [`Model::images`]: for a model of one image, all
/// that the policy allows; otherwise one of each image.
async fn plan_all<'s>(ordered: Vec<images::Read<'s>>, job: &Job) -> Result<Vec<Vec<Planned<'s>>>> {
    let total = ordered.len();
    let mut first: Option<Arc<Series>> = None;
    let mut images: Vec<Vec<Planned<'s>>> = Vec::with_capacity(total);
    for images::Read { source, series, volume } in ordered {
        let (model, described, policy) = (job.model.clone(), series.clone(), job.policy);
        let planning = move || {
            let unsuited = suited::check(&model, total, &described, policy.mismatch)?;
            let wanted = match (&volume, &model.volume) {
                (Some(choice), _) => Wanted::Asked(choice),
                (None, Some(choice)) => Wanted::Usual(choice),
                (None, None) => Wanted::Any,
            };
            let mut plans = volume::plan(&described, &policy, wanted)?;
            for plan in &mut plans {
                plan.warnings.extend(unsuited.clone());
            }
            Ok(plans)
        };
        let plans = cpu::run(planning).await?;
        if plans.len() > 1 && total > 1 {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "series {} holds {} volumes, and the model takes {total} images at once: name one \
                     volume of each by \"volume\"; the policy \"volumes\": \"each\" is for models of one \
                     image",
                    series.series_instance_uid,
                    plans.len()
                ),
            ));
        }
        if plans.len() > 1 && job.single {
            return Err(Error::new(
                ErrorKind::NotAcceptable,
                format!(
                    "series {} holds {} volumes, each to be segmented, and an answer in DICOM holds one \
                     segmentation; name one by \"volume\", or accept application/json",
                    series.series_instance_uid,
                    plans.len()
                ),
            ));
        }
        images::check_frame_of_reference(first.as_ref(), &series)?;
        first.get_or_insert_with(|| series.clone());
        images
            .push(plans.into_iter().map(|plan| (source, series.clone(), Arc::new(plan))).collect());
        job.progress.advance(Stage::Metadata, images.len(), total);
    }
    Ok(match <[_; 1]>::try_from(images) {
        Ok([volumes]) => volumes.into_iter().map(|volume| vec![volume]).collect(),
        Err(images) => vec![images.into_iter().flatten().collect()],
    })
}

/// Segments one volume of each image.
async fn segment(
    planned: Vec<Planned<'_>>,
    job: Job,
    mut timings: Timings,
) -> Result<InputOutcome> {
    let progress = job.progress.clone();
    let total = planned.len();
    {
        let kinds = if job.outputs.is_empty() { &job.model.outputs } else { &job.outputs };
        let (_, series, plan) =
            planned.first().ok_or_else(|| Error::internal("an input of no image"))?;
        outputs::check_writable(series, plan, kinds)?;
    }
    let (holding, need) = acquire(&job, &planned).await?;
    timings.end(Stage::Memory);
    let mut loaded: Vec<(Arc<Series>, Arc<Plan>, Volume)> = Vec::with_capacity(total);
    let mut stats = FrameStats::default();
    let mut beside: Vec<String> = Vec::new();
    for (source, series, plan) in planned {
        // Images of one place have what lay beside them in common.
        let more: Vec<String> =
            source.warnings().into_iter().filter(|warning| !beside.contains(warning)).collect();
        beside.extend(more);
        let (volume, took) = frames::load(source, &series, &plan, &*progress, &holding).await?;
        stats += took;
        timings.end(Stage::Frames);
        progress.decoded(took.frames, took.encoded_bytes, timings.latest());
        progress.spent(&took.work.steps());
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
        let kinds = if job.outputs.is_empty() { &model.outputs } else { &job.outputs };
        let finished = Finished {
            model,
            series: &series,
            plan: &plan,
            segmentation: &computed.segmentation,
            request_id: &job.request_id,
        };
        holding.keep(need.result);
        let written = finished.write(kinds)?;
        timings.end(Stage::Write);
        job.progress.advance(Stage::Write, 1, 1);
        timings.tell(&*job.progress);

        let mut warnings = beside;
        warnings.extend(described.iter().flat_map(|(_, plan)| plan.warnings.clone()));
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
        if let Some(volume) = &plan.volume {
            let VolumeId { number, of, name } = volume;
            report.insert("volume".to_owned(), json!({"number": number, "of": of, "name": name}));
        }
        report.insert("geometry".to_owned(), geometry_report(&plan, computed.network_dims));
        if let Some(units) = &plan.units {
            report.insert("units".to_owned(), json!(units));
        }
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
