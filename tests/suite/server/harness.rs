//! A server on a free port, a stand-in for the pipeline, and a raw HTTP client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahi_inference::config::{
    AdmissionSettings, ComputeSettings, ConnectionSettings, ExecutionProvider, HttpSettings,
};
use ahi_inference::error::{Error, ErrorKind, Result};
use ahi_inference::memory::Account;
use ahi_inference::pipeline::{Held, Invoke, Places};
use ahi_inference::progress::{Observer, Stage};
use ahi_inference::registry::{
    BrokenNetworks, Budget, Describe, Loader, ModelLocation, Naming, Registry, Roots,
};
use ahi_inference::request::{Artifact, InferenceRequest, InputOutcome, Outcome, OutputKind};
use ahi_inference::scheduler::{Drained, Scheduler};
use ahi_inference::server::{self, App, Readiness};
use ahi_inference::telemetry::Metrics;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const ID: &str = "0123456789abcdef0123456789abcdef";

/// Every kind of error with the status it must have.
pub const STATUSES: [(ErrorKind, u16); 27] = [
    (ErrorKind::InvalidRequest, 400),
    (ErrorKind::AccessDenied, 403),
    (ErrorKind::NotFound, 404),
    (ErrorKind::ModelNotFound, 404),
    (ErrorKind::RouteNotFound, 404),
    (ErrorKind::MethodNotAllowed, 405),
    (ErrorKind::NotAcceptable, 406),
    (ErrorKind::RequestTimeout, 408),
    (ErrorKind::ImageSetNotReady, 409),
    (ErrorKind::ModelAlreadyLoaded, 409),
    (ErrorKind::PayloadTooLarge, 413),
    (ErrorKind::UnsupportedMediaType, 415),
    (ErrorKind::InvalidModel, 422),
    (ErrorKind::InvalidImage, 422),
    (ErrorKind::CorruptFrame, 422),
    (ErrorKind::UnsupportedPixelData, 422),
    (ErrorKind::Cancelled, 499),
    (ErrorKind::InferenceFailed, 500),
    (ErrorKind::Configuration, 500),
    (ErrorKind::Io, 500),
    (ErrorKind::Internal, 500),
    (ErrorKind::Upstream, 502),
    (ErrorKind::Throttled, 503),
    (ErrorKind::Overloaded, 503),
    (ErrorKind::Unavailable, 503),
    (ErrorKind::DeadlineExceeded, 504),
    (ErrorKind::OutOfMemory, 507),
];

/// A stand-in for the pipeline that counts its requests by outcome.
#[derive(Default)]
pub struct StandIn {
    pub started: AtomicUsize,
    pub cancelled: AtomicUsize,
    pub finished: AtomicUsize,
}

/// The bytes of the stand-in's segmentation.
pub const SEGMENTATION: &[u8] = b"not really a segmentation";

#[async_trait]
impl Invoke for StandIn {
    fn admit(&self, _: &InferenceRequest) -> Result<Held> {
        Ok(None)
    }

    /// Behaves as the model name says: `slow-MS`, `block-MS`, `panic`, `big-BYTES`, `busy-STEPS`, or the code of
    /// an error. Answers at once for any other name.
    async fn invoke(
        &self,
        request: InferenceRequest,
        _: Held,
        _: Places,
        cancel: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let model = request.model.clone().unwrap_or_else(|| "echo".to_owned());
        let (behaviour, number) = model.split_once('-').unwrap_or((&model, "0"));
        let number: u64 = number.parse().unwrap_or(0);
        let mut bytes = SEGMENTATION.to_vec();
        match behaviour {
            "panic" => panic!("the stand-in panics, as it was told"),
            "block" => std::thread::sleep(Duration::from_millis(number)),
            "big" => bytes = vec![7; number as usize],
            "busy" => {
                let steps = number as usize;
                (0..=steps).for_each(|done| observer.advance(0, Stage::Inference, done, steps));
            }
            "slow" => {
                observer.advance(0, Stage::Frames, 1, 2);
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(number)) => {}
                    () = cancel.cancelled() => {
                        self.cancelled.fetch_add(1, Ordering::SeqCst);
                        return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
                    }
                }
            }
            code => {
                if let Some((kind, _)) = STATUSES.iter().find(|(kind, _)| kind.code() == code) {
                    return Err(Error::new(*kind, "as asked for").with("sopInstanceUID", "1.2.3"));
                }
            }
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(outcome(request, model, &bytes))
    }
}

fn outcome(request: InferenceRequest, model: String, bytes: &[u8]) -> Outcome {
    let kinds = match request.outputs.as_slice() {
        [] => vec![OutputKind::DicomSeg],
        asked => asked.to_vec(),
    };
    let result = |index: usize| InputOutcome {
        report: json!({"index": index, "outputsAsked": request.outputs.len()})
            .as_object()
            .unwrap()
            .clone(),
        failure: None,
        artifacts: kinds
            .iter()
            .map(|&kind| {
                let file_name = format!("{index}.{}", kind.extension());
                let uri = request.output_uri.as_ref().map(|to| format!("{to}/{file_name}"));
                Artifact { uri, ..Artifact::new(kind, file_name, bytes.to_vec().into()) }
            })
            .collect(),
    };
    Outcome {
        results: (0..request.inputs.len()).map(result).collect(),
        request_id: request.request_id,
        inference_id: request.inference_id,
        model,
    }
}

/// A model for the registry in front of the stand-in. It loads as its name says: `late-MS`, `huge`, or the code
/// of an error.
pub struct Nothing;

pub struct NothingLoader;

impl Describe for Nothing {
    fn describe(&self) -> serde_json::Map<String, Value> {
        serde_json::Map::new()
    }
}

impl Loader<Nothing> for NothingLoader {
    fn estimate(&self, location: &ModelLocation) -> Result<u64> {
        if location.name == "huge" { Ok(2 * BUDGET) } else { Ok(1000) }
    }

    fn load(&self, location: &ModelLocation) -> Result<(Nothing, u64)> {
        if let Some(milliseconds) = location.name.strip_prefix("late-") {
            std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap()));
        }
        match STATUSES.iter().find(|(kind, _)| kind.code() == location.name) {
            Some((kind, _)) => Err(Error::new(*kind, "as asked for")),
            None => Ok((Nothing, 500)),
        }
    }
}

/// Memory budget for models in tests.
pub const BUDGET: u64 = 1_000_000;

/// Settings of a test server.
pub struct Setup {
    pub http: HttpSettings,
    pub admission: AdmissionSettings,
    pub drain_timeout: Duration,
    pub work: tokio::runtime::Handle,
    pub multi_model: bool,
    /// Where models may be loaded from. Anywhere if absent.
    pub roots: Option<Roots>,
    pub broken: BrokenNetworks,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            http: HttpSettings {
                max_body: 100_000,
                max_inline: 10_000,
                request_timeout: Some(Duration::from_secs(20)),
                stream_timeout: Some(Duration::from_secs(30)),
                output_uri: None,
                max_inputs: 64,
                connections: ConnectionSettings::default(),
            },
            admission: AdmissionSettings { max_concurrent: 4, queue: 4 },
            drain_timeout: Duration::from_secs(10),
            work: tokio::runtime::Handle::current(),
            multi_model: false,
            roots: None,
            broken: BrokenNetworks::default(),
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub readiness: Arc<Readiness>,
    pub stand_in: Arc<StandIn>,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<Result<Drained>>,
}

impl Server {
    /// Starts a server that is ready.
    pub fn ready() -> Self {
        let server = Self::start(Setup::default());
        server.readiness.started(true);
        server
    }

    pub fn start(setup: Setup) -> Self {
        let shutdown = CancellationToken::new();
        let until = shutdown.clone().cancelled_owned();
        Self::start_until(setup, shutdown, until)
    }

    pub fn start_until(
        setup: Setup,
        shutdown: CancellationToken,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let stand_in = Arc::new(StandIn::default());
        let readiness = Arc::new(Readiness::watching(setup.broken));
        let models = Registry::new(NothingLoader, Budget::of(BUDGET), Naming::Opaque, 4);
        let models = match setup.roots {
            Some(roots) => models.within(roots),
            None => models,
        };
        let app = Arc::new(App {
            bodies: server::Room::new(setup.http.max_body, setup.http.connections.body_wait),
            connections: server::Connections::new(setup.http.connections.clone()),
            http: setup.http,
            compute: ComputeSettings {
                execution_provider: ExecutionProvider::Cpu,
                cpu_precision: None,
                model_cache: None,
                threads: 1,
                every_window: false,
                gpu_devices: Vec::new(),
                gpu_memory: None,
                gpu_memory_budget: None,
            },
            models: Arc::new(models),
            multi_model: setup.multi_model,
            metrics: Arc::new(Metrics::new()),
            scheduler: Scheduler::new(Arc::clone(&stand_in) as _, setup.admission, setup.work),
            readiness: Arc::clone(&readiness),
            account: Account::unbounded(),
            ui: None,
        });
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(server::run(listener, app, setup.drain_timeout, until));
        Self { address, readiness, stand_in, shutdown, running }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends raw bytes and returns everything that comes back.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        // A server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        received
    }

    pub async fn send(&self, start: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Answer::parse(&self.raw(&request(start, headers, body)).await)
    }

    /// Sends one request for one image set.
    pub async fn invoke(&self, options: Value) -> Answer {
        self.send("POST /invocations", &[], body(options).to_string().as_bytes()).await
    }

    pub async fn ping(&self) -> u16 {
        self.send("GET /ping", &[], b"").await.status
    }

    /// Stops the server and returns how it drained.
    pub async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap()
    }
}

/// Returns a minimal request body with `options` added.
pub fn body(options: Value) -> Value {
    let mut body = json!({"datastoreId": ID, "imageSetId": ID});
    for (key, value) in options.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// Returns the bytes of a request that closes the connection afterwards.
pub fn request(start: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{start} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        if let Some(length) = headers.get("content-length") {
            assert!(body.is_empty() || body.len() >= length.parse().unwrap(), "cut off: {head}");
        }
        Self { status, headers, body }
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts that this is an error with this status and code, and returns its message.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!((self.status, json["error"]["code"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(json["requestId"], self.headers["x-request-id"]);
        assert!(json["error"]["details"].is_object(), "{json}");
        json["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(10), "never {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
