//! A network that maps a batch of windows to a batch of results, and ONNX Runtime's form of it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ndarray::{Array5, ArrayView5, ArrayViewD, Axis, Ix5};
use ort::value::DynValue;
use serde_json::{Map, Value, json};

use super::failure;
use super::files::NetworkFiles;
use super::health::{BrokenNetworks, Health, Verdict};
use super::lane::Lane;
use super::norms::Survey;
use super::opening::Opening;
use super::placement::{self, Placement};
use super::provider::{Chosen, GpuSettings, Machine, Provider, ProviderChoice, choose};
use super::runtime::runtime;
use super::sessions::Sessions;
pub use super::shape::NetworkShape;
use super::signature;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// What of a network's threads a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All of them.
    All,
    /// Those of one of the [workers](Network::workers).
    One,
}

/// A segmentation network.
pub trait Network: Send + Sync {
    /// What is fixed of its shape.
    fn shape(&self) -> NetworkShape;

    /// How many runs at the same time use it best. Where several do, each is of one window, or of a
    /// fixed batch.
    fn workers(&self) -> usize {
        1
    }

    /// Runs a batch (N, C, X, Y, Z) in standard layout and hands the result (N, classes, X, Y, Z)
    /// to `take`.
    fn run(
        &self,
        batch: ArrayView5<f32>,
        share: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()>;

    /// What is told of a failure of [`run`](Self::run), once all runs of an image have ended: it may
    /// take runs of its own to find out whether the image or the network is at fault.
    fn judge(&self, failure: Error) -> Error {
        failure
    }
}

/// How a network is run.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// The execution provider asked for.
    pub provider: ProviderChoice,
    /// Threads in all; one a core where absent.
    pub threads: Option<usize>,
    /// Windows that may be in memory at the same time, as the bundle's `sw_batch_size` says. On a CPU
    /// they run side by side, each on its share of the threads: operators scale worse than windows
    /// do, and no window waits for another; on a GPU they are a batch, which is always filled up to
    /// that many, so that cuDNN chooses its algorithms once.
    pub side_by_side: usize,
    /// Of a GPU.
    pub gpu: GpuSettings,
    /// The GPUs to use, of those there are; all where empty.
    pub devices: Vec<i32>,
    /// Where the network is counted while it is broken.
    pub broken: BrokenNetworks,
}

impl NetworkSettings {
    /// How many windows run side by side on `provider`, whose network has a batch of its own or not.
    /// A fixed batch is one run, and OpenVINO's operators share the threads among them well.
    fn lanes(&self, provider: Provider, fixed_batch: bool, threads: usize) -> usize {
        match provider {
            Provider::Cpu if !fixed_batch => self.side_by_side.clamp(1, threads),
            _ => 1,
        }
    }

    /// Threads in all, at least one.
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores).max(1)
    }
}

/// An ONNX model in sessions of ONNX Runtime.
pub struct OnnxNetwork {
    /// On a CPU one session with all threads, on GPUs one on each.
    whole: Sessions<Lane>,
    /// Those with a share of the threads each, where windows run side by side.
    side_by_side: Option<Sessions<Lane>>,
    workers: usize,
    chosen: Chosen,
    placement: Option<Placement>,
    /// Whether batches and results lie in pinned memory.
    pinned: bool,
    input: String,
    output: String,
    shape: NetworkShape,
    files: Arc<NetworkFiles>,
    norms: Arc<Survey>,
    health: Health,
    /// Shape of the first batch that ran (N, C, X, Y, Z): that of the warm-up.
    known_good: OnceLock<[usize; 5]>,
}

impl OnnxNetwork {
    /// Loads a model file. A file that ONNX Runtime cannot load, or whose input or output is not a
    /// single f32 tensor of five dimensions (four for slices), is [`ErrorKind::InvalidModel`] naming the
    /// file. A GPU that was asked for and cannot be used is [`ErrorKind::Configuration`].
    pub fn load(path: &Path, settings: &NetworkSettings) -> Result<Self> {
        let library = &runtime()?.library;
        let chosen = choose(settings.provider, &Machine::this(), library)?;
        let gpu = chosen.provider.is_gpu();
        let loaded = Self::load_on(path, settings, chosen);
        if let (Err(e), true, ProviderChoice::Auto) = (&loaded, gpu, settings.provider)
            && e.kind() != ErrorKind::OutOfMemory
        {
            // Everything is there and yet it does not work: nobody asked for it by name, but
            // everybody is told.
            tracing::warn!(error = %e, "a GPU is there and cannot be used; the CPU takes its place");
            return Self::load_on(path, settings, Chosen::cpu(Some(e.message().to_owned())));
        }
        loaded
    }

    fn load_on(path: &Path, settings: &NetworkSettings, mut chosen: Chosen) -> Result<Self> {
        let gpu = chosen.provider.is_gpu();
        if gpu && !settings.devices.is_empty() {
            chosen.devices = those_of(&chosen.devices, &settings.devices)?;
        }
        let path = match &settings.gpu.execution.gpu_model {
            Some(name) if gpu => path.with_file_name(name),
            _ => path.to_owned(),
        };
        if !path.is_file() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{} is not there; model/export_monai_bundle.py makes it", path.display()),
            ));
        }
        let files = Arc::new(NetworkFiles::read(&path)?);
        // Other providers compute norms in ways of their own.
        let norms = match chosen.provider {
            Provider::Cpu => Arc::new(Survey::of(&path)),
            _ => Arc::default(),
        };
        if let Some(warning) = norms.warning() {
            tracing::warn!(file = %path.display(), "{warning}");
        }
        let threads = settings.threads();
        let opening = |threads: usize, devices: Vec<i32>| Opening {
            files: Arc::clone(&files),
            norms: Arc::clone(&norms),
            threads,
            provider: chosen.provider,
            devices,
            gpu: settings.gpu.clone(),
        };
        let opening_whole = opening(threads, chosen.devices.clone());
        let whole = opening_whole.open(0)?;
        let pinned = whole.is_bound();
        let session = whole.session();
        let (input, mut shape) = signature::describe(session)
            .map_err(|e| Error::new(ErrorKind::InvalidModel, format!("{}: {e}", path.display())))?;
        let output = session.outputs().first().map(|o| o.name().to_owned()).unwrap_or_default();
        let placement = placement::of(session);
        let nodes = placement.as_ref().map(|p| format!("{:?}", p.nodes)).unwrap_or_default();
        tracing::info!(
            provider = chosen.provider.name(), devices = ?chosen.devices, nodes,
            reason = chosen.reason, sha256 = files.sha256(), norms = norms.rewritable(), "network loaded"
        );
        if gpu && shape.batch.is_none() {
            shape.batch = Some(settings.side_by_side.max(1));
        }
        let lanes = settings.lanes(chosen.provider, shape.batch.is_some(), threads);
        let side_by_side = (lanes > 1).then(|| {
            let opening = opening(threads / lanes, Vec::new());
            Sessions::new(None, lanes, Box::new(move |index| opening.open(index)))
        });
        // One more on the same GPU has a stream of its own: its copies go on while the other computes.
        let sessions = chosen.devices.len().max(1) * settings.gpu.sessions_on_one(chosen.provider);
        // While one batch runs, the next is gathered and the one before is blended.
        let workers = if chosen.provider == Provider::Cpu { lanes } else { 2 * sessions };
        let make = Box::new(move |index| opening_whole.open(index));
        let whole = Sessions::new(Some(whole), sessions, make);
        Ok(Self {
            whole,
            side_by_side,
            workers,
            chosen,
            placement,
            pinned,
            input,
            output,
            shape,
            files,
            norms,
            health: Health::counted_in(settings.broken.clone()),
            known_good: OnceLock::new(),
        })
    }

    /// What runs the network, as it is told to whoever asks: its SHA-256 (`networkSha256`, and where it
    /// has several files `networkFiles`), `executionProvider`, the `devices` of a GPU, why it is none (`executionProviderReason`), how many `nodes` of the graph each provider
    /// runs, which kinds of operators a GPU leaves to the CPU (`operatorsOnCpu`), whether it copies by
    /// itself (`pinnedMemory`), and how many sessions share it (`sessionsPerGpu`).
    pub fn describe(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("networkSha256".to_owned(), json!(self.sha256()));
        if let Some(each) = self.files.each() {
            let each: Map<String, Value> =
                each.map(|(n, sum)| (n.to_owned(), json!(sum))).collect();
            map.insert("networkFiles".to_owned(), Value::Object(each));
        }
        map.insert("executionProvider".to_owned(), json!(self.provider()));
        if let Some(reason) = &self.chosen.reason {
            map.insert("executionProviderReason".to_owned(), json!(reason));
        }
        let gpu = self.chosen.provider.is_gpu();
        if gpu {
            let sessions = self.workers / 2 / self.chosen.devices.len().max(1);
            map.insert("devices".to_owned(), json!(self.chosen.devices));
            map.insert("pinnedMemory".to_owned(), json!(self.pinned));
            map.insert("sessionsPerGpu".to_owned(), json!(sessions));
        }
        if let Some(placement) = &self.placement {
            map.insert("nodes".to_owned(), json!(placement.nodes));
            if gpu {
                map.insert("operatorsOnCpu".to_owned(), json!(placement.on_cpu));
            }
        }
        map
    }

    /// Whether a window that runs by itself has another session than those that run side by side.
    pub fn has_lanes(&self) -> bool {
        self.side_by_side.is_some()
    }

    /// Bytes the arenas of sessions that do not run took from the system so far: weights and the
    /// buffers of their runs. `None` where ONNX Runtime keeps no account of them.
    pub fn arena_bytes(&self) -> Option<u64> {
        if self.chosen.provider == Provider::OpenVino {
            // It has its own memory.
            return None;
        }
        let allocated =
            |pool: &Sessions<Lane>| pool.idle_sum(|lane| super::arena::allocated(lane.session()));
        let others = self.side_by_side.as_ref().map_or(Some(0), allocated)?;
        Some(allocated(&self.whole)? + others)
    }

    /// SHA-256 of the network's file in hexadecimal; where weights lie in files beside it, that of the
    /// lines which `sha256sum` prints of all, the model's own first.
    pub fn sha256(&self) -> &str {
        self.files.sha256()
    }

    /// Norms of the network's file that are computed in two stages, for accuracy.
    pub fn norms_in_two_stages(&self) -> usize {
        self.norms.rewritable()
    }

    /// What is said of norms that are computed inaccurately; nothing where there are none.
    pub fn norms_warning(&self) -> Option<String> {
        self.norms.warning()
    }

    /// Whether the network works as far as is known.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where its sessions kept failing, new ones included.
    pub fn ensure_usable(&self) -> Result<()> {
        match self.health.is_broken() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "the model's network keeps failing on this instance, in new sessions, too; /ping says \
                 so, that the instance is replaced; send the request to another one, or later",
            )),
        }
    }

    /// Tries to get a broken network to work again, with new sessions.
    pub fn mend(&self) {
        if self.health.is_broken() {
            self.health.mend(&self.pools(), &|lane| self.probe(lane));
        }
    }

    /// Name of the execution provider that runs the network.
    pub fn provider(&self) -> &'static str {
        self.chosen.provider.name()
    }
}

/// Those of the GPUs there are that were asked for.
fn those_of(there: &[i32], asked: &[i32]) -> Result<Vec<i32>> {
    match asked.iter().find(|device| !there.contains(device)) {
        None => Ok(asked.to_vec()),
        Some(device) => Err(Error::new(
            ErrorKind::Configuration,
            format!("GPU {device} was asked for (GPU_DEVICES); there are {there:?}"),
        )),
    }
}

impl Network for OnnxNetwork {
    fn shape(&self) -> NetworkShape {
        self.shape
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn run(
        &self,
        batch: ArrayView5<f32>,
        share: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        let sessions = match (share, &self.side_by_side) {
            (Share::One, Some(sessions)) => sessions,
            _ => &self.whole,
        };
        let result = self.run_in_turn(batch, sessions)?;
        take(self.view(&result)?)
    }

    fn judge(&self, failure: Error) -> Error {
        if failure.kind() != ErrorKind::InferenceFailed {
            return failure;
        }
        match self.health.judge(&self.pools(), &|lane| self.probe(lane)) {
            Verdict::Input => unfit(failure),
            Verdict::Memory(e) => e,
            Verdict::Sessions => Error::new(
                ErrorKind::InferenceFailed,
                format!(
                    "the network failed in ONNX Runtime ({}), also on a batch that it ran before; \
                     send the request again",
                    self.provider()
                ),
            )
            .caused_by(failure),
        }
    }
}

/// Channels of a network's largest buffers, as a guess that few exceed.
pub const WIDEST_LAYER: u64 = 64;

/// A failure that only this input has.
fn unfit(failure: Error) -> Error {
    const LONGEST: usize = 400;
    let window = failure.details().get("window").cloned().unwrap_or_default();
    let sizes = window.as_array().into_iter().flatten().map(Value::to_string);
    let sizes = sizes.collect::<Vec<_>>().join(" × ");
    let why: String = failure.message().chars().take(LONGEST).collect();
    Error::new(
        ErrorKind::InvalidImage,
        format!(
            "the network cannot run on a window of {sizes} voxels, although it runs on others; let \
             the bundle bring images to a size that it takes (DivisiblePadd, Resized): {why}"
        ),
    )
    .with("window", window)
    .caused_by(failure)
}

impl OnnxNetwork {
    /// Runs a batch in the next session that is free.
    fn run_in_turn(&self, batch: ArrayView5<f32>, sessions: &Sessions<Lane>) -> Result<DynValue> {
        self.ensure_usable()?;
        let shape: [usize; 5] = batch.dim().into();
        let batch = self.with_axes_of_network(batch)?;
        let mut taken = sessions.take().map_err(|e| self.unmade(e))?;
        let result = taken.session()?.run(&self.input, batch, &self.output);
        taken.suspect(result.is_err());
        // The session is free for the next batch while this result is blended.
        drop(taken);
        let result = result.map_err(|e| self.failed(e, shape))?;
        self.known_good.get_or_init(|| shape);
        self.health.good();
        result.ok_or_else(|| Error::internal("the network's output is not there"))
    }

    /// The failure of a run. Before any run went well, in the warm-up, it is the model's.
    fn failed(&self, e: ort::Error, shape: [usize; 5]) -> Error {
        if self.chosen.provider.is_gpu() && failure::is_device_full(&e) {
            return failure::device_full(e);
        }
        let error = match self.known_good.get() {
            None => Error::new(ErrorKind::InvalidModel, format!("the network failed: {e}")),
            Some(_) => {
                let [_, _, x, y, z] = shape;
                let window = if self.shape.planar { vec![x, y] } else { vec![x, y, z] };
                let problem = format!("the network failed in ONNX Runtime: {e}");
                Error::new(ErrorKind::InferenceFailed, problem).with("window", window)
            }
        };
        // A guess at its largest buffers, or what its arena took so far once more, by which it grows.
        let voxels = shape.iter().fold(1_u64, |all, &n| all.saturating_mul(n as u64));
        let buffers = voxels.saturating_mul(WIDEST_LAYER * size_of::<f32>() as u64);
        let needed = buffers.saturating_add(self.arena_bytes().unwrap_or(0));
        failure::or_out_of_memory(error.caused_by(e), needed, memory::available())
    }

    /// The failure to make a session, which went well when the model was loaded.
    fn unmade(&self, e: Error) -> Error {
        if e.kind() == ErrorKind::OutOfMemory || self.known_good.get().is_none() {
            return e;
        }
        Error::new(ErrorKind::InferenceFailed, "no session of the network can be made").caused_by(e)
    }

    fn pools(&self) -> Vec<&Sessions<Lane>> {
        std::iter::once(&self.whole).chain(&self.side_by_side).collect()
    }

    /// Runs a batch of the shape that ran before on `lane`.
    fn probe(&self, lane: &mut Lane) -> Result<()> {
        let Some(&shape) = self.known_good.get() else { return Ok(()) };
        let value = |(_, _, x, y, z)| ((x + y + z) % 97) as f32 * 1e-2;
        let batch = Array5::from_shape_fn(shape, value);
        let batch = self.with_axes_of_network(batch.view())?;
        lane.run(&self.input, batch, &self.output).map_err(|e| self.failed(e, shape))?;
        Ok(())
    }

    fn with_axes_of_network<'b>(&self, batch: ArrayView5<'b, f32>) -> Result<ArrayViewD<'b, f32>> {
        match (self.shape.planar, batch.dim().4) {
            (false, _) => Ok(batch.into_dyn()),
            (true, 1) => Ok(batch.index_axis_move(Axis(4), 0).into_dyn()),
            (true, _) => Err(Error::internal("a network for slices was given a volume")),
        }
    }

    /// A result with axes (N, classes, X, Y, Z).
    fn view<'r>(&self, result: &'r DynValue) -> Result<ArrayView5<'r, f32>> {
        let result = result.try_extract_array::<f32>().map_err(|e| {
            let problem = format!("the network's result cannot be read: {e}");
            Error::new(ErrorKind::InvalidModel, problem).caused_by(e)
        })?;
        let dims = result.shape().to_vec();
        let result = if self.shape.planar { result.insert_axis(Axis(dims.len())) } else { result };
        result.into_dimensionality::<Ix5>().map_err(|_| {
            Error::new(
                ErrorKind::InvalidModel,
                format!("the network gave a result of shape {dims:?} in place of (N, C, X, Y, Z)"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_the_threads() {
        let of = |side_by_side, threads| {
            let settings =
                NetworkSettings { side_by_side, threads: Some(threads), ..Default::default() };
            let threads = settings.threads();
            let lanes = settings.lanes(Provider::Cpu, false, threads);
            (lanes, threads / lanes)
        };
        assert_eq!(of(4, 2), (2, 1));
        assert_eq!(of(2, 8), (2, 4));
        assert_eq!(of(4, 6), (4, 1));
        assert_eq!(of(1, 8), (1, 8));
        assert_eq!(of(0, 0), (1, 1));
        let settings = NetworkSettings { side_by_side: 4, threads: Some(4), ..Default::default() };
        assert_eq!(settings.lanes(Provider::Cpu, true, 4), 1);
        assert_eq!(settings.lanes(Provider::OpenVino, false, 4), 1);
        assert_eq!(settings.lanes(Provider::Cuda, true, 4), 1);
    }
}
