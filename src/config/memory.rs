//! Memory limits of images and work.

use clap::Args;

use super::parse::bounded;

/// Flags about memory.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// Most that images from bodies, archives and S3 may hold after decompression, those of one
    /// request and of all at once [default: a tenth of the memory, and at most 4 GiB]
    #[arg(long, env = "MAX_INPUT_BYTES", value_name = "BYTES",
          value_parser = bounded::<1024, { 1 << 40 }>)]
    pub max_input: Option<usize>,
    /// Memory for models and for the volumes, windows and results of all requests; a request that
    /// needs more is refused, one that has to wait for others does [default: what bodies, inputs and
    /// the program leave of the container's or machine's memory]
    #[arg(long, env = "WORK_MEMORY_BYTES", value_name = "BYTES",
          value_parser = bounded::<1_048_576, { 1 << 50 }>)]
    pub work_memory: Option<usize>,
}
