//! A network that maps a batch of windows to a batch of results, and ONNX Runtime's form of it.

use std::path::{Path, PathBuf};

use ndarray::{ArrayView5, Axis, Ix5};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, TensorElementType, ValueType};
use serde_json::{Map, Value, json};

use super::gpu_permits::Permit;
use super::lane::Lane;
use super::placement::{self, Placement};
use super::provider::{self, Chosen, GpuSettings, Machine, Provider, ProviderChoice, choose};
use super::runtime::runtime;
use super::sessions::Sessions;
use crate::error::{Error, ErrorKind, Result};

/// What is fixed of a network's input and output; `None` for a dimension it leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkShape {
    /// Windows in a batch.
    pub batch: Option<usize>,
    /// Channels of the input.
    pub input_channels: Option<usize>,
    /// Size of a window along X, Y, Z.
    pub spatial: [Option<usize>; 3],
    /// Channels of the result.
    pub output_channels: Option<usize>,
    /// Whether the network takes slices (tensors of four dimensions). They go in and come out as
    /// windows whose last axis is 1.
    pub planar: bool,
}

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
    whole: Sessions,
    /// Those with a share of the threads each, where windows run side by side.
    side_by_side: Option<Sessions>,
    workers: usize,
    chosen: Chosen,
    placement: Option<Placement>,
    /// Whether batches and results lie in pinned memory.
    pinned: bool,
    input: String,
    output: String,
    shape: NetworkShape,
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
        let threads = settings.threads();
        let opening = |threads: usize, devices: Vec<i32>| Opening {
            path: path.clone(),
            threads,
            provider: chosen.provider,
            devices,
            gpu: settings.gpu.clone(),
        };
        let opening_whole = opening(threads, chosen.devices.clone());
        let whole = opening_whole.open(0)?;
        let pinned = whole.is_bound();
        let session = whole.session();
        let (input, mut shape) = describe(session)
            .map_err(|e| Error::new(ErrorKind::InvalidModel, format!("{}: {e}", path.display())))?;
        let output = session.outputs().first().map(|o| o.name().to_owned()).unwrap_or_default();
        let placement = placement::of(session);
        let nodes = placement.as_ref().map(|p| format!("{:?}", p.nodes)).unwrap_or_default();
        tracing::info!(
            provider = chosen.provider.name(), devices = ?chosen.devices, nodes,
            reason = chosen.reason, "network loaded"
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
        Ok(Self { whole, side_by_side, workers, chosen, placement, pinned, input, output, shape })
    }

    /// What runs the network, as it is told to whoever asks: `executionProvider`, the `devices` of a
    /// GPU, why it is none (`executionProviderReason`), how many `nodes` of the graph each provider
    /// runs, which kinds of operators a GPU leaves to the CPU (`operatorsOnCpu`), whether it copies by
    /// itself (`pinnedMemory`), and how many sessions share it (`sessionsPerGpu`).
    pub fn describe(&self) -> Map<String, Value> {
        let mut map = Map::new();
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
        let others = self.side_by_side.as_ref().map_or(Some(0), Sessions::allocated)?;
        Some(self.whole.allocated()? + others)
    }

    /// Name of the execution provider that runs the network.
    pub fn provider(&self) -> &'static str {
        self.chosen.provider.name()
    }
}

/// How a session of the model file is opened.
struct Opening {
    path: PathBuf,
    threads: usize,
    provider: Provider,
    devices: Vec<i32>,
    gpu: GpuSettings,
}

impl Opening {
    /// Session `index`, on the GPU whose turn it is. The cause of a failure goes along: its code
    /// tells a broken file from want of memory.
    fn open(&self, index: usize) -> Result<Lane> {
        let name = self.path.display();
        let (device, permit) = self.place(index)?;
        let providers = provider::providers(self.provider, device, self.threads, &self.gpu);
        let mut builder = self
            .builder(&runtime()?.environment)
            .and_then(|builder| Ok(builder.with_execution_providers(providers)?))
            .map_err(|e| {
                let provider = self.provider.name();
                let problem = format!("{provider} cannot be used: {e}");
                Error::new(ErrorKind::Configuration, problem).caused_by(e)
            })?;
        let session = builder.commit_from_file(&self.path).map_err(|e| {
            let problem = format!("{name}: ONNX Runtime cannot load it: {e}");
            Error::new(ErrorKind::InvalidModel, problem).caused_by(e)
        })?;
        Ok(if self.provider.is_gpu() {
            Lane::pinned(session, device).with(permit)
        } else {
            Lane::of(session)
        })
    }

    /// The GPU of session `index`: each in turn, or, where memory is permitted, the next that has
    /// room for what the session may take.
    fn place(&self, index: usize) -> Result<(i32, Option<Permit>)> {
        let count = self.devices.len();
        let mut in_turn = (0..count).map(|i| self.devices[(index + i) % count]);
        let bytes = self.gpu.arena(self.provider);
        match (&self.gpu.permits, bytes, self.provider.is_gpu()) {
            (Some(permits), Some(bytes), true) => {
                let permit = permits.take(in_turn, bytes)?;
                Ok((permit.device(), Some(permit)))
            }
            _ => Ok((in_turn.next().unwrap_or(0), None)),
        }
    }

    fn builder(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        // A thread that spins after its part of an operator takes the core from decoding and
        // resampling, of this request and of others.
        Ok(Session::builder(environment)?
            .with_intra_op_spinning(false)?
            .with_intra_threads(self.threads)?
            .with_config_entry(placement::RECORD, "1")?)
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

/// The single input's name and the shapes of input and output.
fn describe(session: &Session) -> Result<(String, NetworkShape), String> {
    let [input] = session.inputs() else {
        return Err(format!("the network has {} inputs; one is supported", session.inputs().len()));
    };
    let [output, ..] = session.outputs() else {
        return Err("the network has no output".to_owned());
    };
    let inputs = dimensions("input", input.dtype())?;
    let outputs = dimensions("output", output.dtype())?;
    if inputs.len() != outputs.len() {
        return Err(format!(
            "the network's input has {} dimensions, its output {}",
            inputs.len(),
            outputs.len()
        ));
    }
    let (batch, input_channels, spatial, planar) = match inputs[..] {
        [batch, channels, x, y] => (batch, channels, [x, y, Some(1)], true),
        [batch, channels, x, y, z] => (batch, channels, [x, y, z], false),
        _ => return Err(wrong_dimensions("input", inputs.len())),
    };
    let shape =
        NetworkShape { batch, input_channels, spatial, output_channels: outputs[1], planar };
    Ok((input.name().to_owned(), shape))
}

fn wrong_dimensions(what: &str, count: usize) -> String {
    format!("the network's {what} has {count} dimensions in place of 5 (N, C, X, Y, Z), or 4")
}

/// The sizes of four or five dimensions.
fn dimensions(what: &str, value: &ValueType) -> Result<Vec<Option<usize>>, String> {
    let ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } = value else {
        return Err(format!("the network's {what} is not an f32 tensor"));
    };
    match shape.len() {
        4 | 5 => Ok(shape.iter().map(|&d| usize::try_from(d).ok()).collect()),
        count => Err(wrong_dimensions(what, count)),
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
}

impl OnnxNetwork {
    /// Runs a batch in the next session that is free.
    fn run_in_turn(&self, batch: ArrayView5<f32>, sessions: &Sessions) -> Result<DynValue> {
        let batch = if self.shape.planar {
            if batch.dim().4 != 1 {
                return Err(Error::internal("a network for slices was given a volume"));
            }
            batch.index_axis_move(Axis(4), 0).into_dyn()
        } else {
            batch.into_dyn()
        };
        let mut taken = sessions.take()?;
        let result = taken.session()?.run(&self.input, batch, &self.output).map_err(failed)?;
        // The session is free for the next batch while this result is blended.
        result.ok_or_else(|| Error::internal("the network's output is not there"))
    }

    /// A result with axes (N, classes, X, Y, Z).
    fn view<'r>(&self, result: &'r DynValue) -> Result<ArrayView5<'r, f32>> {
        let result = result.try_extract_array::<f32>().map_err(failed)?;
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

fn failed(e: ort::Error) -> Error {
    Error::new(ErrorKind::InvalidModel, format!("the network failed: {e}")).caused_by(e)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inference::GpuPermits;

    #[test]
    fn sessions_go_round_the_gpus_and_past_full_ones() {
        let opening = |provider, permits: Option<&Arc<GpuPermits>>| Opening {
            path: PathBuf::new(),
            threads: 1,
            provider,
            devices: vec![2, 5],
            gpu: GpuSettings {
                memory: Some(60),
                permits: permits.cloned(),
                ..GpuSettings::default()
            },
        };
        let free = opening(Provider::Cuda, None);
        assert_eq!([0, 1, 2].map(|i| free.place(i).unwrap().0), [2, 5, 2]);
        let permits = Arc::new(GpuPermits::of(130));
        let held = opening(Provider::Cuda, Some(&permits));
        // The fifth finds both full, whichever's turn it is.
        let taken = [0, 1, 1, 3].map(|i| held.place(i).unwrap());
        assert_eq!(taken.each_ref().map(|(device, _)| *device), [2, 5, 5, 2]);
        assert_eq!(held.place(4).unwrap_err().kind(), ErrorKind::OutOfMemory);
        drop(taken);
        assert_eq!(held.place(4).unwrap().0, 2);
        let cpu = opening(Provider::Cpu, Some(&permits));
        assert!(cpu.place(0).unwrap().1.is_none(), "a CPU needs no permit");
    }

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
