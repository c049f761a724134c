//! The pipeline as called by the server: selects models by name, finds inputs in their sources, and
//! delivers outputs to their destinations.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::audit::Record;
use super::delivery::{Delivery, Destinations};
use super::{
    Given, Held, Invoke, Job, PATIENCE, Places, access, chosen, images, kinds, run_images, sources,
    store,
};
use crate::archive::Archive;
use crate::aws::Allowance;
use crate::config::AccessSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Account;
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::progress::{Observer, Progress, Stage};
use crate::registry::{Lease, Model, Registry};
use crate::request::{InferenceRequest, Input, InputOutcome, Outcome};
use crate::sink::Sink;
use crate::sink::dicomweb::DicomWeb;
use crate::source::ahi::AhiClient;
use crate::source::s3::{Location, S3Input};
use crate::telemetry::Metrics;
use crate::traces::{Span, Trace, count};

/// The state that outlives requests.
pub struct Service {
    /// The models served.
    pub registry: Arc<Registry<Model>>,
    /// AWS HealthImaging client.
    pub ahi: AhiClient,
    /// S3, for inputs.
    pub s3_input: S3Input,
    /// Writes outputs.
    pub sink: Sink,
    /// Archives of DICOM objects.
    pub archives: DicomWeb,
    /// The archive for DICOM outputs, if a request does not say.
    pub store: Option<Archive>,
    /// The resources that requests may name.
    pub access: AccessSettings,
    /// The destination of outputs, if a request does not say. If absent, outputs go into the response.
    pub output_uri: Option<String>,
    /// Whether the DICOM objects of every request get fresh UIDs.
    pub fresh_uids: bool,
    /// How series that are not regular stacks are treated.
    pub policy: PolicyChoice,
    /// Counters and measurements.
    pub metrics: Arc<Metrics>,
    /// The account that requests' memory is charged to.
    pub account: Account,
}

#[async_trait]
impl Invoke for Service {
    fn admit(&self, request: &InferenceRequest) -> Result<Held> {
        let usable = || {
            access::check(&self.access, request)?;
            let model = self.registry.get(request.model.as_deref())?;
            model.ensure_usable()?;
            let segments = chosen::segments(&model.segments, &request.segments)?;
            let kinds = kinds::of(&request.outputs, request.single, &model.outputs);
            kinds::check(&model, segments.len(), &kinds)?;
            store::check(request, &kinds)?;
            Ok(Some(model))
        };
        usable().inspect_err(|e: &Error| Record::unread(request, 0, None, e.kind().code()))
    }

    async fn request_object(&self, uri: &str, limit: usize) -> Result<Bytes> {
        self.access.check_input(uri)?;
        let location = Location::parse(uri)?;
        let object =
            self.s3_input.within(Arc::default(), Arc::new(())).small_object(&location, limit).await;
        object.map_err(|e| e.context("s3Uri").with("field", "s3Uri"))
    }

    async fn invoke(
        &self,
        request: InferenceRequest,
        held: Held,
        places: Places,
        cancel: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome> {
        let model = match held {
            Some(model) => model,
            None => self.registry.get(request.model.as_deref())?,
        };
        let allowance = Arc::new(Allowance::default());
        let output_uri = request.output_uri.as_deref().or(self.output_uri.as_deref());
        let several = request.inputs.len() > 1;
        let mut results = Vec::with_capacity(request.inputs.len());
        let mut failed = 0;
        for (index, input) in request.inputs.iter().enumerate() {
            let record = Record::of(&request, index, Some(&model));
            let span = input_span(&request.trace, index, &model.name);
            let job = Job {
                model: model.clone(),
                outputs: request.outputs.clone(),
                segments: request.segments.clone(),
                encoding: {
                    let choice = request.segmentation.or(model.segmentation);
                    choice.transfer_syntax.unwrap_or_default()
                },
                fresh_uids: self.fresh_uids,
                policy: request.policy.or(model.policy).or(self.policy).decided(),
                // Two inputs may belong to one series.
                input: several.then_some(index + 1),
                account: self.account.clone(),
                places: places.clone(),
                patience: (index > 0).then_some(PATIENCE),
                single: request.single,
                trace: span.trace(),
                progress: Arc::new(Watched {
                    cancel: cancel.clone(),
                    revoked: model.revoked().clone(),
                    metrics: Arc::clone(&self.metrics),
                    observer: Arc::clone(&observer),
                    input: index,
                }),
            };
            let to = Destinations {
                uri: output_uri,
                folder: &request.request_id,
                plan: store::plan(&request.store, self.store.as_ref(), input),
            };
            // Waiting for the network ends at once; the CPU part stops at its next window.
            let result = tokio::select! {
                result = self.input(input, job, to, &allowance, &record) => result,
                () = cancel.cancelled() => {
                    Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"))
                }
                () = model.revoked().cancelled() => Err(unloaded(&model)),
            };
            let result = result.map_err(|e| match e.kind() {
                ErrorKind::Cancelled if model.revoked().is_cancelled() => unloaded(&model),
                _ => e,
            });
            record.ended(&result);
            span.end_with(&result);
            drop(record);
            let error = match result {
                Ok(outcomes) => {
                    results.extend(outcomes);
                    continue;
                }
                Err(error) if several => error.with("input", index),
                Err(error) => return Err(error),
            };
            if error.kind() == ErrorKind::Cancelled {
                Record::unread(&request, index + 1, Some(&model), "not_run");
                return Err(error);
            }
            failed += 1;
            results.push(failure(input, error));
        }
        // If nothing was created, an error loses nothing.
        if failed == request.inputs.len()
            && let Some(first) = results.iter_mut().find_map(|result| result.failure.take())
        {
            return Err(Arc::try_unwrap(first).unwrap_or_else(|shared| shared.duplicate()));
        }
        Ok(Outcome {
            request_id: request.request_id,
            inference_id: request.inference_id,
            model: model.name.clone(),
            results,
        })
    }
}

impl Service {
    async fn input(
        &self,
        input: &Input,
        job: Job,
        to: Destinations<'_>,
        allowance: &Arc<Allowance>,
        record: &Record,
    ) -> Result<Vec<InputOutcome>> {
        let wanted: Vec<(Option<&str>, &Input)> = match input {
            Input::Images(images) => {
                images.iter().map(|(name, image)| (name.as_deref(), image)).collect()
            }
            single => vec![(None, single)],
        };
        // Before the first of them is fetched.
        let names: Vec<Option<&str>> = wanted.iter().map(|(name, _)| *name).collect();
        images::check_given(&names, &job.model)?;
        let mut found = Vec::with_capacity(wanted.len());
        let mut volumes = Vec::with_capacity(wanted.len());
        for (name, image) in wanted {
            let (place, volume) = place(image);
            volumes.push(volume);
            let span = job.trace.begin("sources");
            let sources =
                sources::find(&self.ahi, &self.s3_input, place, allowance, &job.places).await;
            span.end_with(&sources);
            let sources = sources?;
            found.push((name, sources));
        }
        let reading = record.reading(&found);
        let given: Vec<Given> = found
            .iter()
            .zip(volumes)
            .map(|((name, sources), volume)| Given {
                name: name.map(str::to_owned),
                sources: sources.iter().map(|source| &**source).collect(),
                volume: volume.cloned(),
            })
            .collect();
        let delivery = Delivery {
            sink: &self.sink,
            archives: &self.archives,
            to,
            allowance,
            record,
            progress: job.progress.clone(),
            trace: job.trace.clone(),
            input: described(input),
            single: job.single,
        };
        let outcomes = run_images(&given, job, &delivery).await?;
        drop(reading);
        Ok(outcomes)
    }
}

/// The span of one input of a request.
fn input_span(trace: &Trace, index: usize, model: &str) -> Span {
    let span = trace.begin("input");
    span.set("input", count(index));
    span.set("model", model.to_owned());
    span
}

/// Returns the location of an image, and the requested volume of its series.
fn place(input: &Input) -> (&Input, Option<&VolumeChoice>) {
    match input {
        Input::Volume { choice, of } => (of, Some(choice)),
        place => (place, None),
    }
}

/// Creates the result of a failed input among others that succeeded.
fn failure(input: &Input, error: Error) -> InputOutcome {
    let mut report = Map::new();
    report.insert("input".to_owned(), described(input));
    InputOutcome { report, artifacts: Vec::new(), failure: Some(Arc::new(error)) }
}

/// Describes an input as repeated in the report.
fn described(input: &Input) -> Value {
    match input {
        Input::ImageSet { datastore_id, image_set_id, .. } => {
            json!({"datastoreId": datastore_id, "imageSetId": image_set_id})
        }
        Input::Study { datastore_id, study_instance_uid, .. } => {
            json!({"datastoreId": datastore_id, "studyInstanceUID": study_instance_uid})
        }
        Input::S3 { uri, .. } => json!({ "s3Uri": uri }),
        Input::Body(bytes) => json!({"body": {"bytes": bytes.len()}}),
        Input::Images(images) => {
            let named: Option<Map<String, Value>> = images
                .iter()
                .map(|(name, image)| Some((name.clone()?, described(image))))
                .collect();
            let listed = || images.iter().map(|(_, image)| described(image)).collect();
            json!({ "images": named.map_or_else(listed, Value::Object) })
        }
        Input::Volume { of, .. } => described(of),
    }
}

/// Creates the error for a request that took longer than unloading its model waits.
fn unloaded(model: &Lease<Model>) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the model was unloaded before the request was finished; send it again",
    )
    .with("model", model.name.as_str())
}

/// Progress of one input of a request: it is measured, passed to the observer, and may be cancelled.
struct Watched {
    cancel: CancellationToken,
    revoked: CancellationToken,
    metrics: Arc<Metrics>,
    observer: Arc<dyn Observer>,
    /// Index of the input.
    input: usize,
}

impl Progress for Watched {
    fn advance(&self, stage: Stage, done: usize, total: usize) {
        tracing::trace!(stage = stage.name(), done, total, "progress");
        self.observer.advance(self.input, stage, done, total);
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.revoked.is_cancelled()
    }

    fn took(&self, stage: &'static str, seconds: f64) {
        self.metrics.stage(stage, seconds);
    }

    fn decoded(&self, frames: usize, bytes: u64, seconds: f64) {
        self.metrics.frames(frames, bytes, seconds);
    }

    fn spent(&self, steps: &[(&'static str, Duration)]) {
        self.metrics.spent(steps);
    }
}
