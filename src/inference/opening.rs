//! How a session of a network's file is opened, and on which device.

use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::failure;
use super::files::NetworkFiles;
use super::gpu_permits::Permit;
use super::lane::Lane;
use super::norms::{self, Survey};
use super::placement;
use super::provider::{self, GpuSettings, Provider, ProviderChoice};
use super::runtime::runtime;
use crate::bundle::CpuPrecision;
use crate::error::{Error, ErrorKind, Result};

/// ONNX Runtime's name for the folder of weights beside a model that is in memory.
const EXTERNAL_WEIGHTS: &str = "session.model_external_initializers_file_folder_path";

/// How a session of the model file is opened.
pub(super) struct Opening {
    pub files: Arc<NetworkFiles>,
    /// The norms that are rewritten before the network is loaded.
    pub norms: Arc<Survey>,
    /// Threads in all.
    pub threads: usize,
    pub provider: Provider,
    /// In which a CPU computes.
    pub precision: CpuPrecision,
    pub devices: Vec<i32>,
    pub gpu: GpuSettings,
}

impl Opening {
    /// Session `index` of so many threads, on the GPU whose turn it is. The cause of a failure goes along: its
    /// code tells a broken file from want of memory.
    pub fn open(&self, index: usize, threads: usize) -> Result<Lane> {
        self.open_in(self.precision, index, threads)
    }

    /// The same in another precision of a CPU.
    pub fn open_in(&self, precision: CpuPrecision, index: usize, threads: usize) -> Result<Lane> {
        let (device, permit) = self.place(index)?;
        let providers = provider::providers(self.provider, device, threads, precision, &self.gpu);
        // The one that is loaded, by whichever choice.
        let environment = &runtime(ProviderChoice::Auto)?.environment;
        let mut builder = self
            .builder(environment, threads)
            .and_then(|builder| Ok(builder.with_execution_providers(providers)?))
            .map_err(|e| {
                let provider = self.provider.name();
                let problem = format!("{provider} cannot be used: {e}");
                self.unopened(ErrorKind::Configuration, problem, e)
            })?;
        let session = self.session(&mut builder)?;
        // Sessions are opened later, too; every one has to be of the network that was told of.
        self.files.ensure_unchanged()?;
        Ok(if self.provider.is_gpu() {
            Lane::pinned(session, device).with(permit)
        } else {
            Lane::of(session)
        })
    }

    /// A session of the file, or of what it is with its norms in two stages.
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

    fn builder(&self, environment: &Environment, threads: usize) -> ort::Result<SessionBuilder> {
        let folder = self.files.network().parent().unwrap_or(Path::new(""));
        // A thread that spins after its part of an operator takes the core from decoding and
        // resampling, of this request and of others.
        Ok(Session::builder(environment)?
            .with_intra_op_spinning(false)?
            .with_intra_threads(threads)?
            .with_config_entry(placement::RECORD, "1")?
            // Where weights beside the model are, of one that is not loaded from its file.
            .with_config_entry(EXTERNAL_WEIGHTS, folder.to_string_lossy())?)
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
}
