//! Opens sessions of a network and chooses their devices.

use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::dimensions::Dimensions;
use super::failure;
use super::files::NetworkFiles;
use super::gpu_permits::Permit;
use super::lane::Lane;
use super::norms::{self, Survey};
use super::placement;
use super::provider::{self, GpuSettings, Provider, ProviderChoice};
use super::runtime::runtime;
use super::settings::RunPlan;
use crate::bundle::CpuPrecision;
use crate::error::{Error, ErrorKind, Result};

/// ONNX Runtime's option for the folder with the external weights of a model loaded from memory.
const EXTERNAL_WEIGHTS: &str = "session.model_external_initializers_file_folder_path";

/// The settings for opening sessions of a model file.
pub(super) struct Opening {
    pub files: Arc<NetworkFiles>,
    /// Norms that are rewritten before the network is loaded.
    pub norms: Arc<Survey>,
    /// Total number of threads.
    pub threads: usize,
    pub provider: Provider,
    /// Precision of computation on a CPU.
    pub precision: CpuPrecision,
    pub devices: Vec<i32>,
    pub gpu: GpuSettings,
    /// Symbolic dimensions of the network's input; empty if the provider has no use for them.
    pub dimensions: Dimensions,
    /// Size of every window (X, Y, Z), if it is fixed.
    pub window: Option<[usize; 3]>,
}

impl Opening {
    /// Opens session `index` with `threads` threads for runs by `plan`, on the GPU whose turn it is. A failure keeps
    /// its cause: the code distinguishes a broken file from a lack of memory.
    pub fn open(&self, index: usize, threads: usize, plan: RunPlan) -> Result<Lane> {
        self.open_in(self.precision, index, threads, plan)
    }

    /// Returns the windows of every run by `plan`, if sessions are opened for that number alone.
    pub fn fixed_batch(&self, plan: RunPlan) -> Option<usize> {
        // ONNX Runtime's own kernels gain nothing from known sizes, and a GPU's batch is always full.
        (self.provider == Provider::OpenVino && plan.batch == 1).then_some(1)
    }

    /// Opens a session like [`open`](Self::open), in another CPU precision.
    pub fn open_in(
        &self,
        precision: CpuPrecision,
        index: usize,
        threads: usize,
        plan: RunPlan,
    ) -> Result<Lane> {
        let (device, permit) = self.place(index)?;
        let providers = provider::providers(self.provider, device, threads, precision, &self.gpu);
        // The runtime is already loaded by now, whichever choice loaded it.
        let environment = &runtime(ProviderChoice::Auto)?.environment;
        let mut builder = self
            .builder(environment, threads, plan)
            .and_then(|builder| Ok(builder.with_execution_providers(providers)?))
            .map_err(|e| {
                let provider = self.provider.name();
                let problem = format!("{provider} cannot be used: {e}");
                self.unopened(ErrorKind::Configuration, problem, e)
            })?;
        let session = self.session(&mut builder)?;
        // Sessions are also opened later; each must be of the network that was reported.
        self.files.ensure_unchanged()?;
        Ok(if self.provider.is_gpu() {
            Lane::pinned(session, device).with(permit)
        } else {
            Lane::of(session)
        })
    }

    /// Creates a session of the file, or of its version with two-stage norms.
    fn session(&self, builder: &mut SessionBuilder) -> Result<Session> {
        let path = self.files.network();
        let session = match self.norms.rewritable() {
            0 => builder.commit_from_file(path),
            _ => builder.commit_from_memory(&norms::rewritten(path, &self.norms)?),
        };
        session.map_err(|e| {
            let problem = format!("{}: ONNX Runtime cannot load it: {e}", path.display());
            self.unopened(ErrorKind::InvalidModel, problem, e)
        })
    }

    fn unopened(&self, kind: ErrorKind, problem: String, e: ort::Error) -> Error {
        match self.provider.is_gpu() && failure::is_device_full(&e) {
            true => failure::device_full(e),
            false => Error::new(kind, problem).caused_by(e),
        }
    }

    /// Chooses the GPU of session `index`: round-robin or, if memory is limited by permits, the next
    /// with room for the session.
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

    fn builder(
        &self,
        environment: &Environment,
        threads: usize,
        plan: RunPlan,
    ) -> ort::Result<SessionBuilder> {
        let folder = self.files.network().parent().unwrap_or(Path::new(""));
        // A thread that spins after its part of an operator takes a core away from decoding and
        // resampling, in this request and others.
        let mut builder = Session::builder(environment)?
            .with_intra_op_spinning(false)?
            .with_intra_threads(threads)?
            .with_config_entry(placement::RECORD, "1")?
            // Location of the external weights for a model loaded from memory.
            .with_config_entry(EXTERNAL_WEIGHTS, folder.to_string_lossy())?;
        for (name, size) in self.dimensions.sizes(self.fixed_batch(plan), self.window) {
            builder = builder.with_dimension_override(name, size)?;
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::GpuPermits;

    #[test]
    fn sessions_go_round_the_gpus_and_past_full_ones() {
        let opening = |provider, permits: Option<&Arc<GpuPermits>>| Opening {
            files: Arc::new(NetworkFiles::default()),
            norms: Arc::default(),
            threads: 1,
            provider,
            precision: CpuPrecision::F32,
            dimensions: Dimensions::default(),
            window: None,
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
        // The fifth session finds both GPUs full, whichever comes first.
        let taken = [0, 1, 1, 3].map(|i| held.place(i).unwrap());
        assert_eq!(taken.each_ref().map(|(device, _)| *device), [2, 5, 5, 2]);
        assert_eq!(held.place(4).unwrap_err().kind(), ErrorKind::OutOfMemory);
        drop(taken);
        assert_eq!(held.place(4).unwrap().0, 2);
        let cpu = opening(Provider::Cpu, Some(&permits));
        assert!(cpu.place(0).unwrap().1.is_none(), "a CPU needs no permit");
    }
}
