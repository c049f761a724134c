//! Compares results with MONAI's own (`reference/goldens`, created by `make_goldens.py`).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ahi_inference::bundle::{Args, Component};
use ahi_inference::error::{ErrorKind, Result};
use ahi_inference::inference::{NetworkSettings, OnnxNetwork, PlaneSink, SlidingWindowInferer};
use ahi_inference::postprocess::{
    Activation, Discretise, Inverse, InvertSpec, LabelOperation, PostPlan, Segmentation, Segmenter,
};
use ahi_inference::progress::Silent;
use ahi_inference::transforms::{Image, build};
use ahi_inference::volume::Affine;
use ndarray::{Array, Array2, Array4, Array5, ArrayView3, Dimension, ShapeBuilder};
use ndarray_npy::{NpzReader, ReadableElement};
use serde_json::{Value, json};

use super::common::shared;

/// One `.npz` file of the reference.
pub struct Golden {
    path: PathBuf,
}

impl Golden {
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn name(&self) -> String {
        self.path.file_stem().unwrap().to_string_lossy().into_owned()
    }

    pub fn array<T: ReadableElement, D: Dimension>(&self, name: &str) -> Array<T, D> {
        let mut npz = NpzReader::new(File::open(&self.path).unwrap()).unwrap();
        npz.by_name(name).unwrap_or_else(|e| panic!("{} {name}: {e}", self.path.display()))
    }

    /// Returns the JSON that describes the transforms applied, stored as a NumPy scalar of UCS-4 text.
    pub fn spec(&self) -> Value {
        let mut zip = zip::ZipArchive::new(File::open(&self.path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        zip.by_name("spec.npy").unwrap().read_to_end(&mut bytes).unwrap();
        let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        let text: String = bytes[10 + header..]
            .chunks_exact(4)
            .map(|c| char::from_u32(u32::from_le_bytes(c.try_into().unwrap())).unwrap())
            .collect();
        serde_json::from_str(text.trim_end_matches('\0')).unwrap()
    }

    pub fn affine(&self, name: &str) -> Affine {
        let m: Array2<f64> = self.array(name);
        Affine(std::array::from_fn(|r| std::array::from_fn(|c| m[[r, c]])))
    }
}

/// Returns all goldens whose names start with `prefix`. If the reference is missing, prints why and returns
/// none.
pub fn goldens(prefix: &str) -> Vec<Golden> {
    let Some(folder) = shared("reference/goldens") else { return Vec::new() };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let name = p.file_name().unwrap().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".npz")
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no golden begins with {prefix}");
    found.iter().map(|p| Golden::open(p)).collect()
}

/// Builds a component as the bundle reader would.
pub fn component(value: &Value, index: usize) -> Component {
    let mut args = value.as_object().unwrap().clone();
    let target = args.remove("_target_").unwrap().as_str().unwrap().to_owned();
    if let Some(body) = args.get("select_fn").cloned() {
        args.insert("select_fn".into(), json!({"$lambda": {"params": ["x"], "body": body}}));
    }
    Component { target, args, path: format!("preprocessing#transforms#{index}") }
}

/// Returns the largest absolute difference.
pub fn difference<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    ndarray::Zip::from(a).and(b).fold(0.0, |worst, x, y| worst.max((x - y).abs()))
}

/// Copies an array so that its first spatial axis runs fastest in memory, as in decoded slices.
pub fn slices_first(a: &Array4<f32>) -> Array4<f32> {
    let mut f = Array4::zeros(a.dim().f());
    f.assign(a);
    f
}

fn check_transforms(prefix: &str) {
    let mut wrong = Vec::new();
    for golden in goldens(prefix) {
        let input: Array4<f32> = golden.array("input");
        let expected: Array4<f32> = golden.array("output");
        if expected.is_empty() {
            refuses(&golden, input);
            continue;
        }
        for data in [input.clone(), slices_first(&input)] {
            let mut image = Image::new(data, golden.affine("affine"));
            for (i, spec) in golden.spec().as_array().unwrap().iter().enumerate() {
                if let Some(transform) = build(&component(spec, i)).unwrap() {
                    image = transform.apply(image).unwrap();
                }
            }
            let worst = difference(&image.data, &expected);
            eprintln!("{}: largest difference {worst:e}", golden.name());
            if worst > 1e-4 {
                wrong.push(format!("{}: {worst}", golden.name()));
            }
            let expected_affine = golden.affine("output_affine");
            for (a, b) in image.affine.0.iter().flatten().zip(expected_affine.0.iter().flatten()) {
                assert!((a - b).abs() <= 1e-6, "{}: affine {:?}", golden.name(), image.affine);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An image without foreground is an error here, whereas MONAI continues with an image without voxels.
fn refuses(golden: &Golden, input: Array4<f32>) {
    let spec = golden.spec();
    let transform = build(&component(&spec[0], 0)).unwrap().unwrap();
    let error = transform.apply(Image::new(input, golden.affine("affine"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage, "{}", golden.name());
    eprintln!("{}: {error}", golden.name());
}

#[test]
fn orientation() {
    check_transforms("orientation_");
}

#[test]
fn spacing() {
    check_transforms("spacing_");
}

#[test]
fn single_transforms() {
    check_transforms("transform_");
}

/// A sink that keeps the blended result.
#[derive(Default)]
struct Collect {
    result: Array4<f32>,
}

impl PlaneSink for Collect {
    fn begin(&mut self, classes: usize, [x, y, z]: [usize; 3]) -> Result<()> {
        self.result = Array4::from_elem((classes, x, y, z), f32::NAN);
        Ok(())
    }

    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        for (i, plane) in planes.iter().enumerate() {
            self.result.slice_mut(ndarray::s![.., x + i, y..y + plane.dim().1, ..]).assign(plane);
        }
        Ok(())
    }
}

#[test]
fn sliding_window() {
    for golden in goldens("sliding_") {
        let spec = golden.spec();
        let mut parts = component(&spec, 0);
        let model = parts.args.remove("model").unwrap();
        let mut args = Args::new(&parts);
        let inferer = SlidingWindowInferer::from_args(&mut args).unwrap();
        args.finish().unwrap();
        let path = shared(&format!("reference/goldens/{}", model.as_str().unwrap())).unwrap();
        let settings =
            NetworkSettings { side_by_side: inferer.sw_batch_size, ..NetworkSettings::default() };
        let network = OnnxNetwork::load(&path, &settings).unwrap();
        let input: Array5<f32> = golden.array("input");
        let expected: Array5<f32> = golden.array("output");
        let input = input.remove_axis(ndarray::Axis(0));
        for data in [input.clone(), slices_first(&input)] {
            let mut collect = Collect::default();
            inferer.run(data.view(), &network, &mut collect, &Silent).unwrap();
            let worst =
                difference(&collect.result, &expected.index_axis(ndarray::Axis(0), 0).to_owned());
            eprintln!("{}: largest difference {worst:e}", golden.name());
            assert!(worst <= 1e-4, "{}: {worst}", golden.name());
        }
    }
}

/// Feeds a whole result to the segmenter, a few planes at a time.
pub fn segment(plan: &PostPlan, image: &Image, logits: &Array4<f32>) -> Segmentation {
    let mut segmenter = Segmenter::new(plan.clone(), &image.applied, image.dims()).unwrap();
    segmenter.begin(logits.dim().0, image.dims()).unwrap();
    let planes: Vec<_> = logits.axis_iter(ndarray::Axis(1)).collect();
    for (i, chunk) in planes.chunks(3).enumerate() {
        segmenter.planes(i * 3, 0, chunk).unwrap();
    }
    segmenter.finish().unwrap()
}

#[test]
fn chains() {
    let transforms = serde_json::json!([
        {"_target_": "Orientationd", "axcodes": "RAS"},
        {"_target_": "Spacingd", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
        {"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": true},
        {"_target_": "EnsureTyped"}
    ]);
    for golden in goldens("chain_") {
        let argmax = golden.name().ends_with("argmax");
        let input = slices_first(&golden.array("input"));
        let mut image = Image::new(input, golden.affine("affine"));
        for (i, spec) in transforms.as_array().unwrap().iter().enumerate() {
            if let Some(transform) = build(&component(spec, i)).unwrap() {
                image = transform.apply(image).unwrap();
            }
        }
        let worst = difference(&image.data, &golden.array("preprocessed"));
        assert!(worst <= 1e-4, "{}: preprocessed {worst}", golden.name());

        let logits: Array4<f32> = golden.array("logits");
        let activation = if argmax { Activation::Softmax } else { Activation::Sigmoid };
        let inverse = Inverse::new(&image.applied, image.dims(), false).unwrap();
        let mut activated = Vec::new();
        let inverted: Array4<f32> = golden.array("inverted");
        let mut all = logits.clone();
        for (mut plane, source) in
            all.axis_iter_mut(ndarray::Axis(1)).zip(logits.axis_iter(ndarray::Axis(1)))
        {
            activation.apply(source, &mut activated);
            plane.iter_mut().zip(&activated).for_each(|(t, &v)| *t = v);
        }
        for (class, values) in all.outer_iter().enumerate() {
            let back = inverse.apply(values).unwrap();
            let worst = difference(&back, &inverted.index_axis(ndarray::Axis(0), class).to_owned());
            assert!(worst <= 1e-4, "{}: inverted {worst}", golden.name());
        }

        let plan = PostPlan {
            activation,
            before: None,
            invert: Some(InvertSpec { nearest: false }),
            after: Some(if argmax { Discretise::Argmax } else { Discretise::Threshold(0.5) }),
            ..PostPlan::default()
        };
        let expected: Array4<u8> = golden.array("label");
        let labels = match segment(&plan, &image, &logits) {
            Segmentation::Labels(labels) => labels.insert_axis(ndarray::Axis(0)),
            Segmentation::Masks(masks) => masks,
            Segmentation::Sets(_) => panic!("sets"),
        };
        assert_eq!(labels.shape(), expected.shape(), "{}", golden.name());
        let differing: Vec<_> = labels
            .indexed_iter()
            .zip(&expected)
            .filter(|((_, a), b)| a != b)
            .map(|(((_, x, y, z), _), _)| [x, y, z])
            .collect();
        eprintln!("{}: {} of {} labels differ", golden.name(), differing.len(), labels.len());
        // PyTorch's softmax has a larger error than this, so such voxels are ties.
        for [x, y, z] in differing {
            let values = inverted.slice(ndarray::s![.., x, y, z]);
            let mut sorted = values.to_vec();
            sorted.sort_by(f32::total_cmp);
            let gap = sorted[sorted.len() - 1] - sorted[sorted.len() - 2];
            assert!(argmax && gap < 1e-6, "{} at {:?}: {sorted:?}", golden.name(), [x, y, z]);
        }
    }
}

#[test]
fn operations_on_labels() {
    let mut wrong = Vec::new();
    for golden in goldens("post_") {
        let input: Array4<f32> = golden.array("input");
        let expected: Array4<f32> = golden.array("output");
        let spec = component(&golden.spec()[0], 0);
        let mut args = Args::new(&spec);
        let operation = LabelOperation::from_args(&spec.target, &mut args).unwrap().unwrap();
        args.finish().unwrap();
        for data in [input.clone(), slices_first(&input)] {
            let labels = data.index_axis_move(ndarray::Axis(0), 0).mapv(|v| v as u8);
            let mut segmentation = Segmentation::Labels(labels);
            operation.apply(&mut segmentation).unwrap();
            let Segmentation::Labels(labels) = segmentation else { panic!("masks") };
            let expected = expected.index_axis(ndarray::Axis(0), 0);
            let differing =
                labels.iter().zip(expected).filter(|(a, b)| f32::from(**a) != **b).count();
            eprintln!("{}: {differing} of {} labels differ", golden.name(), labels.len());
            if differing > 0 {
                wrong.push(format!("{}: {differing} labels, {}", golden.name(), golden.spec()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns a result whose largest class is the label of each voxel.
fn logits_of(labels: &ndarray::Array3<u8>, classes: usize) -> Array4<f32> {
    let (x, y, z) = labels.dim();
    Array4::from_shape_fn((classes, x, y, z), |(c, x, y, z)| {
        f32::from(labels[[x, y, z]] as usize == c)
    })
}

#[test]
fn operations_run_on_their_grid() {
    let mut labels = ndarray::Array3::<u8>::zeros((9, 8, 7));
    labels.slice_mut(ndarray::s![1..4, 1..4, 1..4]).fill(1);
    labels[[2, 2, 2]] = 0;
    labels[[7, 6, 5]] = 1;
    labels[[0, 7, 0]] = 2;
    let flip = json!({"_target_": "Orientationd", "axcodes": "LPS"});
    let affine = Affine([
        [2.0, 0.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
        [0.0, 0.0, 3.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]);
    let image = Image::new(Array4::zeros((1, 9, 8, 7)), affine);
    let image = build(&component(&flip, 0)).unwrap().unwrap().apply(image).unwrap();
    let mut expected = labels.clone();
    expected[[7, 6, 5]] = 0;
    expected[[2, 2, 2]] = 1;
    // The network sees the image flipped along x and y.
    let seen = labels.slice(ndarray::s![..;-1, ..;-1, ..]).to_owned();
    let operations = [
        json!({"_target_": "KeepLargestConnectedComponentd"}),
        json!({"_target_": "FillHolesd", "applied_labels": [1]}),
    ];
    let invert = json!({"_target_": "Invertd", "nearest_interp": false});
    let argmax = json!({"_target_": "AsDiscreted", "argmax": true});
    let onehot = json!({"_target_": "AsDiscreted", "threshold": 0.5});
    let [largest, fill] = operations;
    for (masks, chain) in [
        (false, [&argmax, &largest, &fill, &invert]),
        (false, [&argmax, &largest, &invert, &fill]),
        (false, [&invert, &argmax, &largest, &fill]),
        (true, [&onehot, &largest, &fill, &invert]),
        (true, [&invert, &onehot, &largest, &fill]),
    ] {
        let chain: Vec<_> = chain.iter().enumerate().map(|(i, c)| component(c, i)).collect();
        let plan = PostPlan::new(&chain).unwrap();
        match segment(&plan, &image, &logits_of(&seen, 3)) {
            Segmentation::Labels(found) => assert_eq!((masks, found), (false, expected.clone())),
            Segmentation::Sets(_) => panic!("sets"),
            Segmentation::Masks(found) => {
                assert!(masks);
                for label in 1..3u8 {
                    let mask = expected.mapv(|v| u8::from(v == label));
                    assert_eq!(found.index_axis(ndarray::Axis(0), label as usize), mask);
                }
            }
        }
    }
}
