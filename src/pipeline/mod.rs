//! Processes one request from source to outputs: the only place where the stages meet.

mod access;
mod audit;
pub mod browse;
mod chosen;
pub mod compare;
pub mod compute;
mod decoding;
mod delivery;
pub mod fetch;
mod forecast;
pub mod frames;
mod holding;
mod identity;
mod images;
mod kinds;
pub mod names;
mod on_slices;
pub mod outputs;
mod pictures;
mod placing;
mod report;
mod segments;
mod service;
pub mod sources;
mod store;
mod suited;
pub mod timings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use forecast::{Need, need};
pub use holding::{Holding, Places};
pub use service::Service;

use crate::cpu;
use crate::dicom::Series;
use crate::dicom::encoding::FrameEncoding;
use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Account;
use crate::policy::{Policy, VolumeChoice, Wanted};
use crate::progress::{Observer, Progress, Silent, Stage};
use crate::registry::{Lease, Model};
use crate::request::{InferenceRequest, InputOutcome, Outcome, OutputKind};
use crate::source::{ImageSource, Origin};
use crate::traces::{Trace, count};
use crate::volume::{self, Plan, Volume};
use crate::writers::dicom::Identity;
use frames::FrameStats;
use names::Names;
use outputs::Finished;
use timings::Timings;

/// The lease that a request holds from admission to its end; `None` only in test doubles without
/// models.
pub type Held = Option<Lease<Model>>;

/// Executes requests: the pipeline itself, or a test double in the server's tests.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Acquires the model lease while the request queues, so that the model is not unloaded before the
    /// request has ended.
    ///
    /// # Errors
    /// Propagates the errors of [`invoke`](Self::invoke) if the request names a model that does not
    /// exist.
    fn admit(&self, request: &InferenceRequest) -> Result<Held>;

    /// Reads the bytes of a request in S3, at most `limit`.
    ///
    /// # Errors
    /// Propagates the errors of reading it;
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration) for a test double without
    /// S3.
    async fn request_object(&self, uri: &str, limit: usize) -> Result<bytes::Bytes> {
        let _ = (uri, limit);
        Err(Error::new(ErrorKind::Configuration, "there is no S3"))
    }

    /// Runs one request with the lease from [`admit`](Self::admit). When `cancel` is cancelled, it
    /// returns [`ErrorKind::Cancelled`](crate::error::ErrorKind::Cancelled) at once. A running
    /// computation stops at its next window and holds `places` until then. `observer` is notified of
    /// progress.
    async fn invoke(
        &self,
        request: InferenceRequest,
        held: Held,
        places: Places,
        cancel: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome>;
}

/// What one input needs besides its images.
#[derive(Clone)]
pub struct Job {
    /// The model to run.
    pub model: Lease<Model>,
    /// The outputs to create; empty means the model's own list.
    pub outputs: Vec<OutputKind>,
    /// Labels of the segments wanted; empty means all of the model's.
    pub segments: Vec<String>,
    /// How the frames of DICOM SEG of type LABELMAP are encoded.
    pub encoding: FrameEncoding,
    /// Whether DICOM objects get fresh UIDs instead of derived ones.
    pub fresh_uids: bool,
    /// How series that are not regular stacks are treated.
    pub policy: Policy,
    /// The number of the input in its request, if there are several; used in the names of outputs.
    pub input: Option<usize>,
    /// Receives progress and is polled for cancellation.
    pub progress: Arc<dyn Progress>,
    /// The account that memory is charged to.
    pub account: Account,
    /// The scheduler permit, released once the work has ended.
    pub places: Places,
    /// Time limit for waiting for memory; unlimited if the request holds none yet.
    pub patience: Option<Duration>,
    /// Whether the response only has room for one result.
    pub single: bool,
    /// The input's place in its trace.
    pub trace: Trace,
}

impl Job {
    /// Creates the default job of `model`, without limits or observers.
    pub fn of(model: Lease<Model>) -> Self {
        Self {
            model,
            outputs: Vec::new(),
            segments: Vec::new(),
            encoding: FrameEncoding::default(),
            fresh_uids: false,
            policy: Policy::default(),
            input: None,
            progress: Arc::new(Silent),
            account: Account::unbounded(),
            places: Arc::new(()),
            patience: None,
            single: false,
            trace: Trace::default(),
        }
    }

    /// Returns the outputs to create.
    fn kinds(&self) -> Vec<OutputKind> {
        kinds::of(&self.outputs, self.single, &self.model.outputs)
    }
}

/// One image of an input, or a place with images.
pub struct Given<'s> {
    /// Its name in the request.
    pub name: Option<String>,
    /// The series there, one of which may be meant.
    pub sources: Vec<&'s dyn ImageSource>,
    /// The volume of the series, if the request names one.
    pub volume: Option<VolumeChoice>,
}

/// An image as described by its headers: its source, its series, and the plan of its volume.
type Planned<'s> = (&'s dyn ImageSource, Arc<Series>, Arc<Plan>);

/// Time limit for waiting for memory while holding the outputs of earlier work.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Acquires the memory needed for the planned images, for `runs` simultaneous runs.
///
/// # Errors
/// [`ErrorKind::PayloadTooLarge`](crate::error::ErrorKind::PayloadTooLarge), with the attribute at
/// fault, if it exceeds the memory available to any request.
async fn acquire(job: &Job, planned: &[Planned<'_>], runs: u64) -> Result<(Holding, Need)> {
    let plans: Vec<(&Series, &Plan)> = planned.iter().map(|(_, s, p)| (&**s, &**p)).collect();
    let need = need(&job.model, &plans, &job.kinds())?;
    tracing::debug!(bytes = need.bytes, free = job.account.work.free(), "memory for an input");
    job.progress.advance(Stage::Memory, 0, 1);
    let taking = job.account.work.take(need.bytes.saturating_mul(runs));
    let taken = match job.patience {
        None => taking.await,
        // The request holds the outputs of earlier inputs, and others may wait for that memory.
        Some(patience) => tokio::time::timeout(patience, taking).await.map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                "the memory for another input of the request did not come free; send its inputs one \
                 by one",
            )
        })?,
    };
    let grant = taken.map_err(|e| need.refused(e))?;
    job.progress.advance(Stage::Memory, 1, 1);
    Ok((Holding::new(grant, job.places.clone()), need))
}

/// Runs one input with one image, and returns one outcome for each segmented volume. The caller stores
/// the outputs and adds `input` to the reports.
pub async fn run(
    source: &dyn ImageSource,
    volume: Option<VolumeChoice>,
    job: Job,
) -> Result<Vec<InputOutcome>> {
    run_images(&[Given { name: None, sources: vec![source], volume }], job, &Keep).await
}

/// Receives the outcomes of an input as they are created.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Processes an outcome before the next one is created. The returned outcome goes into the
    /// response.
    ///
    /// # Errors
    /// Propagates the errors of processing it; the input has then failed.
    async fn deliver(&self, outcome: InputOutcome) -> Result<InputOutcome>;
}

/// Leaves outcomes unchanged.
struct Keep;

#[async_trait]
impl Deliver for Keep {
    async fn deliver(&self, outcome: InputOutcome) -> Result<InputOutcome> {
        Ok(outcome)
    }
}

/// Runs one input with several images, each named as in the model package, or with the series of one
/// place, among which the package's rules choose. The result is on the grid of the model's first image,
/// and refers to its series. There are several results if the policy asks for each volume of a series.
pub async fn run_images(
    given: &[Given<'_>],
    mut job: Job,
    delivery: &dyn Deliver,
) -> Result<Vec<InputOutcome>> {
    let mut timings = Timings::of(job.trace.clone());
    timings.begin(Stage::Metadata);
    let segments = chosen::segments(&job.model.segments, &job.segments)?;
    kinds::check(&job.model, segments.len(), &job.kinds())?;
    let described = images::described(given, &job.model).await?;
    let ordered = images::in_order(described, &job.model)?;
    let volumes = plan_all(ordered, &job).await?;
    timings.end(Stage::Metadata);
    let mut outcomes = Vec::with_capacity(volumes.len());
    for planned in volumes {
        let took = std::mem::replace(&mut timings, Timings::of(job.trace.clone()));
        let outcome = segment(planned, job.clone(), segments.clone(), took).await?;
        outcomes.push(delivery.deliver(outcome).await?);
        // From now on, the request holds outputs.
        job.patience = Some(PATIENCE);
    }
    Ok(outcomes)
}

/// Plans the volumes of each image, in the order of [`Model::images`]: for a model of one image, all
/// that the policy allows; otherwise, one for each image.
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

/// One image with its voxels.
struct Loaded {
    series: Arc<Series>,
    plan: Arc<Plan>,
    origin: Option<Origin>,
    volume: Volume,
}

/// Segments one volume of each image.
async fn segment(
    planned: Vec<Planned<'_>>,
    job: Job,
    segments: Vec<SegmentDescription>,
    mut timings: Timings,
) -> Result<InputOutcome> {
    let (_, series, plan) =
        planned.first().ok_or_else(|| Error::internal("an input of no image"))?;
    kinds::check_writable(series, plan, &job.kinds())?;
    timings.begin(Stage::Memory);
    let (holding, need) = acquire(&job, &planned, 1).await?;
    timings.end(Stage::Memory);
    let mut stats = FrameStats::default();
    let mut beside: Vec<String> = Vec::new();
    let mut loaded = Vec::with_capacity(planned.len());
    for (source, series, plan) in planned {
        // Images of one place share its warnings.
        let more: Vec<String> =
            source.warnings().into_iter().filter(|warning| !beside.contains(warning)).collect();
        beside.extend(more);
        timings.begin(Stage::Frames);
        // Measurements are those of the first image.
        let measured = loaded.is_empty();
        let (volume, took) =
            frames::load(source, &series, &plan, &*job.progress, &holding, measured).await?;
        stats += took;
        timings.set("frames", count(took.frames));
        timings.set("encoded_bytes", count(took.encoded_bytes));
        timings.end(Stage::Frames);
        job.progress.decoded(took.frames, took.encoded_bytes, timings.latest());
        job.progress.spent(&took.work.steps());
        loaded.push(Loaded { series, plan, origin: source.origin(), volume });
    }

    // The whole computation is one blocking task: it uses the CPU pool internally and must not occupy
    // one of its threads while it waits for the network's.
    let work = move || {
        let work = Work { job, segments, holding, need, stats, beside, timings };
        work.run(loaded)
    };
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| cpu::contained(work)))
        .await
        .unwrap_or_else(|_| Err(Error::internal("the computation was stopped from outside")))
}

/// The computation of one input, after its images are loaded.
struct Work {
    job: Job,
    segments: Vec<SegmentDescription>,
    /// Held until the work has really ended, whether or not a caller still waits for it.
    holding: Holding,
    need: Need,
    stats: FrameStats,
    /// Warnings of the sources.
    beside: Vec<String>,
    timings: Timings,
}

impl Work {
    fn run(mut self, loaded: Vec<Loaded>) -> Result<InputOutcome> {
        let model = &*self.job.model;
        let mut described = Vec::with_capacity(loaded.len());
        let mut volumes = Vec::with_capacity(loaded.len());
        for Loaded { series, plan, origin, volume } in loaded {
            volumes.push((volume, plan.geometry.clone()));
            described.push((series, plan, origin));
        }
        let (series, plan, _) =
            described.first().ok_or_else(|| Error::internal("an input of no image"))?;
        let progress = &*self.job.progress;
        let mut computed = compute::segment(model, volumes, &mut self.timings, progress)?;
        progress.check()?;
        chosen::restrict(&mut computed.segmentation, &model.segments, &self.segments);
        let names = Names::new(
            names::labels(&self.segments),
            &model.name,
            self.job.input,
            plan.volume.as_ref().map(|volume| volume.number),
        );
        let finished = Finished {
            model,
            series,
            plan,
            segmentation: &computed.segmentation,
            segments: &self.segments,
            physical: &computed.physical,
            identity: &self.identity(&described),
            encoding: self.job.encoding,
            names: &names,
        };
        self.holding.keep(self.need.result);
        progress.advance(Stage::Write, 0, 1);
        self.timings.begin(Stage::Write);
        let mut written = finished.write(&self.job.kinds())?;
        self.timings.end(Stage::Write);
        progress.advance(Stage::Write, 1, 1);
        self.timings.tell(progress);

        let mut warnings = std::mem::take(&mut self.beside);
        warnings.extend(described.iter().flat_map(|(_, plan, _)| plan.warnings.clone()));
        warnings.extend(model.postprocessing.warnings());
        warnings.append(&mut written.warnings);
        let images: Vec<(&Series, &Plan)> =
            described.iter().map(|(series, plan, _)| (&**series, &**plan)).collect();
        let report = report::Report {
            model,
            images: &images,
            computed: &computed,
            segments: std::mem::take(&mut written.segments),
            frames: &self.stats,
            timings: &self.timings,
            warnings,
        };
        let report = report.into_json();
        let mut artifacts = written.artifacts;
        let bytes = artifacts.iter_mut().map(|one| std::mem::take(&mut one.bytes)).collect();
        for (artifact, bytes) in artifacts.iter_mut().zip(self.holding.outputs(bytes)) {
            artifact.bytes = bytes;
        }
        computed.recycle();
        Ok(InputOutcome { report, artifacts, failure: None })
    }

    fn identity(&self, described: &[(Arc<Series>, Arc<Plan>, Option<Origin>)]) -> Identity {
        if self.job.fresh_uids {
            return Identity::fresh();
        }
        let images: Vec<identity::Read> = described
            .iter()
            .map(|(series, plan, origin)| identity::Read { series, plan, origin: origin.as_ref() })
            .collect();
        let labels: Vec<String> = self.segments.iter().map(|one| one.label.clone()).collect();
        identity::derived(&self.job.model, &images, &self.job.policy, &labels)
    }
}
