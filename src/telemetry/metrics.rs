//! All metrics and their names, in Prometheus text format.
//!
//! Every name is in [`Metrics::new`]. Labels have few possible values, none of which a caller can
//! choose. Values counted elsewhere (by the scheduler and the AWS clients) are read on every
//! scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use super::calls::{CallSample, Service};
use super::calls::{Calls, show};
use super::namer::Namer;
use crate::error::{Error, Result};

/// The media type of the output of [`Metrics::encode`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The prefix of every name.
const PREFIX: &str = "ahi_inference";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoredAs {
    status: &'static str,
}

/// Sums of seconds, by stage.
type Sums = Family<Stage, Counter<f64, AtomicU64>>;

/// Reads counts by kind, maintained elsewhere.
type Counts = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>;

/// Reads sums of durations by step, maintained elsewhere.
type Steps = Box<dyn Fn() -> Vec<(&'static str, Duration)> + Send>;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_seconds: Histograms<Route>,
    queue_seconds: Histogram,
    received: Counter,
    sent: Counter,
    stages: Histograms<Stage>,
    frames: Counter,
    frame_bytes: Counter,
    frame_steps: Sums,
    fetch_steps: Mutex<Option<Steps>>,
    frame_rate: Histogram,
    running: Gauge,
    waiting: Gauge,
    models: Family<State, Gauge>,
    model_bytes: Gauge,
    model_budget: Gauge,
    resident: Gauge,
    input_bytes: Gauge,
    work_bytes: Gauge,
    connections: Gauge,
    connections_ended: Family<Ending, Counter>,
    body_bytes: Gauge,
    calls: Calls,
    stored: Family<StoredAs, Counter>,
    storing: Mutex<Option<Counts>>,
}

/// The current state, sampled on every scrape.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Running requests.
    pub running: usize,
    /// Waiting requests.
    pub waiting: usize,
    /// The state of each model.
    pub models: Vec<&'static str>,
    /// Bytes of the memory budget occupied by models.
    pub model_bytes: u64,
    /// The memory budget of models in bytes; 0 if unlimited.
    pub model_budget: u64,
    /// Resident memory of the process in bytes.
    pub resident: u64,
    /// Bytes of inputs in memory.
    pub input_bytes: u64,
    /// Bytes of work memory held by models and requests.
    pub work_bytes: u64,
    /// Open client connections.
    pub connections: usize,
    /// Number of connections the server has closed because of a timeout or the limit, by reason.
    pub connections_ended: Vec<(&'static str, u64)>,
    /// Bytes held by bodies.
    pub body_bytes: u64,
}

/// Buckets from 5 ms, the time of a probe, to 20 minutes, the limit of an asynchronous request.
fn seconds() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0,
        300.0, 1200.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics at zero. Prometheus appends `_total` to the names of counters.
    pub fn new() -> Self {
        let mut names = Namer(Registry::with_prefix(PREFIX));
        let n = &mut names;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        n.0.register("build", "The program", build);
        let calls = Calls::new(n);
        let requests = n.add("requests", "Requests answered", Family::default());
        let by_route = Histograms::new_with_constructor(seconds as fn() -> Histogram);
        let by_stage = Histograms::new_with_constructor(seconds as fn() -> Histogram);
        let rates =
            Histogram::new([1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0]);
        Self {
            requests,
            request_seconds: n.add("request_seconds", "From headers to answer", by_route),
            queue_seconds: n.add("queue_seconds", "Time requests waited to run", seconds()),
            received: n.add("received_bytes", "Bytes of bodies of requests", Counter::default()),
            sent: n.add("sent_bytes", "Bytes of bodies of answers", Counter::default()),
            stages: n.add("stage_seconds", "Time a stage took, for one input", by_stage),
            frames: n.add("frames", "Image frames fetched and decoded", Counter::default()),
            frame_bytes: n.add("frame_bytes", "Bytes of them, encoded", Counter::default()),
            frame_steps: n.add(
                "frame_seconds",
                "Where the time of frames went, summed over frames, of which many are worked on at once",
                Family::default(),
            ),
            fetch_steps: Mutex::default(),
            frame_rate: n.add("frames_per_second", "Fetched and decoded, for one input", rates),
            running: n.add("requests_running", "Requests being worked on", Gauge::default()),
            waiting: n.add("requests_waiting", "Requests in the queue", Gauge::default()),
            models: n.add("models", "Models by state", Family::default()),
            model_bytes: n.add("model_bytes", "Memory that models occupy", Gauge::default()),
            model_budget: n.add(
                "model_budget_bytes",
                "Memory that models may occupy; 0 is without bound",
                Gauge::default(),
            ),
            resident: n.add("resident_bytes", "Memory of the process", Gauge::default()),
            input_bytes: n.add(
                "input_memory_bytes",
                "Memory account: images in bodies, archives and S3",
                Gauge::default(),
            ),
            work_bytes: n.add(
                "work_memory_bytes",
                "Memory account: models, volumes, windows and results",
                Gauge::default(),
            ),
            connections: n.add("connections", "Connections of clients", Gauge::default()),
            connections_ended: n.add(
                "connections_ended",
                "Connections that were closed for want of time or room, or not taken",
                Family::default(),
            ),
            body_bytes: n.add("body_bytes", "Memory that bodies hold", Gauge::default()),
            calls,
            stored: n.add(
                "archive_instances",
                "Instances that archives were given, by what became of them",
                Family::default(),
            ),
            storing: Mutex::default(),
            registry: names.0,
        }
    }

    /// Sets the source of the call statistics of AWS clients.
    pub fn read_calls_from(&self, source: impl Fn() -> Vec<CallSample> + Send + 'static) {
        self.calls.read_from(source);
    }

    /// Sets the source of the number of instances sent to archives, by outcome.
    pub fn read_stored_from(&self, source: impl Fn() -> Vec<(&'static str, u64)> + Send + 'static) {
        *self.storing.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }

    /// Sets the source of the time sums of fetching frames. A step has only one source: this, or
    /// [`spent`](Self::spent).
    pub fn read_fetching_from(
        &self,
        source: impl Fn() -> Vec<(&'static str, Duration)> + Send + 'static,
    ) {
        *self.fetch_steps.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }

    /// Records a response. `route` must be a route pattern and `method` a known method: labels must
    /// not contain values chosen by a caller.
    pub fn answered(&self, route: &str, method: &str, status: u16, seconds: f64) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.request_seconds.get_or_create(&Route { route: route.clone() }).observe(seconds);
        self.requests.get_or_create(&Answered { route, method, status }).inc();
    }

    /// Records the time a request waited before it ran.
    pub fn queued(&self, seconds: f64) {
        self.queue_seconds.observe(seconds);
    }

    /// Counts bytes received in request bodies.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Counts bytes sent in response bodies.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Records the duration of a stage for one input.
    pub fn stage(&self, stage: &'static str, seconds: f64) {
        self.stages.get_or_create(&Stage { stage }).observe(seconds);
    }

    /// Records that the frames of one input were fetched and decoded.
    pub fn frames(&self, frames: usize, bytes: u64, seconds: f64) {
        self.frames.inc_by(frames as u64);
        self.frame_bytes.inc_by(bytes);
        if seconds > 0.0 {
            self.frame_rate.observe(frames as f64 / seconds);
        }
    }

    /// Adds the time spent on steps, summed over frames.
    pub fn spent(&self, steps: &[(&'static str, Duration)]) {
        for &(stage, time) in steps {
            self.frame_steps.get_or_create(&Stage { stage }).inc_by(time.as_secs_f64());
        }
    }

    /// Encodes all metrics as text, with the current state `standing`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if a metric cannot be encoded.
    pub fn encode(&self, standing: &Standing) -> Result<String> {
        self.take(standing);
        let mut text = String::new();
        encode(&mut text, &self.registry)
            .map_err(|e| Error::internal("the metrics cannot be written").caused_by(e))?;
        Ok(text)
    }

    fn take(&self, standing: &Standing) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.running.set(signed(standing.running as u64));
        self.waiting.set(signed(standing.waiting as u64));
        self.model_bytes.set(signed(standing.model_bytes));
        self.model_budget.set(signed(standing.model_budget));
        self.resident.set(signed(standing.resident));
        self.input_bytes.set(signed(standing.input_bytes));
        self.work_bytes.set(signed(standing.work_bytes));
        self.connections.set(signed(standing.connections as u64));
        self.body_bytes.set(signed(standing.body_bytes));
        for &(reason, count) in &standing.connections_ended {
            show(&self.connections_ended, &Ending { reason }, count);
        }
        for state in ["loading", "ready", "unloading", "failed", "broken"] {
            let count = standing.models.iter().filter(|&&s| s == state).count();
            self.models.get_or_create(&State { state }).set(signed(count as u64));
        }
        self.calls.take();
        let storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        for (status, count) in storing.as_ref().map(|read| read()).unwrap_or_default() {
            show(&self.stored, &StoredAs { status }, count);
        }
        let fetching = self.fetch_steps.lock().unwrap_or_else(PoisonError::into_inner);
        for (stage, time) in fetching.as_ref().map(|read| read()).unwrap_or_default() {
            let counter = self.frame_steps.get_or_create(&Stage { stage });
            // An `f64` counter stores the bits of the number.
            counter.inner().store(time.as_secs_f64().to_bits(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.answered("/invocations", "POST", 200, 1.5);
        metrics.stage("network", 0.7);
        metrics.frames(100, 5000, 2.0);
        for _ in 0..2 {
            metrics.spent(&[("decode", Duration::from_millis(250)), ("place", Duration::ZERO)]);
        }
        metrics.read_stored_from(|| vec![("stored", 3), ("failed", 1)]);
        metrics.read_fetching_from(|| vec![("body", Duration::from_millis(1500))]);
        metrics.read_calls_from(|| {
            let frames = CallSample {
                operation: "GetImageFrame",
                calls: 7,
                retries: 2,
                ..CallSample::default()
            };
            let puts =
                CallSample { service: Service::S3, operation: "PutObject", hedges: 3, ..frames };
            vec![frames, puts]
        });
        let standing =
            Standing { running: 2, models: vec!["ready", "ready"], ..Standing::default() };
        for _ in 0..2 {
            let text = metrics.encode(&standing).unwrap();
            for line in [
                r#"ahi_inference_requests_total{route="/invocations",method="POST",status="200"} 1"#,
                r#"ahi_inference_request_seconds_sum{route="/invocations"} 1.5"#,
                r#"ahi_inference_stage_seconds_bucket{le="1.0",stage="network"} 1"#,
                "ahi_inference_frames_total 100",
                r#"ahi_inference_frame_seconds_total{stage="decode"} 0.5"#,
                r#"ahi_inference_frame_seconds_total{stage="place"} 0.0"#,
                r#"ahi_inference_frame_seconds_total{stage="body"} 1.5"#,
                r#"ahi_inference_frames_per_second_bucket{le="50.0"} 1"#,
                r#"ahi_inference_ahi_calls_total{operation="GetImageFrame"} 7"#,
                r#"ahi_inference_ahi_retries_total{operation="GetImageFrame"} 2"#,
                r#"ahi_inference_s3_hedges_total{operation="PutObject"} 3"#,
                r#"ahi_inference_archive_instances_total{status="failed"} 1"#,
                "ahi_inference_requests_running 2",
                r#"ahi_inference_models{state="ready"} 2"#,
            ] {
                assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
            }
            assert!(text.ends_with("# EOF\n"));
        }
    }
}
