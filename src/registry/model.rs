//! A model: a bundle with its transforms built, its network loaded and its segments described.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array4;

use super::digest::digest;
use super::findings::{Findings, Place};
use super::fit;
use crate::bundle::serving::Serving;
use crate::bundle::{
    Bundle, BundleConfig, CpuPrecision, Execution, ResultForm, segment_descriptions,
};
use crate::config::{ComputeSettings, CpuPrecisionChoice, ExecutionProvider};
use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::dicom::selection::Selection;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::{
    BrokenNetworks, GpuPermits, GpuSettings, Inferer, Network, NetworkSettings, NetworkShape,
    OnnxNetwork, PlaneSink, ProviderChoice, WIDEST_LAYER,
};
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::postprocess::PostPlan;
use crate::progress::Silent;
use crate::request::{OutputKind, SegmentationChoice};
use crate::transforms::Preprocessing;

/// Options for loading models.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Execution provider.
    pub provider: ProviderChoice,
    /// Why ONNX Runtime's own CPU kernels are used if they were not requested.
    pub reason: Option<String>,
    /// Precision on a CPU; `None` means that of the package.
    pub cpu_precision: Option<CpuPrecision>,
    /// File in `models/` to run instead of any other.
    pub network: Option<String>,
    /// Whether to ignore `cpuModel` and `gpuModel` of the package.
    pub original: bool,
    /// Folder for cached measurements; `None` means next to the models.
    pub cache: Option<PathBuf>,
    /// Threads of the network; `None` means ONNX Runtime's default (one per core).
    pub threads: Option<usize>,
    /// Whether to run windows of constant value through the network each time.
    pub every_window: bool,
    /// The GPUs to use; empty means all.
    pub gpu_devices: Vec<i32>,
    /// GPU memory limit of the model, in bytes.
    pub gpu_memory: Option<usize>,
    /// Permits for GPU memory, shared by all models of a process.
    pub gpu_permits: Option<Arc<GpuPermits>>,
    /// Counts the models whose network is broken.
    pub broken: BrokenNetworks,
}

impl From<&ComputeSettings> for LoadOptions {
    fn from(settings: &ComputeSettings) -> Self {
        let provider = match settings.execution_provider {
            ExecutionProvider::Auto => ProviderChoice::Auto,
            ExecutionProvider::Cpu => ProviderChoice::Cpu,
            ExecutionProvider::Cuda => ProviderChoice::Cuda,
            ExecutionProvider::Tensorrt => ProviderChoice::TensorRt,
            ExecutionProvider::Openvino => ProviderChoice::OpenVino,
        };
        Self {
            provider,
            reason: None,
            cpu_precision: settings.cpu_precision.map(|precision| match precision {
                CpuPrecisionChoice::F32 => CpuPrecision::F32,
                CpuPrecisionChoice::Bf16 => CpuPrecision::Bf16,
            }),
            network: None,
            original: false,
            cache: settings.model_cache.clone(),
            threads: Some(settings.threads),
            every_window: settings.every_window,
            gpu_devices: settings.gpu_devices.clone(),
            gpu_memory: settings.gpu_memory,
            gpu_permits: settings.gpu_memory_budget.map(|bytes| Arc::new(GpuPermits::of(bytes))),
            broken: BrokenNetworks::default(),
        }
    }
}

/// A model ready for requests.
pub struct Model {
    /// The name used in requests.
    pub name: String,
    /// Its bundle.
    pub bundle: Bundle,
    /// The preprocessing steps, in order.
    pub preprocessing: Preprocessing,
    /// The names of the images in one input: one per key of the bundle or, for a bundle with one
    /// key, one per input channel of the network.
    pub images: Vec<String>,
    /// Rules that assign unnamed images, in the same order; empty if the package has none.
    pub selections: Vec<Selection>,
    /// Runs an image through the network.
    pub inferer: Inferer,
    /// The postprocessing steps.
    pub postprocessing: PostPlan,
    /// The network.
    pub network: OnnxNetwork,
    /// SHA-256, in hexadecimal, of everything in the package that affects a result.
    pub digest: String,
    /// The meaning of the voxels in a result.
    pub form: ResultForm,
    /// One description per foreground class.
    pub segments: Vec<SegmentDescription>,
    /// Name and version of the algorithm, for written objects.
    pub algorithm: Algorithm,
    /// Series description of written objects, if the package sets one.
    pub series_description: Option<String>,
    /// The outputs produced if a request does not list any.
    pub outputs: Vec<OutputKind>,
    /// How DICOM SEG objects are encoded, as far as the package specifies it.
    pub segmentation: SegmentationChoice,
    /// How series that are not clean stacks are handled, as far as the package specifies it.
    pub policy: PolicyChoice,
    /// Which volume of a series to use if a request does not specify one.
    pub volume: Option<VolumeChoice>,
    /// Bytes that the model keeps, if known from the cache.
    pub(super) bytes: Option<u64>,
    place: Place,
}

impl Model {
    /// Reads a model package and loads its network.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ModelNotFound`] or [`ErrorKind::InvalidModel`], naming the file and the JSON
    /// path at fault; [`ErrorKind::Configuration`] if ONNX Runtime is missing.
    pub fn load(name: &str, dir: &Path, options: &LoadOptions) -> Result<Self> {
        let named = |e: Error| e.with("model", name);
        Self::read(name, dir, options).map_err(named)
    }

    fn read(name: &str, dir: &Path, options: &LoadOptions) -> Result<Self> {
        let bundle = Bundle::open(dir)?;
        let config = &bundle.config;
        let preprocessing = Preprocessing::new(&config.preprocessing, &config.image_keys)?;
        let inferer = Inferer::from_component(&config.inferer, preprocessing.plane_across)?
            .with_every_window(options.every_window);
        let postprocessing = PostPlan::new(&config.postprocessing)?;
        let serving = Serving::read(&dir.join("serving.json"))?;
        let channel_def =
            config.network.outputs.first().map(|o| o.channel_def.clone()).unwrap_or_default();
        let mut execution = execution(serving.as_ref())?;
        if options.original {
            execution.cpu_model = None;
            execution.gpu_model = None;
        }
        if let Some(name) = &options.network {
            execution.cpu_model = Some(name.clone());
            execution.gpu_model = Some(name.clone());
            ensure_names(&execution, "--network")?;
        }
        let settings = NetworkSettings {
            provider: options.provider,
            reason: options.reason.clone(),
            cpu_precision: options.cpu_precision.or(execution.cpu_precision).unwrap_or_default(),
            threads: options.threads,
            side_by_side: inferer.batch_size(),
            window: inferer.fixed_window(NetworkShape::default()),
            gpu: GpuSettings {
                execution,
                memory: options.gpu_memory,
                permits: options.gpu_permits.clone(),
                engines: engines(options.provider, &bundle.model_path),
            },
            devices: options.gpu_devices.clone(),
            broken: options.broken.clone(),
        };
        let mut network = OnnxNetwork::load(&bundle.model_path, &settings)?;
        let described = config.network.outputs.first().and_then(|o| o.num_channels);
        fit::ensure(config, &inferer, network.shape())?;
        let window = inferer.fixed_window(network.shape());
        let identity = format!("{} {window:?}", network.identity());
        let place = Place::of(&identity, network.file(), options.cache.as_deref());
        let known = place.read();
        match (known, window) {
            (Some(found), _) => network.follow(found.plan),
            (None, Some(window)) => network.ensure_precision(window)?,
            (None, None) => {}
        }
        let images = image_names(config, network.shape().input_channels);
        let channels = network.shape().output_channels.or(described).unwrap_or(channel_def.len());
        let form = postprocessing.form(channels)?;
        check_classes(channels)?;
        let segments = segment_descriptions(&channel_def, serving.as_ref(), &form)?;
        let serving = serving.unwrap_or_default();
        let selections = selections(&serving, &images)?;
        let mut algorithm = serving.algorithm.unwrap_or_else(|| {
            let version = if config.version.is_empty() { "unknown" } else { &config.version };
            Algorithm::new(&truncated(&config.name, 64), &truncated(version, 64))
        });
        algorithm.check()?;
        algorithm.parameters = Some(format!("network SHA-256={}", network.sha256()));
        let outputs =
            if serving.outputs.is_empty() { vec![OutputKind::DicomSeg] } else { serving.outputs };
        check_outputs(&outputs, &form, segments.len())?;
        Ok(Self {
            name: name.to_owned(),
            digest: digest(dir, network.sha256())?,
            preprocessing,
            images,
            selections,
            inferer,
            postprocessing,
            network,
            form,
            segments,
            algorithm,
            series_description: serving.series_description,
            outputs,
            segmentation: serving.segmentation,
            policy: serving.policy,
            volume: serving.volume,
            bytes: known.map(|found| found.bytes),
            place,
            bundle,
        })
    }

    /// Measures which run plan is fastest for the network's windows, if their size is fixed.
    ///
    /// # Errors
    /// Propagates the errors of running the network.
    pub(super) fn tune(&mut self) -> Result<()> {
        match self.inferer.fixed_window(self.network.shape()) {
            Some(window) => self.network.tune(window),
            None => Ok(()),
        }
    }

    /// Caches the measurements for the next time the model is loaded.
    pub(super) fn keep_findings(&self, bytes: u64) {
        self.place.write(Findings { plan: self.network.plan(), bytes });
    }

    /// Runs one full batch of windows: the first request does not pay for ONNX Runtime's first run,
    /// a network that cannot run is detected early, and the arena grows to its final size.
    pub fn warm_up(&self) -> Result<()> {
        let channels = self.network.shape().input_channels.unwrap_or(1);
        // A full batch, and a single window if a separate session runs those.
        let alone = self.network.has_lanes().then_some(1);
        for windows in [self.inferer.batch_size()].into_iter().chain(alone) {
            let dims = self.batch_extent(windows);
            // Voxels must differ: windows of constant value are run only once.
            let shape = (channels, dims[0], dims[1], dims[2]);
            let value = |(_, x, y, z)| ((x + y + z) % 97) as f32 * 1e-2;
            let image = Array4::from_shape_fn(shape, value);
            self.inferer
                .run(image.view(), &self.network, &mut Discard, &Silent)
                .map_err(|e| match e.kind() {
                    // The window size comes from the package itself.
                    ErrorKind::InvalidImage => {
                        Error::new(ErrorKind::InvalidModel, e.message().to_owned()).caused_by(e)
                    }
                    _ => e,
                })
                .map_err(|e| e.context("warm-up").with("model", self.name.as_str()))?;
        }
        Ok(())
    }

    /// Checks that the network works as far as is known.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it kept failing, even in new sessions.
    pub fn ensure_usable(&self) -> Result<()> {
        self.network.ensure_usable().map_err(|e| e.with("model", self.name.as_str()))
    }

    /// Estimates the largest buffers of a run of `windows` windows, in bytes.
    pub(super) fn buffers(&self, windows: usize) -> u64 {
        let voxels: u64 = self.batch_extent(windows).iter().map(|&n| n as u64).product();
        voxels.saturating_mul(WIDEST_LAYER * size_of::<f32>() as u64)
    }

    /// Returns the size of an image of `windows` windows.
    fn batch_extent(&self, windows: usize) -> [usize; 3] {
        const OTHERWISE: usize = 32;
        self.inferer.batch_extent(self.network.shape(), windows, OTHERWISE)
    }
}

/// Returns the `execution` settings of `serving.json`.
fn execution(serving: Option<&Serving>) -> Result<Execution> {
    let execution = serving.map(|s| s.execution.clone()).unwrap_or_default();
    ensure_names(&execution, "serving.json: execution")?;
    Ok(execution)
}

/// Checks that the network files named are directly in `models/`.
fn ensure_names(execution: &Execution, place: &str) -> Result<()> {
    let others = [("gpuModel", &execution.gpu_model), ("cpuModel", &execution.cpu_model)];
    for (field, name) in others {
        if let Some(name) = name
            && (Path::new(name).components().count() != 1 || name.contains(".."))
        {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{place}: {field}: the name of a file in models/ is wanted"),
            ));
        }
    }
    Ok(())
}

/// Returns the folder for TensorRT engines next to the model, if it is writable.
fn engines(provider: ProviderChoice, model: &Path) -> Option<PathBuf> {
    let folder = model.with_file_name("tensorrt");
    if provider != ProviderChoice::TensorRt {
        return None;
    }
    match std::fs::create_dir_all(&folder) {
        Ok(()) => Some(folder),
        Err(e) => {
            tracing::warn!(error = %e, "TensorRT's engines cannot be kept beside the model");
            None
        }
    }
}

/// Returns the package's rules for its images, in their order: none, or one per image.
fn selections(serving: &Serving, images: &[String]) -> Result<Vec<Selection>> {
    let fault =
        |why: String| Error::new(ErrorKind::InvalidModel, format!("serving.json: images: {why}"));
    let same = |a: &str, b: &str| a.trim().to_lowercase() == b.trim().to_lowercase();
    if serving.images.is_empty() {
        return Ok(Vec::new());
    }
    if serving.images.len() != images.len() {
        return Err(fault(format!("give one rule for each of: {}", images.join(", "))));
    }
    images
        .iter()
        .map(|image| {
            let rule = serving.images.iter().find(|rule| same(&rule.name, image));
            let rule = rule.ok_or_else(|| fault(format!("there is no rule for {image}")))?;
            Selection::new(&rule.conditions)
                .map_err(|e| e.context(format!("serving.json: images: {image}")))
        })
        .collect()
}

/// Returns the names of the images in one input.
fn image_names(config: &BundleConfig, channels: Option<usize>) -> Vec<String> {
    let [key] = &config.image_keys[..] else { return config.image_keys.clone() };
    let input = config.network.inputs.first();
    match channels.or(input.and_then(|i| i.num_channels)).unwrap_or(1) {
        0 | 1 => vec![key.clone()],
        count => (0..count)
            .map(|channel| {
                let name = input.and_then(|i| i.channel_def.get(&channel)).map(|name| name.trim());
                name.filter(|n| !n.is_empty()).map_or_else(|| channel.to_string(), str::to_owned)
            })
            .collect(),
    }
}

/// Checks the number of classes: labels are bytes, so more are rejected before the first image.
fn check_classes(channels: usize) -> Result<()> {
    const MOST: usize = 256;
    if channels <= MOST {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidModel,
        format!("the network has {channels} classes; at most {MOST} are supported"),
    ))
}

/// Checks that the package's outputs can be produced from its results.
fn check_outputs(outputs: &[OutputKind], form: &ResultForm, segments: usize) -> Result<()> {
    OutputKind::check_together(outputs).map_err(|e| {
        let message = format!("serving.json: outputs: {}", e.message());
        Error::new(ErrorKind::InvalidModel, message).with("path", "outputs")
    })?;
    if outputs.contains(&OutputKind::DicomSegLabelmap) && form.overlaps(segments) {
        return Err(Error::new(
            ErrorKind::InvalidModel,
            "serving.json: outputs: the model's segments may overlap, and a DICOM SEG of type LABELMAP has one \
             segment for each pixel; list dicom-seg instead of dicom-seg-labelmap",
        )
        .with("path", "outputs"));
    }
    Ok(())
}

fn truncated(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect::<String>().trim().to_owned()
}

struct Discard;

impl PlaneSink for Discard {
    fn begin(&mut self, _: usize, _: [usize; 3]) -> Result<()> {
        Ok(())
    }

    fn planes(&mut self, _: usize, _: usize, _: &[ndarray::ArrayView3<f32>]) -> Result<()> {
        Ok(())
    }
}
