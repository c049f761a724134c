//! Loads models from disk and measures the memory they take.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{LoadOptions, Model, ModelLocation};
use crate::error::{Error, ErrorKind, Result};
use crate::inference::{Provider, ProviderChoice, or_out_of_memory};
use crate::memory;

/// Loads models. Called on blocking threads.
pub trait Loader<M>: Send + Sync {
    /// Estimates the bytes needed while the model loads, without loading it.
    ///
    /// # Errors
    /// Fails if the model is invalid.
    fn estimate(&self, location: &ModelLocation) -> Result<u64>;

    /// Loads the model and runs it once; returns the model and the bytes it keeps.
    ///
    /// # Errors
    /// Fails if the model is invalid; [`ErrorKind::OutOfMemory`] if there is not enough memory for
    /// it.
    fn load(&self, location: &ModelLocation) -> Result<(M, u64)>;
}

/// Loads MONAI bundles.
#[derive(Debug, Clone)]
pub struct BundleLoader(pub LoadOptions);

/// Memory of a network while it loads, as a multiple of its weights on disk: the file's contents
/// (twice if its norms are rewritten) and the weights in the layout of the kernels.
const WEIGHTS_WHILE_LOADING: u64 = 3;

/// Memory of a session besides its arena (graph, kernels, thread stacks) and of a bundle's
/// transforms. Less than 1 MiB was measured for small networks; it grows with the number of
/// operators.
const BESIDE_ARENA: u64 = 8 << 20;

/// First guess for the buffers of a small batch of windows. It only rejects what cannot fit before
/// it is tried; the measured usage is counted afterwards.
const FIRST_RUN: u64 = 32 << 20;

/// Extensions of files in a bundle's `models` folder that are not the served network.
const OTHER_FORMS: [&str; 4] = ["pt", "ts", "pth", "md"];

impl Loader<Model> for BundleLoader {
    fn estimate(&self, location: &ModelLocation) -> Result<u64> {
        let weights = weights(&location.path.join("models"))?;
        Ok(weights.saturating_mul(WEIGHTS_WHILE_LOADING).saturating_add(BESIDE_ARENA + FIRST_RUN))
    }

    fn load(&self, location: &ModelLocation) -> Result<(Model, u64)> {
        let estimate = self.estimate(location)?;
        let model = self.read(location, estimate, &self.0)?;
        // A model that ran here before will run again. It keeps at least its weights, whatever the
        // cache says.
        if let Some(bytes) = model.bytes {
            return Ok((model, bytes.max(estimate / WEIGHTS_WHILE_LOADING)));
        }
        drop(model);
        self.try_out(location, estimate)
    }
}

/// Held while a model's memory is measured, so that concurrent loads are not counted towards it.
static MEASURING: Mutex<()> = Mutex::new(());

impl BundleLoader {
    fn read(
        &self,
        location: &ModelLocation,
        estimate: u64,
        options: &LoadOptions,
    ) -> Result<Model> {
        Model::load(&location.name, &location.path, options)
            .map_err(|e| or_out_of_memory(e, estimate, memory::available()))
    }

    /// Loads a model without cached measurements, runs it, and measures what it keeps.
    fn try_out(&self, location: &ModelLocation, estimate: u64) -> Result<(Model, u64)> {
        let _one_at_a_time = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        memory::trim();
        let before = memory::anonymous();
        let mut model = self.read(location, estimate, &self.0)?;
        if let Err(e) = prove(&mut model) {
            let options = self.instead(&model, &e).ok_or(e)?;
            drop(model);
            model = self.read(location, estimate, &options)?;
            prove(&mut model)?;
        }
        let bytes = match model.network.arena_bytes() {
            Some(arena) => arena + BESIDE_ARENA,
            None => {
                memory::trim();
                let plan = model.network.plan();
                let most = estimate.saturating_add(model.buffers(plan.lanes * plan.batch));
                let kept =
                    memory::anonymous().zip(before).map(|(now, then)| now.saturating_sub(then));
                // Concurrent requests allocate and release memory, too, so limit the measurement to
                // a plausible range.
                let least = estimate / WEIGHTS_WHILE_LOADING;
                kept.unwrap_or(most).clamp(least.min(most), most)
            }
        };
        model.keep_findings(bytes);
        Ok((model, bytes))
    }

    /// Returns the options for loading a model on the CPU kernels if OpenVINO loaded it but cannot
    /// run it, unless OpenVINO was requested explicitly.
    fn instead(&self, model: &Model, failure: &Error) -> Option<LoadOptions> {
        let openvino = model.network.provider() == Provider::OpenVino.name();
        if !openvino
            || self.0.provider != ProviderChoice::Auto
            || failure.kind() == ErrorKind::OutOfMemory
            || model.network.is_lowered()
        {
            return None;
        }
        let reason = format!("OpenVINO cannot run the network: {}", failure.message());
        tracing::warn!(model = model.name, error = %failure, "OpenVINO cannot run it; using ONNX Runtime's CPU kernels");
        let provider = ProviderChoice::Cpu;
        Some(LoadOptions { provider, reason: Some(reason), ..self.0.clone() })
    }
}

/// Runs a model for the first time: tuning and warm-up.
fn prove(model: &mut Model) -> Result<()> {
    model.tune().map_err(|e| e.context("warm-up").with("model", model.name.as_str()))?;
    model.warm_up()
}

/// Returns the total size of the network's files: ONNX keeps weights beyond 2 GB in separate files.
fn weights(folder: &Path) -> Result<u64> {
    let unreadable = |e| {
        let message = format!("{} cannot be read", folder.display());
        Error::new(ErrorKind::InvalidModel, message).caused_by(e)
    };
    let mut total = 0_u64;
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Follows symbolic links: some stores keep large files elsewhere.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        let path = entry.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if metadata.is_file() && !OTHER_FORMS.contains(&extension) {
            total = total.saturating_add(metadata.len());
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_weights_count_and_other_forms_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path().join("models");
        fs::create_dir(&models).unwrap();
        for (name, size) in [("model.onnx", 1000), ("model.onnx.data", 5000), ("model.pt", 9000)] {
            fs::write(models.join(name), vec![0; size]).unwrap();
        }
        let location = ModelLocation { name: "m".to_owned(), path: dir.path().to_owned() };
        let estimate = BundleLoader(LoadOptions::default()).estimate(&location).unwrap();
        assert_eq!(estimate, 3 * 6000 + BESIDE_ARENA + FIRST_RUN);
        let nowhere = ModelLocation { path: dir.path().join("absent"), ..location };
        let error = BundleLoader(LoadOptions::default()).estimate(&nowhere).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
    }
}
