//! Flags of `run`: one series of files to its outputs, without a server.

use std::path::PathBuf;

use clap::Args;

use crate::config::ComputeArgs;

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Folder of DICOM Part 10 files, searched with its subfolders
    #[arg(value_name = "DICOM_DIR", env = "DICOM_DIR")]
    pub dicom: PathBuf,
    /// MONAI bundle to run
    #[arg(long, env = "MODEL_DIR", value_name = "BUNDLE")]
    pub model: PathBuf,
    /// Folder to write the outputs to
    #[arg(long, env = "OUTPUT_DIR", value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub compute: ComputeArgs,
}
