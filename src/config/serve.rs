//! Settings of the server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::parse::{bounded, seconds};
use super::{
    AccessArgs, AccessSettings, AwsArgs, AwsSettings, ComputeArgs, ComputeSettings, ConnectionArgs,
    ConnectionSettings, EndpointUrl, MemoryArgs, PolicyArgs, ResultArgs, StoreArgs, StoreSettings,
    TraceArgs, UiArgs, UiSettings, ui, wrong,
};
use crate::archive::Archive;
use crate::error::Result;
use crate::memory;
use crate::policy::PolicyChoice;

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "SAGEMAKER_BIND_TO_PORT", default_value_t = 8080, value_name = "PORT")]
    pub port: u16,
    /// Address to listen on
    #[arg(long, env = "BIND_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
          value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Folder that is a MONAI bundle, or that holds one or several of them
    #[arg(long, env = "MODEL_DIR", default_value = "/opt/ml/model", value_name = "DIR")]
    pub model: PathBuf,
    /// Largest request body accepted, and the most that bodies hold at once [default: 1 GiB, as
    /// asynchronous endpoints allow, and at most a quarter of the memory]
    #[arg(long, env = "MAX_BODY_BYTES", value_name = "BYTES",
          value_parser = bounded::<1024, { 1 << 40 }>)]
    pub max_body: Option<usize>,
    /// Largest JSON answer that outputs are put into; beyond it they need an output URI
    #[arg(long, env = "MAX_INLINE_BYTES", default_value = "5500000", value_name = "BYTES",
          value_parser = bounded::<0, { 1 << 30 }>)]
    pub max_inline: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub memory: MemoryArgs,
    /// Inputs that one request may list
    #[arg(long, env = "MAX_INPUTS_PER_REQUEST", default_value = "64", value_name = "N",
          value_parser = bounded::<1, MOST_INPUTS>)]
    pub max_inputs: usize,
    /// Time a request has from its headers to its answer; 0 sets no limit [default: 60, and 3600 in
    /// batch transform]
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "SECONDS", value_parser = seconds)]
    pub request_timeout: Option<Duration>,
    /// Time a request has that is answered by a stream of events, at least REQUEST_TIMEOUT; 0 sets no
    /// limit [default: 475, which leaves 5 of SageMaker's 8 minutes for the last event, and REQUEST_TIMEOUT
    /// where that is longer]
    #[arg(long, env = "STREAM_TIMEOUT", value_name = "SECONDS", value_parser = seconds)]
    pub stream_timeout: Option<Duration>,
    /// Whether this is a batch transform, where requests have an hour
    #[arg(long, env = "SAGEMAKER_BATCH", default_value = "false", value_name = "BOOL",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub batch: bool,
    /// Time that running requests get to finish once the server is told to stop
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "25", value_name = "SECONDS",
          value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Requests worked on at the same time [default: one for every two cores, at least 2, as far as
    /// half of the memory has 1 GiB for each]
    #[arg(long, env = "MAX_CONCURRENT_REQUESTS", value_name = "N",
          value_parser = bounded::<1, 256>)]
    pub max_concurrent: Option<usize>,
    /// Requests that may wait for their turn; more are refused
    #[arg(long, env = "QUEUE_LENGTH", default_value = "16", value_name = "N",
          value_parser = bounded::<0, 65_536>)]
    pub queue: usize,
    /// Start without models; the platform loads and unloads them through /models
    #[arg(long, env = "SAGEMAKER_MULTI_MODEL", default_value = "false", value_name = "BOOL",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub multi_model: bool,
    /// Memory that the models of a multi-model endpoint may occupy; more are refused with 507
    /// [default: WORK_MEMORY_BYTES less 1 GiB for each request that may run, and at least half of it]
    #[arg(long, env = "MEMORY_BUDGET_BYTES", value_name = "BYTES",
          value_parser = bounded::<1, { 1 << 50 }>)]
    pub memory_budget_bytes: Option<usize>,
    /// Folders below which a multi-model endpoint may load models, separated by ':' or ','
    /// [default: /opt/ml]
    #[arg(long, env = "MODEL_ROOTS", value_name = "DIRS")]
    pub model_roots: Option<String>,
    /// Where outputs go when a request does not say: s3://BUCKET/PREFIX or file:///FOLDER
    /// [default: into the answer]
    #[arg(long, env = "OUTPUT_S3_URI", value_name = "URI")]
    pub output_uri: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connections: ConnectionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub results: ResultArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub aws: AwsArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ui: UiArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub traces: TraceArgs,
}

/// The validated settings of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeSettings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The models to serve.
    pub models: ModelSettings,
    /// The HTTP interface.
    pub http: HttpSettings,
    /// Admission limits.
    pub admission: AdmissionSettings,
    /// Time that running requests have to finish at shutdown.
    pub drain_timeout: Duration,
    /// Whether the DICOM objects of every request get new UIDs.
    pub fresh_uids: bool,
    /// How series that are not clean stacks are handled.
    pub policy: PolicyChoice,
    /// Compute settings.
    pub compute: ComputeSettings,
    /// AWS services.
    pub aws: AwsSettings,
    /// What requests may name.
    pub access: AccessSettings,
    /// Settings for storing results in archives.
    pub store: StoreSettings,
    /// The web page, if enabled.
    pub ui: Option<UiSettings>,
    /// Memory limits of inputs and work.
    pub memory: MemorySettings,
    /// Collector that traces are exported to, if any.
    pub collector: Option<EndpointUrl>,
}

/// Memory limits of requests, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// For images as received.
    pub inputs: u64,
    /// For models, volumes, windows and results; `None` is unlimited.
    pub work: Option<u64>,
}

/// Which models are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSettings {
    /// The models in a folder that is a bundle or contains several.
    Folder(PathBuf),
    /// Models loaded by the platform.
    MultiModel {
        /// Memory budget of the models in bytes; `None` is unlimited.
        budget: Option<u64>,
        /// Absolute paths of the folders that models may be loaded from.
        roots: Vec<PathBuf>,
    },
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// Maximum size of a request body in bytes.
    pub max_body: usize,
    /// Maximum size in bytes of a JSON response with inline outputs.
    pub max_inline: usize,
    /// Time from the start of a request to its response; `None` is unlimited.
    pub request_timeout: Option<Duration>,
    /// Time from the start of a request to the last event of a stream; `None` is unlimited.
    pub stream_timeout: Option<Duration>,
    /// Where outputs go if a request does not specify it.
    pub output_uri: Option<String>,
    /// Maximum number of inputs per request, at most [`MOST_INPUTS`].
    pub max_inputs: usize,
    /// Limits of client connections.
    pub connections: ConnectionSettings,
}

/// Admission limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Maximum number of concurrent requests, at least 1.
    pub max_concurrent: usize,
    /// Maximum number of waiting requests.
    pub queue: usize,
}

impl ServeArgs {
    /// Validates the flags and their combinations.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::error::ErrorKind::Configuration), naming the flag.
    pub fn settings(self) -> Result<ServeSettings> {
        if let Some(uri) = &self.output_uri {
            check_output_uri(uri)?;
        }
        if self.max_inline == 0 && self.output_uri.is_none() {
            return Err(wrong(
                "--max-inline",
                "0 leaves outputs nowhere to go unless --output-uri is set too",
            ));
        }
        let timeout = self.request_timeout.unwrap_or(match self.batch {
            true => LONGEST_TRANSFORM,
            false => LONGEST_INVOCATION,
        });
        let stream_timeout = self.stream_timeout(timeout)?;
        let ui = self.ui.settings(self.host, ui::platform(self.batch, self.multi_model))?;
        let mut access = self.access.settings()?;
        let store = self.store.settings(&access)?;
        if let Some(Archive::Service(url)) = &store.default {
            access.services.push(url.clone());
        }
        if let Some(uri) = &self.output_uri
            && access.check_output(uri).is_err()
        {
            return Err(wrong("--output-uri", "is no place that --s3-allowed-outputs allows"));
        }
        let compute = self.compute.settings();
        let memory = memory::limit();
        let max_concurrent =
            self.max_concurrent.unwrap_or_else(|| usual_concurrency(compute.threads, memory));
        let max_body = self.max_body.unwrap_or_else(|| usual_body(memory));
        let inputs =
            self.memory.max_input.map_or_else(|| memory::usual_inputs(memory), |n| n as u64);
        let usual = memory.map(|limit| memory::usual_work(limit, max_body as u64, inputs));
        let work = self.memory.work_memory.map(|bytes| bytes as u64).or(usual);
        let models = if self.multi_model {
            let set = self.memory_budget_bytes.map(|bytes| bytes as u64);
            let budget = set.or_else(|| work.map(|work| usual_budget(work, max_concurrent)));
            let roots = model_roots(self.model_roots.as_deref().unwrap_or(MODEL_ROOT))?;
            ModelSettings::MultiModel { budget, roots }
        } else if self.model_roots.is_some() {
            return Err(wrong(
                "--model-roots",
                "says where a multi-model endpoint may load models from; it needs --multi-model",
            ));
        } else if self.memory_budget_bytes.is_some() {
            return Err(wrong(
                "--memory-budget-bytes",
                "bounds the models of a multi-model endpoint; it needs --multi-model",
            ));
        } else {
            ModelSettings::Folder(self.model)
        };
        Ok(ServeSettings {
            listen: SocketAddr::new(self.host, self.port),
            models,
            http: HttpSettings {
                max_body,
                max_inline: self.max_inline,
                request_timeout: Some(timeout).filter(|t| !t.is_zero()),
                stream_timeout,
                output_uri: self.output_uri,
                max_inputs: self.max_inputs,
                connections: self.connections.settings()?,
            },
            admission: AdmissionSettings { max_concurrent, queue: self.queue },
            drain_timeout: self.drain_timeout,
            fresh_uids: self.results.fresh_uids,
            policy: self.policy.choice(),
            compute,
            aws: self.aws.settings()?,
            access,
            store,
            ui,
            memory: MemorySettings { inputs, work },
            collector: self.traces.collector()?,
        })
    }

    /// Returns the time limit of a stream, given the `timeout` of other requests.
    fn stream_timeout(&self, timeout: Duration) -> Result<Option<Duration>> {
        let limited = |time: Duration| Some(time).filter(|time| !time.is_zero());
        let (whole, set) = (limited(timeout), self.stream_timeout.map(limited));
        let shorter = match (whole, set) {
            (Some(whole), Some(Some(stream))) => stream < whole,
            (None, Some(Some(_))) => true,
            _ => false,
        };
        // A model's environment also applies to its batch transforms, where no caller asks for a
        // stream.
        if shorter && (self.request_timeout.is_some() || !self.batch) {
            return Err(wrong(
                "--stream-timeout",
                "must not be shorter than --request-timeout: a request is told to ask for a stream \
                 where it needs longer",
            ));
        }
        Ok(set.unwrap_or_else(|| whole.map(|whole| whole.max(LONGEST_STREAM))))
    }
}

/// Upper bound for the inputs per request; the parser rejects more.
pub const MOST_INPUTS: usize = 1024;
/// The folder in which the platform puts models.
const MODEL_ROOT: &str = "/opt/ml";

/// Parses a list of folders.
fn model_roots(list: &str) -> Result<Vec<PathBuf>> {
    let parts = list.split([':', ',']).map(str::trim).filter(|part| !part.is_empty());
    let roots: Vec<PathBuf> = parts.map(PathBuf::from).collect();
    match roots.is_empty() || roots.iter().any(|root| !root.is_absolute()) {
        true => Err(wrong("--model-roots", "must be absolute paths of folders, at least one")),
        false => Ok(roots),
    }
}

/// Time limit of the platform for a container of a real-time endpoint.
const LONGEST_INVOCATION: Duration = Duration::from_secs(60);

/// Time limit of a stream: the 8 minutes for which the platform relays one, less the time the last
/// event takes to arrive.
const LONGEST_STREAM: Duration = Duration::from_secs(8 * 60 - 5);

/// Maximum time that batch transform waits for a response (`InvocationsTimeoutInSeconds`).
const LONGEST_TRANSFORM: Duration = Duration::from_secs(3600);

/// Returns the default maximum body size: that of an asynchronous endpoint, if memory permits.
fn usual_body(memory: Option<u64>) -> usize {
    const LARGEST: u64 = 1 << 30;
    let bytes = memory.map_or(LARGEST, |memory| LARGEST.min(memory / 4));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Memory of one running request: a large CT as stored, as network input and as labels, with the
/// windows in between. A complete run on 512 × 512 × 300 voxels, resampled to 3 mm, took 500 MiB
/// including its model.
const REQUEST_BYTES: u64 = 1 << 30;

/// Returns the default number of concurrent requests. Two use a machine of any size better than
/// one: one computes while the other fetches.
fn usual_concurrency(cores: usize, memory: Option<u64>) -> usize {
    let by_cores = (cores / 2).clamp(2, 16);
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / 2 / REQUEST_BYTES);
    by_cores.min(usize::try_from(by_memory).unwrap_or(usize::MAX)).max(1)
}

/// Returns the share of the work memory left for models besides running requests.
fn usual_budget(work: u64, max_concurrent: usize) -> u64 {
    work.saturating_sub(REQUEST_BYTES.saturating_mul(max_concurrent as u64)).max(work / 2)
}

fn check_output_uri(uri: &str) -> Result<()> {
    let usable = match uri.split_once("://") {
        Some(("s3", _)) => crate::request::is_s3_uri(uri),
        Some(("file", path)) => path.starts_with('/'),
        _ => false,
    };
    if usable {
        return Ok(());
    }
    Err(wrong("--output-uri", "must be s3://BUCKET/PREFIX or file:///FOLDER"))
}

#[cfg(test)]
mod tests;
