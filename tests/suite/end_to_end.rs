//! From DICOM files to labels, compared with MONAI's results for the same files.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ahi_inference::dicom::{FrameKey, Series};
use ahi_inference::error::{ErrorKind, Result};
use ahi_inference::inference::ProviderChoice;
use ahi_inference::pipeline::timings::Timings;
use ahi_inference::pipeline::{Holding, compute, frames};
use ahi_inference::policy::{Policy, Wanted};
use ahi_inference::postprocess::Segmentation;
use ahi_inference::progress::Silent;
use ahi_inference::registry::{Lease, LoadOptions, Model};
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::source::{EncodedFrame, ImageSource};
use ahi_inference::volume::plan;
use futures::StreamExt;
use futures::stream::BoxStream;
use ndarray::{Array1, Array4};

use super::common::shared;
use super::goldens::{Golden, difference};

/// Extracts the files of a zip archive into one folder.
pub fn unzip(archive: &Path, folder: &Path) {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
    for i in 0..zip.len() {
        let mut file = zip.by_index(i).unwrap();
        if file.is_file() {
            let name = Path::new(file.name()).file_name().unwrap().to_owned();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cranium_equals_monai() {
    let (Some(archive), Some(bundle), Some(reference)) = (
        shared("data/cranium_ct_dicom.zip"),
        shared("models/ct_bone_unet"),
        shared("reference/cranium_bone.npz"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    unzip(&archive, folder.path());
    let source = DicomFiles::new(folder.path(), None);
    let series = Arc::new(source.series().await.unwrap());
    assert_eq!(series.instances.len(), 108);
    let plan = Arc::new(plan(&series, &Policy::default(), Wanted::Any).unwrap().remove(0));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let options = LoadOptions { provider: ProviderChoice::Cpu, ..LoadOptions::default() };
    let model = Model::load("bone", &bundle, &options).unwrap();
    let golden = Golden::open(&reference);

    let (volume, _) =
        frames::load(&source, &series, &plan, &Silent, &Holding::nothing(), false).await.unwrap();
    let image = compute::image_of(volume, &plan.geometry).unwrap();
    let image = compute::preprocess(&model, vec![image], &Silent).unwrap();
    let expected: Array4<f32> = golden.array("preprocessed");
    let worst = difference(&image.data, &expected);
    eprintln!("preprocessed: largest difference {worst:e}");
    assert!(worst <= 1e-4);

    let (volume, stats) =
        frames::load(&source, &series, &plan, &Silent, &Holding::nothing(), true).await.unwrap();
    assert_eq!(stats.frames, 108);
    let mut timings = Timings::default();
    let computed =
        compute::segment(&model, vec![(volume, plan.geometry.clone())], &mut timings, &Silent)
            .unwrap();
    let Segmentation::Labels(labels) = computed.segmentation else { panic!("masks") };
    let shape: Array1<i64> = golden.array("label_shape");
    assert_eq!(labels.shape().iter().map(|&n| n as i64).collect::<Vec<_>>(), shape.to_vec());
    let packed: Array1<u8> = golden.array("label");
    let expected = (0..labels.len()).map(|i| packed[i / 8] >> (7 - i % 8) & 1);
    let (mut equal, mut both, mut sum) = (0usize, 0usize, 0usize);
    for (&ours, theirs) in labels.iter().zip(expected) {
        equal += usize::from(ours == theirs);
        both += usize::from(ours == 1 && theirs == 1);
        sum += usize::from(ours == 1) + usize::from(theirs == 1);
    }
    let (share, dice) = (equal as f64 / labels.len() as f64, 2.0 * both as f64 / sum as f64);
    eprintln!("labels: {:.6} % equal, Dice {dice:.7}, {}", share * 100.0, timings.to_json());
    assert!(share >= 0.9999 && dice >= 0.9995);
}

/// A source whose first transfers of each frame are broken.
struct Breaking {
    source: DicomFiles,
    transfers: Arc<Transfers>,
}

struct Transfers {
    broken: usize,
    asked: Mutex<std::collections::HashMap<FrameKey, usize>>,
}

impl Transfers {
    /// Returns the frame once it has been requested more than `broken` times. Before that, returns half of it on
    /// the first request, and other bytes on later ones.
    fn next(&self, frame: EncodedFrame) -> EncodedFrame {
        let mut asked = self.asked.lock().unwrap();
        let asked = asked.entry(frame.key).or_default();
        *asked += 1;
        match *asked {
            n if n > self.broken => frame,
            1 => EncodedFrame { data: frame.data.slice(..frame.data.len() / 2), ..frame },
            _ => EncodedFrame { data: bytes::Bytes::from_static(b"not a frame"), ..frame },
        }
    }
}

#[async_trait::async_trait]
impl ImageSource for Breaking {
    async fn series(&self) -> Result<Series> {
        self.source.series().await
    }

    fn frames(
        &self,
        series: &Series,
        keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>> {
        let transfers = self.transfers.clone();
        let frames = self.source.frames(series, keys);
        frames.map(move |frame| frame.map(|frame| transfers.next(frame))).boxed()
    }

    async fn frame_again(&self, series: &Series, key: FrameKey) -> Result<Option<EncodedFrame>> {
        Ok(self.frames(series, vec![key]).next().await.transpose()?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_comes_broken_is_asked_for_twice_more() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "32", "24").await;
    let files = || DicomFiles::new(folder.path().join("p/dicom"), None);
    let series = Arc::new(files().series().await.unwrap());
    let plan = Arc::new(plan(&series, &Policy::default(), Wanted::Any).unwrap().remove(0));
    let load = async |times| {
        let transfers = Arc::new(Transfers { broken: times, asked: Mutex::default() });
        let source = Breaking { source: files(), transfers: transfers.clone() };
        source.series().await.unwrap();
        let loaded =
            frames::load(&source, &series, &plan, &Silent, &Holding::nothing(), false).await;
        let asked = transfers.asked.lock().unwrap().values().copied().max();
        (loaded.map(|(volume, _)| volume.into_physical().unwrap()), asked.unwrap())
    };
    let (good, _) = load(0).await;
    let (mended, asked) = load(2).await;
    assert_eq!((mended.unwrap(), asked), (good.unwrap(), 3));
    let (lost, asked) = load(3).await;
    let error = lost.unwrap_err();
    assert_eq!((error.kind(), asked), (ErrorKind::CorruptFrame, 3), "{error}");
    assert!(error.details().contains_key("sopInstanceUID"), "{error:?}");
}

/// Writes a phantom's files below `folder`.
pub async fn phantom(folder: &Path, size: &str, slices: &str) {
    let flags = ["--out", folder.to_str().unwrap(), "--size", size, "--slices", slices];
    let args = <ahi_inference::phantom::PhantomArgs as FromFlags>::from_flags(&flags);
    args.run().await.unwrap();
}

/// Cancellation takes effect at the next frame, transform or window.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_stops() {
    use ahi_inference::progress::{Progress, Stage};

    struct StopAt(Stage, Mutex<bool>);
    impl Progress for StopAt {
        fn advance(&self, stage: Stage, _: usize, _: usize) {
            if stage == self.0 {
                *self.1.lock().unwrap() = true;
            }
        }
        fn is_cancelled(&self) -> bool {
            *self.1.lock().unwrap()
        }
    }

    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "96", "60").await;
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/ct_phantom");
    let model =
        Lease::unregistered(Model::load("phantom", &bundle, &LoadOptions::default()).unwrap());
    for stage in [Stage::Frames, Stage::Preprocess, Stage::Inference] {
        let job = ahi_inference::pipeline::Job {
            input: None,
            progress: Arc::new(StopAt(stage, Mutex::new(false))),
            ..ahi_inference::pipeline::Job::of(model.clone())
        };
        let source = DicomFiles::new(folder.path().join("p/dicom"), None);
        let run = ahi_inference::pipeline::run(&source, None, job);
        let e = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap_err();
        assert_eq!(e.kind(), ahi_inference::error::ErrorKind::Cancelled, "{stage:?}: {e}");
    }
}

/// Parses flags as the program parses them.
pub trait FromFlags: clap::Args + Sized {
    fn from_flags(flags: &[&str]) -> Self {
        let command = Self::augment_args(clap::Command::new("test").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(flags).unwrap()).unwrap()
    }
}

impl<T: clap::Args> FromFlags for T {}
