//! Reads a MONAI bundle: `configs/inference.json` (or `.yaml`), `configs/metadata.json`,
//! `models/model.onnx`.
//!
//! The configuration language (monai.bundle `ConfigParser`) is read without Python. Items are found by
//! id through `@` references and `%` macros (`documents`, `id`), supported Python expressions are
//! evaluated (`expression`), and only what the preprocessing, the inferer and the postprocessing need
//! is resolved (`resolver`, `chain`, `roots`). The result is neutral ([`BundleConfig`], [`Component`]):
//! this module does not know whether a transform can be run.
//!
//! Bundles are untrusted. Reading one executes nothing, opens no file outside its folder, never panics,
//! and is limited in work, memory and depth.

mod anatomy;
pub mod args;
mod chain;
mod check;
pub mod component;
mod config;
mod cycles;
mod documents;
mod execution;
mod expression;
mod id;
mod json;
mod metadata;
mod network_part;
mod problem;
mod report;
mod resolver;
mod roots;
mod segments;
pub mod serving;
mod unique;
mod value;
mod yaml;

use std::path::{Path, PathBuf};

pub use args::Args;
pub use check::{CheckReport, CheckedComponent, CheckedStage, Outcome, Stage, check_report};
pub use component::Component;
pub use config::BundleConfig;
pub use execution::{ConvolutionSearch, CpuPrecision, Execution};
pub use metadata::{Extent, NetworkFormat, TensorFormat};
pub use network_part::NetworkPart;
pub use problem::Problem;
pub use segments::{ResultForm, segment_descriptions};

use crate::error::{Error, ErrorKind, Result};

/// The network file, relative to the bundle.
pub(crate) const MODEL_FILE: &str = "models/model.onnx";

/// A bundle ready to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// Its configuration.
    pub config: BundleConfig,
    /// Its folder.
    pub root: PathBuf,
    /// Its network, `models/model.onnx`.
    pub model_path: PathBuf,
}

impl Bundle {
    /// Reads the bundle in `dir`. The network file must exist but is not opened.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ModelNotFound`] if `dir` is not a folder or has no network;
    /// [`ErrorKind::InvalidModel`] if the configuration cannot be used. The message and the details
    /// `file` and `path` name the file and the JSON path at fault.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = BundleConfig::read(dir)?;
        let model_path = dir.join(MODEL_FILE);
        if !model_path.is_file() {
            let message = format!("{}: {MODEL_FILE} {}", dir.display(), model_missing());
            return Err(Error::new(ErrorKind::ModelNotFound, message).with("file", MODEL_FILE));
        }
        Ok(Self { config, root: dir.to_owned(), model_path })
    }
}

/// Whether a folder contains a bundle's configuration.
pub fn is_bundle(dir: &Path) -> bool {
    config::configuration(dir).is_some()
}

fn model_missing() -> &'static str {
    "is missing: export the bundle's network to ONNX with the script in `model/`"
}

#[cfg(test)]
mod tests;
