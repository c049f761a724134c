//! The network interface, which maps a batch of windows to a batch of results, and its implementation
//! on ONNX Runtime.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ndarray::{Array5, ArrayView5, ArrayViewD, Axis, Ix5};
use ort::value::DynValue;
use serde_json::Value;

use super::dimensions::Dimensions;
use super::failure;
use super::files::NetworkFiles;
use super::health::{Health, Verdict};
use super::lane::Lane;
use super::norms::Survey;
use super::opening::Opening;
use super::placement::{self, Placement};
use super::provider::{Chosen, Machine, Provider, ProviderChoice, choose};
use super::runtime::runtime;
use super::sessions::Sessions;
use super::settings::{NetworkSettings, RunPlan};
pub use super::shape::NetworkShape;
use super::signature;
use crate::bundle::CpuPrecision;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// The share of the network's threads that a run gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All threads.
    All,
    /// The threads of one of the [workers](Network::workers).
    One,
}

/// A segmentation network.
pub trait Network: Send + Sync {
    /// Returns the fixed parts of its shape.
    fn shape(&self) -> NetworkShape;

    /// Returns how many concurrent runs use the network best.
    fn workers(&self) -> usize {
        1
    }

    /// Returns the windows per run, for a network without a fixed batch; the bundle allows `most` in
    /// memory.
    fn batch(&self, most: usize) -> usize {
        if self.workers() > 1 { 1 } else { most }
    }

    /// Runs a batch (N, C, X, Y, Z) in standard layout and passes the result (N, classes, X, Y, Z) to
    /// `take`.
    fn run(
        &self,
        batch: ArrayView5<f32>,
        share: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()>;

    /// Turns a failure of [`run`](Self::run) into the error to report, after all runs of an image have
    /// ended. It may run the network again to find out whether the image or the network is at fault.
    fn judge(&self, failure: Error) -> Error {
        failure
    }
}

/// An ONNX model in sessions of ONNX Runtime.
pub struct OnnxNetwork {
    /// On a CPU, one session with all threads; on GPUs, one or more on each.
    pub(super) whole: Sessions<Lane>,
    /// Sessions with a share of the threads each, if windows run side by side.
    pub(super) side_by_side: Option<Sessions<Lane>>,
    pub(super) opening: Arc<Opening>,
    pub(super) workers: usize,
    /// How windows share a CPU.
    pub(super) plan: RunPlan,
    /// Largest number of windows in memory.
    pub(super) most: usize,
    pub(super) chosen: Chosen,
    pub(super) placement: Option<Placement>,
    /// Whether batches and results lie in pinned memory.
    pub(super) pinned: bool,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) shape: NetworkShape,
    health: Health,
    /// Shape of the first batch that ran, (N, C, X, Y, Z): that of the warm-up.
    pub(super) known_good: OnceLock<[usize; 5]>,
}

impl OnnxNetwork {
    /// Loads a model file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] with the file name if ONNX Runtime cannot load it, or if its input
    /// or output is not a single f32 tensor of five dimensions (four for slices).
    /// [`ErrorKind::Configuration`] if an explicitly requested GPU or precision cannot be used.
    pub fn load(path: &Path, settings: &NetworkSettings) -> Result<Self> {
        let library = &runtime(settings.provider)?.library;
        let precision = settings.cpu_precision;
        let mut chosen = choose(settings.provider, precision, &Machine::this(), library)?;
        chosen.reason = chosen.reason.or_else(|| settings.reason.clone());
        let provider = chosen.provider;
        let loaded = Self::load_on(path, settings, chosen);
        if let (Err(e), ProviderChoice::Auto) = (&loaded, settings.provider)
            && provider != Provider::Cpu
            && precision == CpuPrecision::F32
            && e.kind() != ErrorKind::OutOfMemory
        {
            // Everything is installed, yet the provider does not work. It was not requested by name, so
            // fall back to the CPU, with a warning.
            let name = provider.name();
            tracing::warn!(error = %e, provider = name, "the provider is installed but cannot be used; using ONNX Runtime's CPU kernels");
            let reason = format!("{name} cannot be used: {}", e.message());
            return Self::load_on(path, settings, Chosen::cpu(Some(reason)));
        }
        loaded
    }

    fn load_on(path: &Path, settings: &NetworkSettings, mut chosen: Chosen) -> Result<Self> {
        let gpu = chosen.provider.is_gpu();
        if gpu && !settings.devices.is_empty() {
            chosen.devices = those_of(&chosen.devices, &settings.devices)?;
        }
        let execution = &settings.gpu.execution;
        let other = if gpu { &execution.gpu_model } else { &execution.cpu_model };
        let path = match other {
            Some(name) => path.with_file_name(name),
            None => path.to_owned(),
        };
        if !path.is_file() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!(
                    "{} does not exist; model/export_monai_bundle.py creates it",
                    path.display()
                ),
            ));
        }
        let files = Arc::new(NetworkFiles::read(&path)?);
        // Other providers have their own kernels for norms.
        let norms = match chosen.provider {
            Provider::Cpu => Arc::new(Survey::of(&path)),
            _ => Arc::default(),
        };
        let dimensions = match chosen.provider {
            Provider::OpenVino => Dimensions::read(&path),
            _ => Dimensions::default(),
        };
        if let Some(warning) = norms.warning() {
            tracing::warn!(file = %path.display(), "{warning}");
        }
        let opening = Arc::new(Opening {
            files,
            norms,
            threads: settings.threads(),
            provider: chosen.provider,
            precision: settings.cpu_precision,
            devices: chosen.devices.clone(),
            gpu: settings.gpu.clone(),
            dimensions,
            window: settings.window,
        });
        let usual = RunPlan::usual(chosen.provider, settings.side_by_side, opening.threads);
        let whole = opening.open(0, opening.threads, usual)?;
        let pinned = whole.is_bound();
        let session = whole.session();
        let (input, mut shape) = signature::describe(session)
            .map_err(|e| Error::new(ErrorKind::InvalidModel, format!("{}: {e}", path.display())))?;
        shape = opening.dimensions.open(shape);
        let output = session.outputs().first().map(|o| o.name().to_owned()).unwrap_or_default();
        let placement = placement::of(session);
        let nodes = placement.as_ref().map(|p| format!("{:?}", p.nodes)).unwrap_or_default();
        tracing::info!(
            provider = chosen.provider.name(), devices = ?chosen.devices, nodes,
            reason = chosen.reason, sha256 = opening.files.sha256(), norms = opening.norms.rewritable(), "network loaded"
        );
        if gpu && shape.batch.is_none() {
            shape.batch = Some(settings.side_by_side.max(1));
        }
        // A second session on the same GPU has its own stream: its copies overlap with the computation
        // of the first.
        let sessions = chosen.devices.len().max(1) * settings.gpu.sessions_on_one(chosen.provider);
        let mut network = Self {
            whole: wholes(&opening, Some(whole), sessions, usual),
            side_by_side: None,
            opening,
            // While one batch runs, the next is gathered and the previous one is blended.
            workers: 2 * sessions,
            plan: usual,
            most: settings.side_by_side.max(1),
            chosen,
            placement,
            pinned,
            input,
            output,
            shape,
            health: Health::counted_in(settings.broken.clone()),
            known_good: OnceLock::new(),
        };
        if network.is_plannable() {
            let (provider, threads) = (network.chosen.provider, network.opening.threads);
            network.adopt(RunPlan::usual(provider, network.most, threads));
        }
        Ok(network)
    }

    /// Whether windows can share the threads in several ways. With a fixed batch size, a batch is one
    /// run.
    pub(super) fn is_plannable(&self) -> bool {
        !self.chosen.provider.is_gpu() && self.shape.batch.is_none()
    }

    /// Runs windows by `plan` from now on.
    pub(super) fn adopt(&mut self, plan: RunPlan) {
        if self.opening.fixed_batch(plan) != self.opening.fixed_batch(self.plan) {
            self.whole = wholes(&self.opening, None, 1, plan);
        }
        self.plan = plan;
        self.workers = match (plan.lanes, self.chosen.provider) {
            (2.., _) => plan.lanes,
            // Its threads wait for each other at every operator, so that what takes a core from one stops all:
            // windows are gathered and blended between runs, by all threads.
            (_, Provider::OpenVino) => 1,
            _ => 2,
        };
        self.side_by_side = (plan.lanes > 1).then(|| self.lanes(plan));
    }

    /// Creates sessions that share the threads.
    pub(super) fn lanes(&self, plan: RunPlan) -> Sessions<Lane> {
        let opening = Arc::clone(&self.opening);
        let threads = (opening.threads / plan.lanes.max(1)).max(1);
        let make = move |index| opening.open(index, threads, plan);
        Sessions::new(None, plan.lanes, Box::new(make))
    }

    /// Whether windows that run alone use a different session than those that run side by side.
    pub fn has_lanes(&self) -> bool {
        self.side_by_side.is_some()
    }

    /// Returns the bytes that the arenas of idle sessions have allocated: weights and run buffers.
    /// `None` if ONNX Runtime keeps no statistics.
    pub fn arena_bytes(&self) -> Option<u64> {
        if self.chosen.provider == Provider::OpenVino {
            // OpenVINO manages its own memory.
            return None;
        }
        let allocated =
            |pool: &Sessions<Lane>| pool.idle_sum(|lane| super::arena::allocated(lane.session()));
        let others = self.side_by_side.as_ref().map_or(Some(0), allocated)?;
        Some(allocated(&self.whole)? + others)
    }

    /// Returns the SHA-256 of the network's file in hexadecimal. With external weights, it is the
    /// digest of the lines that `sha256sum` prints for all files, the model file first.
    pub fn sha256(&self) -> &str {
        self.opening.files.sha256()
    }

    /// Returns the number of norms computed in two stages, for accuracy.
    pub fn norms_in_two_stages(&self) -> usize {
        self.opening.norms.rewritable()
    }

    /// Returns a warning about norms that are computed inaccurately, if there are any.
    pub fn norms_warning(&self) -> Option<String> {
        self.opening.norms.warning()
    }

    /// Checks that the network is not known to be broken.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if its sessions kept failing, new ones included.
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

    /// Tries to repair a broken network with new sessions.
    pub fn mend(&self) {
        if self.health.is_broken() {
            self.health.mend(&self.pools(), &|lane| self.probe(lane));
        }
    }

    /// Returns the name of the execution provider that runs the network.
    pub fn provider(&self) -> &'static str {
        self.chosen.provider.name()
    }
}

/// Returns the `asked` GPUs if all of them exist.
fn those_of(there: &[i32], asked: &[i32]) -> Result<Vec<i32>> {
    match asked.iter().find(|device| !there.contains(device)) {
        None => Ok(asked.to_vec()),
        Some(device) => Err(Error::new(
            ErrorKind::Configuration,
            format!("GPU {device} was asked for (GPU_DEVICES); there are {there:?}"),
        )),
    }
}

/// Returns up to `most` sessions with all threads for runs by `plan`, the first of which is `open`.
fn wholes(
    opening: &Arc<Opening>,
    open: Option<Lane>,
    most: usize,
    plan: RunPlan,
) -> Sessions<Lane> {
    let opening = Arc::clone(opening);
    let make = move |index| opening.open(index, opening.threads, plan);
    Sessions::new(open, most, Box::new(make))
}

impl Network for OnnxNetwork {
    fn shape(&self) -> NetworkShape {
        self.shape
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn batch(&self, most: usize) -> usize {
        self.plan.batch.min(most)
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
        if self.fails_by_size(&failure) {
            // The network is fine; only the failed sessions cannot run anymore.
            self.pools().into_iter().for_each(Sessions::renew_suspects);
            return unfit(failure);
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

/// A guess at the channels of a network's largest buffers, which few networks exceed.
pub const WIDEST_LAYER: u64 = 64;

/// Creates the error for a failure that only this input causes.
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
    /// Runs a batch in the next free session.
    pub(super) fn run_in_turn(
        &self,
        batch: ArrayView5<f32>,
        sessions: &Sessions<Lane>,
    ) -> Result<DynValue> {
        self.ensure_usable()?;
        let shape: [usize; 5] = batch.dim().into();
        let batch = self.with_axes_of_network(batch)?;
        let mut taken = sessions.take().map_err(|e| self.unmade(e))?;
        let result = taken.session()?.run(&self.input, batch, &self.output);
        taken.suspect(result.is_err());
        // Frees the session for the next batch while this result is blended.
        drop(taken);
        let result = result.map_err(|e| self.failed(e, shape))?;
        self.known_good.get_or_init(|| shape);
        self.health.good();
        result.ok_or_else(|| Error::internal("the network's output is missing"))
    }

    /// Maps a failed run to an error. Before any run has succeeded (in the warm-up), the model is at
    /// fault.
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
        // The need is a guess at the largest buffers, plus what the arena has allocated so far: it
        // grows by doubling.
        let voxels = shape.iter().fold(1_u64, |all, &n| all.saturating_mul(n as u64));
        let buffers = voxels.saturating_mul(WIDEST_LAYER * size_of::<f32>() as u64);
        let needed = buffers.saturating_add(self.arena_bytes().unwrap_or(0));
        failure::or_out_of_memory(error.caused_by(e), needed, memory::available())
    }

    /// Maps a failure to recreate a session, which could be created when the model was loaded.
    fn unmade(&self, e: Error) -> Error {
        if e.kind() == ErrorKind::OutOfMemory || self.known_good.get().is_none() {
            return e;
        }
        Error::new(ErrorKind::InferenceFailed, "no session of the network can be made").caused_by(e)
    }

    fn pools(&self) -> Vec<&Sessions<Lane>> {
        std::iter::once(&self.whole).chain(&self.side_by_side).collect()
    }

    /// Runs a batch of a shape that is known to work on `lane`.
    fn probe(&self, lane: &mut Lane) -> Result<()> {
        let Some(&shape) = self.known_good.get() else { return Ok(()) };
        self.try_shape(lane, shape)
    }

    /// Runs a batch of a shape (N, C, X, Y, Z) on `lane`.
    pub(super) fn try_shape(&self, lane: &mut Lane, shape: [usize; 5]) -> Result<()> {
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

    /// Views a result with axes (N, classes, X, Y, Z).
    pub(super) fn view<'r>(&self, result: &'r DynValue) -> Result<ArrayView5<'r, f32>> {
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
