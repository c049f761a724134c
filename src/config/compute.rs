//! What the network runs on.

use clap::{Args, ValueEnum};

use super::parse::bounded;

/// Flags about computing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    /// ONNX Runtime execution provider; one that is named must work, `auto` takes the best there is
    #[arg(long, env = "EXECUTION_PROVIDERS", value_enum, default_value_t, value_name = "PROVIDER")]
    pub execution_providers: ExecutionProvider,
    /// Threads for decoding, resampling and a network on the CPU [default: one per core]
    #[arg(long, env = "CPU_THREADS", value_name = "N", value_parser = bounded::<1, 1024>)]
    pub threads: Option<usize>,
}

/// Computing, as the network and the CPU pool use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeSettings {
    /// The execution provider asked for.
    pub execution_provider: ExecutionProvider,
    /// Threads of the CPU pool, at least 1.
    pub threads: usize,
}

/// An ONNX Runtime execution provider, as an operator asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExecutionProvider {
    /// The best one that works here.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU; an error where it cannot be used.
    Cuda,
}

impl ComputeArgs {
    /// The settings; the number of cores is what this process may use.
    pub fn settings(self) -> ComputeSettings {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ComputeSettings {
            execution_provider: self.execution_providers,
            threads: self.threads.unwrap_or_else(cores),
        }
    }
}
