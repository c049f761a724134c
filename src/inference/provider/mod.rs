//! Chooses the execution provider for networks from what is available, and reports the reason.

mod bf16;
mod libraries;
mod probe;

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider as _, ArenaExtendStrategy, CUDA,
    ExecutionProviderDispatch, OpenVINO, TensorRT, cuda::ConvAlgorithmSearch,
};
pub use probe::Machine;

use super::gpu_permits::GpuPermits;
use crate::bundle::{ConvolutionSearch, CpuPrecision, Execution};
use crate::error::{Error, ErrorKind, Result};

/// Which execution provider to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProviderChoice {
    /// CUDA if it works, otherwise the CPU: with OpenVINO if its library is present and accepts the
    /// model, else with ONNX Runtime's own kernels.
    #[default]
    Auto,
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// An NVIDIA GPU with CUDA, or an error.
    Cuda,
    /// An NVIDIA GPU with TensorRT, and CUDA for unsupported operators, or an error.
    TensorRt,
    /// The CPU with OpenVINO, or an error.
    OpenVino,
}

/// An execution provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// NVIDIA's CUDA.
    Cuda,
    /// NVIDIA's TensorRT.
    TensorRt,
    /// Intel's OpenVINO, on the CPU.
    OpenVino,
}

impl Provider {
    /// Returns ONNX Runtime's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::OpenVino => "OpenVINOExecutionProvider",
        }
    }

    /// Whether it runs on a GPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    /// Returns ONNX Runtime's own library files that contain the provider.
    fn libraries(self) -> &'static [&'static str] {
        const CUDA: &str = "libonnxruntime_providers_cuda.so";
        match self {
            Self::Cpu => &[],
            Self::Cuda => &["libonnxruntime_providers_shared.so", CUDA],
            Self::TensorRt => &[
                "libonnxruntime_providers_shared.so",
                CUDA,
                "libonnxruntime_providers_tensorrt.so",
            ],
            Self::OpenVino => {
                &["libonnxruntime_providers_shared.so", "libonnxruntime_providers_openvino.so"]
            }
        }
    }

    /// Returns the command that installs a build with this provider.
    fn build(self) -> &'static str {
        match self {
            Self::OpenVino => "scripts/get-onnxruntime.sh without --slim, on x86-64,",
            _ => "scripts/get-onnxruntime.sh --gpu",
        }
    }

    /// Returns the libraries that it loads by name at run time.
    fn by_name(self) -> &'static [&'static str] {
        if self.is_gpu() { &["libcuda.so.1", "libcudnn.so.9"] } else { &[] }
    }

    /// Returns the source of the libraries that it needs.
    fn vendor(self) -> &'static str {
        match self.is_gpu() {
            true => "CUDA 13 and cuDNN 9 have them (TensorRT 10 libnvinfer, the driver libcuda)",
            false => "OpenVINO's belong beside it",
        }
    }
}

/// The chosen provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The provider.
    pub provider: Provider,
    /// The GPUs it may use, in CUDA's numbering; empty on the CPU.
    pub devices: Vec<i32>,
    /// Why a better provider was not chosen, if one would have been preferred.
    pub reason: Option<String>,
}

impl Chosen {
    /// Chooses the CPU, with the reason unless it was requested.
    pub fn cpu(reason: Option<String>) -> Self {
        Self { provider: Provider::Cpu, devices: Vec::new(), reason }
    }
}

/// Resolves `choice` to a provider on `machine`, with the ONNX Runtime in the file `library`, for a
/// model that a CPU computes in `precision`.
///
/// # Errors
/// [`ErrorKind::Configuration`] if an explicitly requested provider cannot be used. The message names
/// everything that is missing; there is no fallback to another provider. The same applies to an
/// explicitly requested precision that the CPU or its provider does not support.
pub fn choose(
    choice: ProviderChoice,
    precision: CpuPrecision,
    machine: &Machine,
    library: &Path,
) -> Result<Chosen> {
    let chosen = match choice {
        ProviderChoice::Cpu => Chosen::cpu(None),
        ProviderChoice::Auto => best(machine, library),
        ProviderChoice::Cuda => named(Provider::Cuda, machine, library)?,
        ProviderChoice::TensorRt => named(Provider::TensorRt, machine, library)?,
        ProviderChoice::OpenVino => named(Provider::OpenVino, machine, library)?,
    };
    ensure_precision(&chosen, precision, machine)?;
    Ok(chosen)
}

/// Returns the fastest available provider, and why it is not a faster one.
fn best(machine: &Machine, library: &Path) -> Chosen {
    let (devices, no_gpu) = machine.gpu(Provider::Cuda, library);
    if no_gpu.is_empty() {
        return Chosen { provider: Provider::Cuda, devices, reason: None };
    }
    let no_gpu = no_gpu.join("; ");
    let no_openvino = machine.libraries(Provider::OpenVino, library);
    if no_openvino.is_empty() {
        return Chosen {
            provider: Provider::OpenVino,
            devices: Vec::new(),
            reason: Some(format!("no GPU: {no_gpu}")),
        };
    }
    let no_openvino = no_openvino.join("; ");
    Chosen::cpu(Some(format!("no GPU: {no_gpu}; no OpenVINO: {no_openvino}")))
}

fn named(provider: Provider, machine: &Machine, library: &Path) -> Result<Chosen> {
    let (devices, missing) = match provider.is_gpu() {
        true => machine.gpu(provider, library),
        false => (Vec::new(), machine.libraries(provider, library)),
    };
    if missing.is_empty() {
        return Ok(Chosen { provider, devices, reason: None });
    }
    Err(Error::new(
        ErrorKind::Configuration,
        format!(
            "{} was asked for (EXECUTION_PROVIDERS) and cannot be used: {}",
            provider.name(),
            missing.join("; ")
        ),
    ))
}

/// Checks that a CPU supports the precision; GPUs have their own precisions.
fn ensure_precision(chosen: &Chosen, precision: CpuPrecision, machine: &Machine) -> Result<()> {
    if precision == CpuPrecision::F32 || chosen.provider.is_gpu() {
        return Ok(());
    }
    let why = match chosen.provider {
        Provider::OpenVino => bf16::missing(&machine.root),
        _ => Some(match &chosen.reason {
            Some(reason) => format!("only OpenVINO computes in it ({reason})"),
            None => "only OpenVINO computes in it (EXECUTION_PROVIDERS=cpu asks for other kernels)"
                .to_owned(),
        }),
    };
    match why {
        None => Ok(()),
        Some(why) => Err(precision_unusable(precision, &why)),
    }
}

/// Creates the error for a requested precision that is not available.
pub(super) fn precision_unusable(precision: CpuPrecision, why: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "precision {} was asked for (CPU_PRECISION, or execution.cpuPrecision of serving.json) and \
             cannot be used: {why}; ask for f32",
            precision.name()
        ),
    )
}

/// Settings for sessions on a GPU.
#[derive(Debug, Clone, Default)]
pub struct GpuSettings {
    /// The model's own settings.
    pub execution: Execution,
    /// Total bytes of a GPU's memory for the arenas of the network's sessions on it.
    pub memory: Option<usize>,
    /// Permits for that memory, if the sum over all models is limited.
    pub permits: Option<Arc<GpuPermits>>,
    /// Folder for TensorRT's engines.
    pub engines: Option<std::path::PathBuf>,
}

impl GpuSettings {
    /// Returns how many sessions of the network share one device of `provider`.
    pub(super) fn sessions_on_one(&self, provider: Provider) -> usize {
        match provider.is_gpu() {
            true => self.execution.sessions_per_gpu.map_or(1, NonZero::get),
            false => 1,
        }
    }

    /// Returns the bytes that the arena of each of these sessions may use.
    pub(super) fn arena(&self, provider: Provider) -> Option<usize> {
        self.memory.map(|bytes| bytes / self.sessions_on_one(provider))
    }
}

/// Returns the providers to register with a session of `threads` threads on `device`, in order of
/// preference. Each must work. `precision` applies to a CPU.
pub(super) fn providers(
    provider: Provider,
    device: i32,
    threads: usize,
    precision: CpuPrecision,
    settings: &GpuSettings,
) -> Vec<ExecutionProviderDispatch> {
    let cuda = || {
        let search = match settings.execution.convolution_search {
            ConvolutionSearch::Heuristic => ConvAlgorithmSearch::Heuristic,
            ConvolutionSearch::Exhaustive => ConvAlgorithmSearch::Exhaustive,
            ConvolutionSearch::Default => ConvAlgorithmSearch::Default,
        };
        // Windows have one size, so the arena grows once: to the exact size, not to a power of two.
        let mut cuda = CUDA::default()
            .with_device_id(device)
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_conv_algorithm_search(search)
            .with_tf32(settings.execution.tf32);
        if let Some(memory) = settings.arena(provider) {
            cuda = cuda.with_memory_limit(memory);
        }
        cuda.build().error_on_failure()
    };
    let tensorrt = || {
        let mut tensorrt =
            TensorRT::default().with_device_id(device).with_fp16(settings.execution.tensorrt_fp16);
        if let Some(engines) = &settings.engines {
            let engines = engines.display();
            tensorrt = tensorrt
                .with_engine_cache(true)
                .with_engine_cache_path(&engines)
                .with_timing_cache(true)
                .with_timing_cache_path(&engines);
        }
        tensorrt.build().error_on_failure()
    };
    let openvino = || {
        // The precision is set explicitly: by default, OpenVINO uses whatever the CPU has instructions
        // for. Its threads are not pinned, because other work needs the cores too.
        let config = serde_json::json!({"CPU": {
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_PRECISION_HINT": precision.name(),
        }});
        let openvino = OpenVINO::default()
            .with_device_type("CPU")
            .with_num_threads(threads)
            .with_arbitrary_config("load_config", config);
        openvino.build().error_on_failure()
    };
    match provider {
        Provider::Cpu => Vec::new(),
        Provider::OpenVino => vec![openvino()],
        Provider::Cuda => vec![cuda()],
        Provider::TensorRt => vec![tensorrt(), cuda()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_had_or_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let machine =
            Machine { root: root.path().to_owned(), library_path: None, visible_devices: None };
        let of = |provider, flags: &str| {
            std::fs::write(root.path().join("proc/cpuinfo"), format!("flags : {flags}\n")).unwrap();
            let chosen = Chosen { provider, devices: Vec::new(), reason: None };
            ensure_precision(&chosen, CpuPrecision::Bf16, &machine)
        };
        assert!(of(Provider::OpenVino, "avx512_bf16").is_ok());
        assert!(of(Provider::Cuda, "").is_ok(), "a GPU has its own");
        for (provider, part) in
            [(Provider::OpenVino, "no instructions"), (Provider::Cpu, "only OpenVINO")]
        {
            let e = of(provider, "avx2").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Configuration);
            assert!(e.message().contains(part) && e.message().contains("CPU_PRECISION"), "{e}");
        }
        let cpu = Chosen::cpu(None);
        assert!(ensure_precision(&cpu, CpuPrecision::F32, &machine).is_ok());
    }

    #[test]
    fn sessions_on_one_gpu_share_its_bound() {
        let of = |sessions: usize, memory| GpuSettings {
            execution: Execution {
                sessions_per_gpu: NonZero::new(sessions),
                ..Execution::default()
            },
            memory,
            permits: None,
            engines: None,
        };
        assert_eq!(of(0, Some(900)).sessions_on_one(Provider::Cuda), 1);
        assert_eq!(of(3, Some(900)).sessions_on_one(Provider::TensorRt), 3);
        assert_eq!(of(3, Some(900)).sessions_on_one(Provider::Cpu), 1);
        assert_eq!(of(3, Some(900)).arena(Provider::Cuda), Some(300));
        assert_eq!(of(0, Some(900)).arena(Provider::Cuda), Some(900));
        assert_eq!(of(3, None).arena(Provider::Cuda), None);
    }
}
