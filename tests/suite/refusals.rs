//! A series with defects visible in its headers is refused before any frame is fetched.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ahi_inference::dicom::{Dataset, FrameKey, Series};
use ahi_inference::error::{Error, ErrorKind, Result};
use ahi_inference::pipeline::{self, Job};
use ahi_inference::policy::{Mismatch, Policy};
use ahi_inference::registry::{Lease, LoadOptions, Model};
use ahi_inference::request::{InputOutcome, OutputKind};
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::source::{EncodedFrame, ImageSource};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use futures::stream::BoxStream;

use super::end_to_end::phantom;

/// A source that changes headers and counts the frames requested from it.
struct Changed<F> {
    files: DicomFiles,
    change: F,
    asked: AtomicUsize,
    /// The series as read from the files.
    own: Mutex<Option<Series>>,
}

#[async_trait::async_trait]
impl<F: Fn(&mut Series) + Send + Sync> ImageSource for Changed<F> {
    async fn series(&self) -> Result<Series> {
        let mut series = self.files.series().await?;
        *self.own.lock().unwrap() = Some(series.clone());
        (self.change)(&mut series);
        Ok(series)
    }

    fn frames(&self, _: &Series, keys: Vec<FrameKey>) -> BoxStream<'static, Result<EncodedFrame>> {
        self.asked.fetch_add(keys.len(), Ordering::SeqCst);
        self.files.frames(self.own.lock().unwrap().as_ref().unwrap(), keys)
    }
}

fn edit(series: &mut Series, index: usize, edit: impl Fn(&mut Dataset)) {
    let mut dataset = (*series.instances[index].dataset).clone();
    edit(&mut dataset);
    series.instances[index].dataset = Arc::new(dataset);
}

fn put(tag: dicom_core::Tag, vr: VR, value: &'static str) -> impl Fn(&mut Dataset) {
    move |dataset| {
        dataset.put(DataElement::new(tag, vr, value));
    }
}

async fn run(
    files: &Path,
    bundle: &Path,
    policy: Policy,
    change: impl Fn(&mut Series) + Send + Sync,
) -> (Result<Vec<InputOutcome>, Error>, usize) {
    run_job(files, bundle, change, |job| Job { policy, ..job }).await
}

async fn run_job(
    files: &Path,
    bundle: &Path,
    change: impl Fn(&mut Series) + Send + Sync,
    wanted: impl FnOnce(Job) -> Job,
) -> (Result<Vec<InputOutcome>, Error>, usize) {
    let files = DicomFiles::new(files, None);
    let source = Changed { files, change, asked: AtomicUsize::new(0), own: Mutex::default() };
    let job = Job {
        outputs: vec![OutputKind::DicomSeg, OutputKind::Nifti],
        input: None,
        ..Job::of(Lease::unregistered(
            Model::load("phantom", bundle, &LoadOptions::default()).unwrap(),
        ))
    };
    let result = pipeline::run(&source, None, wanted(job)).await;
    (result, source.asked.load(Ordering::SeqCst))
}

/// Creates a copy of the phantom model's bundle with this modality and `serving.json`.
fn bundle(folder: &Path, modality: &str, serving: &serde_json::Value) -> std::path::PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/ct_phantom");
    let to = folder.join(format!("bundle-{modality}"));
    for name in ["configs/inference.json", "configs/metadata.json", "models/model.onnx"] {
        std::fs::create_dir_all(to.join(name).parent().unwrap()).unwrap();
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let path = to.join("configs/metadata.json");
    let mut metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    metadata["network_data_format"]["inputs"]["image"]["modality"] = modality.into();
    std::fs::write(&path, metadata.to_string()).unwrap();
    std::fs::write(to.join("serving.json"), serving.to_string()).unwrap();
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_of_what_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "32", "8").await;
    let files = folder.path().join("p/dicom");
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/ct_phantom");
    let policy = Policy::default();

    let (result, asked) = run(&files, &bundle, policy, |series| {
        edit(series, 3, put(tags::PATIENT_ID, VR::LO, "somebody else"));
    })
    .await;
    let e = result.unwrap_err();
    assert!(e.message().contains("PatientID") && !e.message().contains("somebody"), "{e}");
    assert_eq!((e.kind(), asked), (ErrorKind::InvalidImage, 0));

    let (result, asked) = run(&files, &bundle, policy, |series| {
        series.instances[2].sop_instance_uid = "no UID".to_owned();
    })
    .await;
    assert!(result.unwrap_err().message().contains("SOP Instance"));
    assert_eq!(asked, 0);

    // Leading zeros in a UID are not worth losing a result.
    let (result, asked) = run(&files, &bundle, policy, |series| {
        series.instances[2].sop_instance_uid = "1.2.03".to_owned();
    })
    .await;
    let outcome = result.unwrap().remove(0);
    assert_eq!(asked, 8);
    assert!(outcome.report["warnings"].to_string().contains("leading zeros"));
    // The segment in each output.
    assert_eq!(outcome.report["segments"][1]["in"]["dicom-seg"]["segmentNumber"], 2);
    assert_eq!(outcome.report["segments"][1]["in"]["nifti"]["value"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_the_model_was_not_made_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "32", "8").await;
    let files = folder.path().join("p/dicom");
    let warn = Policy { mismatch: Mismatch::Warn, ..Policy::default() };

    let mri = bundle(folder.path(), "MRI", &serde_json::json!({}));
    let (result, asked) = run(&files, &mri, Policy::default(), |_| {}).await;
    let e = result.unwrap_err();
    assert_eq!((e.kind(), asked), (ErrorKind::InvalidImage, 0));
    assert!(e.message().contains("its Modality is CT, the model was made for MR"), "{e}");
    assert_eq!(e.details()["attribute"], "Modality");
    let (result, _) = run(&files, &mri, warn, |_| {}).await;
    let report = result.unwrap().remove(0).report;
    assert!(report["warnings"].to_string().contains("made for MR"), "{}", report["warnings"]);

    // Another spelling of the same modality, and a value that says nothing.
    for modality in ["ct", "n/a"] {
        let same = bundle(folder.path(), modality, &serde_json::json!({}));
        assert!(run(&files, &same, Policy::default(), |_| {}).await.0.is_ok(), "{modality}");
    }

    let rules = serde_json::json!({
        "images": [{"name": "image", "conditions": {"SeriesDescription": "no such text"}}],
    });
    let ruled = bundle(folder.path(), "CT", &rules);
    let (result, asked) = run(&files, &ruled, Policy::default(), |_| {}).await;
    let e = result.unwrap_err();
    assert_eq!(asked, 0);
    assert!(e.message().contains("serving.json"), "{e}");
    assert!(run(&files, &ruled, warn, |_| {}).await.0.is_ok());
    // The package may set this policy itself.
    let lenient = serde_json::json!({"images": rules["images"], "policy": {"mismatch": "warn"}});
    let lenient = bundle(folder.path(), "CT2", &lenient);
    let model = Model::load("phantom", &lenient, &LoadOptions::default()).unwrap();
    assert_eq!(model.policy.mismatch, Some(Mismatch::Warn));
}

/// Creates a copy of the phantom model's bundle whose channels are independent masks.
fn masks(folder: &Path) -> std::path::PathBuf {
    let bundle = bundle(folder, "CT", &serde_json::json!({}));
    let path = bundle.join("configs/inference.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let steps = config["postprocessing"]["transforms"].as_array_mut().unwrap();
    let step = steps.iter_mut().find(|step| step["_target_"] == "AsDiscreted").unwrap();
    *step = serde_json::json!({"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5});
    std::fs::write(&path, config.to_string()).unwrap();
    bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_are_no_label_map_and_nothing_is_fetched_for_one() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "32", "8").await;
    let files = folder.path().join("p/dicom");
    let bundle = masks(folder.path());
    let label_map = |segments: &[&str]| {
        let segments = segments.iter().map(|label| (*label).to_owned()).collect();
        |job| Job { outputs: vec![OutputKind::DicomSegLabelmap], segments, ..job }
    };
    let (result, asked) = run_job(&files, &bundle, |_| {}, label_map(&[])).await;
    let e = result.unwrap_err();
    assert_eq!((e.kind(), asked), (ErrorKind::InvalidRequest, 0));
    assert!(e.message().contains("ask for dicom-seg"), "{e}");
    assert_eq!(e.details()["field"], "outputs");

    // A single segment cannot overlap.
    let model = Model::load("phantom", &bundle, &LoadOptions::default()).unwrap();
    let label = model.segments[1].label.clone();
    let (result, asked) = run_job(&files, &bundle, |_| {}, label_map(&[&label])).await;
    let outcome = result.unwrap().remove(0);
    assert_eq!(asked, 8);
    assert_eq!(outcome.artifacts[0].kind, OutputKind::DicomSegLabelmap);
    assert_eq!(outcome.report["segments"][0]["in"]["dicom-seg-labelmap"]["segmentNumber"], 1);

    // A package that lists an output it cannot produce is invalid.
    std::fs::write(bundle.join("serving.json"), r#"{"outputs": ["dicom-seg-labelmap"]}"#).unwrap();
    let e = Model::load("phantom", &bundle, &LoadOptions::default()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::InvalidModel);
    assert!(e.message().contains("serving.json: outputs"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_one_segmentation_is_of_the_packages_type() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "32", "8").await;
    let files = folder.path().join("p/dicom");
    for (outputs, kind) in [
        (serde_json::json!(["nifti", "dicom-seg-labelmap"]), OutputKind::DicomSegLabelmap),
        (serde_json::json!(["nifti"]), OutputKind::DicomSeg),
    ] {
        let serving = serde_json::json!({"outputs": outputs});
        let bundle = bundle(folder.path(), "CT", &serving);
        let single = |job| Job { outputs: Vec::new(), single: true, ..job };
        let outcome = run_job(&files, &bundle, |_| {}, single).await.0.unwrap().remove(0);
        let kinds: Vec<OutputKind> = outcome.artifacts.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [kind]);
    }
}
