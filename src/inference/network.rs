//! A network that maps a batch of windows to a batch of results, and ONNX Runtime's form of it.

use std::path::Path;
use std::sync::Mutex;

use ndarray::{ArrayView5, Axis, Ix5};
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::runtime::runtime;
use crate::error::{Error, ErrorKind, Result};

/// What is fixed of a network's input and output; `None` for a dimension it leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A segmentation network.
pub trait Network: Send + Sync {
    /// What is fixed of its shape.
    fn shape(&self) -> NetworkShape;

    /// Runs a batch (N, C, X, Y, Z) in standard layout and hands the result (N, classes, X, Y, Z)
    /// to `take`.
    fn run(
        &self,
        batch: ArrayView5<f32>,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()>;
}

/// Which execution provider to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProviderChoice {
    /// The best that is there.
    #[default]
    Auto,
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// An NVIDIA GPU. This build cannot use one: asking for it is an error, never a silent fall back.
    Cuda,
}

/// An ONNX model in a session of ONNX Runtime.
pub struct OnnxNetwork {
    // `Session::run` wants exclusive access; on a CPU one batch uses all threads anyway.
    session: Mutex<Session>,
    input: String,
    shape: NetworkShape,
}

impl OnnxNetwork {
    /// Loads a model file. A file that ONNX Runtime cannot load, or whose input or output is not a
    /// single f32 tensor of five dimensions (four for slices), is [`ErrorKind::InvalidModel`] naming the file.
    pub fn load(path: &Path, threads: Option<usize>, provider: ProviderChoice) -> Result<Self> {
        let name = path.display();
        if provider == ProviderChoice::Cuda {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the CUDA execution provider was asked for, but this build has none; \
                 set EXECUTION_PROVIDERS to auto or cpu",
            ));
        }
        if !path.is_file() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{name} is not there; model/export_monai_bundle.py makes it"),
            ));
        }
        let invalid =
            |e: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidModel, format!("{name}: {e}"));
        let environment = &runtime()?.environment;
        // The cause goes along: its code tells a broken file from want of memory.
        let session = builder(environment, threads)
            .map_err(|e| invalid(&e).caused_by(e))?
            .commit_from_file(path)
            .map_err(|e| invalid(&format!("ONNX Runtime cannot load it: {e}")).caused_by(e))?;
        let (input, shape) = describe(&session).map_err(|e| invalid(&e))?;
        Ok(Self { session: Mutex::new(session), input, shape })
    }

    /// Bytes the session's arena took from the system so far: weights and the buffers of its runs.
    /// `None` where ONNX Runtime keeps no account of them. Waits for a run to end.
    pub fn arena_bytes(&self) -> Option<u64> {
        let session = self.session.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        super::arena::allocated(&session)
    }

    /// Name of the execution provider that runs the network.
    pub fn provider(&self) -> &'static str {
        "CPUExecutionProvider"
    }
}

fn builder(
    environment: &ort::environment::Environment,
    threads: Option<usize>,
) -> ort::Result<ort::session::builder::SessionBuilder> {
    let mut builder = Session::builder(environment)?;
    if let Some(threads) = threads {
        builder = builder.with_intra_threads(threads)?;
    }
    Ok(builder)
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

    fn run(
        &self,
        batch: ArrayView5<f32>,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        let failed = |e: ort::Error| {
            Error::new(ErrorKind::InvalidModel, format!("the network failed: {e}")).caused_by(e)
        };
        let input = if self.shape.planar {
            if batch.dim().4 != 1 {
                return Err(Error::internal("a network for slices was given a volume"));
            }
            TensorRef::from_array_view(batch.index_axis_move(Axis(4), 0)).map(|t| t.into_dyn())
        } else {
            TensorRef::from_array_view(batch).map(|t| t.into_dyn())
        }
        .map_err(failed)?;
        // A panic while the session was in use left nothing of ours half done in it.
        let mut session = self.session.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let outputs = session.run(ort::inputs![self.input.as_str() => input]).map_err(failed)?;
        let result = outputs[0].try_extract_array::<f32>().map_err(failed)?;
        let dims = result.shape().to_vec();
        let result = if self.shape.planar { result.insert_axis(Axis(dims.len())) } else { result };
        let result = result.into_dimensionality::<Ix5>().map_err(|_| {
            Error::new(
                ErrorKind::InvalidModel,
                format!("the network gave a result of shape {dims:?} in place of (N, C, X, Y, Z)"),
            )
        })?;
        take(result)
    }
}
