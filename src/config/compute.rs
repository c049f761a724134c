//! Compute settings: execution provider, precision, threads and GPUs.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::parse::bounded;

/// Flags about computing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    /// ONNX Runtime execution provider; one that is named must work, `auto` takes the best there is: a GPU, else
    /// OpenVINO, else ONNX Runtime's own CPU kernels
    #[arg(long, env = "EXECUTION_PROVIDERS", value_enum, default_value_t, value_name = "PROVIDER")]
    pub execution_providers: ExecutionProvider,
    /// GPUs to use, by CUDA's numbers, separated by commas [default: all that are visible]
    #[arg(long, env = "GPU_DEVICES", value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(i32).range(0..1024))]
    pub gpu_devices: Vec<i32>,
    /// Bytes of a GPU's memory that one model may take there [default: what there is]
    #[arg(long, env = "GPU_MEMORY_BYTES", value_name = "BYTES",
          value_parser = bounded::<1_048_576, { usize::MAX }>)]
    pub gpu_memory: Option<usize>,
    /// Bytes of each GPU's memory that all models may take together; each counts with its
    /// `GPU_MEMORY_BYTES`, and one that has no room is refused [default: no bound]
    #[arg(long, env = "GPU_MEMORY_BUDGET_BYTES", value_name = "BYTES", requires = "gpu_memory",
          value_parser = bounded::<1_048_576, { usize::MAX }>)]
    pub gpu_memory_budget: Option<usize>,
    /// In which precision networks run on a CPU; bf16 needs OpenVINO and a CPU with instructions for it
    /// [default: what the model package says, else f32]
    #[arg(long, env = "CPU_PRECISION", value_enum, value_name = "PRECISION")]
    pub cpu_precision: Option<CpuPrecisionChoice>,
    /// Folder where what was found out about a model on this machine is kept, so that it loads faster the
    /// next time [default: .cache beside the network's file, where that can be written]
    #[arg(long, env = "MODEL_CACHE_DIR", value_name = "DIR")]
    pub model_cache: Option<PathBuf>,
    /// Threads for decoding, resampling and a network on the CPU [default: one per core]
    #[arg(long, env = "CPU_THREADS", value_name = "N", value_parser = bounded::<1, 1024>)]
    pub threads: Option<usize>,
    /// Run every window through the network, also those that hold one value throughout (air after
    /// clipping), whose result is otherwise that of the first of them
    #[arg(long, env = "RUN_EVERY_WINDOW", default_value = "false", value_name = "BOOL",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub every_window: bool,
}

/// Settings of the network and the CPU pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeSettings {
    /// The requested execution provider.
    pub execution_provider: ExecutionProvider,
    /// The precision of networks on a CPU; `None` leaves it to the model.
    pub cpu_precision: Option<CpuPrecisionChoice>,
    /// Folder for cached measurements; `None` means next to the models.
    pub model_cache: Option<PathBuf>,
    /// Threads of the CPU pool, at least 1.
    pub threads: usize,
    /// Whether to run windows of constant value through the network each time.
    pub every_window: bool,
    /// The GPUs to use; empty means all.
    pub gpu_devices: Vec<i32>,
    /// GPU memory limit per model, in bytes.
    pub gpu_memory: Option<usize>,
    /// Memory limit of all models together on each GPU, in bytes.
    pub gpu_memory_budget: Option<usize>,
}

/// An ONNX Runtime execution provider, as an operator asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExecutionProvider {
    /// The best one that works here.
    #[default]
    Auto,
    /// The CPU, by ONNX Runtime's own kernels.
    Cpu,
    /// An NVIDIA GPU; an error where it cannot be used.
    Cuda,
    /// An NVIDIA GPU by TensorRT; an error where it cannot be used.
    Tensorrt,
    /// The CPU by OpenVINO; an error where it cannot be used.
    Openvino,
}

/// In which precision a CPU computes, as an operator asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CpuPrecisionChoice {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
}

impl ComputeArgs {
    /// Returns the settings; the default number of threads is the number of cores available to the
    /// process.
    pub fn settings(self) -> ComputeSettings {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ComputeSettings {
            execution_provider: self.execution_providers,
            cpu_precision: self.cpu_precision,
            model_cache: self.model_cache,
            threads: self.threads.unwrap_or_else(cores),
            every_window: self.every_window,
            gpu_devices: self.gpu_devices,
            gpu_memory: self.gpu_memory,
            gpu_memory_budget: self.gpu_memory_budget,
        }
    }
}
